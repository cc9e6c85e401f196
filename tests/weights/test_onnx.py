"""ONNX files: the same masks in onnxruntime, and stems by numpy alone."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from click.testing import CliRunner

from tests.signals import RATE
from tests.weights.test_model import SPLEETER, clips, guided, seeded
from unetsep.cli import main
from unetsep.config import ModelConfig
from unetsep.network.guided import Guided
from unetsep.network.low_band import network_inputs
from unetsep.separator import Separator
from unetsep.weights.load import load_network
from unetsep.weights.model import Model
from unetsep.weights.onnx import OPSET, export_onnx

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
# A second of music: few frames are as good as many, and twelve times as fast.
SAMPLES = 44_100
EXAMPLE = Path(__file__).parents[2] / "examples" / "separate_onnx.py"


def masks(path: Path, magnitude: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {"magnitude": magnitude.numpy()})[0]
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A guided network with random weights: export takes seconds for each."""
    model = Model(guided())
    return model, export_onnx(model, tmp_path_factory.mktemp("onnx") / "net.onnx")


def assert_masks_are_equal(model: Model, path: Path) -> None:
    for batch, samples in ((1, 20_000), (3, 9_000)):
        magnitude = model.spectrum(clips(samples, batch=batch))[:, :, : model.config.bins].abs()
        expected = model.masks_of_magnitudes(magnitude).numpy()
        # Random weights, far larger than those of trained networks.
        np.testing.assert_allclose(masks(path, magnitude), expected, atol=5e-5)


def test_masks_are_those_of_torch_for_any_batch_and_frames(exported: tuple[Model, Path]) -> None:
    assert_masks_are_equal(*exported)


def test_a_network_for_each_stem_is_exported(tmp_path: Path) -> None:
    config = dataclasses.replace(SPLEETER, stems=("vocals", "accompaniment"), filters=(4,))
    model = Model(seeded(config))
    assert_masks_are_equal(model, export_onnx(model, tmp_path / "net.onnx"))


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
    audio, rate = soundfile.read(excerpt, dtype="float32", frames=SAMPLES)
    song = tmp_path / "song.wav"
    soundfile.write(song, audio, rate, subtype="FLOAT")
    model = Model.from_pretrained("fast")
    magnitude = model.spectrum(torch.from_numpy(audio.T)[None])[:, :, : model.config.bins].abs()
    found = masks(tmp_path / "fast.onnx", magnitude)
    np.testing.assert_allclose(found, model.masks_of_magnitudes(magnitude).numpy(), atol=1e-5)
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "fast.onnx"), str(song)]
    subprocess.run(command, check=True, cwd=tmp_path)
    expected = Separator("fast", precision="fp32").separate(audio.T, rate)
    for stem, wanted in expected.items():
        written, _ = soundfile.read(tmp_path / f"{stem}.wav", dtype="float32")
        error = np.square(written.T - wanted).sum() / np.square(wanted).sum()
        assert 10 * np.log10(error) < -70, stem


def test_the_example_joins_segments_as_the_separator_does(
    exported: tuple[Model, Path], tmp_path: Path
) -> None:
    """A song of three segments of 512 frames, by an example of at most forty lines."""
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) <= 40
    model, path = exported
    # Three segments that share a quarter have 1280 frames; every sample lies under four windows.
    song = clips((1280 - 3) * model.config.hop_length)[0].numpy()
    soundfile.write(tmp_path / "song.wav", song.T, RATE, subtype="FLOAT")
    subprocess.run([sys.executable, str(EXAMPLE), str(path), "song.wav"], check=True, cwd=tmp_path)
    for stem, wanted in Separator(guided(), precision="fp32").separate(song, RATE).items():
        written, _ = soundfile.read(tmp_path / f"{stem}.wav", dtype="float32")
        error = np.square(written.T - wanted).sum() / np.square(wanted).sum()
        assert 10 * np.log10(error) < -60, stem


def test_a_network_with_a_branch_for_low_bins_takes_the_fine_spectrum_too(tmp_path: Path) -> None:
    network = guided(low_bins=16, low_filters=8)
    assert isinstance(network, Guided)
    assert network.low is not None
    torch.nn.init.normal_(network.low.head.weight)
    path = export_onnx(Model(network), tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["magnitude", "fine"]
    config, frames = network.config, 2 * network.config.frame_multiple
    bins = config.n_fft // 2 + 1
    spectrum = torch.randn(1, config.channels, bins, frames, dtype=torch.complex64)
    inputs = network_inputs(spectrum, config)
    names = ("magnitude", "fine")
    given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
    (masks,) = session.run(None, given)
    with torch.no_grad():
        expected = network(*inputs).numpy()
    assert np.abs(masks - expected).max() < 1e-5
