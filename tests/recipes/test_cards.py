"""What the pages say about the models is what the manifest says."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shlex
import statistics
import sys
from pathlib import Path

import pytest

from unetsep.cli import CONTEXT
from unetsep.cli.models import ModelChoice
from unetsep.cli.options.evaluate import evaluate
from unetsep.weights.manifest import read_manifest

ROOT = Path(__file__).parents[2]


def test_each_checkpoint_has_a_page_and_rows_as_the_manifest_says() -> None:
    cards = importlib.import_module("cards")
    manifest = read_manifest(ROOT / "weights_manifest.json")
    pages = cards.pages(manifest)
    assert len(pages) == len(manifest.checkpoints) + 3
    assert len(manifest.checkpoints) >= 8
    for path, text in pages.items():
        assert path.read_text("utf-8") == text, f"{path}: run python recipes/cards.py"
    written = {path.stem for path in cards.FOLDER.glob("*.md")}
    assert written == set(manifest.checkpoints)


def test_each_page_says_who_should_take_the_model_its_licence_and_how_to_hear_it() -> None:
    cards = importlib.import_module("cards")
    manifest = read_manifest(ROOT / "weights_manifest.json")
    for entry in manifest.checkpoints.values():
        page = cards.page(entry, manifest)
        assert page.count("**Take it** ") == 1
        assert f"| licence of the weights | {entry.licence} |" in page
        assert f"unetsep separate song.wav --model {entry.name} --player" in page
        for score in entry.scores["sdr"].values():
            assert f"| {score:.2f} |" in page


def test_a_model_that_nobody_is_told_to_take_is_an_error() -> None:
    cards = importlib.import_module("cards")
    manifest = read_manifest(ROOT / "weights_manifest.json")
    entry = dataclasses.replace(manifest.checkpoints["fast"], name="new")
    with pytest.raises(SystemExit, match="does not say who should take new"):
        cards.pages(manifest.including(entry))


def test_the_comparison_of_losses_has_the_scores_of_the_manifest() -> None:
    page = (ROOT / "docs/research/losses.md").read_text("utf-8")
    manifest = read_manifest(ROOT / "weights_manifest.json")
    compared = [e for e in manifest.checkpoints.values() if f"\n| `{e.name}` | " in page]
    assert len(compared) == 7
    for entry in compared:
        sdr = entry.scores["sdr"]
        values = [f"{sdr[stem]:.2f}" for stem in ("vocals", "drums", "bass", "other")]
        low, high = entry.scores["interval95"]["mean"]
        mean = f"{entry.scores['mean']:.2f} [{low:.2f}, {high:.2f}]"
        assert f"| `{entry.name}` | {' | '.join(values)} | {mean} |" in page


def test_validation_scores_are_labelled_as_they_were_made() -> None:
    cards = importlib.import_module("cards")
    manifest = read_manifest(ROOT / "weights_manifest.json")
    over = {"mean": statistics.mean, "median": statistics.median}
    folder = ROOT / "docs/research/evaluation"
    by_song = json.loads((folder / "validation.json").read_text("utf-8"))["by_song"]
    variants = json.loads((folder / "onnx-variants.json").read_text("utf-8"))
    by_song[variants["model"]] = variants["variants"]["torch"]["by_song"]
    assert sorted(by_song) == ["fast", "guided", "open"]
    for name, stems in by_song.items():
        training = manifest.checkpoints[name].training
        assert sorted(stems) == ["bass", "drums", "other", "vocals"]
        for stem, songs in stems.items():
            value = over[training["valid_over_songs"]](songs)
            assert training["valid_sdr"][stem] == pytest.approx(value, abs=0.006), (name, stem)
    scored = [e for e in manifest.checkpoints.values() if "valid_sdr" in e.training]
    assert len(scored) >= 10
    for entry in scored:
        word = entry.training["valid_over_songs"]
        assert f"{word} SDR" in entry.training["selected_by"]
        page = cards.page(entry, manifest)
        assert f"| validation, {word} of songs |" in page
        assert ("means of songs instead" in page) == (word == "mean")


def test_the_mean_of_two_stems_stands_in_no_column_of_means_of_four() -> None:
    cards = importlib.import_module("cards")
    guide = read_manifest(ROOT / "weights_manifest.json").checkpoints["spleeter-vocals"]
    score = {"value": 9.0, "low": 8.0, "high": 10.0}
    sdr = dict.fromkeys(("vocals", "accompaniment", "mean"), score)
    method = {"name": guide.name, "kind": "model", "scores": {"SDR": sdr}}
    report = {"methods": [method], "definition": "SDR", "data": "songs"}
    scores = cards.with_scores(guide, report).scores
    assert scores["sdr"] == {"vocals": 9.0, "accompaniment": 9.0}
    assert "mean" not in scores
    assert scores["interval95"].keys() == scores["sdr"].keys()


def test_the_command_beside_the_table_of_the_readme_scores_each_of_its_models() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    (words,) = re.findall(r"\bby `unetsep eval (.+?)`", readme)
    # By CONTEXT: click keeps the first help option that a command is asked for.
    values = evaluate.make_context("eval", shlex.split(words), **CONTEXT).params
    choice = ModelChoice(tuple(values["models"]), all_losses=values["all_losses"])
    rows = re.findall(r"^\| `([\w-]+)`", readme.partition("## Models")[2], re.MULTILINE)
    assert len(rows) == 11
    assert {name for (name,) in choice.groups()} == set(rows)


def test_a_report_of_other_songs_changes_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cards = importlib.import_module("cards")
    before = cards.MANIFEST.read_bytes()
    for data, metrics, told in (
        ("14 valid tracks of musdb", "sdr", "14 valid tracks of musdb: the pages say 50 test"),
        ("50 test tracks of x", "bsseval", "has bsseval: eval with --metrics sdr"),
    ):
        report = {"data": data, "metrics": metrics, "definition": "", "methods": []}
        (tmp_path / "report.json").write_text(json.dumps(report))
        monkeypatch.setattr(sys, "argv", ["cards.py", str(tmp_path / "report.json")])
        with pytest.raises(SystemExit):
            cards.main()
        assert told in capsys.readouterr().err
    assert cards.MANIFEST.read_bytes() == before
