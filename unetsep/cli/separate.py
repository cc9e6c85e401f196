"""What the ``separate`` command does, and how it shows it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..dsp.song_stream import Progress as ProgressCallback
from ..errors import UnetsepError
from ..files import FileOptions, SeparationReport, separate_file
from ..listen.plots import require_matplotlib
from ..network.devices import keep_freed_memory
from ..paths import Input, find_inputs, plan, refuse_existing
from ..separator import Separator
from .listen import show_separated
from .models import ModelChoice


@dataclass(frozen=True)
class Computation:
    """How models compute: the keywords of `unetsep.separator.Separator`."""

    device: str
    precision: str
    overlap: float | None
    mask_extension: str
    wiener: int


@dataclass(frozen=True)
class SeparateOptions:
    """Options of the command.

    Parameters
    ----------
    songs
        Files and folders.
    output
        Folder of the stems.
    choice, computation
        The models, and how they compute.
    file
        What is taken from a song and how its stems are written.
    threads
        Of the CPU; None takes all cores.
    skip_existing
        Leave songs whose stems are all there.
    player, plots
        Write a page to hear the stems, pictures of them.
    as_json, quiet, verbose
        What is shown.
    """

    songs: tuple[Path, ...]
    output: Path
    choice: ModelChoice
    computation: Computation
    file: FileOptions
    threads: int | None
    skip_existing: bool
    player: bool
    plots: bool
    as_json: bool
    quiet: bool
    verbose: bool


# An input, and for each model the paths of its stems.
Job = tuple[Input, list[list[Path]]]


def run_separate(options: SeparateOptions) -> bool:
    """The ``separate`` command.

    Returns
    -------
    bool
        Whether every song worked.
    """
    if options.skip_existing and options.file.overwrite:
        raise ValueError("choose either --skip-existing or --overwrite, not both")
    keep_freed_memory()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.plots:
        require_matplotlib()
    console = Console(stderr=True, quiet=options.quiet, highlight=False, soft_wrap=True)
    separators = _load(options, console)
    jobs = _plan(options, separators)
    done, failed = [], []
    with _bar(console) as progress:
        for song, targets in jobs:
            reports = _separate(song, separators, targets, options, progress(song.path.name))
            for report in reports:
                _show(report, console, options.as_json)
            _show_trouble(reports, console)
            failed += [report.source for report in reports if report.status == "error"]
            done.append((song, reports))
    show_separated(done, console, player=options.player, plots=options.plots)
    if failed and len(jobs) > 1:
        sources = list(dict.fromkeys(failed))
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"{len(sources)} of {len(jobs)} failed:\n  " + "\n  ".join(map(str, sources)),
            markup=False,
        )
    return not failed


def _load(options: SeparateOptions, console: Console) -> list[Separator]:
    """Load the models; ``--verbose`` tells how long it took."""
    begun = time.perf_counter()
    computation = asdict(options.computation)
    separators = [Separator(models, **computation) for models in options.choice.groups()]
    if options.verbose:
        names = ", ".join(separator.name for separator in separators)
        first = separators[0]
        console.print(
            f"Loaded {names} in {time.perf_counter() - begun:.2f} s; {first.device.type}, "
            f"{first.precision}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
    return separators


def _plan(options: SeparateOptions, separators: Sequence[Separator]) -> list[Job]:
    """All songs and where their stems go, or a refusal before any work starts."""
    file = options.file
    songs = find_inputs(options.songs, options.output)
    models = [(s.name, s.select(file.stems, file.two_stems).names) for s in separators]
    targets = plan(songs, models, options.output, file.filename, file.suffix)
    jobs = list(zip(songs, targets, strict=True))
    if not (file.overwrite or options.skip_existing):
        refuse_existing(
            path
            for song, of_song in jobs
            if not song.error
            for of_model in of_song
            for path in of_model
        )
    return jobs


def _separate(
    song: Input,
    separators: Sequence[Separator],
    targets: Sequence[Sequence[Path]],
    options: SeparateOptions,
    progress: ProgressCallback,
) -> list[SeparationReport]:
    """Separate one song with all models; an error becomes a report."""
    todo = list(zip(separators, targets, strict=True))
    reports = []
    if options.skip_existing and not song.error:
        complete = [(s, t) for s, t in todo if all(path.exists() for path in t)]
        todo = [pair for pair in todo if pair not in complete]
        reports = [_skipped(song, s, t, options.file) for s, t in complete]
    if not todo:
        return reports
    # Of stems that are not all there, --skip-existing replaces those that are.
    file = replace(options.file, overwrite=options.file.overwrite or options.skip_existing)
    try:
        if song.error:
            raise UnetsepError(song.error)
        return reports + separate_file(
            song.path, [s for s, _ in todo], [t for _, t in todo], file, progress
        )
    except (UnetsepError, ValueError, MemoryError, torch.cuda.OutOfMemoryError) as error:
        if options.verbose:
            traceback.print_exc()
        sentence = str(error)
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            sentence = f"{song.path}: out of memory; close other programs or use --device cpu"
        failure = SeparationReport(song.path, "", "error", error=sentence)
        return reports + [replace(failure, model=separator.name) for separator, _ in todo]


def _skipped(
    song: Input, separator: Separator, targets: Sequence[Path], file: FileOptions
) -> SeparationReport:
    names = separator.select(file.stems, file.two_stems).names
    stems = dict(zip(names, targets, strict=True))
    return SeparationReport(song.path, separator.name, "skipped", stems)


class _Speed(ProgressColumn):
    """Seconds of audio per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}x real time" if task.speed else "")


@contextlib.contextmanager
def _bar(console: Console) -> Iterator[Callable[[str], ProgressCallback]]:
    """A progress bar on stderr, absent where that is no terminal."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        _Speed(),
        TimeRemainingColumn(),
    )
    shown = console.is_terminal and not console.quiet
    with Progress(*columns, console=console, transient=True, disable=not shown) as bars:

        def begin(name: str) -> ProgressCallback:
            for old in list(bars.task_ids):
                bars.remove_task(old)
            task = bars.add_task(name, total=None)

            def advance(done: float, total: float | None) -> None:
                bars.update(task, completed=done, total=total)

            return advance

        yield begin


def _show(report: SeparationReport, console: Console, as_json: bool) -> None:
    if as_json:
        # ASCII: file names may hold bytes, and terminals have encodings, that fit no other.
        sys.stdout.write(json.dumps(report.to_dict()) + "\n")
        sys.stdout.flush()
    if report.status == "skipped":
        console.print(f"{report.source}: skipped, its stems exist", markup=False)
    elif report.status == "ok":
        folder = next(iter(report.stems.values())).parent
        console.print(
            f"{report.source}: {', '.join(report.stems)} in {folder} "
            f"({report.seconds:.1f} s of audio in {report.elapsed:.1f} s, "
            f"{report.speed:.0f}x real time)",
            markup=False,
        )
    if report.gain_db:
        console.print(
            f"  All stems were lowered by {-report.gain_db:.2f} dB so that none clips "
            "(--bit-depth 32f keeps levels).",
            markup=False,
        )


def _show_trouble(reports: Sequence[SeparationReport], console: Console) -> None:
    """What went wrong with a song, once, not once for every model."""
    loud = Console(stderr=True, soft_wrap=True, highlight=False)
    for sentence in dict.fromkeys(report.error for report in reports if report.error):
        loud.print(f"Error: {sentence}", markup=False)
    for sentence in dict.fromkeys(text for report in reports for text in report.warnings):
        console.print(f"Warning: {sentence}", markup=False)
