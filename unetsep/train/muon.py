"""Muon, an optimiser that learns a network of convolutions in fewer steps than AdamW."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# Muon's momentum; for other parameters AdamW's, and what keeps its division finite.
MOMENTUM, BETAS, EPSILON = 0.95, (0.9, 0.999), 1e-8
# Coefficients of the polynomial that is applied five times. It is steep at zero, so that small
# singular values grow fast. The price is that all of them end between 0.7 and 1.2 instead of at one
# (Jordan et al. 2024).
POLYNOMIAL, ITERATIONS = (3.4445, -4.7750, 2.0315), 5


class Muon(torch.optim.Optimizer):
    """Momentum whose every step has the same length in all directions.

    Convolutions are stepped along the orthogonal matrix that is nearest to their momentum,
    taken as a matrix with a row for each element of their first dimension. Biases and norms
    are stepped as by AdamW. torch's own Muon takes matrices only, and computes in bf16, which many
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
        """One step for all parameters that have a gradient.

        Those of several networks are stepped together: on an accelerator every operation
        costs a launch, however little it works on.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        matrices, vectors = _Tensors([], [], []), _Tensors([], [], [])
        for group in self.param_groups:
            rate = group["lr"]
            for weights in group["params"]:
                if weights.grad is None:
                    continue
                is_matrix = weights.ndim > 1
                tensors = matrices if is_matrix else vectors
                tensors.weights.append(weights)
                tensors.rates.append(rate * group["size"] if is_matrix else rate)
                tensors.decays.append(1 - rate * group["weight_decay"])
        for tensors, direction in ((matrices, self._orthogonal), (vectors, self._adam)):
            if tensors.weights:
                steps = direction(tensors.weights)
                torch._foreach_mul_(steps, tensors.rates)
                torch._foreach_mul_(tensors.weights, tensors.decays)
                torch._foreach_sub_(tensors.weights, steps)
        return loss

    def _orthogonal(self, parameters: list[Tensor]) -> list[Tensor]:
        """Steps of convolutions with root mean square 1."""
        gradients = [_gradient(weights) for weights in parameters]
        for weights in parameters:
            if not self.state[weights]:
                self.state[weights]["momentum"] = torch.zeros_like(weights)
        momenta = [self.state[weights]["momentum"] for weights in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        directions = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's
        by_shape: dict[torch.Size, list[int]] = {}
        for index, weights in enumerate(parameters):
            by_shape.setdefault(weights.shape, []).append(index)
        steps: list[Tensor] = list(parameters)
        for shape, indices in by_shape.items():
            matrices = torch.stack([directions[index].flatten(1) for index in indices])
            length: float = max(matrices.shape[1:]) ** 0.5
            for index, matrix in zip(indices, orthogonalise(matrices).mul_(length), strict=True):
                steps[index] = matrix.reshape(shape)
        return steps

    def _adam(self, parameters: list[Tensor]) -> list[Tensor]:
        """Steps of Adam."""
        gradients = [_gradient(weights) for weights in parameters]
        states = [self.state[weights] for weights in parameters]
        for state, weights in zip(states, parameters, strict=True):
            if not state:
                state |= {name: torch.zeros_like(weights) for name in ("mean", "square")}
                state["step"] = torch.tensor(0.0)  # torch leaves a state of this name on the CPU
        torch._foreach_add_([state["step"] for state in states], 1)
        means, squares = ([state[name] for state in states] for name in ("mean", "square"))
        torch._foreach_lerp_(means, gradients, 1 - BETAS[0])
        torch._foreach_lerp_(squares, torch._foreach_mul(gradients, gradients), 1 - BETAS[1])
        counts = [float(state["step"]) for state in states]
        steps = torch._foreach_div(means, [1 - BETAS[0] ** count for count in counts])
        roots = torch._foreach_div(squares, [1 - BETAS[1] ** count for count in counts])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, EPSILON)
        torch._foreach_div_(steps, roots)
        return list(steps)


class _Tensors(NamedTuple):
    """Parameters that are stepped together."""

    weights: list[Tensor]
    rates: list[float]  # factors of the steps
    decays: list[float]  # factors of weight decay


def _gradient(weights: Tensor) -> Tensor:
    assert weights.grad is not None
    return weights.grad


def orthogonalise(matrices: Tensor) -> Tensor:
    """The orthogonal matrix nearest to each matrix, roughly.

    Parameters
    ----------
    matrices
        ``(..., rows, columns)``, of any scale.

    Returns
    -------
    Tensor
        ``(..., rows, columns)`` with the singular vectors of ``matrices`` and singular values
        around one; zeros stay zeros.
    """
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    wide = wide.reshape(-1, *wide.shape[-2:])
    norm = torch.linalg.vector_norm(wide, dim=(-2, -1), keepdim=True)
    wide = wide / norm.clamp(min=torch.finfo(wide.dtype).tiny)
    first, third, fifth = POLYNOMIAL
    for _ in range(ITERATIONS):
        gram = wide @ wide.mT
        factor = torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth)
        wide = torch.baddbmm(wide, factor, wide, beta=first)
    return (wide.mT if tall else wide).reshape(matrices.shape)
