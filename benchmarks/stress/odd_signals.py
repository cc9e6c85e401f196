"""Time for odd but valid signals, relative to music-like noise of the same length.

    python benchmarks/stress/odd_signals.py

Arithmetic on denormal numbers costs a hundred times more on some processors.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from unetsep.separator import Separator

SAMPLES = 20 * 44_100


def signals() -> dict[str, np.ndarray]:
    """Name to ``(2, samples)``; the first is what the others are compared with."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2, SAMPLES))
    ramp = np.tile(np.arange(SAMPLES), (2, 1))
    by_name = {
        "noise at -14 dB": 0.2 * noise,
        "silence": 0 * noise,
        "DC": 0 * noise + 1,
        "full-scale square wave": np.sign(np.sin(ramp / 50)),
        "noise at -120 dB": 1e-6 * noise,
        "denormals": 0 * noise + 1e-40,
    }
    return {name: signal.astype(np.float32) for name, signal in by_name.items()}


def main() -> None:
    """Measure three rounds, print the best of each as a ratio."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    separator = Separator()
    best: dict[str, float] = {}
    for _ in range(3):
        for name, signal in signals().items():
            start = time.perf_counter()
            separator.separate(signal, 44_100)
            best[name] = min(best.get(name, np.inf), time.perf_counter() - start)
    reference = next(iter(best.values()))
    for name, seconds in best.items():
        print(f"{name:24s} {seconds / reference:.2f}")


if __name__ == "__main__":
    main()
