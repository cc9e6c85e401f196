from __future__ import annotations

import importlib
from operator import attrgetter

import pytest

from benchmarks.stages import STAGES

PLACES = [place for places in STAGES.values() for place in places]


def test_no_stage_is_without_a_place() -> None:
    assert all(STAGES.values())
    assert len(PLACES) >= 14


@pytest.mark.parametrize("place", PLACES)
def test_the_time_of_each_stage_is_that_of_functions_that_exist(place: str) -> None:
    module, _, name = place.partition(":")
    assert callable(attrgetter(name)(importlib.import_module(f"unetsep.{module}")))
