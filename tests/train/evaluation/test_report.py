from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unetsep.config import STEMS
from unetsep.train.evaluation import report as reports
from unetsep.train.evaluation.estimates import BaselineMethod, FolderMethod
from unetsep.train.evaluation.evaluate import Outcome
from unetsep.train.evaluation.published import PUBLISHED
from unetsep.train.evaluation.scoring import METRICS, TrackScores

METHODS = [FolderMethod(Path("ours"), "ours"), BaselineMethod("mixture-4")]


def scores(sdr: list[float], silent: tuple[str, ...] = ()) -> TrackScores:
    values = {m: np.full((4, 1), math.nan) for m in METRICS}
    values["SDR"] = np.array(sdr, dtype=np.float64)[:, None]
    return TrackScores(STEMS, values, silent)


@pytest.fixture
def report() -> reports.EvaluationReport:
    nan = math.nan
    outcomes = [
        Outcome("ours", "a", scores([5, 4, 3, 2])),
        Outcome("ours", "b", scores([7, 6, 5, 4])),
        Outcome("ours", "c", scores([nan, 5, 4, 3], ("vocals",))),
        Outcome("mixture-4", "a", scores([1, 1, 1, 1])),
        Outcome("mixture-4", "b", scores([2, 1, 0, 1])),
        Outcome("mixture-4", "c", error="c: broken"),
    ]
    return reports.collect(METHODS, outcomes, "3 test tracks", "sdr")


def test_medians_are_over_tracks(report: reports.EvaluationReport) -> None:
    ours = report.rows[0]
    assert [ours.interval(stem).value for stem in STEMS] == [6, 5, 4, 3]
    assert ours.mean().value == 4.5
    assert ours.interval("vocals").tracks == 2


def test_bars_in_names_end_no_cell_of_a_table() -> None:
    method = FolderMethod(Path("a|b"), "a|b")
    report = reports.collect(
        [method], [Outcome("a|b", "song", scores([1, 2, 3, 4]))], "1 track", "sdr"
    )
    assert r"| a\|b | 1.00 | 2.00 | 3.00 | 4.00 | 2.50 | 1 |" in reports.to_markdown(report)


