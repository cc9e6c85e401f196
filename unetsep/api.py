"""The Python API for audio files: separate into arrays, files, or both."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import soundfile

from .dsp.arrays import Signal, as_rate, as_signal, check_finite
from .dsp.song_stream import Progress
from .ensemble import ModelLike
from .errors import AudioError, UnetsepError, WritingError
from .file_options import FileOptions
from .files import (
    SeparationReport,
    SinkOpener,
    StemArrays,
    name_stems,
    separate_to_arrays,
    with_shown_names,
)
from .inputs import Input
from .library.songs import Job, part_for, separate_or_raise
from .locations import as_path
from .paths import TEMPLATE, ModelNames, distinct_targets, refuse_existing, refuse_folder, with_tags
from .separator import Audio, Separator
from .storage import READ_BYTES


class BinaryFile(Protocol):
    """A file object that was opened for bytes: an upload, `io.BytesIO`, a temporary file."""

    def read(self, n: int = ..., /) -> bytes:
        """The next ``n`` bytes or fewer; none at the end."""


AudioInput = str | os.PathLike[str] | BinaryFile | tuple[Audio, float]
"""A path, a file object, which is read to its end, or ``(audio, sample_rate)``."""
# Track name of inputs without a name.
UNNAMED = "audio"
# Longer ones are no audio suffixes, and exceed the name length of some file systems.
SUFFIX_LENGTH = 20
ShowInput = Callable[[SeparationReport], SeparationReport]


@dataclass(frozen=True, eq=False)
class Separation(Mapping[str, Signal]):
    """Separated stems, a mapping from stem name to ``(channels, samples)`` float32.

    All share one block of memory: to keep a stem and free the others, copy it.

    Parameters
    ----------
    stems
        The arrays.
    sample_rate
        In Hz; the input's unless another was requested.
    report
        As `separate_to_files` returns it: files, gain, speed, warnings.
    """

    stems: dict[str, Signal]
    sample_rate: int
    report: SeparationReport

    # Arrays compare element by element, so a separation is only equal to itself.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    @property
    def files(self) -> dict[str, Path]:
        """Stem name to path, if files were written."""
        return self.report.stems

    def __repr__(self) -> str:
        shapes = {stem: signal.shape for stem, signal in self.stems.items()}
        return f"Separation({shapes}, sample_rate={self.sample_rate}, model={self.report.model!r})"

    def __getitem__(self, stem: str) -> Signal:
        if stem not in self.stems:
            raise KeyError(f"no stem {stem!r}: expected {', '.join(self)}")
        return self.stems[stem]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.stems)

    def __len__(self) -> int:
        return len(self.stems)


def separate(
    audio: AudioInput,
    output_dir: str | Path | None = None,
    *,
    model: ModelLike | Sequence[ModelLike] | Separator = "default",
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    without: str | None = None,
    container: str = "wav",
    bit_depth: str = "auto",
    bitrate: int | str | None = None,
    tags: bool = True,
    sample_rate: int | None = None,
    filename: str = TEMPLATE,
    start: float | str = 0.0,
    duration: float | str | None = None,
    track: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Separation:
    """Separate audio into arrays, and into files if ``output_dir`` is given.

    Memory grows with the length of the song; that of `separate_to_files` does not. Possible
    problems with the input are raised as warnings.

    Parameters
    ----------
    audio
        Path of an audio file; a file object such as `io.BytesIO`, read from its position; or
        ``(audio, sample_rate)``. The latter two are copied to the disk first. An array or torch
        tensor is ``(channels, samples)``, or ``(samples,)`` for one channel. What has no name
        is called ``audio``.
    output_dir
        Folder for ``<song>/<stem>.<container>``; created if missing.
    model
        Name or path of a checkpoint, a network or a `Model`; a list of these, whose masks are
        averaged; or a `Separator` to reuse. Only that has a choice of device and precision.
    stems, two_stems
        See `Separator.select`.
    without
        Only what is left without this stem: ``"vocals"`` makes an instrumental.
    container, bit_depth
        ``wav``, ``flac``, ``ogg``, ``mp3``, ``opus``, ``m4a`` or ``stem.mp4``; ``auto``, ``8``,
        ``16``, ``24``, ``32``, ``32f`` or ``64f``. ``auto`` is that of the input, at least 16, or
        the next that the container supports.
    bitrate
        Bits per second of mp3, ogg, opus and m4a, or ``"192k"``; by default the container's own.
    tags
        Whether files get the tags and the cover of the input.
    sample_rate
        Sample rate of the stems in Hz; by default the input's.
    filename
        How to name files in ``output_dir``; by default ``{track}/{stem}.{ext}``. Other fields are
        ``{label}`` (such as Vocals), ``{model}``, ``{suffix}`` (the input's) and ``{folder}`` (that
        of a path; other audio has none). Tags are ``{artist}``, ``{title}``, ``{album}``,
        ``{albumartist}``, ``{tracknumber}``, ``{year}``. ``{track}`` is the input's name.
        ``"42/{stem}.{ext}"`` is a folder of your own for a song without a name.
    start, duration
        Excerpt in seconds, or as ``"1:30"``.
    track
        Number, from 1, of the sound track of a file with several; by default the file's default
        track, or else the first.
    overwrite
        Replace existing files; otherwise they are an error.
    progress
        Called with the seconds done and the seconds in total (or None); return False to
        cancel.

    Returns
    -------
    Separation
        Mapping from stem to array, with ``sample_rate``, ``files`` and ``report``.

    Raises
    ------
    AudioError, WeightsError
        If the song cannot be read, or the model not loaded.
    WritingError
        If the stems, or the copy of the input, cannot be written; an `AudioError`, too.
    UnetsepError
        If two stems would have the same path, or a stem that of the input.
    ClaimedError
        If another process is separating the same song into the same files.
    CancelledError
        If ``progress`` returned False; no files remain.
    ValueError
        If audio, stems, format, template or excerpt are invalid.

    Examples
    --------
    >>> stems = separate("song.wav")  # doctest: +SKIP
    >>> stems["vocals"].shape, stems.sample_rate  # doctest: +SKIP
    ((2, 7938000), 44100)
    """
    options = FileOptions(
        stems=stems,
        two_stems=two_stems,
        without=without,
        container=container,
        bit_depth=bit_depth,
        bitrate=bitrate,
        tags=tags,
        sample_rate=sample_rate,
        filename=filename,
        start=start,
        duration=duration,
        track=track,
        overwrite=overwrite,
    )
    with _as_file(audio, filename) as (song, show_input):
        separator = model if isinstance(model, Separator) else Separator(model)
        if output_dir is None:
            arrays, report = separate_to_arrays(song.path, separator, options, progress)
        else:
            folder = as_path(output_dir, "output_dir")
            arrays, report = _to_both(_job(song, folder, separator, options), options, progress)
    report = show_input(report)
    _warn(report)
    assert report.sample_rate is not None
    return Separation(arrays, report.sample_rate, report)


def separate_to_files(
    audio: AudioInput,
    output_dir: str | Path,
    *,
    model: ModelLike | Sequence[ModelLike] | Separator = "default",
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    without: str | None = None,
    container: str = "wav",
    bit_depth: str = "auto",
    bitrate: int | str | None = None,
    tags: bool = True,
    sample_rate: int | None = None,
    filename: str = TEMPLATE,
    start: float | str = 0.0,
    duration: float | str | None = None,
    track: int | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    progress: Progress | None = None,
) -> SeparationReport:
    """Separate audio into files; memory does not grow with the song.

    The other parameters and the errors are those of `separate`. For several models at once,
    with one decode, see `separate_file`.

    Processes may share an output folder. Each song is claimed while it is processed, and a small
    dotfile beside the stems records how they were made, as with ``unetsep separate``.

    Parameters
    ----------
    skip_existing
        Report a song as ``"skipped"`` if its stems are exactly what this call would make, or if
        another process is separating it. Stems that were made differently raise `AudioError`,
        or are replaced with ``overwrite``.

    Returns
    -------
    SeparationReport
        Status, paths, gain, speed, warnings.

    Examples
    --------
    >>> report = separate_to_files("song.wav", "out")  # doctest: +SKIP
    >>> report.stems["vocals"]  # doctest: +SKIP
    PosixPath('out/song/vocals.wav')
    """
    folder = as_path(output_dir, "output_dir")
    options = FileOptions(
        stems=stems,
        two_stems=two_stems,
        without=without,
        container=container,
        bit_depth=bit_depth,
        bitrate=bitrate,
        tags=tags,
        sample_rate=sample_rate,
        filename=filename,
        start=start,
        duration=duration,
        track=track,
        overwrite=overwrite,
    )
    with _as_file(audio, filename) as (song, show_input):
        separator = model if isinstance(model, Separator) else Separator(model)
        job = _job(song, folder, separator, options, skip_existing=skip_existing)
        (report,) = separate_or_raise(job, options, progress)
    report = show_input(report)
    _warn(report)
    return report


def _job(
    song: Input,
    folder: Path,
    separator: Separator,
    options: FileOptions,
    *,
    skip_existing: bool = False,
) -> Job:
    """The job of one song: its stems and their paths."""
    (song,) = with_tags([song], options.filename)
    models = [ModelNames(separator.name, options.select(separator).names)]
    together = options.together
    ((targets,),) = distinct_targets(
        [song], models, folder, options.filename, options.suffix, together=together
    )
    part = part_for(separator, song, targets, folder, options.filename, options)
    return Job(song, [part], skip_existing)


def _to_both(
    job: Job, options: FileOptions, progress: Progress | None
) -> tuple[dict[str, Signal], SeparationReport]:
    """Separate one file into files, and into arrays on the way."""
    blocks: list[Signal] = []
    (part,) = job.parts

    def both(files: SinkOpener) -> SinkOpener:
        return lambda output, info: StemArrays(blocks, files(output, info))

    while True:
        (report,) = separate_or_raise(job, options, progress, both)
        if blocks:
            break
        # Another run has just written them. With `overwrite`, separate again for the arrays.
        if not options.overwrite:
            refuse_existing(part.targets)
        part = replace(part, first_signature=part.record.signature)
        job = replace(job, parts=[part])
    return name_stems(part.separator, options, blocks), report


@contextlib.contextmanager
def _as_file(audio: AudioInput, template: str) -> Iterator[tuple[Input, ShowInput]]:
    """The caller's file with its track name, or a temporary copy of other audio.

    Errors name the caller's input instead of the copy. The second value is a function that makes
    a report do so, too.
    """
    if isinstance(audio, str | os.PathLike):
        path = as_path(audio, "audio")
        yield Input(path, path.stem), lambda report: report
        return
    refuse_folder(template)
    name = _name(audio)
    # "audio is not audio" would say nothing.
    label = "the input" if name == Path(UNNAMED) else str(name)
    with contextlib.ExitStack() as stack:
        with _explain_copying():
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="unetsep-"))
        if hasattr(audio, "read"):
            path = Path(folder, f"{UNNAMED}{name.suffix[:SUFFIX_LENGTH]}")
            for block in _blocks(cast(BinaryFile, audio)):
                with _explain_copying(folder), path.open("ab") as copy:
                    copy.write(block)
            if path.stat().st_size == 0:
                raise AudioError(
                    f"{label} has nothing left to read: if it was read before, call seek(0) first"
                )
        else:
            path = Path(folder, f"{UNNAMED}.w64")
            signal, rate = _signal(audio)
            # W64 has no limit of 4 GB and no time stamp: float samples are stored exactly, and
            # the same audio gives the same file.
            with _explain_copying(folder):
                soundfile.write(path, signal.T, rate, subtype="FLOAT", format="W64")

        def shown_text(text: str) -> str:
            return text.replace(str(path), label)

        def show_input(report: SeparationReport) -> SeparationReport:
            return with_shown_names(
                report, lambda shown: name if shown == path else shown, shown_text
            )

        try:
            yield Input(path, name.stem), show_input
        except UnetsepError as error:
            error.args = (shown_text(str(error)),)
            raise


@contextlib.contextmanager
def _explain_copying(folder: str | None = None) -> Iterator[None]:
    """Turn errors of copying audio to the disk into a sentence."""
    try:
        yield
    # soundfile raises a bare AssertionError if it wrote fewer samples.
    except (OSError, soundfile.LibsndfileError, AssertionError) as error:
        # Of a full disk libsndfile often says nothing else.
        text = str(error).removesuffix("System error.") or "the disk takes no more"
        reason = getattr(error, "strerror", None) or text
        raise WritingError(
            f"the audio could not be copied to {folder or 'the disk'} ({reason}): set TMPDIR to a "
            "folder with more room, separate a file that is on the disk, or pass an array to "
            "Separator.separate, which needs no disk",
            Path(folder) if folder else None,
            reason,
        ) from error


def _name(audio: object) -> Path:
    """Name of an open file, if any: a pipe's is a number, an upload's is untrusted."""
    name = getattr(audio, "name", None)
    path = Path(name.replace("\0", "") if isinstance(name, str) else UNNAMED)
    return path if path.name else Path(UNNAMED)


def _blocks(file: BinaryFile) -> Iterator[bytes]:
    """The content of a file block by block, the last of which is empty: files may be large."""
    block: object = None
    while block != b"":
        try:
            block = file.read(READ_BYTES)
        except UnicodeDecodeError:  # of a file that was opened for text
            block = ""
        if isinstance(block, Coroutine):
            block.close()  # else Python warns that nothing awaited it
            raise ValueError(
                "audio is an asynchronous file: pass the file in it, such as UploadFile.file, or "
                "io.BytesIO(await audio.read())"
            )
        if not isinstance(block, bytes):
            raise ValueError(
                f"audio is a file of {type(block).__name__}: open it for bytes, as in "
                'open("song.wav", "rb")'
            )
        yield block


def _signal(audio: tuple[Audio, float]) -> tuple[Signal, int]:
    """``(channels, samples)`` and the rate in Hz of audio in memory."""
    if not isinstance(audio, tuple) or len(audio) != 2:
        raise ValueError(
            f"expected a path, a file or (audio, sample_rate), got {type(audio).__name__}: what "
            "has no sample rate goes to Separator.separate, or in a pair with it; several songs "
            "come one by one, with one Separator as the model"
        )
    rate = as_rate(audio[1])
    signal = np.atleast_2d(as_signal(audio[0]))
    if signal.size == 0:
        raise ValueError(f"audio must hold samples, got {signal.shape}")
    check_finite(signal, rate)
    return signal, rate


def _warn(report: SeparationReport) -> None:
    for sentence in report.warnings:
        warnings.warn(sentence, RuntimeWarning, stacklevel=3)
