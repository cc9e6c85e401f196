"""The recipe that puts guided networks together."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import sys
from pathlib import Path

import pytest
import torch

from tests.network.test_guided import SMALL, VOCALS
from unetsep.network.guided import Guided, with_guide, with_parts
from unetsep.network.unet import UNet
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import load_network


def test_a_blend_goes_back_most_of_the_way_and_keeps_the_branch(tmp_path: Path) -> None:
    guided = importlib.import_module("guided")
    torch.manual_seed(0)
    guide = serialize(UNet(VOCALS))
    (tmp_path / "guide.safetensors").write_bytes(guide)
    sha256 = hashlib.sha256(guide).hexdigest()
    begun = with_guide(UNet(SMALL), UNet(VOCALS), sha256)
    with_branch = dataclasses.replace(begun.config, low_bins=16, low_filters=4)
    trained = with_parts(begun, with_branch)
    with torch.no_grad():
        for weights in trained.parameters():
            weights += 1
    for name, network in (("begun", begun), ("trained", trained)):
        content = serialize(network, half=False)
        (tmp_path / f"{name}.safetensors").write_bytes(content)
    paths = (str(tmp_path / "trained.safetensors"), str(tmp_path / "begun.safetensors"))
    (tmp_path / "blended.safetensors").write_bytes(guided.blend(*paths))
    blended = load_network(tmp_path / "blended.safetensors")
    assert isinstance(blended, Guided)
    assert blended.low is not None
    assert trained.low is not None
    for mine, first in zip(blended.rest.parameters(), begun.rest.parameters(), strict=True):
        assert torch.allclose(mine, first + 0.35, atol=1e-5)
    for mine, branch in zip(blended.low.parameters(), trained.low.parameters(), strict=True):
        assert torch.equal(mine, branch)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("guide", "none", "out"), "none"),
        (("join", "nosuch", "fast", "out"), "there is no model 'nosuch'"),
        (("blend", "fast", "mse", "out"), "fast has no guide: blend takes two networks that have"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["guided.py", *words])
    with pytest.raises(SystemExit) as end:
        importlib.import_module("guided").main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