def test_intervals_are_computed_once_for_all_renderings(
    report: reports.EvaluationReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = reports.to_markdown(report)
    monkeypatch.delattr(reports, "mean_of_medians")
    assert reports.to_markdown(report) == text
    assert reports.to_csv(report)


def test_silent_and_failed_tracks_are_counted(report: reports.EvaluationReport) -> None:
    assert report.rows[0].silent == {"vocals": 1}
    assert report.rows[1].failed == ("c",)
    assert len(report.notes) == 2
    assert "vocals in 1 of 3 tracks" in report.notes[0]
    assert "failed on 1 of 3 tracks" in report.notes[1]


def test_published_rows_are_in_a_separate_table_with_their_test_set(
    report: reports.EvaluationReport,
) -> None:
    text = reports.to_markdown(report)
    measured, published = text.split("## Published elsewhere")
    assert "| ours |" in measured
    assert "mixture / 4" in measured
    assert "not comparable" in published
    for entry in PUBLISHED:
        assert entry.name not in measured
        assert entry.name in published
        assert entry.test


def test_published_means_are_those_of_their_stems() -> None:
    umx = next(entry for entry in PUBLISHED if entry.name == "Open-Unmix UMX")
    assert umx.mean == pytest.approx(5.325)


def test_csv_holds_value_interval_and_count(report: reports.EvaluationReport) -> None:
    rows = list(csv.DictReader(io.StringIO(reports.to_csv(report))))
    row = next(r for r in rows if (r["method"], r["stem"]) == ("ours", "drums"))
    assert float(row["median"]) == 5
    assert (row["low"], row["high"]) == ("", "")  # of so few
    assert row["tracks"] == "3"
    many = [Outcome("ours", str(n), scores([n, n, n, n])) for n in range(11)]
    text = reports.to_csv(reports.collect(METHODS[:1], many, "11 test tracks", "sdr"))
    row = next(r for r in csv.DictReader(io.StringIO(text)) if r["stem"] == "drums")
    assert 0 < float(row["low"]) < 5 < float(row["high"]) < 10
    tracks = list(csv.DictReader(io.StringIO(reports.tracks_csv(report))))
    assert len(tracks) == 5 * 4
    assert [r["median"] for r in tracks if r["track"] == "c"] == [
        "",
        "5.00000",
        "4.00000",
        "3.00000",
    ]


def test_json_is_strict_and_complete(report: reports.EvaluationReport) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    content = json.loads(reports.to_json(report), parse_constant=refuse)
    ours = content["methods"][0]
    assert ours["scores"]["SDR"]["bass"]["value"] == 4
    assert ours["tracks"]["c"]["SDR"]["vocals"] is None
    assert content["bootstrap"] == {"draws": 5000, "seed": 0, "coverage": 0.95}


def pair(vocals: float, accompaniment: float) -> TrackScores:
    values = {m: np.full((2, 3), math.nan) for m in METRICS}
    values["SDR"][:] = [[vocals], [accompaniment]]
    return TrackScores(("vocals", "accompaniment"), values)


def test_two_sets_of_stems_have_separate_tables_and_pictures(tmp_path: Path) -> None:
    outcomes = [
        Outcome("ours", "a", scores([5, 4, 3, 2])),
        Outcome("ours", "b", pair(8, 14)),
        Outcome("mixture-4", "a", scores([1, 1, 1, 1])),
    ]
    report = reports.collect(METHODS, outcomes, "2 test tracks", "sdr")
    two = ("vocals", "accompaniment")
    assert {stems: [row.label for row in rows] for stems, rows in report.sets.items()} == {
        STEMS: ["ours", "mixture / 4"],
        two: ["ours"],
    }
    tables = dict(reports.titled_tables(report))
    assert [title for title in tables if title.startswith("SDR")] == [
        "SDR (dB), set vocals, drums, bass, other",
        "SDR (dB), set vocals, accompaniment",
    ]
    assert tables["SDR (dB), set vocals, accompaniment"] == [
        ["method", "vocals", "accompaniment", "mean", "tracks"],
        ["ours", "8.00", "14.00", "11.00", "1"],
    ]
    four = tables["SDR (dB), set vocals, drums, bass, other"]
    assert [row[1] for row in four] == ["vocals", "5.00", "1.00"]
    assert report.notes == ["scores depend on the set of stems: never compare those of two sets"]
    rows = list(csv.DictReader(io.StringIO(reports.to_csv(report))))
    assert {(r["set"], float(r["median"])) for r in rows if r["stem"] == "vocals"} == {
        ("vocals-drums-bass-other", 5.0),
        ("vocals-drums-bass-other", 1.0),
        ("vocals-accompaniment", 8.0),
    }
    pytest.importorskip("matplotlib")
    from unetsep.train.evaluation.figures import write_figures

    names = [path.name for path in write_figures(report, tmp_path)]
    assert names == [
        *("figure2.png", "table1.png", "tracks.png"),
        *(f"{name}-vocals-accompaniment.png" for name in ("figure2", "table1", "tracks")),
    ]


def test_a_table_has_every_metric_that_was_computed() -> None:
    report = reports.collect(METHODS[:1], [Outcome("ours", "a", pair(8, 14))], "1 track", "bsseval")
    assert reports.to_markdown(report).count("## S") == 3


def test_the_report_says_how_much_of_the_tracks_was_scored() -> None:
    outcomes = [Outcome("ours", "a", scores([1, 2, 3, 4])), Outcome("ours", "b", error="x")]
    assert reports.lengths(outcomes) == "1 s scored of each"
    more = [*outcomes, Outcome("ours", "c", replace(scores([1, 2, 3, 4]), duration=3.0))]
    assert reports.lengths(more) == "1 to 3 s scored of each (median 2)"
    assert reports.lengths(outcomes[1:]) == "nothing scored"


def test_only_a_report_with_intervals_explains_brackets() -> None:
    for count, expected in ((5, False), (6, True)):
        outcomes = [Outcome("ours", str(each), scores([each] * 4)) for each in range(count)]
        report = reports.collect(METHODS[:1], outcomes, f"{count} tracks", "sdr")
        assert ("[" in str(report.rows[0].mean())) is expected
        assert ("In brackets 95%" in reports.definition(report)) is expected


def test_a_report_without_any_score_can_be_written() -> None:
    report = reports.collect(METHODS, [Outcome("ours", "a", error="x")], "1 track", "sdr")
    assert "| ours | - |" in reports.to_markdown(report)
    json.loads(reports.to_json(report))


def test_pictures_are_drawn(report: reports.EvaluationReport, tmp_path: Path) -> None:
    figures = pytest.importorskip("unetsep.train.evaluation.figures")
    pytest.importorskip("matplotlib")
    paths = figures.write_figures(report, tmp_path)
    assert [path.name for path in paths] == ["figure2.png", "table1.png", "tracks.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")


def test_a_full_disk_keeps_the_previous_picture(
    report: reports.EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = pytest.importorskip("unetsep.train.evaluation.figures")
    figure = pytest.importorskip("matplotlib.figure").Figure
    before = {path: path.read_bytes() for path in figures.write_figures(report, tmp_path)}

    def draw(_: object, target: Path | io.BytesIO, **__: object) -> None:
        if isinstance(target, Path):
            target.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        target.write(b"new")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(figure, "savefig", draw)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        figures.write_figures(report, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_every_track_that_any_method_was_scored_on_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    from unetsep.train.evaluation.figures import scatter

    outcomes = [
        *(Outcome("ours", name, scores([sdr] * 4)) for name, sdr in (("a", 5), ("b", 4))),
        *(Outcome("mixture-4", name, scores([sdr] * 4)) for name, sdr in (("b", 3), ("c", 2))),
    ]
    report = reports.collect(METHODS, outcomes, "3 tracks", "sdr")
    for axes in scatter(report).axes:
        ours, mixture = (points.get_offsets()[:, 1].filled(np.nan) for points in axes.collections)
        np.testing.assert_array_equal(ours, [4, 5, np.nan])
        np.testing.assert_array_equal(mixture, [3, np.nan, 2])


def test_figure_2_has_a_box_per_method_from_its_tracks(report: reports.EvaluationReport) -> None:
    pytest.importorskip("matplotlib")
    from unetsep.train.evaluation.figures import box_plot

    (axes,) = box_plot(report).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ours", "mixture / 4"]
    lines = [line for line in axes.lines if line.get_color() == "black"]
    medians = [line.get_ydata()[0] for line in lines if len(line.get_ydata())]
    assert {6.0, 1.5} <= set(medians)


def test_track_numbers_are_whole_numbers(report: reports.EvaluationReport) -> None:
    pytest.importorskip("matplotlib")
    from unetsep.train.evaluation.figures import scatter

    figure = scatter(report)
    figure.draw_without_rendering()
    for axes in figure.axes:
        left, right = axes.get_xlim()
        texts = [
            tick.label1.get_text()
            for tick in axes.xaxis.get_major_ticks()
            if left <= tick.get_loc() <= right
        ]
        assert texts == ["1", "2", "3"]
        assert len(axes.collections) == len(report.rows)
        assert axes.get_xlabel() == "track, from the lowest SDR of ours"


def test_errors_are_drawn_by_band(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from unetsep.train.evaluation import figures
    from unetsep.train.evaluation.measures import BANDS

    outcomes = []
    for number, track in enumerate("abc"):
        found = {name: dict.fromkeys(STEMS, 10.0 + number) for name in BANDS}
        one = replace(scores([5, 4, 3, 2]), measures=found)
        outcomes += [Outcome(method.name, track, one) for method in METHODS]
    made = reports.collect(METHODS, outcomes, "3 test tracks", "sdr", tuple(BANDS))
    assert "bands.png" in [path.name for path in figures.write_figures(made, tmp_path)]
    figure = figures.bands(made)
    assert [axes.get_title() for axes in figure.axes] == list(STEMS)
    (line, *_), *_ = figure.axes[0].containers
    assert list(line.get_ydata()) == [11.0] * len(BANDS)
    assert [each.get_text() for each in figure.axes[0].get_xticklabels()][1] == "250 to 2k"
