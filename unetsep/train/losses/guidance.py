"""Training beside a guide: a loss in which the vote on the vocals is fixed.

See `unetsep.network.voting` for the masks. If the vote were trained together with what divides
the rest, random mixtures, which the guide was not made for, would teach the network to correct
it where songs need no correction: vocals lost half a decibel that way. So the others learn to
divide what the vote leaves, and the vocals learn from a mask of the network's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...network.guided import Guided
from ...network.low_band import low_slice
from ...network.masks import MaskNetwork
from ...network.voting import join_vocals, split_vocals


class Guidance(NamedTuple):
    """What a network is trained beside.

    Parameters
    ----------
    guide
        Logits of the guide, as `Guided.vote` gives them: ``(batch, 1, channels, bins, frames)``.
    own_share
        Weight of the network's own mask of the vocals, relative to that of another stem.
    states
        The guide's, as `Guided.vote` gives them, of all clips and frames.
    """

    guide: Tensor
    own_share: float
    states: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, network: MaskNetwork, seen: Tensor, own_share: float) -> Guidance | None:
        """That of a network for magnitudes ``(batch, channels, bins, frames)``, if it has one."""
        if not isinstance(network, Guided):
            return None
        states: list[Tensor] = []
        guide = network.vote(seen, states)
        return cls(guide, own_share, tuple(states))

    def block(self, at: tuple[object, ...]) -> Guidance:
        """That of some clips and frames."""
        return self._replace(guide=self.guide[at])  # type: ignore[index]

    def low(self, bins: slice) -> Guidance:
        """That of some bins, in which the vocals' own mask does not count."""
        return Guidance(self.guide[..., bins, :], 0.0)


def trained_logits(
    network: MaskNetwork, inputs: tuple[Tensor, ...], guidance: Guidance | None
) -> Tensor:
    """The logits that a loss is to be taken of, ``(batch, stems, channels, bins, frames)``.

    Parameters
    ----------
    network
        If it has a guide, the logits are those of the network alone.
    inputs
        See `unetsep.network.low_band.network_inputs`.
    guidance
        For these magnitudes.
    """
    if guidance is None:
        return network.logits(*inputs)
    assert isinstance(network, Guided)
    return network.own_logits(*inputs, guide=guidance.guide, states=guidance.states)


def low_logits(network: MaskNetwork, inputs: tuple[Tensor, ...], guidance: Guidance) -> Tensor:
    """What `trained_logits` are in the bins of the branch, with a gradient for it alone."""
    assert isinstance(network, Guided)
    low = low_slice(network.config)
    magnitude, fine = inputs
    with torch.no_grad():
        own = network.rest_logits(magnitude, guidance.guide, guidance.states)
    part = guidance.guide[..., low, :]
    return network.low_logits(magnitude, fine, own=own[..., low, :], guide=part)


class Shares:
    """What a network beside a guide makes of the mixture, and the way back to its logits.

    With logits ``a`` the vocals have the network's own mask ``p = sigmoid(b)``, where
    ``b = a_vocals - logsumexp(a_rest)``, and the others ``(1 - v) q`` with
    ``q = softmax(a_rest)`` and the vote ``v = sigmoid(w g + (1 - w) b)``, which is fixed. The
    derivatives

        dp / da_vocals = p (1 - p),   dp / da_k = -p (1 - p) q_k,
        dq_s / da_k = q_s ((s == k) - q_k)

    are written out, which takes half the time of autograd.

    Parameters
    ----------
    own, guide
        Logits, ``(batch, stems, ...)`` and ``(batch, 1, ...)``.
    mixture
        Its magnitudes, ``(batch, 1, ...)``.
    weight
        ``w``.
    vocals
        Place of the vocals among the stems.
    """

    @torch.no_grad()
    def __init__(
        self, own: Tensor, guide: Tensor, mixture: Tensor, weight: float, vocals: int
    ) -> None:
        self.count, self.vocals = own.shape[1], vocals
        voice, rest = split_vocals(own, vocals)
        top = rest.amax(dim=1, keepdim=True)
        shares = (rest - top).exp_()
        total = shares.sum(dim=1, keepdim=True)
        self.shares = shares.div_(total)
        alone = (voice - top).sub_(total.log_())
        vote = torch.lerp(alone, guide, weight)
        self.left = vote.neg_().sigmoid_().mul_(mixture)
        self.voice = alone.sigmoid_()
        self.sung = (self.voice * mixture).requires_grad_()
        self.played = (self.shares * self.left).requires_grad_()

    def estimates(self, own_share: float) -> list[tuple[Tensor, float]]:
        """Magnitudes of the vocals and of the rest, with the weight of each in the loss."""
        return [
            (self.sung, own_share / self.count),
            (self.played, (self.count - 1) / self.count),
        ]

    def gradient(self, value: Tensor) -> Tensor:
        """The gradient of ``value`` with respect to ``own``, of its shape."""
        sung, played = torch.autograd.grad(value, (self.sung, self.played))
        with torch.no_grad():
            # A mask's gradient is that of the estimate times what the mask multiplied.
            voice = sung.mul_(self.sung).mul_(1 - self.voice)
            rest = played.mul_(self.left)
            inner = (rest * self.shares).sum(dim=1, keepdim=True).add_(voice)
            rest = rest.sub_(inner).mul_(self.shares)
            return join_vocals(voice, rest, self.vocals)


def guided_loss(
    own: Tensor,
    network: MaskNetwork,
    guidance: Guidance,
    mixture: Tensor,
    references: tuple[Tensor, Tensor],
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Loss of a network's masks beside a guide, and its gradient with respect to ``own``.

    Parameters
    ----------
    own
        `trained_logits`.
    network
        Whose they are.
    guidance, mixture
        Of the same clips and frames; the mixture's magnitudes ``(batch, 1, ...)``.
    references
        In-phase and quadrature part of the true stems, of the shape of ``own``.
    loss
        See `unetsep.train.losses.functions`.
    """
    assert isinstance(network, Guided)
    shares = Shares(own, guidance.guide, mixture, network.config.guide_weight, network.vocals)
    true = zip(*(split_vocals(each, network.vocals) for each in references), strict=True)
    with torch.enable_grad():
        value = torch.stack(
            [
                loss(estimate, *parts) * weight
                for (estimate, weight), parts in zip(
                    shares.estimates(guidance.own_share), true, strict=True
                )
            ]
        ).sum()
        return value.detach(), shares.gradient(value)
