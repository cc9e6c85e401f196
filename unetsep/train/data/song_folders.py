"""The user's own songs, a folder with stems for each."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from ...errors import AudioError
from .sources import DatasetKind, Source, audio_files, first_few

logger = logging.getLogger(__name__)

# Songs with files of no stem that are named each; of the others a line tells how many there are.
NAMED_SONGS = 3


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
        sources, sentences = [], []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            files, ignored = _stems(path, stems)
            if ignored:
                used = f"used for {', '.join(files)} alone" if files else "not used"
                names = first_few([_with_guess(each, stems) for each in ignored])
                sentences.append(f"{path.name}: no stem is called {names}; it is {used}")
            if files:
                silent_stems, weight = _description(path / "song.json", stems)
                silent = tuple(stem for stem in silent_stems if stem not in files)
                source = Source(path.name, self.name, "train", files, silent, weight=weight)
                sources.append(source)
        if not sources:
            raise AudioError(
                f"there are no songs in {root}: expected {folder}/<song>/ with "
                f"{{{','.join(stems)}}}.wav, or in another audio format"
                + (f" ({sentences[0]})" if sentences else "")
            )
        for sentence in sentences[:NAMED_SONGS]:
            logger.warning("%s", sentence)
        if len(sentences) > NAMED_SONGS:
            count = len(sentences) - NAMED_SONGS
            logger.warning("so it is with %d more of the songs in %s", count, folder)
        return sources


def _stems(folder: Path, stems: Sequence[str]) -> tuple[dict[str, Path], list[Path]]:
    """The file of each stem that a song has, by its name in any case, and audio of other names.

    A file in the song's own folder precedes those in subfolders, which may hold takes. Files that
    lie deeper than all stems, a mixture and what is hidden are not listed as others.
    """
    paths, names = list(audio_files(folder)), {stem.lower(): stem for stem in stems}
    files = stem_files(folder, paths, lambda name: names.get(name.lower()))
    depth = max((len(path.parts) for path in files.values()), default=math.inf)
    known = {*names, "mixture", "mixture.stem"}
    others = [
        each
        for each in paths
        if each.stem.lower() not in known
        and not any(part.startswith(".") for part in each.relative_to(folder.parent).parts)
    ]
    return files, [each for each in others if len(each.parts) <= depth]


def _with_guess(path: Path, stems: Sequence[str]) -> str:
    """The name of a file, and the stem that it resembles, if it does."""
    import difflib  # 7 ms, for one warning

    guess = difflib.get_close_matches(path.stem.lower(), stems, 1)
    return f"{path.name} ({guess[0]}?)" if guess else path.name


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
