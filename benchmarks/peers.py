"""Time and memory of whole processes: unetsep and its model fast, Spleeter, Open-Unmix, Demucs.

    python benchmarks/peers.py --json peers.json

Every tool separates the same song into four 16-bit files with random weights of its own network,
in turn, round by round. Its process is measured from start to end; see `environments.py` for what
is built, and where. Right before each measurement the tool separates one second, which is not
counted: so its files are in memory, whatever ran before it. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import soundfile
from environments import TOOLS, Tool, default_cache
from record import Use, excerpt, measure, save, synthesise

STEMS = {"vocals", "drums", "bass", "other"}


def run(tool: Tool, song: Path, folder: Path, cores: list[int] | None) -> Use:
    """Measure one process; its four files are checked and removed."""
    shutil.rmtree(folder, ignore_errors=True)
    use = measure(tool.command(song, folder), tool.variables, cores)
    frames = soundfile.info(str(song)).frames
    stems = sorted(folder.rglob("*.wav"))
    assert {stem.stem for stem in stems} == STEMS, (tool.name, stems)
    for stem in stems:
        info = soundfile.info(str(stem))
        assert (info.frames, info.channels, info.subtype) == (frames, 2, "PCM_16"), stem
    shutil.rmtree(folder)
    return use


def compare(tools: list[Tool], song: Path, options: argparse.Namespace) -> dict[str, list[Use]]:
    """Uses of every tool, one for each round; the order changes from round to round."""
    uses: dict[str, list[Use]] = {tool.name: [] for tool in tools}
    second, stems = song.parent / "second.wav", song.parent / "stems"
    synthesise(second, 1.0)
    for index in range(options.rounds):
        shift = index % len(tools)
        for tool in tools[shift:] + tools[:shift]:
            if index > 0 and tool.name in options.once:
                continue
            run(tool, second, stems, options.cores)
            use = run(tool, song, stems, options.cores)
            uses[tool.name].append(use)
            print(
                f"  {tool.name:14} {use.wall:8.2f} s  {use.cpu:8.2f} CPU s  "
                f"{use.peak_mib:7.0f} MiB",
                flush=True,
            )
    return uses


def summary(uses: dict[str, list[Use]], seconds: float) -> list[dict[str, Any]]:
    """A row for each tool: medians, and how many times as long as unetsep, round by round."""
    baseline = uses["unetsep"]
    rows = []
    for name, tool_uses in uses.items():
        wall = statistics.median(use.wall for use in tool_uses)
        ratios = [
            use.wall / baseline_use.wall
            for use, baseline_use in zip(tool_uses, baseline, strict=False)
        ]
        rows.append(
            {
                "tool": name,
                "wall": wall,
                "cpu": statistics.median(use.cpu for use in tool_uses),
                "peak_mib": max(use.peak_mib for use in tool_uses),
                "times_real_time": seconds / wall,
                "times_as_long": statistics.median(ratios),
                "least": min(ratios),
                "most": max(ratios),
            }
        )
    return rows


def main() -> None:
    """Measure every tool on songs of every length."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--song", type=Path, help="default: a synthetic one")
    parser.add_argument("--seconds", type=float, nargs="+", default=[10, 180, 600])
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS)[:6])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--once", nargs="*", choices=list(TOOLS), default=["demucs"], help="only in the first round"
    )
    parser.add_argument("--cores", type=int, nargs="+", help="numbers of the cores to use")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="for environments")
    parser.add_argument("--pip-args", default="", help="such as another index")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = ["unetsep", *(name for name in options.tools if name != "unetsep")]
    cache = options.cache.resolve()
    if "unetsep" in options.once:
        parser.error("--once: every round is compared with unetsep")
    by_name = {name: TOOLS[name](cache, shlex.split(options.pip_args)) for name in names}
    tools = list(by_name.values())
    options.once = [by_name[name].name for name in options.once if name in by_name]
    results = []
    for seconds in options.seconds:
        with tempfile.TemporaryDirectory() as folder:
            song = Path(folder) / "song.wav"
            if options.song is None:
                synthesise(song, seconds)
            else:
                excerpt(options.song, song, seconds)
            print(f"{seconds:g} s", flush=True)
            uses = compare(tools, song, options)
        rows = summary(uses, seconds)
        results.append({"seconds": seconds, "rows": rows, "runs": uses})
        for row in rows:
            print(
                "{tool:14} {wall:8.2f} s  {times_real_time:6.1f} x real time  {cpu:8.2f} CPU s  "
                "{peak_mib:7.0f} MiB  {times_as_long:6.2f} x as long ({least:.2f} to {most:.2f})"
                "".format(**row),
                flush=True,
            )
        content = {"tools": {t.name: t.versions for t in tools}, "lengths": results}
        save(options.json, content)  # after every length: the long ones take long


if __name__ == "__main__":
    main()
