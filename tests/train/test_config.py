"""Settings of a run."""

from __future__ import annotations

import dataclasses

import pytest

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
