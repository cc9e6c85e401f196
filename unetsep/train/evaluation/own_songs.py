"""The user's own songs as tracks: folders with stems of any names, and pairs of files.

``<root>/<test or train>/<song>/<stem>.<suffix>`` is what ``unetsep train --songs`` takes, too, and
is read in the same way: names in any case, one file for each stem, ``song.json``. Only subfolders
of a song are skipped: they may hold takes, and here any name is that of a stem. A mixture is
optional: without ``mixture.<suffix>`` it is the sum of the stems. Stems that ``song.json`` lists
under ``"silent"`` need no file.

A list of pairs is a CSV file with a column ``mixture`` and one for each stem, whose paths are
relative to its folder. With a single stem the rest is the mixture minus the stem. An empty cell
is a stem that is silent in the song.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...config import STEMS
from ...errors import AudioError
from ..data.index import Index
from ..data.moisesdb import STEMS as MOISESDB_STEMS
from ..data.moisesdb import MoisesDb
from ..data.song_folders import read_description, stem_files
from ..data.sources import Source, audio_files
from .stem_sets import ACCOMPANIMENT, ordered, rest_of
from .tracks import Track

MIXTURE = "mixture"
MOST_FOLDERS = 3  # most names of folders by which pairs are told apart


def find_songs(root: Path, subset: str) -> list[Track]:
    """Songs in a folder, sorted by name.

    Parameters
    ----------
    root
        Holds ``test/`` or ``train/``.
    subset
        ``test`` or ``train``.

    Raises
    ------
    AudioError
        If there are none, or a song has fewer than two stems, two files of one stem, or a
        ``song.json`` that cannot be understood.
    ValueError
        If ``subset`` is another one.
    """
    if subset not in ("test", "train"):
        raise ValueError(f"--songs has the subsets test and train, not {subset!r}")
    folder = root / subset
    paths = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    spelling = {name: name for name in (MIXTURE, ACCOMPANIMENT, *MOISESDB_STEMS)}
    tracks = [track for path in paths if (track := _song(path, subset, spelling))]
    if not tracks:
        other = "train" if subset == "test" else "test"
        hint = f"; --subset {other} takes {root / other}" if (root / other).is_dir() else ""
        raise AudioError(
            f"there are no songs in {folder}: expected {folder}/<song>/<stem>.wav, "
            f"or in another audio format{hint}"
        )
    return tracks


def _song(path: Path, subset: str, spelling: dict[str, str]) -> Track | None:
    """A song, if there is audio; ``spelling`` holds how stems in lower case were written first."""

    def stem_of(name: str) -> str:
        return spelling.setdefault(name.lower(), name)

    files = stem_files(path, audio_files(path, deep=False), stem_of)
    if not files:
        return None
    silent, _ = read_description(path / "song.json")
    stems = ordered({*files, *map(stem_of, silent)} - {MIXTURE})
    if len(stems) < 2:
        raise AudioError(f"{path} has {len(stems)} stems: expected two or more files, a stem each")
    return Track(path.name, subset, path, stems, tuple(files.items()))


def read_pairs(path: Path) -> list[Track]:
    """Tracks from a list of pairs.

    A track has the name of its mixture, or of the mixture's folder where several mixtures share a
    name or it is ``mixture``. Where several folders share a name, the names of the folders above
    come before it.

    Parameters
    ----------
    path
        The CSV file.

    Raises
    ------
    AudioError
        If it cannot be read, lacks a column or a cell, or names a missing file.
    """
    columns, rows = _read_table(path)
    tracks = [_pair(path, f"line {line}", columns, row) for line, row in enumerate(rows, start=2)]
    for folders in range(1, MOST_FOLDERS + 1):
        uses = Counter(track.name for track in tracks)
        alike = {MIXTURE, *(name for name, count in uses.items() if count > 1)}
        tracks = [_by_folder(each, folders) if each.name in alike else each for each in tracks]
    return tracks


def _by_folder(track: Track, folders: int) -> Track:
    """A pair named after its mixture's folders, as several mixtures have the same name."""
    mixture = dict(track.named_files)[MIXTURE]
    names = Path(os.path.abspath(mixture)).parent.parts[1:]  # noqa: PTH100 (links stay, not ..)
    return replace(track, name=" - ".join(names[-folders:]))


