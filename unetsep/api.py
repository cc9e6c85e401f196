"""What Python code calls to separate audio files: arrays, files, or both."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile

from .dsp.arrays import Signal, as_signal, check_finite, check_rate
from .dsp.song_stream import Progress
from .errors import AudioError, UnetsepError
from .files import (
    FileOptions,
    OpenSink,
    SeparationReport,
    StemArrays,
    name_stems,
    renamed,
    separate_to_arrays,
)
from .inputs import Input, as_path
from .library.songs import Job, part_for, separate_or_raise
from .paths import TEMPLATE, plan, refuse_existing, with_tags
from .separator import Audio, Separator

# A path; a file object, which is read to its end; or ``(audio, sample_rate)`` with an array or
# tensor of ``(channels, samples)`` or ``(samples,)``.
AudioInput = str | Path | BinaryIO | tuple[Audio, float]
# What files are named after if their input has no name.
UNNAMED = "audio"
# More is no suffix of audio, and too much for a name in some file systems.
SUFFIX_LENGTH = 20


@dataclass(frozen=True, eq=False)
class Separation(Mapping[str, Signal]):
    """Separated stems, a mapping from stem name to ``(channels, samples)`` float32.

    Parameters
    ----------
    stems
        The arrays.
    sample_rate
        In Hz, that of the input unless another was asked for.
    report
        What `separate_to_files` returns, too: files, gain, speed, warnings.
    """

    stems: dict[str, Signal]
    sample_rate: int
    report: SeparationReport

    # Whether arrays are equal has no one answer: a separation equals itself alone.
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
        return self.stems[stem]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stems)

    def __len__(self) -> int:
        return len(self.stems)


def separate(
    audio: AudioInput,
    output_dir: str | Path | None = None,
    *,
    model: str | Path | Sequence[str | Path] | Separator = "default",
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    without: str | None = None,
    container: str = "wav",
    bit_depth: str = "auto",
    bitrate: int | None = None,
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

    The arrays take memory in proportion to the song; `separate_to_files` needs the same for
    any length. What may be wrong with the input is warned of.

    Parameters
    ----------
    audio
        Path of an audio file; a file object such as `io.BytesIO`, read from where it stands; or
        ``(audio, sample_rate)`` with an array or a torch tensor of ``(channels, samples)``, or
        ``(samples,)`` for one channel. Of the latter two a copy is made on the disk.
    output_dir
        Folder for ``<song>/<stem>.<container>``; made if there is none.
    model
        Name or path of a checkpoint, a list of these (whose masks are averaged), or a
        `Separator` to reuse.
    stems, two_stems
        See `Separator.select`.
    without
        Only what is left without this stem: ``"vocals"`` makes an instrumental.
    container, bit_depth
        ``wav``, ``flac``, ``ogg``, ``mp3``, ``opus``, ``m4a`` or ``stem.mp4``; ``auto`` (as the
        input, or the next that the container holds), ``8``, ``16``, ``24``, ``32``, ``32f`` or
        ``64f``.
    bitrate
        Of mp3, ogg, opus and m4a, in bits per second; by default the container's own.
    tags
        Whether files get the tags and the cover of the input.
    sample_rate
        Of the stems, in Hz; by default the input's.
    filename
        How to name files in ``output_dir``, with ``{track}`` (the input's name),
        ``{stem}``, ``{label}`` (such as Vocals), ``{ext}``, ``{model}``, ``{suffix}`` (the
        input's), and the tags ``{artist}``, ``{title}``, ``{album}``, ``{albumartist}``,
        ``{tracknumber}`` and ``{year}``.
    start, duration
        Excerpt in seconds, or as ``"1:30"``.
    track
        Number of the sound track of a file that has several, from 1; by default the one that
        the file says is the default, or else the first.
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
        If the song cannot be read, the stems not written, the model not loaded.
    UnetsepError
        If two stems would have the same path, or one that of the input.
    ClaimedError
        If another process is separating the same song into the same files.
    CancelledError
        If ``progress`` returned False; no file is left.
    ValueError
        For audio, stems, formats, templates and excerpts that cannot be.

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
    with _as_file(audio) as file:
        separator = model if isinstance(model, Separator) else Separator(model)
        if output_dir is None:
            arrays, report = separate_to_arrays(file.path, separator, options, progress)
        else:
            folder = as_path(output_dir, "output_dir")
            arrays, report = _to_both(_job(file, folder, separator, options), options, progress)
    report = _named(report, audio, file)
    _warn(report)
    assert report.sample_rate is not None
    return Separation(arrays, report.sample_rate, report)


def separate_to_files(
    audio: AudioInput,
    output_dir: str | Path,
    *,
    model: str | Path | Sequence[str | Path] | Separator = "default",
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    without: str | None = None,
    container: str = "wav",
    bit_depth: str = "auto",
    bitrate: int | None = None,
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

    Processes may share an output folder. Each song is claimed while it is worked on, and a
    small hidden file beside the stems says what made them, as with ``unetsep separate``.

    Parameters
    ----------
    skip_existing
        Report a song as ``"skipped"`` whose stems are just what this call would make, or that
        another process is working on. Stems that were made otherwise are an `AudioError`, or
        are replaced with ``overwrite``.

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
    with _as_file(audio) as file:
        separator = model if isinstance(model, Separator) else Separator(model)
        job = _job(file, folder, separator, options, skip_existing=skip_existing)
        (report,) = separate_or_raise(job, options, progress)
    report = _named(report, audio, file)
    _warn(report)
    return report


def _job(
    file: Input,
    folder: Path,
    separator: Separator,
    options: FileOptions,
    *,
    skip_existing: bool = False,
) -> Job:
    """What is to be made of one file, and where."""
    (file,) = with_tags([file], options.filename)
    models = [(separator.name, options.select(separator).names)]
    together = options.together
    ((targets,),) = plan(
        [file], models, folder, options.filename, options.suffix, together=together
    )
    part = part_for(separator, file, targets, folder, options.filename, options)
    return Job(file, [part], skip_existing)


def _to_both(
    job: Job, options: FileOptions, progress: Progress | None
) -> tuple[dict[str, Signal], SeparationReport]:
    """Separate one file into files, and into arrays on the way."""
    blocks: list[Signal] = []
    (part,) = job.parts

    def both(files: OpenSink) -> OpenSink:
        return lambda output, info: StemArrays(blocks, files(output, info))

    while True:
        (report,) = separate_or_raise(job, options, progress, both)
        if blocks:
            break
        # Another run has just made them; whoever overwrites wants them as arrays, too.
        if not options.overwrite:
            refuse_existing(part.targets)
        part = replace(part, first_signature=part.record.signature)
        job = replace(job, parts=[part])
    return name_stems(part.separator, options, blocks), report


@contextlib.contextmanager
def _as_file(audio: AudioInput) -> Iterator[Input]:
    """The file to read, and what to call it: the caller's, or a copy that lives as long."""
    if isinstance(audio, str | os.PathLike):
        path = as_path(audio, "audio")
        yield Input(path, path.stem)
        return
    name = _name(audio)
    with tempfile.TemporaryDirectory(prefix="unetsep-") as folder:
        if hasattr(audio, "read"):
            path = Path(folder, f"{UNNAMED}{name.suffix[:SUFFIX_LENGTH]}")
            content = _content(cast(BinaryIO, audio))
            with _explain_copying(folder):
                path.write_bytes(content)
        else:
            path = Path(folder, f"{UNNAMED}.w64")
            signal, rate = _signal(audio)
            # Without a limit at 4 GB, and without the time of writing: float samples come back as
            # they are, and the same audio is the same file.
            with _explain_copying(folder):
                soundfile.write(path, signal.T, rate, subtype="FLOAT", format="W64")
        try:
            yield Input(path, name.stem)
        except UnetsepError as error:
            error.args = (str(error).replace(str(path), str(name)),)
            raise


