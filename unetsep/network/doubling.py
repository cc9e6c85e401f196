"""Transposed convolutions that double bins and frames, in faster forms, and the last layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .devices import cpu_capabilities

# Output channels in one vector register; oneDNN's transposed convolutions are fast only with
# multiples of it.
LANES = 16
# All bins.
ALL = slice(None)


class Subpixels(nn.Module):
    """A transposed convolution that doubles both axes, as a plain one with more channels.

    Along one axis tap ``k`` adds input ``i`` to output ``2 i + k - padding``. So output
    ``2 j + r`` is a sum over inputs ``j + d`` with tap ``k = r + padding - 2 d``: a plain
    convolution for each remainder ``r``, whose outputs are interleaved (Shi et al. 2016).

    Parameters
    ----------
    layer
        The transposed convolution, stride 2.
    dtype
        Of weights and input.
    bins_last
        Put the two bins of an output after its channels instead of before.
    remainders
        Also compute outputs with the rounding errors of the weights, after the others; the caller
        adds both. With few channels that costs nothing: vector units take sixteen.
    """

    def __init__(
        self,
        layer: nn.ConvTranspose2d,
        dtype: torch.dtype,
        *,
        bins_last: bool = False,
        remainders: bool = False,
    ) -> None:
        super().__init__()
        kernel, padding = layer.kernel_size[0], int(layer.padding[0])
        offsets = {
            (r, k): (r + padding - k) // 2
            for r in (0, 1)
            for k in range(kernel)
            if (r + padding - k) % 2 == 0
        }
        self.first = min(offsets.values())  # input of the first tap, relative to j
        self.margin = max(-self.first, max(offsets.values()))
        taps = layer.weight if remainders else layer.weight.to(dtype)
        taps = taps.permute(2, 3, 1, 0).contiguous()  # (tap, tap, out, in)
        size = max(offsets.values()) - self.first + 1
        # (r, s, out, d, e, in) for frames and bins; zero where there is no tap
        weight = taps.new_zeros(2, 2, layer.out_channels, size, size, layer.in_channels)
        for (r, k), d in offsets.items():
            for (s, m), e in offsets.items():
                weight[r, s, :, d - self.first, e - self.first] = taps[k, m]
        bias = layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias
        bias = bias.detach().repeat(2, 2, 1)  # (frame of two, bin of two, channels)
        if bins_last:
            weight, bias = weight.transpose(1, 2), bias.transpose(1, 2)
        weight, bias = weight.flatten(0, 2), bias.flatten()
        if remainders:
            weight = torch.cat([weight, weight - weight.to(dtype)])
            bias = torch.cat([bias, bias - bias.to(dtype)])
        weight = weight.permute(0, 3, 1, 2)  # channels last in memory
        self.weight, self.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))

    def forward(self, hidden: Tensor) -> Tensor:
        """The four outputs of each input, not yet interleaved.

        Parameters
        ----------
        hidden
            ``(batch, channels, frames, bins)``, channels last in memory.

        Returns
        -------
        Tensor
            ``(batch, frames, bins, 4 channels)``: frame of two, bin of two, channel, or
            frame of two, channel, bin of two.
        """
        frames, bins = hidden.shape[2:]
        out = functional.conv2d(hidden, self.weight, self.bias, padding=self.margin)
        start = self.margin + self.first
        return out[..., start : start + frames, start : start + bins].permute(0, 2, 3, 1)


def has_fast_transposed(dtype: torch.dtype) -> bool:
    """Whether transposed convolutions with suitable channels are faster than `Subpixels`.

    With a kernel of five they need 25 products, `Subpixels` 36. In bf16 they are faster with
    AVX-512's bf16 instructions and slow where bf16 is emulated; with AMX they are unmeasured.
    """
    capabilities = cpu_capabilities()
    native = bool(capabilities.get("avx512_bf16")) and not capabilities.get("amx_bf16")
    return dtype == torch.float32 or native


class Doubling(nn.Module):
    """A level's transposed convolution, in the faster of two forms.

    Parameters
    ----------
    layer
        The transposed convolution, stride 2.
    dtype
        Of weights and input.
    floor
        Lower bound of the output, ``(channels,)``; see `fold_last_norm`. By default 0.
    """

    floor: Tensor | None

    def __init__(
        self, layer: nn.ConvTranspose2d, dtype: torch.dtype, floor: Tensor | None = None
    ) -> None:
        super().__init__()
        self.channels = layer.out_channels
        # A level with one channel is usually the last, and the head after it computes in fp32.
        single = is_single(layer)
        self.dtype = torch.float32 if single else dtype
        self.register_buffer("floor", None if floor is None else floor.to(self.dtype))
        self.form: nn.Module
        if has_fast_transposed(dtype) and self.channels % LANES == 0:
            layer = layer.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.form = layer
        else:
            self.form = Subpixels(layer, dtype, remainders=dtype != self.dtype)

    def forward(self, hidden: Tensor, target: Tensor | None = None) -> Tensor:
        """Double bins and frames, and rectify into ``target`` if it is given.

        Parameters
        ----------
        hidden
            ``(batch, channels, frames, bins)``, channels last in memory.
        target
            ``(batch, 2 frames, 2 bins, channels)``.

        Returns
        -------
        Tensor
            ``(batch, 2 frames, 2 bins, channels)``.
        """
        out: Tensor = self.form(hidden)
        if not isinstance(self.form, Subpixels):
            out = out.permute(0, 2, 3, 1)
            return out if target is None else self._rectify(out, target)
        batch, _, frames, bins = hidden.shape
        # (parts, batch, frames, frame of two, bins, bin of two, channels)
        parts = out.to(self.dtype).view(batch, frames, bins, -1, 2, 2, self.channels)
        ordered = parts.permute(3, 0, 1, 4, 2, 5, 6)
        shape = (batch, frames, 2, bins, 2, self.channels)
        target_parts = None if target is None else target.view(shape)
        values = ordered[0] if len(ordered) == 1 else torch.add(*ordered, out=target_parts)
        if target is None or target_parts is None:
            return values.reshape(batch, 2 * frames, 2 * bins, self.channels)
        self._rectify(values, target_parts)
        return target

    def _rectify(self, values: Tensor, target: Tensor) -> Tensor:
        if self.floor is None:
            return torch.clamp_min(values, 0, out=target)
        return torch.maximum(values, self.floor, out=target)


class DoublingHead(nn.Module):
    """The last transposed convolution, whose output is interleaved piece by piece.

    Two neighbouring bins are moved as one number of twice the size, which halves the work.

    Parameters
    ----------
    layer
        The transposed convolution, stride 2.
    dtype
        Of weights and input.
    """

    def __init__(self, layer: nn.ConvTranspose2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.channels, self.dtype = layer.out_channels, dtype
        # An integer type, as pairs are only moved; Apple's GPUs have no float64.
        self.pair = torch.int64 if dtype == torch.float32 else torch.int32
        self.subpixels = Subpixels(layer, dtype, bins_last=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, channels, frames, bins)`` to pairs of bins, the input of `ordered`.

        Pairs are ``(batch, channels, frames, 2, bins)``, with two frames for each input frame.
        """
        batch, _, frames, bins = hidden.shape
        pairs: Tensor = self.subpixels(hidden).contiguous().view(self.pair)
        return pairs.view(batch, frames, bins, 2, self.channels).permute(0, 4, 1, 3, 2)

    def ordered(self, output: Tensor, start: int, stop: int, bins: slice = ALL) -> Tensor:
        """Some frames of the output, ``(batch, channels, frames, bins)``, fp32.

        Parameters
        ----------
        output
            The result of `forward`.
        start, stop
            The first frame and the one after the last, both even.
        bins
            All, or a slice between even numbers.
        """
        halves = bins if bins == ALL else slice(bins.start // 2, bins.stop // 2)
        pairs = output[:, :, start // 2 : stop // 2, :, halves].contiguous()
        return pairs.view(self.dtype).flatten(2, 3).float()


class DilatedHead(nn.Module):
    """The dilated convolution that makes logits from the last level, see `ModelConfig.head`.

    It always computes in fp32: with one input channel that is faster even on CPUs with bf16.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, 1, frames, bins)`` to ``(batch, channels, frames, bins)``."""
        out: Tensor = self.layer(hidden.float())
        return out

    def ordered(self, output: Tensor, start: int, stop: int, bins: slice = ALL) -> Tensor:
        """Some frames of the output, as `DoublingHead.ordered` gives them."""
        part: Tensor = output[:, :, start:stop, bins]
        return part.contiguous()


def is_single(layer: nn.Module) -> bool:
    """Whether a transposed convolution has one output channel, as before a dilated head."""
    return isinstance(layer, nn.ConvTranspose2d) and layer.out_channels == 1
