"""Measured rows of a report, and their rendering as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ...config import STEMS
from ...version import __version__
from .estimates import Method
from .evaluate import Outcome
from .leakage import pooled_median
from .measures import MEASURES
from .published import PUBLISHED
from .scoring import METRICS, TrackScores
from .statistics import COVERAGE, DRAWS, FEWEST, SEED, Interval, mean_of_medians
from .stem_sets import StemSet, ordered

LEAKAGE = (
    "energy of the estimate over that of the mixture in dB, the lower the better: median over "
    "all seconds in which the stem lies at least 50 dB below the mixture, and the mixture above "
    "-60 dBFS."
)


@dataclass(frozen=True)
class Row:
    """One method's scores on all tracks that were scored in one set of stems.

    Parameters
    ----------
    name, label, kind
        Of the method.
    stems
        The set, in the usual order; see `unetsep.train.evaluation.stem_sets`.
    tracks
        Track name to scores.
    failed
        Tracks without scores because of an error.
    """

    name: str
    label: str
    kind: str
    stems: StemSet
    tracks: dict[str, TrackScores]
    failed: tuple[str, ...]

    @property
    def silent(self) -> dict[str, int]:
        """For each stem the number of tracks in which it is silent throughout."""
        stems = [stem for scores in self.tracks.values() for stem in scores.silent]
        return {stem: stems.count(stem) for stem in self.stems if stem in stems}

    def by_track(self, stem: str, metric: str = "SDR") -> list[float]:
        """A stem's median over frames for each track, NaN where it has no score."""
        return [scores.median(stem, metric) for scores in self.tracks.values()]

    def interval(self, stem: str, metric: str = "SDR") -> Interval:
        """A stem's median over tracks."""
        return self._interval((stem,), metric)

    def leakage(self, stem: str) -> tuple[float, int]:
        """Median over all seconds without a stem, in dB, and how many these are."""
        frames = [
            scores.leakage[scores.stems.index(stem)]
            for scores in self.tracks.values()
            if scores.leakage is not None and stem in scores.stems
        ]
        return pooled_median(frames)

    def mean(self, metric: str = "SDR") -> Interval:
        """Mean of the medians of the set's stems."""
        return self._interval(self.stems, metric)

    def _interval(self, stems: StemSet, metric: str) -> Interval:
        if (stems, metric) not in self._intervals:
            columns = np.array([self.by_track(stem, metric) for stem in stems], dtype=np.float64)
            self._intervals[stems, metric] = mean_of_medians(columns.T.reshape(-1, len(stems)))
        return self._intervals[stems, metric]

    @functools.cached_property
    def _intervals(self) -> dict[tuple[StemSet, str], Interval]:
        """Those computed so far: each rendering of a report needs the same ones."""
        return {}


@dataclass(frozen=True)
class EvaluationReport:
    """All rows, and what they were measured on.

    Parameters
    ----------
    rows
        Measured methods.
    data
        What was scored, in words: root, subset, number of tracks, duration.
    metrics
        The mode of `unetsep.train.evaluation.scoring`.
    measures
        Keys of `unetsep.train.evaluation.measures.MEASURES`.
    """

    rows: tuple[Row, ...]
    data: str
    metrics: str
    measures: tuple[str, ...] = ()

    @property
    def bss_metrics(self) -> tuple[str, ...]:
        """Metrics that were computed."""
        return METRICS[:1] if self.metrics == "sdr" else METRICS

    @property
    def all_metrics(self) -> tuple[str, ...]:
        """Metrics and further measures."""
        return (*self.bss_metrics, *self.measures)

    @property
    def sets(self) -> dict[StemSet, tuple[Row, ...]]:
        """Rows by the set that they were scored in: each set has tables of its own."""
        sets = dict.fromkeys(row.stems for row in self.rows)
        return {each: tuple(row for row in self.rows if row.stems == each) for each in sets}

    @property
    def notes(self) -> list[str]:
        """What a reader must know about missing scores."""
        notes = []
        for row in self.rows:
            scored, failed = len(row.tracks), len(row.failed)
            counts = ", ".join(f"{stem} in {n}" for stem, n in row.silent.items())
            if counts:
                notes.append(
                    f"{row.label}: silent throughout and not scored: {counts} of {scored} tracks"
                )
            if failed:
                notes.append(f"{row.label}: failed on {failed} of {scored + failed} tracks")
        if len(self.sets) > 1:
            notes.append("scores depend on the set of stems: never compare those of two sets")
        return notes


