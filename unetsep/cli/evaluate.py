"""What the ``eval`` and ``compare`` commands do and print."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import math
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from ..audio.libsndfile import hide_decoder_chatter
from ..config import STEMS
from ..errors import UnetsepError, check_choice
from ..storage import write_atomically
from ..train.data.musdb import STEM_SUFFIX, import_stempeg, musdb_root
from ..train.evaluation import report as reports
from ..train.evaluation import results
from ..train.evaluation.compare import Difference, scores_folder
from ..train.evaluation.compare import compare as compare_folders
from ..train.evaluation.estimates import Method, baseline_methods, folder_method, model_method
from ..train.evaluation.evaluate import Outcome, Settings, evaluate, refusals
from ..train.evaluation.measures import MEASURES, choose_measures
from ..train.evaluation.own_songs import find_in_index, find_moisesdb, find_songs, read_pairs
from ..train.evaluation.scoring import METRICS
from ..train.evaluation.statistics import COVERAGE, FEWEST
from ..train.evaluation.stem_sets import check_set
from ..train.evaluation.tracks import Track, choose_tracks, find_tracks
from .models import ModelChoice
from .terminal import Messages, can_draw, duration, table_console

# Seconds between lines about the progress of an evaluation where no bar can be drawn.
LINE_EVERY = 60.0
SLOWEST = "repet-hpss"


@dataclass(frozen=True)
class MethodOptions:
    """What is scored: models, estimates of other tools, and baselines."""

    choice: ModelChoice
    estimates: tuple[Path, ...]
    baselines: str
    device: str
    passes: int

    def methods(self, stems: Collection[str]) -> list[Method]:
        """Models, then estimates of other tools, then baselines that know the songs' stems."""
        groups = self.choice.groups(default=not self.estimates)
        models: list[Method] = [model_method(models, self.device, self.passes) for models in groups]
        folders = [folder_method(path) for path in self.estimates]
        baselines = baseline_methods(self.baselines)
        if self.baselines == "all" and set(stems) != set(STEMS):
            baselines = [each for each in baselines if each.name != SLOWEST]
        return [*models, *folders, *baselines]


@dataclass(frozen=True)
class TrackOptions:
    """Where the tracks are: in a MUSDB18 folder unless another data set is named."""

    musdb_root: Path | None
    songs: Path | None
    pairs: Path | None
    moisesdb: Path | None = None
    index: Path | None = None
    stems: tuple[str, ...] | None = None

    @property
    def is_musdb(self) -> bool:
        """Whether they are of MUSDB18, for which published scores exist."""
        return not (self.songs or self.pairs or self.moisesdb or self.index)

    def find(self, subset: str, only: Sequence[str]) -> tuple[list[Track], str]:
        """The tracks, and what they are: ``50 test tracks of MUSDB18``."""
        places = (self.musdb_root, self.songs, self.pairs, self.moisesdb, self.index)
        if len(places) - places.count(None) > 1:
            raise ValueError(
                "choose one of --musdb-root, --songs, --pairs, --moisesdb and --index: an "
                "evaluation scores one data set"
            )
        if self.stems and not (self.moisesdb or self.index):
            raise ValueError(
                "--stems is for --moisesdb and --index: other data sets have stems of their own"
            )
        all_tracks, noun, place = self._find_all(subset)
        tracks = choose_tracks(all_tracks, only)
        plural = "s" if len(tracks) > 1 else ""
        return tracks, f"{len(tracks)} {noun}{plural} of {place.resolve().name}"

    def _find_all(self, subset: str) -> tuple[list[Track], str, Path]:
        """All tracks, what one of them is, and where they are."""
        stems = self.stems or STEMS
        if self.moisesdb:
            return find_moisesdb(self.moisesdb, subset, stems), "song", self.moisesdb
        if self.index:
            return find_in_index(self.index, subset, stems), f"{subset} song", self.index
        if self.songs:
            return find_songs(self.songs, subset), f"{subset} song", self.songs
        if self.pairs:
            return read_pairs(self.pairs), "pair", self.pairs
        root = musdb_root(self.musdb_root)
        return find_tracks(root, subset), f"{subset} track", root


@dataclass(frozen=True)
class EvalOptions:
    """Options of the ``eval`` command.

    Parameters
    ----------
    track_options, subset
        See `unetsep.train.evaluation.tracks.find_tracks`; without a root, `MUSDB_PATH` is used.
    tracks
        See `unetsep.train.evaluation.tracks.choose_tracks`.
    method_options
        What is scored.
    settings
        How it is scored, and where results are written.
    jobs
        Number of processes.
    figures
        Whether to write pictures as well.
    as_json, quiet
        What is printed.
    """

    track_options: TrackOptions
    subset: str
    tracks: tuple[str, ...]
    method_options: MethodOptions
    settings: Settings
    jobs: int
    figures: bool
    as_json: bool
    quiet: bool


