"""The log of a run: one JSON object a line, and the curves drawn from it."""

from __future__ import annotations

import io
import json
import math
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ..storage import write_atomically


def is_main_process() -> bool:
    """Whether this process is the run's first, the only one that writes its folder."""
    # Before the trainer exists, the first process of another machine has no rank yet.
    node = int(os.environ.get("NODE_RANK", os.environ.get("GROUP_RANK", 0)))
    return int(getattr(rank_zero_only, "rank", 0)) == 0 and node == 0


class JsonLinesLogger(Logger):
    """Appends ``{"step": ..., name: value, ...}`` to a file.

    Numbers that JSON does not have (NaN) are written as null.

    Parameters
    ----------
    path
        The file; lines of steps later than ``first_step`` are removed, because a resumed run
        writes them again.
    first_step
        Steps that are already completed.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        super().__init__()
        self.path = path
        if is_main_process() and path.exists():
            lines = [line for line in read_log(path) if line["step"] <= first_step]
            write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines))

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def version(self) -> str:
        """Empty: a run has one log."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kw: Any) -> None:
        """Nothing: the run folder holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a line."""
        clean = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **clean}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a log, without those that a crash or a damaged disk left incomplete.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict) and isinstance(content.get("step"), int):
            lines.append(content)
    return lines


def draw_curves(log: Path, picture: Path, *, clips: int) -> None:
    """Draw a log as a PNG: a panel for training losses, one for each stem's validation SDR.

    A loss has one colour in all panels; training losses are drawn relative to the size of their
    first value, so that losses of any scale share an axis.

    Parameters
    ----------
    log, picture
        Files.
    clips
        How many a step takes. Curves are drawn by clips seen, so that runs with batches of
        different sizes can be compared.

    Raises
    ------
    OSError
        If the log cannot be read or the picture not be written; an older picture stays.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = _read_curves(log)
    losses = sorted({loss for panel in curves.values() for loss in panel})
    # The mean over stems comes right after the losses.
    names = sorted(curves, key=lambda name: {"": 0, "mean": 1}.get(name, 2))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4 * columns, 3 * rows), layout="constrained")
    lines: dict[str, Any] = {}
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for number, loss in enumerate(losses):
            if points := curves[name].get(loss):
                steps, values = np.array(points).T
                curve = values if name else values / (abs(values[0]) or 1.0)
                mark = ".-" if name else "-"
                (lines[loss],) = axes.plot(steps * clips, curve, mark, color=f"C{number}")
        title = f"validation SDR in dB, {name}" if name else "training loss / first"
        axes.set(xlabel="clips seen", title=title)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.grid(visible=True, alpha=0.3)
    if lines:
        figure.legend(list(lines.values()), list(lines), loc="outside lower center", ncols=7)
    content = io.BytesIO()
    figure.savefig(content, dpi=100)
    write_atomically(picture, content.getvalue())


def _read_curves(log: Path) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Steps and values of each loss in a log: of ``""`` itself, of each stem, of their ``mean``."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {"": {}}
    for line in read_log(log):
        for key, value in line.items():
            kind, _, label = key.partition("/")
            if kind in ("train", "valid") and isinstance(value, float):
                loss, _, stem = label.partition("/")
                points = curves.setdefault(stem, {}).setdefault(loss, [])
                points.append((line["step"], value))
    return curves
