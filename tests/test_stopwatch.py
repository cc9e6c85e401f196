from __future__ import annotations

import time

import pytest

from unetsep.stopwatch import LONGEST_LOOK, Stopwatch


def test_a_stopwatch_does_not_count_sleep(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = Stopwatch()
    for _ in range(10):
        now += 1.5
        watch.look()
    assert watch.look() == pytest.approx(15.0)
    now += 3600.0  # stopped, and continued
    assert watch.look() == pytest.approx(15.0 + LONGEST_LOOK)
    assert watch.look() == pytest.approx(15.0 + LONGEST_LOOK)
