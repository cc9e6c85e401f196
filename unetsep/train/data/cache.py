"""Stems decoded once into memory-mapped int16 files.

A recording becomes ``<cache>/<key>.npy``, int16 ``(stems, samples, 2)``, and ``<key>.json`` with
the stems' names and levels. The key is a hash of the files' content, and `CACHE_VERSION`. A file
appears under its name only when it is complete, and each recording has a lock of its own. So
decoding can be interrupted, repeated, or shared by several processes. Reading from a complete
cache imports no decoder.
Files of other versions stay: a run of such a version may have them open.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ...errors import AudioError
from ...locations import as_path
from ...locks import HeldError, held
from ...storage import FULL, file_sha256, open_atomically, write_atomically
from ...unfinished import as_they_end
from .recording import LEVEL_BLOCK, Recording, block_levels
from .sources import Source, listed_name

# Raise this when the same files are decoded differently.
CACHE_VERSION = 3
# The version in which runs began to note contents, whose notes later versions compare.
CONTENT_VERSION = 2
# Files that may be open besides the recordings.
OTHER_FILES = 1024
DecodingProgress = Callable[[int, int], None]


def load(
    sources: Sequence[Source],
    cache: str | Path,
    *,
    progress: DecodingProgress | None = None,
    jobs: int | None = None,
) -> list[Recording]:
    """Recordings of all sources, decoding those that the cache does not have.

    Parameters
    ----------
    sources
        See `unetsep.train.data.sources`.
    cache
        Folder for the decoded stems; about 10 MB for each stem and minute.
    progress
        Called with how many recordings are decoded and how many there are.
    jobs
        Sources decoded at once; by default one for each core, at most four.

    Raises
    ------
    AudioError
        If files cannot be decoded (everything else is decoded first), or the disk is full.
    """
    folder = as_path(cache, "cache")
    keys = [_key(content) for content in _contents(sources, folder)]
    missing = [i for i, key in enumerate(keys) if not (folder / f"{key}.json").exists()]
    decoded, failures = len(sources) - len(missing), []
    if progress:
        progress(decoded, len(sources))
    # The second round waits for what another process was decoding during the first.
    for wait in (False, True):
        pool = ThreadPoolExecutor(jobs or min(4, os.cpu_count() or 1))
        futures = {pool.submit(_add, sources[i], folder, keys[i], wait): i for i in missing}
        missing = []
        try:
            for future in as_they_end(futures):
                number = futures[future]
                try:
                    is_complete = future.result()
                except AudioError as error:
                    failures.append(f"{sources[number].name}: {error}")
                    continue
                except OSError as error:
                    raise AudioError(_disk_error(error, folder, decoded, len(sources))) from error
                if is_complete:
                    decoded += 1
                else:
                    missing.append(number)
                if progress:
                    progress(decoded, len(sources))
        finally:
            pool.shutdown(cancel_futures=True)  # after Ctrl-C, too, no other recording is begun
    if failures:
        raise AudioError(
            f"{len(failures)} of {len(sources)} recordings cannot be decoded, repair or remove "
            f"them (the others are in the cache): {'; '.join(sorted(failures)[:5])}"
        )
    _allow_files(len(sources))
    return [_open(source, folder, key) for source, key in zip(sources, keys, strict=True)]


def _allow_files(recordings: int) -> None:
    """Let this process, and those it starts, open the files of this many recordings.

    A memory map keeps its file open. Systems allow 256 (macOS) or 1024 open files, a limit that
    each process may raise. If it cannot, `_open` reports it.
    """
    try:
        import resource
    except ImportError:  # Windows, where there is none
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A process that reads clips of a recording maps it once for each of a few views.
    limit = OTHER_FILES + 4 * recordings
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with contextlib.suppress(OSError, ValueError):  # macOS refuses more than its kernel has
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _disk_error(error: OSError, folder: Path, decoded: int, total: int) -> str:
    if error.errno in FULL:
        return (
            f"the disk of {folder} is full after {decoded} of {total} recordings, which remain "
            "there: free some space or choose another --cache, and start again"
        )
    return f"cannot write to the cache {folder}: {error}"


def _add(source: Source, folder: Path, key: str, wait: bool) -> bool:
    """Decode a source unless the cache has it; False if another process is decoding it."""
    text, lock, has_lock = folder / f"{key}.json", folder / f"{key}.lock", False
    try:
        with held(lock, patience=math.inf if wait else 0.0):
            has_lock = True
            if not text.exists():
                from .decode import decode

                names, pcm = decode(source)
                with open_atomically(folder / f"{key}.npy") as file:
                    save_array(file, pcm)
                levels = block_levels(pcm).tolist()
                content = json.dumps({"stems": names, "block": LEVEL_BLOCK, "levels": levels})
                write_atomically(text, content)
    except HeldError:
        return False
    finally:
        if has_lock:
            # Windows removes no file that another process, waiting for the lock, has open.
            with contextlib.suppress(OSError):
                lock.unlink()
    return True


def save_array(file: BinaryIO, pcm: npt.NDArray[np.int16]) -> None:
    """Write a C-ordered array like `numpy.save`, which hides the reason of a disk's error."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(pcm))
    file.write(pcm.data)


