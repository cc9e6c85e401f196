"""A trained `UNet` as it separates: the same masks in fewer operations and passes over memory.

What is done, and why, on a CPU in fp32: BatchNorm is folded into the convolutions before it.
Transposed convolutions become plain ones where that is faster. Activations and skips are
written where the next level reads them. The head's output is put in the order of the
spectrum, and made into masks, in pieces that fit into the cache.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import ModelConfig
from .devices import cpu_capabilities
from .layers import BinMixing, Mixing, SameConv2d, SameConvTranspose2d
from .masks import activate
from .unet import UNet, compress

# Output channels that vector units take at once; oneDNN's transposed convolutions are fast
# with multiples of it only.
LANES = 16
# Frames of the head's output that become masks at once, an even number: 0.5 MB, to stay in
# the cache.
MASK_FRAMES = 16

Layer = TypeVar("Layer", bound=nn.Module)
# What a network found, to be taken a few frames at a time, given the first frame and the one
# after the last, both even. Logits ``(batch, stems, channels, frames, bins)``, fp32; or masks,
# which are written where there is room of that shape.
Frames = Callable[[int, int], Tensor]
WriteFrames = Callable[[int, int, Tensor], object]
ALL = slice(None)


class InferenceNetwork(nn.Module):
    """The masks of a `MaskNetwork`, for evaluation only; each kind has one of its own.

    Parameters
    ----------
    config
        Of the trained network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def logits(self, magnitude: Tensor, *more: Tensor) -> Frames:
        """Logits of what `MaskNetwork.logits` takes; see `frame_masks`."""
        raise NotImplementedError

    def frame_masks(self, magnitude: Tensor, *more: Tensor) -> WriteFrames:
        """Masks of what `MaskNetwork.logits` takes, by default those of `logits`."""
        logits = self.logits(magnitude, *more)
        return lambda start, stop, room: room.copy_(activate(logits(start, stop), self.config))

    # A network for all stems has them all at once, whoever wants them.
    def forward(
        self,
        magnitude: Tensor,
        *more: Tensor,
        wanted: Sequence[int] | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Masks as `MaskNetwork.forward` gives them, frames before bins in memory.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.
        more
            See `MaskNetwork.logits`.
        wanted
            Stems whose masks matter. Others are zero, and not computed, where the config
            makes stems independent of each other; by default all matter.
        """
        write = self.frame_masks(magnitude, *more)
        masks = self._room(magnitude)
        frames = magnitude.shape[-1]
        step = MASK_FRAMES if magnitude.device.type == "cpu" else frames
        for at in range(0, frames, step):
            write(at, min(at + step, frames), masks[..., at : at + step, :])
        return masks.mT

    def _room(self, magnitude: Tensor) -> Tensor:
        """For masks, ``(batch, stems, channels, frames, bins)``; what is in it is undefined."""
        batch, channels, bins, frames = magnitude.shape
        shape = (batch, len(self.config.stems), channels, frames, bins)
        return torch.empty(shape, dtype=torch.float32, device=magnitude.device)


class InferenceUNet(InferenceNetwork):
    """The masks of a `UNet`.

    Parameters
    ----------
    network
        A trained network; it is left as it is.
    dtype
        Of the convolutions. Level, norms that cannot be folded and masks are fp32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: UNet, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(network.config)
        self.dtype = dtype
        given, network = network, _twin(network).cpu().float().eval()
        self.mirrored = self.config.padding == "same" and not self.config.bin_units
        if self.mirrored:
            for block in (*network.encoder, *network.decoder):
                assert isinstance(block, nn.Sequential)
                block[0] = mirrored(block[0])
            network.head = mirrored(network.head)
        if self.config.skips == "activated":
            for block in (*network.encoder, *network.decoder):
                fold_norm(block)
        raw = self.config.skips == "raw"
        self.encoder = nn.ModuleList(
            _Encoder(block, dtype, raw=raw, first=level == 0)
            for level, block in enumerate(network.encoder)
        )
        self.decoder = nn.ModuleList(_Decoder(block, dtype) for block in network.decoder)
        self.head: DoublingHead | DilatedHead
        if isinstance(network.head, nn.ConvTranspose2d):
            self.head = DoublingHead(network.head, dtype)
        else:
            self.head = DilatedHead(network.head)
        if self.config.input == "log":
            self.register_buffer("mean", network.input_mean[..., None])
            self.register_buffer("std", network.input_std[..., None])
        self.requires_grad_(False)
        self._own(given)

    def _own(self, given: nn.Module) -> None:
        """Copy the numbers that are still those of the network given: it may be trained on."""
        shared = {tensor.untyped_storage().data_ptr() for tensor in given.state_dict().values()}
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            if tensor.untyped_storage().data_ptr() in shared:
                tensor.data = tensor.data.clone()

    def logits(self, magnitude: Tensor, *more: Tensor) -> Frames:  # noqa: ARG002
        """See `InferenceNetwork.logits`."""
        return self.output(self.normalised(magnitude))

    def normalised(self, magnitude: Tensor, level: Tensor | None = None) -> Tensor:
        """See `UNet.normalised`."""
        if self.config.input == "linear":
            return magnitude
        return compress(magnitude, self.config, level).sub_(self.mean).div_(self.std)

    def output(
        self,
        normalised: Tensor,
        sides: Sequence[Tensor] = (),
        states: list[Tensor] | None = None,
    ) -> UNetLogits:
        """See `UNet.output`; where layers are `mirrored`, so are the states."""
        axes = (len(self.config.stems), self.config.channels)
        if not self.mirrored:
            hidden = self._hidden(normalised, sides, states)
            return UNetLogits(self.head, self.head(hidden), axes)
        sides = [side.flip(2, 3) for side in sides]
        output = self.head(self._hidden(normalised.flip(2, 3), sides, states))
        return MirroredLogits(self.head, output, axes, normalised.shape[2:])

    def _hidden(
        self, normalised: Tensor, sides: Sequence[Tensor], states: list[Tensor] | None
    ) -> Tensor:
        """What the head sees, ``(batch, channels, frames, bins)``."""
        hidden = normalised.transpose(2, 3).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoder):
            hidden, skip = encoder(hidden, sides[level] if level < len(sides) else None)
            skips.append(skip)
        hidden = skips.pop()
        for decoder in self.decoder:
            joined = skips.pop() if skips else None
            hidden = decoder(hidden, joined)
            if joined is not None and states is not None:
                states.insert(0, hidden)
        return hidden


