"""From a run to checkpoints with their manifest entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.train.synthetic import MODEL, songs
from unetsep.train.config import TrainingError
from unetsep.train.release.export import export_run, sdr_change
from unetsep.weights.load import load_network
from unetsep.weights.manifest import read_manifest


def test_export_halves_the_file_and_keeps_the_sdr(tmp_path: Path, whole: Path) -> None:
    manifest = tmp_path / "manifest.json"
    valid = songs()[1]
    written = export_run(whole, valid=valid, manifest=manifest)
    assert [path.name for path in written] == ["l1.safetensors", "mel_mse.safetensors"]
    network = load_network(written[0])
    assert network.config == MODEL
    assert sdr_change(load_network(whole / "best-l1.safetensors"), network, valid) < 0.01
    found = read_manifest(manifest)
    entries = list(found.checkpoints.values())
    assert found.default == "l1"
    assert entries[0].bytes == written[0].stat().st_size
    assert entries[0].scores["sdr"].keys() == {*MODEL.stems, "mean"}
    assert entries[0].training["settings"]["seed"] == 0
    export_run(whole, loss="l1", name="renamed", manifest=manifest)
    assert list(read_manifest(manifest).checkpoints) == ["l1", "mel_mse", "renamed"]
    with pytest.raises(TrainingError, match=r"holds no best-mse.safetensors"):
        export_run(whole, loss="mse")