def _open(source: Source, folder: Path, key: str) -> Recording:
    try:
        info = json.loads((folder / f"{key}.json").read_text())
        pcm = np.load(folder / f"{key}.npy", mmap_mode="r")
        levels = np.asarray(info["levels"], np.float32)
        names = tuple(info["stems"])
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise AudioError(
                f"the system lets this process open no more recordings ({error.strerror}): raise "
                "its limit, such as by ulimit -n 65536, or name fewer songs"
            ) from error
        if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
            place = error.filename or folder / f"{key}.*"
            raise AudioError(
                f"the cache of {source.name} cannot be read: {error.strerror} ({place})"
            ) from error
        raise AudioError(
            f"the cache of {source.name} is damaged: remove {folder / key}.* and start again"
        ) from error
    return Recording(
        name=source.name,
        origin=source.origin,
        split=source.split,
        names=names,
        pcm=pcm,
        levels=levels,
        silent=source.silent,
        extra=source.extra,
        path=folder / f"{key}.npy",
        weight=source.weight,
    )


def distinct(
    sources: Sequence[Source], cache: str | Path, songs: Collection[str] = ()
) -> tuple[list[Source], list[tuple[Source, Source]]]:
    """Sources without duplicates, whose files are all among those of another source.

    Of two the one for validation stays, so that no run trains on it under another name. Otherwise
    the one with more files, with more stems known to be silent, that is no extra, or the first.
    Two recordings that share only some of their files both stay: a song in two stems and in four.

    Parameters
    ----------
    sources, cache
        See `load`.
    songs
        Names of duplicates that stay, because a run that is resumed began with them.

    Returns
    -------
    list of Source
        Those that stay, in their order.
    list of tuple of Source and Source
        Each duplicate, and the source that stays instead.
    """
    contents = [frozenset(content) for content in _contents(sources, as_path(cache, "cache"))]
    names = [listed_name(source) for source in sources]
    order = sorted(
        range(len(sources)),
        key=lambda i: (
            names[i] not in songs,
            sources[i].split != "valid",
            -len(contents[i]),
            -len(sources[i].silent),
            sources[i].extra,
        ),
    )
    # Thousands of songs may share a file of silence. So sources with all files of another, and
    # those whose files another has, are looked up by the file that the fewest sources have.
    uses = Counter(itertools.chain.from_iterable(contents))
    by_part: dict[tuple[str, str], list[int]] = {}  # those that stay, by stem and content of a file
    by_rarest: dict[tuple[str, str], list[int]] = {}
    duplicates: dict[int, int] = {}
    for number in order:
        parts = sorted(contents[number], key=lambda part: (uses[part], part))
        supersets = (o for o in by_part.get(parts[0], ()) if contents[number] <= contents[o])
        subsets = (
            o for p in parts for o in by_rarest.get(p, ()) if contents[o] <= contents[number]
        )
        # A run's lists cannot tell two songs of one name apart.
        original = next(
            (
                other
                for other in itertools.chain(supersets, subsets)
                if names[number] not in songs or names[number] == names[other]
            ),
            None,
        )
        if original is not None:
            duplicates[number] = original
            continue
        by_rarest.setdefault(parts[0], []).append(number)
        for part in parts:
            by_part.setdefault(part, []).append(number)
    unique = [source for number, source in enumerate(sources) if number not in duplicates]
    return unique, [(sources[number], sources[duplicates[number]]) for number in sorted(duplicates)]


def _contents(sources: Sequence[Source], folder: Path) -> list[list[tuple[str, str]]]:
    """The stem and the content's hash of each file of each source, by stem and path."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [
            [(stem, content_hash(path, folder / "hashes")) for stem, path in sorted(source.parts)]
            for source in sources
        ]
    except OSError as error:
        raise AudioError(f"cannot prepare the cache {folder}: {error}") from error


def _key(content: Sequence[tuple[str, str]]) -> str:
    digest = hashlib.sha256(json.dumps([CONTENT_VERSION, LEVEL_BLOCK]).encode())
    for stem, file_hash in content:
        digest.update(f"{stem}={file_hash};".encode())
    return f"{digest.hexdigest()[:24]}.{CACHE_VERSION}"


def content_of(recording: Recording) -> str:
    """A hash of the content of a recording's files, the same by any version that decoded them."""
    return "" if recording.path is None else recording.path.name.partition(".")[0]


def content_hash(path: Path, notes: Path) -> str:
    """SHA-256 of a file; computed again only if its size or time has changed.

    Parameters
    ----------
    path
        The file.
    notes
        Folder that caches hashes; if it cannot be written, they are computed each time.
    """
    status = path.stat()
    state = [str(path.resolve()), status.st_size, status.st_mtime_ns]
    name = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]
    note = notes / name
    with contextlib.suppress(OSError, ValueError):  # a disk that was full leaves empty notes
        digest = note.read_text()
        if len(bytes.fromhex(digest)) == hashlib.sha256().digest_size:
            return digest
    digest = file_sha256(path)
    with contextlib.suppress(OSError):
        notes.mkdir(parents=True, exist_ok=True)
        write_atomically(note, digest)
    return digest
