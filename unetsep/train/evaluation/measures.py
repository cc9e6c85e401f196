"""Measures of whole tracks beside SDR: each shows something to which SDR is blind.

None of them is SDR, and none is comparable with it. With the reference ``s``, the estimate ``e``
and all channels together:

``si-sdr`` (dB, higher is better; Le Roux et al., ICASSP 2019)
    ``10 log10(|a s|^2 / |a s - e|^2)`` with ``a = <e, s> / |s|^2``: errors of level do not count.
``lsd-...`` (dB, lower is better; Gray and Markel, 1976)
    Log-spectral distance in a band: in each frame of 46 ms the root mean square over its bins of
    ``20 log10((|S| + f) / (|E| + f))``. Then the mean over the frames in which the reference is
    audible in the band, within 60 dB of its loudest frame. The floor ``f`` lies 80 dB below the
    root mean square of the reference's spectrum in the band. Quiet bins count as much as loud ones,
    and so do cymbals above 11 kHz.
``log-wmse`` (higher is better; the package torch-log-wmse)
    ``-4 ln(m + 1e-8)``, with ``m`` the mean square of the error over that of the mixture, both
    weighted by how well the ear hears their frequencies; the mean over channels. It is defined for
    silent stems, too.
``2f`` (0 to 100, higher is better; Kastner and Herre, WASPAA 2019)
    How listeners would rate the estimate beside the reference in a MUSHRA test, as far as two
    features of PEAQ tell; see `unetsep.train.evaluation.two_f`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch

from ...dsp.spectrogram import stft
from .sdr import Signals
from .two_f import two_f

WINDOW, HOP = 2048, 1024
FLOOR_DB, AUDIBLE_DB = -80.0, -60.0


@dataclass(frozen=True)
class Measure:
    """One number for an estimate of a whole track.

    Parameters
    ----------
    compute
        Of reference and estimate, each ``(channels, samples)`` of one length, and the sample
        rate in Hz; NaN where it is not defined.
    title
        For tables: unit, and which way is better.
    of_mixture
        Whether ``compute`` takes the mixture, of the same shape, as ``mixture``, too.
    lower_is_better
        Whether less of it is better.
    package
        Package that it needs, to be checked before any work.
    """

    compute: Callable[..., float]
    title: str
    of_mixture: bool = False
    lower_is_better: bool = False
    package: str | None = None

    def __call__(
        self, reference: Signals, estimate: Signals, rate: int, mixture: Signals | None = None
    ) -> float:
        """The number; NaN for a measure of the mixture if that is not known."""
        if not self.of_mixture:
            return self.compute(reference, estimate, rate)
        if mixture is None:
            return math.nan
        return self.compute(reference, estimate, rate, mixture=mixture)


def si_sdr(reference: Signals, estimate: Signals, rate: int) -> float:  # noqa: ARG001
    """Scale-invariant SDR in dB; NaN for a silent reference or estimate."""
    s, e = (np.asarray(x, np.float64).ravel() for x in (reference, estimate))
    power = s @ s
    if power == 0 or not e.any():
        return math.nan
    target = (e @ s / power) * s
    error = target - e
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(target @ target / (error @ error)))


def log_spectral_distance(
    reference: Signals,
    estimate: Signals,
    rate: int,
    *,
    band: tuple[float, float],
) -> float:
    """Log-spectral distance in dB in a band of frequencies, in Hz; NaN if it is silent there."""
    low, high = (math.ceil(edge * WINDOW / rate) for edge in band)
    true, guess = (_magnitudes(x)[:, low:high] for x in (reference, estimate))
    level = true.square().mean(dim=(0, 1)).sqrt()  # (frames,)
    floor = true.square().mean().sqrt() * 10 ** (FLOOR_DB / 20)
    audible = level > level.max() * 10 ** (AUDIBLE_DB / 20)
    ratio = 20 * ((true + floor) / (guess + floor)).log10()
    distance = ratio.square().mean(dim=(0, 1)).sqrt()
    return float(distance[audible].mean())  # NaN of no frames


def log_wmse(reference: Signals, estimate: Signals, rate: int, *, mixture: Signals) -> float:
    """log-WMSE by torch-log-wmse; the mixture is what it calls unprocessed audio."""
    tensors = [
        torch.from_numpy(np.ascontiguousarray(x, np.float32))[None]
        for x in (mixture, estimate, reference)
    ]
    unprocessed, guess, true = tensors
    with torch.inference_mode():
        return float(_log_wmse(rate)(unprocessed, guess[:, :, None], true[:, :, None]))


@functools.lru_cache(maxsize=4)
def _log_wmse(rate: int) -> torch.nn.Module:
    from torch_log_wmse import LogWMSE

    module: torch.nn.Module = LogWMSE(sample_rate=rate)
    return module


def _magnitudes(signal: Signals) -> torch.Tensor:
    """``(channels, bins, frames)`` in double precision, the end filled up with silence."""
    samples = torch.from_numpy(np.ascontiguousarray(signal, np.float32))
    padding = max(WINDOW - samples.shape[-1], -(samples.shape[-1] - WINDOW) % HOP)
    padded = torch.nn.functional.pad(samples, (0, padding))
    return stft(padded, WINDOW, HOP).abs().double()


BANDS = {
    "lsd-0-250": (0, 250),
    "lsd-250-2k": (250, 2_000),
    "lsd-2k-8k": (2_000, 8_000),
    "lsd-8k-11k": (8_000, 11_025),
    "lsd-11k-16k": (11_025, 16_000),
}
MEASURES = {
    "si-sdr": Measure(si_sdr, "SI-SDR (dB, higher is better)"),
    **{
        name: Measure(
            functools.partial(log_spectral_distance, band=band),
            f"Log-spectral distance, {band[0]:g} to {band[1]:g} Hz (dB, lower is better)",
            lower_is_better=True,
        )
        for name, band in BANDS.items()
    },
    "log-wmse": Measure(
        log_wmse, "log-WMSE (higher is better)", of_mixture=True, package="torch_log_wmse"
    ),
    "2f": Measure(
        two_f, "2f-model (MUSHRA points from 0 to 100, higher is better)", package="seabass"
    ),
}


def can_measure(name: str) -> bool:
    """Whether a measure exists, and the package that it needs."""
    if name not in MEASURES:
        return False
    package = MEASURES[name].package
    return package is None or find_spec(package) is not None


def choose_measures(names: Iterable[str]) -> tuple[str, ...]:
    """Keys of `MEASURES` from names; ``lsd`` stands for all its bands, ``all`` for everything.

    Raises
    ------
    ValueError
        If there is no such measure.
    """
    selection: dict[str, None] = {}
    for name in names:
        keys = [key for key in MEASURES if name in (key, "all") or (name == "lsd" and key in BANDS)]
        if not keys:
            raise ValueError(
                f"--measures: there is no {name!r}, expected all, lsd, {', '.join(MEASURES)}"
            )
        selection |= dict.fromkeys(keys)
    return tuple(selection)
