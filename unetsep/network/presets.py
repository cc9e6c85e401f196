"""Named configs of networks; `unetsep.network.build` makes the networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..config import STEMS, ModelConfig

# In the order of Spleeter's instrument lists, in which its graph is built.
INSTRUMENTS = {
    2: ("vocals", "accompaniment"),
    4: ("vocals", "drums", "bass", "other"),
    5: ("vocals", "piano", "drums", "bass", "other"),
}


def spleeter_config(stems: int, filters: Sequence[int], bins: int = 1024) -> ModelConfig:
    """Spleeter's network and signal path, from its code and configurations (version 2.4).

    Parameters
    ----------
    stems
        2, 4 or 5.
    filters
        Of the six levels; published: 16, 32, 64, 128, 256, 512.
    bins
        1024, or 1536 for the 16 kHz variants.
    """
    return ModelConfig(
        stems=INSTRUMENTS[stems],
        bins=bins,
        filters=tuple(filters),
        mask="softmax" if stems == 5 else "sigmoid",
        segment_frames=512,
        overlap=0.5,
        # Spleeter's STFT begins a whole window before the song, ours one hop later.
        lead_frames=1,
        pad_segments=True,
        networks="per_stem",
        input="linear",
        padding="same",
        activation="relu" if stems == 2 else "elu",
        skips="raw",
        head="dilated",
        norm_epsilon=1e-3,
        mask_exponent=2.0,
        mask_epsilon=1e-10,
    )


# The levels of Jansson et al. (ISMIR 2017) and Spleeter.
WIDE = (16, 32, 64, 128, 256, 512)
DEFAULT = "mixing"
NETWORKS: dict[str, ModelConfig] = {
    # One network for all stems: 2.0 million parameters.
    "small": ModelConfig(),
    # The same with layers that mix all bins of a frame: 2.2 million. All bundled
    # checkpoints but that of the guide are this network, some of them beside the guide.
    "mixing": ModelConfig(bin_units=32),
    # Two and a half times the parameters, in the deepest levels, where they cost little.
    "large": ModelConfig(filters=(16, 32, 64, 128, 192, 256)),
    # The network of both papers, for a single target: 9.8 million.
    "wide": ModelConfig(filters=WIDE),
    # Spleeter's network of 9.8 million for each stem, without the dropout of its training. Its
    # input is magnitudes at the clip's own level.
    "spleeter": spleeter_config(4, WIDE),
    # The same with the activations of Spleeter's two-stem model: LeakyReLU and ReLU.
    "spleeter-relu": dataclasses.replace(spleeter_config(4, WIDE), activation="relu"),
}


def preset_config(
    network: str, targets: Sequence[str] | None = None, *, stems: Sequence[str] = STEMS
) -> ModelConfig:
    """The model config of a named network.

    Parameters
    ----------
    network
        A key of `NETWORKS`.
    targets
        Stems to estimate; default: all. A subset gets plain sigmoid masks, since masks that sum
        to one need every stem of the mixture.
    stems
        The stems of the mixtures.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    if network not in NETWORKS:
        raise ValueError(f"there is no network {network!r}: expected {', '.join(NETWORKS)}")
    model = NETWORKS[network]
    if set(stems) != set(model.stems):
        model = dataclasses.replace(model, stems=tuple(stems))
    if targets is None or set(targets) == set(model.stems):
        return model
    # With one target a network per stem is a plain network, which can be a guide.
    networks = "joint" if len(targets) == 1 else model.networks
    return dataclasses.replace(
        model, stems=tuple(targets), networks=networks, mask="sigmoid", mask_exponent=0.0
    )