def run_eval(options: EvalOptions) -> bool:
    """The ``eval`` command.

    Returns
    -------
    bool
        Whether all tracks could be scored.
    """
    settings = options.settings
    settings = replace(settings, measures=choose_measures(settings.measures or ()))
    if settings.duration is not None and not 0 < settings.duration < math.inf:
        raise ValueError(
            f"--duration must be more than 0 seconds, and finite, got {settings.duration}"
        )
    console = Messages(quiet=options.quiet)
    tracks, name = options.track_options.find(options.subset, options.tracks)
    methods = options.method_options.methods({stem for track in tracks for stem in track.stems})
    for track, sources in itertools.product(tracks, settings.sources):
        check_set(sources, track.stems)
    for sentence in refusals(tracks, methods, settings.sets):
        console.print(sentence)
    _check_place(settings, options.figures, tracks)
    hide_decoder_chatter()
    console.print(opening(options, settings, name, methods))
    scores = len(methods) * len(settings.sets)
    with progress(console, len(tracks), scores, min(options.jobs, len(tracks))) as advance:
        outcomes = evaluate(tracks, methods, settings, jobs=options.jobs, progress=advance)
    data = f"{name}, {reports.lengths(outcomes)}"
    report = reports.collect(methods, outcomes, data, settings.metrics, settings.measures)
    figures = options.figures and any(row.tracks for row in report.rows)
    paths = _write(report, settings.output, figures)
    if options.as_json:
        click.echo(reports.to_json(report), nl=False)
    else:
        print_report(report, published=options.track_options.is_musdb and not options.quiet)
    reused = sum(outcome.reused for outcome in outcomes)
    scored = sum(outcome.scores is not None for outcome in outcomes)
    console.print(
        f"{scored - reused} scores computed, {reused} reused; wrote "
        f"{', '.join(path.name for path in paths)} to {settings.output}"
    )
    return _show_errors(outcomes)


@contextlib.contextmanager
def progress(
    console: Console, tracks: int, scores: int, jobs: int
) -> Iterator[Callable[[Outcome], None]]:
    """A bar with the time left; where none can be drawn lines, the first after the first new track.

    Parameters
    ----------
    console
        Where to print.
    tracks
        Number of tracks.
    scores
        Number of scores of each track; they arrive together.
    jobs
        Number of processes, which share the tracks.
    """
    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    hidden = not can_draw(console)
    bar = Progress(*columns, console=console, transient=True, disable=hidden)
    task = bar.add_task("scoring", total=tracks)
    start = line_time = time.monotonic()
    outcomes, new = 0, set[str]()

    def advance(outcome: Outcome) -> None:
        nonlocal start, line_time, outcomes
        outcomes += 1
        if not outcome.reused:
            new.add(outcome.track)
        if outcomes % scores:
            return
        complete, now = outcomes // scores, time.monotonic()
        if not new:  # reused scores take no time
            start = now
            return
        rounds = math.ceil((tracks - complete) / jobs) / math.ceil(len(new) / jobs)
        left = duration(max(1, (now - start) * rounds))
        text = f"{complete} of {tracks} tracks scored, about {left} left"
        bar.update(task, completed=complete, description=text)
        if hidden and complete < tracks and (len(new) == 1 or now - line_time >= LINE_EVERY):
            console.print(text)
            line_time = now

    with bar:
        yield advance


def opening(options: EvalOptions, settings: Settings, name: str, methods: Sequence[Method]) -> str:
    """A sentence on what will be scored, and how."""
    length = "whole" if settings.duration is None else f"{settings.duration:g} s of each"
    sets = "; ".join(", ".join(sources) for sources in settings.sets)
    baselines = [method.name for method in methods if method.kind == "baseline"]
    others = ",".join(name for name in baselines if name != SLOWEST) or "none"
    slow = f"; --baselines {others} leaves out {SLOWEST}, by far the slowest"
    return (
        f"Scoring {', '.join(method.label for method in methods)} on {name} ({length}): "
        f"{settings.metrics}{''.join(f', {each}' for each in settings.measures)}; stems "
        f"{sets or 'as each method gives them'}; {options.jobs} process"
        f"{'es' if options.jobs > 1 else ''}, device {options.method_options.device}"
        f"{slow if SLOWEST in baselines else ''}"
    )


def _check_place(settings: Settings, figures: bool, tracks: Sequence[Track]) -> None:
    """Fail before any work if packages are missing or the report cannot be written."""
    if first := next((t.path for t in tracks if t.path.name.endswith(STEM_SUFFIX)), None):
        import_stempeg(first)
    if settings.metrics == "museval":
        importlib.import_module("museval.metrics")
    for measure in settings.measures:
        if package := MEASURES[measure].package:
            _check_package(measure, package)
    if figures:
        importlib.import_module("matplotlib")
    with _writing(settings.output):
        settings.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.output):
            pass
        results.check_names(tracks, settings.output)


