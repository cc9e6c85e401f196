"""What all benchmarks share: songs, processes and their use, the machine, results on disk."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

RATE = 44_100
ROOT = Path(__file__).parent.parent
UNETSEP = (sys.executable, "-m", "unetsep")  # the command; see `checkout`
MIB = 1024 if sys.platform != "darwin" else 1024**2  # what ru_maxrss counts, in MiB


def seconds(run: Callable[..., object], *arguments: Any) -> float:
    """Time that a call takes."""
    start = time.perf_counter()
    run(*arguments)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Use:
    """What one process took from its start to its end, with all the processes it started.

    Parameters
    ----------
    wall, cpu
        Seconds of the clock, and of all cores together.
    peak_mib
        Largest resident memory of any one of the processes.
    """

    wall: float
    cpu: float
    peak_mib: float


def measure(
    command: Sequence[str | Path],
    environment: Mapping[str, str] | None = None,
    cores: Sequence[int] | None = None,
) -> Use:
    """Run a command to its end; exit with its output if it fails.

    Parameters
    ----------
    command
        Program and arguments.
    environment
        Variables on top of the present ones.
    cores
        Numbers of the cores it may use: programs then also start that many threads.
    """
    words = [str(word) for word in command]
    if cores is not None:
        words = ["taskset", "-c", ",".join(map(str, cores)), *words]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            words, env={**os.environ, **(environment or {})}, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            log.seek(0)
            sys.exit(f"{' '.join(words)} failed: {log.read().decode(errors='replace')[-4000:]}")
    return Use(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / MIB)


def checkout(folder: Path = ROOT) -> dict[str, str]:
    """Variables with which Python runs the unetsep of a checkout.

    Without the safe path the folder where a benchmark is started would come first.
    """
    return {"PYTHONPATH": str(folder.resolve()), "PYTHONSAFEPATH": "1"}


def synthesise(path: Path, seconds: float) -> None:
    """Write a stereo song of tones, beats and noise, 44.1 kHz and 16 bits, block by block.

    It stays far below full scale: a stem beyond that is kept as floats until its peak is known.
    Some hours of noise would exceed full scale, and ten seconds would not.
    """
    random = np.random.default_rng(0)
    remaining = round(seconds * RATE)
    with soundfile.SoundFile(str(path), "w", RATE, 2, "PCM_16", format="WAV") as file:
        second = 0
        while remaining > 0:
            time_ = np.arange(min(RATE, remaining)) / RATE
            tones = sum(
                0.05 * np.sin(2 * np.pi * f * time_) for f in (110, 220, 440 + second % 200)
            )
            noise = random.standard_normal((len(time_), 2)).clip(-3, 3)
            beat = 0.3 * noise * np.exp(-10 * (time_ % 0.5))[:, None]
            file.write((tones[:, None] + beat) * 0.7)
            remaining -= len(time_)
            second += 1


def excerpt(song: Path, path: Path, seconds: float) -> None:
    """Write that much of a song as 16-bit wav, repeated if it is short."""
    audio, rate = soundfile.read(song, dtype="float32", always_2d=True)
    samples = round(seconds * rate)
    copies = -(-samples // len(audio))
    soundfile.write(path, np.tile(audio, (copies, 1))[:samples], rate, "PCM_16")


def cpu_name() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Processor, cores, system, versions and date, for the head of a table."""
    return {
        "cpu": cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "numpy")},
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }


def save(path: Path | None, results: Any) -> None:
    """Write results and the machine as JSON, if a path was given."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "results": results}
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, Use) else float(value)
