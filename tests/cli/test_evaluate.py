from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from tests.commands import call
from unetsep.cli import evaluate as evaluation
from unetsep.config import ModelConfig
from unetsep.errors import UnetsepError
from unetsep.network.unet import UNet
from unetsep.train.evaluation.tracks import find_tracks
from unetsep.weights.checkpoint import serialize

CHEAP = ("--baselines", "mixture,mixture-4")


def test_eval_writes_a_report_and_compare_reads_the_folders(
    root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    options = ["--musdb-root", root, "-o", tmp_path / "out", "-m", tiny_model, *CHEAP]
    first = call("eval", *options, "--duration", "2")
    assert first.exit_code == 0, first.output
    assert "mixture / 4" in first.stdout
    assert "vocals in 1 of 3 tracks" in first.stdout
    assert "9 scores computed, 0 reused" in first.stderr
    for name in ("report.md", "report.csv", "tracks.csv", "report.json", "figure2.png"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    report = (tmp_path / "out" / "report.md").read_bytes()
    again = call("eval", *options, "--duration", "2", "--json")
    assert "0 scores computed, 9 reused" in again.stderr
    assert (tmp_path / "out" / "report.md").read_bytes() == report
    content = json.loads(again.stdout)
    assert [m["name"] for m in content["methods"]] == ["tiny", "mixture", "mixture-4"]
    assert content["data"].startswith("3 test tracks of musdb")
    both = call("compare", "mixture", "mixture-4", "-o", tmp_path / "out")
    assert both.exit_code == 0, both.output
    assert "[95%]" not in both.stdout  # three tracks have no interval
    found = json.loads(
        call(
            "compare", tmp_path / "out" / "mixture", tmp_path / "out" / "mixture-4", "--json"
        ).stdout
    )
    assert all(stem["better"] == stem["gain"]["tracks"] for stem in found["stems"])
    assert {stem["verdict"] for stem in found["stems"]} == {"undecided"}  # of three tracks
    for name in ("mixture", "mixture-4"):
        folder = tmp_path / "out" / name
        shutil.copytree(folder / "test", folder / "train")
    next((folder / "test").glob("*.json")).unlink()
    result = call("compare", "mixture", "mixture-4", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    less = result.stdout
    assert "Left out of test: tracks with scores of A alone (1), B alone (0)." in less
    assert "Left out of train" not in less
    assert "vocals in train" in less


def test_estimates_of_other_tools_are_scored_in_the_same_table(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for track in find_tracks(root, "test"):
        shutil.copytree(track.path, tmp_path / "perfect" / track.name)
    result = call(
        *("eval", "--musdb-root", root, "-o", tmp_path / "out", "--no-figures"),
        *("--estimates", tmp_path / "perfect", *CHEAP),
    )
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "out" / "figure2.png").exists()
    content = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [m["kind"] for m in content["methods"]] == ["estimates", "baseline", "baseline"]
    assert "Published elsewhere, on other data: see report.md\n" in result.stdout
    assert "trained on" not in result.stdout
    # Estimates in the current folder are no scores, if they have the name of some.
    monkeypatch.chdir(tmp_path)
    Path("perfect").rename("mixture")
    both = call("compare", "mixture", "mixture-4", "-o", "out")
    assert both.exit_code == 0, both.output
    assert "B - A" in both.stdout


def test_tracks_that_fail_are_named_and_the_exit_code_is_1(root: Path, tmp_path: Path) -> None:
    first = find_tracks(root, "test")[0]
    shutil.copytree(first.path, tmp_path / "some" / first.name)
    result = call(
        *("eval", "--musdb-root", root, "-o", tmp_path / "out", "--no-figures"),
        *("--estimates", tmp_path / "some", "--baselines", "none"),
    )
    assert result.exit_code == 1
    assert "some cannot be scored on 2 of 3 tracks, the first:" in result.stderr
    assert "1 scores computed, 0 reused" in result.stderr
    assert "2 of 3 scores failed" in result.stderr
    assert "Cy - Instrumental" in result.stderr


def test_what_cannot_be_scored_is_refused_before_any_work(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("worked before all was known")

    monkeypatch.setattr("unetsep.cli.evaluate.evaluate", refuse)
    config = ModelConfig(stems=("voice", "band"), filters=(2,) * 6, segment_frames=64)
    (tmp_path / "two.safetensors").write_bytes(serialize(UNet(config)))
    (tmp_path / "file").write_text("")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "stems" / "test").mkdir(parents=True)
    for number in range(2):
        (tmp_path / "stems" / "test" / f"{number}.stem.mp4").touch()
    monkeypatch.setitem(sys.modules, "stempeg", None)
    for options, message in (
        (["--musdb-root", tmp_path / "stems"], "^Error: .*0.stem.mp4 needs stempeg: run pip .*\n$"),
        (["-m", tmp_path / "two.safetensors"], "two cannot be scored: the model estimates voice"),
        (["--estimates", tmp_path / "nothing"], "nothing cannot be scored: .* has no estimates of"),
        (["--estimates", root / "test", "-o", tmp_path / "file" / "out"], "cannot be written"),
    ):
        result = call("eval", "--musdb-root", root, "-o", tmp_path / "out", *options)
        assert result.exit_code == 1
        assert re.search(message, result.stderr)


def test_an_empty_root_is_an_error_not_an_empty_table(tmp_path: Path) -> None:
    result = call("eval", "--musdb-root", tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "Error:" in result.stderr
    assert not (tmp_path / "out").exists()


def test_without_a_root_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    result = call("eval")
    assert result.exit_code == 1
    assert "MUSDB_PATH" in result.stderr


def test_the_root_may_come_from_the_environment(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    monkeypatch.setenv("MUSDB_PATH", str(root))
    options = ("-o", tmp_path, "--subset", "valid", "-m", tiny_model, "--no-figures", "-q", *CHEAP)
    result = call("eval", *options)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "tiny" / "train" / "Actions - One Minute Smile.json").is_file()
    assert "Published" not in result.stdout


def test_a_missing_package_gets_a_message_that_names_the_extra(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "librosa", None)
    result = call(
        *("eval", "--musdb-root", root, "-o", tmp_path, "--tracks", "1", "--no-figures"),
        *("--estimates", root / "test", "--baselines", "repet-hpss"),
    )
    assert result.exit_code == 1
    assert 'pip install "unetsep[train]"' in result.stderr


def test_a_package_that_cannot_be_loaded_is_named_with_the_reason(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch_log_wmse.py").write_text("raise RuntimeError('made for another torch')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch_log_wmse", raising=False)
    result = call(
        *("eval", "--musdb-root", root, "-o", tmp_path / "out", "--tracks", "1"),
        *("--estimates", root / "test", "--baselines", "none", "--measures", "log-wmse"),
    )
    assert result.exit_code == 1
    assert "--measures log-wmse needs torch_log_wmse" in result.stderr
    assert "made for another torch" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--duration", "0"], "--duration must be more than 0"),
        (["--duration", "nan"], "--duration must be more than 0"),
        (["--duration", "inf"], "--duration must be more than 0 seconds, and finite, got inf"),
        (["--baselines", "magic"], "no baseline 'magic'"),
        (["-m", "nonsense"], "there is no model 'nonsense'"),
        (["--estimates", "nowhere"], "nowhere is not a folder of estimates"),
        (["--tracks", "Zoe"], "no track is called 'Zoe'"),
        (["--tracks", "0"], "--tracks 0: expected a number from 1, or parts of names"),
    ],
)
def test_bad_options_are_refused_with_a_message(
    root: Path, tmp_path: Path, tiny_model: Path, options: list[str], message: str
) -> None:
    model = [] if "-m" in options else ["-m", str(tiny_model)]
    result = call("eval", "--musdb-root", root, "-o", tmp_path, *model, *options)
    assert result.exit_code == 1
    assert message in result.stderr


def test_a_comparison_names_a_missing_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    result = call("compare", tmp_path / "a", "b", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert f"there is no folder b or {tmp_path / 'out' / 'b'}: expected" in result.stderr


def test_a_comparison_of_one_track_is_strict_json(root: Path, tmp_path: Path) -> None:
    options = ("--baselines", "mixture,mixture-4", "--tracks", "1", "--no-figures")
    estimates = ("--estimates", root / "test")
    assert call("eval", "--musdb-root", root, "-o", tmp_path, *estimates, *options).exit_code == 0
    result = call("compare", "mixture", "mixture-4", "-o", tmp_path, "--json")
    assert result.exit_code == 0, result.output

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    stems = json.loads(result.stdout, parse_constant=refuse)["stems"]
    assert len(stems) == 4
    for each in stems:
        assert each["gain"]["value"] is not None
        assert (each["gain"]["low"], each["gain"]["high"]) == (None, None)
        assert each["verdict"] == "undecided"


def test_an_unknown_metric_to_compare_is_refused(tmp_path: Path) -> None:
    result = call("compare", tmp_path, tmp_path, "--metric", "uSDR")
    assert result.exit_code == 1
    assert "--metric must be one of" in result.stderr


def test_a_report_that_cannot_be_written_keeps_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    for name in ("to_markdown", "to_csv", "tracks_csv", "to_json"):
        monkeypatch.setattr(evaluation.reports, name, lambda _: 50_000 * "x")
    (tmp_path / "report.md").write_text("before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))  # as a disk with little room
    try:
        with pytest.raises(UnetsepError, match="cannot be written"):
            evaluation._write(Mock(), tmp_path, figures=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
    assert (tmp_path / "report.md").read_text() == "before"
