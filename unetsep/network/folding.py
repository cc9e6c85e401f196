"""Equivalent layers with less work: BatchNorms folded away, padding without a copy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .layers import SameConv2d, SameConvTranspose2d


@torch.no_grad()
def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Factor and shift of a BatchNorm, ``factor * x + shift``, each ``(channels,)``."""
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
    """Scale a convolution's output by ``factor`` and add ``shift``, in each channel."""
    weight, bias = convolution.weight, convolution.bias
    shape = (-1, 1, 1) if isinstance(convolution, nn.ConvTranspose2d) else (-1, 1, 1, 1)
    # Already in its final type and layout, which saves a copy.
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
    """Fold the BatchNorm that begins a block into the convolutions whose sum is its input."""
    factor, shift = affine(block[0])
    for convolution in convolutions:
        scale_outputs(convolution, factor, shift)
        shift = torch.zeros_like(shift)
    block[0] = nn.Identity()


def fold_last_norm(block: nn.Module, dtype: torch.dtype) -> Tensor | None:
    """Fold the BatchNorm of a level into its convolution across the ReLU between them.

    With its factor ``a > 0`` and its shift ``b``, ``a relu(z) + b = max(a z + b, b)``.

    Returns
    -------
    Tensor or None
        ``b``, ``(channels,)``; None if the level is of another form and stays unchanged.
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


def mirrored(layer: nn.Module) -> nn.Module:
    """The equivalent of a layer for spectra with both axes reversed.

    TensorFlow pads ``same`` convolutions of even axes with one more element after than before,
    torch the other way round. So the mirrored layer is a plain torch layer that needs no padded
    copy. Transposed convolutions are faster mirrored, too.
    """
    assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
    kernel = layer.kernel_size[0]
    new: Any = copy.copy(layer)
    # On the meta device, since initial weights would advance the caller's random state.
    options: Any = {"bias": False, "device": "meta"}
    if isinstance(layer, SameConv2d):
        new = nn.Conv2d(1, 1, kernel, 2, kernel // 2, **options)
    elif isinstance(layer, SameConvTranspose2d):
        new = nn.ConvTranspose2d(1, 1, kernel, 2, kernel // 2, output_padding=1, **options)
    new.in_channels, new.out_channels = layer.in_channels, layer.out_channels
    new._parameters = {
        "weight": nn.Parameter(layer.weight.detach().flip(2, 3), requires_grad=False),
        "bias": layer.bias,
    }
    result: nn.Module = new
    return result
