"""Layers that give the same with less work: without a BatchNorm, or without another copy."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .layers import SameConv2d, SameConvTranspose2d


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
