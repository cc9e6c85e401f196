"""The networks of a model, or of several models, and the mean of their masks."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .config import common_config
from .dsp.spectrogram import magnitudes, powers
from .dsp.threads import OwnThread
from .network.build import for_inference
from .network.devices import device_lock
from .network.inference import InferenceNetwork
from .network.low_band import fine_inputs
from .network.masks import MaskNetwork, gate_, ratio_masks
from .weights.load import load_checkpoint
from .weights.manifest import model_name
from .weights.model import Model

# The channels of a stereo pair are separated singly if one is so many dB softer than the other, or
# if their coherence is less than this: one side of a record that is dead or has hiss alone, or a
# band on the left and its singer on the right. Networks learned from no such pairs, and stems of
# both channels were up to 7 dB worse (docs/research/default-model.md). No excerpt of MUSDB18 is
# such a pair: there channels differ by 6.1 dB at most, and their coherence is 0.5 at least.
APART_DB = 9
APART_COHERENCE = 0.2

ModelLike = str | Path | MaskNetwork | Model
"""A model's name, the path of its checkpoint, a network, or a `Model`."""


class Ensemble:
    """Networks that are loaded once, on a device; often there is only one.

    Parameters
    ----------
    model
        One or several, see `unetsep.Separator`.
    device
        Where the networks compute.
    dtype
        In which they compute.

    Raises
    ------
    WeightsError
        If a model cannot be loaded.
    ValueError
        If there is none, or they do not agree in `unetsep.config.SIGNAL_PATH`.
    """

    def __init__(
        self, model: ModelLike | Sequence[ModelLike], device: torch.device, dtype: torch.dtype
    ) -> None:
        models = _as_models(model)
        # Loading is too little work for more threads, which a fork would lack, too.
        with OwnThread(1, "loading") as thread:
            checkpoints = [thread.call(_load, each) for each in models]
            networks = [network for network, _ in checkpoints]
            inference = [thread.call(for_inference, each, dtype) for each in networks]
        # Taken at loading: the file may have changed by the time that stems are recorded.
        self._hashes = [sha256 for _, sha256 in checkpoints]
        self._names = [
            "unnamed" if isinstance(each, MaskNetwork) else model_name(each) for each in models
        ]
        self.name = "+".join(self._names)
        self.config = common_config([network.config for network in networks], self.name)
        with device_lock(device):
            self.networks = [each.to(device) for each in inference]

    @property
    def device(self) -> torch.device:
        """With its index: the default GPU may differ between threads."""
        return next(self.networks[0].parameters()).device

    @functools.cached_property
    def checkpoints(self) -> list[tuple[str, str]]:
        """Name and SHA-256 of each model: of its checkpoint, or of a network's weights."""
        with device_lock(self.device):
            hashes = [
                sha256 or _fingerprint(network)
                for sha256, network in zip(self._hashes, self.networks, strict=True)
            ]
        return list(zip(self._names, hashes, strict=True))

    @property
    def complete(self) -> bool:
        """Whether the stems of each network add up to the mixture."""
        return all(network.config.complete for network in self.networks)

    @property
    def independent(self) -> bool:
        """Whether each network computes a stem without the others."""
        return all(network.config.independent for network in self.networks)

    @property
    def _parts_pairs(self) -> bool:
        # Networks of Spleeter compute exactly what Spleeter does.
        return all(network.config.input != "linear" for network in self.networks)

    @torch.inference_mode()
    def estimate(
        self, spectrum: Tensor, wanted: Sequence[int] | None, gate_db: float | None
    ) -> Tensor:
        """Masks of one segment, gated below ``gate_db``; see `unetsep.Separator.estimate`."""
        joint = spectrum.shape[0] == self.config.channels
        if joint and self._parts_pairs and _unlike(spectrum):
            alone = [self.estimate(channel[None], wanted, gate_db) for channel in spectrum]
            return torch.cat(alone, dim=1)
        batch = spectrum[None] if joint else spectrum[:, None]
        batch = batch.expand(-1, self.config.channels, -1, -1)
        magnitude, device = magnitudes(batch), self.device
        total: Tensor | None = None
        for network in self.networks:
            # Only real numbers go to the device: not every Apple GPU supports complex ones.
            inputs = (magnitude, *fine_inputs(batch, network.config))
            with device_lock(device):
                on_device = [each.to(device) for each in inputs]
                masks: Tensor = network(*on_device, wanted=wanted).to(spectrum.device)
            masks = masks[0] if joint else masks.mean(dim=2).movedim(0, 1)
            (masks,) = ratio_masks(masks[None], spectrum[None], network.config)
            total = masks if total is None else total + masks
        assert total is not None
        masks = total / len(self.networks) if len(self.networks) > 1 else total
        if gate_db is not None:
            # Channels that are separated singly are gated singly.
            size = len(spectrum) if joint else 1
            parts = torch.split(masks, size, 1), torch.split(spectrum, size)
            for shares, mixture in zip(*parts, strict=True):
                gate_(shares, mixture, gate_db)
        return masks


def _unlike(spectrum: Tensor) -> bool:
    """Whether two channels hardly have anything in common: see `APART_DB`.

    A GPU is waited for, once in 9 s of music: what the network computes depends on it.
    """
    if len(spectrum) != 2:
        return False
    frames = spectrum[..., ::4]  # windows overlap by three quarters
    energies = powers(frames).sum(dim=-1)  # (channels, bins)
    # By bins: in the sum of all, what is in phase and what is not would cancel.
    common = torch.linalg.vecdot(frames[0], frames[1]).abs().sum()
    most = energies.sqrt().prod(dim=0).sum()
    left, right, coherent, limit = torch.stack([*energies.sum(dim=1), common, most]).tolist()
    far: bool = min(left, right) < max(left, right) * 10 ** (-APART_DB / 10)
    unlike: bool = coherent < APART_COHERENCE * limit
    return far or unlike


def _as_models(model: ModelLike | Sequence[ModelLike]) -> list[str | Path | MaskNetwork]:
    """One model or several as a list, networks without the signal path of a `Model`."""
    models: list[Any] = list(model) if isinstance(model, (list, tuple)) else [model]
    if not models:
        raise ValueError("expected a model or a list of models, got none")
    for each in models:
        if not isinstance(each, ModelLike):
            kind = type(each).__name__
            raise ValueError(f"a model must be a name, a path or a network, got {kind}")
    return [each.network if isinstance(each, Model) else each for each in models]


def _load(model: str | Path | MaskNetwork) -> tuple[MaskNetwork, str]:
    """A network, and the SHA-256 of its checkpoint; empty if it has none."""
    return (model, "") if isinstance(model, MaskNetwork) else load_checkpoint(model)


def _fingerprint(network: InferenceNetwork) -> str:
    """SHA-256 of a network's config and weights."""
    digest = hashlib.sha256(network.config.to_json().encode())
    for name, tensor in network.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
