from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("cluster")
        sys.modules.pop("cluster")


def test_every_song_of_a_simulation_is_separated_failed_or_lost_once(cluster):
    for batch in cluster.BATCHES:
        out = cluster.simulate(replace(batch, songs=3000, hours_between_failures=0.5))
        assert out.separated + out.failed + out.lost == 3000
        assert out.separated > 2900
        assert out.repeated > 0 or batch.slots == 1


def test_without_failures_time_is_work_by_slots(cluster):
    batch = cluster.Batch(
        "sure", songs=4000, spread=0.0, machines=4, slots=5, rate=0.1, bad_share=0.0,
        hours_between_failures=1e9,
    )  # fmt: skip
    out = cluster.simulate(batch)
    assert out.hours == pytest.approx(4000 * 220 * 0.1 / 20 / 3600)
    assert out.dollars == pytest.approx(4 * out.hours * batch.price)
    assert (out.separated, out.repeated, out.wasted_share) == (4000, 0, 0)


def test_failures_waste_time_and_the_same_seed_gives_the_same(cluster):
    batch = cluster.Batch("often", songs=3000, machines=2, slots=4, hours_between_failures=1.0)
    out = cluster.simulate(batch)
    assert out == cluster.simulate(batch)
    assert out.hours > cluster.simulate(replace(batch, hours_between_failures=1e6)).hours
    assert 0 < out.wasted_share < 0.5


def test_the_page_shows_what_was_simulated_from_what_was_measured(cluster):
    page = (ROOT / "docs/how-to/scale.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "docs/research/performance/cluster.json").read_text(encoding="utf-8"))
    results = [(cluster.Batch(**r["batch"]), cluster.Outcome(**r["outcome"])) for r in rows]
    assert [batch for batch, _ in results] == list(cluster.BATCHES)
    assert cluster.table(results) in page
    measured = (ROOT / "docs/research/performance.md").read_text(encoding="utf-8")
    assert "14.3 ms for each second of the song" in measured
    assert "35.1 ms for each second" in measured
    assert "| fp32 | 5188 | 812 | 640 |" in measured
    assert (cluster.CPU_RATE, cluster.GPU_RATE) == (0.0143, 1 / 640)
    assert pytest.approx(35.1 / 14.3, abs=0.05) == cluster.DEFAULT_FACTOR
