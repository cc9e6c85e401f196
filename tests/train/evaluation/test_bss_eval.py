from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.signals import RATE, noise
from unetsep.train.evaluation.bss_eval import (
    BLOCK,
    BLOCKS_AT_ONCE,
    FILTER_LENGTH,
    bss_eval,
    correlations,
)
from unetsep.train.evaluation.scoring import METRICS, museval_scores
from unetsep.train.evaluation.sdr import frame_sdr
from unetsep.train.evaluation.tracks import TrackAudio, find_tracks, read_track

pytest.importorskip("museval")

Array = npt.NDArray[np.floating]


def assert_like_museval(true: Array, guess: Array, window: int = RATE) -> None:
    expected = museval_scores(true, guess, window)
    found = bss_eval(true, guess, window=window)
    np.testing.assert_allclose(
        frame_sdr(true, guess, window=window), expected["SDR"], rtol=0, atol=1e-6
    )
    for metric in METRICS:
        mine = getattr(found, metric.lower())
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(expected[metric]))
        # Beyond 150 dB both numbers are rounding errors.
        pair = np.minimum(mine, 150), np.minimum(expected[metric], 150)
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-3, err_msg=metric)


def stack(signals: dict[str, Array], names: tuple[str, ...]) -> Array:
    return np.stack([signals[name] for name in names])


# museval needs ten seconds and more for four stereo stems; these cover the same code.
@pytest.mark.parametrize(
    ("stems", "channels"),
    [(("vocals", "drums", "bass", "other"), 1), (("vocals", "other"), 2)],
)
def test_music_scores_as_in_museval(
    real_song: TrackAudio, estimates: dict[str, Array], stems: tuple[str, ...], channels: int
) -> None:
    true, guess = stack(real_song.references, stems), stack(estimates, stems)
    assert_like_museval(true[:, :channels], guess[:, :channels])


@pytest.mark.skipif("MUSDB_PATH" not in os.environ, reason="needs MUSDB_PATH")
def test_a_musdb_track_scores_as_in_museval() -> None:
    track = read_track(find_tracks(Path(os.environ["MUSDB_PATH"]), "test")[0], 7.0)
    true = np.stack(list(track.references.values()))
    assert_like_museval(true, true + 0.3 * (track.mixture - true))


def test_silent_frames_count_for_no_stem(
    real_song: TrackAudio, estimates: dict[str, Array]
) -> None:
    stems = ("vocals", "drums")
    true, guess = stack(real_song.references, stems)[..., : 4 * RATE], stack(estimates, stems)
    guess = guess[..., : 4 * RATE].copy()
    true, guess[1, :, RATE : 2 * RATE] = true.copy(), 0
    true[0, :, 3 * RATE :] = 0
    assert_like_museval(true, guess)
    assert np.isnan(bss_eval(true, guess).sar).all(axis=0).tolist() == [False, True, False, True]


@pytest.mark.parametrize("samples", [300, 700, 2100])
def test_tracks_of_any_length_score_as_in_museval(samples: int) -> None:
    true = np.stack([noise(stem, samples, 1) for stem in range(2)])
    assert_like_museval(true, true + 0.3 * true[::-1], window=1000)


def test_a_mono_stem_scores_as_two_equal_channels(
    real_song: TrackAudio, estimates: dict[str, Array]
) -> None:
    # Two equal channels make the system singular; the scores are those of one channel.
    stems = ("vocals", "bass")
    true = stack(real_song.references, stems)[:, :1, : 3 * RATE]
    guess = stack(estimates, stems)[:, :1, : 3 * RATE]
    once = bss_eval(true, guess)
    twice = bss_eval(np.repeat(true, 2, axis=1), np.repeat(guess, 2, axis=1))
    for metric in ("sdr", "isr", "sir", "sar"):
        np.testing.assert_allclose(getattr(twice, metric), getattr(once, metric), atol=1e-4)


def test_a_filtered_stem_has_neither_interference_nor_artefacts() -> None:
    true = np.stack([noise(stem, 4000) for stem in range(2)])
    guess = true + 0.5 * np.pad(true, ((0, 0), (0, 0), (5, 0)))[..., :-5]
    # The last frame ends before the song does, so that no filter tail is cut off.
    scores = bss_eval(true, guess, window=1000)
    assert (scores.sir > 30).all()
    np.testing.assert_allclose(scores.isr, 6.0, atol=0.5)


def test_interference_is_distinguished_from_artefacts() -> None:
    true = np.stack([noise(stem, 40_000) for stem in range(2)])
    leaky = bss_eval(true, true + 0.3 * true[::-1], window=10_000)
    noisy = bss_eval(true, true + 0.3 * np.stack([noise(7, 40_000)] * 2), window=10_000)
    assert np.median(leaky.sir) < 12 < 25 < np.median(leaky.sar)
    assert np.median(noisy.sar) < 12 < 15 < np.median(noisy.sir)


STEP = BLOCK - FILTER_LENGTH + 1


@pytest.mark.parametrize("blocks", [0, 1, BLOCKS_AT_ONCE])
@pytest.mark.parametrize("rest", [1, 300, FILTER_LENGTH - 1, FILTER_LENGTH, 1234, STEP])
def test_correlations_do_not_depend_on_blocks(blocks: int, rest: int) -> None:
    samples = blocks * STEP + rest
    x, y = noise(0, samples, 1), noise(1, samples, 1)
    lags = correlations(x[None], y[None])
    for lag in (0, 1, 100, FILTER_LENGTH - 1):
        earlier = x[0, : max(0, samples - lag)]
        expected = [earlier @ other[0, lag:] for other in (x, y)]
        np.testing.assert_allclose(lags[0, :, lag].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_a_stem_that_is_silent_throughout_is_refused() -> None:
    true = np.stack([noise(0, 2000), np.zeros((2, 2000))])
    with pytest.raises(ValueError, match="silent throughout"):
        bss_eval(true, true, window=1000)
