"""An evaluation says at its start what it does, and soon how long it will take."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from tests.signals import RATE, noise
from unetsep.cli import main
from unetsep.cli.evaluate import Expectation
from unetsep.train.evaluation.evaluate import Outcome


def outcomes(track: str, *, reused: bool = False) -> list[Outcome]:
    return [Outcome(method, track, reused=reused) for method in ("a", "b")]


@pytest.mark.parametrize(
    ("tracks", "jobs", "expected"),
    [(11, 1, "other 9 tracks: about 90 s"), (50, 4, "other 48 tracks: about 2 min")],
)
def test_the_time_left_is_reported_once_after_the_first_computed_track(
    tracks: int, jobs: int, expected: str
) -> None:
    said: list[str] = []
    now = iter([0.0, 4.0, 14.0])
    expect = Expectation(tracks, 2, jobs, said.append, lambda: next(now))
    for outcome in (*outcomes("one", reused=True), *outcomes("two"), *outcomes("three")):
        expect(outcome)
    assert len(said) == 1
    assert said[0].endswith(expected)


def test_settings_are_shown_at_the_start(tmp_path: Path) -> None:
    for number, name in enumerate("abcd"):
        folder = tmp_path / "songs" / "test" / name[0]
        folder.mkdir(parents=True)
        for stem, seed in (("vocals", number), ("drums", number + 10)):
            soundfile.write(folder / f"{stem}.wav", noise(seed, RATE).T / 8, RATE)
    estimates = tmp_path / "songs" / "test"
    command = ["eval", "--songs", str(tmp_path / "songs"), "--estimates", str(estimates)]
    command += ["--baselines", "oracle-1", "--no-figures", "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*command, "--duration", "1", "--measures", "si-sdr"])
    assert result.exit_code == 0, result.output
    shown = result.stderr.splitlines()
    assert shown[0].endswith(
        "on 4 test songs of songs (1 s of each): sdr, si-sdr; stems as each method gives them; "
        "1 process, device auto"
    )
    assert shown[0].startswith("Scoring test, ")
    assert shown[1].startswith("Expected for the other 3 tracks: about ")
