"""Paths and URLs, as users and programs give them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

# The scheme has at least two letters: C:/song.wav is not a URL.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# URL of a file on this machine; its percent-encoded path follows.
FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
# On Windows also the URL of a file on another machine, whose path starts with two slashes.
SHARE_URL = re.compile(r"file://(?=[^/])", re.IGNORECASE)


def as_path(value: str | os.PathLike[str], what: str = "song") -> Path:
    """A path from an argument of Python code or a command line.

    Parameters
    ----------
    value
        The path.
    what
        Name of the argument, for messages.

    Raises
    ------
    ValueError
        If it is empty, a URL of another machine, or not a path.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f"{what} must be a path, got {value!r}")
    if isinstance(value, str):
        value = without_scheme(value)
        if is_url(value):
            raise ValueError(f"{value} is a URL: download it first")
    return Path(value)


def is_url(text: str) -> bool:
    """Whether a text starts like a URL."""
    return URL.match(text) is not None


def without_scheme(text: str) -> str:
    """The path of a URL of a file on this machine; any other text unchanged.

    File managers give such URLs when a song is dragged or copied.
    """
    windows = os.name == "nt"
    local = FILE_URL.match(text) or (SHARE_URL.match(text) if windows else None)
    if local is None:
        return text
    path = unquote(text[local.end() :], errors="surrogateescape").replace("\0", "\ufffd")
    return _windows_path(path, share=local.re is SHARE_URL) if windows else path


def _windows_path(path: str, *, share: bool) -> str:
    """The path after ``file://``; browsers write up to five slashes before a server."""
    drive = re.match(r"/*(?=[A-Za-z]:)", path)
    if drive:
        return path[drive.end() :]
    return "//" + path.lstrip("/") if share or path.startswith("//") else path
