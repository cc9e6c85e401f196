"""Medians over tracks, and how far they can be trusted: bootstrap intervals.

The bootstrap draws whole tracks with replacement, the same ones for all stems and methods.
It takes the 2.5th and 97.5th percentile of the statistic over the draws (Efron and
Tibshirani, "An Introduction to the Bootstrap", 1993). The interval tells how much a median
would move with other songs of the same kind; it knows nothing of training seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .sdr import Array, median

DRAWS = 5_000
SEED = 0
COVERAGE = 0.95
# In one of 2^(n - 1) cases all tracks lie on one side of the true median. With fewer tracks that
# is more than the 5% that any interval leaves.
FEWEST = 6


@dataclass(frozen=True)
class Interval:
    """A statistic over tracks with its 95% interval.

    Parameters
    ----------
    value, low, high
        In dB; NaN where there are no scores, bounds NaN for fewer than six tracks.
    tracks
        How many tracks had a score.
    """

    value: float
    low: float
    high: float
    tracks: int

    def __str__(self) -> str:
        """Value and interval, two decimals."""
        if math.isnan(self.value):
            return "-"
        if math.isnan(self.low):
            return f"{self.value:.2f}"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def track_median(scores: npt.ArrayLike) -> Interval:
    """Median over tracks.

    Parameters
    ----------
    scores
        ``(tracks,)`` in dB; NaN for tracks without a score.

    Examples
    --------
    >>> track_median([1.0, 2.0, 3.0, np.nan]).value
    2.0
    """
    return mean_of_medians(np.asarray(scores, dtype=np.float64)[:, None])


def sign_test(gains: Sequence[float]) -> float:
    """Probability that signs are as uneven as these, or more, if either is as likely.

    Of few tracks a bootstrap interval of the median is too narrow, for 7 by far; this is exact
    (Conover, "Practical Nonparametric Statistics", 1999).

    Parameters
    ----------
    gains
        Differences of two methods track by track; zeros do not count.

    Examples
    --------
    >>> sign_test([0.1, 0.2, 0.5, 0.1, 0.3, 0.2])
    0.03125
    """
    positive, negative = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    count = positive + negative
    tail = sum(math.comb(count, number) for number in range(min(positive, negative) + 1))
    chance: float = 2 * tail / 2**count  # of whole numbers, which may be too large for floats
    return min(1.0, chance)


def mean_of_medians(scores: Array) -> Interval:
    """Mean over stems of the medians over tracks; of one stem, its median.

    Parameters
    ----------
    scores
        ``(tracks, stems)`` in dB; NaN for missing scores. A stem without any score makes
        the mean NaN.
    """
    tracks = int(np.isfinite(scores).any(axis=1).sum())
    value = float(median(scores, axis=0).mean()) if tracks else math.nan
    if np.isfinite(scores).sum(axis=0).min(initial=tracks) < FEWEST or math.isnan(value):
        return Interval(value, math.nan, math.nan, tracks)
    rng = np.random.default_rng(SEED)
    draws = rng.integers(len(scores), size=(DRAWS, len(scores)))
    # A draw may hold no track in which some stem is audible; it does not count.
    statistics = median(scores[draws], axis=1).mean(axis=1)
    statistics = statistics[np.isfinite(statistics)]
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return Interval(value, float(low), float(high), tracks)
