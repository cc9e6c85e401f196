"""Training losses between estimated and true stem spectra.

The estimate has the mixture's phase. Rotating both spectra back by that phase keeps all
distances and makes the estimate real, so a loss takes three real arrays of one shape:

- ``estimate``: mask times mixture magnitude, ``|Y^|``;
- ``in_phase``, ``quadrature``: real and imaginary part of the true spectrum ``Y`` after
  the rotation, so that ``|Y| = hypot(in_phase, quadrature)``.

``|Y - Y^|^2`` is then ``(in_phase - estimate)^2 + quadrature^2``. Clips are scaled so that
their mixture has unit power in each bin on average. Shapes are ``(..., bins, frames)`` with
any leading axes (batch, stems, channels); the result is a scalar. Every loss here is a mean over
frames of values that depend on one frame each, so its blocks can be evaluated one by one. Users'
own need not be: see `unetsep.train.losses.own.check`.

Equation numbers are those of the comparison of losses that unetsep reproduces: Y. Tang,
"Comparing Different Spectral Losses of a U-Net Based Audio Source Separation System",
Georgia Tech.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...config import ModelConfig
from ..librosa_modules import librosa_module
from .hearing import hearing_model

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

# Added to powers under a root: gradients stay finite at zero, and -120 dB is inaudible.
SMOOTH = 1e-12
# Added to magnitudes before the logarithm: 40 dB below the mixture's average level.
LOG_FLOOR = 1e-2
MELS = 128
# Exponent of loudness over power (Zwicker & Fastl, "Psychoacoustics", section 8.7).
LOUDNESS = 0.23


def magnitude(in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """``|Y|`` of the true stem, which needs no gradient."""
    return (in_phase.square() + quadrature.square()).sqrt()


class _Modulus(torch.autograd.Function):
    """``|Y - Y^|`` in fewer passes over memory than by autograd."""

    @staticmethod
    def forward(ctx: Any, estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
        distance = estimate - in_phase
        modulus = (distance * distance).addcmul_(quadrature, quadrature).add_(SMOOTH).sqrt_()
        ctx.save_for_backward(distance, modulus)
        return modulus

    @staticmethod
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None]:
        distance, modulus = ctx.saved_tensors
        return (distance / modulus).mul_(output), None, None


class _Mse(torch.autograd.Function):
    """Mean ``|Y - Y^|^2`` in fewer passes over memory than by autograd."""

    @staticmethod
    def forward(ctx: Any, estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
        distance = estimate - in_phase
        ctx.save_for_backward(distance)
        norm = torch.linalg.vector_norm
        total: Tensor = norm(distance).square() + norm(quadrature).square()
        return total / distance.numel()

    @staticmethod
    def backward(ctx: Any, output: Tensor) -> tuple[Tensor, None, None]:
        (distance,) = ctx.saved_tensors
        return distance * (output * (2 / distance.numel())), None, None


def mse(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """Complex spectrogram MSE, ``mean |Y - Y^|^2`` (Eq. 2); grows with the level squared."""
    value: Tensor = _Mse.apply(estimate, in_phase, quadrature)  # type: ignore[no-untyped-call]
    return value


def mag_mse(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """Magnitude MSE, ``mean (|Y| - |Y^|)^2`` (Eq. 3); grows with the level squared.

    The loss of Open-Unmix (Stöter et al., JOSS 2019).
    """
    return (magnitude(in_phase, quadrature) - estimate).square().mean()


def mel_mse(estimate: Tensor, in_phase: Tensor, quadrature: Tensor, *, filters: Tensor) -> Tensor:
    """Mel magnitude MSE, ``mean (F |Y| - F |Y^|)^2`` (Eq. 4); grows with the level squared.

    Parameters
    ----------
    estimate, in_phase, quadrature
        ``(..., bins, frames)``.
    filters
        ``F``, ``(mels, bins)``, triangles of unit height on the HTK mel scale; the mean is
        over mels instead of bins.
    """
    return (filters @ (magnitude(in_phase, quadrature) - estimate)).square().mean()


def l1(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """Complex spectrogram L1, ``mean |Y - Y^|`` (Eq. 5), ``|.|`` the complex modulus.

    Grows with the level. The modulus is smoothed by 1e-12 in power, so that its gradient
    stays finite at the target.
    """
    modulus: Tensor = _Modulus.apply(estimate, in_phase, quadrature)  # type: ignore[no-untyped-call]
    return modulus.mean()


def log_mse(
    estimate: Tensor, in_phase: Tensor, quadrature: Tensor, *, floor: float = LOG_FLOOR
) -> Tensor:
    """Log-scale magnitude MSE, ``mean (log(|Y| + c) - log(|Y^| + c))^2``.

    For magnitudes well above ``c`` a common gain changes nothing. Log-magnitude distances go
    back to the log-spectral distance (Gray & Markel, IEEE Trans. ASSP 24, 1976).

    Parameters
    ----------
    estimate, in_phase, quadrature
        ``(..., bins, frames)``.
    floor
        ``c``; by default 40 dB below the mixture's average level. What is softer counts less.
    """
    true = (magnitude(in_phase, quadrature) + floor).log()
    return (true - (estimate + floor).log()).square().mean()


def mag_l1(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """Magnitude L1, ``mean ||Y| - |Y^||``; grows with the level.

    The loss of Spleeter (Hennequin et al., JOSS 2020) and of Jansson et al. (ISMIR 2017).
    """
    return (magnitude(in_phase, quadrature) - estimate).abs().mean()


def perceptual(
    estimate: Tensor,
    in_phase: Tensor,
    quadrature: Tensor,
    *,
    bands: Tensor,
    spread: Tensor,
    quiet: Tensor,
) -> Tensor:
    """Difference in loudness, ``mean |N'(E) - N'(E^)|`` over critical bands and frames.

    ``E`` is the excitation of the ear: powers in critical bands, spread along the Bark scale
    as masking spreads, so that errors masked by a louder neighbour count almost nothing. ``N'``
    is Zwicker's specific loudness (Zwicker & Fastl, "Psychoacoustics", Eq. 8.7):
    ``E_q^0.23 ((1/2 + E / 2 E_q)^0.23 - 1)`` with ``E_q`` the threshold in quiet, below which
    nothing counts. Far above it, the loss grows with the level to the power 0.46.

    Like the loss of Ananthabhotla, Ewert and Paradiso (ICASSP 2020), who train separation with a
    network that imitates a codec, it weighs errors where hearing is sensitive. Here the model of
    hearing itself is used, see `unetsep.train.losses.hearing` for its sources. A ratio of
    noise to masked threshold, as in codecs, does not work: leakage into a silent stem then
    costs so much that networks learn to leave stems empty.

    Parameters
    ----------
    estimate, in_phase, quadrature
        ``(..., bins, frames)``.
    bands, spread, quiet
        See `unetsep.train.losses.hearing.hearing_model`.
    """

    def loudness(power: Tensor) -> Tensor:
        excitation = spread @ (bands @ power)  # (..., bands, frames)
        relative = 0.5 + 0.5 * excitation / quiet[:, None]
        return quiet[:, None] ** LOUDNESS * (relative**LOUDNESS - 1)

    true = loudness(in_phase.square() + quadrature.square())
    return (true - loudness(estimate.square())).abs().mean()


@functools.lru_cache(maxsize=8)
def mel_filters(config: ModelConfig, device: torch.device, mels: int = MELS) -> Tensor:
    """Mel filters over the network's bins, ``(mels, bins)``, by librosa: O'Shaughnessy's scale."""
    filters = librosa_module("filters").mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=min(mels, config.bins // 8),  # more would fall between two bins, and be empty
        fmax=config.bins * config.sample_rate / config.n_fft,
        htk=True,
        norm=None,
    )
    return torch.from_numpy(filters[:, : config.bins]).contiguous().to(device)


