"""``make demo``, with the package that the tests run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import soundfile

DEMO = Path(__file__).parents[2] / "recipes" / "demo.py"


def test_the_demo_writes_stems_and_prints_where_they_are_with_their_scores(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(DEMO), "--output", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = re.findall(r"^  (\w+) +(-?[\d.]+) dB   (.+)$", run.stdout, flags=re.MULTILINE)
    assert [name for name, _, _ in rows] == ["vocals", "drums", "bass", "other"]
    for _, score, path in rows:
        # A mixture is worth about 1 dB here; the song is only shown, so the bar is low.
        assert float(score) > 0
        assert soundfile.info(path).duration > 6
