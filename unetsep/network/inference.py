"""A trained `UNet` as it separates: the same masks in fewer operations and passes over memory.

What is done, and why, on a CPU in fp32: BatchNorm is folded into the convolutions before it.
Transposed convolutions become plain ones where that is faster. Activations and skips are
written where the next level reads them. The head's output is put in the order of the
spectrum, and made into masks, in pieces that fit into the cache.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .layers import BinMixing, Mixing
from .unet import UNet, compress

# Output channels that vector units take at once; oneDNN's transposed convolutions are fast
# in fp32 with multiples of it only, and slow in bf16 always.
LANES = 16
# Frames of the head's output that become masks at once: 0.5 MB, to stay in the cache.
MASK_FRAMES = 16


class InferenceUNet(nn.Module):
    """The masks of a `UNet`, for evaluation only.

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
        super().__init__()
        self.config, self.dtype = network.config, dtype
        if self.config.networks == "per_stem":
            members = [member for member in network.members if isinstance(member, UNet)]
            self.members = nn.ModuleList(InferenceUNet(member, dtype) for member in members)
            return
        network = copy.deepcopy(network).cpu().eval()
        if self.config.skips == "activated":
            for block in (*network.encoder, *network.decoder):
                _fold_norm(block)
        raw = self.config.skips == "raw"
        self.encoder = nn.ModuleList(_Encoder(block, dtype, raw=raw) for block in network.encoder)
        self.decoder = nn.ModuleList(_Decoder(block, dtype) for block in network.decoder)
        self.head: nn.Module
        if isinstance(network.head, nn.ConvTranspose2d):
            self.head = Doubling(network.head, dtype, bins_in_pairs=True)
        else:
            self.head = network.head.to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.config.input == "log":
            self.register_buffer("mean", network.input_mean[..., None])
            self.register_buffer("std", network.input_std[..., None])
        self.requires_grad_(False)

    def forward(self, magnitude: Tensor, wanted: Sequence[int] | None = None) -> Tensor:
        """Masks as `UNet.forward` gives them, frames before bins in memory.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.
        wanted
            Stems whose masks matter. Others are zero, and not computed, where the config
            makes stems independent of each other; by default all matter.
        """
        if self.config.networks == "joint":
            return self._activate(self._logits(magnitude))
        if wanted is None or not self.config.independent:
            if self.config.mask == "softmax":
                heads = [member._logits(magnitude) for member in self._members()]
                return self._activate(torch.cat(heads, dim=1))
            return torch.cat([member(magnitude).mT for member in self._members()], dim=1).mT
        stems, channels = len(self.config.stems), self.config.channels
        masks = magnitude.new_zeros(len(magnitude), stems, channels, *magnitude.mT.shape[2:])
        for index in set(wanted):
            masks[:, index] = self._members()[index](magnitude)[:, 0].mT
        return masks.mT

    def _members(self) -> list[InferenceUNet]:
        return [member for member in self.members if isinstance(member, InferenceUNet)]

    def _hidden(self, magnitude: Tensor) -> Tensor:
        """What the head sees, ``(batch, channels, frames, bins)``."""
        hidden = magnitude
        if self.config.input == "log":
            hidden = compress(magnitude, self.config).sub_(self.mean).div_(self.std)
        hidden = hidden.transpose(2, 3).to(self.dtype)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for encoder in self.encoder:
            hidden, skip = encoder(hidden)
            skips.append(skip)
        hidden = skips.pop()
        for decoder in self.decoder:
            hidden = decoder(hidden, skips.pop() if skips else None)
        return hidden

    def _logits(self, magnitude: Tensor) -> Tensor:
        """Output of the head, ``(batch, masks, frames, bins)`` or as `Doubling` pairs bins."""
        out: Tensor = self.head(self._hidden(magnitude))
        return out

    def _activate(self, logits: Tensor) -> Tensor:
        """Masks from `_logits`, a few frames at a time."""
        paired = logits.dtype == torch.float64
        count, channels = len(self.config.stems), self.config.channels
        frames = logits.shape[2] * (2 if paired else 1)
        bins = logits.shape[-1] * (2 if paired else 1)
        shape = (len(logits), count, channels, frames, bins)
        masks = torch.empty(shape, dtype=torch.float32, device=logits.device)
        softmax = self.config.mask == "softmax"
        step = MASK_FRAMES if logits.device.type == "cpu" else frames
        for at in range(0, frames, step):
            if paired:
                part = logits[:, :, at // 2 : (at + step) // 2].contiguous().view(torch.float32)
            else:
                part = logits[:, :, at : at + step].float().contiguous()
            part = part.reshape(len(logits), count, channels, -1, bins)
            masks[..., at : at + step, :] = part.softmax(dim=1) if softmax else part.sigmoid()
        return masks.transpose(-1, -2)


class Doubling(nn.Module):
    """A transposed convolution that doubles both axes, in the faster of two forms.

    Along one axis tap ``k`` adds input ``i`` to output ``2 i + k - padding``. So output
    ``2 j + r`` is a sum over inputs ``j + d`` with tap ``k = r + padding - 2 d``: a plain
    convolution for each remainder ``r``, whose outputs are interleaved (Shi et al. 2016).

    Parameters
    ----------
    layer
        The transposed convolution, stride 2.
    dtype
        Of weights and input.
    bins_in_pairs
        Give fp32 output as ``(batch, channels, frames / 2, 2, bins / 2)`` numbers of 64 bits,
        each two neighbouring bins, still to be put in order: moving pairs is half the work.
    """

    def __init__(
        self, layer: nn.ConvTranspose2d, dtype: torch.dtype, *, bins_in_pairs: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.pairs = layer.out_channels, bins_in_pairs
        self.transposed: Any = None
        if dtype == torch.float32 and self.channels % LANES == 0 and not bins_in_pairs:
            self.transposed = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            return
        kernel, padding = layer.kernel_size[0], int(layer.padding[0])
        seen = {
            (r, k): (r + padding - k) // 2
            for r in (0, 1)
            for k in range(kernel)
            if (r + padding - k) % 2 == 0
        }
        self.first = min(seen.values())  # input that the first tap sees, relative to j
        self.margin = max(-self.first, max(seen.values()))
        taps = torch.zeros(2, max(seen.values()) - self.first + 1, kernel)
        for (r, k), d in seen.items():
            taps[r, d - self.first, k] = 1
        weight = torch.einsum("iokl,rdk,sel->rsoide", layer.weight, taps, taps)
        bias = torch.zeros(self.channels) if layer.bias is None else layer.bias.detach()
        bias = bias.repeat(2, 2, 1)  # (frame of two, bin of two, channels)
        if bins_in_pairs:
            weight, bias = weight.transpose(1, 2), bias.transpose(1, 2)
        weight = weight.flatten(0, 2).to(dtype).contiguous(memory_format=torch.channels_last)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias.flatten().to(dtype))

    def forward(self, hidden: Tensor, target: Tensor | None = None) -> Tensor:
        """Double, rectify into ``target`` if there is one, else leave as it is.

        Parameters
        ----------
        hidden
            ``(batch, channels, frames, bins)``, channels last in memory.
        target
            ``(batch, 2 frames, 2 bins, channels)``.

        Returns
        -------
        Tensor
            ``(batch, 2 frames, 2 bins, channels)``, or as ``bins_in_pairs`` says.
        """
        if self.transposed is not None:
            out: Tensor = self.transposed(hidden).permute(0, 2, 3, 1)
            return out if target is None else torch.clamp_min(out, 0, out=target)
        batch, _, frames, bins = hidden.shape
        out = functional.conv2d(hidden, self.weight, self.bias, padding=self.margin)
        skip = self.margin + self.first
        out = out[..., skip : skip + frames, skip : skip + bins].permute(0, 2, 3, 1)
        if self.pairs:
            pairs = out.float().contiguous().view(torch.float64)
            pairs = pairs.view(batch, frames, bins, 2, self.channels)
            return pairs.permute(0, 4, 1, 3, 2)
        # (batch, frames, frame of two, bins, bin of two, channels)
        apart = out.view(batch, frames, bins, 2, 2, self.channels)
        ordered = apart.permute(0, 1, 3, 2, 4, 5)
        if target is None:
            return ordered.reshape(batch, 2 * frames, 2 * bins, self.channels)
        places = target.view(batch, frames, 2, bins, 2, self.channels)
        torch.clamp_min(ordered, 0, out=places)
        return target


class _Encoder(nn.Module):
    """One level of the encoder; gives what the next level sees, and the skip."""

    def __init__(self, block: nn.Module, dtype: torch.dtype, *, raw: bool) -> None:
        super().__init__()
        convolution, self.rest, self.mixing = _parts(block, dtype)
        self.convolution = convolution.to(dtype).to(memory_format=torch.channels_last)
        self.raw = raw

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """``(batch, channels, frames, bins)`` to half the frames and bins."""
        raw: Tensor = self.convolution(hidden)
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
        convolution, self.rest, self.mixing = _parts(block, dtype)
        self.doubling = Doubling(convolution, dtype)
        self.rectify = all(isinstance(part, nn.ReLU) for part in self.rest)

    def forward(self, hidden: Tensor, skip: Tensor | None) -> Tensor:
        """``(batch, channels, frames, bins)`` to twice the frames and bins."""
        batch, _, frames, bins = hidden.shape
        own = self.doubling.channels
        channels = own + (0 if skip is None else skip.shape[1])
        whole = hidden.new_empty(batch, 2 * frames, 2 * bins, channels)
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


def _parts(block: nn.Module, dtype: torch.dtype) -> tuple[Any, nn.Sequential, Mixing | None]:
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


def _fold_norm(block: nn.Module) -> None:
    """Fold the BatchNorm of a level into the convolution right before it."""
    assert isinstance(block, nn.Sequential)
    convolution: Any = block[0]
    norm: Any = block[1]
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    block[0] = fuse_conv_bn_eval(convolution, norm, transposed)
    block[1] = nn.Identity()
