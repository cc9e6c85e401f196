"""Synthetic signals that several test files share."""

from __future__ import annotations

import numpy as np

RATE = 44_100


def music(seconds: float, rate: int = RATE, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Chords, beats and noise, ``(samples, channels)`` float32, peak 0.5."""
    rng = np.random.default_rng(seed)
    time = np.arange(max(1, round(seconds * rate))) / rate
    tones = sum(np.sin(2 * np.pi * f * time + f) for f in (110.0, 220.0, 277.2, 329.6))
    beats = rng.standard_normal(len(time)) * np.exp(-(time % 0.5) * 30)
    pan = np.linspace(0.4, 1.0, channels)
    wave = (tones / 8 + beats / 4)[:, None] * pan + 0.01 * rng.standard_normal(
        (len(time), channels)
    )
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)
