"""Segment borders with the real network on real music."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from unetsep.separator import Separator

HOP, STEP = 1024, 64


@pytest.fixture(scope="module")
def separator() -> Separator:
    return Separator(precision="fp32")


@pytest.fixture(scope="module")
def song(excerpt: Path) -> np.ndarray:
    return soundfile.read(excerpt, dtype="float32")[0].T


def separated(separator: Separator, mixture: np.ndarray) -> np.ndarray:
    return np.stack(list(separator.separate(mixture, 44_100).values()))


@pytest.fixture(scope="module")
def stems_of(song: np.ndarray) -> Callable[[str, str], np.ndarray]:
    """Stems of the song by a model in a precision: bf16 takes seconds without support for it."""

    def separate(model: str, precision: str) -> np.ndarray:
        return separated(Separator(model, precision=precision), song)

    return functools.cache(separate)


def test_errors_at_segment_borders_are_no_larger_than_elsewhere(
    separator: Separator, song: np.ndarray
) -> None:
    """Move all borders by 128 frames and see where the stems change."""
    config = separator.config
    moved = 2 * STEP * HOP
    mixture = np.tile(song, 6)[:, : 36 * 44_100]
    here = separated(separator, mixture)[..., moved:]
    there = separated(separator, mixture[:, moved:])
    frames = there.shape[-1] // HOP
    shape = (len(config.stems), 2, frames, HOP)
    error = np.square((here - there)[..., : frames * HOP].reshape(shape)).sum(axis=(0, 1, 3))
    power = np.square(here[..., : frames * HOP].reshape(shape)).sum(axis=(0, 1, 3))
    relative = 10 * np.log10(error / power + 1e-20)

    # Distance in frames of the segments' starts, in both runs.
    step = round(config.segment_frames * (1 - separator.overlap))
    frame = np.arange(frames)
    distance = np.minimum(_to_border(frame, step), _to_border(frame + 2 * STEP, step))
    inside = (frame >= config.segment_frames - 2 * STEP) & (frame < frames - config.segment_frames)
    near = np.percentile(relative[inside & (distance < STEP // 2)], 95)
    far = np.percentile(relative[inside & (distance >= STEP // 2)], 95)
    assert near <= far + 3
    # At an overlap of a quarter, the default; of half it was -27 (docs/understand/method.md).
    assert near < -20


def _to_border(frame: np.ndarray, step: int) -> np.ndarray:
    return np.minimum(frame % step, -frame % step)


# A level that differs in its last bits flips roundings of bfloat16, which are coarse. How much
# that matters depends on the weights.
@pytest.mark.parametrize("gain", [0.1, 10.0])
@pytest.mark.parametrize(
    ("model", "precision", "limit"),
    [("default", "fp32", -100), ("default", "bf16", -52), ("mse", "bf16", -52)],
)
def test_the_level_of_real_music_does_not_matter(
    stems_of: Callable[[str, str], np.ndarray],
    song: np.ndarray,
    gain: float,
    model: str,
    precision: str,
    limit: float,
) -> None:
    stems = stems_of(model, precision)
    scaled = separated(Separator(model, precision=precision), song * gain)
    error = np.square(scaled / gain - stems).sum(axis=(1, 2))
    assert (10 * np.log10(error / np.square(stems).sum(axis=(1, 2))) < limit).all()


def test_bf16_changes_stems_by_less_than_the_stated_error(
    stems_of: Callable[[str, str], np.ndarray],
) -> None:
    exact = stems_of("default", "fp32")
    error = np.square(stems_of("default", "bf16") - exact).sum(axis=(1, 2))
    assert (10 * np.log10(error / np.square(exact).sum(axis=(1, 2))) < -40).all()


def test_stems_of_real_music_sum_to_the_mixture(
    stems_of: Callable[[str, str], np.ndarray], song: np.ndarray
) -> None:
    error = stems_of("default", "fp32").sum(axis=0) - song
    assert 10 * np.log10(np.square(error).sum() / np.square(song).sum()) < -90
