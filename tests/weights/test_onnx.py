"""ONNX files: the same masks in onnxruntime, and stems by numpy alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from tests.weights.test_model import KINDS, clips, guided
from unetsep.cli import main
from unetsep.config import ModelConfig
from unetsep.separator import Separator
from unetsep.weights.load import load_network
from unetsep.weights.model import Model
from unetsep.weights.onnx import OPSET, export_onnx

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
EXAMPLE = Path(__file__).parents[2] / "examples" / "separate_onnx.py"


def masks(path: Path, magnitude: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"magnitude": magnitude.numpy()})[0]
    return found


@pytest.mark.parametrize("kind", ["spleeter", "guided"])
def test_masks_are_those_of_torch_for_any_batch_and_frames(kind: str, tmp_path: Path) -> None:
    model = Model(KINDS[kind]())
    path = export_onnx(model, tmp_path / "net.onnx")
    for batch, samples in ((1, 20_000), (3, 9_000)):
        magnitude = model.spectrum(clips(samples, batch=batch))[:, :, : model.config.bins].abs()
        expected = model.masks_of_magnitudes(magnitude).numpy()
        # Random weights, far larger than those of trained networks.
        np.testing.assert_allclose(masks(path, magnitude), expected, atol=5e-5)


def test_masks_of_real_music_are_equal_and_the_example_separates_it(
    excerpt: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(main, ["export-onnx", "fast", "-o", str(tmp_path / "fast.onnx")])
    assert result.exit_code == 0, result.output
    proto = onnx.load(tmp_path / "fast.onnx")
    assert proto.opset_import[0].version == OPSET
    about = {entry.key: entry.value for entry in proto.metadata_props}
    assert ModelConfig.from_dict(json.loads(about["config"])) == load_network("fast").config
    assert about["stems"] == "vocals,drums,bass,other"
    audio, rate = soundfile.read(excerpt, dtype="float32")
    model = Model.from_pretrained("fast")
    magnitude = model.spectrum(torch.from_numpy(audio.T)[None])[:, :, : model.config.bins].abs()
    found = masks(tmp_path / "fast.onnx", magnitude)
    np.testing.assert_allclose(found, model.masks_of_magnitudes(magnitude).numpy(), atol=1e-5)
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "fast.onnx"), str(excerpt)]
    subprocess.run(command, check=True, cwd=tmp_path)
    expected = Separator("fast", precision="fp32").separate(audio.T, rate)
    for stem, wanted in expected.items():
        written, _ = soundfile.read(tmp_path / f"{excerpt.stem}-{stem}.wav", dtype="float32")
        error = np.square(written.T - wanted).sum() / np.square(wanted).sum()
        assert 10 * np.log10(error) < -70, stem


def test_a_branch_for_low_bins_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="branch for low bins cannot be exported"):
        export_onnx(Model(guided(low_bins=16, low_filters=8)), tmp_path / "net.onnx")
