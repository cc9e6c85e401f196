"""Deezer's own release of Spleeter's models: got from its address, resumed, checked, imported."""

from __future__ import annotations

import contextlib
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import BinaryIO

from ..errors import WeightsError
from ..locks import locked
from ..storage import file_sha256, user_folder
from ..weights.manifest import Checkpoint, user_models
from .convert import import_spleeter

ADDRESS = "https://github.com/deezer/spleeter/releases/download/v1.4.0"
# Overrides `ADDRESS`, for mirrors.
VARIABLE = "UNETSEP_SPLEETER_URL"
# SHA-256 of ``<name>.tar.gz``, as Spleeter's own unit test has them.
ARCHIVES = {
    "2stems": "f3a90b39dd2874269e8b05a48a86745df897b848c61f3958efc80a39152bd692",
    "4stems": "3adb4a50ad4eb18c7c4d65fcf4cf2367a07d48408a5eb7d03cd20067429dfaa8",
    "5stems": "25a1e87eb5f75cc72a4d2d5467a0a50ac75f05611f877c278793742513cc7218",
}
PATTERN = re.compile(rf"spleeter-({'|'.join(ARCHIVES)})(?:-(16khz))?")
# The largest has 0.2 GB; a server that sends more is not the one that was meant.
MAX_BYTES, BLOCK, TIMEOUT = 1 << 30, 1 << 18, 30.0
NETWORK_ERRORS = (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException, EOFError)
# Called with the bytes that are there and those in total, or None.
Downloaded = Callable[[int, int | None], None]


def is_release(name: str) -> bool:
    """Whether a name is one of Spleeter's: ``spleeter-4stems``, ``spleeter-4stems-16khz``..."""
    return PATTERN.fullmatch(name) is not None


def get(
    name: str,
    *,
    source: Path | None = None,
    address: str | None = None,
    progress: Downloaded | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Checkpoint:
    """The model of a name, downloaded and imported unless the user has it intact.

    Parameters
    ----------
    name
        See `is_release`.
    source
        A package, archive or folder that has the checkpoint, instead of a download.
    address
        What ``/2stems.tar.gz`` and so on are appended to; by default ``$UNETSEP_SPLEETER_URL``
        or `ADDRESS`.
    progress
        Called as bytes arrive.
    on_wait
        Called if another process is getting the same archive, before waiting for its end.

    Raises
    ------
    WeightsError
        If it cannot be had. What was downloaded by then is kept, and a further call resumes.
    """
    match = PATTERN.fullmatch(name)
    assert match, name
    imported = _imported(name)
    if imported is not None:
        return imported
    archive, band = match[1], match[2] or "11khz"
    with contextlib.ExitStack() as stack:
        try:
            # Processes that want one archive wait for the first, and find what it imported.
            path = user_folder() / f"{archive}.tar.gz"
            stack.enter_context(locked(path, on_wait=on_wait))
        except OSError as error:
            raise WeightsError(f"{user_folder()} cannot be written to: {error.strerror}") from error
        imported = _imported(name)
        if imported is not None:
            return imported
        path = source or download(archive, address=address, progress=progress)
        entry = import_spleeter(path, name=name, band=band, stems=int(archive[0]), overwrite=True)
        if source is None:
            path.unlink(missing_ok=True)
        return entry


def _imported(name: str) -> Checkpoint | None:
    """The user's model of a name, unless its file is gone or damaged."""
    entry = user_models().checkpoints.get(name)
    if entry is None or not entry.path.is_file() or file_sha256(entry.path) != entry.sha256:
        return None
    return entry


def download(
    archive: str, *, address: str | None = None, progress: Downloaded | None = None
) -> Path:
    """One of `ARCHIVES`, as ``<user folder>/downloads/<archive>.tar.gz``.

    Two downloads of one archive at a time would spoil each other's file: `get` sees to it.
    Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``).

    Raises
    ------
    WeightsError
        If it cannot be had, or has another SHA-256: it is deleted then.
    """
    url = f"{(address or os.environ.get(VARIABLE) or ADDRESS).rstrip('/')}/{archive}.tar.gz"
    if not url.startswith(("https://", "http://")):
        raise WeightsError(f"{url} is no address of a server: expected https://...")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise WeightsError(
            "the address of the mirror holds a user, whose password cannot be sent: get "
            f"{archive}.tar.gz by hand and name it: --from FILE"
        )
    folder = user_folder() / "downloads"
    path = folder / f"{archive}.tar.gz"
    partial = path.with_name(f"{path.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            _fetch(url, partial, progress)
            partial.replace(path)
    except (ValueError, InvalidURL) as error:
        raise WeightsError(
            f"{url} could not be downloaded: {error}; check the address (--url, {VARIABLE}) "
            "and that of the proxy (HTTPS_PROXY)"
        ) from error
    except NETWORK_ERRORS as error:
        raise WeightsError(_failure(url, error, partial)) from error
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written to: {error.strerror}") from error
    _check(path, url, ARCHIVES[archive])
    return path


def _fetch(url: str, partial: Path, progress: Downloaded | None) -> None:
    """The rest of a file, after what a call before this got of it."""
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
    try:
        # An opener of its own reads the proxies of now.
        response: HTTPResponse = urllib.request.build_opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416:  # nothing is left to send
            raise
        return
    with response, partial.open("ab") as file:
        if response.status != 206:  # it sends all of it
            file.truncate(0)
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        _copy(response, file, done, total, progress)


def _copy(
    response: HTTPResponse,
    file: BinaryIO,
    done: int,
    total: int | None,
    progress: Downloaded | None,
) -> None:
    while block := _received(response):
        file.write(block)
        done += len(block)
        if done > MAX_BYTES:
            raise EOFError("it sends more than any model of Spleeter has")
        if progress is not None:
            progress(done, total)
    if total is not None and done < total:
        raise EOFError(f"it broke off after {done} of {total} bytes")


def _received(response: HTTPResponse) -> bytes:
    """The next bytes.

    Raises
    ------
    ConnectionError
        For all that the network may do, none of which is the fault of the disk.
    """
    try:
        return response.read(BLOCK)
    except OSError as error:
        raise ConnectionError(str(error)) from error


def _failure(url: str, error: Exception, partial: Path) -> str:
    if isinstance(error, urllib.error.HTTPError):
        reason = f"HTTP status {error.code}"
    else:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
    kept = partial.exists() and partial.stat().st_size > 0
    again = "run the same command again to resume" if kept else "check the connection (HTTPS_PROXY)"
    return (
        f"{url} could not be downloaded: {reason}; {again}, or get the file by hand and name it: "
        "--from FILE"
    )


def _check(path: Path, url: str, expected: str) -> None:
    sha256 = file_sha256(path)
    if sha256 != expected:
        path.unlink()
        raise WeightsError(
            f"{url} was damaged or replaced: its SHA-256 is {sha256[:12]}..., "
            f"expected {expected[:12]}...; it was deleted, try again later"
        )