@dataclass(frozen=True)
class LossEntry:
    """A loss of the registry.

    Parameters
    ----------
    function
        Takes estimate, in-phase and quadrature part.
    summary
        One line for the command line.
    arrays
        Makes the function's other arguments, for a model on a device.
    """

    function: Callable[..., Tensor]
    summary: str
    arrays: Callable[[ModelConfig, torch.device], dict[str, Tensor]] | None = None


def _mel_arrays(config: ModelConfig, device: torch.device, mels: int = MELS) -> dict[str, Tensor]:
    return {"filters": mel_filters(config, device, mels)}


def _hearing_arrays(config: ModelConfig, device: torch.device) -> dict[str, Tensor]:
    return dict(zip(("bands", "spread", "quiet"), hearing_model(config, device), strict=True))


LOSSES: dict[str, LossEntry] = {
    "mse": LossEntry(mse, "complex spectrogram MSE (Eq. 2)"),
    "mag_mse": LossEntry(mag_mse, "magnitude MSE (Eq. 3), as Open-Unmix"),
    "mel_mse": LossEntry(mel_mse, "mel magnitude MSE (Eq. 4)", _mel_arrays),
    "mel_mse_32": LossEntry(
        mel_mse, "the same in 32 instead of 128 bands", functools.partial(_mel_arrays, mels=32)
    ),
    "l1": LossEntry(l1, "complex spectrogram L1 (Eq. 5)"),
    "log_mse": LossEntry(log_mse, "log-scale magnitude MSE"),
    "log_mse_120": LossEntry(
        functools.partial(log_mse, floor=1e-6), "the same, floor at -120 dB instead of -40 dB"
    ),
    "mag_l1": LossEntry(mag_l1, "magnitude L1, as Spleeter"),
    "perceptual": LossEntry(
        perceptual, "loudness difference by a model of hearing", _hearing_arrays
    ),
}


def build_loss(name: str, config: ModelConfig, device: torch.device | str = "cpu") -> Loss:
    """A loss of the registry with its arrays, for spectra of a model on a device.

    Parameters
    ----------
    name
        A key of `LOSSES`.
    config
        Gives the bins and their frequencies.
    device
        Where the spectra are.

    Raises
    ------
    ValueError
        If there is no such loss.
    """
    check_name(name)
    entry = LOSSES[name]
    arrays: dict[str, Any] = entry.arrays(config, torch.device(device)) if entry.arrays else {}
    return functools.partial(entry.function, **arrays)


def check_name(name: str) -> None:
    """Check that a name is a key of `LOSSES`.

    Raises
    ------
    ValueError
        With the names of all losses.
    """
    if name not in LOSSES:
        raise ValueError(f"there is no loss {name!r}: expected {', '.join(LOSSES)}")
