"""The songs of a folder, with their models and stems."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio.decoder import AUDIO_SUFFIXES
from ..audio.reader import AudioReader
from ..config import STEMS
from ..dsp.arrays import Signal
from ..dsp.resample import resample_blocks
from ..errors import AudioError, UnetsepError

DATA = "player-data"
# python-audio-separator writes all stems into one folder: song_(Vocals)_model.wav
SEPARATOR_NAME = re.compile(r"(?s)(?P<song>.+)_\((?P<stem>[^()]+)\)(?:_(?P<model>.+))?")
# --filename "{track} ({stem}).{ext}", and what --instrumental writes.
TRACK_NAME = re.compile(r"(?s)(?P<song>.+) \((?P<stem>[^()]+)\)")
USUAL_STEMS = (*STEMS, "guitar", "piano", "accompaniment", "instrumental")
USUAL_STEM = re.compile(rf"(?:no[_ ])?(?:{'|'.join(USUAL_STEMS)})", re.IGNORECASE)
# mp3 files of one song may differ by a frame or two (26 ms each).
SAME_LENGTH = 0.1
# Correlation of the sums of stems, in 5 s from the middle. In 6 songs with free stems and the demo
# song, the true stems and those of unetsep's models correlate above 0.998, as mp3 or Ogg above
# 0.994, without the vocals above 0.80, a single stem with the mixture by 0.04 to 0.74. Different
# songs, 231 pairs of 22, stay below 0.06.
SAME_SONG = 0.7
EXCERPT = 5.0


@dataclass(frozen=True)
class Song:
    """One song of a page.

    Parameters
    ----------
    name
        Its name.
    models
        Model name to its stems, stem name to file. One name is empty if no folder or file tells
        it, as of ``song_(Vocals).wav``, also beside ``song_(Vocals)_model.wav``.
    """

    name: str
    models: Mapping[str, Mapping[str, Path]]

    @property
    def files(self) -> list[Path]:
        """All files of stems."""
        return [path for stems in self.models.values() for path in stems.values()]


@dataclass(frozen=True)
class StemFolder:
    """Stems of one song by one model, and the names that lead to them.

    Parameters
    ----------
    names
        Folders below the searched one, then model and song if the files name them. A folder may
        name the model, too.
    stems
        Stem name to file.
    """

    names: tuple[str, ...]
    stems: dict[str, Path]


def find_songs(folder: Path) -> list[Song]:
    """Songs of a folder of stems, searched recursively; any tool may have written them.

    Folders whose stems are equally long and add up to the same mixture are one song by
    several models, at any depth: ``out/mse/song`` and ``out/l1/song`` as well as
    ``out/song/mse`` and ``out/song/l1``.

    Parameters
    ----------
    folder
        ``out/song`` for one song, ``out`` for an album.

    Raises
    ------
    UnetsepError
        If there is no such folder, or no audio in it, or a folder in it cannot be read.
    """
    if not folder.is_dir():
        raise UnetsepError(f"{folder} is not a folder: name one with stems, such as out/song")
    groups = _group(list(_stem_folders(folder)))
    if not groups and any(_is_stem_mp4(path.name) for path in folder.rglob("*")):
        raise UnetsepError(
            f"{folder} holds no stems but .stem.mp4 files, and the page needs each stem in a file "
            "of its own: separate the songs with -f flac, for instance"
        )
    if not groups:
        raise UnetsepError(f"{folder} holds no stems: no audio files (wav, flac, mp3, ...) in it")
    title = folder.resolve().name
    return sorted((_song(group, title) for group in groups), key=lambda song: song.name.casefold())


def order_stems(stems: Mapping[str, Path]) -> dict[str, Path]:
    """Vocals, drums, bass and other first, then by name."""
    rank = {name: place for place, name in enumerate(STEMS)}
    names = sorted(stems, key=lambda name: (rank.get(name.lower(), len(rank)), name.casefold()))
    return {name: stems[name] for name in names}


def _stem_folders(folder: Path) -> Iterator[StemFolder]:
    for root, folders, names in os.walk(folder, onerror=_refuse):
        folders[:] = sorted(n for n in folders if not n.startswith(".") and n != DATA)
        parent = Path(root)
        # A file beside a folder of the same name is the song that was separated.
        files = [
            parent / name
            for name in sorted(names)
            if Path(name).suffix.lower() in AUDIO_SUFFIXES
            and not name.startswith(".")
            and not _is_stem_mp4(name)
            and Path(name).stem not in folders
        ]
        yield from _split(parent.relative_to(folder).parts, files)


def _refuse(error: OSError) -> None:
    """Raise for a folder that the drive cannot read; skip one without permission."""
    if not isinstance(error, PermissionError):
        raise UnetsepError(f"{error.filename} cannot be read: {error.strerror}") from error


def _is_stem_mp4(name: str) -> bool:
    """Whether a file holds a mix and its stems; readers decode only the mix."""
    return name.lower().endswith(".stem.mp4")


def _split(names: tuple[str, ...], files: Sequence[Path]) -> Iterator[StemFolder]:
    """The stems of a folder, of several songs if their names say so."""
    plain: dict[str, Path] = {}
    flat: dict[tuple[str, ...], dict[str, Path]] = {}
    tracks = _tracks(files)
    for path in files:
        if match := SEPARATOR_NAME.fullmatch(path.stem):
            inner, stem = (*names, match["model"] or "", match["song"]), match["stem"].lower()
        elif path in tracks:
            inner, stem = (*names, tracks[path][0]), tracks[path][1]
        else:
            inner, stem = (), path.stem
        stems = flat.setdefault(inner, {}) if inner else plain
        stems[path.name if stem in stems else stem] = path  # vocals.wav and vocals.mp3
    for inner, stems in flat.items():
        yield StemFolder(inner, order_stems(stems))
    # A file whose name is part of those of stems is the song that was separated.
    songs = {inner[-1] for inner in flat}
    plain = {name: path for name, path in plain.items() if path.stem not in songs}
    if plain:
        yield StemFolder(names, order_stems(plain))


def _tracks(files: Sequence[Path]) -> dict[Path, tuple[str, str]]:
    """Song and stem of those files of a folder whose names are ``song (stem)``."""
    by_song: dict[str, dict[Path, str]] = {}
    for path in files:
        if match := TRACK_NAME.fullmatch(path.stem):
            by_song.setdefault(match["song"], {})[path] = match["stem"].lower()
    songs = {song: _actual_stems(stems) for song, stems in by_song.items()}
    songs = {song: stems for song, stems in songs.items() if stems}
    # Lead (vocals) and Backing (vocals) beside drums and bass are tracks of one song.
    multitrack = any(USUAL_STEM.fullmatch(path.stem) and path.stem not in songs for path in files)
    return {
        path: (song, stem)
        for song, stems in songs.items()
        if not multitrack or len(set(stems.values())) > 1
        for path, stem in stems.items()
        if path.stem not in songs  # Song (Live) has stems, too: it is a song
    }


def _actual_stems(stems: Mapping[Path, str]) -> dict[Path, str]:
    """Usual stems, and others of the same length; none without a usual one.

    Without usual ones, words in brackets distinguish tracks of one song, such as Guitar (left)
    and Guitar (right). Song (Remix) beside Song (vocals) is another song if its length differs.
    """
    usual = {path: stem for path, stem in stems.items() if USUAL_STEM.fullmatch(stem)}
    if len(usual) in (0, len(stems)):
        return usual
    length = _length(next(iter(usual)))
    return {
        path: stem
        for path, stem in stems.items()
        if path in usual or _same_length(_length(path), length)
    }


def _same_length(first: tuple[int, float], second: tuple[int, float]) -> bool:
    """Whether sample rates and seconds may be those of one song."""
    return first[0] == second[0] and abs(first[1] - second[1]) < SAME_LENGTH


def _group(folders: Sequence[StemFolder]) -> list[list[StemFolder]]:
    """Stem folders of one song each."""
    lengths = [_length(next(iter(folder.stems.values()))) for folder in folders]

    @functools.cache
    def mixture(index: int, start: float, rate: int) -> Signal:
        return _mixture(folders[index], start, rate)

    groups: list[list[int]] = []
    for index, length in enumerate(lengths):
        for group in groups:
            rate, seconds = lengths[group[0]]
            # At the same place in both: the middles of different lengths would not match.
            place = max(0.0, (seconds - EXCERPT) / 2), rate
            if (
                abs(length[1] - seconds) < SAME_LENGTH
                and _correlation(mixture(index, *place), mixture(group[0], *place)) > SAME_SONG
            ):
                group.append(index)
                break
        else:
            groups.append([index])
    return [[folders[index] for index in group] for group in groups]


def _length(path: Path) -> tuple[int, float]:
    """Sample rate, and seconds: 0 if only decoding would tell, NaN if the file is unreadable."""
    try:
        with AudioReader(path) as reader:
            return reader.info.sample_rate, (reader.frames or 0) / reader.info.sample_rate
    except AudioError:  # NaN equals no other length; writing the page reports the error
        return 0, math.nan


def _mixture(folder: StemFolder, start: float, rate: int) -> Signal:
    """The sum of some seconds of the stems, mono, at a rate; empty if one cannot be read."""
    total = np.zeros(0, np.float32)
    for path in folder.stems.values():
        try:
            with AudioReader(path, start=start, duration=EXCERPT) as reader:
                blocks = (block.mean(axis=0, keepdims=True) for block in reader.blocks())
                resampled = resample_blocks(blocks, reader.info.sample_rate, rate, 1)
                mono = np.concatenate(list(resampled), axis=1)[0]
        except AudioError:
            return np.zeros(0, np.float32)
        length = min(len(mono), len(total)) or len(mono)
        total = mono if not len(total) else total[:length] + mono[:length]
    return total


def _correlation(first: Signal, second: Signal) -> float:
    length = min(len(first), len(second))
    first, second = first[:length], second[:length]
    power = float(np.sqrt(np.dot(first, first) * np.dot(second, second)))
    return float(np.dot(first, second)) / power if power else 0.0


def _song(group: Sequence[StemFolder], title: str) -> Song:
    """A song from its folders: tell its name from those of the models."""
    paths = [folder.names for folder in group]
    if len(group) == 1:
        return Song(_joined(paths[0]) or title, {"": group[0].stems})
    places = _differing(paths)
    if len(places) == 1:
        (place,) = places
        name = _joined(paths[0][:place] + paths[0][place + 1 :]) or title
        labels = [names[place] for names in paths]
    else:
        name = paths[0][-1] if paths[0] else title
        labels = [_joined(names) for names in paths]
    models: dict[str, Mapping[str, Path]] = {}
    for label, folder in zip(labels, group, strict=True):
        model, number = label, 1
        while model in models:  # song/vocals.flac and song (vocals).mp3
            number += 1
            model = f"{label} #{number}"
        models[model] = folder.stems
    return Song(name, models)


def _joined(names: Sequence[str]) -> str:
    """Names joined into one, without empty ones."""
    return "/".join(filter(None, names))


def _differing(paths: Sequence[tuple[str, ...]]) -> list[int]:
    """Places at which paths of one length differ; none if their lengths do."""
    if len({len(path) for path in paths}) > 1:
        return []
    return [place for place, names in enumerate(zip(*paths, strict=True)) if len(set(names)) > 1]
