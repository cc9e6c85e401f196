"""The user's own songs, a folder with stems for each."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...errors import AudioError
from .sources import DatasetKind, Source, audio_files


class SongFolders(DatasetKind):
    """Songs ``<root>/train/<song>/<stem>.<suffix>``, with an optional ``song.json``.

    A stem without a file is unknown, unless ``song.json`` lists it under ``"silent"``.
    ``"weight"`` is how often the song is drawn, relative to another one that is as long.
    """

    name = "songs"
    option = "--songs"
    help = "Folder of songs with stems; repeatable."
    held_out = True

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Songs with at least one stem; see `DatasetKind.find`."""
        folder = root / "train"
        sources = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            files = _stems(path, stems)
            if files:
                silent_stems, weight = _description(path / "song.json", stems)
                silent = tuple(stem for stem in silent_stems if stem not in files)
                source = Source(path.name, self.name, "train", files, silent, weight=weight)
                sources.append(source)
        if not sources:
            raise AudioError(
                f"there are no songs in {root}: expected {folder}/<song>/ with "
                f"{{{','.join(stems)}}}.wav, or in another audio format"
            )
        return sources


def _stems(folder: Path, stems: Sequence[str]) -> dict[str, Path]:
    """The file of each stem that a song has, by its name in upper or lower case.

    A file in the song's own folder precedes those in subfolders, which may hold takes.
    """
    names = {stem.lower(): stem for stem in stems}
    return stem_files(folder, audio_files(folder), lambda name: names.get(name.lower()))


def stem_files(
    folder: Path, paths: Iterable[Path], stem_of: Callable[[str], str | None]
) -> dict[str, Path]:
    """The file of each stem of a song.

    Parameters
    ----------
    folder
        Of the song.
    paths
        Audio files in it; those less deep come first.
    stem_of
        From a file's name without suffix to its stem; None for files to skip.

    Raises
    ------
    AudioError
        If two equally deep files are of one stem.
    """
    files: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: len(path.parts)):
        stem = stem_of(path.stem)
        if stem in files and len(files[stem].parts) == len(path.parts):
            raise AudioError(
                f"{folder} has two files of {stem}, {files[stem].relative_to(folder)} and "
                f"{path.relative_to(folder)}: keep one, or give the other another name"
            )
        if stem is not None:
            files.setdefault(stem, path)
    return files


def _description(path: Path, stems: Sequence[str]) -> tuple[list[str], float]:
    """Silent stems and weight of a song, for a run of some stems."""
    silent, weight = read_description(path)
    wrong = [stem for stem in silent if stem not in stems]
    if wrong:
        raise AudioError(f"{path}: {wrong[0]!r} is not a stem: expected {', '.join(stems)}")
    return silent, weight


def read_description(path: Path) -> tuple[list[str], float]:
    """Silent stems and weight of a song, from its ``song.json`` if it has one.

    Raises
    ------
    AudioError
        If it cannot be understood.
    """
    if not path.exists():
        return [], 1.0
    try:
        content = json.loads(path.read_bytes())  # in any UTF, as Windows writes it
        silent, weight = content.get("silent", []), float(content.get("weight", 1.0))
    except (ValueError, AttributeError, TypeError) as error:
        raise AudioError(f"{path} cannot be understood: {error}") from error
    if not isinstance(silent, list) or not all(isinstance(stem, str) for stem in silent):
        raise AudioError(
            f'{path} cannot be understood: expected a list of names, as "silent": ["bass"], '
            f"got {silent!r}"
        )
    if not 0 < weight < math.inf:
        raise AudioError(f"{path}: the weight must be above 0, got {weight}")
    return silent, weight
