from __future__ import annotations

import json
import math
from typing import Any

import pytest

from unetsep.config import ModelConfig, common_config
from unetsep.train.config import TrainConfig


def test_config_is_restored_from_json() -> None:
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
        ("segment_frames", 64.0),
        ("filters", (16, 32.0)),
        ("wiener", 1.5),
        ("wiener", True),
        ("stems", "vocals"),
        ("stems", ("vocals", 1)),
        ("filters", 16),
        ("log_floor", "1"),
        ("log_floor", 1e-300),
        ("log_floor", 1e300),
        ("norm_epsilon", 1e-300),
        ("mask_epsilon", 1e-300),
        pytest.param("log_floor", 10**400, id="beyond floats"),
        ("overlap", True),
        ("norm_epsilon", math.inf),
        ("mask_exponent", math.inf),
        ("mask_exponent", math.nan),
        ("gate_db", "-20"),
        ("guide", None),
        ("pad_segments", "no"),
    ],
)
def test_impossible_values_name_the_field(field: str, value: Any) -> None:
    # A window that does not fit the hop is reported at the hop.
    name = "hop_length" if field == "n_fft" else field
    with pytest.raises(ValueError, match=name):
        ModelConfig(**{field: value})


def test_invalid_values_are_refused_with_what_is_expected() -> None:
    with pytest.raises(ValueError, match="expected 1 to 64 different names of letters, digits"):
        ModelConfig(stems=("lead guitar", "band"))
    with pytest.raises(ValueError, match="not usable: expected a network with a guide"):
        ModelConfig(low_bins=128)
    with pytest.raises(ValueError, match="not usable: expected two or more different names"):
        TrainConfig(losses=("l1",), stems=("voice",), model=ModelConfig(stems=("voice",)))


def test_models_are_averaged_with_gate_and_filter_in_any_order() -> None:
    plain, gated = ModelConfig(), ModelConfig(gate_db=-20.0, wiener=1)
    for configs in ([plain, gated], [gated, plain]):
        common = common_config(configs, "plain+gated")
        assert (common.gate_db, common.wiener) == (-20.0, 1)
    # The gate makes masks sum to one: not if they did not before.
    loose = ModelConfig(mask="sigmoid", mask_exponent=0.0)
    for configs in ([loose, gated], [gated, loose]):
        assert common_config(configs, "loose+gated").gate_db is None