class UNetLogits:
    """The logits of a `UNet`, of which some bins can be taken alone.

    Parameters
    ----------
    head, output
        The last layer and what it gave.
    axes
        Stems and channels.
    """

    def __init__(
        self, head: DoublingHead | DilatedHead, output: Tensor, axes: tuple[int, int]
    ) -> None:
        self.head, self.output, self.axes = head, output, axes

    def __call__(self, start: int, stop: int, bins: slice = ALL) -> Tensor:
        """Logits ``(batch, stems, channels, frames, bins)``, fp32; see `DoublingHead.ordered`."""
        part = self.head.ordered(self.output, start, stop, bins)
        return part.view(len(part), *self.axes, *part.shape[2:])


class MirroredLogits(UNetLogits):
    """The logits of a network whose layers were `mirrored`.

    Parameters
    ----------
    head, output, axes
        As for `UNetLogits`.
    size
        Bins and frames.
    """

    def __init__(
        self,
        head: DoublingHead | DilatedHead,
        output: Tensor,
        axes: tuple[int, int],
        size: Sequence[int],
    ) -> None:
        super().__init__(head, output, axes)
        self.bins, self.frames = size

    def __call__(self, start: int, stop: int, bins: slice = ALL) -> Tensor:
        """See `UNetLogits`."""
        if bins != ALL:
            bins = slice(self.bins - bins.stop, self.bins - bins.start)
        return super().__call__(self.frames - stop, self.frames - start, bins).flip(-2, -1)


