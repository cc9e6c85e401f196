"""Networks to choose by name; all are one class, `unetsep.unet.UNet`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..config import ModelConfig

NETWORKS: dict[str, ModelConfig] = {
    # One network for all stems, what unetsep ships: 2.6 million parameters.
    "small": ModelConfig(),
    # The same with wider levels: 7.0 million parameters.
    "large": ModelConfig(filters=(32, 48, 96, 160, 224, 240)),
    # Jansson et al. (ISMIR 2017) and Spleeter's widths, for a single target: 9.8 million.
    "wide": ModelConfig(filters=(16, 32, 64, 128, 256, 512)),
}


def build_model(network: str, targets: Sequence[str] | None = None) -> ModelConfig:
    """The model config of a named network.

    Parameters
    ----------
    network
        A key of `NETWORKS`.
    targets
        Stems to estimate; default: all. A single one, or some, get sigmoid masks, since
        masks that sum to one need every stem of the mixture.

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
    return dataclasses.replace(model, stems=tuple(targets), mask="sigmoid")
