"""Audio files to arrays, and for the cache to int16 at 44.1 kHz stereo."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...audio.reader import AudioReader
from ...dsp.arrays import Signal
from ...errors import AudioError
from .musdb import read_stem_file
from .recording import SAMPLE_RATE
from .sources import ALL_STEMS, Source

logger = logging.getLogger(__name__)

# Stems whose lengths differ by more than this many samples are reported.
TOLERANCE = SAMPLE_RATE // 10

# ``(samples, 2)``, 1 is full scale.
Stem = npt.NDArray[np.float32]


def read_audio(path: Path, duration: float | None = None) -> tuple[Signal, int]:
    """Read an audio file; its warnings are logged.

    Parameters
    ----------
    path
        Of any format that is supported.
    duration
        Seconds to read from the beginning; by default all.

    Returns
    -------
    signal
        ``(channels, samples)``, 1 is full scale.
    rate
        In Hz.

    Raises
    ------
    AudioError
        If it cannot be read.
    """
    with AudioReader(path, duration=duration, past_damage=False) as reader:
        signal = np.concatenate(list(reader.blocks()), axis=1)
        for sentence in reader.warnings:
            logger.warning("%s", sentence)
        return signal, reader.info.sample_rate


def decode(source: Source) -> tuple[tuple[str, ...], npt.NDArray[np.int16]]:
    """Stems of a source.

    Stems start together; shorter ones are filled up with silence at the end. Where one is above
    full scale, as sums of recordings may be, all are lowered by one factor so that none is clipped.

    Returns
    -------
    names
        Of the stems; MUSDB18 also has the ``mixture``.
    pcm
        int16, ``(stems, samples, 2)``.

    Raises
    ------
    AudioError
        If a file cannot be read, is empty, or has more than two channels.
    """
    if ALL_STEMS in source.files:
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
    peak = max(float(np.abs(stem).max(initial=0.0)) for stem in stems.values())
    scale = 32768.0 / max(peak, 1.0)
    pcm = np.zeros((len(stems), longest, 2), np.int16)
    for row, stem in zip(pcm, stems.values(), strict=True):
        row[: len(stem)] = np.clip(np.rint(stem * scale), -32768, 32767)
    return tuple(stems), pcm


def _read_sum(source: Source, stem: str) -> Stem:
    """A stem; parts that are shorter than others are silent at their end."""
    parts = [_read(path) for name, path in source.parts if name == stem]
    total = np.zeros((max(map(len, parts)), 2), np.float32)
    for part in parts:
        total[: len(part)] += part
    return total


def _read(path: Path) -> Stem:
    import soxr

    signal, rate = read_audio(path)
    if len(signal) > 2:
        raise AudioError(f"{path} has {len(signal)} channels: expected a mono or stereo file")
    audio = signal.T
    if rate != SAMPLE_RATE:
        audio = soxr.resample(audio, rate, SAMPLE_RATE)
    stereo: Stem = audio if audio.shape[1] > 1 else np.repeat(audio, 2, axis=1)
    return stereo


def _read_musdb(path: Path) -> dict[str, Stem]:
    streams, _ = read_stem_file(path, dtype=np.float32, sample_rate=SAMPLE_RATE)
    for name, stream in streams.items():
        if not np.isfinite(stream).all():
            raise AudioError(f"{path}: the {name} hold NaN or infinite samples")
    return streams
