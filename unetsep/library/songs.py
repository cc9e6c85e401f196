"""One song of many: claimed, compared with what is there, separated, recorded."""

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
from ..files import (
    FileOptions,
    OpenSink,
    SeparationReport,
    format_for,
    open_song,
    renamed,
    separate_into,
)
from ..inputs import Input
from ..paths import refuse_existing
from ..separator import Separator
from ..unfinished import uninterrupted
from ..version import __version__
from .claims import Claim, ClaimedError
from .records import Finding, InputFile, Recipe, Record, RecordedStems, record_path

# Why a song is skipped whose stems are what would be made.
EXIST = "its stems exist"
AGAIN = "--skip-existing --overwrite separates such songs again"


@dataclass(frozen=True)
class Part:
    """What one model is to make of a song.

    Parameters
    ----------
    separator
        The model.
    recipe
        What decides the bytes.
    stems
        Stem names to paths.
    record
        What says how they were made.
    seen
        The record's signature before the first song was begun.
    """

    separator: Separator
    recipe: Recipe
    stems: dict[str, Path]
    record: Record
    seen: tuple[int, int] | None

    @property
    def targets(self) -> list[Path]:
        """Paths of the stems."""
        return list(self.stems.values())


@dataclass(frozen=True)
class Job:
    """A song and what is to be made of it.

    Parameters
    ----------
    song
        The input.
    parts
        One for each model.
    skip_existing
        Leave stems that are what would be made; otherwise any stem that exists is an error.
    names
        What to call files that stand for standard streams.
    """

    song: Input
    parts: Sequence[Part]
    skip_existing: bool
    names: Mapping[Path, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What people call the song."""
        return self.song.path.name

    @property
    def shown(self) -> Path:
        """What its reports call the song."""
        return self.place(self.song.path)

    @property
    def streams(self) -> Collection[Path]:
        """What its reports call standard streams, in the place of files."""
        return [Path(name) for name in self.names.values()]

    def input_file(self) -> InputFile:
        """The song's file, as it is now."""
        return InputFile(self.song.path)

    def at_hand(
        self,
        options: FileOptions,  # noqa: ARG002
        shared: Shared,  # noqa: ARG002
    ) -> contextlib.AbstractContextManager[None]:
        """What brings the song before it is separated, and takes its stems away."""
        return contextlib.nullcontext()

    def present(self, reports: Sequence[SeparationReport]) -> list[SeparationReport]:
        """Reports as people are to see them."""
        return [renamed(report, self.place, self.text) for report in reports]

    def place(self, path: Path) -> Path:
        """What people call a path."""
        return Path(self.names[path]) if path in self.names else path

    def text(self, text: str) -> str:
        """A sentence as people are to read it."""
        for path, name in self.names.items():
            text = text.replace(str(path), name)
        return text


@dataclass(frozen=True)
class Shared:
    """What the songs of a run share, and what ends one of them.

    Parameters
    ----------
    pool
        Threads for the segments of all songs; see `unetsep.files.separate_into`.
    stop
        Once it is set, the song ends without leaving anything, as if cancelled.
    tidied
        Folders out of which this run has removed what dead runs left: to look takes long where
        one folder has the stems of all songs.
    """

    pool: SegmentPool | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    tidied: set[Path] = field(default_factory=set)

    def watch(self, progress: Progress | None) -> Progress:
        """A progress callback that cancels when the song is to end."""
        check_progress(progress)

        def watched(done: float, total: float | None) -> bool | None:
            if self.stop.is_set():
                return False
            return progress(done, total) if progress else None

        return watched

    def tidy(self, job: Job) -> None:
        """Remove what dead runs left where a song's stems lie, once in a run for each folder."""
        folders = {p.parent for part in job.parts for p in (*part.targets, part.record.path)}
        for folder in folders - self.tidied:
            remove_leftovers(folder)
        self.tidied.update(folders)


def part_for(
    separator: Separator,
    song: Input,
    targets: Sequence[Path],
    output_dir: Path,
    template: str,
    options: FileOptions,
) -> Part:
    """What one model is to make of one song.

    Parameters
    ----------
    separator
        The model.
    song
        The input.
    targets
        Paths of the stems, in the order of `Separator.select`.
    output_dir, template
        What they were named by; see `unetsep.paths.name_targets`.
    options
        What is taken from the song and how its stems are written.
    """
    names, ext = options.select(separator).names, options.suffix
    record = Record(record_path(output_dir, template, song, ext=ext, model=separator.name))
    stems = dict(zip(names, targets, strict=True))
    return Part(separator, recipe_for(separator, options), stems, record, record.signature)


def recipe_for(separator: Separator, options: FileOptions) -> Recipe:
    """What decides the bytes of a model's stems; ``auto`` as what it means here."""
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
    around: Callable[[OpenSink], OpenSink] | None = None,
) -> list[SeparationReport]:
    """Separate one song as `separate_song` does, for callers who want errors as exceptions.

    Parameters
    ----------
    job, options, progress
        See `separate_song`.
    around
        Makes of what opens the files something else, such as what keeps arrays, too.

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
    """Separate one song with all models, if that is to be done and no other run does it.

    Nothing that is wrong with one song gets out of here: all that others need is a report.

    Parameters
    ----------
    job
        See `Job`.
    options
        With ``overwrite``, stems that were made otherwise are replaced.
    progress
        See `unetsep.files.separate_file`.
    on_error
        Called with what became an error report.
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
        with job.at_hand(options, shared):
            return _separate(job, options, progress, shared)
    except ClaimedError as busy:
        return _reports(job, "skipped", reason=str(busy))
    except Exception as error:
        if on_error:
            on_error(error)
        return _reports(job, "error", error=sentence(error, job.song.path))


