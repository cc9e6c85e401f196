"""The mean of several networks' weights: one network that separates like all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ...network.masks import MaskNetwork
from ...weights.load import load_network
from ..config import TrainingError


@torch.no_grad()
def average_weights(models: Sequence[str | Path]) -> MaskNetwork:
    """Mean of the weights of networks that were trained from the same ones.

    Networks that were trained differently for a few hundred steps, from a good start,
    differ by noise that a mean removes ("model soups", Wortsman et al., ICML
    2022). Networks with different starts, or far apart, have a mean that is worse than each of
    them: measure it.

    Parameters
    ----------
    models
        Names or paths of two checkpoints or more. Segments and overlap are the first one's.

    Returns
    -------
    MaskNetwork
        fp32, in evaluation mode. Statistics of BatchNorm are averaged like the weights.

    Raises
    ------
    TrainingError
        If there are less than two, or they are not the same network.
    """
    if len(models) < 2:
        raise TrainingError(f"expected two checkpoints or more to average, got {len(models)}")
    networks = [load_network(model) for model in models]
    mean, *others = networks
    for model, network in zip(models[1:], others, strict=True):
        if network.config.as_trained != mean.config.as_trained:
            raise TrainingError(f"{models[0]} and {model} are not the same network")
    for name, total in mean.state_dict().items():
        if total.is_floating_point():  # others count batches
            each = torch.stack([network.state_dict()[name].double() for network in networks])
            total.copy_(each.mean(dim=0))
    return mean
