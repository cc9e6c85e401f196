"""The pictures of docs/research from the numbers beside them: SDR against time, error by band.

    python recipes/research_figures.py

writes pareto.png and bands.png into docs/research/evaluation. Times are those of
performance/peers.json, measured in one run. The SDR of unetsep is that of evaluation/measures.json;
the SDR of others is what they published, on whole songs, and is drawn as hollow marks.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from unetsep.config import STEMS
from unetsep.train.evaluation import figures
from unetsep.train.evaluation.measures import BANDS
from unetsep.train.evaluation.published import PUBLISHED
from unetsep.train.evaluation.report import EvaluationReport, Row
from unetsep.train.evaluation.scoring import METRICS, TrackScores

RESEARCH = Path(__file__).parent.parent / "docs" / "research"
LOSSES = ("mse", "mag_mse", "mel_mse", "l1", "mag_l1", "log_mse", "perceptual")
SONG = 180.0
# What of `PUBLISHED` is the network whose time was measured.
PUBLISHED_AS = {"spleeter": "Spleeter 4stems, masks", "openunmix": "Open-Unmix UMXHQ"}
# Rouard, Massa, Defossez 2023, Table 1: the mean of MUSDB18-HQ's stems, 800 more songs in training.
HTDEMUCS = 9.0
DPI = 110


def pareto(peers: Any, measured: Any) -> Figure:
    """Mean SDR of four stems against seconds for a song of three minutes, two cores."""
    (length,) = (each for each in peers["lengths"] if each["seconds"] == SONG)
    seconds = {row["tool"]: row["wall"] for row in length["rows"]}
    published = {row.name: row.mean for row in PUBLISHED}
    fast = next(each for each in measured["methods"] if each["name"] == "fast")
    mean = fast["scores"]["SDR"]["mean"]
    points = [
        ("Spleeter 4stems\n25,000 private songs", "spleeter", published[PUBLISHED_AS["spleeter"]]),
        ("Open-Unmix UMXHQ\nMUSDB18-HQ", "openunmix", published[PUBLISHED_AS["openunmix"]]),
        ("HT Demucs\nMUSDB18-HQ and 800 songs", "demucs", HTDEMUCS),
    ]
    figure = Figure(figsize=(7, 4.6), layout="constrained")
    axes = figure.subplots()
    span = [[mean["value"] - mean["low"]], [mean["high"] - mean["value"]]]
    axes.errorbar(
        seconds["unetsep"],
        mean["value"],
        span,
        fmt="o",
        capsize=3,
        color=figures.COLOURS[0],
        label="measured on 7-second excerpts, with its 95% interval",
    )
    places = [(seconds[tool], sdr) for _, tool, sdr in points]
    axes.plot(*np.array(places).T, "o", mfc="none", color="black", label="published, whole songs")
    labels = [("unetsep fast", seconds["unetsep"], mean["value"])]
    labels += [(name, seconds[tool], sdr) for name, tool, sdr in points]
    for number, (name, x, y) in enumerate(labels):
        below = number == 2
        axes.annotate(
            name,
            (x, y),
            textcoords="offset points",
            xytext=(8, -26 if below else 6),
            fontsize=8,
            ha="right" if name.startswith("HT") else "left",
        )
    axes.set_xscale("log")
    axes.set_xlim(3, 200)
    axes.set_ylim(3, 10)
    axes.set_xticks([5, 10, 20, 50, 100])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("seconds for a song of three minutes, cold start included (two cores)")
    axes.set_ylabel("SDR, mean of four stems (dB)")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", fontsize=8)
    return figure


def read_report(content: Any, names: tuple[str, ...]) -> EvaluationReport:
    """A report from its JSON, as far as it holds medians of songs."""
    rows = []
    for name in names:
        method = next(each for each in content["methods"] if each["name"] == name)
        tracks = {}
        for track, scores in method["tracks"].items():
            values = {metric: np.full((len(STEMS), 1), np.nan) for metric in METRICS}
            values["SDR"][:, 0] = [_number(scores["SDR"].get(stem)) for stem in STEMS]
            measures = {
                measure: {stem: _number(scores[measure].get(stem)) for stem in STEMS}
                for measure in content["measures"]
            }
            tracks[track] = TrackScores(STEMS, values, measures=measures)
        rows.append(Row(name, method["label"], method["kind"], STEMS, tracks, ()))
    measures = tuple(content["measures"])
    return EvaluationReport(tuple(rows), content["data"], content["metrics"], measures)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def main() -> None:
    """Read, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=RESEARCH / "evaluation")
    options = parser.parse_args()
    peers = json.loads((RESEARCH / "performance" / "peers.json").read_text("utf-8"))["results"]
    measured = json.loads((RESEARCH / "evaluation" / "measures.json").read_text("utf-8"))
    assert set(BANDS) <= set(measured["measures"])
    pictures = {
        "pareto.png": pareto(peers, measured),
        "bands.png": figures.bands(read_report(measured, LOSSES)),
    }
    for name, figure in pictures.items():
        figure.savefig(options.output / name, dpi=DPI)


if __name__ == "__main__":
    main()
