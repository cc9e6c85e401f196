"""The 2f-model: how listeners would rate a separated source, from two features of PEAQ.

Kastner and Herre, "An Efficient Model for Estimating Subjective Quality of Separated Audio Source
Signals" (WASPAA 2019), fitted listening tests of separated sources. Their estimate of the mean
points in a MUSHRA test is

    56.1345 / (1 + (-0.0282 AvgModDiff1 - 0.8628)^2) - 27.1451 ADB + 86.3515

within 0 and 100, where ``AvgModDiff1`` says how much envelopes differ and ``ADB`` how much of the
difference is heard. The package seabass-2f computes both, at 48 kHz. It computes nearly all of its
properties again at each access, so they are cached here.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from .sdr import Array, Signals

RATE = 48_000
FULL_SCALE = 32_768.0
# Samples from one frame to the next, and frames in half a second, which PEAQ leaves out.
HOP, SKIPPED = 1024, 24


def two_f(reference: Signals, estimate: Signals, rate: int) -> float:
    """Points from 0 to 100; NaN if not half a second of the reference is heard.

    Parameters
    ----------
    reference, estimate
        ``(channels, samples)`` of one length.
    rate
        In Hz; other rates than 48 kHz are resampled.
    """
    import soxr

    true, guess = (
        soxr.resample(FULL_SCALE * np.asarray(x, np.float64).T, rate, RATE).T
        for x in (reference, estimate)
    )
    bounds = _bounds(true)
    if bounds is None or bounds[1] - bounds[0] <= SKIPPED:
        return math.nan
    features = _features()(guess, true, "int16").compute()
    points = 56.1345 / (1 + (-0.0282 * features["avg_mod_diff1"] - 0.8628) ** 2)
    return float(np.clip(points - 27.1451 * features["adb"] + 86.3515, 0, 100))


@functools.lru_cache(maxsize=1)
def _features() -> Any:
    """The features of seabass-2f, each computed once, without numba.

    numba would compile for a minute in each process, and is no faster on whole arrays.
    """
    from numba import config

    settings: Any = config
    previous, settings.DISABLE_JIT = settings.DISABLE_JIT, True
    try:
        from seabass.core.model_output_variables import PeaqModelOutputVariables
    finally:
        settings.DISABLE_JIT = previous
    members: Any = vars(PeaqModelOutputVariables)
    properties: dict[str, Any] = {
        name: _cached_property(value)
        for name, value in members.items()
        if isinstance(value, property)
    }
    # Its own search tests one sample after another.
    properties["bound_signals"] = lambda features: _bounds(features.ref_signal)
    return type("Features", (PeaqModelOutputVariables,), properties)


def _cached_property(feature: Any) -> functools.cached_property[Any]:
    return functools.cached_property(feature.fget)


def _bounds(signal: Array) -> tuple[int, int] | None:
    """First frame that is heard, and the one after the last: PEAQ's, with frames of 2048 samples.

    A signal begins where five samples in a row add up to more than 200 in every channel.
    """
    steps = signal.shape[1] - 5
    level = np.abs([signal[:, at : at + steps + 1] for at in range(5)]).sum(axis=0)
    audible = np.flatnonzero((level > 200).all(axis=0))
    # Searched from either end, the last place is left out.
    first = audible[audible < steps]
    last = audible[audible > 0]
    if not len(first) or not len(last):
        return None
    end = int(last[-1]) + 2 * 5
    return int(first[0]) // HOP, (end + 1 - HOP) // HOP
