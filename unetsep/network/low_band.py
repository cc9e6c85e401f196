"""A branch that sees the lowest bins at twice the resolution and corrects their logits.

Most of the error of drums and bass lies below 250 Hz, where a U-Net halves 23 bins six times. The
branch keeps all of these bins, sees a spectrum with bins half as wide, and reaches far along time.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import ModelConfig
from ..dsp.spectrogram import magnitudes, overlap_add
from .folding import fold_norm, fold_norm_of_sum
from .layers import BinMixing
from .unet import compress

# Bins above the branch's that the signal at the lower rate must have, since the cut above them
# leaks down by a few bins.
MARGIN = 16
# Fine bins on either side in the kernel of the first convolution.
SIDE = 2
# Dilations along time of the blocks' convolutions: they reach 1.9 seconds on either side.
DILATIONS = (1, 2, 4, 8, 16, 32, 16, 2)
# Logits are clipped and divided, since a guide's logits reach -500.
MAX_LOGIT, LOGIT_SCALE = 12.0, 4.0


def source_bins(config: ModelConfig) -> int:
    """Bins of the spectrum that the fine one is computed from, a power of two."""
    needed = config.low_first + config.low_bins + MARGIN
    return int(2 ** (needed - 1).bit_length())


def fine_bins(config: ModelConfig) -> int:
    """Number of bins of `fine_magnitudes`."""
    return 2 * config.low_bins + 2 * SIDE - 1


def low_slice(config: ModelConfig) -> slice:
    """The bins of the branch."""
    return slice(config.low_first, config.low_first + config.low_bins)


def fine_magnitudes(
    spectrum: Tensor, config: ModelConfig, add: Callable[[Tensor, int], Tensor] = overlap_add
) -> Tensor:
    """Magnitudes with windows twice as long, at the same hop and the same centres.

    They need no samples: the lowest bins of an STFT are the STFT of the signal at a fraction
    of its rate. That signal is synthesised and transformed again. It is zero before the first
    frame and after the last.

    Parameters
    ----------
    spectrum
        Of the mixture, complex, ``(batch, channels, bins, frames)``; of its bins those of the
        network count, at most `source_bins`.
    config
        The bins of the branch.
    add
        `unetsep.dsp.spectrogram.overlap_add`, or its form with gradients.

    Returns
    -------
    Tensor
        ``(batch, channels, fine bins, frames)``, on the scale of an STFT of ``2 * n_fft``:
        bin ``2 * k`` has the frequency of bin ``k``, and the first is `SIDE` bins below that
        of ``config.low_first``, zero where there is none.
    """
    bins = source_bins(config)
    hop = bins // 2  # a quarter of the window of 2 * bins samples
    samples = add(spectrum[..., : min(bins, config.bins), :], hop)
    # Windows of eight hops around the centres of windows of four.
    samples = functional.pad(samples, (2 * hop, 2 * hop))
    frames = samples.unfold(-1, 8 * hop, hop)
    # Not `hann`: `torch.export` cannot use cached tensors.
    window = torch.hann_window(8 * hop, dtype=torch.float32, device=samples.device)
    fine = torch.fft.rfft(frames * window)
    first = 2 * config.low_first - SIDE
    magnitude = fine[..., max(0, first) : first + fine_bins(config)].abs()
    return functional.pad(magnitude, (max(0, -first), 0)).mT


def network_inputs(spectrum: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    """Inputs of a network for a mixture, for programs that use networks by themselves.

    Parameters
    ----------
    spectrum
        Complex, ``(batch, channels, bins, frames)``, at least ``config.bins``.
    config
        Of the network.

    Returns
    -------
    tuple
        See `unetsep.network.masks.MaskNetwork.logits`; a network without a branch gets only the
        magnitudes.
    """
    return magnitudes(spectrum[..., : config.bins, :]), *fine_inputs(spectrum, config)


def fine_inputs(
    spectrum: Tensor, config: ModelConfig, add: Callable[[Tensor, int], Tensor] = overlap_add
) -> tuple[Tensor, ...]:
    """`network_inputs` without the magnitudes, which several networks may share.

    Parameters are those of `fine_magnitudes`.
    """
    return (fine_magnitudes(spectrum, config, add),) if config.low_bins else ()


def required(fine: Tensor | None) -> Tensor:
    """`fine_magnitudes`, without which a branch cannot compute.

    Raises
    ------
    ValueError
        If they are None.
    """
    if fine is None:
        raise ValueError(
            "a network with a branch for low bins needs fine, see "
            "unetsep.network.low_band.fine_magnitudes"
        )
    return fine


class LowBand(nn.Module):
    """Corrections of logits in ``config.low_bins`` bins from ``config.low_first`` on.

    It corrects how the stems other than the vocals divide the rest. Frequency keeps its
    resolution; along time convolutions reach far. Corrections are zero at first.

    Parameters
    ----------
    config
        Of the guided network that it belongs to.
    """

    fine_mean: Tensor
    fine_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, channels, stems = config.low_filters, config.channels, len(config.stems)
        # Frames before bins, as in the U-Net. Two fine bins for each bin of the mixture.
        self.fine = nn.Conv2d(channels, width, (3, 2 * SIDE + 1), (1, 2), (1, 0))
        self.said = nn.Conv2d((stems + 1) * channels, width, 3, padding=1)
        self.enter = nn.Sequential(nn.BatchNorm2d(width), nn.LeakyReLU(0.2))
        self.blocks = nn.ModuleList(
            _block(width, dilation, config.low_bins if at % 2 else 0)
            for at, dilation in enumerate(DILATIONS)
        )
        self.head = nn.Conv2d(width, (stems - 1) * channels, 1)
        assert self.head.bias is not None
        if not self.head.weight.is_meta:  # see `BinMixing`
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)
        self.register_buffer("fine_mean", torch.zeros(fine_bins(config)))
        self.register_buffer("fine_std", torch.ones(fine_bins(config)))

    def forward(self, fine: Tensor, level: Tensor, logits: Tensor, guide: Tensor) -> Tensor:
        """Corrections to add to the logits of all stems but the vocals, fp32.

        Parameters
        ----------
        fine
            See `fine_magnitudes`.
        level
            Of the mixture, see `unetsep.network.unet.rms_level`.
        logits
            The network's, in the bins of the branch,
            ``(batch, stems, channels, bins, frames)``.
        guide
            The guide's logits, ``(batch, 1, channels, bins, frames)``.

        Returns
        -------
        Tensor
            ``(batch, stems - 1, channels, bins, frames)``.
        """
        spectrum, clipped_logits = self.inputs(fine, level, logits, guide)
        hidden = self.enter(self.fine(spectrum) + self.said(clipped_logits))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.corrections(self.head(hidden))

    def inputs(
        self, fine: Tensor, level: Tensor, logits: Tensor, guide: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Inputs of the first convolutions, ``(batch, channels, frames, bins)`` each.

        Parameters are those of `forward`. Everything has frames before bins, as in memory when a
        song is separated.
        """
        spectrum = (compress(fine.mT, self.config, level) - self.fine_mean) / self.fine_std
        # Stem by stem: `torch.export` could not prove that the view's axes may be flattened.
        clipped_logits = torch.cat([*logits.mT.unbind(1), *guide.mT.unbind(1)], dim=1)
        clipped_logits = clipped_logits.clamp(-MAX_LOGIT, MAX_LOGIT) / LOGIT_SCALE
        dtype, layout = self.head.weight.dtype, torch.channels_last
        return spectrum.to(dtype, memory_format=layout), clipped_logits.to(
            dtype, memory_format=layout
        )

    def corrections(self, output: Tensor) -> Tensor:
        """The head's output ``(batch, channels, frames, bins)`` in the shape of `forward`."""
        out = output.float().mT
        return out.reshape(out.shape[0], -1, self.config.channels, *out.shape[2:])


