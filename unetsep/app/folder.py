"""A folder for temporary files that no kill leaves behind for good.

Each run of the app has a folder and, beside it, a lock that ends with the run. The next start
takes the free lock: so it knows that the folder is nobody's, and removes it.
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
SIGNATURE = b"unetsep app"  # in each lock: the folder beside it is one of ours


class WorkFolder:
    """The folder of one run; what dead runs left beside it is removed.

    Parameters
    ----------
    parent
        Where it lies, with those of other runs; made if it is missing.

    Raises
    ------
    OSError
        If it cannot be made.
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
        """Remove the folder with all that is in it, and give up the lock.

        The lock's file stays if that fails, so that the next start tries it again.

        Returns
        -------
        bool
            Whether that worked; not on a drive that is gone, which has taken the folder along.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        removed = _is_missing(self.path) and not _is_missing(self.path.parent)
        if removed:
            self._lock.remove()
        else:
            self._lock.close()
        return removed


def _is_missing(path: Path) -> bool:
    """Whether there is no such file for certain: a drive that fails says nothing."""
    try:
        path.lstat()
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def remove_dead(parent: Path) -> None:
    """Remove the folders of runs that are dead, and never one of a run that may be alive.

    The parent may be any folder of the user's: what our locks do not vouch for is not ours.

    Parameters
    ----------
    parent
        Of the folders and their locks.
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
    """Bytes of all files in a folder, at any depth; what vanishes meanwhile counts nothing."""
    total = 0
    for parent, _, names in os.walk(folder):  # rglob raises if a folder vanishes
        for name in names:
            with contextlib.suppress(OSError):
                status = Path(parent, name).lstat()
                if stat.S_ISREG(status.st_mode):
                    total += status.st_size
    return total
