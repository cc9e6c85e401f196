"""Playlists, and the encodings of lists of songs."""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from pathlib import Path

from .drives import path_problem
from .locations import is_url, without_scheme

PLAYLISTS = (".m3u", ".m3u8")
# Encodings of names before UTF-8: on Windows those of windows and of terminals (dir); elsewhere
# that of western Windows.
OLD_ENCODINGS = ("mbcs", "oem") if os.name == "nt" else ("cp1252",)


def playlist_files(path: Path) -> list[tuple[Path, str | None]]:
    """The files that a playlist names, in order, each with why it cannot be separated, or None.

    A playlist that cannot be read, or names no files, is one such file itself.
    """
    try:
        raw = as_utf8(path.read_bytes())
    except OSError as error:
        return [(path, f"{path} cannot be read: {error.strerror}")]
    # Not splitlines: it splits at characters that names may hold, such as U+2028.
    lines = re.split(rb"\r\n|\r|\n", raw.removeprefix(codecs.BOM_UTF8))
    names = [_decoded(line.strip(b" \t"), path.parent) for line in lines]
    files = [_file(path, name) for name in names if name and not name.startswith("#")]
    return files or [(path, f"{path} is a playlist without songs")]


def _decoded(name: bytes, folder: Path) -> str:
    """A name in a playlist: UTF-8, the bytes of an existing file, or an older encoding."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raw = name.decode(errors="surrogateescape")
        exists = os.path.exists(folder / raw)  # noqa: PTH110 (no errors)
        return raw if exists else from_old_encoding(name, folder)


def from_old_encoding(name: bytes, folder: Path) -> str:
    """Decode a name that is not UTF-8, preferably as that of an existing file.

    Parameters
    ----------
    name
        As some program wrote it.
    folder
        Folder of the name, unless it is absolute.
    """
    texts = [name.decode(encoding, "replace") for encoding in OLD_ENCODINGS]
    existing = (text for text in texts if os.path.exists(folder / text))  # noqa: PTH110 (no errors)
    return next(existing, texts[0])


def as_utf8(raw: bytes) -> bytes:
    """Convert a text with a byte order mark of UTF-16 (PowerShell) or UTF-32 to UTF-8."""
    # The mark of UTF-32 starts with that of UTF-16.
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return raw.decode("utf-32", "replace").encode()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace").encode()
    return raw


def _file(playlist: Path, name: str) -> tuple[Path, str | None]:
    """The file of a name, and why it cannot be separated."""
    name = without_scheme(name)
    name = name.replace("\0", "\ufffd")  # from bytes that are not text: no file name has it
    if is_url(name):
        error = f"{playlist} names a URL, {name}: name it on the command line, or download it"
        return Path(name), error
    slashed = name.replace("\\", "/")  # written on Windows
    # The playlist or the file may come from a system that decomposes accents, or one that does not.
    forms = [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    paths = [playlist.parent / each for each in dict.fromkeys([name, slashed, *forms])]
    existing = (path for path in paths if path_problem(path) is None)
    path = next(existing, playlist.parent / slashed)
    return path, path_problem(path)
