"""The package as a guest: habits of 20 hosts, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.stress.guest import HABITS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tiny_model: Path) -> str:
    if not hasattr(os, "fork"):
        pytest.skip("needs os.fork")
    command = [sys.executable, "benchmarks/stress/guest.py", "--model", str(tiny_model)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_there_are_as_many_habits_as_promised() -> None:
    assert len(HABITS) >= 20


@pytest.mark.parametrize("habit", HABITS)
def test_a_host_gets_the_same_stems_and_keeps_what_is_its_own(results: str, habit: str) -> None:
    words = next(line.split() for line in results.splitlines() if line.startswith(f"{habit} "))
    assert words[len(habit.split())] == "ok", results
