"""Music and synthetic MUSDB18 folders for the tests of evaluation."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from tests.train.signals import RATE, noise
from unetsep.config import STEMS, ModelConfig
from unetsep.network.unet import UNet
from unetsep.train.evaluation.tracks import Recording, Track, read_track
from unetsep.weights.checkpoint import serialize


@pytest.fixture(scope="session")
def music() -> Recording:
    """The excerpt that stempeg ships, six seconds of a real song."""
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("needs ffmpeg and ffprobe")
    stempeg = pytest.importorskip("stempeg")
    path = Path(stempeg.example_stem_path())
    return read_track(Track(path.name, "test", path))


@pytest.fixture(scope="session")
def estimates(music: Recording) -> dict[str, npt.NDArray[np.float32]]:
    """Each stem with a quarter of the others, filtered and with one channel softer."""
    found = {}
    for stem, signal in music.references.items():
        leak = (music.mixture - signal) / 4
        coloured = signal + 0.2 * np.roll(signal, 7, axis=1)
        found[stem] = ((coloured + leak) * np.array([[1.0], [0.9]])).astype(np.float32)
    return found


def write_song(folder: Path, stems: dict[str, npt.NDArray[np.floating]]) -> None:
    """A song in the wav layout; the mixture is the stems' sum."""
    folder.mkdir(parents=True)
    mixture = np.sum(list(stems.values()), axis=0)
    for name, signal in {"mixture": mixture, **stems}.items():
        soundfile.write(folder / f"{name}.wav", signal.T, RATE, subtype="PCM_16")


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three test songs of three seconds, the last without vocals, and two training songs."""
    base = tmp_path_factory.mktemp("musdb")
    for song, name in enumerate(["Ana - One", "Béla & Co. - Two's", "Cy - Instrumental"]):
        stems = {s: noise(10 * song + i, 3 * RATE) / 4 for i, s in enumerate(STEMS)}
        if song == 2:
            stems["vocals"] = np.zeros_like(stems["vocals"])
        write_song(base / "test" / name, stems)
    for song, name in enumerate(["Dee - Train", "Actions - One Minute Smile"]):
        stems = {s: noise(100 + 10 * song + i, RATE) / 4 for i, s in enumerate(STEMS)}
        write_song(base / "train" / name, stems)
    return base


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network with random weights."""
    torch.manual_seed(0)
    config = ModelConfig(filters=(2, 2, 2, 2, 2, 2), segment_frames=64)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    path.write_bytes(serialize(UNet(config)))
    return path
