"""Pictures of a report: Tang's Figure 2 and Table 1 (see `published`), tracks, errors by band."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...storage import write_atomically
from .measures import BANDS
from .report import EvaluationReport, Row, definition, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


# Wong's palette (Nature Methods, 2011), and two of Tol's: more than ten look alike.
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#882255",
    "#999933", "#f0e442",
)  # fmt: skip
GREY = "#9a9a9a"
BASELINE_MARKERS = ("_", "x", "1", "2", "+")
DPI = 150


def write_figures(report: EvaluationReport, folder: Path) -> list[Path]:
    """Write ``figure2.png``, ``table1.png``, ``tracks.png`` and, of ``lsd``, ``bands.png``.

    Of several sets of stems the first has these names, others ``figure2-vocals-accompaniment.png``
    and so on: scores of two sets never share a picture.

    Parameters
    ----------
    report
        With at least one scored track.
    folder
        Must exist.
    """
    paths = []
    for number, (stems, rows) in enumerate(report.sets.items()):
        part = replace(report, rows=rows)
        figures = {"figure2": box_plot(part), "table1": table(part), "tracks": scatter(part)}
        if set(BANDS) <= set(report.measures):
            figures["bands"] = bands(part)
        for name, figure in figures.items():
            paths.append(folder / f"{'-'.join((name, *(stems if number else ())))}.png")
            content = io.BytesIO()
            figure.savefig(content, dpi=DPI)
            write_atomically(paths[-1], content.getvalue())
    return paths


def box_plot(report: EvaluationReport) -> Figure:
    """SDR of a set's first stem over tracks, one box per method; baselines in grey.

    Boxes span the quartiles, whiskers the data within 1.5 times that range. The first stem is
    ``vocals`` where there are some: Tang's Figure 2 shows these.
    """
    stem = _stems(report)[0]
    rows = [row for row in report.rows if _finite(row, stem)]
    figure = _figure(2 + 0.8 * max(len(rows), 3), 4.5)
    axes = figure.subplots()
    axes.set_ylabel(f"SDR of {stem} (dB)")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    if rows:
        scores = [_finite(row, stem) for row in rows]
        boxes = axes.boxplot(scores, widths=0.6, patch_artist=True, flierprops={"markersize": 3})
        for patch, row, colour in zip(boxes["boxes"], rows, _colours(rows), strict=True):
            patch.set(facecolor=colour, alpha=0.35 if row.kind == "baseline" else 0.75)
        for line in boxes["medians"]:
            line.set(color="black")
        _name_rows(axes, rows)
    axes.set_title(summary(report), fontsize=6, wrap=True)
    return figure


def table(report: EvaluationReport) -> Figure:
    """Median SDR of the stems of one set with intervals, as a picture of a table."""
    stems = _stems(report)
    head = ["method", *stems, "mean"]
    cells = [
        [row.label, *(str(x).replace(" [", "\n[") for x in (*map(row.interval, stems), row.mean()))]
        for row in report.rows
    ]
    figure = _figure(9.5, 1.0 + 0.42 * (len(cells) + 1))
    axes = figure.subplots()
    axes.axis("off")
    widths = [0.25, *[0.75 / (len(head) - 1)] * (len(head) - 1)]
    grid = axes.table(cells, colLabels=head, colWidths=widths, loc="center", cellLoc="center")
    grid.auto_set_font_size(False)
    grid.set_fontsize(8)
    grid.scale(1, 2)
    for (line, column), cell in grid.get_celld().items():
        cell.set_edgecolor("#cccccc")
        if line == 0:
            cell.set_text_props(weight="bold")
        if column == 0:
            cell.set_text_props(ha="left")
    axes.set_title(definition(report), fontsize=6, wrap=True)
    return figure


def scatter(report: EvaluationReport) -> Figure:
    """SDR of every track, one panel per stem, tracks sorted by the first method's SDR.

    Tracks that it was not scored on come after them, sorted by the next method's.
    """
    stems = _stems(report)
    figure, panels = _panels(len(stems))
    for axes, stem in zip(panels, stems, strict=True):
        rows = [row for row in report.rows if _finite(row, stem)]
        order = list(dict.fromkeys(track for row in rows for track in _order(row, stem)))
        baselines = [row.name for row in rows if row.kind == "baseline"]
        for row, colour in zip(rows, _colours(rows), strict=True):
            marker = "o"
            if row.name in baselines:
                marker = BASELINE_MARKERS[baselines.index(row.name) % len(BASELINE_MARKERS)]
            scores = [row.tracks[t].median(stem) if t in row.tracks else math.nan for t in order]
            places = range(len(order))
            axes.scatter(places, scores, s=12, marker=marker, color=colour, label=row.label)
        axes.set_title(stem, fontsize=10)
        axes.set_xlabel(_ranks(axes, rows, len(order)), fontsize=8)
        axes.set_ylabel("SDR (dB)", fontsize=8)
        axes.grid(alpha=0.3)
    _add_legend(figure)
    return figure


def _ranks(axes: Axes, rows: list[Row], count: int) -> str:
    """Number tracks from 1, only at whole numbers; returns the label of the numbers."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{round(place) + 1}"))
    axes.set_xlim(-0.6, max(count, 1) - 0.4)
    return f"track, from the lowest SDR of {rows[0].label}" if rows else "track"


