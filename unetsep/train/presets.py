"""Networks to choose by name; all are one class, `unetsep.unet.UNet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..config import ModelConfig
from ..spleeter import spleeter_config

# The levels of Jansson et al. (ISMIR 2017) and Spleeter.
WIDE = (16, 32, 64, 128, 256, 512)
DEFAULT = "mixing"
NETWORKS: dict[str, ModelConfig] = {
    # One network for all stems: 2.0 million parameters.
    "small": ModelConfig(),
    # The same with layers in which each bin can see all others, that of all bundled
    # checkpoints: 2.2 million.
    "mixing": ModelConfig(bin_units=32),
    # Two and a half times the parameters, where they cost little: deep down.
    "large": ModelConfig(filters=(16, 32, 64, 128, 192, 256)),
    # Theirs, for a single target: 9.8 million.
    "wide": ModelConfig(filters=WIDE),
    # Spleeter's own, a network of 9.8 million for each stem; its dropout, which only its
    # training had, is left out. It sees magnitudes at the clip's own level.
    "spleeter": spleeter_config(4, WIDE),
    # The same with the activations of Spleeter's two-stem model: LeakyReLU and ReLU.
    "spleeter-relu": dataclasses.replace(spleeter_config(4, WIDE), activation="relu"),
}


def build_model(network: str, targets: Sequence[str] | None = None) -> ModelConfig:
    """The model config of a named network.

    Parameters
    ----------
    network
        A key of `NETWORKS`.
    targets
        Stems to estimate; default: all. A single one, or some, get sigmoid masks that stay
        as they are: masks that sum to one need every stem of the mixture.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    if network not in NETWORKS:
        raise ValueError(f"there is no network {network!r}: expected {', '.join(NETWORKS)}")
    model = NETWORKS[network]
    if targets is None or set(targets) == set(model.stems):
        return model
    return dataclasses.replace(model, stems=tuple(targets), mask="sigmoid", mask_exponent=0.0)
