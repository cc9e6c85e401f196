"""Files at a URL: read, written and renamed through fsspec, with retries."""

from __future__ import annotations

import contextlib
import random
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from ..audio.staging import FOREIGN_AGE
from ..drives import real_path
from ..errors import UnetsepError, how_to_install
from ..storage import PREFIX, file_digest, file_sha256
from .file_info import check_download, modified
from .urls import (
    BUCKETS,
    LOCAL,
    READ_ONLY,
    public_url,
    split_links,
    split_url,
    web_path,
    without_secrets,
)

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

# Attempts of a transfer, and seconds before the second one; the pause doubles, with jitter, so
# that twenty machines do not retry at the same moment.
ATTEMPTS = 5
PAUSE = 1.0
# Longest wait in seconds that a server may ask for.
LONGEST_PAUSE = 60.0
# Folders in a row that a server fails to list before the others are no longer asked for.
FAILURES = 5
# HTTP statuses from 400 to 499 that are worth a retry; the others are final.
PATIENT_STATUS = (408, 429)
# HTTP statuses of files that do not exist.
ABSENT_STATUS = (404, 410)

# Seconds until a web server must answer, and until it must send more of a file.
CONNECT_TIMEOUT, READ_TIMEOUT = 30.0, 300.0

Result = TypeVar("Result")


class TransferError(UnetsepError):
    """A file at a URL that could not be read or written."""


class AbsentError(TransferError):
    """A file at a URL that does not exist."""


