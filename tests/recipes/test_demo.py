"""``make demo``, with the package that the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import soundfile

from tests.commands import run_script

DEMO = Path(__file__).parents[2] / "recipes" / "demo.py"


def test_the_demo_writes_stems_and_prints_where_they_are_with_their_scores(tmp_path: Path) -> None:
    done = run_script(DEMO, "--output", tmp_path)
    assert done.code == 0, done.stderr
    rows = re.findall(r"^  (\w+) +(-?[\d.]+) dB   (.+)$", done.stdout, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == ["vocals", "drums", "bass", "other"]
    for _, score, path in rows:
        # A mixture is worth about 1 dB here; the song is only shown, so the bar is low.
        assert float(score) > 0
        assert soundfile.info(path).duration > 6
