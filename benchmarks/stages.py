"""Where the time of ``unetsep separate`` goes, from the start of the process to its end.

    python benchmarks/stages.py [SONG.wav] [--source OTHER_CHECKOUT]

Runs the command in a process of its own with one thread, and counts the CPU seconds of each
stage by wrapping the functions that do it. Threads do not compete and other programs disturb
little that way; the clock of a run with all cores is measured beside it.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Stage: the functions that take its time, less that of other stages which they call.
STAGES = {
    "weights": [
        "weights.load:load_checkpoint",
        "ensemble:load_checkpoint",
        "network.inference:InferenceUNet.__init__",
        "network.guided:InferenceGuided.__init__",
    ],
    "decode": [
        "audio.libsndfile:LibsndfileDecoder.read",
        "audio.libsndfile:LibsndfileDecoder.__init__",
    ],
    "resample": ["dsp.resample:StreamResampler.push", "dsp.resample:Residual.push"],
    "STFT": ["dsp.spectrogram:StreamingSTFT.push", "dsp.spectrogram:StreamingSTFT.flush"],
    "network": ["separator:Separator.estimate"],
    "gate": ["ensemble:gate_"],
    "filter": ["dsp.wiener:WienerFilter._refined"],
    "masks": ["dsp.signal_path:SongPass._advance"],
    "inverse STFT": ["dsp.spectrogram:StreamingISTFT.push"],
    "encode and write": [
        "dsp.transfer:pack",
        "audio.stem_files:StemFiles.write",
        "audio.stem_files:StemFiles._write_integers",
        "audio.stem_files:StemFiles._convert",
    ],
    "publish": ["audio.stem_files:StemFiles.commit"],
}
# Places of a stage in older checkouts, with which this one may be compared.
OLD_PLACES = {
    "weights": ["separator:load_checkpoint"],
    "gate": ["separator:gated", "separator:gate_"],
    "masks": ["dsp.passes:SongPass._advance", "dsp.song_stream:SongStream._advance"],
}
spent: dict[str, float] = defaultdict(float)
local = threading.local()


def timed(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its CPU time counted, less that of stages inside it."""

    @functools.wraps(run)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        start, outer = time.thread_time(), getattr(local, "inside", 0.0)
        local.inside = 0.0
        try:
            return run(*arguments, **options)
        finally:
            total = time.thread_time() - start
            spent[stage] += total - local.inside
            local.inside = outer + total

    return wrapper


def wrap() -> None:
    """Count the time of every function of `STAGES` and `OLD_PLACES` that exists."""
    import importlib

    for stage, places in STAGES.items():
        for place in [*places, *OLD_PLACES.get(stage, [])]:
            module, _, name = place.partition(":")
            try:
                owner: Any = importlib.import_module(f"unetsep.{module}")
            except ImportError:  # another checkout
                continue
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            if hasattr(owner, last):
                setattr(owner, last, timed(stage, getattr(owner, last)))


def load_torch() -> None:
    """Import torch as the command does."""
    try:
        from unetsep.cli.startup import import_torch
    except ImportError:  # an older checkout
        import torch  # noqa: F401
    else:
        import_torch()


def load_others() -> None:
    """Import all else that separating needs."""
    import unetsep.cli.separate  # noqa: F401


def child(arguments: list[str]) -> None:
    """Run the command line, and print the seconds of each stage."""
    spent["interpreter"] = time.process_time()
    for stage, load in (("import torch", load_torch), ("other imports", load_others)):
        start = time.process_time()
        load()
        spent[stage] = time.process_time() - start
    start = time.process_time()
    wrap()
    spent["interpreter"] += time.process_time() - start
    from unetsep.cli import main

    try:
        main(arguments, standalone_mode=False)
    finally:
        spent["rest"] = time.process_time() - sum(spent.values())
        sys.stdout.write(json.dumps(spent) + "\n")


def profile(source: Path, words: list[str]) -> dict[str, float]:
    """CPU seconds of each stage, in the order of the signal."""
    from record import checkout  # not before the child starts to count

    command = [sys.executable, __file__, "--child", *words, "--threads", "1"]
    variables = {**os.environ, **checkout(source), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    seconds: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    order = ["interpreter", "import torch", "other imports", *STAGES, "rest"]
    return {stage: seconds.get(stage, 0.0) for stage in order}


def memory_rate(megabytes: int = 256, rounds: int = 5) -> float:
    """GB/s of ``a = b + 3 c`` by one thread, three arrays that no cache holds (McCalpin 1995)."""
    import torch

    torch.set_num_threads(1)
    a, b, c = torch.ones(3, megabytes << 18).unbind()
    least = math.inf
    for _ in range(rounds):
        start = time.perf_counter()
        torch.add(b, c, alpha=3, out=a)
        least = min(least, time.perf_counter() - start)
    return 3 * a.nbytes / least / 1e9


def main() -> None:
    """Print a table; write JSON if requested."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    from record import ROOT, UNETSEP, checkout, measure, save, synthesise

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path, help="default: a synthetic one")
    parser.add_argument("--seconds", type=float, default=180.0, help="of the synthetic song")
    parser.add_argument("--source", type=Path, nargs="+", default=[ROOT], help="checkouts")
    parser.add_argument("--name", nargs="+", help="what to call them")
    parser.add_argument("--model", default="default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = options.name or [source.resolve().name for source in options.source]
    if len(names) != len(options.source) or len({*names}) < len(names):
        parser.error(f"each checkout needs a name of its own, by --name; here: {', '.join(names)}")
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    walls: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        song = options.song or Path(folder) / "song.wav"
        if options.song is None:
            synthesise(song, options.seconds)
        words = ["separate", str(song), "-q", "--overwrite", "-o", str(Path(folder) / "out")]
        words += ["--bit-depth", "16", "--model", options.model]
        command = [*UNETSEP, *words]
        for _ in range(options.rounds):  # in turn, so that a busy machine treats all alike
            for name, source in zip(names, options.source, strict=True):
                stages[name].append(profile(source, words))
                walls[name].append(measure(command, checkout(source)).wall)
    results: list[dict[str, Any]] = []
    rate = memory_rate()
    print(f"memory moves {rate:.1f} GB/s by one thread (STREAM's triad)")
    for name in names:
        least = {stage: min(row[stage] for row in stages[name]) for stage in stages[name][0]}
        wall = min(walls[name])
        results.append({"name": name, "stages": least, "wall": wall, "memory_gb_s": rate})
        print(f"{name}: {min(walls[name]):.2f} s by the clock, all cores")
        for stage, seconds in (*least.items(), ("sum", sum(least.values()))):
            print(f"  {stage:18} {seconds:7.3f} CPU s")
    save(options.json, results)


if __name__ == "__main__":
    main()