def _true_cause(error: Exception) -> Exception:
    """The cause of an error: fsspec says "not found" even of an unreachable server."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception):
        status = getattr(cause, "status", None)
        of_connection = status is not None or isinstance(cause, _connection_errors())
        if of_connection and status not in ABSENT_STATUS:
            return cause
    return error


def _connection_errors() -> tuple[type[Exception], ...]:
    """Errors of servers and connections to them."""
    try:
        from aiohttp import ClientError
    except ImportError:  # needed by web servers alone
        return (OSError,)
    return (OSError, ClientError)


class Store:
    """A file or folder at a URL; every call is retried several times.

    Parameters
    ----------
    url
        In any scheme that fsspec knows.

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
        except (ValueError, OSError) as error:  # some file systems connect at once
            words = without_secrets(" ".join(str(error).split()))
            raise UnetsepError(f"{self.url} cannot be opened: {words}") from error
        self.root: str = root.rstrip("/")
        self._leftovers: dict[str, list[str]] = {}  # partial files of dead runs, by folder

    def check_bucket(self) -> None:
        """Check that the bucket exists: unetsep does not create buckets.

        Raises
        ------
        UnetsepError
            If there is no such bucket.
        """
        if self.scheme not in BUCKETS:
            return
        bucket = self.root.lstrip("/").partition("/")[0]
        try:
            self.files.info(bucket)
        except FileNotFoundError as error:
            if _true_cause(error) is error:
                raise UnetsepError(
                    f"{self.url} cannot be written to: there is no bucket {bucket}; create it "
                    "first, or correct its name"
                ) from error
        except Exception:  # such as missing rights to list: the first song will show
            return

    def at(self, name: str) -> str:
        """The path of a file in the folder; for an empty name that of the folder."""
        return f"{self.root}/{name}" if name else self.root

    def place_in(self, other: Store) -> str | None:
        """Path of the folder within another one, however the two are written.

        Returns
        -------
        str or None
            Empty for the other one itself; None if it lies elsewhere.
        """
        # fsspec has two file systems for a server with a user and one without.
        same_server = (
            self.files == other.files or split_url(self.url)[:2] == split_url(other.url)[:2]
        )
        parent, folder = other._true_root, self._true_root
        if not same_server or not f"{folder}/".startswith(f"{parent}/"):
            return None
        return folder[len(parent) + 1 :]

    @property
    def _true_root(self) -> str:
        """The root without links if it is local, so that it is the same for all of its names."""
        if self.scheme not in LOCAL:
            return self.root
        return real_path(Path(self.root or "/")).as_posix().rstrip("/")

    def retry(
        self,
        name: str,
        participle: str,
        action: Callable[[], Result],
        *,
        attempts: int | None = None,
    ) -> Result:
        """Run an action on a file, and retry it after errors that may pass.

        Parameters
        ----------
        name
            Of the file; empty for the folder.
        participle
            Of the action, for the message: ``"read"``.
        action
            What to run.
        attempts
            At most; by default those of the store.

        Raises
        ------
        AbsentError
            If the file does not exist.
        TransferError
            If the last attempt fails.
        """
        place, attempt = f"{self.url}/{name}" if name else self.url, 1
        attempts = attempts or self.attempts
        while True:
            try:
                return action()
            except Exception as raised:  # fsspec lets errors of aiohttp and others through
                error = _true_cause(raised)
                if isinstance(error, FileNotFoundError):
                    raise AbsentError(f"{place} does not exist") from error
                if not _may_pass(error) or attempt >= attempts:
                    words = " ".join(str(error).split())
                    if not getattr(error, "message", words):  # such as too many redirections
                        words = type(error).__name__
                    raise TransferError(
                        f"{place} could not be {participle}: {without_secrets(words)}"
                    ) from error
            pause = PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
            time.sleep(max(pause, _requested_pause(error)))
            attempt += 1

    def info(self, name: str = "") -> dict[str, Any]:
        """The store's metadata of a file."""
        return self.retry(name, "looked up", lambda: dict(self.files.info(self.at(name))))

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if it does not exist."""
        try:
            return bytes(self.retry(name, "read", lambda: self.files.cat_file(self.at(name))))
        except AbsentError:
            return None

    def listing(self, name: str) -> dict[str, dict[str, Any]]:
        """The files of one folder, by their names; none if there is no such folder."""
        path = self.at(name)

        def list_files() -> list[dict[str, Any]]:
            if name and self.scheme in BUCKETS:
                # Their `ls` of a folder that does not exist lists its neighbours.
                files = self.files.find(f"{path}/", detail=True).values()
                return [file for file in files if file["name"].rpartition("/")[0] == path]
            return list(self.files.ls(path, detail=True))

        try:
            entries = self.retry(name, "listed", list_files)
        except AbsentError:
            return {}
        return {PurePosixPath(e["name"]).name: e for e in entries if e["type"] != "directory"}

    def files_below(self, on_error: Callable[[str, str], None]) -> list[str]:
        """Paths, or URLs, of all files in the folder and those below, and of hidden folders.

        Parameters
        ----------
        on_error
            Called with each folder below that cannot be listed, and the message.
        """
        top = f"{self.root}/"
        if self.scheme in BUCKETS or self._overrides("find"):  # with one request, or an index
            return list(self.retry("", "listed", lambda: self.files.find(top)))
        # Not fsspec's default `find`: it omits folders that cannot be listed. On the web it also
        # omits files that have one name in two folders to which a page links, and follows circles.
        files, folders, searched = set(), [top], {top}
        failures = 0  # in a row
        while folders:
            folder = folders.pop()
            if failures == FAILURES:
                place = f"{self.url}/{self._name_of(folder)}"
                on_error(folder, f"{place} could not be listed: {failures} others failed in a row")
                continue
            try:  # a server that has just failed is asked once, as each retry takes a pause
                paths = self._paths_in(folder, 1 if failures else self.attempts)
            except TransferError as error:
                if folder == top:
                    raise
                if not isinstance(error, AbsentError):
                    on_error(folder, str(error))
                    failures += _may_pass(error.__cause__)
                continue
            failures = 0
            for path in paths - searched:
                if path.endswith("/"):
                    folders.append(path)
                    searched.add(path)
                else:
                    files.add(path)
        return list(files)

    def _name_of(self, folder: str) -> str:
        """The name of a folder by its path, or URL."""
        is_web = self.scheme in READ_ONLY
        path, root = (web_path(folder), web_path(self.root)) if is_web else (folder, self.root)
        return path.removeprefix(root).strip("/")

    def _paths_in(self, folder: str, attempts: int) -> set[str]:
        """Paths, or URLs, in one folder; those of folders to search end with a slash."""
        is_web, path = self.scheme in READ_ONLY, self.files._strip_protocol(folder)
        entries = self.retry(
            self._name_of(folder),
            "listed",
            lambda: self.files.ls(path, detail=True),
            attempts=attempts,
        )
        paths = set()
        for entry in entries:
            parts = entry["name"].rstrip("/").split("/")
            is_folder = entry["type"] == "directory"
            if is_web:
                if is_folder and ".." in parts:
                    continue
                parts = [part for part in parts if part != "."]
                is_folder &= not re.search("[?#]", entry["name"])
            is_folder &= not parts[-1].startswith(".")
            paths.add("/".join(parts) + "/" * is_folder)
        return paths

    def fetch(self, path: Path, info: Mapping[str, Any]) -> None:
        """Download the file at the URL, and compare it with the store's size and checksum."""

        def download() -> None:
            self.files.get_file(self.root, str(path))
            check_download(path, info)

        path.parent.mkdir(parents=True, exist_ok=True)
        self.retry("", "downloaded", download)

    def put(self, source: Path, name: str) -> None:
        """Upload a file and read it back; only this run uses its name."""

        def upload() -> None:
            try:
                self.files.put_file(str(source), self.at(name))
            except FileNotFoundError:  # of a store with real folders
                if self.scheme in BUCKETS:  # where this would create a bucket
                    raise
                self.files.makedirs(self.at(name).rpartition("/")[0], exist_ok=True)
                self.files.put_file(str(source), self.at(name))
            if self._digest(name) != digest:
                raise OSError("the uploaded file reads back differently")

        digest = file_sha256(source)
        self.retry(name, "uploaded", _retrying_absent(upload))

    def _digest(self, name: str) -> str:
        with self.files.open(self.at(name), "rb") as file:
            return file_digest(file)

    def publish(self, source: Path, name: str) -> None:
        """Upload a file under a temporary name and rename it when it is complete."""
        folder, _, last = name.rpartition("/")
        partial = name_in(folder, f"{PREFIX}{secrets.token_hex(6)}-{last}.part")
        try:
            self.put(source, partial)
            self.rename(partial, name, source)
        except BaseException:
            self.remove(partial)
            raise

    def rename(self, name: str, new: str, source: Path) -> None:
        """Rename a file, and replace any file of the new name.

        Parameters
        ----------
        name, new
            Its names in the store.
        source
            The same file on this machine.
        """

        def rename() -> None:
            try:
                self._move(self.at(name), self.at(new))
            except FileNotFoundError:  # the last attempt worked after all, or it was removed
                if self._digest(new) != file_sha256(source):
                    raise
            self.files.info(self.at(new))

        self.retry(new, "written", _retrying_absent(rename))

    def _overrides(self, method: str) -> bool:
        """Whether the file system has a method of its own in place of fsspec's default."""
        from fsspec import AbstractFileSystem

        own: object = getattr(type(self.files), method)
        return own is not getattr(AbstractFileSystem, method)

    def _move(self, path: str, new: str) -> None:
        if self._overrides("mv"):  # the store can rename
            self.files.mv(path, new)
            return
        # The default `mv` takes [, * and ? in names for patterns.
        self.files.cp_file(path, new)
        self.files.rm_file(path)

    def remove(self, name: str) -> None:
        """Remove a file; errors are ignored."""
        with contextlib.suppress(Exception):  # the error that led here matters more
            self.files.rm_file(self.at(name))

    def remove_leftovers(self, folder: str) -> None:
        """Remove the partial files of dead runs that the first look at a folder found."""
        for name in self._leftovers.get(folder, ()):
            self.remove(name_in(folder, name))
        self._leftovers[folder] = []

    def look(self, folder: str, names: Iterable[str]) -> dict[str, dict[str, Any]]:
        """The metadata of those files among some that a folder has, perhaps of others, too.

        The first time the folder is listed, and partial files of dead runs are noted. Later each
        file is looked up: to list the stems of all songs for every song would take too long.
        """
        if folder not in self._leftovers:
            files = self.listing(folder)
            dead = [name for name, info in files.items() if _is_leftover(name, modified(info))]
            self._leftovers[folder] = dead
            return {name: info for name, info in files.items() if name not in dead}
        infos = {}
        for name in names:
            with contextlib.suppress(AbsentError):
                infos[name] = self.info(name_in(folder, name))
        return {name: info for name, info in infos.items() if info["type"] != "directory"}