class InferenceLowBand(nn.Module):
    """The corrections of a `LowBand`, for inference only, in fewer passes over memory.

    In the blocks bins come before frames, so that mixing bins is one product of two matrices.

    Parameters
    ----------
    branch
        Not changed.
    dtype
        Of the convolutions.
    """

    def __init__(self, branch: LowBand, dtype: torch.dtype) -> None:
        super().__init__()
        self.branch = low = copy.deepcopy(branch).cpu().float().eval()
        for block in low.blocks:
            fold_norm(block)
        fold_norm_of_sum((low.fine, low.said), low.enter)
        self.blocks = nn.ModuleList(_InferenceBlock(block, dtype) for block in low.blocks)
        for part in (low.fine, low.said, low.head):
            part.to(dtype)
        low.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.requires_grad_(False)

    def forward(self, fine: Tensor, level: Tensor, logits: Tensor, guide: Tensor) -> Tensor:
        """See `LowBand.forward`."""
        low = self.branch
        spectrum, clipped_logits = low.inputs(fine, level, logits, guide)
        hidden = low.enter(low.fine(spectrum).add_(low.said(clipped_logits)))
        hidden = hidden.mT.contiguous(memory_format=torch.channels_last)
        rows = self._rows(hidden)
        for block in self.blocks:
            block(hidden, rows)
        return low.corrections(low.head(hidden).mT)

    def _rows(self, hidden: Tensor) -> Tensor:
        """A buffer for a block's squeezed frames, above the rows that select its biases."""
        _, channels, bins, frames = hidden.shape
        rows = hidden.new_empty(units_of(bins) + channels, frames * channels)
        ones = torch.eye(channels, dtype=hidden.dtype, device=hidden.device)
        rows[-channels:].view(channels, frames, channels).copy_(ones[:, None])
        return rows


