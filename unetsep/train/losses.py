"""Training losses between estimated and true stem spectra.

The estimate has the mixture's phase. Turning both spectra back by that phase changes no
distance and makes the estimate real, so a loss takes three real arrays of one shape:

- ``estimate``: mask times mixture magnitude, ``|Y^|``;
- ``in_phase``, ``quadrature``: real and imaginary part of the true spectrum ``Y`` after
  the rotation, so that ``|Y| = hypot(in_phase, quadrature)``.

``|Y - Y^|^2`` is then ``(in_phase - estimate)^2 + quadrature^2``. Clips are scaled so that
their mixture has unit power. Shapes are ``(stems, channels, bins, frames)``, the result a
scalar. Equation numbers are those of the comparison that unetsep reproduces.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def spectrogram_mse(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """Complex spectrogram MSE, ``mean |Y - Y^|^2`` (Eq. 2); grows with the level squared."""
    return ((in_phase - estimate).square() + quadrature.square()).mean()


def spectrogram_l1(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """Complex spectrogram L1, ``mean |Y - Y^|`` (Eq. 5), ``|.|`` the complex modulus.

    The modulus is smoothed by 1e-12 in power, so its gradient stays finite at the target.
    """
    return ((in_phase - estimate).square() + quadrature.square() + 1e-12).sqrt().mean()


LOSSES: dict[str, Loss] = {"mse": spectrogram_mse, "l1": spectrogram_l1}
