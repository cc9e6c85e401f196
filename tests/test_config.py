from __future__ import annotations

import json
from typing import Any

import pytest

from unetsep.config import ModelConfig


def test_config_survives_json() -> None:
    config = ModelConfig(stems=("vocals",), filters=(8, 16), mask="sigmoid")
    assert ModelConfig.from_dict(json.loads(config.to_json())) == config


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown keys .*surprise"):
        ModelConfig.from_dict({"surprise": 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stems", ()),
        ("stems", ("a", "a")),
        ("sample_rate", 0),
        ("channels", 3),
        ("n_fft", 2048),
        ("hop_length", 1000),
        ("filters", ()),
        ("bins", 1000),
        ("bins", 4096),
        ("kernel_size", 4),
        ("mask", "hard"),
        ("log_floor", 0.0),
        ("segment_frames", 500),
        ("overlap", 0.9),
    ],
)
def test_impossible_values_name_the_field(field: str, value: Any) -> None:
    # A window that does not fit the hop is reported at the hop.
    name = "hop_length" if field == "n_fft" else field
    with pytest.raises(ValueError, match=name):
        ModelConfig(**{field: value})
