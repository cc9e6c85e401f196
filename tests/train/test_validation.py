"""SDR of the networks in training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.train.runs import CPU, log, run
from tests.train.synthetic import MODEL, RATE, pcm, song, songs, tiny
from unetsep.config import STEMS
from unetsep.separator import Separator
from unetsep.train.config import TrainingError
from unetsep.train.data.recording import recording_from_arrays
from unetsep.train.datamodule import watched_recordings
from unetsep.train.fit import fit
from unetsep.train.validation import check_defined, combine, recording_sdr, scorable


def test_the_mean_of_a_set_ignores_recordings_without_sdr() -> None:
    table = np.array([[[1.0, np.nan, np.nan]], [[2.0, 4.0, np.nan]], [[9.0, -np.inf, np.nan]]])
    scores = combine(table, ["mse"], ["bass", "drums", "other"])["mse"]
    assert (scores["bass"], scores["drums"]) == (4.0, 4.0)
    assert np.isnan(scores["other"])
    assert np.isnan(scores["mean"])


def test_a_validation_without_any_score_is_refused(tmp_path: Path) -> None:
    """Each stem sounds, but never all of them in one second."""
    stems = {stem: pcm(i, 3 * RATE) for i, stem in enumerate(STEMS)}
    stems["drums"][:RATE], stems["bass"][RATE:] = 0, 0
    never = recording_from_arrays("never", stems, split="valid")
    train, _ = songs()
    for valid in ([never], [song(8, split="valid").without(["bass"])], []):
        with pytest.raises(TrainingError, match="has all of vocals, drums, bass, other, so that"):
            fit(tiny(), train, valid, tmp_path, machine=CPU)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingError, match="no second of the 0 recordings"):
        fit(tiny(all_songs=True), train, [], tmp_path, machine=CPU)
    check_defined([never, song(8)], STEMS)
    check_defined([never], ("vocals", "drums", "other"))


def test_recordings_without_a_mixture_are_not_validated_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The sum of the stems that are known would be none: nothing to take away from the vocals."""
    train, valid = songs()
    alone = recording_from_arrays("alone", {"vocals": pcm(1)}, split="valid")
    mixed = recording_from_arrays("mixed", {"vocals": pcm(1), "mixture": pcm(2)}, split="valid")
    assert scorable([*valid, mixed], STEMS) == [*valid, mixed]
    assert scorable([mixed, mixed], STEMS) == [mixed, mixed]
    assert not caplog.messages
    model = dataclasses.replace(MODEL, stems=("vocals",), mask="sigmoid")
    twins = [song(9, split="valid"), dataclasses.replace(song(8, split="valid"), name="song9")]
    assert [each.name for each in scorable([*twins, alone], STEMS)] == ["song9", "song9"]
    caplog.clear()
    fit(tiny(model=model), train, [*valid, alone], tmp_path / "both", machine=CPU)
    assert caplog.messages == [
        "recordings are left out of validation, as some of vocals, drums, bass, other are "
        "unknown: alone"
    ]
    fit(tiny(model=model), train, valid, tmp_path / "one", machine=CPU)
    assert log(tmp_path / "both") == log(tmp_path / "one")


def test_watched_recordings_are_complete_base_ones_spread_evenly() -> None:
    base, extra = [song(i) for i in range(5)], [song(i, extra=True) for i in (5, 6)]
    part = song(7).without(["bass"])
    assert [r.name for r in watched_recordings([*base, part, *extra], STEMS, 2)] == [
        "song0", "song2"
    ]  # fmt: skip
    assert watched_recordings([*base, *extra], STEMS, 9) == base
    assert watched_recordings([part, *extra], STEMS, 1) == extra[:1]
    assert watched_recordings([part], STEMS, 3) == []
    assert watched_recordings(base, STEMS, 0) == []


def test_scores_of_training_recordings_change_no_training(tmp_path: Path, whole: Path) -> None:
    lines = run(tmp_path, tiny(losses=("l1", "mel_mse"), max_steps=8, watched=2))
    (last,) = (line for line in lines if line["step"] == 8 and "valid/l1/mean" in line)
    seen = {key: last.pop(key) for key in list(last) if key.startswith("seen/")}
    assert set(seen) == {f"seen/{x}/{stem}" for x in ("l1", "mel_mse") for stem in (*STEMS, "mean")}
    assert last == log(whole)[-1]
    network = Separator(tmp_path / "best-l1.safetensors", precision="fp32")
    best = max(
        (line for line in lines if "valid/l1/mean" in line), key=lambda x: x["valid/l1/mean"]
    )
    train, valid = songs()
    for kind, recordings in (("valid", valid), ("seen", train[::2])):
        expected = np.mean([recording_sdr(network, each) for each in recordings], axis=0)
        found = [best[f"{kind}/l1/{stem}"] for stem in STEMS]
        assert found == pytest.approx(expected.tolist(), abs=0.02)
