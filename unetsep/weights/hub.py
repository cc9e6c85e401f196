"""Checkpoints from the hub: cache, downloads, and the only boundary to its client.

huggingface_hub honours ``HF_HOME``, ``HF_ENDPOINT``, ``HF_HUB_OFFLINE`` and proxies. Its
client lets transport errors of other libraries through, and retries refused connections for
half a minute with a log line each. So here, and only here, every exception is caught, a single
cheap request goes first, and a stalled download times out.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import threading
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..stopwatch import Stopwatch
from ..storage import FULL
from .manifest import Checkpoint

# Timeouts in seconds for the hub's first answer, and for further bytes of a download.
ANSWER, STALL = 10.0, 30.0
DOWNLOAD_BLOCK = 1 << 14  # bytes: at half a kilobyte per second one still arrives in time


def cached_file(entry: Checkpoint) -> Path | None:
    """The checkpoint in the hub's cache, whether or not it is intact, or None.

    Raises
    ------
    WeightsError
        If the client cannot start.
    """
    try:
        from huggingface_hub.file_download import try_to_load_from_cache
    except ValueError as error:
        raise WeightsError(
            f"huggingface_hub cannot start: {error}; check the variables that begin with HF_"
        ) from error
    try:
        path = try_to_load_from_cache(entry.repo_id, entry.file, revision=entry.revision)
    except ValueError:  # an invalid name of a repository: the download will report it
        return None
    return Path(path) if isinstance(path, str) else None


def cache_folder() -> Path:
    """Folder of the downloads of the hub's client."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def fetch(entry: Checkpoint, *, guided: str = "") -> Path:
    """Path of a checkpoint in the hub's cache, downloaded if it is missing.

    Parameters
    ----------
    entry
        The checkpoint; its SHA-256 is compared before the path is returned, and files that
        differ are deleted from the cache.
    guided
        For messages: the model that needs it as a guide, if any.

    Raises
    ------
    WeightsError
        If it cannot be downloaded; the message says what, from where, and what to do.
    """
    return _fetch(entry, guided)[0]


def read(entry: Checkpoint, *, guided: str = "") -> bytes:
    """The content of a checkpoint, from the cache or the hub: exactly the verified bytes.

    Parameters and errors are those of `fetch`.
    """
    return _fetch(entry, guided)[1]


def _fetch(entry: Checkpoint, guided: str) -> tuple[Path, bytes]:
    by_hand = _by_hand(entry, guided)
    path = cached_file(entry)
    if path is None:
        path = _download(entry, by_hand)
    try:
        content = path.read_bytes()
    except OSError as error:  # another process may have deleted it
        cure = "delete this folder" if path.is_dir() else "try again"
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}; {cure}, or {by_hand}"
        ) from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != entry.sha256:
        try:
            remove(path)
        except OSError as error:
            outcome = f"could not be deleted: {error.strerror} ({path}); delete it"
        else:
            outcome = "was deleted, try again later"
        raise WeightsError(
            f"{entry.file} from {_where(entry)} was damaged or replaced: its SHA-256 is "
            f"{sha256[:12]}..., the manifest says {entry.sha256[:12]}...; it {outcome} or {by_hand}"
        )
    return path, content


def remove(path: Path) -> None:
    """Delete a cached file: the snapshot's link to it, and the blob.

    The hub chooses the blob's name, and so the link's target: no file elsewhere is deleted.

    Raises
    ------
    OSError
        If it cannot be deleted: a cache that several users share may be read-only.
    """
    blob, blobs = path.resolve(), path.parents[2] / "blobs"  # beside snapshots/<revision>/<file>
    if blob.parent == blobs.resolve():
        blob.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _download(entry: Checkpoint, by_hand: str) -> Path:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise WeightsError(
            f"{entry.file} of {entry.repo_id} is not in {cache_folder()} and HF_HUB_OFFLINE is "
            f"set: unset it, or {by_hand}"
        )
    try:
        with _client_settings():
            return _bounded(entry)
    except Exception as error:  # the boundary: anything may come out of the client
        cure = (
            f"free or choose a folder for downloads (HF_HOME; now {cache_folder()})"
            if _is_of_storage(error)
            else "check the connection (HTTPS_PROXY, HF_ENDPOINT)"
        )
        raise WeightsError(
            f"{entry.file} could not be downloaded from {_where(entry)}: {_reason(error)}; {cure}, "
            f"or {by_hand}"
        ) from error


