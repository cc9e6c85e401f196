"""Peak memory of ``unetsep separate`` against the length of the song.

    python benchmarks/memory.py --minutes 10 120

Synthetic stereo audio at 44.1 kHz, 16 bit; each length in a process of its own, whose
peak resident memory the operating system reports. Needs about 1.5 GB of disk for each ten
minutes of the longest song.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100


def synthesise(path: Path, minutes: float) -> None:
    """Write a song of tones, beats and noise, block by block."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(str(path), "w", RATE, 2, "PCM_16", format="WAV") as file:
        for second in range(round(minutes * 60)):
            time_ = np.arange(RATE) / RATE
            tones = sum(
                0.05 * np.sin(2 * np.pi * f * time_) for f in (110, 220, 440 + second % 200)
            )
            beat = 0.3 * rng.standard_normal((RATE, 2)) * np.exp(-10 * (time_ % 0.5))[:, None]
            file.write((tones[:, None] + beat) * 0.7)


def measure(minutes: float, folder: Path) -> dict[str, float]:
    """Separate one length, return peak memory and time."""
    song = folder / "song.wav"
    synthesise(song, minutes)
    output = folder / "out"
    command = [sys.executable, "-m", "unetsep", "separate", str(song), "-o", str(output), "-q"]
    begun = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    elapsed = time.perf_counter() - begun
    if status:
        raise SystemExit(f"separation of {minutes} minutes failed with status {status}")
    for stem in output.rglob("*.wav"):
        assert soundfile.info(str(stem)).frames == round(minutes * 60) * RATE
        stem.unlink()
    song.unlink()
    return {
        "minutes": minutes,
        "peak_mib": usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2),
        "times_real_time": minutes * 60 / elapsed,
    }


def main() -> None:
    """Measure, print a table, write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 10, 120])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure(minutes, Path(folder)))
        print(
            "{minutes:7.1f} min  {peak_mib:8.0f} MiB  {times_real_time:6.1f}x real time".format(
                **rows[-1]
            ),
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