def _read_table(path: Path) -> tuple[list[str], list[dict[Any, Any]]]:
    """Names of the columns of a list of pairs, and its rows."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise AudioError(f"{path} cannot be read: {error}") from error
    columns = [name for name in (rows[0] if rows else {}) if name]
    if MIXTURE not in columns or len(columns) < 2:
        raise AudioError(
            f"{path} is not a list of pairs: expected a CSV file with the columns {MIXTURE} and a "
            f"stem, such as {MIXTURE},vocals, got {','.join(columns) or 'no rows'}"
        )
    header = list(reader.fieldnames or ())
    repeated = [name for name in columns if header.count(name) > 1]
    if repeated:
        raise AudioError(f"{path} has two columns {repeated[0]}: name each stem once")
    return columns, rows


def _pair(path: Path, line: str, columns: Sequence[str], row: dict[Any, Any]) -> Track:
    """The track of one row."""
    if None in row:
        raise AudioError(
            f"{path}, {line}: there are more cells than columns; put paths that hold "
            "commas between quotes"
        )
    short = [name for name in columns if row[name] is None]
    if short:
        raise AudioError(
            f"{path}, {line}: there is no cell for {short[0]}; leave it empty, with its "
            "comma, if the stem is silent"
        )
    files = {name: path.parent / row[name] for name in columns if row[name]}
    missing = [file for file in files.values() if not file.is_file()]
    if missing or MIXTURE not in files:
        reason = f"there is no file {missing[0]}" if missing else "no mixture is named"
        raise AudioError(f"{path}, {line}: {reason}")
    stems, rest = _with_rest(ordered(set(columns) - {MIXTURE}))
    return Track(files[MIXTURE].stem, "pairs", path, stems, tuple(files.items()), rest)


def _with_rest(stems: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Stems, with the rest of the mixture if there is only one, and the name of that rest."""
    if len(stems) != 1:
        return stems, ""
    rest = rest_of(stems[0])
    return (*stems, rest), rest


def find_moisesdb(root: Path, subset: str = "test", stems: Sequence[str] = STEMS) -> list[Track]:
    """Songs of MoisesDB in stems that its own add up to.

    Parameters
    ----------
    root
        As the archive unpacks, or a part of it.
    subset
        MoisesDB has none: only ``test`` is taken, and stands for all songs below the root.
    stems
        See `unetsep.train.data.moisesdb.MoisesDb`.

    Raises
    ------
    AudioError
        If there are none, or a file is missing.
    ValueError
        If ``subset`` is another one.
    """
    if subset != "test":
        raise ValueError(f"MoisesDB has no subset {subset}: name a folder with the songs to score")
    songs = MoisesDb().songs(root, stems)
    return [_track(source, path, subset, stems) for path, source in songs]


def find_in_index(path: Path, subset: str = "test", stems: Sequence[str] = STEMS) -> list[Track]:
    """Songs of one split of an index, see `unetsep.train.data.index`.

    Parameters
    ----------
    path
        The index.
    subset
        Which split.
    stems
        To score; others are ignored, so these should be all stems of the songs.

    Raises
    ------
    AudioError
        If there are none, a song has fewer than two stems, or a file is missing.
    """
    songs = [each for each in Index().songs(path, stems, mixture=True) if each.split == subset]
    if not songs:
        raise AudioError(
            f'{path} names no songs of the split {subset}: expected "split": "{subset}"'
        )
    return [_track(source, path, subset, stems) for source in songs]


def _track(source: Source, path: Path, subset: str, stems: Sequence[str]) -> Track:
    """A song of a data set."""
    names = tuple(stem for stem in stems if stem in (*source.files, *source.silent))
    names, rest = _with_rest(names) if MIXTURE in source.files else (names, "")
    if len(names) < 2:
        raise AudioError(f"{source.name} in {path} has {len(names)} stems: expected two or more")
    return Track(source.name, subset, path, names, tuple(source.parts), rest)
