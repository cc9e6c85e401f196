"""What the ``separate`` and ``models`` commands do, and how they show it."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
from rich.table import Table
from rich.text import Text

from ..dsp.song_stream import Progress as ProgressCallback
from ..errors import UnetsepError
from ..files import FileOptions, SeparationReport, separate_file
from ..network.devices import keep_freed_memory
from ..paths import Input, find_inputs, plan, refuse_existing
from ..separator import Separator
from ..weights.manifest import Manifest, list_models, model_name


def run_separate(
    *,
    songs: Sequence[Path],
    output_dir: Path,
    models: str,
    average: bool,
    all_losses: bool,
    stems: str | None,
    two_stems: str | None,
    container: str,
    bit_depth: str,
    template: str,
    start: float,
    duration: float | None,
    device: str,
    precision: str,
    overlap: float | None,
    mask_extension: str,
    wiener: int,
    threads: int | None,
    skip_existing: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> bool:
    """The ``separate`` command; its options are described in `unetsep.cli.options`.

    Returns
    -------
    bool
        Whether every song worked.
    """
    if skip_existing and overwrite:
        raise ValueError("choose either --skip-existing or --overwrite, not both")

    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    shown = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    begun = time.perf_counter()
    separators = [
        Separator(
            model,
            device=device,
            precision=precision,
            overlap=overlap,
            mask_extension=mask_extension,
            wiener=wiener,
        )
        for model in _models(models, all_losses, average)
    ]
    if verbose:
        names = ", ".join(separator.name for separator in separators)
        first = separators[0]
        shown.print(
            f"Loaded {names} in {time.perf_counter() - begun:.2f} s; {first.device.type}, "
            f"{first.precision}, {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
    options = FileOptions(
        stems=tuple(name.strip() for name in stems.split(",")) if stems else None,
        two_stems=two_stems,
        container=container,
        bit_depth=bit_depth,
        start=start,
        duration=duration,
        # Of stems that are not all there, --skip-existing replaces those that are.
        overwrite=overwrite or skip_existing,
    )
    found = find_inputs(songs, output_dir)
    named = [(s.name, s.select(options.stems, options.two_stems).names) for s in separators]
    targets = plan(found, named, output_dir, template, container)
    if not (overwrite or skip_existing):
        refuse_existing(
            path
            for song, paths in zip(found, targets, strict=True)
            if not song.error
            for of_model in paths
            for path in of_model
        )
    failed = []
    with _bar(shown) as progress:
        for song, paths in zip(found, targets, strict=True):
            reports = _one(
                song, separators, paths, options, skip_existing, verbose, progress(song.path.name)
            )
            for report in reports:
                _show(report, shown, as_json)
            _show_trouble(reports, shown)
            failed += [report for report in reports if report.status == "error"]
    if failed and len(found) > 1:
        sources = list(dict.fromkeys(report.source for report in failed))
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"{len(sources)} of {len(found)} failed:\n  " + "\n  ".join(sources), markup=False
        )
    return not failed


def _models(models: str, all_losses: bool, average: bool) -> Sequence[str | list[str]]:
    """Names of models; with ``average`` one list of them, a model together."""
    if all_losses:
        bundled = [entry.name for entry in list_models() if entry.bundled]
        return [bundled] if average else bundled
    wanted = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    names = [model_name(model) for model in wanted]
    if not wanted or len(set(names)) < len(names):
        raise ValueError(f"--model {models!r}: expected different names, separated by commas")
    return [wanted] if average else wanted


def _one(
    song: Input,
    separators: Sequence[Separator],
    targets: Sequence[Sequence[Path]],
    options: FileOptions,
    skip_existing: bool,
    verbose: bool,
    progress: ProgressCallback,
) -> list[SeparationReport]:
    """Separate one song with all models; an error becomes a report."""
    todo = list(zip(separators, targets, strict=True))
    reports = []
    if skip_existing and not song.error:
        there = [(s, t) for s, t in todo if all(path.exists() for path in t)]
        todo = [(s, t) for s, t in todo if not all(path.exists() for path in t)]
        for separator, paths in there:
            names = separator.select(options.stems, options.two_stems).names
            written = dict(zip(names, map(str, paths), strict=True))
            reports.append(SeparationReport(str(song.path), separator.name, "skipped", written))
    if not todo:
        return reports
    try:
        if song.error:
            raise UnetsepError(song.error)
        return reports + separate_file(
            song.path, [s for s, _ in todo], [t for _, t in todo], options, progress
        )
    except (UnetsepError, ValueError, MemoryError, torch.cuda.OutOfMemoryError) as error:
        if verbose:
            traceback.print_exc()
        sentence = str(error)
        if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
            sentence = f"{song.path}: out of memory; close other programs or use --device cpu"
        failure = SeparationReport(str(song.path), "", "error", error=sentence)
        return reports + [replace(failure, model=separator.name) for separator, _ in todo]


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


def _show(report: SeparationReport, shown: Console, as_json: bool) -> None:
    if as_json:
        # ASCII: file names may hold bytes, and terminals have encodings, that fit no other.
        sys.stdout.write(json.dumps(report.to_dict()) + "\n")
        sys.stdout.flush()
    if report.status == "skipped":
        shown.print(f"{report.source}: skipped, its stems exist", markup=False)
    elif report.status == "ok":
        folder = Path(next(iter(report.stems.values()))).parent
        shown.print(
            f"{report.source}: {', '.join(report.stems)} in {folder} "
            f"({report.seconds:.1f} s of audio in {report.elapsed:.1f} s, "
            f"{report.speed:.0f}x real time)",
            markup=False,
        )
    if report.gain_db:
        shown.print(
            f"  All stems were lowered by {-report.gain_db:.2f} dB so that none clips "
            "(--bit-depth 32f keeps levels).",
            markup=False,
        )


def _show_trouble(reports: Sequence[SeparationReport], shown: Console) -> None:
    """What went wrong with a song, once, not once for every model."""
    loud = Console(stderr=True, soft_wrap=True, highlight=False)
    for sentence in dict.fromkeys(report.error for report in reports if report.error):
        loud.print(f"Error: {sentence}", markup=False)
    for sentence in dict.fromkeys(text for report in reports for text in report.warnings):
        shown.print(f"Warning: {sentence}", markup=False)


def print_models(known: Manifest) -> None:
    """Print the table of models."""
    table = Table(box=None, pad_edge=False)
    for title in ("name", "loss", "size", "SDR (v/d/b/o)", "licence", "where", "description"):
        table.add_column(title, overflow="fold")
    for entry in known.checkpoints.values():
        scores = entry.scores.get("sdr", {})
        table.add_row(
            entry.name + (" (default)" if entry.name == known.default else ""),
            entry.loss,
            f"{entry.bytes / 1e6:.1f} MB",
            "/".join(f"{scores[s]:.2f}" for s in entry.config["stems"] if s in scores),
            entry.licence,
            "bundled" if entry.bundled else "imported" if entry.source else entry.repo_id,
            entry.description,
        )
    Console(width=None if sys.stdout.isatty() else 200).print(table)
