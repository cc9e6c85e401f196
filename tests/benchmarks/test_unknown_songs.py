"""``benchmarks/quality/unknown_songs.py``, which needs a MUSDB18."""

from __future__ import annotations

from pathlib import Path

from tests.commands import run_script
from tests.train.synthetic import write_musdb

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "quality" / "unknown_songs.py"


def test_songs_that_were_trained_on_are_told_from_unknown_ones(
    tmp_path: Path, tiny_model: Path
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "C - D", "Leaf - Summerghost"))
    folders = ["--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache"]
    models = ["default", tiny_model]  # of different bins and inputs
    done = run_script(SCRIPT, *folders, "--models", *models, "--clips", "1")
    assert done.code == 0, done.stderr
    for model, line in zip(models, done.stdout.splitlines()[-2:], strict=True):
        name, *scores = [cell.strip() for cell in line.strip("|").split("|")]
        assert name == str(model)
        assert len(scores) == 4
        assert all(-60 < float(score) < 60 for score in scores)


def test_a_model_without_the_four_stems_is_refused(tmp_path: Path) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "C - D", "Leaf - Summerghost"))
    folders = ["--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache"]
    done = run_script(SCRIPT, *folders, "--models", "spleeter-vocals", "--clips", "1")
    assert done.code == 2
    assert "spleeter-vocals has the stems vocals" in done.stderr
