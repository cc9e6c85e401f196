"""Data sets in the manifest: training songs of several checkpoints, listed once.

In memory ``training["songs"]`` and ``training["valid_songs"]`` of a checkpoint name each song,
as in ``musdb/train/Artist - Title``. In the file the songs with the same first two parts are a
data set of that name, and a checkpoint refers to it, with the songs that it left out:
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
        Their licence and a description; empty if unknown.
    songs
        Their names without that of the data set.
    """

    licence: str = ""
    note: str = ""
    songs: tuple[str, ...] = ()


def collect_datasets(
    trainings: Iterable[Mapping[str, Any]], described: Mapping[str, DataSet]
) -> dict[str, DataSet]:
    """The data sets that several checkpoints were trained on.

    Parameters
    ----------
    trainings
        `Checkpoint.training` of each, with complete lists of songs.
    described
        Data sets with licences and notes.
    """
    song_lists = [training.get(key, ()) for training in trainings for key in SONG_LISTS]
    all_songs = dict.fromkeys(song for songs in song_lists for song in songs)  # an ordered set
    # In the described order, so that checkpoints that left songs out do not change it.
    order = [f"{name}/{title}" for name, dataset in described.items() for title in dataset.songs]
    titles: dict[str, dict[str, None]] = {}
    for song in [*(song for song in order if song in all_songs), *all_songs]:
        dataset, title = _split(song)
        titles.setdefault(dataset, {})[title] = None
    blank = DataSet()
    return {
        name: DataSet(
            described.get(name, blank).licence, described.get(name, blank).note, tuple(songs)
        )
        for name, songs in titles.items()
    }


def refer(training: Mapping[str, Any], datasets: Mapping[str, DataSet]) -> dict[str, Any]:
    """``training`` with references to data sets in place of lists of songs."""
    compact = dict(training)
    for key in SONG_LISTS:
        if key not in training:
            continue
        titles_of: dict[str, set[str]] = {}
        for dataset, title in map(_split, training[key]):
            titles_of.setdefault(dataset, set()).add(title)
        references = {}
        for name, titles in titles_of.items():
            left_out = [song for song in datasets[name].songs if song not in titles]
            references[name] = {"left_out": left_out} if left_out else {}
        # A list in another order stays a list, so that the order is not lost.
        if _songs(references, datasets) == training[key]:
            compact[key] = references
    return compact


def resolve(training: Mapping[str, Any], datasets: Mapping[str, DataSet]) -> dict[str, Any]:
    """``training`` with lists of songs in place of references: the inverse of `refer`.

    Raises
    ------
    KeyError
        If there is no such data set.
    """
    resolved = dict(training)
    for key in SONG_LISTS:
        if isinstance(training.get(key), dict):
            resolved[key] = _songs(training[key], datasets)
    return resolved


def _songs(references: Mapping[str, Any], datasets: Mapping[str, DataSet]) -> list[str]:
    return [
        f"{name}/{song}"
        for name, reference in references.items()
        for song in datasets[name].songs
        if song not in reference.get("left_out", ())
    ]


def _split(song: str) -> tuple[str, str]:
    """``musdb/train/Artist - Title`` into ``musdb/train`` and the rest."""
    *dataset, title = song.split("/", 2)
    return "/".join(dataset), title