def _retrying_absent(action: Callable[[], None]) -> Callable[[], None]:
    """A writing action that turns "not found" into an error to retry: stores may lag behind."""

    def act() -> None:
        try:
            action()
        except FileNotFoundError as error:
            if _true_cause(error) is not error:
                raise
            raise OSError(f"the store says not found: {error}") from error

    return act


def name_in(folder: str, name: str) -> str:
    """The name in a store of a file in a folder; ``""`` is the store's top folder."""
    return f"{folder}/{name}" if folder else name


def _open(url: str) -> tuple[AbstractFileSystem, str]:
    """The file system of a URL, and the path in it."""
    from fsspec import filesystem, get_filesystem_class
    from fsspec.core import url_to_fs

    fresh = {"use_listings_cache": False}  # to see files that others write meanwhile
    link, links = split_links(url)
    if links:
        schemes = [scheme for scheme in READ_ONLY if f"::{scheme}://" in links]
        files, root = url_to_fs(url, **fresh, **{scheme: _timeouts() for scheme in schemes})
        return files, str(root)
    # `url_to_fs` would take each :: in a name for the end of a link.
    scheme = split_url(link)[0]
    kind = get_filesystem_class(scheme)
    options = {**kind._get_kwargs_from_urls(url), **fresh}
    options |= _timeouts() if scheme in READ_ONLY else {}
    return filesystem(scheme, **options), str(kind._strip_protocol(url))


def _timeouts() -> dict[str, Any]:
    """Options for web servers: long songs may exceed aiohttp's default limit of 5 minutes."""
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
    return {"client_kwargs": {"timeout": timeout}}


def _is_leftover(name: str, seconds: float | None) -> bool:
    """Whether a file, with its time since 1970, is a partial one of a run that must be dead."""
    partial = name.startswith(PREFIX) and name.endswith(".part")
    return partial and seconds is not None and time.time() - seconds > FOREIGN_AGE


def _may_pass(error: BaseException | None) -> bool:
    """Whether a retry may succeed."""
    if isinstance(error, (PermissionError, NotADirectoryError, IsADirectoryError, ImportError)):
        return False
    status = getattr(error, "status", None)
    return not (isinstance(status, int) and 400 <= status < 500 and status not in PATIENT_STATUS)


def _requested_pause(error: Exception) -> float:
    """Seconds that a server asks to wait before a retry (RFC 9110, section 10.2.3), or 0."""
    headers = getattr(error, "headers", None) or {}
    text = str(headers.get("Retry-After", ""))
    with contextlib.suppress(ValueError, TypeError, OverflowError, OSError):  # of Windows, too
        now, number = time.time(), text.isdecimal()
        seconds = int(text) if number else parsedate_to_datetime(text).timestamp() - now
        return min(max(seconds, 0.0), LONGEST_PAUSE)
    return 0.0
