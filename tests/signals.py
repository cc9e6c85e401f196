"""Synthetic signals that many test files share; axes are (channels, samples), as in the package.

Files have them the other way round: write ``music(1).T``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 44_100


def music(
    seconds: float, rate: int = RATE, channels: int = 2, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Chords, beats and noise, ``(channels, samples)``, peak 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(max(1, round(seconds * rate))) / rate
    tones = sum(np.sin(2 * np.pi * f * time + f) for f in (110.0, 220.0, 277.2, 329.6))
    beats = rng.standard_normal(len(time)) * np.exp(-(time % 0.5) * 30)
    pan = np.linspace(0.4, 1.0, channels)
    hiss = rng.standard_normal((len(time), channels)).T
    wave = pan[:, None] * (tones / 8 + beats / 4) + 0.01 * hiss
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def noise(seed: int, samples: int, channels: int = 2) -> npt.NDArray[np.float64]:
    """Low-passed noise, ``(channels, samples)``, with 16-bit values, standard deviation 0.09."""
    white = np.random.default_rng(seed).standard_normal((channels, samples + 3))
    smooth = sum(white[:, at : at + samples] for at in range(4))
    return np.rint(smooth * 1500) / 32768


def white_noise(samples: int, channels: int = 2, seed: int = 0) -> npt.NDArray[np.float32]:
    """Energy up to the highest frequency, ``(channels, samples)``, standard deviation 1."""
    return np.random.default_rng(seed).standard_normal((channels, samples)).astype(np.float32)
