"""What lies under a URL: files that are read, written and renamed through fsspec, with patience."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

from ..audio.staging import FOREIGN_AGE
from ..errors import UnetsepError, how_to_install
from ..inputs import real_path
from ..storage import PREFIX, file_digest, file_sha256

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    _Path = Path
else:  # before Python 3.12 only the class of this system's paths can be derived from
    _Path = type(Path())

# How often a transfer is tried, and seconds before the second time; the pause doubles, and is
# spread so that twenty machines do not come back at once.
ATTEMPTS = 5
PAUSE = 1.0
# Those of HTTP's answers from 400 to 499 that ask to come again; others stay as they are.
PATIENT_STATUS = (408, 429)
# Those that say that there is no such file.
ABSENT_STATUS = (404, 410)
READ_ONLY = ("http", "https")
# Schemes of files that have paths, too.
LOCAL = ("file", "local")
# Of stores whose folders are no more than beginnings of names.
BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az")

# Seconds until a web server answers, and until it sends more of a file.
CONNECTED, SILENCE = 30.0, 300.0

Result = TypeVar("Result")


class TransferError(UnetsepError):
    """A file at a URL that could not be read or written."""


class AbsentError(TransferError):
    """A file at a URL that does not exist."""


def _true_cause(error: Exception) -> Exception:
    """What went wrong: of a server that cannot be reached, too, fsspec says "not found"."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception):
        status = getattr(cause, "status", None)
        if isinstance(cause, OSError) or (status is not None and status not in ABSENT_STATUS):
            return cause
    return error


class UrlPath(_Path):
    """A URL in the place of a path, for reports; nothing can be opened by it."""

    _url = ""  # before Python 3.12 a parent has none

    def __new__(cls, *parts: str | Path) -> UrlPath:
        """Keep the text, too: where folders are letters of names, ``a//b`` is not ``a/b``."""
        path = super().__new__(cls, *parts)
        path._url = "/".join(map(str, parts))
        return path

    def __reduce__(self) -> tuple[type[UrlPath], tuple[str]]:
        return UrlPath, (str(self),)

    def __str__(self) -> str:
        text = self._url
        if "://" not in text:  # of a parent; in a URL backslashes are letters, on Windows too
            text = (text or super().__str__()).replace(os.sep, "/")
        return re.sub(r"^(file|local):/+", r"\1:///", re.sub(r"^(\w[\w+.-]+):/+", r"\1://", text))


