from __future__ import annotations

import math

import numpy as np
import pytest

from unetsep.train.evaluation.statistics import (
    FEWEST,
    Interval,
    mean_of_medians,
    sign_test,
    track_median,
)


def test_median_ignores_tracks_without_a_score() -> None:
    found = track_median([1, math.nan, 2, 9])
    assert track_median([1, -math.inf, 2, 9]) == found
    assert found.value == 2
    assert found.tracks == 3


def test_median_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 8, 50):
        scores = rng.standard_normal(count)
        assert track_median(scores).value == pytest.approx(np.median(scores))


def test_intervals_are_the_same_every_time() -> None:
    scores = np.random.default_rng(1).standard_normal(50)
    assert track_median(scores) == track_median(scores)


def test_interval_covers_the_median_of_a_normal_sample() -> None:
    # The median of n normal scores has a standard error of about 1.25 / sqrt(n).
    inside, widths = 0, []
    for seed in range(60):
        found = track_median(np.random.default_rng(seed).standard_normal(50))
        inside += found.low <= 0 <= found.high
        widths.append(found.high - found.low)
    assert 52 <= inside <= 60
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 1.25 / math.sqrt(50), rel=0.15)


def test_few_tracks_have_no_interval() -> None:
    # All of n draws from a coin's two sides are the same in one of 2^(n - 1) cases.
    assert 2 ** -(FEWEST - 1) < 0.05 <= 2 ** -(FEWEST - 2)
    for count in range(1, FEWEST):
        found = track_median([3.0] * count + [math.nan] * 50)
        assert found.value == 3
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert str(found) == "3.00"
    assert track_median(range(FEWEST)).low < 2.5
    few = np.arange(2.0 * FEWEST).reshape(FEWEST, 2)
    assert mean_of_medians(few).low < few.mean()
    few[0, 1] = math.nan  # so that one stem has too few
    assert math.isnan(mean_of_medians(few).low)


def test_equal_methods_are_seldom_called_different() -> None:
    for count in (5, 6, 7, 14, 50):
        rng = np.random.default_rng(count)
        wrong = 0
        for _ in range(200):
            gains = rng.standard_normal(count)
            found = track_median(gains)
            wrong += (found.low > 0 or found.high < 0) and sign_test(gains.tolist()) < 0.05
        assert wrong <= 0.08 * 200, count


def test_signs_are_tested_exactly() -> None:
    assert sign_test([1.0] * 6) == 2 / 2**6
    assert sign_test([1.0] * 7 + [-1.0, 0.0]) == 2 * 9 / 2**8
    assert sign_test([-1.0] * 7 + [1.0]) == sign_test([1.0] * 7 + [-1.0])
    assert sign_test([1.0, -1.0] * 600) == 1.0
    assert sign_test([1.0, -1.0]) == sign_test([]) == sign_test([0.0]) == 1.0


def test_results_without_tracks_have_no_value() -> None:
    assert str(track_median([math.nan, math.nan])) == "-"
    assert track_median([math.nan]).tracks == 0
    assert math.isnan(mean_of_medians(np.empty((0, 4))).value)


def test_equal_scores_have_an_interval_of_zero_width() -> None:
    assert track_median([2.0] * 10) == Interval(2.0, 2.0, 2.0, 10)


def test_mean_of_medians_is_over_stems() -> None:
    scores = np.array([[1.0, 10], [2, 20], [3, math.nan]])
    assert mean_of_medians(scores).value == pytest.approx((2 + 15) / 2)


def test_mean_of_medians_is_nan_if_a_stem_has_no_scores() -> None:
    scores = np.array([[1.0, math.nan], [2, math.nan]])
    assert math.isnan(mean_of_medians(scores).value)
