"""What a run measures on clips before its first step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..network.unet import UNet, compress


def set_input_statistics(network: nn.Module, mixtures: Sequence[Tensor]) -> None:
    """Set a network's mean and deviation of the log magnitude in each bin.

    Parameters
    ----------
    network
        Each `UNet` in it is set; one whose input is not normalised is left alone.
    mixtures
        Magnitudes, each ``(batch, channels, bins, frames)``.
    """
    parts = [part for part in network.modules() if isinstance(part, UNet)]
    parts = [part for part in parts if part.config.input == "log"]
    if not parts:
        return
    logs = [compress(mixture, parts[0].config) for mixture in mixtures]
    others = (0, 1, 3)
    mean = torch.stack([log.mean(dim=others) for log in logs]).mean(dim=0)
    square = torch.stack([log.square().mean(dim=others) for log in logs]).mean(dim=0)
    for part in parts:
        part.input_mean.copy_(mean)
        part.input_std.copy_((square - mean.square()).clamp(min=1e-4).sqrt())


def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Euclidean norm of all gradients together."""
    return float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
