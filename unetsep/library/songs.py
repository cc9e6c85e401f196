"""One song of many: claimed, compared with existing stems, separated, recorded."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audio.staging import remove_leftovers
from ..audio.targets import check_names, check_targets, explain_writing
from ..dsp.segments import SegmentPool
from ..dsp.song_stream import Progress, check_progress
from ..errors import NO_THREADS, AudioError, UnetsepError, is_out_of_memory, is_out_of_threads
from ..file_options import FileOptions
from ..files import (
    SeparationReport,
    SinkOpener,
    format_for,
    open_excerpt,
    separate_into,
    with_shown_names,
)
from ..inputs import Input
from ..paths import refuse_existing
from ..separator import Separator
from ..unfinished import uninterrupted
from ..version import __version__
from .claims import Claim, ClaimedError
from .records import Finding, InputFile, Recipe, Record, RecordedStems, record_path

# Why a song is skipped whose stems are up to date.
EXIST = "its stems exist"
HOW_TO_REPLACE = "--skip-existing --overwrite separates such songs again"
EACH_TRACK = "stems of each sound track need a folder (-o) or names (--filename) of their own"


@dataclass(frozen=True)
class Part:
    """One model's work on a song.

    Parameters
    ----------
    separator
        The model.
    recipe
        What determines the bytes.
    stems
        Stem names to paths.
    record
        Describes how they were made.
    first_signature
        The record's signature before the run began with its first song.
    """

    separator: Separator
    recipe: Recipe
    stems: dict[str, Path]
    record: Record
    first_signature: tuple[int, int] | None

    @property
    def targets(self) -> list[Path]:
        """Paths of the stems."""
        return list(self.stems.values())


@dataclass(frozen=True, eq=False)  # a key of mappings, by identity
class Job:
    """A song and the models that separate it.

    Parameters
    ----------
    song
        The input.
    parts
        One for each model.
    skip_existing
        Skip stems that are up to date; otherwise any existing stem is an error.
    names
        Names to show for files that stand for standard streams.
    """

    song: Input
    parts: Sequence[Part]
    skip_existing: bool
    names: Mapping[Path, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the song in messages."""
        return self.song.path.name

    @property
    def display_path(self) -> Path:
        """Path of the song in its reports."""
        return self.shown_path(self.song.path)

    @property
    def streams(self) -> Collection[Path]:
        """Names of standard streams in its reports, in place of files."""
        return [Path(name) for name in self.names.values()]

    def input_file(self) -> InputFile:
        """The song's file, as it is now."""
        return InputFile(self.song.path)

    def transferred(
        self,
        options: FileOptions,  # noqa: ARG002
        shared: Shared,  # noqa: ARG002
    ) -> contextlib.AbstractContextManager[None]:
        """Fetches the song before it is separated, and uploads its stems afterwards."""
        return contextlib.nullcontext()

    def present(self, reports: Sequence[SeparationReport]) -> list[SeparationReport]:
        """Reports with the paths that users know."""
        return [with_shown_names(report, self.shown_path, self.shown_text) for report in reports]

    def shown_path(self, path: Path) -> Path:
        """Path to show for a path."""
        return Path(self.names[path]) if path in self.names else path

    def shown_text(self, text: str) -> str:
        """A sentence with the paths that users know."""
        for path, name in self.names.items():
            text = text.replace(str(path), name)
        return text


@dataclass(frozen=True)
class Shared:
    """What the songs of a run share, and the event that stops one of them.

    Parameters
    ----------
    pool
        Threads for the segments of all songs; see `unetsep.files.separate_into`.
    stop
        Once it is set, the song stops as if cancelled and leaves no files.
    tidy_folders
        Folders in which this run has removed the leftovers of dead runs: listing one takes long
        if it has the stems of all songs.
    """

    pool: SegmentPool | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    tidy_folders: set[Path] = field(default_factory=set)

    def watch(self, progress: Progress | None) -> Progress:
        """A progress callback that cancels when the song must stop."""
        check_progress(progress)

        def watched(seconds: float, total: float | None) -> bool | None:
            if self.stop.is_set():
                return False
            return progress(seconds, total) if progress else None

        return watched

    def tidy(self, job: Job) -> None:
        """Remove leftovers of dead runs in the folders of a song's stems, once for each folder."""
        folders = {p.parent for part in job.parts for p in (*part.targets, part.record.path)}
        for folder in folders - self.tidy_folders:
            remove_leftovers(folder)
        self.tidy_folders.update(folders)


