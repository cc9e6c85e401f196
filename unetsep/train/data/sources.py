"""Where training data comes from: MUSDB18, folders of songs, pools of single stems.

Only names are read here; `unetsep.train.data.decode` reads the audio. Nothing under a folder
called ``test`` is ever listed: those songs are for reporting alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...config import STEMS
from ...errors import AudioError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
STEM_SUFFIX = ".stem.mp4"


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
