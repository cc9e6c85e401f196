"""From a config to the classes of its network: one for training, one for separating.

To add a kind of network, add a value of `ModelConfig.networks`, a file with its two classes, and
an entry in `KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..config import ModelConfig
from .guided import Guided, InferenceGuided
from .inference import InferenceNetwork, InferenceUNet
from .masks import MaskNetwork
from .per_stem import InferencePerStem, PerStem
from .unet import UNet


class Kind(NamedTuple):
    """The classes of a kind of network: the trained one, and its twin for inference."""

    network: Callable[[ModelConfig], MaskNetwork]
    inference: Callable[[Any, torch.dtype], InferenceNetwork]


# By `ModelConfig.networks`.
KINDS = {
    "joint": Kind(UNet, InferenceUNet),
    "per_stem": Kind(PerStem, InferencePerStem),
    "guided": Kind(Guided, InferenceGuided),
}


def build(config: ModelConfig) -> MaskNetwork:
    """The network that a config describes, with random weights."""
    return KINDS[config.networks].network(config)


def for_inference(network: MaskNetwork, dtype: torch.dtype = torch.float32) -> InferenceNetwork:
    """The inference form of a trained network: the same masks in fewer operations.

    Parameters
    ----------
    network
        Not changed.
    dtype
        Of the convolutions; masks are fp32.
    """
    return KINDS[network.config.networks].inference(network, dtype)
