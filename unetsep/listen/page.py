"""``index.html``: one page with the player and the list of songs, without external files."""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import re
import secrets
import shutil
import time
import unicodedata
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from ..audio.staging import FOREIGN_AGE
from ..errors import AudioError, UnetsepError
from ..storage import write_atomically
from ..version import __version__
from .pieces import write_song
from .songs import DATA, Song

PAGE = "index.html"
MARK = '<meta name="generator" content="unetsep">'
# Libraries include their licences. The stretcher passes its own source to the audio thread.
LIBRARIES = {"wavesurfer": "wavesurfer.min.js", "stretcher": "SignalsmithStretch.js"}
# Names of a song's folder, see `_key`, and of an incomplete one.
KEY = r"[a-z0-9-]+-[0-9a-f]{12}"
NAME = re.compile(rf"{KEY}(?:\.part)?")
SCRIPTS = ("pieces.js", "deck.js", "engine.js", "save.js", "lanes.js", "page.js")

PageProgress = Callable[[Song, float], object]
Failed = Callable[[Song, AudioError], object]


def write_page(
    folder: Path,
    songs: Sequence[Song],
    progress: PageProgress | None = None,
    failed: Failed | None = None,
) -> Path:
    """Write ``index.html``, and beside it ``player-data`` with audio and pictures.

    Data of songs with unchanged stems is reused; data of songs that are no longer on the page is
    removed.

    Parameters
    ----------
    folder
        Folder of the page.
    songs
        At least one.
    progress
        Called with a song and its completed share, 0 to 1.
    failed
        Called with a song that cannot be read, and the error; the page has the other songs.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    UnetsepError
        If there is an ``index.html`` that unetsep did not write, or a write fails.
    AudioError
        If a stem cannot be read, and ``failed`` is None or no song remains.
    """
    page = folder / PAGE
    try:
        refuse_foreign(folder)
        songs = _write_readable(songs, folder / DATA, progress, failed)
        keys = [_key(song) for song in songs]
        text, old_keys = render(folder, songs, keys), _keys_of(page)
        write_atomically(page, text.encode("utf-8", "replace"))
        # Again: until now another command, whose page has other songs, may have removed some.
        for song, key in zip(songs, keys, strict=True):
            _write_missing(song, key, folder / DATA, progress)
        _remove_old(folder / DATA, _keys_of(page) | set(keys), old_keys)
    except OSError as error:
        raise UnetsepError(f"writing to {folder} failed: {error.strerror or error}") from error
    return page


def refuse_foreign(folder: Path) -> None:
    """Raise if a folder has an ``index.html`` that unetsep did not write.

    Raises
    ------
    UnetsepError
        If there is such a file.
    OSError
        If it cannot be read.
    """
    page = folder / PAGE
    if page.exists() and MARK not in page.read_text(encoding="utf-8", errors="replace"):
        raise UnetsepError(f"{page} exists and is not a page of unetsep: move it away first")


def _keys_of(page: Path) -> set[str]:
    """The folders of songs that a page refers to."""
    text = page.read_text(encoding="utf-8", errors="replace") if page.exists() else ""
    return set(re.findall(rf'"key": "({KEY})"', text))


def _write_readable(
    songs: Sequence[Song], data: Path, progress: PageProgress | None, failed: Failed | None
) -> list[Song]:
    """Write the missing folders of songs; return the songs that could be read."""
    readable = []
    for song in songs:
        try:
            _write_missing(song, _key(song), data, progress)
            readable.append(song)
        except AudioError as error:  # noqa: PERF203 (a song takes longer)
            if failed is None or (not readable and song is songs[-1]):
                raise
            failed(song, error)
    return readable


def _write_missing(song: Song, key: str, data: Path, progress: PageProgress | None) -> None:
    """Write a song's folder if it is missing; its name changes with the stems."""
    if _is_complete(data / key):
        return
    partial = _partial(data / key)
    partial.mkdir(parents=True)
    try:
        write_song(song, partial, key, None if progress is None else lambda s: progress(song, s))
        _give_name(partial, data / key)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # the folder holds songs
            data.rmdir()


def _is_complete(folder: Path) -> bool:
    """Whether a song's folder is complete; ``song.js`` is written last."""
    return (folder / "song.js").exists()


def _partial(folder: Path) -> Path:
    """A name for an incomplete folder, which no other command uses."""
    return folder.with_name(f"{folder.name}-{secrets.token_hex(6)}.part")


def _give_name(partial: Path, folder: Path) -> None:
    """Rename a song's folder to its name, unless another command has created it meanwhile."""
    if not _is_complete(folder):
        _remove(folder)  # the rest of one whose removal was interrupted
    try:
        partial.rename(folder)
    except OSError:
        if not _is_complete(folder):
            raise


def _remove(folder: Path) -> None:
    """Rename a folder, then remove it: no command may use it during the removal."""
    partial = _partial(folder)
    with contextlib.suppress(OSError):  # it no longer exists, or is open on Windows
        folder.rename(partial)
        shutil.rmtree(partial)


def _key(song: Song) -> str:
    """A name for a folder and a script, in ASCII; it changes when a stem does."""
    state = [
        (m, s, str(p.resolve()), *_stamp(p)) for m, t in song.models.items() for s, p in t.items()
    ]
    digest = hashlib.sha256(json.dumps([__version__, song.name, state]).encode()).hexdigest()
    plain = unicodedata.normalize("NFKD", song.name).encode("ascii", "ignore").decode()
    return f"{re.sub('[^a-z0-9]+', '-', plain.lower()).strip('-')[:40] or 'song'}-{digest[:12]}"


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _remove_old(data: Path, keys: set[str], old_keys: set[str]) -> None:
    """Remove songs that are no longer on the page, and leftovers of dead commands.

    Other folders stay unless they are old: another command may be about to write their page.
    """
    for folder in [path for path in data.iterdir() if NAME.fullmatch(path.name)]:
        if folder.name not in keys:
            is_leftover = not folder.name.endswith(".part") and not _is_complete(folder)
            if is_leftover or folder.name in old_keys or _is_old(folder):
                _remove(folder)


def _is_old(folder: Path) -> bool:
    """Whether a folder is so old that the command which wrote it must have ended."""
    try:
        return time.time() - folder.stat().st_mtime > FOREIGN_AGE
    except FileNotFoundError:
        return False


def render(folder: Path, songs: Sequence[Song], keys: Sequence[str]) -> str:
    """The page's text.

    Parameters
    ----------
    folder
        Its name is the title if there is more than one song.
    songs, keys
        The songs and the names of their folders in ``player-data``.
    """
    title = songs[0].name if len(songs) == 1 else folder.resolve().name
    listing = [{"name": song.name, "key": key} for song, key in zip(songs, keys, strict=True)]
    album = {"title": title, "folder": DATA, "songs": listing}
    scripts = [(name, _library(file)) for name, file in LIBRARIES.items()]
    scripts += [(name.removesuffix(".js"), read_text(name)) for name in SCRIPTS]
    values = {
        "title": html.escape(title),
        "style": read_text("page.css"),
        "album": json.dumps(album).replace("<", "\\u003c"),
        "scripts": "\n".join(f'<script id="{i}-js">\n{text}</script>' for i, text in scripts),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], read_text("page.html"))


def _library(file: str) -> str:
    licence = read_text(f"vendor/{file.split('.')[0]}.LICENSE")
    return f"/*\n{licence}*/\n{read_text(f'vendor/{file}')}"


def read_text(name: str) -> str:
    """The text of a file of the player."""
    return resources.files(__package__).joinpath("web", *name.split("/")).read_text("utf-8")
