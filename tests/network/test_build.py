from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import torch

from unetsep.config import CHOICES, ModelConfig
from unetsep.network.build import KINDS, build, for_inference
from unetsep.network.inference import InferenceUNet
from unetsep.network.per_stem import InferencePerStem, PerStem
from unetsep.network.unet import UNet

SMALL = ModelConfig(bins=64, filters=(4, 6), segment_frames=64, bin_units=4)
PER_STEM = dataclasses.replace(SMALL, networks="per_stem", mask="sigmoid")


def test_each_kind_of_network_has_its_classes() -> None:
    assert set(KINDS) == set(CHOICES["networks"])
    joint, bag = build(SMALL), build(PER_STEM)
    assert (type(joint), type(bag)) == (UNet, PerStem)
    twins = [for_inference(network) for network in (joint, bag)]
    assert [type(twin) for twin in twins] == [InferenceUNet, InferencePerStem]


def test_a_joint_network_needs_a_joint_config() -> None:
    with pytest.raises(AssertionError, match="build"):
        UNet(PER_STEM)


@torch.no_grad()
def test_the_networks_of_a_bag_are_independent() -> None:
    torch.manual_seed(0)
    bag = PerStem(PER_STEM).eval()
    assert {name.split(".")[1] for name in bag.state_dict()} == {"0", "1", "2", "3"}
    assert all(name.startswith("members.") for name in bag.state_dict())
    magnitude = torch.rand(1, 2, 64, 32)
    before = bag(magnitude)
    for index, network in enumerate(bag.networks):
        assert network.config.stems == (PER_STEM.stems[index],)
        assert torch.equal(network(magnitude)[:, 0], before[:, index])
    for parameter in bag.networks[2].parameters():
        parameter.zero_()
    changed = (bag(magnitude) != before).flatten(2).any(dim=2)
    assert changed.tolist() == [[False, False, True, False]]


def test_a_network_on_the_meta_device_starts_no_compiler() -> None:
    script = """
import sys
from unetsep import Separator
Separator()
assert "torch" in sys.modules
print([name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))])
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
