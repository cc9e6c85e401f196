"""Learning rates, and when a run ends."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from tests.train.runs import At, run
from tests.train.synthetic import tiny
from unetsep.train.logs import read_log
from unetsep.train.schedule import Clock, Schedule


def test_a_limit_in_minutes_ends_on_time_with_the_rate_annealed(tmp_path: Path) -> None:
    limit = 5.0
    begun: list[float] = []
    config = tiny(max_steps=10**6, max_minutes=limit / 60, valid_every=10**5, warmup_steps=0)
    lines = run(tmp_path, config, callbacks=[At(0, lambda _: begun.append(time.monotonic()))])
    spent = read_log(tmp_path / "log.jsonl")[-1]["minutes"] * 60
    assert 0.5 * limit < spent < 1.2 * limit
    assert "valid/l1/mean" in lines[-1]
    rates = [line["lr/l1"] for line in lines if "lr/l1" in line]
    assert rates[-1] < 0.03 * rates[0]
    assert rates == sorted(rates, reverse=True)


def test_a_run_at_its_limit_of_minutes_is_not_trained_further(tmp_path: Path) -> None:
    config = tiny(max_steps=10**6, max_minutes=0.02, valid_every=10**5)
    lines = run(tmp_path, config)
    best = (tmp_path / "best-l1.safetensors").read_bytes()
    assert run(tmp_path, config, resume=True) == lines
    assert (tmp_path / "best-l1.safetensors").read_bytes() == best
    steps = lines[-1]["step"] + 1
    longer = dataclasses.replace(config, max_minutes=0.0, max_steps=steps)
    assert run(tmp_path, longer, resume=True)[-1]["step"] == steps


def test_the_clock_counts_steps_minutes_and_earlier_parts() -> None:
    now = [100.0]
    clock = Clock(tiny(max_steps=10, max_minutes=1.0), lambda: now[0])
    clock.earlier_seconds, clock.validation = 20.0, 10.0
    assert clock.progress(1) == pytest.approx(20 / 50)
    now[0] += 15
    assert clock.progress(1) == pytest.approx(35 / 50)
    assert clock.progress(9) == pytest.approx(0.9)
    assert Clock(tiny(max_steps=10), lambda: now[0]).progress(20) == 1.0


def test_the_cosine_falls_from_the_whole_rate_through_its_half_to_zero() -> None:
    config = tiny(schedule="cosine", learning_rate=0.2, warmup_steps=4)
    schedule = Schedule(config, ["l1"])
    rates = [schedule.rate("l1", 4, progress) for progress in (0.0, 1 / 3, 0.5, 1.0)]
    assert rates == pytest.approx([0.2, 0.15, 0.1, 0.0])
    warming_up = [schedule.rate("l1", step, 0.0) for step in range(5)]
    assert warming_up == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])


def test_plateau_and_early_stopping_count_validations_without_progress() -> None:
    config = tiny(schedule="plateau", plateau_patience=2, early_stop=4, learning_rate=1.0)
    schedule = Schedule(config, ["l1"])
    assert [schedule.record("l1", s) for s in (1.0, 2.0, 1.5, float("nan"))] == [True, True, 0, 0]
    assert schedule.rate("l1", 100, 0.5) == pytest.approx(config.plateau_factor)
    assert schedule.rate("l1", 100, 1.0) == 0.0
    assert schedule.rate("l1", 0, 0.0) == pytest.approx(0.5 * config.plateau_factor)
    assert not schedule.exhausted()
    other = Schedule(config, ["l1"])
    other.load_state_dict(schedule.state_dict())
    for _ in range(2):
        other.record("l1", 0.0)
    assert other.exhausted()
