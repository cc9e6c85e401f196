"""What the ``separate`` command does, and how it shows it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..audio.libsndfile import hide_decoder_chatter
from ..dsp.song_stream import Progress as ProgressCallback
from ..files import FileOptions, SeparationReport
from ..library.records import Recipe, Record, record_path
from ..library.songs import EXIST, Job, Part, separate_song
from ..listen.plots import require_matplotlib
from ..network.devices import keep_freed_memory
from ..paths import (
    Input,
    count_kinds,
    find_clashes,
    find_inputs,
    name_targets,
    template_for,
)
from ..separator import Separator
from ..version import __version__
from ..weights.manifest import find_checkpoint, is_path, model_name
from .listen import show_separated
from .models import ModelChoice
from .terminal import Lines, Messages


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
        Leave songs whose stems are there and what would be made, and those whose stems are
        something else; with ``overwrite`` only the former.
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


def run_separate(options: SeparateOptions) -> bool:
    """The ``separate`` command.

    Returns
    -------
    bool
        Whether every song worked, or needed no work.
    """
    keep_freed_memory()
    hide_decoder_chatter()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.plots:
        require_matplotlib()
    shown = _Shown(options)
    separators = _load(options, shown.console)
    jobs = _plan(options, separators, shown.console)
    done = []
    with _bar(shown.console) as progress:
        for job in jobs:
            bar = progress(job.song.path.name)
            reports = separate_song(job, options.file, bar, shown.traceback)
            shown.song(reports)
            done.append((job.song, reports))
    show_separated(done, shown.console, player=options.player, plots=options.plots)
    return shown.end()


def _load(options: SeparateOptions, console: Messages) -> list[Separator]:
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


def _plan(
    options: SeparateOptions, separators: Sequence[Separator], console: Messages
) -> list[Job]:
    """All songs and what to make of them; what is known to be wrong is known before any work."""
    file = options.file
    left_out: list[Path] = []
    songs = find_inputs(options.songs, options.output, left_out.append)
    if left_out:
        console.print(f"Not audio by name, passed over: {count_kinds(left_out)}", markup=False)
    selections = [separator.select(file.stems, file.two_stems) for separator in separators]
    models = [(s.name, c.names) for s, c in zip(separators, selections, strict=True)]
    targets = name_targets(songs, models, options.output, file.filename, file.suffix)
    songs = [
        replace(song, error=clash)
        for song, clash in zip(songs, find_clashes(songs, targets), strict=True)
    ]
    recipes = [
        _recipe(separator, models, names, options)
        for separator, models, (_, names) in zip(
            separators, options.choice.groups(), models, strict=True
        )
    ]
    template = template_for(file.filename, len(separators))
    return [
        Job(
            song,
            [
                _part(separator, recipe, paths, song, template, options)
                for separator, recipe, paths in zip(separators, recipes, of_song, strict=True)
            ],
            options.skip_existing,
        )
        for song, of_song in zip(songs, targets, strict=True)
    ]


def _part(
    separator: Separator,
    recipe: Recipe,
    paths: Sequence[Path],
    song: Input,
    template: str,
    options: SeparateOptions,
) -> Part:
    """What one model is to make of one song."""
    names = separator.select(options.file.stems, options.file.two_stems).names
    record = Record(
        record_path(
            options.output,
            template,
            track=song.track,
            ext=options.file.suffix,
            model=separator.name,
            suffix=song.path.suffix[1:],
        )
    )
    stems = dict(zip(names, paths, strict=True))
    return Part(separator, recipe, stems, record, record.signature)


def _recipe(
    separator: Separator, models: Sequence[str], stems: Sequence[str], options: SeparateOptions
) -> Recipe:
    """What decides the bytes of a model's stems; ``auto`` as what it means here."""
    values = {
        "stems": sorted(stems),
        "container": options.file.container,
        "bit_depth": options.file.bit_depth,
        "start": float(options.file.start),
        "duration": options.file.duration,
        "track": options.file.track,
        "overlap": separator.overlap,
        "mask_extension": separator.mask_extension,
        "wiener": separator.wiener,
        "precision": separator.precision,
        "device": separator.device.type,
    }
    hashes = [(model_name(model), _model_hash(model)) for model in models]
    return Recipe(hashes, values, __version__)


def _model_hash(model: str) -> str:
    if is_path(model):
        return hashlib.sha256(Path(model).read_bytes()).hexdigest()
    return find_checkpoint(model_name(model)).sha256


class _Speed(ProgressColumn):
    """Seconds of audio per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f}x real time" if task.speed else "")


@contextlib.contextmanager
def _bar(console: Messages) -> Iterator[Callable[[str], ProgressCallback]]:
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


class _Shown:
    """What the user gets to see of the songs, on stderr and, as JSON, on stdout.

    Parameters
    ----------
    options
        Say what is to be shown.
    """

    def __init__(self, options: SeparateOptions) -> None:
        self.console = Messages(quiet=options.quiet)
        self._loud = Messages()
        self._lines = Lines() if options.as_json else None
        self._verbose = options.verbose
        self._told: set[str] = set()
        self._songs, self._existing = 0, 0
        self._failed: list[Path] = []

    def traceback(self, error: Exception) -> None:
        """With ``--verbose``, where an error comes from."""
        if self._verbose:
            text = "".join(traceback.format_exception(error))
            self._loud.print(text.rstrip(), markup=False)

    def song(self, reports: Sequence[SeparationReport]) -> None:
        """What became of one song, with each model."""
        self._songs += 1
        if all(report.reason == EXIST for report in reports):
            self._existing += 1
        for report in reports:
            if self._lines:
                # ASCII: file names may hold bytes, and terminals have encodings, that fit no
                # other.
                self._lines.write(json.dumps(report.to_dict()))
            _show(report, self.console, verbose=self._verbose)
        self._failed += dict.fromkeys(r.source for r in reports if r.status == "error")
        # What went wrong with a song, once, not once for every model or for both of two songs.
        for sentence in dict.fromkeys(report.error for report in reports if report.error):
            if sentence not in self._told:
                self._loud.print(f"Error: {sentence}", markup=False)
            self._told.add(sentence)
        for sentence in dict.fromkeys(text for report in reports for text in report.warnings):
            self.console.print(f"Warning: {sentence}", markup=False)

    def end(self) -> bool:
        """Sum up; whether nothing failed."""
        if self._existing:
            self.console.print(
                f"{self._existing} of {self._songs} skipped, their stems exist", markup=False
            )
        if self._failed and self._songs > 1:
            names = "\n  ".join(map(str, self._failed))
            self._loud.print(
                f"{len(self._failed)} of {self._songs} failed:\n  {names}", markup=False
            )
        unheard = self._lines.failure if self._lines else None
        if unheard:
            self._loud.print(f"Error: stdout took no more reports: {unheard}", markup=False)
        return not self._failed and not unheard


def _show(report: SeparationReport, console: Messages, *, verbose: bool) -> None:
    if report.status == "skipped" and (verbose or report.reason != EXIST):
        console.print(f"{report.source}: skipped, {report.reason}", markup=False)
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
