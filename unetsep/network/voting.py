"""The masks of a network and its guide, which vote on the vocals.

In each bin the guide gives one logit ``g``, the network itself a logit ``a`` for each stem. With
``rest`` all stems but the vocals and ``w`` the weight of the guide

    L_vocals = w g + (1 - w) (a_vocals - logsumexp(a_rest))
    L_s      = a_s - logsumexp(a_rest)                          for each s of the rest

and the masks are ``softmax(L)``, which is

    M_vocals = v = sigmoid(L_vocals),    M_s = (1 - v) softmax(a_rest)_s :

the network divides what both leave among the others. Masks sum to one, as those of any softmax.
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
        Left as it is; no part is a copy where the vocals come first.
    vocals
        Place of the vocals among the stems.
    """
    before, voice, after = stems.tensor_split((vocals, vocals + 1), dim=1)
    return voice, torch.cat([before, after], dim=1) if vocals else after


def join_vocals(voice: Tensor, rest: Tensor, vocals: int) -> Tensor:
    """What `split_vocals` has split."""
    before, after = rest.tensor_split((vocals,), dim=1)
    return torch.cat([before, voice, after], dim=1)


def guided_logits(own: Tensor, guide: Tensor, weight: float, vocals: int) -> Tensor:
    """Logits whose softmax are the masks of a network and its guide: ``L`` of this module.

    Parameters
    ----------
    own
        ``a``, ``(batch, stems, ...)``.
    guide
        ``g``, ``(batch, 1, ...)``.
    weight
        ``w``, 0 to 1.
    vocals
        Place of the vocals among the stems.

    Returns
    -------
    Tensor
        Of the shape of ``own``.
    """
    voice, rest = split_vocals(own, vocals)
    level = rest.logsumexp(dim=1, keepdim=True)
    vote = torch.lerp(voice - level, guide, weight)
    return join_vocals(vote, rest - level, vocals)


def write_guided_masks(
    own: Tensor,
    guide: Tensor,
    weight: float,
    vocals: int,
    room: Tensor,
    change: Tensor | None = None,
    changed: slice = ALL,
) -> None:
    """Write the softmax of `guided_logits`, with half the exponentials.

    Parameters
    ----------
    own, guide, weight, vocals
        As for `guided_logits`.
    room
        Where the masks go, of the shape of ``own``.
    change
        What a branch adds to the logits of the rest in some bins,
        ``(batch, stems - 1, ..., bins)``; see `corrected`.
    changed
        Those bins.
    """
    voice, rest = split_vocals(own, vocals)
    top = rest.amax(dim=1, keepdim=True)
    shares = (rest - top).exp_()
    total = shares.sum(dim=1, keepdim=True)
    vote = torch.lerp((voice - top).sub_(total.log()), guide, weight)
    left = 1 - torch.sigmoid(vote, out=room[:, vocals : vocals + 1])
    _write_rest(shares, left / total, room, vocals)
    if change is not None:
        shares = (rest[..., changed] + change).softmax(dim=1)
        _write_rest(shares, left[..., changed], room[..., changed], vocals)


def _write_rest(shares: Tensor, factor: Tensor, room: Tensor, vocals: int) -> None:
    places = (slice(0, vocals), slice(vocals + 1, None))
    for part, place in zip(shares.tensor_split((vocals,), dim=1), places, strict=True):
        if part.shape[1]:
            torch.mul(part, factor, out=room[:, place])


def corrected(own: Tensor, change: Tensor, vocals: int) -> Tensor:
    """Logits ``a`` that divide the rest otherwise, and say the same about the vocals.

    With ``a'_s = a_s + change_s`` for the rest and
    ``a'_vocals = a_vocals + logsumexp(a'_rest) - logsumexp(a_rest)`` the network's own vote
    ``a_vocals - logsumexp(a_rest)`` stays what it was.

    Parameters
    ----------
    own
        ``a``, ``(batch, stems, ...)``.
    change
        ``(batch, stems - 1, ...)``.
    vocals
        Place of the vocals among the stems.

    Returns
    -------
    Tensor
        ``a'``, of the shape of ``own``.
    """
    voice, rest = split_vocals(own, vocals)
    changed = rest + change
    voice = voice + (changed.logsumexp(1, keepdim=True) - rest.logsumexp(1, keepdim=True))
    return join_vocals(voice, changed, vocals)
