from __future__ import annotations

import numpy as np
import pytest

from tests.signals import noise
from unetsep.config import STEMS
from unetsep.train.evaluation.scoring import METRICS, score
from unetsep.train.evaluation.sdr import frame_sdr

RATE = 1000


def song(samples: int = 4 * RATE) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    true = {stem: noise(index, samples) for index, stem in enumerate(STEMS)}
    rolled = dict(zip(STEMS, [*list(true.values())[1:], true["vocals"]], strict=True))
    return true, {stem: true[stem] + 0.2 * rolled[stem] for stem in STEMS}


def test_sdr_mode_omits_the_other_metrics() -> None:
    found = score(*song(), RATE)
    assert np.isfinite(found.values["SDR"]).all()
    for metric in METRICS[1:]:
        assert np.isnan(found.values[metric]).all()


@pytest.mark.parametrize("mode", ["bsseval", "museval"])
def test_full_modes_agree_on_sdr(mode: str) -> None:
    pytest.importorskip("museval")
    true, guess = song(2 * RATE)
    true, guess = ({s: x[s] for s in STEMS[:2]} for x in (true, guess))
    found = score(true, guess, RATE, mode=mode)
    sdr = score(true, guess, RATE).values["SDR"]
    np.testing.assert_allclose(found.values["SDR"], sdr, atol=1e-6)
    assert np.isfinite(found.values["SAR"]).all()


@pytest.mark.parametrize("which", ["reference", "estimate"])
def test_a_silent_stem_has_no_score_and_the_others_are_scored_without_it(which: str) -> None:
    true, guess = song()
    (true if which == "reference" else guess)["vocals"] = np.zeros((2, 4 * RATE))
    found = score(true, guess, RATE)
    assert found.silent == ("vocals",)
    assert np.isnan(found.median("vocals"))
    others = STEMS[1:]
    expected = frame_sdr(
        np.stack([true[s] for s in others]), np.stack([guess[s] for s in others]), window=RATE
    )
    np.testing.assert_array_equal(found.values["SDR"][1:], expected)


def test_a_song_of_silence_has_no_scores_at_all() -> None:
    silence = {stem: np.zeros((2, 3 * RATE)) for stem in STEMS}
    found = score(silence, silence, RATE)
    assert found.silent == STEMS
    assert np.isnan(found.values["SDR"]).all()
    assert found.values["SDR"].shape == (4, 3)


def test_short_and_long_estimates_are_padded_and_cut() -> None:
    true, guess = song()
    expected = score(true, guess, RATE).values["SDR"]
    longer = {stem: np.pad(x, ((0, 0), (0, 77))) for stem, x in guess.items()}
    np.testing.assert_array_equal(score(true, longer, RATE).values["SDR"], expected)
    shorter = {stem: x[:, : 3 * RATE] for stem, x in guess.items()}
    found = score(true, shorter, RATE).values["SDR"]
    np.testing.assert_array_equal(found[:, :3], expected[:, :3])
    assert np.isnan(found[:, 3]).all()


@pytest.mark.parametrize(("samples", "duration"), [(300, 0.3), (RATE, 1.0), (2 * RATE + 5, 1.0)])
def test_a_frame_is_no_longer_than_the_track(samples: int, duration: float) -> None:
    found = score(*song(samples), RATE)
    assert found.duration == duration
    assert found.values["SDR"].shape == (4, max(1, samples // RATE))
    assert np.isfinite(found.values["SDR"]).all()


def test_median_of_an_unknown_stem_is_nan() -> None:
    assert np.isnan(score(*song(), RATE).median("piano"))


def test_a_single_stem_is_refused_because_scores_depend_on_the_set() -> None:
    true, guess = song()
    with pytest.raises(ValueError, match="two or more"):
        score(true, {"vocals": guess["vocals"]}, RATE)


def test_unknown_stems_modes_and_channel_counts_are_refused() -> None:
    true, guess = song()
    with pytest.raises(ValueError, match="two or more"):
        score(true, guess | {"piano": guess["other"]}, RATE)
    with pytest.raises(ValueError, match="metrics must be one of"):
        score(true, guess, RATE, mode="si-sdr")
    with pytest.raises(ValueError, match="1 channels"):
        score(true, guess | {"bass": guess["bass"][:1]}, RATE)


def test_museval_handles_a_singular_system_as_bss_eval() -> None:
    # Equal channels; museval names an exception that numpy 2.4 no longer has.
    pytest.importorskip("museval")
    before = hasattr(np.linalg, "linalg")
    true, guess = song(2 * RATE)
    true, guess = ({s: np.repeat(x[s][:1], 2, 0) for s in STEMS[:2]} for x in (true, guess))
    own = score(true, guess, RATE, mode="bsseval").values
    theirs = score(true, guess, RATE, mode="museval").values
    for metric in METRICS:
        pair = np.minimum(own[metric], 150), np.minimum(theirs[metric], 150)
        np.testing.assert_allclose(*pair, rtol=0, atol=1e-3)
    assert hasattr(np.linalg, "linalg") == before