def collect(
    methods: Sequence[Method],
    outcomes: Iterable[Outcome],
    data: str,
    metrics: str,
    measures: tuple[str, ...] = (),
) -> EvaluationReport:
    """Rows from the outcomes of `unetsep.train.evaluation.evaluate.evaluate`.

    A method whose tracks were scored in several sets has a row for each.
    """
    outcomes = list(outcomes)
    rows = []
    for method in methods:
        of_method = [outcome for outcome in outcomes if outcome.method == method.name]
        for sources in dict.fromkeys(outcome.sources for outcome in of_method):
            rows += _rows(method, [outcome for outcome in of_method if outcome.sources == sources])
    return EvaluationReport(tuple(rows), data, metrics, measures)


def _rows(method: Method, outcomes: Sequence[Outcome]) -> list[Row]:
    """Rows of a method from its outcomes in the set that the user chose, or that it gave."""
    sets: dict[StemSet, dict[str, TrackScores]] = {}
    for outcome in outcomes:
        if outcome.scores is not None:
            sets.setdefault(ordered(outcome.scores.stems), {})[outcome.track] = outcome.scores
    failed = tuple(outcome.track for outcome in outcomes if outcome.scores is None)
    if not sets:
        sets[ordered(outcomes[0].sources) or STEMS] = {}
    return [
        Row(method.name, method.label, method.kind, stems, tracks, failed)
        for stems, tracks in sets.items()
    ]


def lengths(outcomes: Iterable[Outcome]) -> str:
    """How much of the tracks was scored, in words: excerpts must not pass for songs."""
    seconds = [
        outcome.scores.values["SDR"].shape[1] * outcome.scores.duration
        for outcome in outcomes
        if outcome.scores is not None
    ]
    if not seconds:
        return "nothing scored"
    if min(seconds) == max(seconds):
        return f"{seconds[0]:g} s scored of each"
    return f"{min(seconds):g} to {max(seconds):g} s scored of each (median {np.median(seconds):g})"


def summary(report: EvaluationReport) -> str:
    """What the numbers are, as a title."""
    return (
        f"{', '.join(report.bss_metrics)} of BSS Eval v4 in dB: 1 s frames, median of frames, "
        f"median of tracks; {report.data}"
    )


def definition(report: EvaluationReport) -> str:
    """What the numbers are, and those in brackets if there are any."""
    has_intervals = any(len(row.tracks) >= FEWEST for row in report.rows)
    intervals = f" In brackets {COVERAGE:.0%} bootstrap intervals over tracks."
    return f"{summary(report)}.{intervals if has_intervals else ''}"


def measured_table(rows: Sequence[Row], metric: str) -> list[list[str]]:
    """Header and rows of one metric's table in one set, as text."""
    stems = rows[0].stems
    head = ["method", *stems, "mean", "tracks"]
    body = [
        [
            row.label,
            *(str(row.interval(stem, metric)) for stem in stems),
            str(row.mean(metric)),
            str(len(row.tracks)),
        ]
        for row in rows
    ]
    return [head, *body]


def leakage_table(rows: Sequence[Row]) -> list[list[str]]:
    """Header and rows of the leakage into each stem, with the seconds it is the median of."""
    stems = rows[0].stems
    leaks = [(row, [row.leakage(stem) for stem in stems]) for row in rows]
    return [
        ["method", *stems],
        *(
            [
                row.label,
                *(f"{value:.1f} ({seconds} s)" if seconds else "-" for value, seconds in values),
            ]
            for row, values in leaks
        ),
    ]


def titled_tables(report: EvaluationReport) -> list[tuple[str, list[list[str]]]]:
    """Titles and tables, those of one set after those of another."""
    several = len(report.sets) > 1
    tables = []
    for stems, rows in report.sets.items():
        place = f", set {', '.join(stems)}" if several or stems != STEMS else ""
        tables += [
            (f"{each} (dB){place}", measured_table(rows, each)) for each in report.bss_metrics
        ]
        tables += [
            (f"{MEASURES[name].title}{place}", measured_table(rows, name))
            for name in report.measures
        ]
        tables.append((f"Leakage (dB, lower is better){place}", leakage_table(rows)))
    return tables


