from __future__ import annotations

import numpy as np
import pytest

from unetsep.train.evaluation.leakage import FLOOR_DB, frame_leakage, pooled_median
from unetsep.train.evaluation.scoring import score

WINDOW = 1000


def tone(level_db: float, frames: int = 1, channels: int = 2) -> np.ndarray:
    """Noise of a level in dB below full scale, ``(channels, samples)``."""
    noise = np.random.default_rng(0).standard_normal((channels, frames * WINDOW))
    return noise / np.sqrt(np.mean(noise**2)) * 10 ** (level_db / 20)


def leakage(stem_db: float, estimate_db: float, mixture_db: float) -> float:
    stem, estimate, mixture = map(tone, (stem_db, estimate_db, mixture_db))
    (value,) = frame_leakage(stem[None], estimate[None], mixture, window=WINDOW).ravel()
    return float(value)


@pytest.mark.parametrize(("estimate", "mixture"), [(-60, -20), (-20, -20), (-70, -50)])
def test_leakage_is_the_level_of_a_silent_stem_over_the_mixture(
    estimate: float, mixture: float
) -> None:
    assert leakage(-120, estimate, mixture) == pytest.approx(estimate - mixture)


@pytest.mark.parametrize(
    ("stem", "mixture", "counts"),
    [(-71, -20, True), (-69, -20, False), (-120, -59, True), (-120, -61, False)],
)
def test_a_second_counts_if_the_stem_is_50_db_down_and_the_mixture_audible(
    stem: float, mixture: float, counts: bool
) -> None:
    assert np.isnan(leakage(stem, -80, mixture)) != counts


def test_a_silent_estimate_has_the_floor_and_a_silent_mixture_no_leakage() -> None:
    mixture, silence = tone(-20), np.zeros((2, WINDOW))
    assert frame_leakage(silence[None], silence[None], mixture, window=WINDOW) == [[FLOOR_DB]]
    assert np.isnan(frame_leakage(silence[None], silence[None], silence, window=WINDOW)).all()


def test_the_median_is_over_all_seconds_of_all_tracks() -> None:
    nan = np.nan
    value, seconds = pooled_median(
        [np.array([-10.0, nan, -20.0]), np.array([nan]), np.array([-60.0])]
    )
    assert (value, seconds) == (-20.0, 3)
    for silent in ([], [np.array([nan])]):
        assert pooled_median(silent) == (pytest.approx(nan, nan_ok=True), 0)


def test_a_track_is_scored_with_its_mixture() -> None:
    vocals, drums = np.zeros((2, 2 * WINDOW)), tone(-20, frames=2)
    estimates = {"vocals": drums / 100, "drums": drums * 0.99}
    scores = score({"vocals": vocals, "drums": drums}, estimates, WINDOW, mixture=drums)
    assert scores.leakage is not None
    assert scores.leakage[0] == pytest.approx([-40.0, -40.0])
    assert np.isnan(scores.leakage[1]).all()
    assert score({"vocals": vocals, "drums": drums}, estimates, WINDOW).leakage is None
