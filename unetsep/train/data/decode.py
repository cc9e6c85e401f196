"""Audio files to int16 arrays at 44.1 kHz stereo; only the cache calls this."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...audio.reader import AudioReader
from ...errors import AudioError
from .musdb import read_stem_file
from .recording import SAMPLE_RATE
from .sources import Source

logger = logging.getLogger(__name__)

# Stems whose lengths differ by more than this many samples are worth a word.
TOLERANCE = SAMPLE_RATE // 10

Pcm = npt.NDArray[np.int16]


def decode(source: Source) -> tuple[tuple[str, ...], Pcm]:
    """Stems of a source.

    Stems start together; shorter ones are filled up with silence at the end.

    Returns
    -------
    names
        Of the stems; MUSDB18 also has the ``mixture``.
    pcm
        int16, ``(stems, samples, 2)``.

    Raises
    ------
    AudioError
        If a file cannot be read or is empty.
    """
    if "" in source.files:
        ((_, path),) = source.parts
        stems = _read_musdb(path)
    else:
        stems = {name: _read_sum(source, name) for name in source.files}
    lengths = {name: len(stem) for name, stem in stems.items()}
    longest, shortest = max(lengths.values()), min(lengths.values())
    if longest - shortest > TOLERANCE:
        logger.warning(
            "%s: stems differ in length (%s s); the shorter ones are filled up with silence",
            source.name,
            ", ".join(f"{name} {samples / SAMPLE_RATE:.1f}" for name, samples in lengths.items()),
        )
    pcm = np.zeros((len(stems), longest, 2), np.int16)
    for row, stem in zip(pcm, stems.values(), strict=True):
        row[: len(stem)] = stem
    return tuple(stems), pcm


def _read_sum(source: Source, stem: str) -> Pcm:
    """A stem; parts that are shorter than others are silent at their end."""
    parts = [_read(path) for name, path in source.parts if name == stem]
    total = np.zeros((max(map(len, parts)), 2), np.float32)
    for part in parts:
        total[: len(part)] += part
    return _to_int16(total)


def _read(path: Path) -> npt.NDArray[np.float32]:
    import soxr

    with AudioReader(path) as reader:
        rate = reader.info.sample_rate
        audio = np.concatenate([block[:2] for block in reader.blocks()], axis=1).T
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio, rate, SAMPLE_RATE)
    stereo: npt.NDArray[np.float32] = audio if audio.shape[1] > 1 else np.repeat(audio, 2, axis=1)
    return stereo


def _read_musdb(path: Path) -> dict[str, Pcm]:
    streams, _ = read_stem_file(path, dtype=np.float32, sample_rate=SAMPLE_RATE)
    return {name: _to_int16(stream) for name, stream in streams.items()}


def _to_int16(audio: npt.NDArray[Any]) -> Pcm:
    if not np.isfinite(audio).all():
        raise AudioError("the audio holds NaN or infinite samples")
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)
