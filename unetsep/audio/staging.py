"""Temporary files beside their targets, and their removal after a run that died.

While a song is written, its run holds a lock in each of its folders. The lock ends with the
run: another run that can take it removes the files with its token.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

from ..locks import LockFile, Owner
from ..storage import PREFIX

# Seconds. On some network drives locks of other machines do not hold; age decides then.
FOREIGN_AGE = 24 * 3600.0


class Staging:
    """Names for the temporary files of one song, under locks.

    Parameters
    ----------
    folders
        The folders of the targets, which must exist.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._locks: list[LockFile] = []
        self.token = ""
        try:
            while not self.token:
                self._lock(dict.fromkeys(folders))
        except BaseException:
            self.release()
            raise

    def _lock(self, folders: Iterable[Path]) -> None:
        """Choose a token and lock it; no token if another run removes a lock meanwhile."""
        token, owner = secrets.token_hex(6), Owner.current()
        for folder in folders:
            lock = LockFile(folder / f"{PREFIX}{token}.lock", os.O_CREAT | os.O_EXCL)
            self._locks.append(lock)
            if not lock.sign(owner.signature(lock).encode()):
                self.release()
                return
        self.token = token

    def name(self, target: Path, index: int, suffix: str) -> Path:
        """Temporary path beside a target."""
        return target.with_name(f"{PREFIX}{self.token}-{index}{suffix}")

    def release(self, *, keep: bool = False) -> None:
        """Release the locks, and remove their files.

        With ``keep`` the lock files stay: a temporary file could not be removed, and its lock
        tells later runs that its owner is dead.
        """
        while self._locks:
            lock = self._locks.pop()
            if keep:
                lock.close()
            else:
                lock.remove()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files of dead runs, never those of a run that may be alive."""
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(PREFIX)]
        tokens = {name[len(PREFIX) :].split("-")[0].split(".")[0] for name in names}
        for token in sorted(tokens):
            files = [folder / name for name in names if name.startswith(f"{PREFIX}{token}-")]
            _remove_run(folder / f"{PREFIX}{token}.lock", files)


def _remove_run(path: Path, files: list[Path]) -> None:
    """Remove the files of one run and then its lock, if the lock is free."""
    # The lock is missing if a user removed it, or another run that is cleaning up.
    with contextlib.suppress(OSError), contextlib.closing(LockFile(path)) as lock:
        if lock.take() and _is_abandoned(lock):
            for file in files:
                with contextlib.suppress(PermissionError):  # Windows removes no open file
                    file.unlink(missing_ok=True)
            if not any(file.exists() for file in files):  # else the lock marks them as abandoned
                lock.remove()


def _is_abandoned(lock: LockFile) -> bool:
    """Whether a free lock is from this machine, which sees live owners, or is old."""
    owner = Owner.of(lock)
    # The host is empty if the owner died before it had signed.
    is_local = owner.host in ("", socket.gethostname())
    return (is_local and not owner.is_elsewhere(lock)) or age(lock) > FOREIGN_AGE


def age(lock: LockFile) -> float:
    """Seconds since a lock's time was set, by the clock of its drive, which may be wrong.

    Raises
    ------
    OSError
        If no file can be created beside the lock.
    """
    path = lock.path.with_name(f"{PREFIX}{secrets.token_hex(6)}-clock.part")
    probe = LockFile(path, os.O_CREAT | os.O_EXCL)
    try:
        probe.touch()
        return probe.status.st_mtime - lock.status.st_mtime
    finally:
        probe.remove()
