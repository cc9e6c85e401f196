"""The mean of several networks' weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.commands import call
from tests.train.synthetic import MODEL
from unetsep.network.unet import UNet
from unetsep.train.config import TrainingError
from unetsep.train.release.average import average_weights
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import load_network


def save_network(path: Path, seed: int, **changes: object) -> Path:
    torch.manual_seed(seed)
    network = UNet(dataclasses.replace(MODEL, **changes))  # type: ignore[arg-type]
    network.encoder[0][1].running_mean.normal_()  # type: ignore[index]
    path.write_bytes(serialize(network, half=False))
    return path


def test_weights_and_statistics_are_averaged(tmp_path: Path) -> None:
    paths = [save_network(tmp_path / f"{seed}.safetensors", seed) for seed in range(3)]
    told = call("average", *paths, "-o", tmp_path / "new" / "mean.safetensors")
    assert told.exit_code == 0, told.output
    found = load_network(tmp_path / "new" / "mean.safetensors")
    each = [load_network(path).state_dict() for path in paths]
    for name, value in found.state_dict().items():
        expected = torch.stack([state[name].double() for state in each]).mean(dim=0)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7)
    assert found.config == MODEL


def test_a_mean_replaces_no_file_and_must_be_named_safetensors(tmp_path: Path) -> None:
    paths = [save_network(tmp_path / f"{seed}.safetensors", seed) for seed in range(2)]
    before = paths[0].read_bytes()
    told = call("average", *paths, "-o", paths[0])
    assert told.exit_code != 0
    assert "exists: choose another name" in told.output
    assert paths[0].read_bytes() == before
    told = call("average", *paths, "-o", tmp_path / "mean.pt")
    assert told.exit_code != 0
    assert "ends in .safetensors" in told.output
    assert len(list(tmp_path.iterdir())) == 2


def test_only_equal_networks_can_be_averaged(tmp_path: Path) -> None:
    one = save_network(tmp_path / "one.safetensors", 0)
    longer = save_network(tmp_path / "longer.safetensors", 1, segment_frames=128)
    wider = save_network(tmp_path / "wider.safetensors", 1, filters=(4, 8))
    assert average_weights([one, longer]).config.segment_frames == MODEL.segment_frames
    with pytest.raises(TrainingError, match=r"wider\.safetensors are not the same network"):
        average_weights([one, wider])
    with pytest.raises(TrainingError, match="two checkpoints or more"):
        average_weights([one])
