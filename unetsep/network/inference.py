"""A trained `UNet` as it separates: the same masks in fewer operations and passes over memory.

What is done, and why, on a CPU in fp32: BatchNorm is folded into the convolutions before it
(`folding`). Transposed convolutions become plain ones where that is faster (`doubling`).
Activations and skips are written where the next level reads them. The head's output is put in
the order of the spectrum, and made into masks, in pieces that fit into the cache.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .doubling import ALL, DilatedHead, Doubling, DoublingHead, is_single
from .folding import fold_last_norm, fold_norm, mirrored
from .layers import BinMixing, Mixing
from .masks import activate
from .unet import UNet, compress

# Frames of the head's output that become masks at once, an even number: 0.5 MB, to stay in
# the cache.
MASK_FRAMES = 16

Layer = TypeVar("Layer", bound=nn.Module)
# What a network found, to be taken a few frames at a time, given the first frame and the one
# after the last, both even. Logits ``(batch, stems, channels, frames, bins)``, fp32; or masks,
# which are written where there is room of that shape.
Frames = Callable[[int, int], Tensor]
WriteFrames = Callable[[int, int, Tensor], object]


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
