"""Networks by name."""

from __future__ import annotations

import pytest
import torch

from unetsep.config import ModelConfig
from unetsep.network.build import build
from unetsep.network.guided import check_guide
from unetsep.network.presets import NETWORKS, preset_config, spleeter_config

COUNTS = {
    "small": 1_973_480,
    "mixing": 2_169_912,
    "large": 5_116_648,
    "wide": 9_827_816,
    # Of each of Spleeter's networks TensorFlow counts 1024 more: it normalises the deepest
    # level's output too, which is unused.
    "spleeter": 4 * 9_822_725,
    "spleeter-relu": 4 * 9_822_725,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_their_counts_and_shapes(name: str) -> None:
    model = NETWORKS[name]
    with torch.device("meta"):
        network = build(model)
        masks = network(torch.zeros(1, model.channels, 1024, 64))
    assert sum(p.numel() for p in network.parameters()) == COUNTS.get(name)
    assert masks.shape == (1, 4, 2, 1024, 64)


def test_targets_choose_the_mask() -> None:
    assert preset_config("small") == preset_config("small", ["other", "bass", "drums", "vocals"])
    assert preset_config("wide", ["vocals"]).mask == "sigmoid"
    with torch.device("meta"):
        network = build(preset_config("wide", ["vocals"]))
    assert network(torch.zeros(1, 2, 1024, 64, device="meta")).shape == (1, 1, 2, 1024, 64)
    with pytest.raises(ValueError, match="no network 'huge': expected small, mixing, large"):
        preset_config("huge")


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_of_some_targets_do_not_sum_to_one(name: str) -> None:
    model = preset_config(name, ["vocals", "bass"])
    assert model.stems == ("vocals", "bass")
    assert model.ratio_exponent == 0
    if name.startswith("spleeter"):
        with torch.device("meta"):
            network = build(model)
        assert sum(p.numel() for p in network.parameters()) == 2 * 9_822_725


@pytest.mark.parametrize("name", ["spleeter", "spleeter-relu"])
def test_spleeters_network_for_vocals_alone_can_be_a_guide(name: str) -> None:
    check_guide(ModelConfig().guided("a" * 64), preset_config(name, ["vocals"]))
    with pytest.raises(ValueError, match="a guide must be one network for vocals alone"):
        check_guide(ModelConfig().guided("a" * 64), preset_config("wide", ["vocals"]))


def test_the_spleeter_preset_is_what_the_importer_builds() -> None:
    assert NETWORKS["spleeter"] == spleeter_config(4, (16, 32, 64, 128, 256, 512))
    ours, other = (vars(NETWORKS[name]) for name in ("spleeter", "spleeter-relu"))
    assert [field for field, value in ours.items() if other[field] != value] == ["activation"]
