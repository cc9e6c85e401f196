from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.signals import noise
from unetsep.train.evaluation import sdr
from unetsep.train.evaluation.scoring import museval_scores
from unetsep.train.evaluation.sdr import frame_sdr, match_length, median, silent_stems
from unetsep.train.evaluation.tracks import TrackAudio

WINDOW = 1000
museval = pytest.importorskip("museval")


def museval_sdr(
    true: npt.NDArray[np.floating], guess: npt.NDArray[np.floating], window: int = WINDOW
) -> npt.NDArray[np.float64]:
    """museval's SDR; it does not depend on the filters, so short ones save time."""
    turned = [np.ascontiguousarray(np.moveaxis(x, 1, 2), np.float64) for x in (true, guess)]
    found: npt.NDArray[np.float64] = museval.metrics.bss_eval(
        *turned, window=window, hop=window, filters_len=4
    )[0]
    return found


def pair(
    samples: int, stems: int = 3, channels: int = 2
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    true = np.stack([noise(stem, samples, channels) for stem in range(stems)])
    return true, true + 0.3 * np.roll(true, 1, axis=0)


def assert_same(
    true: npt.NDArray[np.floating], guess: npt.NDArray[np.floating], window: int = WINDOW
) -> npt.NDArray[np.float64]:
    expected, found = museval_sdr(true, guess, window), frame_sdr(true, guess, window=window)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    return found


def test_sdr_of_known_error_is_its_level() -> None:
    true = noise(0, 2 * WINDOW)[None]
    np.testing.assert_allclose(frame_sdr(true, 0.9 * true, window=WINDOW), 20.0, atol=1e-9)


@pytest.mark.parametrize(
    "samples", [1, 2, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW - 1, 2 * WINDOW, 5 * WINDOW + 7]
)
def test_frames_are_those_of_museval_for_any_length(samples: int) -> None:
    found = assert_same(*pair(samples))
    assert found.shape[1] == max(1, samples // WINDOW)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_any_number_of_channels_is_scored_as_museval_does(channels: int) -> None:
    assert_same(*pair(2500, channels=channels))


def test_music_scores_as_in_museval(
    real_song: TrackAudio, estimates: dict[str, npt.NDArray[np.float32]]
) -> None:
    true = np.stack(list(real_song.references.values()))
    guess = np.stack([estimates[stem] for stem in real_song.references])
    samples = 4 * real_song.sample_rate - 100
    found = assert_same(true[..., :samples], guess[..., :samples], window=real_song.sample_rate)
    assert found.shape == (4, 3)


def test_a_silent_reference_frame_counts_for_no_stem() -> None:
    true, guess = pair(4 * WINDOW)
    true[1, :, WINDOW : 2 * WINDOW] = 0
    found = assert_same(true, guess)
    assert np.isnan(found[:, 1]).all()
    assert np.isfinite(found[:, [0, 2, 3]]).all()


def test_a_silent_estimate_frame_counts_for_no_stem() -> None:
    true, guess = pair(4 * WINDOW)
    guess[2, :, 3 * WINDOW :] = 0
    found = assert_same(true, guess)
    assert np.isnan(found[:, 3]).all()
    assert np.isfinite(found[:, :3]).all()


def test_channels_that_cancel_are_silent_as_in_museval() -> None:
    true, guess = pair(3 * WINDOW)
    true[0, 1, :WINDOW] = -true[0, 0, :WINDOW]
    assert np.isnan(assert_same(true, guess)[:, 0]).all()


def test_one_sample_of_sound_is_not_silence() -> None:
    true, guess = pair(3 * WINDOW)
    true[0, :, :WINDOW] = 0
    true[0, 0, 17] = 1 / 32768
    assert np.isfinite(assert_same(true, guess)).all()


def test_sound_in_the_dropped_last_second_changes_nothing() -> None:
    true, guess = pair(3 * WINDOW + 10)
    expected = frame_sdr(true, guess, window=WINDOW)
    guess[..., 3 * WINDOW :] = 0
    np.testing.assert_array_equal(frame_sdr(true, guess, window=WINDOW), expected)
    assert_same(true, guess)


def test_single_precision_estimates_score_as_in_museval() -> None:
    true, guess = pair(3 * WINDOW)
    assert_same(true, guess.astype(np.float32))


def test_a_perfect_estimate_has_infinite_sdr() -> None:
    true, _ = pair(2 * WINDOW)
    assert np.isposinf(frame_sdr(true, true, window=WINDOW)).all()


def test_shapes_that_differ_are_refused() -> None:
    true, guess = pair(10)
    with pytest.raises(ValueError, match="of one shape"):
        frame_sdr(true, guess[:2])
    with pytest.raises(ValueError, match="of one shape"):
        frame_sdr(true[0], guess[0])


def test_a_window_without_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        frame_sdr(*pair(10), window=0)


def test_silent_stems_are_those_that_museval_refuses() -> None:
    true, guess = pair(2 * WINDOW)
    true[0, 1] = -true[0, 0]
    true[2] = 0
    assert silent_stems(true).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="non-silent"):
        museval_scores(true[:2], guess[:2], WINDOW)


def test_estimates_are_cut_or_padded_to_the_reference() -> None:
    signal = np.arange(6.0).reshape(2, 3)
    assert match_length(signal, 2).tolist() == [[0, 1], [3, 4]]
    assert match_length(signal, 4).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]


def test_median_ignores_what_museval_writes_as_nan() -> None:
    nan, inf = np.nan, np.inf
    scores = np.array([[1, nan, 3, inf], [nan, nan, nan, inf]])
    np.testing.assert_array_equal(median(scores), [2, nan])
    np.testing.assert_array_equal(median(scores, axis=0), [1, nan, 3, nan])


def test_the_median_of_no_scores_is_nan() -> None:
    np.testing.assert_array_equal(median(np.zeros((2, 0))), [np.nan, np.nan])
    assert np.isnan(median(np.zeros(0)))


def test_each_frame_of_a_song_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    true, guess = pair(10 * 44_100, stems=4)
    converted = []

    def pick(frames: npt.NDArray[np.floating], frame: int) -> npt.NDArray[np.float64]:
        converted.append((frames.shape, frame))
        return frames[:, :, frame].astype(np.float64)

    monkeypatch.setattr(sdr, "_pick", pick)
    frame_sdr(true, guess)
    assert converted == [((4, 2, 10, 44_100), frame) for frame in range(10) for _ in "ab"]
