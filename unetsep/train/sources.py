"""Where training data comes from: MUSDB18, folders of songs, pools of single stems.

Only names are read here; `unetsep.train.decode` reads the audio. Nothing under a folder
called ``test`` is ever listed: those songs are for reporting alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..config import STEMS
from ..errors import AudioError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
STEM_SUFFIX = ".stem.mp4"

# The songs that musdb sets aside for validation (`validation_tracks` in its mus.yaml).
MUSDB_VALID = (
    "ANiMAL - Rockshow",
    "Actions - One Minute Smile",
    "Alexander Ross - Goodbye Bolero",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Fergessen - Nos Palpitants",
    "James May - On The Line",
    "Johnny Lokke - Promises & Lies",
    "Leaf - Summerghost",
    "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave",
    "Skelpolu - Human Mistakes",
    "Traffic Experiment - Sirens",
    "Triviul - Angelsaint",
    "Young Griffo - Pennies",
)
MUSDB_HELP = (
    "get MUSDB18 from https://sigsep.github.io/datasets/musdb.html, or let musdb fetch its "
    "7-second excerpts: python -c \"import musdb; musdb.DB(root='musdb18-7', download=True)\""
)


@dataclass(frozen=True)
class Source:
    """A song or single-source recording that can be decoded.

    Parameters
    ----------
    name, origin
        What it is called and which kind it is: ``musdb``, ``songs`` or ``pools``.
    split
        ``train`` or ``valid``.
    files
        Stem to file; a ``.stem.mp4`` holds all stems and stands under ``""``.
    silent
        Stems known to be silent; stems that are nowhere are unknown.
    """

    name: str
    origin: str
    split: str
    files: dict[str, Path]
    silent: tuple[str, ...] = ()


def musdb_root(root: str | Path | None) -> Path:
    """The MUSDB18 folder that was named, or else the one in ``MUSDB_PATH``.

    Raises
    ------
    AudioError
        If there is neither; the message says how to get MUSDB18.
    """
    found = root or os.environ.get("MUSDB_PATH")
    if not found:
        raise AudioError(f"no training data: name --musdb-root or set MUSDB_PATH; {MUSDB_HELP}")
    return Path(found)


def find_musdb(root: str | Path) -> list[Source]:
    """Training and validation songs of MUSDB18 or MUSDB18-HQ.

    Parameters
    ----------
    root
        The folder that holds ``train/``, with ``*.stem.mp4`` files or a folder of
        wav files for each song.

    Raises
    ------
    AudioError
        If there is no song, or one lacks a stem.
    """
    folder = Path(root) / "train"
    sources = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(STEM_SUFFIX):
            name, files = path.name.removesuffix(STEM_SUFFIX), {"": path}
        elif path.is_dir():
            name, files = path.name, {s: path / f"{s}.wav" for s in ("mixture", *STEMS)}
            missing = [file.name for file in files.values() if not file.is_file()]
            if len(missing) == len(files):
                continue
            if missing:
                raise AudioError(f"{path} is no MUSDB18 song: it lacks {', '.join(missing)}")
        else:
            continue
        split = "valid" if name in MUSDB_VALID else "train"
        sources.append(Source(name, "musdb", split, files))
    if not sources:
        raise AudioError(
            f"there is no MUSDB18 in {root}: expected {folder} with *{STEM_SUFFIX} files or a "
            f"folder of wav files for each song; {MUSDB_HELP}"
        )
    return sources


def find_songs(root: str | Path) -> list[Source]:
    """Songs ``<root>/train/<song>/<stem>.<suffix>``, with an optional ``song.json``.

    A stem that is neither there nor listed under ``"silent"`` in ``song.json`` is unknown.

    Raises
    ------
    AudioError
        If there is no song, or a ``song.json`` cannot be understood.
    """
    folder = Path(root) / "train"
    sources = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        files = {file.stem: file for file in _audio_files(path) if file.stem in STEMS}
        if files:
            silent = tuple(stem for stem in _silent(path / "song.json") if stem not in files)
            sources.append(Source(path.name, "songs", "train", files, silent))
    if not sources:
        raise AudioError(
            f"there are no songs in {root}: expected {folder}/<song>/ with "
            f"{{{','.join(STEMS)}}}{{{','.join(AUDIO_SUFFIXES)}}}"
        )
    return sources


def find_pools(root: str | Path) -> list[Source]:
    """Single-source recordings ``<root>/<stem>/**``; all are training data.

    Raises
    ------
    AudioError
        If there is no recording.
    """
    sources = [
        Source(str(path.relative_to(root).with_suffix("")), "pools", "train", {stem: path})
        for stem in STEMS
        for path in _audio_files(Path(root) / stem)
    ]
    if not sources:
        raise AudioError(
            f"there are no recordings in {root}: expected {root}/<stem>/** with audio files, "
            f"<stem> one of {', '.join(STEMS)}"
        )
    return sources


def _silent(described: Path) -> list[str]:
    if not described.exists():
        return []
    try:
        silent = json.loads(described.read_text(encoding="utf-8")).get("silent", [])
        wrong = [stem for stem in silent if stem not in STEMS]
    except (ValueError, AttributeError, TypeError) as error:
        raise AudioError(f"{described} cannot be understood: {error}") from error
    if wrong:
        raise AudioError(f"{described}: {wrong[0]!r} is no stem: expected {', '.join(STEMS)}")
    return list(silent)


def _audio_files(folder: Path) -> Iterator[Path]:
    """Audio files below a folder, without those in folders called ``test``."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder).parts[:-1]
        if path.suffix.lower() in AUDIO_SUFFIXES and "test" not in map(str.lower, inside):
            yield path


def refuse_test(root: Path) -> None:
    """Refuse a folder that is itself called ``test``.

    Raises
    ------
    AudioError
        If it is.
    """
    if root.resolve().name.lower() == "test":
        raise AudioError(f"{root} is a test set: it is for reporting, never for training")