@contextlib.contextmanager
def _explain_copying(folder: str) -> Iterator[None]:
    """Turn what may go wrong while audio is copied to the disk into a sentence."""
    try:
        yield
    # The bare assertion is how soundfile says that less was written.
    except (OSError, soundfile.LibsndfileError, AssertionError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "the disk is full"
        raise AudioError(
            f"the audio could not be copied to {folder} ({reason}): set TMPDIR to a folder with "
            "more room, or separate a file that is on the disk"
        ) from error


def _name(audio: object) -> Path:
    """Name of an open file, if it has one: that of a pipe is a number, of an upload anything."""
    name = getattr(audio, "name", None)
    path = Path(name.replace("\0", "") if isinstance(name, str) else UNNAMED)
    return path if path.name else Path(UNNAMED)


def _named(report: SeparationReport, audio: AudioInput, file: Input) -> SeparationReport:
    """A report that names what the caller gave instead of a copy of it."""
    if isinstance(audio, str | os.PathLike):
        return replace(report, source=file.path)
    path, name = file.path, _name(audio)
    return renamed(
        report,
        lambda place: name if place == path else place,
        lambda text: text.replace(str(path), str(name)),
    )


def _content(file: BinaryIO) -> bytes:
    content = file.read()
    if not isinstance(content, bytes):
        raise ValueError(
            f"audio is a file of {type(content).__name__}: open it for bytes, as in "
            'open("song.wav", "rb")'
        )
    return content


def _signal(audio: tuple[Audio, float]) -> tuple[Signal, int]:
    """``(channels, samples)`` and the rate in Hz of audio in memory."""
    if not isinstance(audio, tuple) or len(audio) != 2:
        raise ValueError(
            f"expected a path, a file or (audio, sample_rate), got {type(audio).__name__}: what "
            "has no sample rate goes to Separator.separate, or in a pair with it"
        )
    rate = check_rate(audio[1])
    signal = np.atleast_2d(as_signal(audio[0]))
    if signal.size == 0:
        raise ValueError(f"audio must hold samples, got {signal.shape}")
    check_finite(signal, rate)
    return signal, rate


def _warn(report: SeparationReport) -> None:
    for sentence in report.warnings:
        warnings.warn(sentence, RuntimeWarning, stacklevel=3)
