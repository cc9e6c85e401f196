"""Symmetric block-Toeplitz systems, factored in quadratic time.

The correlations of several signals at several delays form such a system: its blocks
depend on the difference of two delays only. The generalised Schur algorithm finds its
Cholesky factor from a generator of rank ``2 m`` (``m`` signals) in ``O(m n^2)`` instead of
``O(n^3)`` operations. In the mixed form used here it is backward stable (Stewart and
Van Dooren, "Stability issues in the factorization of structured matrices", 1997).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# Diagonals to add, relative to the mean of the diagonal, until a factor exists.
LOADS = (0.0, *(10.0**power for power in range(-15, -8)))
# Relative residual at which refinement stops, and the most that is accepted.
ENOUGH, ACCEPTABLE = 1e-14, 1e-11


def solve(lags: Tensor, right: Tensor) -> Tensor:
    """Solve symmetric positive (or nearly, or exactly singular) block-Toeplitz systems.

    Unknown ``[q, b]`` meets equation ``[p, a]`` with coefficient ``lags[a, b, p - q]`` for
    ``p >= q`` and ``lags[b, a, q - p]`` otherwise.

    Two identical signals (a mono stem) make the system singular, but what is projected
    with its solution stays unique. A diagonal that is just large enough for a factor to
    exist, at most 1e-9 of the mean energy, then picks one of the equivalent solutions.

    Parameters
    ----------
    lags
        ``(batch, m, m, taps)``, double precision.
    right
        ``(batch, taps, m, columns)``.

    Returns
    -------
    Tensor
        ``(batch, taps, m, columns)``.

    Raises
    ------
    ValueError
        If no factor exists: the lags belong to no finite signals.
    """
    mean = lags[..., 0].diagonal(dim1=1, dim2=2).mean(dim=1)  # (batch,)
    for load in LOADS:
        system = lags.clone()
        floor = np.finfo(np.float64).eps + load * mean
        system[..., 0].diagonal(dim1=1, dim2=2).add_(floor[:, None])
        factor = schur(system)
        if factor is None:
            continue
        solution = _refine(system, factor, right)
        if solution is not None:
            return solution
    raise ValueError("the correlations are not those of any signals: are all samples finite?")


def _refine(lags: Tensor, factor: Tensor, right: Tensor) -> Tensor | None:
    """Solution with the factor, improved until its residual is rounding error."""
    scale = right.abs().max()
    solution, best = torch.zeros_like(right), torch.inf
    residual = right
    for _ in range(5):
        step = residual.flatten(1, 2)
        # Two triangular solves: torch.cholesky_solve would copy the factor first.
        step = torch.linalg.solve_triangular(factor.mT, step, upper=False)
        step = torch.linalg.solve_triangular(factor, step, upper=True)
        candidate = solution + step.reshape(right.shape)
        residual = right - multiply(lags, candidate)
        error = float(residual.abs().max() / scale) if scale else 0.0
        if not error < best / 2:  # no longer improving
            break
        solution, best = candidate, error
        if best <= ENOUGH:
            break
    return solution if best <= ACCEPTABLE else None


def multiply(lags: Tensor, vectors: Tensor) -> Tensor:
    """The block-Toeplitz matrix times vectors, as a convolution over delays.

    Parameters
    ----------
    lags
        ``(batch, m, m, taps)``.
    vectors
        ``(batch, taps, m, columns)``; the result has the same shape.
    """
    taps = lags.shape[-1]
    # Differences p - q of 0, 1, ..., taps - 1, then (circularly) -(taps - 1), ..., -1.
    negative = lags.transpose(1, 2)[..., 1:].flip(-1)
    padding = lags.new_zeros(*lags.shape[:-1], 1)
    line = torch.cat([lags, padding, negative], dim=-1)
    kernel = torch.fft.rfft(line).permute(0, 3, 1, 2)  # (batch, bins, m, m)
    spectrum = torch.fft.rfft(vectors, n=2 * taps, dim=1)  # (batch, bins, m, columns)
    product: Tensor = torch.fft.irfft(kernel @ spectrum, n=2 * taps, dim=1)
    return product[:, :taps]


def schur(lags: Tensor) -> Tensor | None:
    """Upper Cholesky factor of block-Toeplitz matrices.

    With ``L`` the Cholesky factor of the first block, the matrix minus itself shifted by
    one block is ``A'A - B'B`` for ``A = L^-1 [T_0 T_1 ...]`` and ``B = [0 T_1 ...]``,
    scaled alike. Each step shifts ``A`` by one block and rotates ``A`` and ``B``
    hyperbolically until ``B`` begins with zeros; ``A`` is then the factor's next row.

    Parameters
    ----------
    lags
        ``(batch, m, m, taps)``.

    Returns
    -------
    Tensor or None
        ``(batch, taps * m, taps * m)``, undefined below the diagonal; None if rounding
        leaves a matrix not positive.
    """
    batch, m, _, taps = lags.shape
    size = taps * m
    factor = lags.new_empty(batch, size, size)
    first, info = torch.linalg.cholesky_ex(lags[..., 0])
    if info.any():
        return None
    row = lags.permute(0, 2, 3, 1).reshape(batch, m, size)  # [b, (q, a)] = lags[a, b, q]
    upper = torch.linalg.solve_triangular(first, row, upper=False)
    lower = upper[..., m:].clone()
    factor[:, :m] = upper
    identity = torch.eye(m, dtype=lags.dtype)
    for at in range(m, size, m):
        upper = upper[..., :-m]  # shifted: its first column now stands at ``at``
        # Reflection coefficient K = b a^-1 of the leading blocks a (triangular) and b.
        k = torch.linalg.solve_triangular(
            upper[..., :m], lower[..., :m], upper=True, left=False
        )  # (batch, m, m)
        gains, info = torch.linalg.cholesky_ex(
            torch.stack([identity - k.mT @ k, identity - k @ k.mT])
        )
        if info.any():
            return None
        inner, outer = gains  # lower: I - K'K = inner inner', I - KK' = outer outer'
        upper = torch.linalg.solve_triangular(inner, upper - k.mT @ lower, upper=False)
        # Mixed form: the new B from the new A. Only this order is stable.
        turn = torch.linalg.solve_triangular(outer, k @ inner, upper=False)
        lower = (outer.mT @ lower - turn @ upper)[..., m:]
        factor[:, at : at + m, at:] = upper
    return factor
