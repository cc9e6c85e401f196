"""Models and files that are not there: a sentence of the recipe or benchmark, and no traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.commands import run_script
from tests.train.synthetic import write_musdb
from unetsep.config import STEMS

ROOT = Path(__file__).parents[2]


def refusal(script: str, *words: str | Path) -> str:
    """The last line of what a script says that ends with an error, given it and its words."""
    ended = run_script(ROOT / script, *words)
    assert ended.code in (1, 2)
    return ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(("script", "option"), [("demo", "--model"), ("sounds", "--models")])
def test_a_recipe_names_the_model_that_is_not_there(
    tmp_path: Path, script: str, option: str
) -> None:
    said = refusal(f"recipes/{script}.py", "--output", tmp_path / "out", option, "no-such")
    assert "no-such" in said
    (tmp_path / "file").touch()
    said = refusal(f"recipes/{script}.py", "--output", tmp_path / "file" / "out")
    assert said.startswith(f"cannot write to {tmp_path / 'file'}")


@pytest.mark.parametrize(
    ("script", "option"),
    [
        ("wiener", "--models"),
        ("segments", "--model"),
        ("high_band", "--model"),
        ("unknown_songs", "--models"),
    ],
)
def test_a_benchmark_names_the_model_or_the_songs_that_are_not_there(
    tmp_path: Path, script: str, option: str
) -> None:
    path, nowhere = f"benchmarks/quality/{script}.py", tmp_path / "nowhere"
    assert str(nowhere) in refusal(path, "--musdb-root", nowhere)
    write_musdb(tmp_path / "musdb", ("Leaf - Summerghost",))
    said = refusal(path, "--musdb-root", tmp_path / "musdb", option, "no-such")
    assert "no-such" in said
    write_musdb(tmp_path / "other", ("A - B",))
    refusal(path, "--musdb-root", tmp_path / "other")  # without songs for validation


def test_the_songs_of_the_metrics_are_a_folder_of_all_stems(
    tmp_path: Path,
) -> None:
    for stem in STEMS[:-1]:
        soundfile.write(tmp_path / f"{stem}.wav", np.zeros(100), 44_100)
    script = "benchmarks/metrics.py"
    assert f"has 0 files {STEMS[-1]}.*" in refusal(script, tmp_path)
    (tmp_path / f"{STEMS[0]}.wav").write_text("no audio")
    assert f"{STEMS[0]}.wav" in refusal(script, tmp_path)
    assert "is a file" in refusal(script, tmp_path / f"{STEMS[0]}.wav")
