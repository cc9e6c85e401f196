"""The log of a run: one JSON object a line, and the curves drawn from it."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only


def is_main_process() -> bool:
    """Whether this process is the run's first, which alone writes its folder."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


class JsonLinesLogger(Logger):
    """Appends ``{"step": ..., name: value, ...}`` to a file.

    Numbers that JSON does not have (NaN) are written as null.

    Parameters
    ----------
    path
        The file; lines of steps later than ``first_step`` are removed, because a resumed run
        writes them again.
    first_step
        Steps that are already done.
    """

    def __init__(self, path: Path, first_step: int = 0) -> None:
        super().__init__()
        self.path = path
        if is_main_process() and path.exists():
            kept = [line for line in read_log(path) if line["step"] <= first_step]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def version(self) -> str:
        """There is only one."""
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
    """Lines of a log; one cut short by a crash is left out."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:  # noqa: PERF203
            continue
    return lines


def draw_curves(log: Path, picture: Path) -> None:
    """Draw training losses and validation SDR of a log as a PNG."""
    from matplotlib.figure import Figure

    curves: dict[str, list[tuple[int, float]]] = {}
    for line in read_log(log):
        for key, value in line.items():
            if isinstance(value, float):
                curves.setdefault(key, []).append((line["step"], value))
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for key, points in sorted(curves.items()):
        kind, _, label = key.partition("/")
        steps, values = zip(*points, strict=True)
        if kind == "train":
            # Relative to the start, so that losses of any scale share one axis.
            losses.plot(steps, [v / values[0] for v in values], label=label, linewidth=0.8)
        elif kind == "valid" and len(curves) <= 40:
            style = "-" if label.endswith("mean") else ":"
            scores.plot(steps, values, style, label=label)
    losses.set(xlabel="step", ylabel="training loss / first", yscale="log")
    scores.set(xlabel="step", ylabel="validation SDR in dB")
    for axes in (losses, scores):
        axes.grid(visible=True, alpha=0.3)
        if axes.lines:
            axes.legend(fontsize="x-small")
    figure.savefig(picture, dpi=120)
