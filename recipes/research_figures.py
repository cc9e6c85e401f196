"""The pictures and tables of docs/research from the numbers beside them.

    python recipes/research_figures.py

draws figure2.png, evaluation/pareto.png and bands.png, and writes the tables of measures.md.
Times are those of performance/peers.json, measured in one run. The SDR of unetsep is that of
evaluation/measures.json; the SDR of others is what they published, on whole songs.

    unetsep eval --musdb-root MUSDB18-7 --all-losses --measures all --baselines oracle-2,mixture-4
    python recipes/research_figures.py --report evaluation/report.json

renews evaluation/measures.json first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from cards import refuse_other_songs
from markdown_pages import between
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from unetsep.config import STEMS
from unetsep.train.evaluation import figures
from unetsep.train.evaluation.measures import BANDS, MEASURES
from unetsep.train.evaluation.published import PUBLISHED
from unetsep.train.evaluation.report import EvaluationReport, Row
from unetsep.train.evaluation.scoring import METRICS, TrackScores
from unetsep.train.evaluation.statistics import Interval, track_median

RESEARCH = Path(__file__).parent.parent / "docs" / "research"
PAGE = RESEARCH / "measures.md"
LOSSES = ("mse", "mag_mse", "mel_mse", "l1", "mag_l1", "log_mse", "perceptual")
# The loss that all others are compared with, and the methods beside the losses.
BASE, BESIDE = "mse", ("guided", "fast", "open", "oracle-2", "mixture-4")
SONG = 180.0
# Models of unetsep's own tools.
OWN_MODELS = {"unetsep": "guided", "unetsep fast": "fast"}
# Rows of `PUBLISHED` of the networks whose time was measured.
PUBLISHED_AS = {"spleeter": "Spleeter 4stems, masks", "openunmix": "Open-Unmix UMXHQ"}
# Rouard, Massa, Defossez 2023, Table 1: the mean of MUSDB18-HQ's stems, 800 more songs in training.
HTDEMUCS = 9.0
PEERS = {
    "spleeter": "Spleeter 4stems, no filter\n25,000 private songs",
    "openunmix": "Open-Unmix UMXHQ\nMUSDB18-HQ",
    "demucs": "HT Demucs\nMUSDB18-HQ, 800 songs",
}
DPI = 110
HEADS = {"SDR": "SDR", "si-sdr": "SI-SDR", "log-wmse": "log-WMSE", "2f": "2f-model"} | {
    name: f"LSD {place}"
    for name, place in zip(
        BANDS,
        ("0 to 250 Hz", "250 Hz to 2 kHz", "2 to 8 kHz", "8 to 11 kHz", "11 to 16 kHz"),
        strict=True,
    )
}
# Columns of one table: more would not fit a page.
TABLES = (("SDR", "si-sdr", "log-wmse", "2f"), tuple(BANDS)[:3], tuple(BANDS)[3:])


def pareto(peers: Any, measures: Any) -> Figure:
    """Mean SDR of four stems against seconds for a song of three minutes, two cores."""
    (length,) = (each for each in peers["lengths"] if each["seconds"] == SONG)
    seconds = {row["tool"]: row["wall"] for row in length["rows"]}
    means = {row.name: row.mean for row in PUBLISHED}
    peer_sdr = {tool: means[name] for tool, name in PUBLISHED_AS.items()} | {"demucs": HTDEMUCS}
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    label = "SDR measured here, 50 excerpts of 7 s, 95% interval"
    for tool, model in OWN_MODELS.items():
        time = seconds[tool]
        mean = _method(measures, model)["scores"]["SDR"]["mean"]
        span = [[mean["value"] - mean["low"]], [mean["high"] - mean["value"]]]
        colour = figures.COLOURS[0]
        axes.errorbar(time, mean["value"], span, fmt="o", capsize=3, color=colour, label=label)
        label = ""
        _name(axes, f"unetsep {model}", time, mean["value"], (8, -14 if model == "fast" else 6))
    label = "SDR as published, 50 whole songs"
    for tool, text in PEERS.items():
        axes.plot(seconds[tool], peer_sdr[tool], "o", mfc="none", color="black", label=label)
        label = ""
        _name(axes, text, seconds[tool], peer_sdr[tool], (8, -26 if tool == "openunmix" else 6))
    axes.set_xscale("log")
    axes.set_xlim(min(seconds.values()) / 1.5, max(seconds.values()) * 4)
    axes.set_ylim(3, 10)
    axes.set_xticks([5, 10, 20, 50, 100, 200])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds for a song of three minutes, cold (two cores, median of three)")
    axes.set_ylabel("SDR, mean of four stems (dB)")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    return figure


def _name(axes: Axes, text: str, x: float, y: float, place: tuple[int, int]) -> None:
    axes.annotate(text, (x, y), textcoords="offset points", xytext=place, fontsize=8)


def _method(measures: Any, name: str) -> Any:
    return next(each for each in measures["methods"] if each["name"] == name)


def read_report(content: Any, names: tuple[str, ...]) -> EvaluationReport:
    """A report from its JSON, as far as it holds medians of songs."""
    rows, measures = [], tuple(content["measures"])
    for name in names:
        method = _method(content, name)
        tracks = {}
        for track, scores in method["tracks"].items():
            values = {metric: np.full((len(STEMS), 1), np.nan) for metric in METRICS}
            values["SDR"][:, 0] = [_number(scores["SDR"].get(stem)) for stem in STEMS]
            by_measure = {
                measure: {stem: _number(scores[measure].get(stem)) for stem in STEMS}
                for measure in measures
            }
            tracks[track] = TrackScores(STEMS, values, measures=by_measure)
        rows.append(Row(name, method["label"], method["kind"], STEMS, tracks, ()))
    return EvaluationReport(tuple(rows), content["data"], content["metrics"], measures)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def measures_of(report: Any) -> Any:
    """What docs/research keeps of a report: all but others' scores, and differences song by song.

    A difference is the median over songs of a loss's mean over stems minus that of `BASE`.
    """
    content = {key: value for key, value in report.items() if key != "published"}
    base = _means(_method(report, BASE))
    content["minus"] = {
        loss: {
            name: asdict(track_median(_means(_method(report, loss))[name] - base[name]))
            for name in base
        }
        for loss in LOSSES
        if loss != BASE
    }
    return _round(content)


def _means(method: Any) -> dict[str, np.ndarray]:
    """The mean over stems by measure and song, NaN where a stem has none."""
    songs = [method["tracks"][name] for name in sorted(method["tracks"])]
    return {
        measure: np.array(
            [np.mean([_number(song[measure].get(s)) for s in STEMS]) for song in songs]
        )
        for measure in songs[0]
    }


def _round(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _round(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_round(item) for item in value]
    return round(value, 5) if isinstance(value, float) else value


def tables(measures: Any) -> dict[str, list[str]]:
    """The tables of measures.md, by the names of their marks."""
    kinds = {
        "losses": ("loss", _by_loss),
        "beside": ("method", _beside),
        "minus": (f"minus {BASE}", _minus),
    }
    sections: dict[str, list[str]] = {}
    for name, (first, rows) in kinds.items():
        sections[name] = [""]
        for columns in TABLES:
            sections[name] += [*_table(first, columns, rows(measures, columns)), ""]
    return sections


def _table(first: str, columns: tuple[str, ...], rows: Any) -> list[str]:
    lines = [[first, *(HEADS[name] for name in columns)], ["---", *["---:"] * len(columns)]]
    lines += [[name, *cells] for name, cells in rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _scores(measures: Any, name: str, columns: tuple[str, ...]) -> list[Interval]:
    scores = _method(measures, name)["scores"]
    return [Interval(**scores[column]["mean"]) for column in columns]


def _by_loss(measures: Any, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """Each loss with its scores, the best of a column bold."""
    rows = [_scores(measures, loss, columns) for loss in LOSSES]
    best = [
        (min if _lower(name) else max)(row[at].value for row in rows)
        for at, name in enumerate(columns)
    ]
    for loss, row in zip(LOSSES, rows, strict=True):
        yield (
            loss,
            [
                f"**{each}**" if each.value == top else str(each)
                for each, top in zip(row, best, strict=True)
            ],
        )


def _beside(measures: Any, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for name in BESIDE:
        yield _method(measures, name)["label"], list(map(str, _scores(measures, name, columns)))


def _minus(measures: Any, columns: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    for loss, differences in measures["minus"].items():
        yield (
            loss,
            [_verdict(Interval(**differences[name]), lower=_lower(name)) for name in columns],
        )


def _verdict(each: Interval, *, lower: bool) -> str:
    if each.low <= 0 <= each.high:
        return str(each)
    return f"{each} {'better' if (each.high < 0) == lower else 'worse'}"


def _lower(name: str) -> bool:
    return name in MEASURES and MEASURES[name].lower_is_better


def main() -> None:
    """Read, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, help="of unetsep eval, to renew measures.json")
    options = parser.parse_args()
    data = RESEARCH / "evaluation" / "measures.json"
    if options.report:
        report = json.loads(options.report.read_text("utf-8"))
        names = {method["name"] for method in report["methods"]}
        if missing := [name for name in (*LOSSES, *BESIDE) if name not in names]:
            parser.error(f"{options.report} lacks {', '.join(missing)}")
        refuse_other_songs(parser, options.report, report["data"])
        if missing := [name for name in HEADS if name not in ("SDR", *report["measures"])]:
            parser.error(f"{options.report} lacks {', '.join(missing)}: eval with --measures all")
        text = json.dumps(measures_of(report), ensure_ascii=False, separators=(",", ":"))
        data.write_text(text + "\n", encoding="utf-8")
    peers = json.loads((RESEARCH / "performance" / "peers.json").read_text("utf-8"))["results"]
    measures = json.loads(data.read_text("utf-8"))
    everything = (*BESIDE[:2], *LOSSES, *BESIDE[2:])
    pictures = {
        RESEARCH / "figure2.png": figures.box_plot(read_report(measures, everything)),
        data.with_name("pareto.png"): pareto(peers, measures),
        data.with_name("bands.png"): figures.bands(read_report(measures, LOSSES)),
    }
    for path, figure in pictures.items():
        figure.savefig(path, dpi=DPI)
    for name, lines in tables(measures).items():
        marks = (f"<!-- {name}: begin -->", f"<!-- {name}: end -->")
        PAGE.write_text(between(PAGE, marks, lines), encoding="utf-8")


if __name__ == "__main__":
    main()
