"""The progress bar of a run says how fast, how well and how long."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from tests.train.synthetic import songs, tiny
from unetsep.cli import training_progress
from unetsep.cli.training_progress import ProgressBar, decoding
from unetsep.train.fit import fit
from unetsep.train.machine import Machine
from unetsep.train.schedule import Clock


def test_a_terminal_shows_speed_loss_best_sdr_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_progress, "UPDATE_EVERY", 0.0)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, highlight=False)
    machine = Machine("cpu", workers=0)
    bar = ProgressBar(console)
    monkeypatch.setattr(bar.bar.live, "auto_refresh", False)
    monkeypatch.setattr(bar.bar, "update", lambda task, **fields: shown.append(fields))
    shown: list[dict[str, object]] = []
    fit(tiny(), *songs(), tmp_path / "run", machine=machine, callbacks=[bar])
    told = [str(fields["description"]) for fields in shown]
    assert len(told) == 6
    assert re.fullmatch(r"step 1, \d+\.\d clips/s, loss \d+\.\d+, \d+ s left", told[0])
    assert re.fullmatch(r"step 6, .* l1 -?\d+\.\d\d dB, 0 s left", told[-1])
    assert shown[-1]["completed"] == 1.0
    assert screen.getvalue().count("SDR in dB vocals") == 2


def test_without_a_terminal_there_are_only_lines_of_scores(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=160, highlight=False)
    with decoding(console) as report:
        report(1, 2)
    machine = Machine("cpu", workers=0)
    fit(tiny(), *songs(), tmp_path / "run", machine=machine, callbacks=[ProgressBar(console)])
    lines = screen.getvalue().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["step 3 l1", "step 6 l1"]


@pytest.mark.parametrize(
    ("minutes", "earlier_hours", "told"),
    [
        (0.0, 0, "the 4 steps take about 10 h,"),
        (90.0, 0, "--max-minutes ends the run after 1 h 30 min"),
        (900.0, 3, "the 4 steps take about 10 h,"),
        (900.0, 6, "--max-minutes ends the run after 15 h"),  # 9 h are left
    ],
)
def test_the_length_of_a_run_is_reported_once_after_its_first_steps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    minutes: float,
    earlier_hours: int,
    told: str,
) -> None:
    monkeypatch.setattr(Clock, "seconds", lambda _: 3600 * earlier_hours)
    monkeypatch.setattr(training_progress, "FIRST_MEASURED", 1)
    monkeypatch.setattr(training_progress, "LAST_MEASURED", 3)
    # A clock that moves by ten hours each time it is looked at, once for each step.
    hours = itertools.count(0, 10)
    clock = SimpleNamespace(monotonic=lambda: 3600.0 * next(hours))
    monkeypatch.setattr(training_progress, "time", clock)
    screen = io.StringIO()
    bar = ProgressBar(Console(file=screen, width=300, highlight=False))
    fit(
        tiny(max_steps=4, valid_every=4, max_minutes=minutes),
        *songs(),
        tmp_path / "run",
        machine=Machine("cpu", workers=0),
        callbacks=[bar],
    )
    (line,) = [each for each in screen.getvalue().splitlines() if "--max-minutes" in each]
    assert line.startswith(f"0.0 clips/s: {told}")
