"""Temporary files beside their targets, and what becomes of them when a run dies.

Each song that is being written holds a lock file in each of its folders. The system frees
the lock when the process ends, however it ends: whoever can take it knows that the files
with its token are nobody's, and removes them.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..storage import open_lock, try_lock

PREFIX = ".unetsep-"
# Locks of other machines cannot be relied on, on some network drives; age can.
FOREIGN_AGE = 24 * 3600.0


class Staging:
    """Names for the temporary files of one song, under locks.

    Parameters
    ----------
    folders
        Where they will lie; existing folders.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._locks: dict[Path, int] = {}
        self.token = ""
        try:
            while not self.token:
                self._lock(dict.fromkeys(folders))
        except BaseException:
            self.release()
            raise

    def _lock(self, folders: Iterable[Path]) -> None:
        """Choose a token and lock it, unless another run removes a lock in the act."""
        token = secrets.token_hex(6)
        for folder in folders:
            path = folder / f"{PREFIX}{token}.lock"
            descriptor = open_lock(path, os.O_CREAT | os.O_EXCL)
            self._locks[path] = descriptor
            # Between these lines the lock looks like that of a dead run. Where locks do not
            # work at all, nobody can take it, and the files are as safe.
            try_lock(descriptor, patience=1.0)
            if not path.exists():
                self.release()
                return
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, socket.gethostname().encode())
        self.token = token

    def name(self, target: Path, index: int, suffix: str) -> Path:
        """Temporary path beside a target."""
        return target.with_name(f"{PREFIX}{self.token}-{index}{suffix}")

    def release(self) -> None:
        """Give up the locks; the temporary files must be gone."""
        while self._locks:
            path, descriptor = self._locks.popitem()
            with contextlib.suppress(OSError):
                os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files whose run is dead; never one of a run that may be alive."""
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(PREFIX)]
        tokens = {name[len(PREFIX) :].split("-")[0].split(".")[0] for name in names}
        for token in sorted(tokens):
            files = [folder / name for name in names if name.startswith(f"{PREFIX}{token}-")]
            _remove_run(folder / f"{PREFIX}{token}.lock", files)


def _remove_run(lock: Path, files: list[Path]) -> None:
    """Remove the files of one run and then its lock, if the lock is free."""
    with contextlib.suppress(OSError):
        with _taken(lock) as dead:
            for path in (*files, lock) if dead else ():
                with contextlib.suppress(PermissionError):  # Windows removes no open file
                    path.unlink(missing_ok=True)
        if dead:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def _taken(lock: Path) -> Iterator[bool]:
    """Whether the lock could be taken, and its owner was on this machine or long ago."""
    try:
        descriptor = open_lock(lock)
    except FileNotFoundError:  # removed by hand, or by another run that is cleaning up
        yield False
        return
    try:
        taken = bool(try_lock(descriptor))
        os.lseek(descriptor, 0, os.SEEK_SET)
        host = os.read(descriptor, 256).decode(errors="replace").partition("\n")[0]
        age = time.time() - os.fstat(descriptor).st_mtime
        # Without a name it is a lock whose owner died, or is about to look whether it exists.
        yield taken and (host in ("", socket.gethostname()) or age > FOREIGN_AGE)
    finally:
        os.close(descriptor)