_settings_lock = threading.Lock()


@contextlib.contextmanager
def _client_settings() -> Iterator[None]:
    """Small blocks, so that slow progress shows, and no log of retries; then as before.

    They are the whole process's, so its downloads wait for each other.
    """
    from huggingface_hub import constants

    logger = logging.getLogger("huggingface_hub")
    with _settings_lock:
        level, size = logger.level, constants.DOWNLOAD_CHUNK_SIZE
        logger.setLevel(logging.ERROR)
        constants.DOWNLOAD_CHUNK_SIZE = DOWNLOAD_BLOCK
        try:
            yield
        finally:
            logger.setLevel(level)
            constants.DOWNLOAD_CHUNK_SIZE = size


def _bounded(entry: Checkpoint) -> Path:
    """Download in a thread that is abandoned when no more bytes arrive.

    The client's progress bar shows that bytes arrive. Before version 1.0 the bar cannot be
    replaced, and the growing file shows it. Both move only after complete blocks.
    """
    import huggingface_hub

    get = huggingface_hub.hf_hub_download
    result: list[Path | Exception] = []
    progress = threading.Event()
    size = 0

    base: Any = huggingface_hub.utils.tqdm  # type: ignore[attr-defined]

    class Bar(base):  # type: ignore[misc]
        def update(self, n: float | None = 1) -> bool | None:
            progress.set()
            refreshed: bool | None = super().update(n)
            return refreshed

    def work() -> None:
        try:
            url = huggingface_hub.hf_hub_url(entry.repo_id, entry.file, revision=entry.revision)
            # One request without retries, which detects an unreachable hub at once.
            huggingface_hub.get_hf_file_metadata(url, timeout=ANSWER)
            progress.set()
            bar: Any = {"tqdm_class": Bar} if "tqdm_class" in signature(get).parameters else {}
            result.append(Path(get(entry.repo_id, entry.file, revision=entry.revision, **bar)))
        except Exception as error:
            result.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    watch, last_progress = Stopwatch(), 0.0
    while worker.is_alive():
        worker.join(0.1)
        seconds = watch.look()
        old_size, size = size, _received_bytes(entry)
        if progress.is_set() or size != old_size:
            progress.clear()
            last_progress = seconds
        if seconds - last_progress > STALL:
            raise TimeoutError(f"no data for {STALL:.0f} s")
    if isinstance(result[0], Exception):
        raise result[0]
    return result[0]


def _received_bytes(entry: Checkpoint) -> int:
    """Bytes in unfinished files of a repository in the client's cache."""
    from huggingface_hub.file_download import repo_folder_name

    blobs = cache_folder() / repo_folder_name(repo_id=entry.repo_id, repo_type="model") / "blobs"
    with contextlib.suppress(OSError):  # it is complete and is being renamed
        return sum(path.stat().st_size for path in blobs.glob("*.incomplete"))
    return 0


def _is_of_storage(error: Exception) -> bool:
    """Whether an error comes from the disk; those of the connection name no file."""
    if isinstance(error, UnicodeDecodeError):  # of a damaged file of the cache
        return True
    numbers = (*FULL, errno.EIO, errno.ESTALE, errno.EFBIG)  # of open files, without a name
    return isinstance(error, OSError) and (error.filename is not None or error.errno in numbers)


def _reason(error: Exception) -> str:
    """One line about an error of unknown origin."""
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status is not None:
        meanings = {
            401: "access denied",
            403: "access denied",
            404: "not found there",
            429: "too many requests, try again later",
        }
        return f"HTTP status {status}" + (f" ({meanings[status]})" if status in meanings else "")
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def _where(entry: Checkpoint) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{entry.repo_id} (revision {entry.revision})"


def _by_hand(entry: Checkpoint, guided: str) -> str:
    if guided:
        return (
            f"download {entry.file} and the file of {guided} by hand into one folder, and name the "
            "path of the second: --model PATH"
        )
    return f"download {entry.file} by hand and name its path: --model PATH"
