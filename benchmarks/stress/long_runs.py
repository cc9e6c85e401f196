"""Memory, threads and file handles over many songs in one process.

    python benchmarks/stress/long_runs.py --files 300 --calls 500

Separates short files of several formats through the command, then arrays through
`Separator.separate`, and prints a table. All columns should stay flat.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

import numpy as np
import soundfile
import torch
from click.testing import CliRunner

from unetsep.cli import main as command
from unetsep.separator import Separator


def state() -> str:
    """Resident memory, threads and handles of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if len(line.split()) > 1}
    handles = len(list(Path("/proc/self/fd").iterdir()))
    memory = int(values["VmRSS"]) / 1024
    return f"{memory:8.1f} MiB  {values['Threads']:>3} threads  {handles:>3} handles"


def make_songs(folder: Path, count: int) -> None:
    """Short files in turns of format, rate and channels."""
    rng = np.random.default_rng(0)
    kinds = [("wav", 44_100, 2), ("flac", 48_000, 1), ("mp3", 44_100, 2), ("ogg", 22_050, 2)]
    for i in range(count):
        suffix, rate, channels = kinds[i % len(kinds)]
        audio = 0.1 * rng.standard_normal((2 * rate, 1)) * np.linspace(0.5, 1, channels)
        soundfile.write(folder / f"song {i:03}.{suffix}", audio, rate)


def main() -> None:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        make_songs(folder / "in", options.files)
        songs = sorted((folder / "in").iterdir())
        step = max(1, options.files // 6)
        # One command for each share of the files, in this process: what one leaves behind stays.
        for i in range(0, len(songs), step):
            arguments = ["separate", "-q", "-m", options.model, "-o", str(folder / "out"), "-f"]
            arguments += [("wav", "flac", "mp3", "ogg")[i // step % 4]]
            result = CliRunner().invoke(command, [*arguments, *map(str, songs[i : i + step])])
            assert result.exit_code == 0, result.output
            print(f"{i + len(songs[i : i + step]):>4} files  {state()}", flush=True)
    separator = Separator(options.model)
    mixture = np.random.default_rng(0).standard_normal((2, 88_200)).astype(np.float32)
    mixture[1] += mixture[0]
    first = separator.separate(mixture, 44_100)
    for i in range(1, options.calls + 1):
        stems = separator.separate(mixture, 44_100)
        assert all(np.array_equal(stems[stem], first[stem]) for stem in stems)
        if i % max(1, options.calls // 5) == 0:
            print(f"{i:>4} calls  {state()}", flush=True)
    print(f"{threading.active_count()} Python threads")


if __name__ == "__main__":
    main()
