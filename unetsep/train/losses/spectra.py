"""From clips to the spectra of losses, and losses evaluated in blocks that fit a cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...config import ModelConfig
from ...dsp.spectrogram import stft
from ...dsp.threads import without_autocast
from ...network.low_band import fine_magnitudes, low_slice, source_bins
from ...network.masks import MaskNetwork
from .blocks import Block, divide, work_on
from .functions import Loss
from .guidance import Guidance, guided_loss, low_logits, trained_logits


@dataclass(frozen=True)
class Batch:
    """Spectra of a batch without the mixture's phase; see `unetsep.train.losses.functions`.

    Parameters
    ----------
    mixture
        Magnitudes of the network's bins, ``(batch, channels, bins, frames)``, of unit power in
        each clip.
    in_phase, quadrature
        True stems, ``(batch, stems, channels, bins, frames)``, at the clips' own level.
    scale
        Factors that scale the stems to the level of ``mixture``, ``(batch, 1, 1, 1, 1)``; they
        are applied block by block, in the cache.
    fine
        `unetsep.network.low_band.fine_magnitudes` of the mixture, on the scale of ``mixture``,
        for a network that needs them.
    """

    mixture: Tensor
    in_phase: Tensor
    quadrature: Tensor
    scale: Tensor
    fine: Tensor | None = None

    def magnitude(self, config: ModelConfig) -> Tensor:
        """Input magnitudes of the network, ``(batch, channels, bins, frames)``.

        For a network with input ``"linear"`` they have the clips' own level, as when it
        separates; others normalise the level themselves.
        """
        return self.mixture / self.scale[:, 0] if config.input == "linear" else self.mixture

    def inputs(self, config: ModelConfig) -> tuple[Tensor, ...]:
        """All inputs of the network, see `unetsep.network.masks.MaskNetwork.logits`."""
        magnitude = self.magnitude(config)
        return (magnitude,) if self.fine is None else (magnitude, self.fine)

    def low(self, bins: slice) -> Batch:
        """The batch in some bins only, for a loss."""
        at = (..., bins, slice(None))
        return Batch(self.mixture[at], self.in_phase[at], self.quadrature[at], self.scale)

    @classmethod
    def join(cls, batches: Sequence[Batch]) -> Batch:
        """Concatenate the clips of several batches."""
        fine = [batch.fine for batch in batches if batch.fine is not None]
        return cls(
            torch.cat([batch.mixture for batch in batches]),
            torch.cat([batch.in_phase for batch in batches]),
            torch.cat([batch.quadrature for batch in batches]),
            torch.cat([batch.scale for batch in batches]),
            torch.cat(fine) if fine else None,
        )

    def references(self, at: Any = ...) -> tuple[Tensor, Tensor]:
        """In-phase and quadrature part of the scaled stems, of all clips or of a block.

        Parameters
        ----------
        at
            Index of the block; its first element selects clips.
        """
        scale = self.scale[at[0]] if isinstance(at, tuple) else self.scale
        return self.in_phase[at] * scale, self.quadrature[at] * scale


def spectra(stems: Tensor, config: ModelConfig, targets: Sequence[int] | None = None) -> Batch:
    """Spectra of the network's bins, each clip scaled to a mixture of unit power.

    On the CPU in blocks of frames, because the full complex spectra do not fit its cache.

    Parameters
    ----------
    stems
        ``(batch, stems, channels, samples)``, which add up to the mixture.
    config
        STFT and bins.
    targets
        Which stems the network estimates; default: all.
    """
    if config.channels == 1:
        stems = stems.mean(dim=-2, keepdim=True)
    indices = list(range(stems.shape[1]) if targets is None else targets)
    frames = 1 + (stems.shape[-1] - config.n_fft) // config.hop_length
    shape = (len(stems), config.channels, frames, config.bins)
    mixture = stems.new_empty(shape)
    in_phase = stems.new_empty(shape[0], len(indices), *shape[1:])
    quadrature = torch.empty_like(in_phase)
    low_count = source_bins(config) if config.low_bins else 0
    lowest = stems.new_empty(*shape[:3], low_count, 2)

    def rotate(block: Block) -> None:
        clip, at = block
        stop = (at.stop - 1) * config.hop_length + config.n_fft
        _write_rotated(
            stems[clip, ..., at.start * config.hop_length : stop],
            config,
            indices,
            mixture[clip, ..., at, :],
            in_phase[clip, ..., at, :],
            quadrature[clip, ..., at, :],
            lowest[clip, ..., at, :, :],
        )

    work_on(divide(len(stems), frames, stems.device), rotate)
    scale = 1 / mixture.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1e-8)
    mixture, in_phase, quadrature = (
        each.transpose(-1, -2) for each in (mixture.mul_(scale), in_phase, quadrature)
    )
    fine = None
    if low_count:
        fine = fine_magnitudes(torch.view_as_complex(lowest).mT, config) * scale
    return Batch(mixture, in_phase, quadrature, scale[:, None], fine)


def _write_rotated(
    stems: Tensor,
    config: ModelConfig,
    indices: list[int],
    mixture: Tensor,
    in_phase: Tensor,
    quadrature: Tensor,
    lowest: Tensor,
) -> None:
    """Write unscaled arrays of `Batch`, frames before bins, and the mixture's lowest bins."""
    spectrum = stft(stems, config.n_fft, config.hop_length)
    parts = torch.view_as_real(spectrum.transpose(-1, -2)[..., : config.bins])
    real, imag = parts[..., 0].contiguous(), parts[..., 1].contiguous()
    cos, sin = real.sum(dim=1), imag.sum(dim=1)  # (batch, channels, frames, bins)
    low_count = lowest.shape[-2]
    lowest[..., 0], lowest[..., 1] = cos[..., :low_count], sin[..., :low_count]
    torch.mul(cos, cos, out=mixture).addcmul_(sin, sin).sqrt_()
    inverse = mixture.clamp(min=1e-12).reciprocal_()
    cos, sin = cos.mul_(inverse)[:, None], sin.mul_(inverse)[:, None]
    if indices != list(range(stems.shape[1])):
        # Indexing with a list would upload it to a GPU at every step.
        real, imag = (torch.stack([each[:, at] for at in indices], dim=1) for each in (real, imag))
    # (a + ib) (cos - i sin), the stem rotated back by the mixture's phase.
    torch.mul(real, cos, out=in_phase).addcmul_(imag, sin)
    torch.mul(imag, cos, out=quadrature).addcmul_(real, sin, value=-1)