def published_table() -> list[list[str]]:
    """Header and rows of the published scores, as text."""
    head = ["published", *STEMS, "mean", "test set", "trained on", "source"]
    body = [
        [p.name, *map(_plain, p.sdr), _plain(p.mean), p.test, p.train, p.source] for p in PUBLISHED
    ]
    return [head, *body]


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def to_markdown(report: EvaluationReport) -> str:
    """The whole report."""
    lines = ["# Evaluation", "", definition(report), ""]
    for title, table in titled_tables(report):
        lines += [f"## {title}", "", *markdown(table), ""]
    lines += [f"Leakage: {LEAKAGE}", ""]
    lines += [f"- {note}" for note in report.notes]
    lines += ["", "## Published elsewhere", ""]
    lines += ["SDR on other data: not comparable with the measured rows above.", ""]
    lines += markdown(published_table())
    return "\n".join(lines) + "\n"


def markdown(table: list[list[str]]) -> list[str]:
    """Lines of a table whose first row is its header."""
    head, *body = table
    numeric = [
        cell not in ("method", "model", "published", "test set", "trained on", "source")
        for cell in head
    ]
    rule = ["---:" if right else "---" for right in numeric]
    rows = [[cell.replace("|", r"\|") for cell in cells] for cells in (head, rule, *body)]
    return [f"| {' | '.join(cells)} |" for cells in rows]


def to_csv(report: EvaluationReport) -> str:
    """One line per method, stem and metric: median over tracks and its interval."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("method", "kind", "set", "stem", "metric", "median", "low", "high", "tracks")
    writer.writerow(columns)
    for row in report.rows:
        about = [row.name, row.kind, "-".join(row.stems)]
        for metric in report.all_metrics:
            for stem in (*row.stems, "mean"):
                interval = row.mean(metric) if stem == "mean" else row.interval(stem, metric)
                numbers = [_csv(interval.value), _csv(interval.low), _csv(interval.high)]
                writer.writerow([*about, stem, metric, *numbers, interval.tracks])
        for stem in row.stems:
            value, seconds = row.leakage(stem)
            if seconds:
                writer.writerow([*about, stem, "leakage", _csv(value), "", "", ""])
    return text.getvalue()


def tracks_csv(report: EvaluationReport) -> str:
    """One line per method, track, stem and metric: median over frames."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "set", "track", "stem", "metric", "median"])
    for row in report.rows:
        for track, scores in row.tracks.items():
            for stem in scores.stems:
                for metric in report.all_metrics:
                    value = scores.median(stem, metric)
                    writer.writerow(
                        [row.name, "-".join(row.stems), track, stem, metric, _csv(value)]
                    )
    return text.getvalue()


def _csv(value: float) -> str:
    return f"{value:.5f}" if math.isfinite(value) else ""


def to_json(report: EvaluationReport) -> str:
    """Everything, as strict JSON: missing scores are null."""
    content = {
        "unetsep": __version__,
        "definition": definition(report),
        "data": report.data,
        "metrics": report.metrics,
        "measures": {name: MEASURES[name].title for name in report.measures},
        "bootstrap": {"draws": DRAWS, "seed": SEED, "coverage": COVERAGE},
        "methods": [_row(report, row) for row in report.rows],
        "published": [asdict(entry) for entry in PUBLISHED],
        "notes": report.notes,
    }
    return json.dumps(strict(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _row(report: EvaluationReport, row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "label": row.label,
        "kind": row.kind,
        "stems": row.stems,
        "silent": row.silent,
        "failed": row.failed,
        "scores": {
            metric: {stem: asdict(row.interval(stem, metric)) for stem in row.stems}
            | {"mean": asdict(row.mean(metric))}
            for metric in report.all_metrics
        },
        "leakage": {
            stem: dict(zip(("median", "seconds"), row.leakage(stem), strict=True))
            for stem in row.stems
        },
        "tracks": {
            name: {
                metric: {s: scores.median(s, metric) for s in scores.stems}
                for metric in report.all_metrics
            }
            for name, scores in row.tracks.items()
        },
    }


def strict(value: Any) -> Any:
    """A value for strict JSON, with None for each number that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: strict(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict(item) for item in value]
    return value