class _InferenceBlock(nn.Module):
    """A residual block with folded norm and bins before frames, which works in place.

    Its mixing is ``W2 relu(W1 x + b1) + b2``, see `BinMixing`. The bias ``b2`` of each bin and
    channel is part of the second product: its right factor has one more row for each channel,
    one at that channel's columns and zero elsewhere, and ``W2`` has the biases as columns.
    """

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, nn.Sequential)
        self.convolution = _transposed(block[0]).to(dtype)
        activation = block[2]
        assert isinstance(activation, nn.LeakyReLU)
        self.slope = activation.negative_slope
        self.mixes = len(block) > 3
        if self.mixes:
            mixing = block[3]
            assert isinstance(mixing, BinMixing)
            bias = mixing.expand_bias.view(mixing.shape)  # (bins, channels)
            self.squeeze = nn.Parameter(mixing.squeeze.to(dtype))
            self.squeeze_bias = nn.Parameter(mixing.squeeze_bias.to(dtype)[:, None])
            self.expand = nn.Parameter(torch.cat([mixing.expand, bias], dim=1).to(dtype))

    def forward(self, hidden: Tensor, rows: Tensor) -> None:
        """Add to ``(batch, channels, bins, frames)``, channels last in memory.

        Parameters
        ----------
        hidden
            Changed in place.
        rows
            The buffer of `InferenceLowBand`; its upper rows are overwritten.
        """
        change = functional.leaky_relu_(self.convolution(hidden), self.slope)
        hidden += change
        if not self.mixes:
            return
        squeezed = rows[: len(self.squeeze)]
        spectra = (each.permute(0, 2, 3, 1).flatten(2) for each in (change, hidden))
        for spectrum, total in zip(*spectra, strict=True):  # (bins, frames * channels)
            torch.mm(self.squeeze, spectrum, out=squeezed).add_(self.squeeze_bias).relu_()
            total.addmm_(self.expand, rows)


class _AlongTime(nn.Conv2d):
    """A dilated convolution that is trained in fp32 on a CPU.

    In bf16 the gradient of its weights is wrong, or reads foreign memory, where oneDNN uses
    AVX-512's bf16 instructions and channels are not a multiple of 16 (torch 2.11 to 2.13).
    """

    def forward(self, hidden: Tensor) -> Tensor:
        if hidden.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(hidden)
        with torch.autocast("cpu", enabled=False):
            return super().forward(hidden.to(self.weight.dtype))


def _transposed(convolution: nn.Module) -> nn.Conv2d:
    """A convolution for spectra with frames and bins swapped."""
    assert isinstance(convolution, nn.Conv2d)
    transposed = copy.copy(convolution)
    transposed.weight = nn.Parameter(convolution.weight.mT.contiguous())
    transposed.padding = convolution.padding[::-1]
    transposed.dilation = convolution.dilation[::-1]
    return transposed


def units_of(bins: int) -> int:
    """Size to which a block squeezes its bins."""
    return bins // 4


def _block(width: int, dilation: int, mixed: int) -> nn.Sequential:
    convolution = _AlongTime(
        width, width, 3, dilation=(dilation, 1), padding=(dilation, 1), bias=False
    )
    mixing = [BinMixing(mixed, width, units_of(mixed))] if mixed else []
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.LeakyReLU(0.2), *mixing)
