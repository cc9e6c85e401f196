"""Parts of URLs, and URLs without secrets."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    _Path = Path
else:  # before Python 3.12 only the concrete class of this system can be subclassed
    _Path = type(Path())

# Schemes of web servers, which take no files.
READ_ONLY = ("http", "https")
# Schemes of local files.
LOCAL = ("file", "local")
# Schemes of stores whose folders are only prefixes of names.
BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")


class UrlPath(_Path):
    """A URL in place of a path, for reports; it cannot be opened."""

    _url = ""  # before Python 3.12 parents are made without __new__

    def __new__(cls, *parts: str | Path) -> UrlPath:
        """Store the text, too: in buckets ``a//b`` is not ``a/b``."""
        path = super().__new__(cls, *parts)
        path._url = "/".join(map(str, parts))
        return path

    def __reduce__(self) -> tuple[type[UrlPath], tuple[str]]:
        return UrlPath, (str(self),)

    def __str__(self) -> str:
        text = self._url
        if "://" not in text:  # of a parent; in URLs backslashes are letters, even on Windows
            text = (text or super().__str__()).replace(os.sep, "/")
        return re.sub(r"^(file|local):/+", r"\1:///", re.sub(r"^(\w[\w+.-]+):/+", r"\1://", text))


def split_links(url: str) -> tuple[str, str]:
    """The first link of a chain, such as ``zip://song.wav::s3://bucket/songs.zip``, and the rest.

    If no URL follows, ``::`` is part of a name, and the rest is empty.
    """
    link, colons, links = url.partition("::")
    return (link, f"{colons}{links}") if "://" in links else (url, "")


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, place with user and password, and path of a URL.

    On web servers alone ``?`` and ``#`` end the path; elsewhere they are parts of names. For a
    file within an archive the place is the archive.
    """
    link, links = split_links(url)
    scheme, _, location = link.partition("://")
    if links:
        return scheme.lower(), links, f"/{location}"
    if scheme.lower() in READ_ONLY:
        location = re.split("[?#]", location, maxsplit=1)[0]
    place, slash, path = location.partition("/")
    return scheme.lower(), place, f"{slash}{path}"


def public_url(url: str) -> str:
    """A URL without secrets: user, password, signature."""
    link, links = split_links(url)
    if links:
        return f"{link}::{public_url(links[2:])}"
    scheme, place, path = split_url(url)
    return f"{scheme}://{place.rpartition('@')[2]}{path}"


def web_path(url: str) -> str:
    """What follows the server in a URL; a page at http:// may list files at https://."""
    return url.partition("://")[2].partition("/")[2]


def last_name(url: str) -> str:
    """The last part of a URL's path, decoded; for the top of an archive the archive's name."""
    scheme, place, path = split_url(url)
    name = path.rstrip("/").rpartition("/")[2]
    if not name and (links := split_links(url)[1]):
        return last_name(links[2:])
    name = name or place.rpartition("@")[2]
    return unquote(name) if scheme in READ_ONLY else name


def url_below(url: str, name: str) -> str:
    """The URL of a file in the folder at a URL."""
    link, links = split_links(url)
    folder = link.rstrip("/")
    slashes = "//" if folder.endswith(":") else "/"  # the top of an archive is zip://
    return f"{folder}{slashes}{name}{links}"


def without_secrets(text: str) -> str:
    """A message without signatures, users and passwords."""
    text = re.sub(r"(?<=://)[^\s/@'\"]+@", "", text)
    return re.sub(r"(\bhttps?://[^\s?'\"]+)\?[^\s'\")]*", r"\1", text)
