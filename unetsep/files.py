"""Audio file in, stems out: one decode, any number of models, constant memory."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from .audio.background import BackgroundWriter, ReadAhead
from .audio.decoder import AudioInfo
from .audio.formats import OutputFormat, choose_format, speaker_warnings
from .audio.reader import AudioReader
from .audio.stem_files import StemFiles, WriteIntegers
from .audio.tag_writers import fit_tags
from .audio.tags import Tags, read_tags
from .dsp.arrays import Signal
from .dsp.resample import resample_blocks, resampled_length
from .dsp.segments import SegmentPool, segment_pool
from .dsp.song_stream import Progress, Selection, push_all
from .dsp.transfer import StemBlock
from .file_options import FileOptions
from .locations import as_path
from .paths import refuse_existing
from .separator import Separator


@dataclass(frozen=True)
class SeparationReport:
    """The outcome of one model for one file, for people and for ``--json``.

    Parameters
    ----------
    source, model
        Input path and model name.
    status
        ``"ok"``, ``"skipped"``, ``"error"`` or, in a preview, ``"planned"``.
    stems
        Stem name to the path written; empty if no files were requested.
    error
        One sentence, when the status is ``"error"``.
    reason
        Why nothing was done, when the status is ``"skipped"``.
    sample_rate, channels, seconds
        Of the stems: those of the input, unless another rate was requested.
    gain_db
        Gain of the stems in files that prevents clipping; 0 if none would clip.
    elapsed, speed
        Seconds from opening the input to the last rename, for all models that share the
        decoding, and the speed relative to real time.
    device, precision
        Of the computation.
    warnings
        Sentences about possible defects of the input.
    """

    source: Path
    model: str
    status: str
    stems: dict[str, Path] = field(default_factory=dict)
    error: str | None = None
    reason: str | None = None
    sample_rate: int | None = None
    channels: int | None = None
    seconds: float | None = None
    gain_db: float = 0.0
    elapsed: float | None = None
    speed: float | None = None
    device: str | None = None
    precision: str | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values for JSON; paths become strings."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        stems = {stem: str(path) for stem, path in self.stems.items()}
        return values | {"source": str(self.source), "stems": stems}


def with_shown_names(
    report: SeparationReport, shown_path: Callable[[Path], Path], shown_text: Callable[[str], str]
) -> SeparationReport:
    """A report with other names for files, for example for temporary copies.

    Parameters
    ----------
    report
        The report.
    shown_path, shown_text
        Functions that return the name to show for a path, and a sentence with such names.
    """
    return replace(
        report,
        source=shown_path(report.source),
        stems={stem: shown_path(path) for stem, path in report.stems.items()},
        error=report.error and shown_text(report.error),
        reason=report.reason and shown_text(report.reason),
        warnings=tuple(map(shown_text, report.warnings)),
    )


class Sink(Protocol):
    """Receives the stems that one model makes of one file; use as a context manager."""

    @property
    def paths(self) -> Sequence[Path]:
        """The files, in the order of the stems; empty if there are none."""

    def __enter__(self) -> Sink: ...

    def write(self, block: Signal) -> None:
        """Append ``(stems, channels, samples)``."""

    @property
    def write_integers(self) -> WriteIntegers | None:
        """Alternative to `write` if no sample is beyond full scale; see `StemFiles`."""

    def commit(self) -> float:
        """Complete the stems; returns the gain of all of them."""

    def __exit__(self, *error: object) -> None: ...


# Opens a sink once the input's format and that of its stems are known.
SinkOpener = Callable[[OutputFormat, AudioInfo], Sink]


class StemArrays:
    """A `Sink` that collects stems in memory and may also pass them on.

    Parameters
    ----------
    blocks
        List to which all blocks are appended.
    files
        Another sink that gets the same blocks.
    """

    def __init__(self, blocks: list[Signal], files: Sink | None = None) -> None:
        self._blocks, self._files = blocks, files
        self.paths: Sequence[Path] = files.paths if files else ()
        self.write_integers: WriteIntegers | None = None

    def __enter__(self) -> StemArrays:
        if self._files:
            self._files.__enter__()
        return self

    def write(self, block: Signal) -> None:
        """Append ``(stems, channels, samples)``."""
        self._blocks.append(block)
        if self._files:
            self._files.write(block)

    def commit(self) -> float:
        """Complete the files; returns their gain, which the arrays do not get."""
        return self._files.commit() if self._files else 1.0

    def __exit__(self, *error: object) -> None:
        if self._files:
            self._files.__exit__(*error)


def separate_file(
    path: str | os.PathLike[str],
    separators: Sequence[Separator],
    targets: Sequence[Sequence[str | os.PathLike[str]]],
    options: FileOptions,
    progress: Progress | None = None,
) -> list[SeparationReport]:
    """Separate one file with one or more models into files; it is decoded once.

    Parameters
    ----------
    path
        The audio file.
    separators
        Models.
    targets
        For each model, the paths of its stems in the order of `Separator.select`, with the suffix
        of the format. If one file holds all stems, its path for each of them.
    options
        Excerpt, stems and format.
    progress
        Called after each block.

    Returns
    -------
    list of SeparationReport
        One for each model.

    Raises
    ------
    AudioError
        If the input cannot be read or the output cannot be written; no file is left.
    CancelledError
        If ``progress`` returned False; no file is left.
    ValueError
        If there is not one target for each stem of each model.
    """
    song = as_path(path)
    files = [[as_path(each, "a target") for each in paths] for paths in targets]
    names = [options.select(each).names for each in separators]
    counts, expected = [len(paths) for paths in files], [len(each) for each in names]
    if counts != expected:
        raise ValueError(
            f"expected as many targets as each model has stems, {expected}, got {counts}"
        )
    if not options.overwrite:
        refuse_existing(itertools.chain(*files))
    openers = [
        functools.partial(StemFiles, paths, names=stems, overwrite=options.overwrite)
        for paths, stems in zip(files, names, strict=True)
    ]
    return separate_into(song, separators, openers, options, progress)


def separate_to_arrays(
    path: Path, separator: Separator, options: FileOptions, progress: Progress | None = None
) -> tuple[dict[str, Signal], SeparationReport]:
    """Separate one file with one model into arrays.

    Parameters and errors are those of `separate_file`.

    Returns
    -------
    dict, SeparationReport
        Stem name to ``(channels, samples)``, float32, at the input's rate.
    """
    options = replace(options, tags=False)  # arrays have none
    blocks: list[Signal] = []
    openers = [lambda _output, _info: StemArrays(blocks)]
    (report,) = separate_into(path, [separator], openers, options, progress)
    return name_stems(separator, options, blocks), report


def name_stems(
    separator: Separator, options: FileOptions, blocks: Sequence[Signal]
) -> dict[str, Signal]:
    """Stem name to array, from the blocks that `StemArrays` collected."""
    names = options.select(separator).names
    return dict(zip(names, np.concatenate(blocks, axis=-1), strict=True))


class ResampledReader:
    """A song at another sample rate, with the interface of its `AudioReader`.

    Parameters
    ----------
    reader
        The song at its own rate; the caller closes it.
    sample_rate
        In Hz.
    """

    def __init__(self, reader: AudioReader, sample_rate: int) -> None:
        self._reader, self.path, rate = reader, reader.path, reader.info.sample_rate
        frames = reader.frames
        self.frames = None if frames is None else resampled_length(frames, rate, sample_rate)
        self.info = replace(reader.info, sample_rate=sample_rate, frames=self.frames)
        self.time_reference = round(reader.time_reference * sample_rate / rate)

    @property
    def warnings(self) -> list[str]:
        """Warnings about the song, complete after reading it."""
        return self._reader.warnings

    def blocks(self, block_frames: int) -> Iterator[Signal]:
        """Yield ``(channels, samples)`` of about this size; in total as long as the song."""
        info, rate = self._reader.info, self.info.sample_rate
        blocks = self._reader.blocks(resampled_length(block_frames, rate, info.sample_rate))
        return resample_blocks(blocks, info.sample_rate, rate, info.channels)


@contextlib.contextmanager
def open_excerpt(path: Path, options: FileOptions) -> Iterator[AudioReader | ResampledReader]:
    """The excerpt to separate, at the sample rate of its stems; errors are those of the reader."""
    start, duration, rate = options.start, options.duration, options.sample_rate
    with AudioReader(path, start=start, duration=duration, track=options.track) as reader:
        if rate is None or rate == reader.info.sample_rate:
            yield reader
        else:
            yield ResampledReader(reader, rate)


def format_for(reader: AudioReader | ResampledReader, options: FileOptions) -> OutputFormat:
    """The format of a song's stems.

    Raises
    ------
    AudioError
        If it cannot hold them: see `unetsep.audio.formats.choose_format`. The message names the
        song, which may be one of many.
    """
    label = f"{reader.path}: "
    assert not isinstance(options.bitrate, str)  # a text became a number
    return choose_format(options.container, options.bit_depth, reader.info, options.bitrate, label)


def separate_into(
    path: Path,
    separators: Sequence[Separator],
    openers: Sequence[SinkOpener],
    options: FileOptions,
    progress: Progress | None = None,
    pool: SegmentPool | None = None,
) -> list[SeparationReport]:
    """Separate one file with each model into its sink; otherwise like `separate_file`.

    With a pool, several threads may call it at the same time: the pool's threads share the
    network's work, and the bytes are the same.
    """
    start = time.perf_counter()
    selections = [options.select(separator) for separator in separators]
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(open_excerpt(path, options))
        output_format = format_for(reader, options)
        tags = fit_tags(read_tags(path), options.container, path) if options.tags else Tags()
        texts, place = reader.info.broadcast, reader.time_reference
        texts = texts if options.tags else bytes(len(texts))  # the time stays
        info = replace(reader.info, tags=tags, broadcast=texts, time_reference=place)
        sinks = [stack.enter_context(opener(output_format, info)) for opener in openers]
        outputs = [_ModelOutput(*each) for each in zip(separators, selections, sinks, strict=True)]
        samples = _stream_song(reader, outputs, progress, pool)
        gains = [sink.commit() for sink in sinks]
    elapsed = time.perf_counter() - start
    rate = reader.info.sample_rate
    common = SeparationReport(
        source=path,
        model="",
        status="ok",
        sample_rate=rate,
        channels=reader.info.channels,
        seconds=round(samples / rate, 3),
        elapsed=round(elapsed, 3),
        speed=round(samples / rate / elapsed, 2),
        warnings=(
            *reader.warnings,
            *info.tags.warnings,
            *speaker_warnings(path, output_format, info),
        ),
    )
    return [
        replace(
            common,
            model=separator.name,
            stems=dict(zip(selection.names, sink.paths, strict=True)) if sink.paths else {},
            gain_db=decibels(gain),
            device=separator.device.type,
            precision=separator.precision,
        )
        for (separator, selection, sink), gain in zip(outputs, gains, strict=True)
    ]


def decibels(gain: float) -> float:
    """A gain in dB, as reports and records hold it."""
    return round(float(20 * np.log10(gain)), 3)


class _ModelOutput(NamedTuple):
    """A model, its selected stems, and where they go."""

    separator: Separator
    selection: Selection
    sink: Sink


def _stream_song(
    reader: AudioReader | ResampledReader,
    outputs: Sequence[_ModelOutput],
    progress: Progress | None,
    run_pool: SegmentPool | None,
) -> int:
    """Stream a file through all models into their sinks; returns the samples of each stem."""
    rate, channels = reader.info.sample_rate, reader.info.channels
    total = None if reader.frames is None else reader.frames / rate
    samples = 0
    block_samples = max(each.separator.block_samples(rate) for each in outputs)
    with contextlib.ExitStack() as stack:
        pool = run_pool or stack.enter_context(segment_pool(outputs[0].separator.device))
        songs = [each.separator.open_song(rate, channels, each.selection, pool) for each in outputs]
        writer = stack.enter_context(BackgroundWriter())
        blocks = stack.enter_context(ReadAhead(reader.blocks(block_samples)))
        label = f"{reader.path}: "
        integers = [each.sink.write_integers is not None for each in outputs]
        for stems in push_all(songs, blocks, rate, total, progress, label, integers):
            for output, block in zip(outputs, stems, strict=True):
                if block.samples:
                    writer.call(_write, output.sink, block)
            samples += stems[0].samples
    return samples


def _write(sink: Sink, block: StemBlock) -> None:
    """Wait for a block and write it to a sink."""
    integers = block.integers()
    if integers is None:
        sink.write(block.floats())
    else:
        assert sink.write_integers is not None
        sink.write_integers(integers)
