"""Training with a guide: a loss in which the vote on the vocals is fixed.

See `unetsep.network.voting` for the masks. If the vote were trained together with the division of
the rest, random mixtures, which the guide was not made for, would teach the network to correct
it where songs need no correction: vocals lost half a decibel that way. So the other stems learn to
divide the rest of a fixed vote, and the vocals learn from a mask of the network's own.
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
    """Outputs of the guide for a batch, and the weight of the network's own vocals.

    Parameters
    ----------
    guide
        Logits from `Guided.guide_output`: ``(batch, 1, channels, bins, frames)``.
    own_share
        Weight of the network's own mask of the vocals, relative to that of another stem.
    states
        States from `Guided.guide_output`, of all clips and frames.
    """

    guide: Tensor
    own_share: float
    states: tuple[Tensor, ...] = ()

    @classmethod
    def of(cls, network: MaskNetwork, magnitude: Tensor, own_share: float) -> Guidance | None:
        """Guidance for magnitudes ``(batch, channels, bins, frames)``; None without a guide."""
        if not isinstance(network, Guided):
            return None
        guide, states = network.guide_output(magnitude)
        return cls(guide, own_share, tuple(states))

    def block(self, at: tuple[object, ...]) -> Guidance:
        """Guidance of some clips and frames."""
        return self._replace(guide=self.guide[at])  # type: ignore[index]

    def low(self, bins: slice) -> Guidance:
        """Guidance in some bins, in which the network's own vocals do not count."""
        return Guidance(self.guide[..., bins, :], 0.0)


def trained_logits(
    network: MaskNetwork, inputs: tuple[Tensor, ...], guidance: Guidance | None
) -> Tensor:
    """The logits of which a loss is computed, ``(batch, stems, channels, bins, frames)``.

    Parameters
    ----------
    network
        If it has a guide, the logits are `Guided.own_logits`.
    inputs
        See `unetsep.network.masks.MaskNetwork.logits`.
    guidance
        For these inputs.
    """
    if guidance is None:
        return network.logits(*inputs)
    assert isinstance(network, Guided)
    return network.own_logits(*inputs, guide=guidance.guide, states=guidance.states)


def low_logits(network: MaskNetwork, inputs: tuple[Tensor, ...], guidance: Guidance) -> Tensor:
    """`trained_logits` in the bins of the branch, with a gradient for the branch only."""
    assert isinstance(network, Guided)
    low = low_slice(network.config)
    magnitude, fine = inputs
    with torch.no_grad():
        logits = network.rest_logits(magnitude, guidance.guide, guidance.states)
    part = guidance.guide[..., low, :]
    return network.low_logits(magnitude, fine, logits=logits[..., low, :], guide=part)


class GuidedEstimates:
    """Estimates of a guided network, and their gradient with respect to its logits.

    With logits ``a`` the vocals have the network's own mask ``p = sigmoid(b)``, where
    ``b = a_vocals - logsumexp(a_rest)``, and the others ``(1 - v) q`` with
    ``q = softmax(a_rest)`` and the vote ``v = sigmoid(w g + (1 - w) b)``, which is fixed. The
    derivatives

        dp / da_vocals = p (1 - p),   dp / da_k = -p (1 - p) q_k,
        dq_s / da_k = q_s ((s == k) - q_k)

    are explicit, which takes half the time of autograd.

    Parameters
    ----------
    logits, guide
        ``(batch, stems, ...)`` and ``(batch, 1, ...)``.
    mixture
        Magnitudes, ``(batch, 1, ...)``.
    weight
        ``w``.
    vocals
        Index of the vocals among the stems.
    """

    @torch.no_grad()
    def __init__(
        self, logits: Tensor, guide: Tensor, mixture: Tensor, weight: float, vocals: int
    ) -> None:
        self.count, self.vocals = logits.shape[1], vocals
        voice, rest = split_vocals(logits, vocals)
        top = rest.amax(dim=1, keepdim=True)
        shares = (rest - top).exp_()
        total = shares.sum(dim=1, keepdim=True)
        self.shares = shares.div_(total)
        alone = (voice - top).sub_(total.log_())
        vote = torch.lerp(alone, guide, weight)
        self.remainder = vote.neg_().sigmoid_().mul_(mixture)
        self.voice = alone.sigmoid_()
        self.voice_estimate = (self.voice * mixture).requires_grad_()
        self.rest_estimate = (self.shares * self.remainder).requires_grad_()

    def estimates(self, own_share: float) -> list[tuple[Tensor, float]]:
        """Magnitudes of the vocals and of the rest, with the weight of each in the loss."""
        return [
            (self.voice_estimate, own_share / self.count),
            (self.rest_estimate, (self.count - 1) / self.count),
        ]

    def gradient(self, value: Tensor) -> Tensor:
        """The gradient of ``value`` with respect to ``logits``, of their shape."""
        voice_gradient, rest_gradient = torch.autograd.grad(
            value, (self.voice_estimate, self.rest_estimate)
        )
        with torch.no_grad():
            # A mask's gradient is that of the estimate times the mask's factor.
            voice = voice_gradient.mul_(self.voice_estimate).mul_(1 - self.voice)
            rest = rest_gradient.mul_(self.remainder)
            inner = (rest * self.shares).sum(dim=1, keepdim=True).add_(voice)
            rest = rest.sub_(inner).mul_(self.shares)
            return join_vocals(voice, rest, self.vocals)


def guided_loss(
    logits: Tensor,
    network: MaskNetwork,
    guidance: Guidance,
    mixture: Tensor,
    references: tuple[Tensor, Tensor],
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """Loss of a guided network's masks, and its gradient with respect to ``logits``.

    Parameters
    ----------
    logits
        From `trained_logits`.
    network
        The guided network.
    guidance, mixture
        Of the same clips and frames; the mixture's magnitudes ``(batch, 1, ...)``.
    references
        In-phase and quadrature part of the true stems, of the shape of ``logits``.
    loss
        See `unetsep.train.losses.functions`.
    """
    assert isinstance(network, Guided)
    weight, vocals = network.config.guide_weight, network.vocals
    guided = GuidedEstimates(logits, guidance.guide, mixture, weight, vocals)
    true = zip(*(split_vocals(each, vocals) for each in references), strict=True)
    with torch.enable_grad():
        value = torch.stack(
            [
                loss(estimate, *parts) * share
                for (estimate, share), parts in zip(
                    guided.estimates(guidance.own_share), true, strict=True
                )
            ]
        ).sum()
        return value.detach(), guided.gradient(value)
