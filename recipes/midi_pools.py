"""Render the bass, drums and other instruments of MIDI files into pools of recordings to train on.

    python recipes/midi_pools.py MIDI_FOLDER POOLS --soundfont A.sf2 --soundfont B.sf3 \
        --drum-kit KIT.sf2 --minutes 60 40 40 --seed 0
    python recipes/midi_pools.py MIDI_FOLDER POOLS --sampler SAMPLE_SETS --minutes 60 0 40

Needs mido (``pip install mido``), and fluidsynth on the PATH for soundfonts; for sample sets see
`sampler`. The result is for ``unetsep train --pools POOLS``; ``POOLS/sources.csv`` names the MIDI
file and the instrument of each recording. The same seed, files and versions give the same
recordings.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np
import soundfile
from midi_parts import Part, excerpt, for_kit, read, split, vary, write
from sampler import RATE, play, sample_sets
from source_list import SourceList

FRAME = RATE // 20
# Recordings of fewer seconds, and parts of fewer notes, are left out.
SHORTEST = 12


@dataclass(frozen=True)
class Recording:
    """Sound ``(samples, 2)`` and the soundfont, or folder of sample sets, that made it."""

    audio: np.ndarray
    instruments: Path


def render(midi: Path, soundfont: Path, folder: Path, effects: tuple[bool, bool]) -> np.ndarray:
    """The sound of a MIDI file, ``(samples, 2)`` at 44.1 kHz, unclipped, in whole frames."""
    wav = folder / "rendered.wav"
    reverb, chorus = (str(int(on)) for on in effects)
    command = ["fluidsynth", "-niq", "-R", reverb, "-C", chorus, "-g", "0.5", "-r", str(RATE)]
    command += ["-T", "wav", "-O", "float", "-o", "synth.dynamic-sample-loading=1"]
    command += ["-F", str(wav), str(soundfont), str(midi)]
    subprocess.run(command, check=True, capture_output=True)
    audio = soundfile.read(wav, dtype="float32", always_2d=True)[0]
    return audio[: len(audio) // FRAME * FRAME]


def colour(audio: np.ndarray, stem: str, rng: random.Random) -> np.ndarray:
    """Tilt the spectrum above 500 Hz by up to 2.4 dB per octave; overdrive three basses in five.

    What is below 15 Hz is removed. Two soundfonts have sixteen basses; amplifiers and mixing
    desks make the difference.
    """
    tilt, drive = rng.uniform(-0.4, 0.4), rng.choice((0.0, 0.0, 1.0, 2.0, 4.0))
    # A multiple of a power of two is transformed many times faster than any length.
    length = -(-len(audio) // 2**16) * 2**16
    spectrum = np.fft.rfft(audio, length, axis=0)
    f = np.fft.rfftfreq(length, 1 / RATE)[:, None].astype(np.float32)
    # Some samples have an offset, which is no sound but would count as the loudest bass.
    response = f**4 / (f**4 + 15**4) * (1 + (f / 500) ** 2) ** (tilt / 2)
    tilted = np.fft.irfft(spectrum * response, length, axis=0)[: len(audio)]
    peak = np.abs(tilted).max()
    return np.tanh(tilted / peak * drive) if stem == "bass" and drive and peak else tilted


def frame_power(audio: np.ndarray) -> np.ndarray:
    """Mean square of each frame of ``(samples, 2)``, in whole frames."""
    power: np.ndarray = (audio.reshape(-1, FRAME, 2) ** 2).mean((1, 2))
    return power


def trim(audio: np.ndarray) -> np.ndarray:
    """Without pauses of more than a second, at -20 dBFS (RMS while it plays), peaks below 0.9.

    Frames of 50 ms play if they are within 45 dB of the loudest and above -70 dBFS.
    """
    power = frame_power(audio)
    plays = power > max(power.max(initial=0) * 10**-4.5, 1e-7)
    # Half a second is kept on both sides of what plays.
    keeps = np.convolve(plays, np.ones(21), "same") > 0.5
    edges = np.flatnonzero(np.diff(keeps, prepend=False, append=False)) * FRAME
    if not len(edges):
        return audio[:0]
    pieces = [audio[begin:end].copy() for begin, end in edges.reshape(-1, 2)]
    fade = np.linspace(0, 1, RATE // 100)[:, None]
    for piece in pieces:
        piece[: len(fade)] *= fade
        piece[-len(fade) :] *= fade[::-1]
    result = np.concatenate(pieces)
    gain = 0.1 / np.sqrt(power[plays].mean())
    return result * min(gain, 0.9 / np.abs(result).max())


def song(path: Path) -> dict[str, Part]:
    """The stems of a MIDI file; none, with a message, if it cannot be read."""
    try:
        return split(read(path))
    except ValueError as error:
        print(f"left out: {error}")
        return {}


def order(folder: Path, rng: random.Random) -> list[Path]:
    """MIDI files below a folder, shuffled; its subfolders take turns as long as they have any."""
    groups = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".mid", ".midi"):
            continue
        groups[path.relative_to(folder).parts[0]].append(path)
    for group in groups.values():
        rng.shuffle(group)
    turns = zip_longest(*groups.values())
    return [path for turn in turns for path in turn if path]


def recording(part: Part, stem: str, options: argparse.Namespace, rng: random.Random) -> Recording:
    """An excerpt of a part, played, coloured and trimmed, and what plays it."""
    player = play_samples if options.sampler else synthesise
    sound = player(vary(excerpt(part, options.seconds, rng), stem, rng), stem, options, rng)
    return replace(sound, audio=trim(sound.audio))


def play_samples(
    part: Part, stem: str, options: argparse.Namespace, rng: random.Random
) -> Recording:
    """Play a part by recorded notes, coloured, in whole frames."""
    sets = [each for each in options.sample_sets if each.stem == stem]
    audio = play(part, sets, np.random.default_rng(rng.getrandbits(32)))
    audio = audio[: len(audio) // FRAME * FRAME]
    return Recording(colour(audio, stem, rng), options.sampler)


def synthesise(part: Part, stem: str, options: argparse.Namespace, rng: random.Random) -> Recording:
    """Play a part by a soundfont, or drums by a kit."""
    kits = options.drum_kit if stem == "drums" else []
    soundfont = rng.choice([*options.soundfont, *kits])
    if soundfont in kits:
        part = for_kit(part)
    reverb = rng.random() < {"bass": 0.2, "drums": 0.5, "other": 0.6}[stem]
    with tempfile.TemporaryDirectory() as name:
        midi = Path(name) / "part.mid"
        write(part, midi, rng)
        audio = render(midi, soundfont, Path(name), (reverb, rng.random() < 0.3))
    return Recording(colour(audio, stem, rng), soundfont)


def too_short(part: Part) -> bool:
    """Whether a part has no excerpt worth keeping, such as a drummer's fill."""
    length = part.notes[-1].end - part.notes[0].start
    return len(part.notes) < SHORTEST or length < SHORTEST