def split_links(url: str) -> tuple[str, str]:
    """The first link of a chain, such as ``zip://song.wav::s3://bucket/songs.zip``, and the rest.

    Where no URL follows, ``::`` are letters of a name, and the rest is empty.
    """
    first, colons, rest = url.partition("::")
    return (first, f"{colons}{rest}") if "://" in rest else (url, "")


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, place with user and password, and path of a URL.

    Only on web servers do ``?`` and ``#`` end the path; elsewhere they are letters of names. The
    place of what lies within another file is that file.
    """
    first, links = split_links(url)
    scheme, _, rest = first.partition("://")
    if links:
        return scheme.lower(), links, f"/{rest}"
    if scheme.lower() in READ_ONLY:
        rest = re.split("[?#]", rest, maxsplit=1)[0]
    place, slash, path = rest.partition("/")
    return scheme.lower(), place, f"{slash}{path}"


def public_url(url: str) -> str:
    """A URL without what may be secret: user, password, signature."""
    first, rest = split_links(url)
    if rest:
        return f"{first}::{public_url(rest[2:])}"
    scheme, place, path = split_url(url)
    return f"{scheme}://{place.rpartition('@')[2]}{path}"


def last_name(url: str) -> str:
    """The last part of a URL's path, in plain letters; of an archive's top that of the archive."""
    scheme, place, path = split_url(url)
    last = path.rstrip("/").rpartition("/")[2]
    if not last and (links := split_links(url)[1]):
        return last_name(links[2:])
    last = last or place.rpartition("@")[2]
    return unquote(last) if scheme in READ_ONLY else last


def url_below(url: str, name: str) -> str:
    """The URL of a file in the folder at a URL."""
    first, links = split_links(url)
    folder = first.rstrip("/")
    slashes = "//" if folder.endswith(":") else "/"  # an archive's top is zip://
    return f"{folder}{slashes}{name}{links}"


class Store:
    """What lies under a URL; every call is tried several times.

    Parameters
    ----------
    url
        Of a file or folder, in any scheme that fsspec knows.

    Raises
    ------
    UnetsepError
        If fsspec does not know the scheme, or lacks a package for it.
    """

    def __init__(self, url: str) -> None:
        self.url = public_url(url).rstrip("/")
        self.scheme = split_url(url)[0]
        self.attempts = ATTEMPTS
        self.files: AbstractFileSystem
        try:
            self.files, root = _open(url)
        except ImportError as error:
            raise UnetsepError(
                f"{self.url} needs a package that is not installed ({error}): run "
                f"{how_to_install('remote')}"
            ) from error
        except (ValueError, OSError) as error:  # some connect at once
            words = _without_query(" ".join(str(error).split()))
            raise UnetsepError(f"{self.url} cannot be opened: {words}") from error
        self.root: str = root.rstrip("/")

    def check_bucket(self) -> None:
        """Look the bucket up, which nobody makes for its user.

        Raises
        ------
        UnetsepError
            If there is none of that name.
        """
        if self.scheme not in BUCKETS:
            return
        bucket = self.root.lstrip("/").partition("/")[0]
        try:
            self.files.info(bucket)
        except FileNotFoundError as error:
            if _true_cause(error) is error:
                raise UnetsepError(
                    f"{self.url} cannot be written to: there is no bucket {bucket}; make it first, "
                    "or mend its name"
                ) from error
        except Exception:  # such as of who may write and not list: the first song will tell
            return

    def at(self, name: str) -> str:
        """The path of what lies in the folder; for an empty name its own."""
        return f"{self.root}/{name}" if name else self.root

    def place_in(self, other: Store) -> str | None:
        """Where the folder lies in another one, however the two are written.

        Returns
        -------
        str or None
            Empty for the other one itself; None if it does not lie there.
        """
        # With a user and without, a server is two file systems.
        is_there = self.files == other.files or split_url(self.url)[:2] == split_url(other.url)[:2]
        top, folder = other._true_root, self._true_root
        if not is_there or not f"{folder}/".startswith(f"{top}/"):
            return None
        return folder[len(top) + 1 :]

    @property
    def _true_root(self) -> str:
        """The same for all names of a folder: of one on this machine without links."""
        if self.scheme not in LOCAL:
            return self.root
        return real_path(Path(self.root or "/")).as_posix().rstrip("/")

    def retry(self, name: str, doing: str, action: Callable[[], Result]) -> Result:
        """Do something with a file, several times if that may help.

        Raises
        ------
        AbsentError
            If it does not exist.
        TransferError
            If it does not work.
        """
        place, attempt = f"{self.url}/{name}" if name else self.url, 1
        while True:
            try:
                return action()
            except Exception as caught:  # those of aiohttp and others get through
                error = _true_cause(caught)
                if isinstance(error, FileNotFoundError):
                    raise AbsentError(f"{place} does not exist") from error
                if not _may_pass(error) or attempt >= self.attempts:
                    words = " ".join(str(error).split())
                    if not getattr(error, "message", words):  # as of redirections in a circle
                        words = type(error).__name__
                    raise TransferError(
                        f"{place} could not be {doing}: {_without_query(words)}"
                    ) from error
            time.sleep(PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            attempt += 1

    def info(self, name: str = "") -> dict[str, Any]:
        """What the store says of a file."""
        return self.retry(name, "looked up", lambda: dict(self.files.info(self.at(name))))

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if it is not there."""
        try:
            return bytes(self.retry(name, "read", lambda: self.files.cat_file(self.at(name))))
        except AbsentError:
            return None

    def listing(self, name: str) -> dict[str, dict[str, Any]]:
        """The files of one folder, by their names; none if there is no such folder."""
        path = self.at(name)

        def list_files() -> list[dict[str, Any]]:
            if name and self.scheme in BUCKETS:
                # Their `ls` lists all that is beside a folder which is not there yet.
                found = self.files.find(f"{path}/", detail=True).values()
                return [each for each in found if each["name"].rpartition("/")[0] == path]
            return list(self.files.ls(path, detail=True))

        try:
            entries = self.retry(name, "listed", list_files)
        except AbsentError:
            return {}
        return {PurePosixPath(e["name"]).name: e for e in entries if e["type"] != "directory"}

    def fetch(self, path: Path, info: Mapping[str, Any]) -> None:
        """Download the file at the URL, as long and with the checksum that the store says."""

        def download() -> None:
            self.files.get_file(self.root, str(path))
            _check_download(path, info)

        path.parent.mkdir(parents=True, exist_ok=True)
        self.retry("", "downloaded", download)

    def put(self, source: Path, name: str) -> None:
        """Upload a file and read it back; it has its name only for its own run."""

        def upload() -> None:
            try:
                self.files.put_file(str(source), self.at(name))
            except FileNotFoundError:  # of a store with true folders
                if self.scheme in BUCKETS:  # which would be made
                    raise
                self.files.makedirs(self.at(name).rpartition("/")[0], exist_ok=True)
                self.files.put_file(str(source), self.at(name))
            if self._digest(name) != digest:
                raise OSError("what was uploaded does not read back as it was")

        digest = file_sha256(source)
        self.retry(name, "uploaded", _until_found(upload))

    def _digest(self, name: str) -> str:
        with self.files.open(self.at(name), "rb") as file:
            return file_digest(file)

    def publish(self, source: Path, name: str) -> None:
        """Upload a file under another name and give it its own when it is complete."""
        folder, _, last = name.rpartition("/")
        partial = name_in(folder, f"{PREFIX}{secrets.token_hex(6)}-{last}.part")
        try:
            self.put(source, partial)
            self.rename(partial, name, source)
        except BaseException:
            self.remove(partial)
            raise

    def rename(self, name: str, new: str, source: Path) -> None:
        """Give a file another name; what had it is replaced.

        Parameters
        ----------
        name, new
            In the store.
        source
            The same file here.
        """

        def rename() -> None:
            try:
                self._move(self.at(name), self.at(new))
            except FileNotFoundError:  # the last attempt did it, unheard; or somebody removed it
                if self._digest(new) != file_sha256(source):
                    raise
            self.files.info(self.at(new))

        self.retry(new, "written", _until_found(rename))

    def _move(self, path: str, new: str) -> None:
        from fsspec import AbstractFileSystem

        if type(self.files).mv is not AbstractFileSystem.mv:  # of a store that can rename
            self.files.mv(path, new)
            return
        # That of all others takes [, * and ? in names for patterns.
        self.files.cp_file(path, new)
        self.files.rm_file(path)

    def remove(self, name: str) -> None:
        """Remove a file; one that cannot be removed stays."""
        with contextlib.suppress(Exception):  # the error that led here matters more
            self.files.rm_file(self.at(name))

    def remove_leftovers(self, folder: str) -> dict[str, dict[str, Any]]:
        """Remove what dead runs left half-way in a folder; the listing of the other files."""
        files = self.listing(folder)
        dead = [name for name, info in files.items() if _is_leftover(name, modified(info))]
        for name in dead:
            self.remove(name_in(folder, name))
            del files[name]
        return files