def part_for(
    separator: Separator,
    song: Input,
    targets: Sequence[Path],
    output_dir: Path,
    template: str,
    options: FileOptions,
) -> Part:
    """One model's work on one song.

    Parameters
    ----------
    separator
        The model.
    song
        The input.
    targets
        Paths of the stems, in the order of `Separator.select`.
    output_dir, template
        How the paths were made; see `unetsep.paths.name_targets`.
    options
        Which part of the song is separated and how its stems are written.
    """
    names, ext = options.select(separator).names, options.suffix
    record = Record(record_path(output_dir, template, song, ext=ext, model=separator.name))
    stems = dict(zip(names, targets, strict=True))
    return Part(separator, recipe_for(separator, options), stems, record, record.signature)


def recipe_for(separator: Separator, options: FileOptions) -> Recipe:
    """What determines the bytes of a model's stems; ``auto`` is resolved first."""
    values = {
        "stems": sorted(options.select(separator).names),
        "container": options.container,
        "bit_depth": options.bit_depth,
        "bitrate": options.bitrate,
        "tags": options.tags,
        "sample_rate": options.sample_rate,
        "start": options.start,
        "duration": options.duration,
        "track": options.track,
        "overlap": separator.overlap,
        "mask_extension": separator.mask_extension,
        "wiener": separator.wiener,
        "gate_db": separator.gate_db,
        "passes": separator.passes,
        "precision": separator.precision,
        "device": separator.device.type,
    }
    return Recipe(separator.checkpoints, values, __version__)


def separate_or_raise(
    job: Job,
    options: FileOptions,
    progress: Progress | None = None,
    around: Callable[[SinkOpener], SinkOpener] | None = None,
) -> list[SeparationReport]:
    """Separate one song as `separate_song` does, for callers who want errors as exceptions.

    Parameters
    ----------
    job, options, progress
        See `separate_song`.
    around
        Wraps the function that opens the files, for example to collect arrays, too.

    Raises
    ------
    ClaimedError
        If another run is working on the song, unless ``job.skip_existing``.
    """
    try:
        return _separate(job, options, progress, Shared(), around)
    except ClaimedError as busy:
        if job.skip_existing:
            return _reports(job, "skipped", reason=str(busy))
        raise ClaimedError(f"{job.song.path}: {busy}") from busy


def separate_song(
    job: Job,
    options: FileOptions,
    progress: Progress | None = None,
    on_error: Callable[[Exception], None] | None = None,
    shared: Shared | None = None,
) -> list[SeparationReport]:
    """Separate one song with all models, unless it is up to date or another run separates it.

    Errors of one song are not raised: they become reports, and other songs continue.

    Parameters
    ----------
    job
        See `Job`.
    options
        With ``overwrite``, stems that are not up to date are replaced.
    progress
        See `unetsep.files.separate_file`.
    on_error
        Called with the exception behind an error report.
    shared
        For songs that are separated at the same time.

    Returns
    -------
    list of SeparationReport
        One for each model.
    """
    try:
        if job.song.error:
            raise UnetsepError(job.song.error)
        shared = shared or Shared()
        with job.transferred(options, shared):
            return _separate(job, options, progress, shared)
    except ClaimedError as busy:
        return _reports(job, "skipped", reason=str(busy))
    except Exception as error:
        if on_error:
            on_error(error)
        return _reports(job, "error", error=sentence(error, job.song.path))


def preview_song(job: Job, options: FileOptions) -> list[SeparationReport]:
    """Preview what `separate_song` would do with a song, without writing anything.

    The song is opened, not decoded: damage after its header is not detected.

    Returns
    -------
    list of SeparationReport
        One for each model; what would be separated has the status ``"planned"``.
    """
    try:
        if job.song.error:
            raise UnetsepError(job.song.error)
        with job.transferred(options, Shared()):
            input_file = job.input_file()
            skipped, todo = _decide(job, input_file, options)
            check_targets([path for part, _ in todo for path in part.targets])
            facts = _look(job, options) if input_file.is_local and todo else {}
        return skipped + [
            _report(job, part, "planned", stems=part.stems, **facts) for part, _ in todo
        ]
    except Exception as error:
        return _reports(job, "error", error=sentence(error, job.song.path))


def _look(job: Job, options: FileOptions) -> dict[str, Any]:
    """Rate, channels and length of a song; checks that the format can hold it."""
    with open_excerpt(job.song.path, options) as reader:
        info, frames = reader.info, reader.frames
        format_for(reader, options)
    seconds = None if frames is None else round(frames / info.sample_rate, 3)
    return {"sample_rate": info.sample_rate, "channels": info.channels, "seconds": seconds}


