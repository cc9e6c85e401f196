"""Settings of a run."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from tests.train.synthetic import MODEL, tiny
from unetsep.train.config import TrainConfig


def test_settings_out_of_range_are_named() -> None:
    for field, value in (("batch_size", 0), ("ema_decay", 1.0), ("clip_frames", 33)):
        with pytest.raises(ValueError, match=field):
            tiny(**{field: value})
    with pytest.raises(ValueError, match="no target 'piano': expected vocals"):
        tiny(model=dataclasses.replace(MODEL, stems=("piano",)))
    config = tiny(losses=("l1", "mse"), gain_db=3.0)
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="unknown keys"):
        TrainConfig.from_json('{"flavour": 1}')


def test_extra_shares_follow_the_stems_unless_they_are_set() -> None:
    model = dataclasses.replace(TrainConfig().model, stems=("bass", "piano"))
    config = dataclasses.replace(TrainConfig(), stems=model.stems, model=model)
    assert config.extra_shares == {"bass": 0.15, "piano": 0.4}
    # A saved run has the numbers, whatever a later version's default is.
    assert json.loads(config.to_json())["extra_share"] == config.extra_shares
    assert TrainConfig.from_json(config.to_json()) == config
    config = dataclasses.replace(config, extra_share={"piano": 1.0})
    assert config.extra_shares == {"piano": 1.0}
    assert TrainConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "field",
    ["learning_rate", "weight_decay", "muon_size", "gain_db", "coherent_gain_db", "own_share"],
)
def test_infinite_and_negative_numbers_are_refused(field: str) -> None:
    for value in (math.inf, math.nan, -math.inf, -1.0):
        with pytest.raises(ValueError, match=f"{field}={value!r} is not usable"):
            tiny(**{field: value})


def test_gains_and_seeds_have_bounds() -> None:
    for field, value in (("gain_db", 60.5), ("coherent_gain_db", 1000.0), ("seed", 2**63)):
        with pytest.raises(ValueError, match=f"{field}={value} is not usable"):
            tiny(**{field: value})
    config = tiny(gain_db=60.0, coherent_gain_db=60.0, seed=2**63 - 1, max_minutes=math.inf)
    assert TrainConfig.from_json(config.to_json()) == config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
