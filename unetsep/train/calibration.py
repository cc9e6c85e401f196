"""What a run measures on clips before its first step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..network.low_band import LowBand
from ..network.masks import MaskNetwork
from ..network.unet import UNet, compress, rms_level
from .config import TrainingError
from .data.clips import ClipDataset
from .losses.functions import Loss
from .losses.guidance import Guidance
from .losses.spectra import Batch, spectra, training_loss

# The first clip that is measured, far from those of any run.
FIRST_CLIP = 10**12
# Clips over which the gradient that rescales a loss is averaged, at any batch size.
PROBE = 4


def audible_batches(clips: ClipDataset, count: int) -> list[Batch]:
    """Batches of one clip each, without those that are digital silence.

    Parameters
    ----------
    clips
        Training clips.
    count
        Number of clips to check.

    Raises
    ------
    TrainingError
        If all of them are silent.
    """
    config = clips.planner.config
    probes = (clips[FIRST_CLIP + i][None] for i in range(count))
    batches = [spectra(clip, config.model, config.targets) for clip in probes]
    batches = [batch for batch in batches if bool(batch.mixture.any())]
    if not batches:
        raise TrainingError(f"all of {count} training clips are digital silence")
    return batches


def loss_scale(
    network: MaskNetwork, loss: Loss, batches: Sequence[Batch], own_share: float, part: str
) -> float:
    """The factor that gives a loss a gradient of norm 1; 1 where there is no gradient.

    Clipping and Adam's epsilon otherwise act differently on each loss.

    Parameters
    ----------
    network
        Its gradients are computed, and remain.
    loss
        On the network's device.
    batches
        Only the first `PROBE` are used.
    own_share
        See `unetsep.train.losses.guidance.Guidance`.
    part
        See `TrainConfig`.
    """
    probe = batches[:PROBE]
    batch = Batch.join(probe)
    guidance = Guidance.of(network, batch.magnitude(network.config), own_share)
    value = training_loss(network, batch, loss, guidance, part=part)
    value.backward()  # type: ignore[no-untyped-call]
    norm = gradient_norm(list(network.parameters()))
    return 1 / norm if math.isfinite(norm) and norm > 0 else 1.0


def set_input_statistics(networks: nn.Module, mixtures: Sequence[Tensor]) -> None:
    """Set networks' mean and deviation of the log magnitude in each bin.

    Parameters
    ----------
    networks
        Of one config. Each `UNet` in them is set; one whose input is not normalised is skipped.
    mixtures
        Magnitudes, each ``(batch, channels, bins, frames)``.
    """
    parts = [part for part in networks.modules() if isinstance(part, UNet)]
    parts = [part for part in parts if part.config.input == "log"]
    if not parts:
        return
    logs = [compress(mixture, parts[0].config) for mixture in mixtures]
    axes = (0, 1, 3)
    mean = torch.stack([log.mean(dim=axes) for log in logs]).mean(dim=0)
    square = torch.stack([log.square().mean(dim=axes) for log in logs]).mean(dim=0)
    for part in parts:
        part.input_mean.copy_(mean)
        part.input_std.copy_((square - mean.square()).clamp(min=1e-4).sqrt())


def set_fine_statistics(networks: nn.Module, batches: Sequence[Batch]) -> None:
    """Set mean and deviation of the input of new low-band branches."""
    branches = [part for part in networks.modules() if isinstance(part, LowBand)]
    for branch in branches:
        if bool((branch.fine_std == 1).all()):
            logs = [
                compress(batch.fine, branch.config, rms_level(batch.mixture))
                for batch in batches
                if batch.fine is not None
            ]
            values = torch.cat(logs)
            branch.fine_mean.copy_(values.mean(dim=(0, 1, 3)))
            branch.fine_std.copy_(values.std(dim=(0, 1, 3)).clamp(min=1e-2))


def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Euclidean norm of all gradients together."""
    return float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