def _separate(
    job: Job,
    options: FileOptions,
    progress: Progress | None,
    shared: Shared,
    around: Callable[[SinkOpener], SinkOpener] | None = None,
) -> list[SeparationReport]:
    """Claim a song, compare its stems again, and separate it."""
    skipped, todo = _decide(job, job.input_file(), options)
    if not todo:
        shared.tidy(job)  # after a run that was killed after its last rename
        return skipped
    targets = [path for part, _ in todo for path in part.targets]
    check_targets(targets)
    check_names(targets)
    with contextlib.ExitStack() as stack:
        with uninterrupted(), explain_writing(job.parts[0].targets[0].parent):
            claim = stack.enter_context(Claim(part.record.claim for part in job.parts))
        input_file = job.input_file()
        skipped, todo = _decide(job, input_file, options)
        if not todo:
            return skipped
        shared.tidy(job)
        openers: list[SinkOpener] = [
            functools.partial(
                RecordedStems,
                part.targets,
                names=tuple(part.stems),
                overwrite=options.overwrite or finding.state == "incomplete",
                record=part.record,
                recipe=part.recipe,
                input_file=input_file,
                claim=claim,
                stop=shared.stop,
            )
            for part, finding in todo
        ]
        if around:
            openers = [around(opener) for opener in openers]
        models = [part.separator for part, _ in todo]
        watched = shared.watch(progress)
        path, pool = input_file.fetch(), shared.pool
        return skipped + separate_into(path, models, openers, options, watched, pool)


def _decide(
    job: Job, input_file: InputFile, options: FileOptions
) -> tuple[list[SeparationReport], list[tuple[Part, Finding]]]:
    """Reports of the models that skip the song, and the other models with their findings.

    Raises
    ------
    AudioError
        If stems are in the way: then no model separates the song.
    """
    skipped: list[SeparationReport] = []
    todo: list[tuple[Part, Finding]] = []
    advice = f"; {EACH_TRACK}" if options.track else ""
    in_the_way: list[Path] = []
    for part in job.parts:
        finding = part.record.compare(input_file, part.targets, part.recipe)
        # Stems that another run has made since this one began are never made twice.
        new = part.record.signature != part.first_signature
        if finding.state == "current" and (job.skip_existing or new):
            facts = {
                **finding.facts,
                "device": part.separator.device.type,  # as recorded, or they would not be current
                "precision": part.separator.precision,
            }
            skipped.append(_report(job, part, "skipped", reason=EXIST, stems=part.stems, **facts))
            continue
        todo.append((part, finding))
        if options.overwrite:
            continue
        if job.skip_existing and finding.state == "different":
            reason = f"left alone, {finding.reason}; {HOW_TO_REPLACE}{advice}"
            raise AudioError(f"{job.song.path}: {reason}")
        # New incomplete stems have no owner: their run died, or else it still holds the claim.
        if not job.skip_existing and not (new and finding.state == "incomplete"):
            in_the_way += part.targets
    try:
        refuse_existing(in_the_way)
    except AudioError as error:
        if options.track and input_file.is_local and job.song.path.is_file():
            _look(job, options)  # a missing track is the worse error
        raise AudioError(f"{error}{advice}") from error
    return skipped, todo


def _report(job: Job, part: Part, status: str, **facts: Any) -> SeparationReport:
    """The report of one model that did not separate the song."""
    return SeparationReport(job.song.path, part.separator.name, status, **facts)


def _reports(job: Job, status: str, **facts: Any) -> list[SeparationReport]:
    """The same report for all models."""
    return [_report(job, part, status, **facts) for part in job.parts]


def stopped_reports(job: Job, why: str) -> list[SeparationReport]:
    """The reports of a song that was stopped before its end, with the reason."""
    return _reports(job, "error", error=f"{job.song.path}: {why} and was stopped")


def sentence(error: Exception, path: Path) -> str:
    """The message for an error, in one sentence."""
    if is_out_of_memory(error):
        return f"{path}: out of memory; close other programs or use --device cpu"
    if is_out_of_threads(error):
        return f"{path}: {NO_THREADS}"
    if isinstance(error, (UnetsepError, ValueError)):
        return str(error)
    if isinstance(error, OSError):
        place = f" ({error.filename})" if error.filename else ""
        text = f"{path}: {error.strerror or error}{place}"
        if "temporary directory" in text:  # which ffmpeg needs, and not every container has
            text += "; set TMPDIR to a folder that can be written to"
        return text
    words = " ".join(str(error).split())
    name = type(error).__name__
    return f"{path}: unexpected {name}: {words}; please report it, with what --verbose shows"
