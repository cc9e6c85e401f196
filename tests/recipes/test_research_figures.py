"""The tables and pictures of docs/research show the numbers beside them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

research_figures = pytest.importorskip("research_figures", reason="needs matplotlib")
PAGE = research_figures.PAGE
MEASURED = json.loads((research_figures.RESEARCH / "evaluation/measures.json").read_text("utf-8"))


def test_the_tables_of_measures_are_those_of_the_data() -> None:
    text = PAGE.read_text("utf-8")
    for name, lines in research_figures.tables(MEASURED).items():
        assert len(lines) > 15
        part = text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"<!-- {name}: end -->")[0]
        assert part == "\n".join(lines) + "\n", "run python recipes/research_figures.py"


def test_what_is_kept_of_a_report_is_rounded_and_compared_song_by_song() -> None:
    methods = [
        {
            "name": name,
            "tracks": {
                song: {"SDR": dict.fromkeys(("vocals", "drums", "bass", "other"), level + at / 3)}
                for at, song in enumerate("abc")
            },
        }
        for level, name in enumerate(research_figures.LOSSES)
    ]
    methods[1]["tracks"]["a"]["SDR"]["bass"] = None
    kept = research_figures.measures_of({"methods": methods, "published": ["no"], "notes": []})
    assert "published" not in kept
    assert kept["methods"][0]["tracks"]["b"]["SDR"]["bass"] == 0.33333
    found = {loss: gains["SDR"] for loss, gains in kept["minus"].items()}
    assert [gain["value"] for gain in found.values()] == [1, 2, 3, 4, 5, 6]
    assert [gain["tracks"] for gain in found.values()] == [2, 3, 3, 3, 3, 3]


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ({"methods": [], "data": "50 test tracks of musdb", "measures": []}, "lacks mse, "),
        ({"methods": None, "data": "14 valid tracks of musdb", "measures": []}, "14 valid tracks"),
        ({"methods": None, "data": "50 test tracks of musdb", "measures": []}, "--measures all"),
    ],
)
def test_a_report_that_lacks_something_replaces_nothing(
    report: dict[str, Any],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = (*research_figures.LOSSES, *research_figures.BESIDE)
    if report["methods"] is None:
        report = report | {"methods": [{"name": name} for name in names]}
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "report.json").write_text(json.dumps(report))
    monkeypatch.setattr(research_figures, "RESEARCH", tmp_path)
    words = ["research_figures.py", "--report", str(tmp_path / "report.json")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        research_figures.main()
    assert told in capsys.readouterr().err
    assert not list((tmp_path / "evaluation").iterdir())
