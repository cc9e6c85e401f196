"""Render MIDI files into songs whose bass, drums and other instruments play together.

    python recipes/midi_songs.py MIDI_FOLDER SONGS --soundfont A.sf2 --soundfont B.sf2 \
        --sampler SAMPLE_SETS --seconds 60 --takes 2 --seed 0

needs mido (``pip install mido``) and fluidsynth on the PATH. Drums and others are played by the
soundfonts; basses, and half of the others that a sample set knows, by the sample sets. All parts
of a take share its place in the song, its tempo and its key. The result is for ``unetsep train
--songs SONGS``; ``SONGS/sources.csv`` names the MIDI file and the instruments of each song. The
same seed, files and versions give the same songs.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import soundfile
from midi_parts import Part, Performance, busiest, cut, vary
from midi_pools import (
    Recording,
    check_inputs,
    check_names,
    frame_power,
    need_programs,
    order,
    play_samples,
    song,
    synthesise,
    too_short,
)
from sampler import RATE, sample_sets
from source_list import SourceList

STEMS = ("drums", "bass", "other")
# RMS level of each stem while it plays, and how far a mix may be from it, in dB.
LEVEL, SPREAD = 0.07, {"drums": 2.5, "bass": 3.5, "other": 3.5}


def by_samples(part: Part, stem: str, options: argparse.Namespace, rng: random.Random) -> bool:
    """Whether recorded notes play a part: every bass, and half of the others that they can."""
    programs = {p for each in options.sample_sets if each.stem == stem for p in each.programs}
    is_playable = {note.program for note in part.notes} <= programs
    return is_playable and (stem == "bass" or rng.random() < 0.5)


def level(audio: np.ndarray, stem: str, rng: random.Random) -> np.ndarray:
    """A stem at its level in a mix, peaks below 0.95."""
    power = frame_power(audio)
    audible = power[power > power.max(initial=0) * 1e-4]
    if not len(audible):
        return audio
    gain = LEVEL / np.sqrt(audible.mean()) * 10 ** (rng.uniform(-SPREAD[stem], SPREAD[stem]) / 20)
    return audio * min(gain, 0.95 / np.abs(audio).max())


def take(
    parts: dict[str, Part], options: argparse.Namespace, rng: random.Random
) -> dict[str, Recording]:
    """An excerpt of a song, each part played and at its level, all of one length."""
    longest = max(parts.values(), key=lambda part: len(part.notes))
    start, performance, sounds = busiest(longest, options.seconds, rng), Performance.draw(rng), {}
    for stem, full_part in parts.items():
        part = cut(full_part, start, options.seconds)
        if not part.notes:
            continue
        part = vary(part, stem, rng, performance)
        player = play_samples if by_samples(part, stem, options, rng) else synthesise
        sound = player(part, stem, options, rng)
        sounds[stem] = Recording(level(sound.audio, stem, rng), sound.instruments)
    length = round(options.seconds * performance.tempo * RATE)
    return {
        stem: Recording(
            np.pad(each.audio[:length], ((0, max(0, length - len(each.audio))), (0, 0))),
            each.instruments,
        )
        for stem, each in sounds.items()
    }


def write_song(folder: Path, sounds: dict[str, Recording]) -> None:
    """Write a folder for ``--songs``: the stems, and which ones are silent."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem in STEMS:  # one of an earlier run would be taken for a part of this song
        (folder / f"{stem}.flac").unlink(missing_ok=True)
    for stem, each in sounds.items():
        soundfile.write(folder / f"{stem}.flac", each.audio, RATE, subtype="PCM_16")
    silent = ["vocals", *(stem for stem in STEMS if stem not in sounds)]
    (folder / "song.json").write_text(json.dumps({"silent": silent}))


def song_name(path: Path, number: int) -> str:
    """``COLLECTION-song_take``: training takes the part before the hyphen for the artist."""
    collection, *rest = path.with_suffix("").parts
    return f"{collection}-{'_'.join([*rest, str(number)]).replace('-', '_')}"


def main() -> None:
    """Render take after take of every song with at least two parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("midi", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--soundfont", type=Path, action="append", required=True)
    parser.add_argument("--sampler", type=Path, required=True, help="folder of sample sets")
    parser.add_argument("--seconds", type=float, default=60, help="of a take, at the song's tempo")
    parser.add_argument("--takes", type=int, default=1, help="of each song")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    need_programs(fluidsynth=True)
    options.sample_sets, options.drum_kit = sample_sets(options.sampler), []
    check_inputs(parser, options)
    check_names(parser, options.midi, song_name)
    columns, songs = ("song", "midi", "instruments", "seconds"), options.output / "train"
    sources = SourceList(options.output / "sources.csv", columns, songs)
    for number in range(options.takes):
        for path in order(options.midi, random.Random(options.seed)):
            parts = {stem: part for stem, part in song(path).items() if not too_short(part)}
            if len(parts) < 2:
                continue
            relative = path.relative_to(options.midi)
            sounds = take(parts, options, random.Random(f"{options.seed} {number} {relative}"))
            name = song_name(relative, number)
            write_song(songs / name, sounds)
            instruments = " ".join(f"{s}={each.instruments.name}" for s, each in sounds.items())
            seconds = len(next(iter(sounds.values())).audio) / RATE
            sources.add([name, str(relative), instruments, f"{seconds:.1f}"])
    if not songs.exists():
        raise SystemExit(f"no MIDI file in {options.midi} has two parts of bass, drums and other")


if __name__ == "__main__":
    main()
