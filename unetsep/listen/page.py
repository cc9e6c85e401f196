"""``index.html``: one page with the player, the list of songs, and nothing from elsewhere."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from ..errors import UnetsepError
from ..storage import write_atomically
from ..version import __version__
from .pieces import write_song
from .songs import DATA, Song

PAGE = "index.html"
MARK = '<meta name="generator" content="unetsep">'
# Libraries come with their licences. The stretcher hands its own text to the audio thread.
LIBRARIES = {"wavesurfer": "wavesurfer.min.js", "stretcher": "SignalsmithStretch.js"}
SCRIPTS = ("pieces.js", "deck.js", "engine.js", "mix.js", "lanes.js", "page.js")

Progress = Callable[[Song, float], object]


def write_page(folder: Path, songs: Sequence[Song], progress: Progress | None = None) -> Path:
    """Write ``index.html``, and beside it ``player-data`` with sound and pictures.

    Data of songs whose stems have not changed since is used again; data of songs that are
    no longer on the page is removed.

    Parameters
    ----------
    folder
        Where the page goes.
    songs
        At least one.
    progress
        Called with a song and the share of it that is done, 0 to 1.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UnetsepError
        If there is an ``index.html`` that unetsep did not write, or nothing can be written.
    AudioError
        If a stem cannot be read.
    """
    page = folder / PAGE
    try:
        if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
            raise UnetsepError(f"{page} exists and is no page of unetsep: move it away first")
        keys = [_write_data(song, folder / DATA, progress) for song in songs]
        write_atomically(page, render(folder, songs, keys).encode("utf-8", "replace"))
        _remove_others(folder / DATA, set(keys))
    except OSError as error:
        raise UnetsepError(f"writing to {folder} failed: {error.strerror or error}") from error
    return page


def _write_data(song: Song, data: Path, progress: Progress | None) -> str:
    """Write a song's folder unless it is there; its name changes with the stems."""
    key = _key(song)
    if (data / key / "song.js").exists():
        return key
    partial = data / f"{key}.part"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        write_song(song, partial, key, None if progress is None else lambda s: progress(song, s))
        partial.rename(data / key)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return key


def _key(song: Song) -> str:
    """A name for a folder and a script: ASCII, and another one when a stem has changed."""
    state = [
        (m, s, str(p.resolve()), *_stamp(p)) for m, t in song.models.items() for s, p in t.items()
    ]
    digest = hashlib.sha256(json.dumps([__version__, song.name, state]).encode()).hexdigest()
    plain = unicodedata.normalize("NFKD", song.name).encode("ascii", "ignore").decode()
    return f"{re.sub('[^a-z0-9]+', '-', plain.lower()).strip('-')[:40] or 'song'}-{digest[:12]}"


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _remove_others(data: Path, keys: set[str]) -> None:
    with os.scandir(data) as listing:
        entries = list(listing)
    for entry in entries:
        if entry.is_dir() and entry.name not in keys and (Path(entry.path) / "song.js").exists():
            shutil.rmtree(entry.path)


def render(folder: Path, songs: Sequence[Song], keys: Sequence[str]) -> str:
    """The page's text.

    Parameters
    ----------
    folder
        Names the page if there is more than one song.
    songs, keys
        The songs and the names of their folders in ``player-data``.
    """
    title = songs[0].name if len(songs) == 1 else folder.resolve().name
    listing = [{"name": song.name, "key": key} for song, key in zip(songs, keys, strict=True)]
    album = {"title": title, "folder": DATA, "songs": listing}
    scripts = [(name, _library(file)) for name, file in LIBRARIES.items()]
    scripts += [(name.removesuffix(".js"), read(name)) for name in SCRIPTS]
    values = {
        "title": html.escape(title),
        "style": read("page.css"),
        "album": json.dumps(album).replace("<", "\\u003c"),
        "scripts": "\n".join(f'<script id="{i}-js">\n{text}</script>' for i, text in scripts),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], read("page.html"))


def _library(file: str) -> str:
    licence = read(f"vendor/{file.split('.')[0]}.LICENSE")
    return f"/*\n{licence}*/\n{read(f'vendor/{file}')}"


def read(name: str) -> str:
    """A file of the player."""
    return resources.files(__package__).joinpath("web", *name.split("/")).read_text("utf-8")
