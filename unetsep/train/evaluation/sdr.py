"""SDR of BSS Eval v4, exactly as museval computes it, in milliseconds.

Conventions
-----------
Arrays are ``(stems, channels, samples)``. Frames last one second, do not overlap, and the
last partial second is dropped; a track shorter than a second is one frame. A frame counts
for no stem if any reference or any estimate of the scored set is silent in it. Silent
means that the *sum of the channels* is zero at every sample: that is museval's test, so a
stem with opposite channels counts as silent, too. A track's score is the median
of its frames, a set's score the median of its tracks.

Frame by frame museval's SDR is the plain energy ratio

    SDR = 10 log10(sum |s|^2 / sum |s - s^|^2)

over all channels: the filtered projections it is built from cancel in the sum of all
errors. Only ISR, SIR and SAR need them; see `unetsep.train.evaluation.bss_eval`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Signals = npt.NDArray[np.floating]


def frame_sdr(references: Signals, estimates: Signals, *, window: int = 44_100) -> Array:
    """SDR of each stem in each frame.

    Parameters
    ----------
    references, estimates
        ``(stems, channels, samples)`` of one shape, floating point, any level.
    window
        Samples in a frame; frames do not overlap.

    Returns
    -------
    Array
        ``(stems, frames)`` in dB, NaN where any reference or estimate is silent, infinite
        where an estimate is perfect.

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> reference = np.ones((2, 1, 100))
    >>> frame_sdr(reference, 0.9 * reference, window=50).round(6)
    array([[20., 20.],
           [20., 20.]])
    """
    check_shapes(references, estimates)
    true, guess = split_frames(references, window), split_frames(estimates, window)
    sdr = np.full((true.shape[0], true.shape[2]), np.nan)
    # Frame by frame: a whole song in double precision would not fit a processor's cache.
    for frame in range(true.shape[2]):
        signal, estimate = _pick(true, frame), _pick(guess, frame)
        if not (_any_silent(signal) or _any_silent(estimate)):
            sdr[:, frame] = decibels(_energy(signal), _energy(signal - estimate))
    return sdr


def check_shapes(references: Signals, estimates: Signals) -> None:
    """Raise `ValueError` unless both are ``(stems, channels, samples)`` of one shape."""
    if references.shape != estimates.shape or references.ndim != 3:
        raise ValueError(
            f"references {references.shape} and estimates {estimates.shape} must both be "
            "(stems, channels, samples), of one shape"
        )


def split_frames(sources: Signals, window: int) -> Signals:
    """Frames ``(stems, channels, frames, window)`` without the last partial one, a view."""
    if window < 1:
        raise ValueError(f"window must be at least one sample, got {window}")
    stems, channels, samples = sources.shape
    window = min(window, samples) or 1
    frames = samples // window
    return sources[..., : frames * window].reshape(stems, channels, frames, window)


def silent_stems(sources: Signals) -> Mask:
    """Stems that are silent throughout, by museval's test, ``(stems,)``."""
    return np.array([_any_silent(source[None].astype(np.float64)) for source in sources])


def _pick(frames: Signals, frame: int) -> Array:
    """One frame in double precision, ``(stems, channels, window)``."""
    return frames[:, :, frame].astype(np.float64)


def _any_silent(sources: Array) -> bool:
    """Whether the channels' sum is zero throughout for any of ``(stems, channels, samples)``."""
    return not sources.sum(axis=1).any(axis=-1).all()


def _energy(signals: Array) -> Array:
    flat = signals.reshape(len(signals), -1)
    energy: Array = np.einsum("sn,sn->s", flat, flat)
    return energy


def decibels(numerator: Array, denominator: Array) -> Array:
    """``10 log10`` of a ratio of energies, infinite where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Array = 10 * np.log10(numerator / denominator)
    return np.where(denominator == 0, np.inf, ratio)


def match_length(estimates: Signals, samples: int) -> Signals:
    """Estimates cut or padded with zeros at their end, as museval does.

    Parameters
    ----------
    estimates
        ``(..., any number of samples)``.
    samples
        Length of the references.
    """
    padding = samples - estimates.shape[-1]
    if padding <= 0:
        return estimates[..., :samples]
    return np.pad(estimates, [(0, 0)] * (estimates.ndim - 1) + [(0, padding)])


def median(scores: Array, axis: int = -1) -> Array:
    """Median along ``axis`` over the finite scores; NaN where there are none.

    A perfect frame (infinite SDR) is left out, as it is from museval's own files, in which
    infinity is written as NaN.
    """
    if not scores.shape[axis]:
        return np.full(np.delete(scores.shape, axis), np.nan)
    # NaN comes last. Bootstraps take thousands of medians, at which `np.nanmedian` is five times
    # as slow.
    ascending = np.sort(np.where(np.isfinite(scores), scores, np.nan), axis=axis)
    count = np.isfinite(ascending).sum(axis=axis, keepdims=True)
    lower = np.take_along_axis(ascending, np.maximum(count - 1, 0) // 2, axis)
    upper = np.take_along_axis(ascending, count // 2, axis)
    medians: Array = ((lower + upper) / 2).squeeze(axis)
    return medians
