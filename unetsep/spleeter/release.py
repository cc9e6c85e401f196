"""Deezer's release of Spleeter's models: downloaded, resumed, checked, imported."""

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
# SHA-256 of ``<name>.tar.gz``, from Spleeter's unit test.
ARCHIVES = {
    "2stems": "f3a90b39dd2874269e8b05a48a86745df897b848c61f3958efc80a39152bd692",
    "4stems": "3adb4a50ad4eb18c7c4d65fcf4cf2367a07d48408a5eb7d03cd20067429dfaa8",
    "5stems": "25a1e87eb5f75cc72a4d2d5467a0a50ac75f05611f877c278793742513cc7218",
}
PATTERN = re.compile(rf"spleeter-({'|'.join(ARCHIVES)})(?:-(16khz))?")
# The largest archive has 0.2 GB; a server that sends more is the wrong one.
MAX_BYTES, BLOCK, TIMEOUT = 1 << 30, 1 << 18, 30.0
NETWORK_ERRORS = (urllib.error.URLError, TimeoutError, ConnectionError, HTTPException, EOFError)
# Called with the downloaded bytes and those in total, or None.
DownloadProgress = Callable[[int, int | None], None]


def is_release(name: str) -> bool:
    """Whether a name is one of Spleeter's: ``spleeter-4stems``, ``spleeter-4stems-16khz``..."""
    return PATTERN.fullmatch(name) is not None


def get(
    name: str,
    *,
    source: Path | None = None,
    address: str | None = None,
    progress: DownloadProgress | None = None,
    on_wait: Callable[[], None] | None = None,
) -> Checkpoint:
    """The model of a name, downloaded and imported unless the user has an intact one.

    Parameters
    ----------
    name
        See `is_release`.
    source
        A package, archive or folder with the checkpoint, instead of a download.
    address
        URL to which ``/2stems.tar.gz`` and so on are appended; by default ``$UNETSEP_SPLEETER_URL``
        or `ADDRESS`.
    progress
        Called as bytes arrive.
    on_wait
        Called before waiting for another process that downloads the same archive.

    Raises
    ------
    WeightsError
        If it cannot be downloaded. The partial download is kept, and another call resumes it.
    """
    match = PATTERN.fullmatch(name)
    assert match, name
    imported = _imported(name)
    if imported is not None:
        return imported
    archive, band = match[1], match[2] or "11khz"
    with contextlib.ExitStack() as stack:
        try:
            # Processes for one archive wait for the first one, and find its imported model.
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
    """The user's model of a name, unless its file is missing or damaged."""
    entry = user_models().checkpoints.get(name)
    if entry is None or not entry.path.is_file() or file_sha256(entry.path) != entry.sha256:
        return None
    return entry


def download(
    archive: str, *, address: str | None = None, progress: DownloadProgress | None = None
) -> Path:
    """One of `ARCHIVES`, as ``<user folder>/downloads/<archive>.tar.gz``.

    Simultaneous downloads of one archive would damage each other's file: `get` prevents them.
    Proxies are those of the environment (``HTTPS_PROXY``, ``NO_PROXY``).

    Raises
    ------
    WeightsError
        If it cannot be downloaded, or has another SHA-256: then it is deleted.
    """
    url = f"{(address or os.environ.get(VARIABLE) or ADDRESS).rstrip('/')}/{archive}.tar.gz"
    if not url.startswith(("https://", "http://")):
        raise WeightsError(f"{url} is not the address of a server: expected https://...")
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise WeightsError(
            "the address of the mirror has a user name, and passwords are not supported: download "
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


def _fetch(url: str, partial: Path, progress: DownloadProgress | None) -> None:
    """Download a file, resuming from its partial file."""
    received = partial.stat().st_size if partial.exists() else 0
    headers = {"Range": f"bytes={received}-"} if received else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310
    try:
        # A new opener reads the current proxies.
        response: HTTPResponse = urllib.request.build_opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not received:
            raise
        return  # the partial file is complete
    with response, partial.open("ab") as file:
        if response.status != 206:  # the server sends the whole file
            file.truncate(0)
            received = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else received + int(length)
        _copy(response, file, received, total, progress)


def _copy(
    response: HTTPResponse,
    file: BinaryIO,
    received: int,
    total: int | None,
    progress: DownloadProgress | None,
) -> None:
    while block := _next_block(response):
        file.write(block)
        received += len(block)
        if received > MAX_BYTES:
            file.truncate(0)  # there is nothing to resume
            raise EOFError("it sends more than any model of Spleeter has")
        if progress is not None:
            progress(received, total)
    if total is not None and received < total:
        raise EOFError(f"it broke off after {received} of {total} bytes")


def _next_block(response: HTTPResponse) -> bytes:
    """The next bytes of a download.

    Raises
    ------
    ConnectionError
        For all errors of the network, to tell them from those of the disk.
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
    resumable = partial.exists() and partial.stat().st_size > 0
    cure = (
        "run the same command again to resume"
        if resumable
        else "check the connection (HTTPS_PROXY)"
    )
    return (
        f"{url} could not be downloaded: {reason}; {cure}, or get the file by hand and name it: "
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
