"""An evaluation says at its start what it does, and soon how long it will take."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from rich.console import Console

from tests.commands import call
from tests.signals import RATE, noise
from unetsep.cli import evaluate
from unetsep.train.evaluation.evaluate import Outcome


def outcomes(track: str, *, reused: bool = False) -> list[Outcome]:
    return [Outcome(method, track, reused=reused) for method in ("a", "b")]


@pytest.mark.parametrize(
    ("tracks", "jobs", "expected"),
    [
        (
            11,
            1,
            ["2 of 11 tracks scored, about 90 s left", "8 of 11 tracks scored, about 30 s left"],
        ),
        (
            50,
            4,
            ["2 of 50 tracks scored, about 2 min left", "8 of 50 tracks scored, about 6 min left"],
        ),
    ],
)
def test_a_log_tells_the_time_left_after_the_first_computed_track_and_each_minute(
    monkeypatch: pytest.MonkeyPatch, tracks: int, jobs: int, expected: list[str]
) -> None:
    seconds = iter([0.0, *(4.0 + 10 * number for number in range(9))])
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    log = io.StringIO()
    with evaluate.progress(Console(file=log), tracks, 2, jobs) as advance:
        for number in range(9):
            for outcome in outcomes(str(number), reused=number == 0):
                advance(outcome)
    assert log.getvalue().splitlines() == expected


def test_settings_are_shown_at_the_start(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        folder = tmp_path / "songs" / "test" / name[0]
        folder.mkdir(parents=True)
        for stem, seed in (("vocals", number), ("drums", number + 10)):
            soundfile.write(folder / f"{stem}.wav", noise(seed, RATE).T / 8, RATE)
    estimates = tmp_path / "songs" / "test"
    command = ["eval", "--songs", str(tmp_path / "songs"), "--estimates", str(estimates)]
    command += ["--baselines", "oracle-1", "--no-figures", "-o", str(tmp_path / "out")]
    result = call(*command, "--duration", "1", "--measures", "si-sdr")
    assert result.exit_code == 0, result.output
    shown = result.stderr.splitlines()
    assert shown[0].endswith(
        "on 4 test songs of songs (1 s of each): sdr, si-sdr; stems as each method gives them; "
        "1 process, device auto"
    )
    assert shown[0].startswith("Scoring test, ")
    assert shown[1].startswith("1 of 4 tracks scored, about ")
