"""Which recordings a run learns from and is validated on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from ...config import STEMS
from ..config import TrainingError
from . import cache, sources
from . import musdb as musdb_module
from .recording import Song, hold_out

# Length of the excerpts set aside from ``songs``, and how many of them by default: 14
# seven-second clips alone are noise.
HELD_SECONDS, HELD_OUT = 10, 10


@dataclass(frozen=True)
class Data:
    """Where a run's songs and first weights come from; saved with it as ``data.json``.

    Parameters
    ----------
    musdb, songs, pools
        Folders; see `unetsep.train.data.sources`.
    cache
        Folder of the decoded stems.
    init_from
        Checkpoint whose weights are the start.
    held_out
        How many excerpts of ``songs`` are set aside for validation.
    leave_out
        Recordings that are not trained on, ``NAME`` or ``NAME=STEM,...``.
    """

    musdb: str | None
    songs: tuple[str, ...]
    pools: tuple[str, ...]
    cache: str
    init_from: str | None = None
    held_out: int = HELD_OUT
    leave_out: tuple[str, ...] = ()


def find_data(
    musdb_root: Path | None,
    songs: Sequence[Path],
    pools: Sequence[Path],
    folder: Path | None,
    **more: Any,
) -> Data:
    """Folders as given, MUSDB18 from ``MUSDB_PATH`` if it is not named.

    Parameters
    ----------
    musdb_root, songs, pools
        Folders; see `unetsep.train.data.sources`.
    folder
        Of the decoded stems; default: in the user's cache.
    more
        Other fields of `Data`.

    Raises
    ------
    AudioError
        If a folder is of a test set, or none is named.
    """
    musdb: Path | None = None
    if musdb_root or os.environ.get("MUSDB_PATH") or not (songs or pools):
        musdb = musdb_module.musdb_root(musdb_root)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    for root in (*songs, *pools):
        sources.refuse_test(root)
    return Data(
        musdb=str(musdb.resolve()) if musdb else None,
        songs=tuple(str(root.resolve()) for root in songs),
        pools=tuple(str(root.resolve()) for root in pools),
        cache=str((folder or home / "unetsep" / "stems").resolve()),
        **more,
    )


def read_data(run: Path) -> Data:
    """The data of a run, from its ``data.json``.

    Raises
    ------
    TrainingError
        If it is not there or damaged.
    """
    try:
        values = json.loads((run / "data.json").read_text(encoding="utf-8"))
        for name in ("songs", "pools", "leave_out"):
            values[name] = tuple(values.get(name, ()))
        return Data(**values)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise TrainingError(f"{run} does not say where its data is: {error}") from error


def decode(data: Data, console: Console) -> list[Song]:
    """All songs and recordings, from the cache or decoded into it."""
    from ...cli.train import decoding

    found = musdb_module.find_musdb(data.musdb) if data.musdb else []
    found += [source for root in data.songs for source in sources.find_songs(root)]
    found += [source for root in data.pools for source in sources.find_pools(root)]
    with decoding(console) as report:
        return cache.load(found, data.cache, progress=report)


def load_data(data: Data, console: Console) -> tuple[list[Song], list[Song]]:
    """Training and validation songs, decoded if need be.

    Raises
    ------
    TrainingError
        If there is nothing to validate on, or nothing to leave out of a given name.
    """
    songs = decode(data, console)
    valid = [song for song in songs if song.split == "valid"]
    rest = without([song for song in songs if song.split == "train"], data.leave_out)
    train, held = hold_out(rest, STEMS, data.held_out, HELD_SECONDS * 44_100)
    if not valid + held:
        raise TrainingError(
            "there is nothing to validate on: name a MUSDB18 root, or songs of at least "
            f"{2 * HELD_SECONDS} s in which all of {', '.join(STEMS)} are heard at once"
        )
    return train, valid + held


def without(songs: Sequence[Song], leave_out: Sequence[str]) -> list[Song]:
    """Songs without some recordings, or without some stems of them, which become unknown.

    Parameters
    ----------
    songs
        Training songs and pools.
    leave_out
        ``NAME`` or ``NAME=STEM,...`` each.

    Raises
    ------
    TrainingError
        If a name is no song's, or a stem is not in it.
    """
    left: dict[str, set[str]] = {}
    names = {song.name: song.names for song in songs}
    for text in leave_out:
        name, _, listed = text.rpartition("=") if text not in names else (text, "", "")
        stems = {stem.strip() for stem in listed.split(",")} if listed else set(STEMS)
        if name not in names or (listed and not stems <= set(names[name])):
            raise TrainingError(
                f"--leave-out {text}: there is no such recording to train on, expected a name "
                "as in the songs.json of a run, or NAME=STEM,... with stems that it has"
            )
        left[name] = left.get(name, set()) | stems
    kept = [song.without(left.get(song.name, ())) for song in songs]
    return [song for song in kept if any(stem in STEMS for stem in song.names)]


def song_lists(train: Sequence[Song], valid: Sequence[Song]) -> dict[str, list[str]]:
    """What a run learns from and is selected on, as ``origin/split/name``.

    A song of which an excerpt is held out is in both lists.
    """

    def names(songs: Sequence[Song]) -> list[str]:
        return list(dict.fromkeys(f"{song.origin}/{song.split}/{song.name}" for song in songs))

    return {"songs": names(train), "valid_songs": names(valid)}
