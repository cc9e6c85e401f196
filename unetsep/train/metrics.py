"""SDR of BSS Eval v4, exactly as museval computes it.

Frame by frame, museval's SDR is the plain energy ratio ``10 log10(sum s^2 / sum (s - s^)^2)``
over 1 s and all channels; only ISR, SIR and SAR need distortion filters. A frame counts for
no stem if any reference or any estimate is silent in it; the last partial second is dropped.
A track's score is the median of its frames, a set's score the median of its tracks.
"""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def frame_sdr(
    references: npt.NDArray[np.floating],
    estimates: npt.NDArray[np.floating],
    *,
    window: int = 44_100,
) -> Array:
    """SDR of each stem in each frame.

    Parameters
    ----------
    references, estimates
        ``(stems, channels, samples)`` of one shape.
    window
        Samples in a frame; frames do not overlap.

    Returns
    -------
    Array
        ``(stems, frames)`` in dB, NaN where any reference or estimate is silent.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if references.shape != estimates.shape:
        raise ValueError(f"references {references.shape} and estimates {estimates.shape} differ")
    stems, channels, samples = references.shape
    window = min(window, samples) or 1
    frames = samples // window
    shape = (stems, channels, frames, window)
    true = references[..., : frames * window].reshape(shape).astype(np.float64)
    guess = estimates[..., : frames * window].reshape(shape).astype(np.float64)
    signal = np.square(true).sum(axis=(1, 3))
    error = np.square(true - guess).sum(axis=(1, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        sdr: Array = 10 * np.log10(signal / error)
    sdr[:, _any_silent(true) | _any_silent(guess)] = np.nan
    return sdr


def _any_silent(sources: Array) -> npt.NDArray[np.bool_]:
    """Frames in which any source is silent: museval's test, on the sum of the channels."""
    silent: npt.NDArray[np.bool_] = np.all(sources.sum(axis=1) == 0, axis=-1).any(axis=0)
    return silent


def median(scores: Array, axis: int = -1) -> Array:
    """Median along ``axis`` without NaN; NaN where nothing is left."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        result: Array = np.nanmedian(scores, axis=axis)
    return result