def bands(report: EvaluationReport) -> Figure:
    """Log-spectral distance by band of frequencies, a panel for each stem, a line for each method.

    Points are medians over tracks, bars their intervals.

    Parameters
    ----------
    report
        Of one set, with the measures ``lsd``.
    """
    stems = _stems(report)
    figure, panels = _panels(len(stems), sharex=True)
    rows, colours = report.rows, _colours(report.rows)
    labels = [name.removeprefix("lsd-").replace("-", " to ") for name in BANDS]
    for axes, stem in zip(panels, stems, strict=True):
        for number, (row, colour) in enumerate(zip(rows, colours, strict=True)):
            intervals = [row.interval(stem, name) for name in BANDS]
            values = [each.value for each in intervals]
            spans = [
                [each.value - each.low for each in intervals],
                [each.high - each.value for each in intervals],
            ]
            places = [
                place + 0.6 * ((number + 0.5) / len(rows) - 0.5) for place in range(len(BANDS))
            ]
            axes.errorbar(
                places, values, spans, marker="o", ms=4, lw=1, color=colour, label=row.label
            )
        axes.set_xticks(range(len(labels)), labels)
        axes.set_title(stem, fontsize=10)
        axes.set_xlabel("band in Hz", fontsize=8)
        axes.set_ylabel("log-spectral distance (dB)", fontsize=8)
        axes.grid(axis="y", alpha=0.3)
        axes.tick_params(labelbottom=True, labelsize=8)
    _add_legend(figure)
    return figure


def _stems(report: EvaluationReport) -> tuple[str, ...]:
    """The set of a report of one set."""
    (stems,) = report.sets
    return stems


def _order(row: Row, stem: str) -> list[str]:
    scores = {name: track.median(stem) for name, track in row.tracks.items()}
    return sorted(scores, key=lambda name: (math.isnan(scores[name]), scores[name]))


def _finite(row: Row, stem: str) -> list[float]:
    return [score for score in row.by_track(stem) if math.isfinite(score)]


def _colours(rows: Sequence[Row]) -> list[str]:
    names = [row.name for row in rows if row.kind != "baseline"]
    return [
        COLOURS[names.index(row.name) % len(COLOURS)] if row.name in names else GREY for row in rows
    ]


def _name_rows(axes: Axes, rows: list[Row]) -> None:
    axes.set_xticks(range(1, len(rows) + 1), [row.label for row in rows], rotation=25, ha="right")
    axes.tick_params(axis="x", labelsize=8)


def _panels(count: int, *, sharex: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure with some panels, two on a line."""
    lines = math.ceil(count / 2)
    figure = _figure(10, 3.5 * lines)
    # A list: numpy's flat iterator would be used up by the first loop.
    panels = list(figure.subplots(lines, 2, squeeze=False, sharex=sharex).flat)
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def _add_legend(figure: Figure) -> None:
    """Name what the first panel shows, below all panels."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8)


def _figure(width: float, height: float) -> Figure:
    # Not pyplot: it keeps every figure alive and may open a window system.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
