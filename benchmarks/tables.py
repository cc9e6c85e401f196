"""Tables of docs/research/performance.md from JSON: ``python benchmarks/tables.py FOLDER``.

Reads what the other benchmarks wrote with ``--json``: peers.json, stages.json, network.json,
scaling.json, startup.json, gpu.json, and prints Markdown for those that exist.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def peers(results: Any) -> list[str]:
    """Wall clock, CPU time and memory of every tool on every song."""
    lines = []
    for result in results["lengths"]:
        lines += ["", f"{result['seconds']:g} s of audio:", ""]
        lines += table(
            ["tool", "wall clock", "times real time", "CPU", "peak memory", "times unetsep's time"],
            (
                [
                    row["tool"],
                    f"{row['wall']:.2f} s",
                    f"{row['times_real_time']:.1f}",
                    f"{row['cpu']:.1f} s",
                    f"{row['peak_mib']:.0f} MiB",
                    f"{row['times_as_long']:.2f} ({row['least']:.2f} to {row['most']:.2f})",
                ]
                for row in result["rows"]
            ),
        )
    tools = results["tools"].items()
    descriptions = (
        f"{name}: {' '.join(' '.join(v) for v in packages.items())}" for name, packages in tools
    )
    return [*lines, "", "; ".join(descriptions)]


def stages(results: Any) -> list[str]:
    """CPU seconds of each stage, a column for each checkout."""
    rows: list[list[object]] = [
        [stage, *(f"{result['stages'][stage]:.2f}" for result in results)]
        for stage in results[0]["stages"]
    ]
    rows.append(["sum", *(f"{sum(result['stages'].values()):.2f}" for result in results)])
    rows.append(["wall clock, all cores", *(f"{result['wall']:.2f}" for result in results)])
    return table(["stage, CPU s", *(result["name"] for result in results)], rows)


def network(results: Any) -> list[str]:
    """Rates of the networks."""
    head = ["network", "precision", "GFLOP", "time", "GFLOP/s", "matrix product", "share"]
    return table(
        head,
        (
            [
                row["network"],
                row["precision"],
                f"{row['gflop']:.2f}",
                f"{1000 * row['seconds']:.1f} ms",
                f"{row['gflops']:.0f}",
                f"{row['matmul_gflops']:.0f}",
                f"{row['share']:.0%}",
            ]
            for row in results["rows"]
        ),
    )


def scaling(results: Any) -> list[str]:
    """Time and memory against length, with the fitted lines."""
    lines = table(
        ["song", "threads", "wall clock", "times real time", "peak memory"],
        (
            [
                f"{row['seconds']:g} s",
                row["threads"],
                f"{row['wall']:.2f} s",
                f"{row['seconds'] / row['wall']:.1f}",
                f"{row['peak_mib']:.0f} MiB",
            ]
            for row in results["rows"]
        ),
    )
    lines.append("")
    for line in results["fits"]:
        slope = f"{1000 * line['slope']:.2f} ms for each second of the song"
        off = f"no length is off by more than {line['largest_error']:.0%}"
        lines.append(f"- {line['threads']} threads: {line['start']:.2f} s + {slope}; {off}")
    songs = results["folder"]
    return [
        *lines,
        f"- {songs['songs']} songs of {songs['each']:g} s in one process: {songs['folder']:.2f} s; "
        f"one of them alone: {songs['one']:.2f} s",
    ]


def startup(results: Any) -> list[str]:
    """Seconds to begin."""
    rows = ([name, f"{seconds:.2f} s"] for name, seconds in results["wall"].items())
    return table(["process", "wall clock"], rows)


def gpu(results: Any) -> list[str]:
    """Times real time by model and precision."""
    head = ["model", "precision", "network alone", "one song", "several songs"]
    head += ["network's share of one song"]
    return [
        f"{results['device']}, times real time:",
        "",
        *table(
            head,
            (
                [
                    row["model"],
                    row["precision"],
                    f"{row['network']:.0f}",
                    f"{row['long']:.0f}",
                    f"{row['folder']:.0f}",
                    f"{row['network_share']:.0%}",
                ]
                for row in results["rows"]
            ),
        ),
    ]


TABLES: dict[str, Callable[[Any], list[str]]] = {
    "peers": peers,
    "stages": stages,
    "network": network,
    "scaling": scaling,
    "startup": startup,
    "gpu": gpu,
}


def main() -> None:
    """Print a section for each file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, render in TABLES.items():
        path = folder / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text())
            machine = content["machine"]
            print(f"\n## {name}\n")
            print(
                f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python "
                f"{machine['python']}, {machine['versions']}, {machine['date']}\n"
            )
            print("\n".join(render(content["results"])))


if __name__ == "__main__":
    main()
