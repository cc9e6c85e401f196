"""Leakage into a stem where it is silent: a measure beside SDR, which is blind there.

A second counts for a stem if its reference lies at least 50 dB below the mixture and the
mixture above -60 dBFS. In such a second

    leakage = 10 log10(sum |s^|^2 / sum |x|^2)

is the energy of the estimate over that of the mixture, in dB: negative, and the lower the
better. The leakage of a method is the median over all such seconds of all tracks. Frames are
those of `unetsep.train.evaluation.sdr`: one second, without overlap, all channels together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .sdr import Array, Signals, split_frames

# Of the reference against the mixture, in dB: below this a stem is not heard in the mixture.
SILENT_DB = -50.0
# Of the mixture against full scale, in dB: below this there is nothing that could leak.
AUDIBLE_DB = -60.0
# What an estimate of digital silence counts as, instead of minus infinity.
FLOOR_DB = -120.0


def frame_leakage(
    references: Signals, estimates: Signals, mixture: Signals, *, window: int
) -> Array:
    """Leakage into each stem in each frame.

    Parameters
    ----------
    references, estimates
        ``(stems, channels, samples)`` of one shape; full scale is 1.
    mixture
        ``(channels, samples)``.
    window
        Samples in a frame.

    Returns
    -------
    Array
        ``(stems, frames)`` in dB, at least `FLOOR_DB`; NaN where the stem is not silent or
        the mixture is.

    Examples
    --------
    >>> mixture = np.ones((1, 100))
    >>> frame_leakage(0 * mixture[None], mixture[None] / 100, mixture, window=100)
    array([[-40.]])
    """
    level = _levels(mixture[None], window)  # (1, frames)
    with np.errstate(invalid="ignore"):  # silence against silence
        stems, leaks = (_levels(each, window) - level for each in (references, estimates))
    counts = (stems <= SILENT_DB) & (level > AUDIBLE_DB)
    return np.where(counts, np.maximum(leaks, FLOOR_DB), np.nan)


def _levels(signals: Signals, window: int) -> Array:
    """Mean power of ``(stems, channels, samples)`` in dB, ``(stems, frames)``."""
    frames = split_frames(signals, window)
    # Frame by frame: a whole song in double precision would not fit a processor's cache.
    means = [
        np.square(frame, dtype=np.float64).mean(axis=(1, 2)) for frame in np.moveaxis(frames, 2, 0)
    ]
    power = np.stack(means, axis=1)
    with np.errstate(divide="ignore"):
        decibels: Array = 10 * np.log10(power)
    return decibels


def pooled_median(frames: Sequence[Array]) -> tuple[float, int]:
    """Median over all frames of all tracks that count, and how many they are.

    Parameters
    ----------
    frames
        For each track ``(frames,)`` in dB, NaN where a frame does not count.
    """
    values = np.concatenate([np.empty(0), *frames])
    values = values[~np.isnan(values)]
    return (float(np.median(values)) if len(values) else float("nan")), len(values)
