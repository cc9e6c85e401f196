"""The masks of a network and its guide, which vote on the vocals.

In each bin the guide has one logit ``g`` and the network a logit ``a`` for each stem. With
``rest`` all stems but the vocals and ``w`` the weight of the guide

    L_vocals = w g + (1 - w) (a_vocals - logsumexp(a_rest))
    L_s      = a_s - logsumexp(a_rest)                          for each s of the rest

and the masks are ``softmax(L)``, which is

    M_vocals = v = sigmoid(L_vocals),    M_s = (1 - v) softmax(a_rest)_s :

the network divides the remaining share ``1 - v`` among the other stems. Masks sum to one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .doubling import ALL


def split_vocals(stems: Tensor, vocals: int) -> tuple[Tensor, Tensor]:
    """The vocals and the rest of ``(batch, stems, ...)``, both with an axis of stems.

    Parameters
    ----------
    stems
        Not changed; both parts are views if the vocals come first.
    vocals
        Index of the vocals among the stems.
    """
    before, voice, after = stems.tensor_split((vocals, vocals + 1), dim=1)
    return voice, torch.cat([before, after], dim=1) if vocals else after


def join_vocals(voice: Tensor, rest: Tensor, vocals: int) -> Tensor:
    """The inverse of `split_vocals`."""
    before, after = rest.tensor_split((vocals,), dim=1)
    return torch.cat([before, voice, after], dim=1)


def guided_logits(logits: Tensor, guide: Tensor, weight: float, vocals: int) -> Tensor:
    """Logits whose softmax are the masks of a network and its guide: ``L`` of this module.

    Parameters
    ----------
    logits
        ``a``, ``(batch, stems, ...)``.
    guide
        ``g``, ``(batch, 1, ...)``.
    weight
        ``w``, 0 to 1.
    vocals
        Index of the vocals among the stems.

    Returns
    -------
    Tensor
        Of the shape of ``logits``.
    """
    voice, rest = split_vocals(logits, vocals)
    level = rest.logsumexp(dim=1, keepdim=True)
    vote = torch.lerp(voice - level, guide, weight)
    return join_vocals(vote, rest - level, vocals)


def write_guided_masks(
    logits: Tensor,
    guide: Tensor,
    weight: float,
    vocals: int,
    target: Tensor,
    change: Tensor | None = None,
    bins: slice = ALL,
) -> None:
    """Write the softmax of `guided_logits`, with half the exponentials.

    Parameters
    ----------
    logits, guide, weight, vocals
        As for `guided_logits`.
    target
        Receives the masks, of the shape of ``logits``.
    change
        A branch's corrections of the logits of the rest in some bins,
        ``(batch, stems - 1, ..., bins)``; see `corrected`.
    bins
        Those bins.
    """
    voice, rest = split_vocals(logits, vocals)
    top = rest.amax(dim=1, keepdim=True)
    shares = (rest - top).exp_()
    total = shares.sum(dim=1, keepdim=True)
    vote = torch.lerp((voice - top).sub_(total.log()), guide, weight)
    rest_share = 1 - torch.sigmoid(vote, out=target[:, vocals : vocals + 1])
    _write_rest(shares, rest_share / total, target, vocals)
    if change is not None:
        shares = (rest[..., bins] + change).softmax(dim=1)
        _write_rest(shares, rest_share[..., bins], target[..., bins], vocals)


def _write_rest(shares: Tensor, factor: Tensor, target: Tensor, vocals: int) -> None:
    slices = (slice(0, vocals), slice(vocals + 1, None))
    for part, index in zip(shares.tensor_split((vocals,), dim=1), slices, strict=True):
        torch.mul(part, factor, out=target[:, index])


def corrected(logits: Tensor, change: Tensor, vocals: int) -> Tensor:
    """Logits ``a`` with a corrected division of the rest and the same vote on the vocals.

    With ``a'_s = a_s + change_s`` for the rest and
    ``a'_vocals = a_vocals + logsumexp(a'_rest) - logsumexp(a_rest)`` the network's own vote
    ``a_vocals - logsumexp(a_rest)`` does not change.

    Parameters
    ----------
    logits
        ``a``, ``(batch, stems, ...)``.
    change
        ``(batch, stems - 1, ...)``.
    vocals
        Index of the vocals among the stems.

    Returns
    -------
    Tensor
        ``a'``, of the shape of ``logits``.
    """
    voice, rest = split_vocals(logits, vocals)
    corrected_rest = rest + change
    voice = voice + (corrected_rest.logsumexp(1, keepdim=True) - rest.logsumexp(1, keepdim=True))
    return join_vocals(voice, corrected_rest, vocals)
