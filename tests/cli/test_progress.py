"""The progress bars of ``separate``."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from unetsep.cli import progress
from unetsep.cli.progress import Bars
from unetsep.inputs import Input
from unetsep.library.songs import Job


def shown(names: list[str], width: int) -> str:
    """The bars of some songs that have begun, on a terminal of some columns."""
    jobs = [Job(Input(Path(name), name), [], False) for name in names]
    bars = Bars(Console(file=io.StringIO()), jobs, lambda _: None)
    for job in jobs:
        advance = bars.begin(job)
        advance(90.0, 180.0)
    screen = io.StringIO()
    Console(file=screen, width=width).print(bars)
    return screen.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_long_song_gets_lines_where_no_bars_can_be_drawn(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    seconds = itertools.count(0, 10)
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr(progress, "time", clock)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, _environ={"TERM": "dumb"})
    job = Job(Input(Path("a"), "a"), [], False)
    with Bars(console, [job], lambda _: None) as bars:
        advance = bars.begin(job)
        for part in range(1, 8):
            advance(part * 30.0, None if part == 3 else 240.0)
    assert screen.getvalue().splitlines() == ["a: 90 s", "a: 75%"]


@pytest.mark.parametrize("name", ["Ode to joy.wav", "夜に駆ける.wav", "Mu\u0308ller.wav"])
def test_a_name_of_any_letters_is_shown_whole_where_there_is_room(name: str) -> None:
    assert name in shown([name], 80)
    assert "…" in shown([20 * name], 80)


def test_bars_fit_into_narrow_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_ESTIMATE", 0.0)
    lines = shown(["a", "b" * 60], 30).splitlines()
    assert lines[0].startswith("0 of 2, ")
    assert lines[0].endswith("…")
    assert len(lines) == 3
    assert all(len(line) <= 30 for line in lines)
