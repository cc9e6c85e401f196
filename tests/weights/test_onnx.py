"""ONNX files: the same masks in onnxruntime, and stems by numpy alone."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from tests.commands import call, run_script
from tests.signals import RATE
from tests.weights.test_model import SPLEETER, STATES, clips, guided_network, seed_network
from unetsep.config import ModelConfig
from unetsep.errors import WeightsError
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


def masks(path: Path, *inputs: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    given = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
    found: np.ndarray = session.run(None, given)[0]
    return found


def network_with_branch() -> Guided:
    """Guided, also by the guide's states, with a branch for low bins that changes something."""
    network = guided_network(low_bins=16, low_filters=8, guide_states=STATES)
    assert network.low is not None
    torch.manual_seed(0)
    torch.nn.init.normal_(network.low.head.weight)
    return network


@pytest.fixture(scope="module")
def onnx_export(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A network like the default with random weights: export takes seconds for each."""
    model = Model(network_with_branch())
    return model, export_onnx(model, tmp_path_factory.mktemp("onnx") / "net.onnx")


def assert_masks_are_equal(model: Model, path: Path) -> None:
    for batch, samples in ((1, 20_000), (3, 9_000)):
        inputs = network_inputs(model.spectrum(clips(samples, batch=batch)), model.config)
        expected = model.masks_of_magnitudes(*inputs).numpy()
        # Random weights, far larger than those of trained networks.
        np.testing.assert_allclose(masks(path, *inputs), expected, atol=5e-5)


def test_masks_equal_those_of_torch_for_any_batch_and_frames(
    onnx_export: tuple[Model, Path],
) -> None:
    assert_masks_are_equal(*onnx_export)


def test_a_network_for_each_stem_is_exported_while_it_is_trained_and_not_changed(
    tmp_path: Path,
) -> None:
    config = dataclasses.replace(SPLEETER, stems=("vocals", "accompaniment"), filters=(4,))
    model = Model(seed_network(config))
    model.network.train()
    before = [part.training for part in model.modules()]
    torch.manual_seed(7)
    path = export_onnx(model, tmp_path / "net.onnx")
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)  # of the host, too
    assert [part.training for part in model.modules()] == before
    assert_masks_are_equal(model.eval(), path)


def test_masks_of_real_music_are_equal_and_the_example_gives_the_same_stems(
    excerpt: Path, tmp_path: Path
) -> None:
    path = tmp_path / "fast.onnx"
    result = call("export-onnx", "fast", "-o", path)
    assert result.exit_code == 0, result.output
    proto = onnx.load(path)
    assert proto.opset_import[0].version == OPSET
    about = {entry.key: entry.value for entry in proto.metadata_props}
    assert ModelConfig.from_dict(json.loads(about["config"])) == load_network("fast").config
    assert about["stems"] == "vocals,drums,bass,other"
    audio, rate = soundfile.read(excerpt, dtype="float32", frames=SAMPLES)
    soundfile.write(tmp_path / "song.wav", audio, rate, subtype="FLOAT")
    model = Model.from_pretrained("fast")
    inputs = network_inputs(model.spectrum(torch.from_numpy(audio.T)[None]), model.config)
    expected = model.masks_of_magnitudes(*inputs).numpy()
    np.testing.assert_allclose(masks(path, *inputs), expected, atol=1e-5)
    assert_the_example_separates(path, tmp_path, Separator("fast", precision="fp32"), -100)


def assert_the_example_separates(
    path: Path, folder: Path, separator: Separator, decibels: float
) -> None:
    """Of ``song.wav`` in a folder, within an error relative to each stem."""
    done = run_script(EXAMPLE, path, "song.wav", folder=folder)
    assert done.code == 0, done.stderr
    song, rate = soundfile.read(folder / "song.wav", dtype="float32")
    for stem, wanted in separator.separate(song.T, rate).items():
        written, _ = soundfile.read(folder / f"{stem}.wav", dtype="float32")
        error = np.square(written.T - wanted).sum() / np.square(wanted).sum()
        assert 10 * np.log10(error) < decibels, stem


@pytest.mark.parametrize("frames", [40, 513, 1300])
def test_the_example_joins_segments_as_the_separator_does(
    frames: int, onnx_export: tuple[Model, Path], tmp_path: Path
) -> None:
    """Segments have 512 frames: less than one, one and a frame, and three of which one is moved."""
    model, path = onnx_export
    song = clips((frames - 3) * model.config.hop_length - 17)[0].numpy()
    soundfile.write(tmp_path / "song.wav", song.T, RATE, subtype="FLOAT")
    assert_the_example_separates(
        path, tmp_path, Separator(network_with_branch(), precision="fp32"), -80
    )


def test_the_example_replaces_nothing_and_names_files_it_cannot_use(
    onnx_export: tuple[Model, Path], tmp_path: Path
) -> None:
    _, model = onnx_export

    def run(*words: str | Path) -> str:
        done = run_script(EXAMPLE, *words, folder=tmp_path)
        assert done.code == 1
        return done.stderr

    assert "usage: " in run(model)
    assert "there is no file nothing.wav" in run(model, "nothing.wav")
    (tmp_path / "song.wav").write_bytes(b"noise")
    assert "song.wav cannot be read" in run(model, "song.wav")
    (tmp_path / "vocals.wav").write_bytes(b"precious")
    assert "vocals.wav would be overwritten" in run(model, "vocals.wav")
    assert (tmp_path / "vocals.wav").read_bytes() == b"precious"


def test_a_missing_folder_is_reported_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", None)
    path = tmp_path / "nowhere" / "net.onnx"
    told = call("export-onnx", "fast", "-o", path)
    assert told.exit_code == 1
    assert f"there is no folder {path.parent}" in told.output


def test_a_folder_as_the_file_is_reported_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", None)
    with pytest.raises(ValueError, match="it is a folder"):
        export_onnx("fast", tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
def test_a_pipe_or_device_is_refused_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.onnx, "export", None)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")  # as /dev/stdout is one
    for name in ("pipe", "link"):
        with pytest.raises(ValueError, match="it is a device or a pipe, name a file"):
            export_onnx("fast", tmp_path / name)
        assert (tmp_path / name).is_fifo()
    assert (tmp_path / "link").is_symlink()


def test_the_command_replaces_a_file_only_with_overwrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(b"precious")
    exports = []
    monkeypatch.setattr("unetsep.weights.onnx.export_onnx", lambda *given: exports.append(given))
    command = ["export-onnx", "fast", "-o", str(path)]
    told = call(*command)
    assert told.exit_code == 1
    assert f"{path} already exists: use --overwrite" in told.output
    assert exports == []
    assert call(*command, "--overwrite").exit_code == 0
    assert exports == [("fast", path)]


def test_a_file_that_cannot_be_written_is_named_as_given(
    onnx_export: tuple[Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, written = onnx_export
    proto = onnx.load(written)
    proto.ClearField("metadata_props")  # as torch gives it
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: SimpleNamespace(model_proto=proto))

    def full(path: Path, _: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path.with_name("0123.part")))

    monkeypatch.setattr("unetsep.weights.onnx.write_atomically", full)
    path = tmp_path / "net.onnx"
    with pytest.raises(WeightsError, match=f"{re.escape(str(path))} cannot be written: No space"):
        export_onnx(model, path)
