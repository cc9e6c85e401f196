"""Song file in, stem files out: one decode, any number of models, constant memory."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .audio.background import BackgroundWriter, ReadAhead
from .audio.formats import choose_format
from .audio.reader import AudioReader
from .audio.stem_files import StemFiles
from .dsp.segments import segment_pool
from .dsp.song_stream import Progress, Signal, SongStream, push_all
from .separator import Separator


@dataclass(frozen=True)
class FileOptions:
    """What to take from a song file and how to write its stems.

    Parameters
    ----------
    stems, two_stems
        See `Separator.select`.
    container, bit_depth
        See `unetsep.audio.formats.choose_format`.
    start, duration
        Excerpt in seconds.
    overwrite
        Replace files that exist when the stems are complete; otherwise that is an error.
    """

    stems: tuple[str, ...] | None = None
    two_stems: str | None = None
    container: str = "wav"
    bit_depth: str = "auto"
    start: float = 0.0
    duration: float | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class SeparationReport:
    """What one model did with one file, for people and for ``--json``.

    Parameters
    ----------
    source, model
        Input path and model name.
    status
        ``"ok"``, ``"skipped"`` or ``"error"``.
    stems
        Stem name to the path written.
    error
        One sentence, when the status is ``"error"``.
    sample_rate, channels, seconds
        Of the input and so of the stems.
    gain_db
        Gain that all stems got so that none clips; 0 if none would have.
    elapsed, speed
        Seconds from opening the input to the last rename, for all models that share the
        decode, and how many times real time that is.
    device, precision
        What computed it.
    warnings
        Sentences about what may be wrong with the input.
    """

    source: str
    model: str
    status: str
    stems: dict[str, str] = field(default_factory=dict)
    error: str | None = None
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
        """The report as plain values for JSON."""
        return asdict(self)


def separate_file(
    source: Path,
    separators: Sequence[Separator],
    targets: Sequence[Sequence[Path]],
    options: FileOptions,
    progress: Progress | None = None,
) -> list[SeparationReport]:
    """Separate one file with one or more models; it is decoded once.

    Parameters
    ----------
    source
        The song.
    separators
        Models.
    targets
        For each model, the paths of its stems in the order of `Separator.select`.
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
    """
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(
            AudioReader(source, start=options.start, duration=options.duration)
        )
        output = choose_format(options.container, options.bit_depth, reader.info)
        selections = [s.select(options.stems, options.two_stems) for s in separators]
        files = [
            stack.enter_context(StemFiles(paths, output, reader.info, overwrite=options.overwrite))
            for paths in targets
        ]
        rate = reader.info.sample_rate
        pool = stack.enter_context(segment_pool(separators[0].device))
        songs = [
            separator.open_song(rate, reader.info.channels, selection, pool)
            for separator, selection in zip(separators, selections, strict=True)
        ]
        done = 0
        block_samples = max(s.block_samples(rate) for s in separators)
        with BackgroundWriter() as writer:
            for blocks in push_reader(reader, songs, block_samples, progress):
                for file, block in zip(files, blocks, strict=True):
                    writer.call(file.write, block)
                done += blocks[0].shape[-1]
        gains = [file.commit() for file in files]
    elapsed = time.perf_counter() - begun
    return [
        SeparationReport(
            source=str(source),
            model=separator.name,
            status="ok",
            stems={n: str(p) for n, p in zip(selection.names, paths, strict=True)},
            sample_rate=rate,
            channels=reader.info.channels,
            seconds=round(done / rate, 3),
            gain_db=round(float(20 * np.log10(gain)), 3),
            elapsed=round(elapsed, 3),
            speed=round(done / rate / elapsed, 2),
            device=separator.device.type,
            precision=separator.precision,
            warnings=tuple(reader.warnings),
        )
        for separator, selection, paths, gain in zip(
            separators, selections, targets, gains, strict=True
        )
    ]


def push_reader(
    reader: AudioReader,
    songs: Sequence[SongStream],
    block_samples: int,
    progress: Progress | None,
) -> Iterator[list[Signal]]:
    """Blocks of stems from each of the models that a file streams through."""
    rate = reader.info.sample_rate
    total = None if reader.frames is None else reader.frames / rate
    with ReadAhead(reader.blocks(block_samples)) as blocks:
        yield from push_all(songs, blocks, rate, total, progress, label=f"{reader.path}: ")
