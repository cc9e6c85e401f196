"""A branch that hears the lowest bins at twice the resolution and corrects how they are divided.

Most of the error of drums and bass lies below 250 Hz, where a U-Net halves 23 bins six times. The
branch keeps all of them, looks at a spectrum with bins half as wide, and far along time.
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

# Bins above those of the branch that the signal at the lower rate must have: what is cut off
# there leaks down by a few.
MARGIN = 16
# Fine bins on either side that the first convolution along frequency sees.
SIDE = 2
# Steps along time of the blocks' convolutions: they see 1.9 seconds on either side.
DILATIONS = (1, 2, 4, 8, 16, 32, 16, 2)
# Logits are cut off and divided: a guide says -500 where it is sure.
MAX_LOGIT, LOGIT_SCALE = 12.0, 4.0


def kept_bins(config: ModelConfig) -> int:
    """Bins of the spectrum that the fine one is made from, a power of two."""
    needed = config.low_first + config.low_bins + MARGIN
    return int(2 ** (needed - 1).bit_length())


def fine_bins(config: ModelConfig) -> int:
    """Bins that `fine_magnitudes` gives."""
    return 2 * config.low_bins + 2 * SIDE - 1


def low_slice(config: ModelConfig) -> slice:
    """The bins of the branch."""
    return slice(config.low_first, config.low_first + config.low_bins)


def fine_magnitudes(
    spectrum: Tensor, config: ModelConfig, add: Callable[[Tensor, int], Tensor] = overlap_add
) -> Tensor:
    """Magnitudes with windows twice as long, at the same hop and the same centres.

    They need no samples: the lowest bins of an STFT are the STFT of the signal at a fraction
    of its rate, from which that signal is put together and transformed anew. Before the first
    frame and after the last it is zero.

    Parameters
    ----------
    spectrum
        Of the mixture, complex, ``(batch, channels, bins, frames)``, at least `kept_bins`.
    config
        Which bins.
    add
        `unetsep.dsp.spectrogram.overlap_add`, or what does the same with gradients.

    Returns
    -------
    Tensor
        ``(batch, channels, fine bins, frames)``, on the scale of an STFT of ``2 * n_fft``:
        bin ``2 * k`` has the frequency of bin ``k``, and the first is `SIDE` bins below that
        of ``config.low_first``, zero where there is none.
    """
    kept = kept_bins(config)
    hop = kept // 2  # a quarter of the window of 2 * kept samples
    samples = add(spectrum[..., :kept, :], hop)
    # Windows of eight hops around the centres of windows of four.
    samples = functional.pad(samples, (2 * hop, 2 * hop))
    frames = samples.unfold(-1, 8 * hop, hop)
    # Not `hann`: what `torch.export` computes with must not be remembered.
    window = torch.hann_window(8 * hop, dtype=torch.float32, device=samples.device)
    fine = torch.fft.rfft(frames * window)
    first = 2 * config.low_first - SIDE
    wanted = fine[..., max(0, first) : first + fine_bins(config)].abs()
    return functional.pad(wanted, (max(0, -first), 0)).mT


def network_inputs(spectrum: Tensor, config: ModelConfig) -> tuple[Tensor, ...]:
    """What a network is given of a mixture.

    Parameters
    ----------
    spectrum
        Complex, ``(batch, channels, bins, frames)``, at least ``config.bins``.
    config
        Of the network.

    Returns
    -------
    tuple
        Magnitudes ``(batch, channels, bins, frames)``, and for a network with a branch for low
        bins `fine_magnitudes`.
    """
    return magnitudes(spectrum[..., : config.bins, :]), *fine_inputs(spectrum, config)


def fine_inputs(
    spectrum: Tensor, config: ModelConfig, add: Callable[[Tensor, int], Tensor] = overlap_add
) -> tuple[Tensor, ...]:
    """What `network_inputs` gives beside the magnitudes, which several networks may share.

    Parameters are those of `fine_magnitudes`.
    """
    return (fine_magnitudes(spectrum, config, add),) if config.low_bins else ()


class LowBand(nn.Module):
    """Corrections of logits in ``config.low_bins`` bins from ``config.low_first`` on.

    It corrects how what the vocals leave is divided among the other stems. Frequency keeps its
    resolution; along time convolutions reach far. It starts with corrections of zero.

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
        # Frames before bins, as in the U-Net. Two fine bins for each of the others.
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

    def forward(self, fine: Tensor, level: Tensor, own: Tensor, guide: Tensor) -> Tensor:
        """What to add to the logits of all stems but the vocals, fp32.

        Parameters
        ----------
        fine
            See `fine_magnitudes`.
        level
            Of the mixture, see `unetsep.network.unet.rms_level`.
        own
            The network's logits in the bins of the branch,
            ``(batch, stems, channels, bins, frames)``.
        guide
            Those of the guide, ``(batch, 1, channels, bins, frames)``.

        Returns
        -------
        Tensor
            ``(batch, stems - 1, channels, bins, frames)``.
        """
        seen, said = self.seen(fine, level, own, guide)
        hidden = self.enter(self.fine(seen) + self.said(said))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        return self.changes(self.head(hidden))

    def seen(
        self, fine: Tensor, level: Tensor, own: Tensor, guide: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the first convolutions see, ``(batch, channels, frames, bins)`` each.

        Parameters are those of `forward`. All is done with frames before bins, as they are in
        memory when a song is separated.
        """
        seen = (compress(fine.mT, self.config, level) - self.fine_mean) / self.fine_std
        # Stem by stem: that a view may have its axes joined, `torch.export` could not prove.
        said = torch.cat([*own.mT.unbind(1), *guide.mT.unbind(1)], dim=1)
        said = said.clamp(-MAX_LOGIT, MAX_LOGIT) / LOGIT_SCALE
        dtype, layout = self.head.weight.dtype, torch.channels_last
        return seen.to(dtype, memory_format=layout), said.to(dtype, memory_format=layout)

    def changes(self, output: Tensor) -> Tensor:
        """The head's output ``(batch, channels, frames, bins)`` as `forward` gives it."""
        out = output.float().mT
        return out.reshape(out.shape[0], -1, self.config.channels, *out.shape[2:])


class InferenceLowBand(nn.Module):
    """The corrections of a `LowBand`, for evaluation only, in fewer passes over memory.

    In the blocks bins come before frames: so all that is mixed is one product of two matrices.

    Parameters
    ----------
    branch
        Is left as it is.
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

    def forward(self, fine: Tensor, level: Tensor, own: Tensor, guide: Tensor) -> Tensor:
        """See `LowBand.forward`."""
        low = self.branch
        seen, said = low.seen(fine, level, own, guide)
        hidden = low.enter(low.fine(seen).add_(low.said(said)))
        hidden = hidden.mT.contiguous(memory_format=torch.channels_last)
        rows = self._rows(hidden)
        for block in self.blocks:
            block(hidden, rows)
        return low.changes(low.head(hidden).mT)

    def _rows(self, hidden: Tensor) -> Tensor:
        """Room for what a block squeezes all frames into, and below it the rows of its biases."""
        _, channels, bins, frames = hidden.shape
        rows = hidden.new_empty(units_of(bins) + channels, frames * channels)
        ones = torch.eye(channels, dtype=hidden.dtype, device=hidden.device)
        rows[-channels:].view(channels, frames, channels).copy_(ones[:, None])
        return rows


class _InferenceBlock(nn.Module):
    """A block whose norm is folded, with bins before frames, that adds what it finds.

    Its mixing is ``W2 relu(W1 x + b1) + b2``, see `BinMixing`. The bias ``b2``, of each bin and
    channel, is a part of the second product: where that finds a row for each channel, one at
    its own places and zero at those of others, the columns of its matrix are the biases.
    """

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, nn.Sequential)
        self.convolution = _turned(block[0]).to(dtype)
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
            What is added to.
        rows
            Of `InferenceLowBand`; the upper ones are written to.
        """
        found = functional.leaky_relu_(self.convolution(hidden), self.slope)
        hidden += found
        if not self.mixes:
            return
        squeezed = rows[: len(self.squeeze)]
        spectra = (each.permute(0, 2, 3, 1).flatten(2) for each in (found, hidden))
        for seen, sum_ in zip(*spectra, strict=True):  # (bins, frames * channels)
            torch.mm(self.squeeze, seen, out=squeezed).add_(self.squeeze_bias).relu_()
            sum_.addmm_(self.expand, rows)


class _AlongTime(nn.Conv2d):
    """A dilated convolution that is trained in fp32 on a CPU.

    The gradient of its weights in bf16 is wrong, or reads what is not its own, where oneDNN uses
    AVX-512's instructions for bf16 and channels are no multiple of 16 (torch 2.11 to 2.13).
    """

    def forward(self, seen: Tensor) -> Tensor:
        if seen.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(seen)
        with torch.autocast("cpu", enabled=False):
            return super().forward(seen.to(self.weight.dtype))


def _turned(convolution: nn.Module) -> nn.Conv2d:
    """A convolution for spectra whose frames and bins have changed places."""
    assert isinstance(convolution, nn.Conv2d)
    turned = copy.copy(convolution)
    turned.weight = nn.Parameter(convolution.weight.mT.contiguous())
    turned.padding = convolution.padding[::-1]
    turned.dilation = convolution.dilation[::-1]
    return turned


def units_of(bins: int) -> int:
    """What a block squeezes its bins into."""
    return bins // 4


def _block(width: int, dilation: int, mixed: int) -> nn.Sequential:
    convolution = _AlongTime(
        width, width, 3, dilation=(dilation, 1), padding=(dilation, 1), bias=False
    )
    mixing = [BinMixing(mixed, width, units_of(mixed))] if mixed else []
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.LeakyReLU(0.2), *mixing)