class BlockwiseLoss(torch.autograd.Function):
    """Masks and loss from logits, in blocks of frames that fit a CPU's cache.

    Value and gradient are means over the blocks. For a loss that is a mean over frames and clips,
    they equal those of the loss of ``masks * mixture`` over the whole batch, in a quarter of the
    time: full-size intermediate arrays are never written to memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        network: MaskNetwork,
        batch: Batch,
        loss: Loss,
        scale: float,
        guidance: Guidance | None,
    ) -> Tensor:
        """Scaled loss of a batch; ``logits`` are `trained_logits`."""
        gradient = torch.empty_like(logits)

        def part(block: Block) -> Tensor:
            at = (block[0], ..., block[1])
            ordered = logits[at].transpose(-1, -2).contiguous().transpose(-1, -2).detach()
            mixture = batch.mixture[at][:, None]
            references = batch.references(at)
            factor = scale * ordered.numel() / logits.numel()
            if guidance is not None:
                block_guidance = guidance.block(at)
                value, slope = guided_loss(
                    ordered, network, block_guidance, mixture, references, loss
                )
                torch.mul(slope, factor, out=gradient[at])
                return value * factor
            with torch.enable_grad():
                ordered.requires_grad_()
                value = loss(network.masks(ordered) * mixture, *references) * factor
                (gradient[at],) = torch.autograd.grad(value, ordered)
            return value.detach()

        blocks = divide(len(logits), logits.shape[-1], logits.device)
        total = torch.stack(work_on(blocks, part)).sum()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None, None, None, None]:
        """Gradient with respect to the logits."""
        (gradient,) = ctx.saved_tensors
        # This saves a pass over the whole gradient.
        scaled = gradient if is_one(output) else gradient * output
        return scaled, None, None, None, None, None


def is_one(factor: Tensor) -> bool:
    """Whether a factor is one; False on a GPU, whose value would have to be waited for."""
    return factor.device.type == "cpu" and float(factor) == 1.0


def blockwise_loss(
    logits: Tensor,
    network: MaskNetwork,
    batch: Batch,
    loss: Loss,
    scale: float = 1.0,
    guidance: Guidance | None = None,
) -> Tensor:
    """``scale`` times the loss of the masks of ``logits``; see `BlockwiseLoss`.

    With ``guidance`` it is the loss of `unetsep.train.losses.guidance`.
    """
    value: Tensor = BlockwiseLoss.apply(logits, network, batch, loss, scale, guidance)  # type: ignore[no-untyped-call]
    return value


def training_loss(
    network: MaskNetwork,
    batch: Batch,
    loss: Loss,
    guidance: Guidance | None,
    *,
    scale: float = 1.0,
    part: str = "all",
) -> Tensor:
    """``scale`` times a network's loss of a batch.

    Parameters
    ----------
    network
        In training mode.
    batch, guidance
        Of the same clips.
    loss
        See `unetsep.train.losses.functions`.
    scale
        Factor of the loss, see `unetsep.train.calibration.loss_scale`.
    part
        The part of the network that gets a gradient, see `unetsep.train.config.TrainConfig`.
    """
    inputs = batch.inputs(network.config)
    if part == "low":
        assert guidance is not None
        logits, low = low_logits(network, inputs, guidance), low_slice(network.config)
        batch, guidance = batch.low(low), guidance.low(low)
    else:
        logits = trained_logits(network, inputs, guidance)
    with without_autocast(logits.device):
        return blockwise_loss(logits, network, batch, loss, scale, guidance)
