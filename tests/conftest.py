"""Fixtures that several test files share; audio is synthesised, never stored."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.files import write_song
from tests.forks import Forks
from tests.signals import RATE, music, noise
from unetsep.audio.ffmpeg_program import find_ffmpeg
from unetsep.config import STEMS, ModelConfig
from unetsep.network.unet import UNet
from unetsep.separator import Separator
from unetsep.weights.checkpoint import serialize

# Of Windows: ERROR_PRIVILEGE_NOT_HELD.
NO_PRIVILEGE = 1314


@pytest.fixture(scope="session", autouse=True)
def _no_models_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a developer imported must not count as published."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNETSEP_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> Iterator[None]:
    """Tests run beside each other, so none takes a core that another needs."""
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        # Programs that tests start have their own numbers of threads; those that wait sleep.
        patch.setenv("OMP_WAIT_POLICY", "passive")
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip what makes links where only administrators and developers may: on Windows."""
    try:
        yield
    except OSError as error:
        if getattr(error, "winerror", None) == NO_PRIVILEGE:
            pytest.skip("may make no links")
        raise


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """The signal path of the real models with next to no network."""
    return ModelConfig(filters=(4, 4, 4, 4, 4, 4), segment_frames=64)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, tiny_config: ModelConfig) -> Path:
    """A checkpoint with random weights, for ``--model PATH``."""
    torch.manual_seed(7)
    path = tmp_path_factory.mktemp("models") / "tiny.safetensors"
    path.write_bytes(serialize(UNet(tiny_config)))
    return path


@pytest.fixture(scope="session")
def tiny_separator(tiny_model: Path) -> Separator:
    return Separator(tiny_model, device="cpu", precision="fp32")


@pytest.fixture(scope="session")
def excerpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of real music, 44.1 kHz stereo float: the mixture that stempeg ships."""
    stempeg = pytest.importorskip("stempeg", exc_type=(ImportError, RuntimeError))
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        pytest.skip("needs ffmpeg")
    path = tmp_path_factory.mktemp("music") / "excerpt.wav"
    command = [ffmpeg, "-v", "error", "-i", stempeg.example_stem_path(), "-map", "0:a:0"]
    subprocess.run([*command, "-c:a", "pcm_f32le", str(path)], check=True)
    return path


@pytest.fixture
def song(tmp_path: Path) -> Callable[..., Path]:
    """Write a synthetic song: ``song("a.flac", seconds=2, channels=1)``."""

    def write(
        name: str = "song.wav",
        *,
        seconds: float = 1.0,
        rate: int = RATE,
        channels: int = 2,
        subtype: str | None = None,
        container: str | None = None,
        seed: int = 0,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        audio = music(seconds, rate, channels, seed).T
        soundfile.write(str(path), audio, rate, subtype=subtype, format=container)
        return path

    return write


@pytest.fixture(scope="session")
def need_ffmpeg() -> str:
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        pytest.skip("needs ffmpeg")
    return ffmpeg


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """The command in processes of their own."""
    if os.name == "nt":
        pytest.skip("needs forks")
    with Forks() as running:
        yield running


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
