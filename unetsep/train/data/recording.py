"""Decoded training audio: int16 stems in memory or on disk, their levels, and parts of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 44_100  # Hz, of all of them
# Name of what a recording holds but must not be used.
UNKNOWN = "unknown"
# Samples over which levels are noted: a quarter of a second.
LEVEL_BLOCK = SAMPLE_RATE // 4
# Below this RMS (-54 dB full scale, in int16 units) an excerpt counts as silent.
AUDIBLE = 2e-3 * 32768


@dataclass(frozen=True)
class Recording:
    """A decoded song with stems or a single stem, or a part of one.

    Parameters
    ----------
    name, origin, split
        See `unetsep.train.data.sources.Source`.
    names
        Stems (and perhaps ``mixture``) in the order of ``pcm``; others are unknown.
    pcm
        int16, ``(stems, samples, 2)``, usually memory-mapped.
    levels
        RMS in int16 units of each block of `LEVEL_BLOCK` samples, ``(stems, blocks)``.
    silent
        Stems that are known to be silent and not in ``names``.
    extra
        Whether random mixtures take it by ``extra_share``, beside recordings that are not extra.
    start, stop
        The part of ``pcm`` that belongs to this recording, in samples; ``None`` is the end.
    path
        File of ``pcm``, from which it is mapped again in another process.
    weight
        See `unetsep.train.data.sources.Source`.
    """

    name: str
    origin: str
    split: str
    names: tuple[str, ...]
    pcm: npt.NDArray[np.int16]
    levels: npt.NDArray[np.float32]
    silent: tuple[str, ...] = ()
    extra: bool = False
    start: int = 0
    stop: int | None = None
    path: Path | None = None
    weight: float = 1.0

    @property
    def samples(self) -> int:
        """Length in samples."""
        return (self.pcm.shape[1] if self.stop is None else self.stop) - self.start

    @property
    def artist(self) -> str:
        """The artist, by the name: ``Artist - Title`` or ``artist-title``.

        Of the latter the part before the last hyphen; a name without one is the artist.
        """
        artist, mark, _ = self.name.partition(" - ")
        if not mark:
            artist, _, _ = self.name.rpartition("-")
        return artist or self.name

    def stem(self, name: str) -> npt.NDArray[np.int16]:
        """One stem, int16 ``(samples, 2)``."""
        pcm: npt.NDArray[np.int16] = self.pcm[self.names.index(name), self.start : self.stop]
        return pcm

    def knows(self, stems: Sequence[str]) -> bool:
        """Whether each of these stems is present or known to be silent."""
        return all(stem in self.names or stem in self.silent for stem in stems)

    def level(self, name: str, start: int, samples: int) -> float:
        """RMS of an excerpt in int16 units, to the accuracy of the blocks."""
        first = (self.start + start) // LEVEL_BLOCK
        last = max(first + 1, (self.start + start + samples) // LEVEL_BLOCK)
        blocks = self.levels[self.names.index(name), first:last]
        return float(np.sqrt(np.mean(np.square(blocks)))) if blocks.size else 0.0

    def part(self, start: int, stop: int) -> Recording:
        """The samples from ``start`` to ``stop`` as a recording of its own."""
        return dataclasses.replace(self, start=self.start + start, stop=self.start + stop)

    def without(self, stems: Collection[str]) -> Recording:
        """The recording with some stems unknown."""
        indices = [i for i, name in enumerate(self.names) if name not in stems]
        if len(indices) == len(self.names):
            return self
        names = tuple(name if i in indices else UNKNOWN for i, name in enumerate(self.names))
        silent = tuple(stem for stem in self.silent if stem not in stems)
        return dataclasses.replace(self, names=names, silent=silent)

    def __getstate__(self) -> dict[str, Any]:
        # Pickling a memory map would copy the audio.
        return {**self.__dict__, "pcm": self.pcm if self.path is None else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["pcm"] is None:
            state["pcm"] = np.load(state["path"], mmap_mode="r")
        self.__dict__.update(state)


def block_levels(pcm: npt.NDArray[np.int16]) -> npt.NDArray[np.int32]:
    """RMS of each block of each stem, rounded, ``(stems, blocks)``."""
    stems, samples, _ = pcm.shape
    count = -(-samples // LEVEL_BLOCK)
    levels = np.zeros((stems, count), np.int32)
    for block in range(count):
        piece = pcm[:, block * LEVEL_BLOCK : (block + 1) * LEVEL_BLOCK].astype(np.float32)
        levels[:, block] = np.rint(np.sqrt(np.square(piece).mean(axis=(1, 2))))
    return levels


def recording_from_arrays(
    name: str,
    stems: dict[str, npt.NDArray[np.int16]],
    *,
    origin: str = "musdb",
    split: str = "train",
    silent: tuple[str, ...] = (),
    extra: bool = False,
) -> Recording:
    """A recording from int16 arrays ``(samples, 2)`` in memory."""
    pcm = np.stack(list(stems.values()))
    levels = block_levels(pcm).astype(np.float32)
    return Recording(name, origin, split, tuple(stems), pcm, levels, silent, extra)


def hold_out(
    recordings: Sequence[Recording],
    stems: Sequence[str],
    count: int,
    samples: int,
    *,
    origins: Collection[str],
) -> tuple[list[Recording], list[Recording]]:
    """Set aside fixed excerpts for validation, one from each of some recordings.

    Excerpts are taken where the softest stem is loudest, so that SDR is defined there, from
    the recordings in which that level is highest. Training keeps what comes before and after.

    Parameters
    ----------
    recordings
        Candidates are those of one of the ``origins`` that are at least twice as long.
    stems
        Which must all be audible in an excerpt.
    count, samples
        How many excerpts, and how long.
    origins
        Kinds of data sets from which excerpts are held out.

    Returns
    -------
    train, valid
        All recordings, in parts where excerpts were taken; and at most ``count`` excerpts.
    """
    candidates = []
    for index, recording in enumerate(recordings):
        if recording.origin in origins and all(s in recording.names for s in stems):
            is_long = recording.samples >= 2 * samples
            best = _loudest(recording, stems, samples) if is_long else None
            if best is not None:
                candidates.append((best[0], recording.name, index, best[1]))
    starts = {index: start for _, _, index, start in sorted(candidates, reverse=True)[:count]}
    train, valid = [], []
    for index, recording in enumerate(recordings):
        if index not in starts:
            train.append(recording)
            continue
        start, stop = starts[index], starts[index] + samples
        valid.append(dataclasses.replace(recording.part(start, stop), split="valid"))
        pieces = (recording.part(0, start), recording.part(stop, recording.samples))
        train += [piece for piece in pieces if piece.samples > 0]
    return train, valid


def _loudest(recording: Recording, stems: Sequence[str], samples: int) -> tuple[float, int] | None:
    """Level of the softest stem and start of the excerpt where that level is highest."""
    starts = range(0, recording.samples - samples + 1, 4 * LEVEL_BLOCK)
    level, start = max(
        (min(recording.level(stem, start, samples) for stem in stems), start) for start in starts
    )
    return (level, start) if level > AUDIBLE else None
