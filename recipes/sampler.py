"""Play parts of MIDI files with recorded notes of real instruments.

A sample set is two files: ``NAME.opus`` with notes one after the other, and ``NAME.json`` with
``stem``, ``licence``, ``origin`` and ``notes``. Each note has its pitch, velocity, start and length
in seconds, and level.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
from midi_parts import Note, Part

RATE = 44_100
# Time constant in seconds of a note's decay after its key is released, and how many are played.
RELEASE, RELEASES = 0.06, 3
# Programs of General MIDI that an instrument of a name plays.
FAMILIES = {
    "bass": range(32, 40),
    "guitar": range(24, 32),
    "piano": range(8),
    "epiano": range(8),
    "sax": range(64, 68),
}


@dataclass(frozen=True)
class Sample:
    """A recorded note; ``audio`` is ``(samples,)``."""

    pitch: int
    velocity: int
    audio: np.ndarray
    level: float


class SampleSet:
    """An instrument's recorded notes.

    Parameters
    ----------
    path
        Of the JSON file.
    """

    def __init__(self, path: Path) -> None:
        about = json.loads(path.read_text())
        audio, self.rate = soundfile.read(path.with_suffix(".opus"), dtype="float32")
        audio = audio if audio.ndim == 1 else audio.mean(axis=1)
        self.name, self.stem, self.licence = path.stem, about["stem"], about["licence"]
        self.programs = FAMILIES[path.stem.partition("-")[0]]
        self.samples: dict[int, list[Sample]] = defaultdict(list)
        for pitch, velocity, start, length, level in about["notes"]:
            note = audio[int(start * self.rate) : int((start + length) * self.rate)]
            self.samples[pitch].append(Sample(pitch, velocity, note, level))
        self.loudest = max(note[-1] for note in about["notes"])

    def note(self, note: Note, rng: np.random.Generator) -> np.ndarray:
        """The sound of a note, ``(samples,)``: the nearest recorded one, tuned and released."""
        pitch = min(self.samples, key=lambda each: (abs(each - note.pitch), rng.random()))
        takes = self.samples[pitch]
        nearest = min(abs(take.velocity - note.velocity) for take in takes)
        takes = [take for take in takes if abs(take.velocity - note.velocity) == nearest]
        take = takes[rng.integers(len(takes))]
        step = 2 ** ((note.pitch - pitch) / 12) * self.rate / RATE
        hold = int(max(note.end - note.start, RELEASE) * RATE)
        length = min(int(len(take.audio) / step), hold + int(RELEASES * RELEASE * RATE))
        sound = np.interp(np.arange(length) * step, np.arange(len(take.audio)), take.audio)
        sound[hold:] *= np.exp(-np.arange(max(0, length - hold)) / (RELEASE * RATE))
        fade = min(length, RATE // 200)
        sound[length - fade :] *= np.linspace(1, 0, fade)
        touch = (0.35 + 0.65 * note.velocity / 127) / (0.35 + 0.65 * take.velocity / 127)
        return sound * (take.level / self.loudest * touch)


def play(part: Part, sets: Sequence[SampleSet], rng: np.random.Generator) -> np.ndarray:
    """The sound of a part, ``(samples, 2)``; silence of voices that no set can play.

    Each voice is given to one set of its family. Those of a bass stay in the middle, and one of
    its notes ends where the next begins; others have a place of their own.
    """
    voices = sorted({(note.channel, note.program) for note in part.notes})
    audio = np.zeros((int((max(note.end for note in part.notes) + 1) * RATE), 2), np.float32)
    for voice in voices:
        fitting = [each for each in sets if voice[1] in each.programs]
        if not fitting:
            continue
        sample_set = fitting[rng.integers(len(fitting))]
        notes = [note for note in part.notes if (note.channel, note.program) == voice]
        angle = np.pi / 4
        if sample_set.stem == "bass":
            following = [*notes[1:], replace(notes[-1], start=notes[-1].end)]
            pairs = zip(notes, following, strict=True)
            notes = [replace(a, end=min(a.end, b.start)) for a, b in pairs if b.start > a.start]
        else:
            angle = rng.uniform(0.15, 0.85) * np.pi / 2
        place = np.array([np.cos(angle), np.sin(angle)])
        for note in notes:
            sound, at = sample_set.note(note, rng), int(note.start * RATE)
            sound = sound[: len(audio) - at]
            audio[at : at + len(sound)] += sound[:, None] * place
    return audio


def sample_sets(folder: Path) -> list[SampleSet]:
    """All sample sets in a folder."""
    return [SampleSet(path) for path in sorted(folder.glob("*.json"))]
