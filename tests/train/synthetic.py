"""Small songs, configs and folders for the tests of training."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tests.signals import RATE
from unetsep.config import STEMS, ModelConfig
from unetsep.network.presets import spleeter_config
from unetsep.train.config import TrainConfig
from unetsep.train.data.recording import Recording, recording_from_arrays

MODEL = ModelConfig(n_fft=512, hop_length=128, bins=64, filters=(4, 6), segment_frames=64)

# A network that can guide one of MODEL.
GUIDE = dataclasses.replace(
    spleeter_config(2, (4, 6)),
    stems=("vocals",),
    networks="joint",
    mask_exponent=0.0,
    **{name: getattr(MODEL, name) for name in ("n_fft", "hop_length", "bins", "segment_frames")},
)


def tiny(**changed: Any) -> TrainConfig:
    """A run of a few steps that takes about a second."""
    values: dict[str, Any] = {
        "model": MODEL,
        "clip_frames": 32,
        "batch_size": 2,
        "max_steps": 6,
        "valid_every": 3,
        "log_every": 1,
        "warmup_steps": 2,
    }
    return TrainConfig(**values | changed)


def pcm(seed: int, samples: int = RATE) -> npt.NDArray[np.int16]:
    """Noise with a tone, ``(samples, channels)`` in stereo: the axes that recordings have."""
    rng = np.random.default_rng(seed)
    tone = 4000 * np.sin(2 * np.pi * (100 + 37 * seed) * np.arange(samples) / RATE)
    return (tone[:, None] + rng.normal(0, 400, (samples, 2))).astype(np.int16)


def song(number: int, *, samples: int = RATE, **about: Any) -> Recording:
    """A song in memory whose four stems differ."""
    stems = {stem: pcm(10 * number + i, samples) for i, stem in enumerate(STEMS)}
    return recording_from_arrays(f"song{number}", stems, **about)


@functools.cache
def _songs() -> tuple[tuple[Recording, ...], tuple[Recording, ...]]:
    return tuple(map(song, range(4))), (song(8, split="valid"), song(9, split="valid"))


def songs() -> tuple[list[Recording], list[Recording]]:
    """Training and validation songs: the same ones for all runs."""
    train, valid = _songs()
    return [*train], [*valid]


def write(path: Path, seed: int, samples: int = RATE // 2, suffix: str = ".wav") -> Path:
    """A stem as an audio file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.with_name(path.name + suffix)
    soundfile.write(file, pcm(seed, samples), RATE)
    return file


def write_musdb(root: Path, names: tuple[str, ...], samples: int = RATE // 2) -> None:
    """Songs in the layout of MUSDB18-HQ."""
    for number, name in enumerate(names):
        for i, stem in enumerate(("mixture", *STEMS)):
            write(root / "train" / name / stem, 10 * number + i, samples)