def _until_found(action: Callable[[], None]) -> Callable[[], None]:
    """What writes, where "not found" is an error that may pass: a store may lag behind."""

    def act() -> None:
        try:
            action()
        except FileNotFoundError as error:
            if _true_cause(error) is not error:
                raise
            raise OSError(f"the store says not found: {error}") from error

    return act


def name_in(folder: str, name: str) -> str:
    """The name in a store of a file in a folder; the store's own folder is ``""``."""
    return f"{folder}/{name}" if folder else name


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it."""
    from fsspec import filesystem, get_filesystem_class
    from fsspec.core import url_to_fs

    fresh = {"use_listings_cache": False}  # what others write meanwhile must be seen
    first, links = split_links(url)
    if links:
        on_servers = [each for each in READ_ONLY if f"::{each}://" in links]
        files, root = url_to_fs(url, **fresh, **{each: _patient() for each in on_servers})
        return files, str(root)
    # fsspec would take each :: in a name for the end of a link.
    scheme = split_url(first)[0]
    kind = get_filesystem_class(scheme)
    options = {**kind._get_kwargs_from_urls(url), **fresh}
    options |= _patient() if scheme in READ_ONLY else {}
    return filesystem(scheme, **options), str(kind._strip_protocol(url))


def _patient() -> dict[str, Any]:
    """Options of web servers: long songs, over slow lines, take longer than aiohttp's 5 minutes."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECTED, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": timeout}}


