"""Data sets in the manifest: songs that several checkpoints were trained on, listed once.

In memory ``training["songs"]`` and ``training["valid_songs"]`` of a checkpoint name each song,
as in ``musdb/train/Artist - Title``. In the file the songs whose first two parts agree are a
data set of that name, and a checkpoint refers to it, with what it did without:
``{"musdb/train": {}, "pools/train": {"left_out": ["vocals/someone"]}}``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

SONG_LISTS = ("songs", "valid_songs")


@dataclass(frozen=True)
class DataSet:
    """Songs or single recordings from one place.

    Parameters
    ----------
    licence, note
        Under what they may be used, and what they are; empty if nobody has said so yet.
    songs
        Their names without that of the data set.
    """

    licence: str = ""
    note: str = ""
    songs: tuple[str, ...] = ()


def collect_datasets(
    trainings: Iterable[Mapping[str, Any]], known: Mapping[str, DataSet]
) -> dict[str, DataSet]:
    """The data sets that several checkpoints need between them.

    Parameters
    ----------
    trainings
        `Checkpoint.training` of each, with whole lists of songs.
    known
        Where licences and notes are taken from.
    """
    listed = [training.get(key, ()) for training in trainings for key in SONG_LISTS]
    used = dict.fromkeys(song for songs in listed for song in songs)  # an ordered set
    # In the order that is known, so that a checkpoint that did without some changes nothing.
    order = [f"{name}/{title}" for name, dataset in known.items() for title in dataset.songs]
    titles: dict[str, dict[str, None]] = {}
    for song in [*(song for song in order if song in used), *used]:
        dataset, title = _split(song)
        titles.setdefault(dataset, {})[title] = None
    blank = DataSet()
    return {
        name: DataSet(known.get(name, blank).licence, known.get(name, blank).note, tuple(songs))
        for name, songs in titles.items()
    }


def refer(training: Mapping[str, Any], datasets: Mapping[str, DataSet]) -> dict[str, Any]:
    """``training`` with references to data sets in place of lists of songs."""
    short = dict(training)
    for key in SONG_LISTS:
        if key not in training:
            continue
        used: dict[str, set[str]] = {}
        for dataset, title in map(_split, training[key]):
            used.setdefault(dataset, set()).add(title)
        references = {}
        for name, titles in used.items():
            left_out = [song for song in datasets[name].songs if song not in titles]
            references[name] = {"left_out": left_out} if left_out else {}
        # A list in another order than the data sets' stays a list: nothing may be lost.
        if _songs(references, datasets) == training[key]:
            short[key] = references
    return short


def resolve(training: Mapping[str, Any], datasets: Mapping[str, DataSet]) -> dict[str, Any]:
    """``training`` with lists of songs in place of references: the inverse of `refer`.

    Raises
    ------
    KeyError
        If there is no such data set.
    """
    whole = dict(training)
    for key in SONG_LISTS:
        if isinstance(training.get(key), dict):
            whole[key] = _songs(training[key], datasets)
    return whole


def _songs(references: Mapping[str, Any], datasets: Mapping[str, DataSet]) -> list[str]:
    return [
        f"{name}/{song}"
        for name, differs in references.items()
        for song in datasets[name].songs
        if song not in differs.get("left_out", ())
    ]


def _split(song: str) -> tuple[str, str]:
    """``musdb/train/Artist - Title`` into ``musdb/train`` and the rest."""
    *dataset, title = song.split("/", 2)
    return "/".join(dataset), title