def _check_package(measure: str, package: str) -> None:
    try:
        importlib.import_module(package)
    except (RuntimeError, OSError) as error:  # such as a torchaudio of another build than torch
        raise UnetsepError(
            f"--measures {measure} needs {package}, which cannot be loaded: {error}"
        ) from error


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        place = error.filename or output
        raise UnetsepError(f"{place} cannot be written: {error.strerror}") from error


def _write(report: reports.EvaluationReport, output: Path, figures: bool) -> list[Path]:
    texts = {
        "report.md": reports.to_markdown(report),
        "report.csv": reports.to_csv(report),
        "tracks.csv": reports.tracks_csv(report),
        "report.json": reports.to_json(report),
    }
    with _writing(output):
        output.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            write_atomically(output / name, text)
        paths = [output / name for name in texts]
        if figures:
            from ..train.evaluation.figures import write_figures

            paths += write_figures(report, output)
    return paths


def print_report(report: reports.EvaluationReport, *, published: bool) -> None:
    """Print measured tables, notes and, if ``published``, where published scores are."""
    out = table_console()
    for title, table in reports.titled_tables(report):
        out.print(_rich(table, title))
    out.print(reports.definition(report), style="dim")
    for note in report.notes:
        out.print(f"Note: {note}")
    if published:
        out.print("Published elsewhere, on other data: see report.md")


def _rich(rows: list[list[str]], title: str) -> Table:
    head, *body = rows
    table = Table(box=None, pad_edge=False, title=title or None, title_justify="left")
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for cells in body:
        table.add_row(*cells)
    return table


def _show_errors(outcomes: Sequence[Outcome]) -> bool:
    failed = [outcome for outcome in outcomes if outcome.error]
    if failed:
        lines = [f"  {outcome.method}: {outcome.error}" for outcome in failed]
        Messages().print(f"{len(failed)} of {len(outcomes)} scores failed:", *lines)
    return not failed


def run_compare(*, a: Path, b: Path, metric: str, output: Path, as_json: bool) -> None:
    """The ``compare`` command."""
    check_choice("--metric", metric, (*METRICS, *MEASURES))
    for method in (a, b):
        places = dict.fromkeys((method, output / method))
        if not any(place.is_dir() for place in places):
            raise UnetsepError(
                f"there is no folder {' or '.join(map(str, places))}: expected one with scores, as "
                "'unetsep eval' and museval write it"
            )
    folder_a, folder_b = (scores_folder(method, output) for method in (a, b))
    comparison = compare_folders(folder_a, folder_b, metric)
    if as_json:
        stems = [asdict(each) | {"verdict": each.verdict} for each in comparison.differences]
        content: dict[str, Any] = {"metric": metric, "a": str(folder_a), "b": str(folder_b)}
        content |= {"stems": stems, "alone": comparison.alone}
        click.echo(json.dumps(reports.strict(content), indent=1, allow_nan=False))
        return
    out = table_console()
    names = f"A: {folder_a.name}", f"B: {folder_b.name}"
    has_intervals = any(math.isfinite(each.gain.low) for each in comparison.differences)
    gain = f"B - A [{COVERAGE:.0%}]" if has_intervals else "B - A"
    head = ["stem", *names, gain, "B better on", "verdict"]
    title = MEASURES[metric].title if metric in MEASURES else f"{metric} (dB)"
    out.print(_rich([head, *_rows(comparison.differences)], title))
    for subset, (only_a, only_b) in comparison.alone.items():
        out.print(
            f"Left out of {subset}: tracks with scores of A alone ({only_a}), B alone ({only_b})."
        )
    out.print(
        "B - A: median of the differences per track, with its bootstrap interval for "
        f"{FEWEST} tracks or more; undecided without one, where it contains zero, or where signs "
        "may be uneven by chance (p > 0.05). "
        "Training seeds also differ; this comparison cannot tell by how much.",
        style="dim",
    )


def _rows(differences: Sequence[Difference]) -> list[list[str]]:
    """A row for each difference; names its set of stems or folder where there are several."""
    sets = len({each.sources for each in differences}) > 1
    folders = len({each.subset for each in differences}) > 1
    return [
        [
            each.stem
            + (f" of {', '.join(each.sources)}" if sets else "")
            + (f" in {each.subset}" if folders else ""),
            f"{each.a:.2f}",
            f"{each.b:.2f}",
            str(each.gain),
            f"{each.better} of {each.gain.tracks}",
            each.verdict,
        ]
        for each in differences
    ]
