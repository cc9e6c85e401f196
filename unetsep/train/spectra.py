"""From clips to what the losses take, and losses evaluated in blocks that fit a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig
from ..spectrogram import stft
from ..unet import UNet
from .losses import Loss


@dataclass(frozen=True)
class Batch:
    """Spectra of a batch, turned back by the mixture's phase; see `unetsep.train.losses`.

    Parameters
    ----------
    mixture
        Magnitudes, ``(batch, channels, bins, frames)``, of unit power in each clip.
    in_phase, quadrature
        True stems, ``(batch, stems, channels, bins, frames)``.
    """

    mixture: Tensor
    in_phase: Tensor
    quadrature: Tensor


def spectra(stems: Tensor, config: ModelConfig, targets: Sequence[int] | None = None) -> Batch:
    """Spectra of the network's bins, each clip scaled to a mixture of unit power.

    On the CPU clip by clip, because the full complex spectra of a batch do not fit its cache.

    Parameters
    ----------
    stems
        ``(batch, stems, channels, samples)``, which add up to the mixture.
    config
        STFT and bins.
    targets
        Which stems the network estimates; default: all.
    """
    step = 1 if stems.device.type == "cpu" else len(stems)
    parts = [_spectra(piece, config, targets) for piece in torch.split(stems, step)]
    return Batch(*(torch.cat(each).transpose(-1, -2) for each in zip(*parts, strict=True)))


def _spectra(
    stems: Tensor, config: ModelConfig, targets: Sequence[int] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Arrays of `Batch` with frames before bins."""
    if config.channels == 1:
        stems = stems.mean(dim=-2, keepdim=True)
    spectrum = stft(stems, config.n_fft, config.hop_length)
    parts = torch.view_as_real(spectrum.transpose(-1, -2)[..., : config.bins])
    real, imag = parts[..., 0].contiguous(), parts[..., 1].contiguous()
    mix_real, mix_imag = real.sum(dim=1), imag.sum(dim=1)  # (batch, channels, frames, bins)
    magnitude = (mix_real.square() + mix_imag.square()).sqrt()
    turn = 1 / magnitude.clamp(min=1e-12)
    scale = 1 / magnitude.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-8)
    cos, sin = (mix_real * (turn * scale))[:, None], (mix_imag * (turn * scale))[:, None]
    if targets is not None and list(targets) != list(range(stems.shape[1])):
        real, imag = real[:, list(targets)], imag[:, list(targets)]
    # (a + ib) (cos - i sin), the stem turned back by the mixture's phase.
    in_phase = (real * cos).addcmul_(imag, sin)
    quadrature = (imag * cos).addcmul_(real, sin, value=-1)
    return magnitude * scale, in_phase, quadrature


class BlockwiseLoss(torch.autograd.Function):
    """Masks and loss from logits, in blocks of frames that fit a CPU's cache.

    The same value and gradient as the loss of ``masks * mixture`` over the whole batch, in
    a quarter of the time: the full-size intermediate arrays are never written to memory.
    """

    BLOCK_FRAMES = 64

    @staticmethod
    def forward(ctx: Any, logits: Tensor, network: UNet, batch: Batch, loss: Loss) -> Tensor:
        """Loss of a batch, ``logits`` as `UNet.logits` gives them."""
        gradient, total = torch.empty_like(logits), torch.zeros((), device=logits.device)
        whole = logits.device.type != "cpu"
        clips = [slice(None)] if whole else [slice(i, i + 1) for i in range(len(logits))]
        width = logits.shape[-1] if whole else BlockwiseLoss.BLOCK_FRAMES
        for clip in clips:
            for start in range(0, logits.shape[-1], width):
                at = (clip, ..., slice(start, start + width))
                with torch.enable_grad():
                    block = logits[at].transpose(-1, -2).contiguous().transpose(-1, -2).detach()
                    block.requires_grad_()
                    estimate = network.masks(block) * batch.mixture[at][:, None]
                    value = loss(estimate, batch.in_phase[at], batch.quadrature[at])
                    value = value * (block.numel() / logits.numel())
                    (gradient[at],) = torch.autograd.grad(value, block)
                total += value.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient with respect to the logits."""
        (gradient,) = ctx.saved_tensors
        return gradient * output, None, None, None


def blockwise_loss(logits: Tensor, network: UNet, batch: Batch, loss: Loss) -> Tensor:
    """Loss of the masks that ``logits`` give; see `BlockwiseLoss`."""
    value: Tensor = BlockwiseLoss.apply(logits, network, batch, loss)  # type: ignore[no-untyped-call]
    return value
