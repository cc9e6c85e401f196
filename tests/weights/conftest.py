"""A small checkpoint, and manifests in place of the installed one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from unetsep.config import ModelConfig
from unetsep.network.unet import UNet
from unetsep.weights import manifest as manifests
from unetsep.weights.checkpoint import serialize

SMALL = ModelConfig(filters=(4, 4), segment_frames=64)


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(SMALL).eval()


@pytest.fixture
def file(network: UNet, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    path.write_bytes(serialize(network))
    return path


@pytest.fixture(autouse=True)
def _fresh_manifest() -> Iterator[None]:
    yield
    manifests.manifest.cache_clear()


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make a manifest of one checkpoint, and a folder for it, the installed ones."""

    def write(**fields: object) -> None:
        entry = {
            "name": "small", "loss": "mse", "description": "", "file": "small.safetensors",
            "repo_id": "some/where", "revision": "main", "sha256": "0" * 64, "bytes": 1,
            "config": {}, "licence": "x",
        } | fields  # fmt: skip
        path = tmp_path / "weights_manifest.json"
        path.write_text(json.dumps({"default": "small", "checkpoints": [entry]}))
        monkeypatch.setattr(manifests, "MANIFESTS", (path,))
        monkeypatch.setattr(manifests, "BUNDLED", tmp_path)
        manifests.manifest.cache_clear()

    return write
