"""A folder for temporary files that does not outlive a killed run for good.

Each run of the app has a folder and, beside it, a lock that is released when the run ends. If the
next start can acquire the lock, the run is dead, and its folder is removed.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

from ..locks import LockFile

PREFIX = "run-"
LOCK_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{16}}\.lock")
SIGNATURE = b"unetsep app"  # content of each lock: marks the folder beside it as ours


class WorkFolder:
    """The folder of one run; folders of dead runs beside it are removed.

    Parameters
    ----------
    parent
        Folder that contains it and those of other runs; created if missing.

    Raises
    ------
    OSError
        If it cannot be created.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_dead(parent)
        while True:
            self.path = parent / f"{PREFIX}{secrets.token_hex(8)}"
            self._lock = LockFile(self.path.with_suffix(".lock"), os.O_CREAT | os.O_EXCL, 0o600)
            if self._lock.sign(SIGNATURE):
                break
            self._lock.close()
        self.path.mkdir(mode=0o700)

    def remove(self) -> bool:
        """Remove the folder and its content, and release the lock.

        If that fails the lock file stays, so that the next start retries.

        Returns
        -------
        bool
            Whether that worked; False also if the drive, and the folder with it, has vanished.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        removed = _is_missing(self.path) and not _is_missing(self.path.parent)
        if removed:
            self._lock.remove()
        else:
            self._lock.close()
        return removed


def _is_missing(path: Path) -> bool:
    """Whether a file certainly does not exist; on a failing drive that is unknown."""
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def remove_dead(parent: Path) -> None:
    """Remove the folders of dead runs, and never one of a run that may be alive.

    The parent may be any folder of the user's, so nothing without a lock of ours is touched.

    Parameters
    ----------
    parent
        Folder that contains the folders and their locks.
    """
    for path in parent.glob(f"{PREFIX}*.lock"):
        if not LOCK_NAME.fullmatch(path.name):
            continue
        with contextlib.suppress(OSError), contextlib.closing(LockFile(path)) as lock:
            if lock.read() == SIGNATURE and lock.take():
                folder = path.with_suffix("")
                shutil.rmtree(folder, ignore_errors=True)
                if _is_missing(folder):
                    lock.remove()


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder, at any depth; files that vanish meanwhile count as 0."""
    total = 0
    for parent, _, names in os.walk(folder):  # rglob raises if a folder vanishes
        for name in names:
            with contextlib.suppress(OSError):
                status = Path(parent, name).lstat()
                if stat.S_ISREG(status.st_mode):
                    total += status.st_size
    return total
