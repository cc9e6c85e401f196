"""What a training step takes on a GPU, and how much of that the GPU itself works.

    python benchmarks/train_gpu.py --json train_gpu.json

Trains on noise like ``unetsep train --resident``, with all the work of a run's step. Clips are
drawn, cut and changed, gradients are clipped, the optimiser steps, weights are averaged. The step
is recorded as a CUDA graph and, for comparison, is not. A row holds the milliseconds of a step,
those in which the GPU is busy (the union of all its kernels and copies, by CUPTI), their ratio, and
the number of launches in a step. The aim is a
ratio of at most 1.3 for the recorded step. ``--device cpu`` runs the same on a CPU, only to see
that it works.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import Callback
from record import RATE, save

from unetsep.config import STEMS
from unetsep.train.config import TrainConfig
from unetsep.train.data.recording import Recording, recording_from_arrays
from unetsep.train.fit import fit
from unetsep.train.graph import WARM_UP
from unetsep.train.machine import Machine
from unetsep.weights.load import load_network

# All kinds of changes that the recipe of the default model makes to clips.
CLIPS: dict[str, Any] = {
    "varispeed": 0.12,
    "coherent_varispeed": 0.25,
    "eq_db": 4.0,
    "stereo_share": 0.3,
    "drive_share": 0.3,
    "second_share": {"vocals": 0.3, "drums": 0.1, "other": 0.5},
    "coherent_share": 0.7,
}
# Kinds of what a trace holds: what a GPU does, and calls of the driver.
WORK, CALLS = ("kernel", "gpu_memcpy", "gpu_memset"), ("cuda_runtime", "cuda_driver")


class Stopwatch(Callback):
    """Times some steps of a run, then traces some others.

    Parameters
    ----------
    untimed, steps, traced
        How many are not timed, timed, and traced.
    """

    def __init__(self, untimed: int, steps: int, traced: int) -> None:
        self.first, self.last = untimed, untimed + steps
        self.end = self.last + traced
        self.seconds = 0.0
        self.trace: list[dict[str, Any]] = []

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        """Begin to time, or to trace."""
        if trainer.global_step == self.first:
            synchronize()
            self.start_time = time.perf_counter()
        if trainer.global_step == self.last and torch.cuda.is_available():
            synchronize()
            self.profiler = torch.profiler.profile(
                activities=[torch.profiler.ProfilerActivity.CUDA]
            )
            self.profiler.start()

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """End timing or tracing."""
        if trainer.global_step == self.last:
            synchronize()
            self.seconds = (time.perf_counter() - self.start_time) / (self.last - self.first)
        if trainer.global_step == self.end and torch.cuda.is_available():
            synchronize()
            self.profiler.stop()
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "trace.json"
                self.profiler.export_chrome_trace(str(path))
                self.trace = json.loads(path.read_text())["traceEvents"]


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def busy(trace: Iterable[dict[str, Any]]) -> float:
    """Seconds in which the GPU does at least one of the things of a trace."""
    total = end = 0.0
    spans = [(each["ts"], each["ts"] + each["dur"]) for each in trace if each.get("cat") in WORK]
    for start, stop in sorted(spans):  # microseconds
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total / 1e6


def launches(trace: Iterable[dict[str, Any]]) -> int:
    """How often the driver was called to start something."""
    return sum("Launch" in each["name"] for each in trace if each.get("cat") in CALLS)


def recordings(count: int, seconds: float) -> list[Recording]:
    """Noise in four stems."""
    rng = np.random.default_rng(0)
    shape = (int(seconds * RATE), 2)
    return [
        recording_from_arrays(
            f"noise {number}",
            {stem: rng.normal(0, 3000, shape).astype(np.int16) for stem in STEMS},
        )
        for number in range(count)
    ]


def measure(
    config: TrainConfig,
    songs: Sequence[Recording],
    machine: Machine,
    watch: Stopwatch,
    **settings: Any,
) -> dict[str, float]:
    """Train for as many steps as the stopwatch wants."""
    with tempfile.TemporaryDirectory() as folder:
        fit(config, songs, songs[:1], folder, machine=machine, callbacks=[watch], **settings)
    row = {"ms": round(1000 * watch.seconds, 2)}
    if watch.trace:
        trace_steps = watch.end - watch.last
        row["gpu_ms"] = round(1000 * busy(watch.trace) / trace_steps, 2)
        row["ratio"] = round(row["ms"] / row["gpu_ms"], 2)
        row["launches"] = launches(watch.trace) / trace_steps
    return row


def main() -> None:
    """Print a row for each precision, with steps that are recorded and not."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="gpu", choices=["gpu", "cpu"])
    parser.add_argument("--model", default="default", help="to start from")
    parser.add_argument("--loss", nargs="+", default=["mse"], help="a network for each")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--clip-frames", type=int, default=256)
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--traced", type=int, default=20)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    on_cpu = options.device == "cpu"
    songs = recordings(2, 3.0) if on_cpu else recordings(20, 15.0)
    # On a GPU those before the recording, and some in which memory is allocated.
    untimed = 1 if on_cpu else WARM_UP + 20
    rows: list[dict[str, Any]] = []
    for precision in options.precision:
        for recorded in [False] if on_cpu else [True, False]:
            watch = Stopwatch(untimed, options.steps, options.traced)
            config = TrainConfig(
                losses=tuple(options.loss),
                model=load_network(options.model).config,
                batch_size=options.batch_size,
                clip_frames=options.clip_frames,
                precision=precision,
                max_steps=watch.end,
                valid_every=10 * watch.end,
                **CLIPS,
            )
            machine = Machine(
                options.device, workers=options.workers, resident=True, graph=recorded
            )
            row = measure(config, songs, machine, watch, init_from=options.model)
            rows.append({"precision": precision, "recorded": recorded} | row)
            print(*(f"{name} {value}" for name, value in rows[-1].items()), sep="  ", flush=True)
    device_name = torch.cuda.get_device_name() if not on_cpu else "cpu"
    save(options.json, {"device": device_name, "batch_size": options.batch_size, "rows": rows})


if __name__ == "__main__":
    main()
