"""What Python code calls to separate song files: arrays, files, or both."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .audio.background import BackgroundWriter
from .audio.formats import choose_format
from .audio.reader import AudioReader
from .audio.stem_files import StemFiles
from .dsp.segments import segment_pool
from .dsp.song_stream import Progress, Signal
from .files import FileOptions, SeparationReport, push_reader, separate_file
from .paths import TEMPLATE, refuse_existing, target_path
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
    files
        Stem name to path, if files were written.
    """

    stems: dict[str, Signal]
    sample_rate: int
    files: dict[str, Path] = field(default_factory=dict)

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
    start: float = 0.0,
    duration: float | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Separation:
    """Separate a song file into arrays, and into files if ``output_dir`` is given.

    The arrays take memory in proportion to the song; `separate_to_files` needs the same for
    any length.

    Parameters
    ----------
    path
        Audio file.
    output_dir
        Where to write ``<song>/<stem>.<container>``.
    model
        Name or path of a checkpoint, a list of these (whose masks are averaged), or a
        `Separator` to reuse.
    stems, two_stems
        See `Separator.select`.
    container, bit_depth
        ``wav``, ``flac``, ``ogg`` or ``mp3``; ``auto``, ``16``, ``24`` or ``32f``.
    start, duration
        Excerpt in seconds.
    overwrite
        Replace existing files; otherwise they are an error.
    progress
        Called with the seconds done and the seconds in total (or None); return False to
        cancel.

    Returns
    -------
    Separation
        Mapping from stem to array, with ``sample_rate`` and ``files``.

    Raises
    ------
    AudioError, WeightsError
        If the song cannot be read, the stems not written, the model not loaded.
    CancelledError
        If ``progress`` returned False.

    Examples
    --------
    >>> stems = separate("song.wav")  # doctest: +SKIP
    >>> stems["vocals"].shape, stems.sample_rate  # doctest: +SKIP
    ((2, 7938000), 44100)
    """
    separator = model if isinstance(model, Separator) else Separator(model)
    selection = separator.select(stems, two_stems)
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(AudioReader(path, start=start, duration=duration))
        output = choose_format(container, bit_depth, reader.info)
        sink = None
        targets: list[Path] = []
        if output_dir is not None:
            targets = _targets(reader.path, Path(output_dir), selection.names, container, overwrite)
            sink = stack.enter_context(StemFiles(targets, output, reader.info, overwrite=overwrite))
        rate = reader.info.sample_rate
        pool = stack.enter_context(segment_pool(separator.device))
        song = separator.open_song(rate, reader.info.channels, selection, pool)
        blocks = push_reader(reader, [song], separator.block_samples(rate), progress)
        parts = []
        with BackgroundWriter() as writer:
            for (block,) in blocks:
                parts.append(block)
                if sink is not None:
                    writer.call(sink.write, block)
        if sink is not None:
            sink.commit()
        for sentence in reader.warnings:
            warnings.warn(sentence, RuntimeWarning, stacklevel=2)
    whole = np.concatenate(parts, axis=-1)
    return Separation(
        dict(zip(selection.names, whole, strict=True)),
        rate,
        dict(zip(selection.names, targets, strict=False)),
    )


def separate_to_files(
    path: str | Path,
    output_dir: str | Path,
    *,
    model: str | Path | Sequence[str | Path] | Separator = "default",
    options: FileOptions | None = None,
    progress: Progress | None = None,
) -> SeparationReport:
    """Separate a song file into ``<output_dir>/<song>/<stem>.<container>``.

    Memory does not grow with the song. For several models at once, with one decode, see
    `unetsep.files.separate_file`.

    Parameters
    ----------
    path
        Audio file.
    output_dir
        Folder; made if it is not there.
    model
        Name or path of a checkpoint, a list of these (whose masks are averaged), or a
        `Separator` to reuse.
    options
        Stems, format, excerpt, and whether existing files are replaced.
    progress
        Called with the seconds done and the seconds in total (or None); return False to
        cancel.

    Returns
    -------
    SeparationReport
        Paths, gain, speed.

    Raises
    ------
    AudioError, WeightsError
        If the song cannot be read, the stems not written, the model not loaded.
    CancelledError
        If ``progress`` returned False; no file is left.

    Examples
    --------
    >>> report = separate_to_files("song.wav", "out")  # doctest: +SKIP
    >>> report.stems["vocals"]  # doctest: +SKIP
    'out/song/vocals.wav'
    """
    separator = model if isinstance(model, Separator) else Separator(model)
    options = options or FileOptions()
    names = separator.select(options.stems, options.two_stems).names
    targets = _targets(Path(path), Path(output_dir), names, options.container, options.overwrite)
    (report,) = separate_file(Path(path), [separator], [targets], options, progress)
    return report


def _targets(
    source: Path, output_dir: Path, names: Sequence[str], container: str, overwrite: bool
) -> list[Path]:
    paths = [output_dir / target_path(TEMPLATE, source.stem, name, container, "") for name in names]
    if not overwrite:
        refuse_existing(paths)
    return paths
