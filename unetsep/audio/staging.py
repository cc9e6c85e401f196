"""Temporary files beside their targets, and what becomes of them when a run dies.

Each song that is being written holds a lock in each of its folders, which ends with its run.
Whoever can take it knows that the files with its token are nobody's, and removes them.
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
        self._locks: list[LockFile] = []
        self.token = ""
        try:
            while not self.token:
                self._lock(dict.fromkeys(folders))
        except BaseException:
            self.release()
            raise

    def _lock(self, folders: Iterable[Path]) -> None:
        """Choose a token and lock it, unless another run removes a lock in the act."""
        token, owner = secrets.token_hex(6), Owner.here()
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
        """Give up the locks; their files stay if one of the temporary files could not be removed.

        Without them no later run would know whose it is.
        """
        while self._locks:
            lock = self._locks.pop()
            if keep:
                lock.close()
            else:
                lock.remove()


def remove_leftovers(folder: Path) -> None:
    """Remove temporary files whose run is dead; never one of a run that may be alive."""
    with contextlib.suppress(OSError):
        names = [entry.name for entry in os.scandir(folder) if entry.name.startswith(PREFIX)]
        tokens = {name[len(PREFIX) :].split("-")[0].split(".")[0] for name in names}
        for token in sorted(tokens):
            files = [folder / name for name in names if name.startswith(f"{PREFIX}{token}-")]
            _remove_run(folder / f"{PREFIX}{token}.lock", files)


def _remove_run(path: Path, files: list[Path]) -> None:
    """Remove the files of one run and, once all are gone, its lock, if the lock is free."""
    # There is none if it was removed by hand, or by another run that is cleaning up.
    with contextlib.suppress(OSError), contextlib.closing(LockFile(path)) as lock:
        if lock.take() and _is_old_or_here(lock):
            for file in files:
                with contextlib.suppress(PermissionError):  # Windows removes no open file
                    file.unlink(missing_ok=True)
            if not any(file.exists() for file in files):  # without it nobody would know whose
                lock.remove()


def _is_old_or_here(lock: LockFile) -> bool:
    """Whether the owner of a free lock was on this machine, where it would be seen, or long ago."""
    owner = Owner.of(lock)
    # Without a name it is a lock whose owner died in the act.
    here = owner.host in ("", socket.gethostname())
    return (here and not owner.is_elsewhere(lock)) or age(lock) > FOREIGN_AGE


def age(lock: LockFile) -> float:
    """Seconds since a lock's time was set, by the clock that does so there, which may be wrong.

    Raises
    ------
    OSError
        If nothing can be written beside the lock.
    """
    path = lock.path.with_name(f"{PREFIX}{secrets.token_hex(6)}-clock.part")
    probe = LockFile(path, os.O_CREAT | os.O_EXCL)
    try:
        probe.touch()
        return probe.status.st_mtime - lock.status.st_mtime
    finally:
        probe.remove()
