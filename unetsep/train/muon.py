"""Muon, an optimiser that learns a network of convolutions in fewer steps than AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

# How far momentum looks back; AdamW's two for the rest, and what keeps its division finite.
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.999), 1e-8
# Of the polynomial that is applied five times: steep at zero, so that small singular values
# grow fast, at the price of ending between 0.7 and 1.2 instead of at one (Jordan et al. 2024).
POLYNOMIAL, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Momentum whose every step has the same length in all directions.

    Convolutions are stepped along the orthogonal matrix that is nearest to their momentum,
    taken as a matrix with a row for each element of their first dimension; biases and norms
    as AdamW does. torch's own Muon takes matrices only, and computes in bf16, which many
    CPUs emulate.

    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024);
    J. Liu et al., "Muon is scalable for LLM training" (arXiv:2502.16982, 2025).

    Parameters
    ----------
    params
        Parameters or groups of them.
    lr
        Learning rate, of AdamW's order of magnitude.
    size
        Root mean square of what a step with learning rate 1 adds to a convolution's weights.
        0.2 makes steps about as long as AdamW's (Liu et al. 2025).
    weight_decay
        Decoupled: each step takes this share times ``lr`` off every weight.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        *,
        size: float = 0.2,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "size": size, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            rate = group["lr"]
            for weights in group["params"]:
                if weights.grad is None:
                    continue
                weights.mul_(1 - rate * group["weight_decay"])
                if weights.ndim > 1:
                    direction = group["size"] * self._orthogonal(weights)
                else:
                    direction = self._adapted(weights)
                weights.sub_(direction, alpha=rate)
        return loss

    def _orthogonal(self, weights: Tensor) -> Tensor:
        """Step of a convolution with root mean square 1."""
        state, gradient = self.state[weights], weights.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(weights)
        state["momentum"].lerp_(gradient, 1 - MOMENTUM)
        ahead = gradient.lerp(state["momentum"], MOMENTUM)  # Nesterov's
        matrix = orthogonalise(ahead.flatten(1))
        length: float = max(matrix.shape) ** 0.5
        return matrix.mul(length).reshape(weights.shape)

    def _adapted(self, weights: Tensor) -> Tensor:
        """Step of Adam."""
        state, gradient = self.state[weights], weights.grad
        assert gradient is not None
        if not state:
            state |= {name: torch.zeros_like(weights) for name in ("mean", "square")}
            state["step"] = torch.tensor(0.0)  # of this name torch leaves on the CPU
        state["step"] += 1
        state["mean"].lerp_(gradient, 1 - BETAS[0])
        state["square"].lerp_(gradient.square(), 1 - BETAS[1])
        first, second = (1 - beta ** float(state["step"]) for beta in BETAS)
        step: Tensor = (state["mean"] / first) / ((state["square"] / second).sqrt() + EPSILON)
        return step


def orthogonalise(matrix: Tensor) -> Tensor:
    """The orthogonal matrix nearest to a matrix, roughly.

    Parameters
    ----------
    matrix
        ``(rows, columns)``, of any scale.

    Returns
    -------
    Tensor
        ``(rows, columns)`` with the singular vectors of ``matrix`` and singular values
        around one; zeros stay zeros.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / wide.norm().clamp(min=torch.finfo(wide.dtype).tiny)
    first, third, fifth = POLYNOMIAL
    for _ in range(ITERATIONS):
        gram = wide @ wide.T
        factor = torch.addmm(gram, gram, gram, beta=third, alpha=fifth)
        wide = torch.addmm(wide, factor, wide, beta=first)
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide
