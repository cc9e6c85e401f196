"""The tables and pictures of docs/research show the numbers beside them."""

from __future__ import annotations

import json

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
