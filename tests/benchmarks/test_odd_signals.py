"""Odd but valid input: right length, finite, and the stems still sum to the mixture."""

from __future__ import annotations

import numpy as np
import pytest

from tests.signals import RATE, music
from unetsep.separator import Separator


def signal(name: str, rate: int, channels: int, samples: int) -> np.ndarray:
    """``(channels, samples)``, float32."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((channels, samples))
    made = {
        "silence": 0 * noise,
        "direct current": 0.7 + 0 * noise,
        "full-scale square": np.sign(np.sin(np.arange(samples) * 2 * np.pi * 100 / rate))
        + 0 * noise,
        "noise at -120 dB": 1e-6 * noise,
        "denormals": 1e-40 * noise,
        "one click": (np.arange(samples) == samples // 2) + 0 * noise,
        "silence, then music": np.where(np.arange(samples) < samples // 2, 0, 0.1) * noise,
        "one channel silent": 0.1 * noise * (np.arange(channels)[:, None] == 0),
        "opposite channels": 0.1 * noise[:1] * np.where(np.arange(channels) % 2, -1, 1)[:, None],
        "far beyond full scale": 1e6 * noise,
    }
    return made[name].astype(np.float32)


NAMES = (
    "silence",
    "direct current",
    "full-scale square",
    "noise at -120 dB",
    "denormals",
    "one click",
    "silence, then music",
    "one channel silent",
    "opposite channels",
    "far beyond full scale",
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("rate", "channels"), [(44_100, 2), (8000, 1), (192_000, 2)])
def test_stems_are_finite_as_long_as_the_mixture_and_sum_to_it(
    tiny_separator: Separator, name, rate, channels
):
    mixture = signal(name, rate, channels, round(0.7 * rate))
    stems = tiny_separator.separate(mixture, rate)
    total = np.sum(list(stems.values()), axis=0, dtype=np.float64)
    assert all(stem.shape == mixture.shape for stem in stems.values())
    assert all(np.isfinite(stem).all() for stem in stems.values())
    scale = max(float(np.abs(mixture).max()), 1e-30)
    assert np.abs(total - mixture).max() <= 10 ** (-90 / 20) * scale


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize("samples", [1, 2, 100])
def test_next_to_nothing_is_separated_too(tiny_separator: Separator, rate, samples):
    mixture = music(samples / rate, rate)
    stems = tiny_separator.separate(mixture, rate)
    assert all(stem.shape == mixture.shape for stem in stems.values())
    total = np.sum(list(stems.values()), axis=0)
    np.testing.assert_allclose(total, mixture, atol=2e-5)


def test_silence_gives_silence(tiny_separator: Separator):
    stems = tiny_separator.separate(np.zeros((2, RATE), np.float32), RATE)
    assert not any(stem.any() for stem in stems.values())