def pool(stem: str, minutes: float, options: argparse.Namespace) -> Iterator[list[str]]:
    """Write one stem's recordings; yields rows of sources.csv. Songs can come several times."""
    missing, take = minutes * 60, 0
    paths = order(options.midi, random.Random(f"{options.seed} {stem}"))
    while paths:
        usable = []
        for path in paths:
            if missing <= 0:
                return
            parts = song(path)
            if stem not in parts or too_short(parts[stem]):
                continue
            rng = random.Random(f"{options.seed} {stem} {take} {path.relative_to(options.midi)}")
            sound = recording(parts[stem], stem, options, rng)
            seconds = len(sound.audio) / RATE
            if seconds < SHORTEST:
                continue
            usable.append(path)
            missing -= seconds
            file = options.output / stem / file_name(path.relative_to(options.midi), take)
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, sound.audio, RATE, subtype="PCM_16")
            yield [f"{stem}/{file.name}", str(path), sound.instruments.name, f"{seconds:.1f}"]
        paths, take = usable, take + 1


def file_name(path: Path, take: int) -> str:
    """The recording's name, from the place of its MIDI file."""
    return f"{'-'.join(path.with_suffix('').parts)}-{take}.flac"


def check_names(
    parser: argparse.ArgumentParser, folder: Path, name_of: Callable[[Path, int], str]
) -> None:
    """Refuse MIDI files whose recordings would have the same name."""
    paths: dict[str, Path] = {}
    for path in order(folder, random.Random(0)):
        name = name_of(path.relative_to(folder), 0)
        if name in paths:
            parser.error(f"{paths[name]} and {path} would have one name: rename one of them")
        paths[name] = path


def need_programs(*, fluidsynth: bool) -> None:
    """Say what to install, if something is missing."""
    if not importlib.util.find_spec("mido"):
        raise SystemExit("run: pip install mido")
    if fluidsynth and not shutil.which("fluidsynth"):
        raise SystemExit("run: apt-get install fluidsynth")


def check_inputs(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse missing files and folders, without which recordings would be silent or wrong.

    fluidsynth replaces a missing soundfont by one of its own.
    """
    for path in [*options.soundfont, *options.drum_kit]:
        if not path.is_file():
            parser.error(f"there is no soundfont {path}")
    if not order(options.midi, random.Random(0)):
        parser.error(f"there are no MIDI files (.mid, .midi) in {options.midi}")
    if options.sampler and not options.sample_sets:
        parser.error(f"there are no sample sets (.json) in {options.sampler}")


def main() -> None:
    """Render pool after pool until there are enough minutes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("midi", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--soundfont", type=Path, action="append", default=[])
    parser.add_argument("--drum-kit", type=Path, action="append", default=[])
    parser.add_argument("--sampler", type=Path, help="folder of sample sets, instead")
    parser.add_argument(
        "--minutes", type=float, nargs=3, metavar=("BASS", "DRUMS", "OTHER"), default=(60, 40, 40)
    )
    parser.add_argument("--seconds", type=float, default=45, help="of an excerpt, at most")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if bool(options.soundfont) == bool(options.sampler):
        parser.error("give either --soundfont or --sampler")
    need_programs(fluidsynth=bool(options.soundfont))
    options.sample_sets = sample_sets(options.sampler) if options.sampler else []
    check_inputs(parser, options)
    check_names(parser, options.midi, file_name)
    columns = ("file", "midi", "instruments", "seconds")
    sources = SourceList(options.output / "sources.csv", columns, options.output)
    missing = []
    for stem, minutes in zip(("bass", "drums", "other"), options.minutes, strict=True):
        seconds = 0.0
        for row in pool(stem, minutes, options):
            sources.add(row)
            seconds += float(row[-1])
        print(f"{stem}: {seconds / 60:.1f} minutes")
        if minutes and not seconds:
            missing.append(stem)
    if missing:
        raise SystemExit(
            f"nothing of {options.midi} became {' or '.join(missing)} of {SHORTEST} s or more"
        )


if __name__ == "__main__":
    main()
