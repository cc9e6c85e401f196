"""Songs of one's own, a folder with stems for each."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from ...errors import AudioError
from .sources import AUDIO_SUFFIXES, DatasetKind, Source, audio_files


class SongFolders(DatasetKind):
    """Songs ``<root>/train/<song>/<stem>.<suffix>``, with an optional ``song.json``.

    A stem that is neither there nor listed under ``"silent"`` in ``song.json`` is unknown.
    ``"weight"`` is how often the song is drawn, relative to another one that is as long.
    """

    name = "songs"
    option = "--songs"
    help = "Songs with stems."
    held_out = True

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Songs with at least one stem; see `DatasetKind.find`."""
        folder = root / "train"
        sources = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            files = _stems(path, stems)
            if files:
                listed, weight = _described(path / "song.json", stems)
                silent = tuple(stem for stem in listed if stem not in files)
                source = Source(path.name, self.name, "train", files, silent, weight=weight)
                sources.append(source)
        if not sources:
            raise AudioError(
                f"there are no songs in {root}: expected {folder}/<song>/ with "
                f"{{{','.join(stems)}}}{{{','.join(AUDIO_SUFFIXES)}}}"
            )
        return sources


def _stems(folder: Path, stems: Sequence[str]) -> dict[str, Path]:
    """The file of each stem that a song has, by its name in whatever case.

    One in the song's own folder comes before those in folders within, which may hold takes.
    """
    names = {stem.lower(): stem for stem in stems}
    files: dict[str, Path] = {}
    for path in sorted(audio_files(folder), key=lambda path: len(path.parts)):
        stem = names.get(path.stem.lower())
        if stem in files and len(files[stem].parts) == len(path.parts):
            raise AudioError(
                f"{folder} has two files of {stem}, {files[stem].relative_to(folder)} and "
                f"{path.relative_to(folder)}: keep one, or give the other another name"
            )
        if stem is not None:
            files.setdefault(stem, path)
    return files


def _described(described: Path, stems: Sequence[str]) -> tuple[list[str], float]:
    """Silent stems and weight of a song."""
    if not described.exists():
        return [], 1.0
    try:
        content = json.loads(described.read_bytes())  # in any UTF, as Windows writes it
        silent, weight = content.get("silent", []), float(content.get("weight", 1.0))
        wrong = [stem for stem in silent if stem not in stems]
    except (ValueError, AttributeError, TypeError) as error:
        raise AudioError(f"{described} cannot be understood: {error}") from error
    if wrong:
        raise AudioError(f"{described}: {wrong[0]!r} is no stem: expected {', '.join(stems)}")
    if not 0 < weight < math.inf:
        raise AudioError(f"{described}: the weight must be above 0, got {weight}")
    return list(silent), weight
