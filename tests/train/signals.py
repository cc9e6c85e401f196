"""Synthetic signals for the tests of evaluation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 44_100


def noise(seed: int, samples: int, channels: int = 2) -> npt.NDArray[np.float64]:
    """Low-passed noise, ``(channels, samples)``, with 16-bit values."""
    white = np.random.default_rng(seed).standard_normal((channels, samples + 3))
    smooth = sum(white[:, at : at + samples] for at in range(4))
    return np.rint(smooth * 1500) / 32768
