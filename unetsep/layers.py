"""Layers that torch does not have."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


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

    With ``padding`` elements cut off before, it ends one row and column late.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:  # noqa: A002
        """``(batch, channels, h, w)`` to ``(batch, channels, 2 h, 2 w)``."""
        return super().forward(input, output_size)[..., :-1, :-1]