def _is_leftover(name: str, written: float | None) -> bool:
    """Whether a file is one that a run left half-way, which must be dead by now."""
    ours = name.startswith(PREFIX) and name.endswith(".part")
    return ours and written is not None and time.time() - written > FOREIGN_AGE


def _may_pass(error: Exception) -> bool:
    """Whether the same may work a moment later."""
    if isinstance(error, (PermissionError, NotADirectoryError, IsADirectoryError, ImportError)):
        return False
    status = getattr(error, "status", None)
    return not (isinstance(status, int) and 400 <= status < 500 and status not in PATIENT_STATUS)


def _without_query(text: str) -> str:
    """A message without signatures, and without users and passwords."""
    text = re.sub(r"(?<=://)[^\s/@'\"]+@", "", text)
    return re.sub(r"(\bhttps?://[^\s?'\"]+)\?[^\s'\")]*", r"\1", text)


def _check_download(path: Path, info: Mapping[str, Any]) -> None:
    """Compare a file with size and checksum, where its store says them."""
    size, expected = path.stat().st_size, info.get("size")
    if expected is not None and size != expected:
        raise OSError(f"{size} bytes came of {expected}")
    for name, value in _digests(info):
        with path.open("rb") as file:
            digest = file_digest(file, name)
        if digest != value.hex():
            raise OSError(f"its {name.upper()} is not what the server says")


def _digests(info: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Checksums of a whole file: of Google's store and of HTTP; an ETag is none for certain."""
    pairs = [("md5", str(info.get(name) or "")) for name in ("md5Hash", "Content-MD5")]
    for part in str(info.get("Digest") or "").split(","):
        name, _, value = part.strip().partition("=")
        known = {"sha-256": "sha256", "sha-512": "sha512", "md5": "md5"}.get(name.lower())
        if known:
            pairs.append((known, value))
    for name, value in pairs:
        with contextlib.suppress(binascii.Error, ValueError):
            if value:
                yield name, base64.b64decode(value, validate=True)


def version_of(info: Mapping[str, Any]) -> str | None:
    """What changes with the content; None if the store does not say."""
    keys = ("ETag", "etag", "md5Hash", "LastModified", "Last-Modified", "mtime", "updated")
    return next((str(info[key]) for key in (*keys, "created") if info.get(key)), None)


def modified(info: Mapping[str, Any]) -> float | None:
    """When a file was written, in seconds since 1970."""
    keys = ("LastModified", "Last-Modified", "mtime", "updated", "last_modified", "created")
    value = next((info[key] for key in keys if info.get(key)), None)
    with contextlib.suppress(ValueError, TypeError):
        if isinstance(value, str):
            iso = re.match(r"\d{4}-\d\d-\d\d", value)
            value = (
                datetime.fromisoformat(value.replace("Z", "+00:00"))
                if iso
                else parsedate_to_datetime(value)
            )
        if isinstance(value, datetime):
            aware = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
            return aware.timestamp()
        return None if value is None else float(value)
    return None