def mirrored(layer: nn.Module) -> nn.Module:
    """A layer that does to spectra with both axes reversed what the given one does to others.

    TensorFlow pads ``same`` convolutions by one element more after an even axis than before it,
    torch the other way round: the mirrored layer is one of torch's own, without another copy.
    Transposed convolutions, too, are faster so.
    """
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    kernel = layer.kernel_size[0]
    new: Any = copy.copy(layer)
    # On no device: numbers that nobody keeps would be drawn from the caller's random state.
    without: Any = {"bias": False, "device": "meta"}
    if isinstance(layer, SameConv2d):
        new = nn.Conv2d(1, 1, kernel, 2, kernel // 2, **without)
    elif isinstance(layer, SameConvTranspose2d):
        new = nn.ConvTranspose2d(1, 1, kernel, 2, kernel // 2, output_padding=1, **without)
    new.in_channels, new.out_channels = layer.in_channels, layer.out_channels
    new._parameters = {
        "weight": nn.Parameter(layer.weight.detach().flip(2, 3), requires_grad=False),
        "bias": layer.bias,
    }
    result: nn.Module = new
    return result


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
        Put the two bins of an output behind its channels instead of before.
    remainders
        Give what rounding took from the weights outputs of its own, behind the others; their
        sum is still to be taken. With few channels that costs nothing: vector units take sixteen.
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
        seen = {
            (r, k): (r + padding - k) // 2
            for r in (0, 1)
            for k in range(kernel)
            if (r + padding - k) % 2 == 0
        }
        self.first = min(seen.values())  # input that the first tap sees, relative to j
        self.margin = max(-self.first, max(seen.values()))
        taps = layer.weight if remainders else layer.weight.to(dtype)
        taps = taps.permute(2, 3, 1, 0).contiguous()  # (tap, tap, out, in)
        size = max(seen.values()) - self.first + 1
        # (r, s, out, d, e, in) for frames and bins, where no tap falls zero
        weight = taps.new_zeros(2, 2, layer.out_channels, size, size, layer.in_channels)
        for (r, k), d in seen.items():
            for (s, m), e in seen.items():
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
        """The four outputs of each input, still to be put in order.

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
        skip = self.margin + self.first
        return out[..., skip : skip + frames, skip : skip + bins].permute(0, 2, 3, 1)


def has_fast_transposed(dtype: torch.dtype) -> bool:
    """Whether transposed convolutions are faster than `Subpixels`, if their channels suit.

    They need 25 products where those, with a kernel of five, take 36. In bf16 that holds with
    the instructions of AVX-512 for it. Where bf16 is emulated they are slow; with AMX nobody
    has measured them.
    """
    found = cpu_capabilities()
    native = bool(found.get("avx512_bf16")) and not found.get("amx_bf16")
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
        What is lower becomes that, ``(channels,)``; see `fold_last_norm`. By default 0.
    """

    floor: Tensor | None

    def __init__(
        self, layer: nn.ConvTranspose2d, dtype: torch.dtype, floor: Tensor | None = None
    ) -> None:
        super().__init__()
        self.channels = layer.out_channels
        # Such a level is the last one, and the head behind it computes in fp32.
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
        """Double, and rectify into ``target`` if there is one.

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
        places = None if target is None else target.view(shape)
        values = ordered[0] if len(ordered) == 1 else torch.add(*ordered, out=places)
        if target is None or places is None:
            return values.reshape(batch, 2 * frames, 2 * bins, self.channels)
        self._rectify(values, places)
        return target

    def _rectify(self, values: Tensor, target: Tensor) -> Tensor:
        if self.floor is None:
            return torch.clamp_min(values, 0, out=target)
        return torch.maximum(values, self.floor, out=target)


class DoublingHead(nn.Module):
    """The last transposed convolution, whose output is put in order piece by piece.

    Two neighbouring bins are moved as one number of twice the size, which is half the work.

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
        # Moved and nothing else; Apple's GPUs have no float64.
        self.pair = torch.int64 if dtype == torch.float32 else torch.int32
        self.subpixels = Subpixels(layer, dtype, bins_last=True)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, channels, frames, bins)`` to what `ordered` understands.

        That is ``(batch, channels, frames, 2, bins)``: twice the frames, and pairs of bins.
        """
        batch, _, frames, bins = hidden.shape
        pairs: Tensor = self.subpixels(hidden).contiguous().view(self.pair)
        return pairs.view(batch, frames, bins, 2, self.channels).permute(0, 4, 1, 3, 2)

    def ordered(self, output: Tensor, start: int, stop: int, bins: slice = ALL) -> Tensor:
        """Some frames of the output, ``(batch, channels, frames, bins)``, fp32.

        Parameters
        ----------
        output
            Of `forward`.
        start, stop
            The first frame and the one after the last, both even.
        bins
            All, or from one even number to another.
        """
        halves = bins if bins == ALL else slice(bins.start // 2, bins.stop // 2)
        pairs = output[:, :, start // 2 : stop // 2, :, halves].contiguous()
        return pairs.view(self.dtype).flatten(2, 3).float()


class DilatedHead(nn.Module):
    """The dilated convolution that makes masks from the last level, see `ModelConfig.head`.

    Always in fp32: with its one channel that is faster on processors with bf16, too.
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


class _Encoder(nn.Module):
    """One level of the encoder; gives what the next level sees, and the skip.

    The first one sees fp32, and its convolution is in fp32: that costs next to nothing with two
    or four channels, and rounding there makes half of what bf16 changes in masks.
    """

    def __init__(self, block: nn.Module, dtype: torch.dtype, *, raw: bool, first: bool) -> None:
        super().__init__()
        convolution, self.rest, self.mixing = parts_of_level(block, dtype)
        if not first:
            convolution.to(dtype)
        self.convolution = convolution.to(memory_format=torch.channels_last)
        self.dtype, self.raw = dtype, raw

    def forward(self, hidden: Tensor, side: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(batch, channels, frames, bins)`` to half the frames and bins; adds ``side``."""
        raw: Tensor = self.convolution(hidden).to(self.dtype)
        if side is not None:
            raw += side
        out: Tensor = self.rest(raw)
        if self.mixing is not None:
            spectrum = out.permute(0, 2, 3, 1)
            target = torch.empty_like(spectrum) if self.raw else spectrum
            out = self.mixing(spectrum, target).permute(0, 3, 1, 2)
        return out, raw if self.raw else out


class _Decoder(nn.Module):
    """One level of the decoder, joined with its skip."""

    def __init__(self, block: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        assert isinstance(block, nn.Sequential)
        # Of a single channel, weights are rounded only where what that takes away is kept.
        kept = torch.float32 if is_single(block[0]) else dtype
        floor = fold_last_norm(block, kept)
        convolution, self.rest, self.mixing = parts_of_level(block, dtype)
        self.doubling = Doubling(convolution, dtype, floor)
        self.rectify = all(isinstance(part, nn.ReLU) for part in self.rest)

    def forward(self, hidden: Tensor, skip: Tensor | None) -> Tensor:
        """``(batch, channels, frames, bins)`` to twice the frames and bins."""
        batch, _, frames, bins = hidden.shape
        own = self.doubling.channels
        channels = own + (0 if skip is None else skip.shape[1])
        size = (batch, 2 * frames, 2 * bins, channels)
        whole = hidden.new_empty(size, dtype=self.doubling.dtype)
        target = whole[..., :own]
        spectrum = target if self.mixing is None else torch.empty_like(target)
        if self.rectify:
            self.doubling(hidden, spectrum)
        else:
            plain = self.doubling(hidden).permute(0, 3, 1, 2)
            spectrum.copy_(self.rest(plain).permute(0, 2, 3, 1))
        if self.mixing is not None:
            self.mixing(spectrum, target)
        if skip is not None:
            whole[..., own:] = skip.permute(0, 2, 3, 1)
        return whole.permute(0, 3, 1, 2)


def is_single(layer: nn.Module) -> bool:
    """Whether a transposed convolution has one output channel: the last before a dilated head."""
    return isinstance(layer, nn.ConvTranspose2d) and layer.out_channels == 1


def _twin(network: Layer) -> Layer:
    """A network whose layers may be changed; nearly all its numbers are copied later anyway."""
    twin = copy.copy(network)
    twin._modules = {
        name: None if part is None else _twin(part) for name, part in network._modules.items()
    }
    twin._buffers = {
        name: None if value is None else value.detach() for name, value in network._buffers.items()
    }
    twin._parameters = {
        name: None if value is None else nn.Parameter(value.detach(), requires_grad=False)
        for name, value in network._parameters.items()
    }
    return twin


def parts_of_level(
    block: nn.Module, dtype: torch.dtype
) -> tuple[Any, nn.Sequential, Mixing | None]:
    """Convolution, what follows it pointwise (activations in place), and the mixing of bins."""
    assert isinstance(block, nn.Sequential)
    convolution, *others = block
    rest, mixing = nn.Sequential(), None
    for part in others:
        if isinstance(part, BinMixing):
            mixing = Mixing(part, dtype)
        elif not isinstance(part, nn.Identity):
            if isinstance(part, nn.ReLU | nn.LeakyReLU | nn.ELU):
                part.inplace = True
            rest.append(part)
    return convolution, rest, mixing


@torch.no_grad()
def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """What a BatchNorm multiplies with and what it adds then, ``(channels,)``."""
    # Not `BatchNorm2d`: in training on several GPUs all norms are `SyncBatchNorm`.
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return factor, norm.bias - norm.running_mean * factor


@torch.no_grad()
def scale_outputs(
    convolution: Any, factor: Tensor, shift: Tensor, dtype: torch.dtype | None = None
) -> None:
    """Let a convolution give ``factor`` times what it gave, plus ``shift``, in each channel."""
    weight, bias = convolution.weight, convolution.bias
    shape = (-1, 1, 1) if isinstance(convolution, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    # In the type and layout that it will have, so that it is not copied twice.
    scaled = torch.empty_like(weight, dtype=dtype, memory_format=torch.channels_last)
    torch.mul(weight, factor.view(shape), out=scaled)
    convolution.weight = nn.Parameter(scaled)
    convolution.bias = nn.Parameter(shift if bias is None else bias * factor + shift)


def fold_norm(block: nn.Module) -> None:
    """Fold the BatchNorm of a level into the convolution right before it."""
    assert isinstance(block, nn.Sequential)
    scale_outputs(block[0], *affine(block[1]))
    block[1] = nn.Identity()


def fold_norm_of_sum(convolutions: Sequence[nn.Module], block: nn.Sequential) -> None:
    """Fold the BatchNorm that begins a block into convolutions whose sum it sees."""
    factor, shift = affine(block[0])
    for convolution in convolutions:
        scale_outputs(convolution, factor, shift)
        shift = torch.zeros_like(shift)
    block[0] = nn.Identity()


def fold_last_norm(block: nn.Module, dtype: torch.dtype) -> Tensor | None:
    """Fold the BatchNorm of a level into its convolution where a ReLU lies between them.

    With ``a > 0`` its factor and ``b`` what it adds, ``a relu(z) + b = max(a z + b, b)``.

    Returns
    -------
    Tensor or None
        ``b``, ``(channels,)``; None if the level is another one, which is left as it is.
    """
    assert isinstance(block, nn.Sequential)
    norms = nn.modules.batchnorm._BatchNorm
    if not (isinstance(block[1], nn.ReLU) and isinstance(block[2], norms)):
        return None
    factor, shift = affine(block[2])
    if not bool((factor > 0).all()):
        return None
    scale_outputs(block[0], factor, shift, dtype)
    block[1], block[2] = nn.Identity(), nn.Identity()
    return shift