def preview_song(job: Job, options: FileOptions) -> list[SeparationReport]:
    """What `separate_song` would do with a song, without writing anything.

    The song is opened, not decoded: what is damaged further on is not found.

    Returns
    -------
    list of SeparationReport
        One for each model; what would be separated has the status ``"planned"``.
    """
    try:
        if job.song.error:
            raise UnetsepError(job.song.error)
        with job.at_hand(options, Shared()):
            input_file = job.input_file()
            skipped, todo = _decide(job, input_file, options)
            check_targets([path for part, _ in todo for path in part.targets])
            facts = _look(job, options) if input_file.here and todo else {}
        return skipped + [
            _report(job, part, "planned", stems=part.stems, **facts) for part, _ in todo
        ]
    except Exception as error:
        return _reports(job, "error", error=sentence(error, job.song.path))


def _look(job: Job, options: FileOptions) -> dict[str, Any]:
    """What a song says of itself; whether the format can hold it."""
    with open_song(job.song.path, options) as reader:
        info, frames = reader.info, reader.frames
        format_for(reader, options)
    seconds = None if frames is None else round(frames / info.sample_rate, 3)
    return {"sample_rate": info.sample_rate, "channels": info.channels, "seconds": seconds}


def _separate(
    job: Job,
    options: FileOptions,
    progress: Progress | None,
    shared: Shared,
    around: Callable[[OpenSink], OpenSink] | None = None,
) -> list[SeparationReport]:
    """Claim a song that is to be separated, look again, and separate it."""
    skipped, todo = _decide(job, job.input_file(), options)
    if not todo:
        shared.tidy(job)  # after a run that was killed after its last rename
        return skipped
    targets = [path for part, _ in todo for path in part.targets]
    check_targets(targets)
    check_names(targets)
    with contextlib.ExitStack() as held:
        with uninterrupted(), explain_writing(job.parts[0].targets[0].parent):
            claim = held.enter_context(Claim(part.record.claim for part in job.parts))
        input_file = job.input_file()
        skipped, todo = _decide(job, input_file, options)
        if not todo:
            return skipped
        shared.tidy(job)
        sinks: list[OpenSink] = [
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
            sinks = [around(open_sink) for open_sink in sinks]
        models = [part.separator for part, _ in todo]
        watched = shared.watch(progress)
        path, pool = input_file.fetch(), shared.pool
        return skipped + separate_into(path, models, sinks, options, watched, pool)


def _decide(
    job: Job, input_file: InputFile, options: FileOptions
) -> tuple[list[SeparationReport], list[tuple[Part, Finding]]]:
    """Reports of the models that leave the song, and the others with what there is of their stems.

    Raises
    ------
    AudioError
        If stems are in the way: then no model separates it.
    """
    skipped: list[SeparationReport] = []
    todo: list[tuple[Part, Finding]] = []
    in_the_way: list[Path] = []
    for part in job.parts:
        finding = part.record.compare(input_file, part.targets, part.recipe)
        # What another run has made since this one began is not made again, whatever was asked.
        new = part.record.signature != part.seen
        if finding.state == "same" and (job.skip_existing or new):
            skipped.append(_report(job, part, "skipped", reason=EXIST, stems=part.stems))
            continue
        todo.append((part, finding))
        if options.overwrite:
            continue
        if job.skip_existing and finding.state == "otherwise":
            raise AudioError(f"{job.song.path}: left alone, {finding.reason}; {AGAIN}")
        # A part that was made since is nobody's: its maker died, or still has the claim.
        if not job.skip_existing and not (new and finding.state == "incomplete"):
            in_the_way += part.targets
    refuse_existing(in_the_way)
    return skipped, todo


def _report(job: Job, part: Part, status: str, **facts: Any) -> SeparationReport:
    """What became of a song that was not separated with one model."""
    return SeparationReport(job.song.path, part.separator.name, status, **facts)


def _reports(job: Job, status: str, **facts: Any) -> list[SeparationReport]:
    """The same of all models."""
    return [_report(job, part, status, **facts) for part in job.parts]


def stopped_reports(job: Job, why: str) -> list[SeparationReport]:
    """The reports of a song that was stopped before it ended, and why."""
    return _reports(job, "error", error=f"{job.song.path}: {why} and was stopped")


def sentence(error: Exception, path: Path) -> str:
    """What to tell of an error, in one sentence."""
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
