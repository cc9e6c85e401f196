"""What Python code calls to separate audio files: arrays, files, or both."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .dsp.arrays import Signal
from .dsp.song_stream import Progress
from .files import FileOptions, SeparationReport, StemArrays, name_stems, separate_to_arrays
from .library.songs import Job, part_for, separate_or_raise
from .paths import TEMPLATE, Input, as_path, plan, refuse_existing
from .separator import Separator


@dataclass(frozen=True)
class Separation(Mapping[str, Signal]):
    """Separated stems, a mapping from stem name to ``(channels, samples)`` float32.

    Parameters
    ----------
    stems
        The arrays.
    sample_rate
        In Hz, that of the input.
    report
        What `separate_to_files` returns, too: files, gain, speed, warnings.
    """

    stems: dict[str, Signal]
    sample_rate: int
    report: SeparationReport

    @property
    def files(self) -> dict[str, Path]:
        """Stem name to path, if files were written."""
        return self.report.stems

    def __getitem__(self, stem: str) -> Signal:
        return self.stems[stem]

    def __iter__(self) -> Iterator[str]:
        return iter(self.stems)

    def __len__(self) -> int:
        return len(self.stems)


def separate(
    path: str | Path,
    output_dir: str | Path | None = None,
    *,
    model: str | Path | Sequence[str | Path] | Separator = "default",
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    container: str = "wav",
    bit_depth: str = "auto",
    filename: str = TEMPLATE,
    start: float | str = 0.0,
    duration: float | str | None = None,
    track: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Separation:
    """Separate an audio file into arrays, and into files if ``output_dir`` is given.

    The arrays take memory in proportion to the song; `separate_to_files` needs the same for
    any length. What may be wrong with the input is warned of.

    Parameters
    ----------
    path
        Audio file.
    output_dir
        Folder for ``<song>/<stem>.<container>``; made if there is none.
    model
        Name or path of a checkpoint, a list of these (whose masks are averaged), or a
        `Separator` to reuse.
    stems, two_stems
        See `Separator.select`.
    container, bit_depth
        ``wav``, ``flac``, ``ogg`` or ``mp3``; ``auto`` (as the input, or the next that the
        container holds), ``8``, ``16``, ``24``, ``32``, ``32f`` or ``64f``.
    filename
        How to name files in ``output_dir``, with ``{track}`` (the input's name),
        ``{stem}``, ``{ext}``, ``{model}`` and ``{suffix}`` (the input's).
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
        For stems, formats, templates and excerpts that cannot be.

    Examples
    --------
    >>> stems = separate("song.wav")  # doctest: +SKIP
    >>> stems["vocals"].shape, stems.sample_rate  # doctest: +SKIP
    ((2, 7938000), 44100)
    """
    file = as_path(path, "path")
    options = FileOptions(
        stems=stems,
        two_stems=two_stems,
        container=container,
        bit_depth=bit_depth,
        filename=filename,
        start=start,
        duration=duration,
        track=track,
        overwrite=overwrite,
    )
    separator = model if isinstance(model, Separator) else Separator(model)
    if output_dir is None:
        arrays, report = separate_to_arrays(file, separator, options, progress)
    else:
        folder = as_path(output_dir, "output_dir")
        arrays, report = _to_both(_job(file, folder, separator, options), options, progress)
    _warn(report)
    assert report.sample_rate is not None
    return Separation(arrays, report.sample_rate, report)


def separate_to_files(
    path: str | Path,
    output_dir: str | Path,
    *,
    model: str | Path | Sequence[str | Path] | Separator = "default",
    stems: Sequence[str] | None = None,
    two_stems: str | None = None,
    container: str = "wav",
    bit_depth: str = "auto",
    filename: str = TEMPLATE,
    start: float | str = 0.0,
    duration: float | str | None = None,
    track: int | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
    progress: Progress | None = None,
) -> SeparationReport:
    """Separate an audio file into files; memory does not grow with the song.

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
    file, folder = as_path(path, "path"), as_path(output_dir, "output_dir")
    options = FileOptions(
        stems=stems,
        two_stems=two_stems,
        container=container,
        bit_depth=bit_depth,
        filename=filename,
        start=start,
        duration=duration,
        track=track,
        overwrite=overwrite,
    )
    separator = model if isinstance(model, Separator) else Separator(model)
    job = _job(file, folder, separator, options, skip_existing=skip_existing)
    (report,) = separate_or_raise(job, options, progress)
    _warn(report)
    return report


def _job(
    path: Path,
    folder: Path,
    separator: Separator,
    options: FileOptions,
    *,
    skip_existing: bool = False,
) -> Job:
    """What is to be made of one file, and where."""
    file = Input(path, path.stem)
    models = [(separator.name, separator.select(options.stems, options.two_stems).names)]
    ((targets,),) = plan([file], models, folder, options.filename, options.suffix)
    part = part_for(separator, file, targets, folder, options.filename, options)
    return Job(file, [part], skip_existing)


def _to_both(
    job: Job, options: FileOptions, progress: Progress | None
) -> tuple[dict[str, Signal], SeparationReport]:
    """Separate one file into files, and into arrays on the way."""
    blocks: list[Signal] = []
    (report,) = separate_or_raise(job, options, progress, lambda files: StemArrays(blocks, files))
    (part,) = job.parts
    if not blocks:  # another process has just made them
        refuse_existing(part.targets)
    return name_stems(part.separator, options, blocks), report


def _warn(report: SeparationReport) -> None:
    for sentence in report.warnings:
        warnings.warn(sentence, RuntimeWarning, stacklevel=3)
