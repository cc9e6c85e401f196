"""How long it takes to begin: help, a ten-second clip, and what Spleeter needs to load.

    python benchmarks/startup.py --json startup.json

Whole processes in turn, medians. Spleeter's load is its own command on a hundredth of a
second of audio: imports, model and graph, and next to nothing to separate.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from environments import TOOLS, default_cache
from record import UNETSEP, Use, checkout, measure, save, synthesise


def main() -> None:
    """Measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=default_cache(), help="for environments")
    parser.add_argument("--pip-args", default="", help="such as another index")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    tool, spleeter = (
        TOOLS[name](options.cache.resolve(), shlex.split(options.pip_args))
        for name in ("unetsep", "spleeter")
    )
    with tempfile.TemporaryDirectory() as folder:
        clip, moment, stems = (Path(folder) / name for name in ("clip.wav", "moment.wav", "out"))
        synthesise(clip, 10)
        synthesise(moment, 0.01)
        runs: dict[str, Callable[[], Use]] = {
            "unetsep --help": lambda: measure([*UNETSEP, "--help"], checkout()),
            "import torch": lambda: measure([sys.executable, "-c", "import torch"]),
            "unetsep, 10 s": lambda: measure(tool.command(clip, stems), tool.variables),
            "spleeter, load": lambda: measure(spleeter.command(moment, stems), spleeter.variables),
        }
        uses: dict[str, list[Use]] = {name: [] for name in runs}
        for _ in range(options.rounds):
            for name, run in runs.items():
                uses[name].append(run())
    rows = {
        name: statistics.median(use.wall for use in process_uses)
        for name, process_uses in uses.items()
    }
    for name, seconds in rows.items():
        cpu = statistics.median(use.cpu for use in uses[name])
        print(f"{name:16} {seconds:7.3f} s  {cpu:6.2f} CPU s")
    save(options.json, {"wall": rows, "runs": uses, "versions": tool.versions | spleeter.versions})


if __name__ == "__main__":
    main()
