"""Layers that torch lacks, for training, and faster forms of them for separating."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

# Frames of which bins are mixed at once: 2 MB at most, to stay in the cache.
FRAMES = 64


class BinMixing(nn.Module):
    """Residual block along frequency: ``x + W2 relu(W1 x + b1) + b2`` in each frame.

    Convolutions treat all frequencies alike and see only their neighbours. This block sees a
    whole frame and tells its bins apart, as the time-distributed fully connected layers of
    Choi et al. (ISMIR 2020) do. All channels share the weights, but each has its own bias
    ``b2`` in each bin. It starts as the identity.

    Parameters
    ----------
    bins, channels
        Of the hidden spectrum.
    units
        Size of the hidden layer, at most ``bins``.
    """

    def __init__(self, bins: int, channels: int, units: int) -> None:
        super().__init__()
        units = min(units, bins)
        self.squeeze = nn.Parameter(torch.empty(units, bins))
        if not self.squeeze.is_meta:  # on the meta device init would import torch's compiler
            nn.init.normal_(self.squeeze, std=bins**-0.5)
        self.squeeze_bias = nn.Parameter(torch.zeros(units))
        self.expand = nn.Parameter(torch.zeros(bins, units))
        # One-dimensional, since optimisers recognise biases by that.
        self.expand_bias = nn.Parameter(torch.zeros(bins * channels))
        self.shape = (bins, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """``(batch, channels, frames, bins)`` to the same shape, channels last in memory."""
        spectrum = hidden.permute(0, 2, 3, 1)  # (batch, frames, bins, channels)
        squeezed = self.squeeze @ spectrum
        # Under autocast an fp32 bias would turn everything after it into fp32.
        squeezed = (squeezed + self.squeeze_bias[:, None].to(squeezed.dtype)).relu()
        change = self.expand @ squeezed
        mixed = spectrum + (change + self.expand_bias.view(self.shape).to(change.dtype))
        return mixed.permute(0, 3, 1, 2)


class InferenceBinMixing(nn.Module):
    """A `BinMixing` for separating that writes its output into a given tensor."""

    def __init__(self, block: BinMixing, dtype: torch.dtype) -> None:
        super().__init__()
        # In half precision oneDNN would copy a matrix that is expanded over a batch.
        copies = 1 if dtype == torch.float32 else FRAMES
        self.squeeze, self.expand = (
            nn.Parameter(weight.to(dtype).repeat(copies, 1, 1))
            for weight in (block.squeeze, block.expand)
        )
        self.squeeze_bias = nn.Parameter(block.squeeze_bias.to(dtype)[:, None])
        self.expand_bias = nn.Parameter(block.expand_bias.to(dtype).view(block.shape))

    def forward(self, spectrum: Tensor, target: Tensor) -> Tensor:
        """Mix ``(batch, frames, bins, channels)`` into ``target``, which may be the same.

        If ``target`` is not contiguous, ``spectrum`` is overwritten.
        """
        spectra, targets = (each.view(-1, *self.expand_bias.shape) for each in (spectrum, target))
        step = FRAMES if spectrum.device.type == "cpu" else len(spectra)
        for at in range(0, len(spectra), step):
            inputs, outputs = spectra[at : at + step], targets[at : at + step]
            squeezed = torch.bmm(_repeated(self.squeeze, len(inputs)), inputs)
            squeezed.add_(self.squeeze_bias).relu_()
            mixed = outputs if outputs.is_contiguous() else inputs
            torch.add(inputs, self.expand_bias, out=mixed)
            mixed.baddbmm_(_repeated(self.expand, len(inputs)), squeezed)
            if mixed is not outputs:
                outputs.copy_(mixed)
        return target


def _repeated(matrices: Tensor, count: int) -> Tensor:
    """The first ``count`` of equal matrices, or the first one expanded to ``count``."""
    if count <= len(matrices):
        return matrices[:count]
    return matrices[:1].expand(count, *matrices.shape[1:])


class SameConv2d(nn.Conv2d):
    """Convolution with stride 2 that pads as TensorFlow's ``same`` does.

    An even size needs ``kernel - 2`` elements in all, of which the smaller half goes before:
    one before and two after for a kernel of five. Torch can only pad evenly.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """``(batch, channels, 2 h, 2 w)`` to ``(batch, channels, h, w)``."""
        total = self.kernel_size[0] - 2
        sides = (total // 2, total - total // 2)
        return super().forward(functional.pad(input, sides * 2))


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution with stride 2, the adjoint of `SameConv2d`.

    ``padding`` elements are cut off at the start; the result ends one row and column late.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        """``(batch, channels, h, w)`` to ``(batch, channels, 2 h, 2 w)``."""
        return super().forward(input, output_size)[..., :-1, :-1]
