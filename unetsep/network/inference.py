"""A trained `UNet` for inference: the same masks in fewer operations and passes over memory.

The optimisations are chosen for a CPU in fp32. BatchNorm is folded into the convolutions before it
(`folding`). Transposed convolutions become plain ones where that is faster (`doubling`).
Activations and skips are written where the next level reads them. The head's output is interleaved
and turned into masks in pieces that fit into the cache.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .doubling import ALL, DilatedHead, Doubling, DoublingHead, is_single
from .folding import fold_last_norm, fold_norm, mirrored
from .layers import BinMixing, InferenceBinMixing
from .masks import activate
from .unet import UNet, compress

# Frames of the head's output that become masks at once, an even number: 0.5 MB, to stay in
# the cache.
MASK_FRAMES = 16

Layer = TypeVar("Layer", bound=nn.Module)
# Writes the masks of some frames, given the first and the one after the last, both even, into a
# tensor ``(batch, stems, channels, frames, bins)``.
WriteMasks = Callable[[int, int, Tensor], object]


class FrameLogits(Protocol):
    """Logits of a network for some frames."""

    def __call__(self, start: int, stop: int, bins: slice = ALL) -> Tensor:
        """Logits ``(batch, stems, channels, frames, bins)``, fp32; see `DoublingHead.ordered`."""


class InferenceNetwork(nn.Module):
    """The masks of a `MaskNetwork`, for inference only; each kind has its own subclass.

    Parameters
    ----------
    config
        Of the trained network.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def logits(self, magnitude: Tensor, fine: Tensor | None = None) -> FrameLogits:
        """Logits for the inputs of `MaskNetwork.logits`; see `FrameLogits`."""
        raise NotImplementedError

    def frame_masks(self, magnitude: Tensor, fine: Tensor | None = None) -> WriteMasks:
        """Masks for the inputs of `MaskNetwork.logits`, by default from `logits`."""
        logits = self.logits(magnitude, fine)
        return lambda start, stop, target: target.copy_(activate(logits(start, stop), self.config))

    # A network for all stems always computes all of them.
    def forward(
        self,
        magnitude: Tensor,
        fine: Tensor | None = None,
        *,
        wanted: Sequence[int] | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Masks as in `MaskNetwork.forward`, frames before bins in memory.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.
        fine
            See `MaskNetwork.logits`.
        wanted
            Indices of the stems to compute, by default all. The masks of others are zero if the
            config makes stems independent of each other.
        """
        write = self.frame_masks(magnitude, fine)
        masks = self._empty_masks(magnitude)
        frames = magnitude.shape[-1]
        step = MASK_FRAMES if magnitude.device.type == "cpu" else frames
        for at in range(0, frames, step):
            write(at, min(at + step, frames), masks[..., at : at + step, :])
        return masks.mT

    def _empty_masks(self, magnitude: Tensor) -> Tensor:
        """An uninitialised tensor for masks, ``(batch, stems, channels, frames, bins)``."""
        batch, channels, bins, frames = magnitude.shape
        shape = (batch, len(self.config.stems), channels, frames, bins)
        return torch.empty(shape, dtype=torch.float32, device=magnitude.device)


class InferenceUNet(InferenceNetwork):
    """The masks of a `UNet`.

    Parameters
    ----------
    network
        A trained network; not changed.
    dtype
        Of the convolutions. Level, norms that cannot be folded and masks are fp32.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: UNet, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(network.config)
        self.dtype = dtype
        source, network = network, _twin(network).cpu().float().eval()
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
        self._copy_shared(source)

    def _copy_shared(self, source: nn.Module) -> None:
        """Copy tensors that still share memory with ``source``, whose training may continue."""
        shared = {tensor.untyped_storage().data_ptr() for tensor in source.state_dict().values()}
        for tensor in itertools.chain(self.parameters(), self.buffers()):
            if tensor.untyped_storage().data_ptr() in shared:
                tensor.data = tensor.data.clone()

    def logits(self, magnitude: Tensor, fine: Tensor | None = None) -> FrameLogits:  # noqa: ARG002
        """See `InferenceNetwork.logits`."""
        logits, _ = self.output(self.normalised(magnitude))
        return logits

    def normalised(self, magnitude: Tensor, level: Tensor | None = None) -> Tensor:
        """See `UNet.normalised`."""
        if self.config.input == "linear":
            return magnitude
        return compress(magnitude, self.config, level).sub_(self.mean).div_(self.std)

    def output(
        self, normalised: Tensor, laterals: Sequence[Tensor] = (), state_count: int = 0
    ) -> tuple[FrameLogits, list[Tensor]]:
        """See `UNet.output`; if the layers are `mirrored`, so are the states."""
        all_bins, frames = normalised.shape[2:]
        hidden, states = self._hidden(
            self.oriented(normalised), [self.oriented(each) for each in laterals], state_count
        )
        output = self.head(hidden)
        axes = (len(self.config.stems), self.config.channels)

        def logits(start: int, stop: int, bins: slice = ALL) -> Tensor:
            if self.mirrored:
                start, stop = frames - stop, frames - start
                bins = bins if bins == ALL else slice(all_bins - bins.stop, all_bins - bins.start)
            part = self.oriented(self.head.ordered(output, start, stop, bins))
            return part.view(len(part), *axes, *part.shape[2:])

        return logits, states

    def oriented(self, spectra: Tensor) -> Tensor:
        """Spectra with both axes reversed if the layers are `mirrored`; the inverse is the same."""
        return spectra.flip(2, 3) if self.mirrored else spectra

    def _hidden(
        self, normalised: Tensor, laterals: Sequence[Tensor], state_count: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Input of the head, ``(batch, channels, frames, bins)``, and states."""
        hidden = normalised.transpose(2, 3).contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for level, encoder in enumerate(self.encoder):
            hidden, skip = encoder(hidden, laterals[level] if level < len(laterals) else None)
            skips.append(skip)
        hidden = skips.pop()
        states = []
        for decoder in self.decoder:
            decoder_skip = skips.pop() if skips else None
            hidden = decoder(hidden, decoder_skip)
            if decoder_skip is not None and len(skips) < state_count:
                states.append(hidden)
        return hidden, states[::-1]


class _Encoder(nn.Module):
    """One level of the encoder; returns the next level's input and the skip.

    The first level computes its convolution in fp32. With two or four channels that costs almost
    nothing, and rounding there would cause half of the error that bf16 makes in masks.
    """

    def __init__(self, block: nn.Module, dtype: torch.dtype, *, raw: bool, first: bool) -> None:
        super().__init__()
        convolution, self.rest, self.mixing = parts_of_level(block, dtype)
        if not first:
            convolution.to(dtype)
        self.convolution = convolution.to(memory_format=torch.channels_last)
        self.dtype, self.raw = dtype, raw

    def forward(self, hidden: Tensor, lateral: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(batch, channels, frames, bins)`` to half the frames and bins; adds ``lateral``."""
        raw: Tensor = self.convolution(hidden).to(self.dtype)
        if lateral is not None:
            raw += lateral
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
        # With one channel `Doubling` rounds the weights itself and adds their rounding errors.
        weight_dtype = torch.float32 if is_single(block[0]) else dtype
        floor = fold_last_norm(block, weight_dtype)
        convolution, self.rest, self.mixing = parts_of_level(block, dtype)
        self.doubling = Doubling(convolution, dtype, floor)
        self.rectify = all(isinstance(part, nn.ReLU) for part in self.rest)

    def forward(self, hidden: Tensor, skip: Tensor | None) -> Tensor:
        """``(batch, channels, frames, bins)`` to twice the frames and bins."""
        batch, _, frames, bins = hidden.shape
        upsampled_channels = self.doubling.channels
        channels = upsampled_channels + (0 if skip is None else skip.shape[1])
        size = (batch, 2 * frames, 2 * bins, channels)
        dtype = self.doubling.dtype if skip is None else skip.dtype
        joined = hidden.new_empty(size, dtype=dtype)
        target = joined[..., :upsampled_channels]
        spectrum = target if self.mixing is None else torch.empty_like(target)
        if self.rectify:
            self.doubling(hidden, spectrum)
        else:
            upsampled = self.doubling(hidden).permute(0, 3, 1, 2)
            spectrum.copy_(self.rest(upsampled).permute(0, 2, 3, 1))
        if self.mixing is not None:
            self.mixing(spectrum, target)
        if skip is not None:
            joined[..., upsampled_channels:] = skip.permute(0, 2, 3, 1)
        return joined.permute(0, 3, 1, 2)


def _twin(network: Layer) -> Layer:
    """A copy of a network whose layers may be replaced; it shares the tensors."""
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
) -> tuple[Any, nn.Sequential, InferenceBinMixing | None]:
    """Convolution, pointwise layers after it (activations in place), and the mixing of bins."""
    assert isinstance(block, nn.Sequential)
    convolution, *others = block
    rest, mixing = nn.Sequential(), None
    for part in others:
        if isinstance(part, BinMixing):
            mixing = InferenceBinMixing(part, dtype)
        elif not isinstance(part, nn.Identity):
            if isinstance(part, nn.ReLU | nn.LeakyReLU | nn.ELU):
                part.inplace = True
            rest.append(part)
    return convolution, rest, mixing
