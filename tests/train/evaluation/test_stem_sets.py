"""Scores depend on the set of stems: SiSEC's two are vocals and the sum of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.train.synthetic import write
from unetsep.config import STEMS, ModelConfig
from unetsep.errors import UnetsepError
from unetsep.network.unet import UNet
from unetsep.train.evaluation.baselines import BASELINES
from unetsep.train.evaluation.compare import compare
from unetsep.train.evaluation.estimates import baseline_methods, model_method
from unetsep.train.evaluation.evaluate import Outcome, Settings, evaluate, refusals
from unetsep.train.evaluation.own_songs import find_songs
from unetsep.train.evaluation.sdr import frame_sdr
from unetsep.train.evaluation.stem_sets import absent, check_set, in_set, parts_of
from unetsep.train.evaluation.tracks import TrackAudio, choose_tracks, find_tracks, read_track
from unetsep.weights.checkpoint import serialize

TWO = ("vocals", "accompaniment")


def sdr(outcome: Outcome) -> np.ndarray:
    assert outcome.scores is not None, outcome.error
    return outcome.scores.values["SDR"]


def model(path: Path, *stems: str) -> str:
    config = ModelConfig(stems=stems, filters=(2,) * 6, segment_frames=64)
    path.write_bytes(serialize(UNet(config)))
    return str(path)


def test_a_source_is_a_stem_or_the_sum_of_all_others() -> None:
    assert parts_of("bass", STEMS) == ("bass",)
    assert parts_of("accompaniment", STEMS) == ("drums", "bass", "other")
    assert parts_of("no_drums", STEMS) == ("vocals", "bass", "other")
    with pytest.raises(ValueError, match="there is no 'piano', expected some of vocals, drums"):
        parts_of("piano", STEMS)
    with pytest.raises(ValueError, match=r"some of vocals, accompaniment, no_accompaniment$"):
        parts_of("piano", TWO)


@pytest.mark.parametrize("sources", [("vocals",), ("vocals", "vocals"), ("vocals", "piano")])
def test_a_set_has_two_different_sources_of_the_songs(sources: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="--sources"):
        check_set(sources, STEMS)
    check_set(TWO, STEMS)


def test_estimates_are_summed_unless_the_set_has_them() -> None:
    each = {stem: np.full((2, 5), 2.0**i, np.float32) for i, stem in enumerate(STEMS)}
    np.testing.assert_array_equal(in_set(each, TWO, STEMS)["accompaniment"], np.full((2, 5), 14))
    pair = {"vocals": each["vocals"], "accompaniment": each["bass"]}
    assert in_set(pair, TWO, STEMS) == pair
    assert absent(TWO, ("vocals", "drums", "bass"), STEMS) == ["accompaniment"]
    assert absent(TWO, pair, STEMS) == []


def test_estimates_of_other_lengths_are_summed_from_the_start() -> None:
    each = {stem: np.ones((1, 3 + i), np.float32) for i, stem in enumerate(STEMS)}
    assert in_set(each, TWO, STEMS)["accompaniment"].tolist() == [[3, 3, 3, 3, 2, 1]]


def test_four_and_two_stem_models_are_scored_in_the_set_of_two(root: Path, tmp_path: Path) -> None:
    tracks = choose_tracks(find_tracks(root, "test"), ["Ana"])
    methods = [
        model_method([model(tmp_path / "four.safetensors", *STEMS)]),
        model_method([model(tmp_path / "two.safetensors", *TWO)]),
    ]
    settings = Settings(tmp_path / "out", sources=(TWO, STEMS))
    assert refusals(tracks, methods, (TWO,)) == []
    audio = read_track(tracks[0])
    true = in_set(audio.references, TWO, STEMS)
    for outcome, method in zip(evaluate(tracks, methods, settings)[:2], methods, strict=True):
        found = method.estimate(tracks[0], audio)
        guess = np.stack([found["vocals"], audio.mixture - found["vocals"]])
        expected = frame_sdr(np.stack([true["vocals"], true["accompaniment"]]), guess)
        np.testing.assert_allclose(sdr(outcome), expected, atol=1e-3)


def test_a_set_that_a_model_cannot_give_is_refused_before_any_work(
    root: Path, tmp_path: Path
) -> None:
    tracks = find_tracks(root, "test")
    two = model_method([model(tmp_path / "two.safetensors", *TWO)])
    with pytest.raises(UnetsepError, match="it gives vocals, accompaniment, from which drums"):
        refusals(tracks, [two], (TWO, STEMS))
    (outcome, *_) = evaluate(tracks, [two], Settings(tmp_path / "out", sources=(STEMS,)))
    assert "from which drums cannot be added up" in outcome.error


def test_each_set_has_its_own_results_that_are_reused_and_compared(
    root: Path, tmp_path: Path
) -> None:
    tracks, methods = find_tracks(root, "test"), baseline_methods("mixture-4,oracle-2")
    settings = Settings(tmp_path, sources=(STEMS, TWO))
    first = evaluate(tracks, methods, settings)
    assert [(o.sources, o.method) for o in first[::3]] == [
        *((STEMS, "mixture-4"), (STEMS, "oracle-2")),
        *((TWO, "mixture-4"), (TWO, "oracle-2")),
    ]
    assert all(outcome.reused for outcome in evaluate(tracks, methods, settings))
    folder = tmp_path / "vocals-accompaniment"
    (vocals, accompaniment) = compare(folder / "mixture-4", folder / "oracle-2").differences
    assert (vocals.stem, accompaniment.stem) == TWO
    assert vocals.better == vocals.gain.tracks == 2  # in the third one no vocals sound
    with pytest.raises(UnetsepError, match="these cannot be compared"):
        compare(tmp_path / "vocals-drums-bass-other" / "mixture-4", folder / "oracle-2")


def test_the_mixture_counts_once_as_the_accompaniment() -> None:
    stems = {stem: np.full((2, 4), 1.0, np.float32) for stem in STEMS}
    audio = TrackAudio(np.full((2, 4), 4.0, np.float32), stems, 44_100)
    whole = in_set(BASELINES["mixture"](audio), TWO, STEMS)
    np.testing.assert_array_equal(whole["accompaniment"], audio.mixture)
    quarter = in_set(BASELINES["mixture-4"](audio), TWO, STEMS)
    np.testing.assert_array_equal(quarter["accompaniment"], audio.mixture * 3 / 4)


def test_a_song_without_vocals_has_a_score_for_its_accompaniment(
    root: Path, tmp_path: Path
) -> None:
    (track,) = choose_tracks(find_tracks(root, "test"), ["Cy"])
    (outcome,) = evaluate([track], baseline_methods("oracle-2"), Settings(tmp_path, sources=(TWO,)))
    assert outcome.scores is not None
    assert outcome.scores.silent == ("vocals",)
    assert np.isfinite(sdr(outcome)[1]).all()


def test_scores_of_another_set_in_the_same_folder_are_not_reused(tmp_path: Path) -> None:
    for seed, stem in enumerate(("a-b", "c", "a", "b-c")):
        write(tmp_path / "test" / "song" / stem, seed)
    tracks, methods = find_songs(tmp_path, "test"), baseline_methods("mixture")
    for sources in (("a-b", "c"), ("a", "b-c")):
        (outcome,) = evaluate(tracks, methods, Settings(tmp_path / "out", sources=(sources,)))
        assert outcome.scores is not None
        assert outcome.scores.stems == sources


def test_a_set_in_two_orders_is_scored_once(root: Path, tmp_path: Path) -> None:
    settings = Settings(tmp_path, sources=(TWO, STEMS, TWO[::-1]))
    outcomes = evaluate(find_tracks(root, "test")[:1], baseline_methods("mixture"), settings)
    assert [outcome.sources for outcome in outcomes] == [TWO[::-1], STEMS]
