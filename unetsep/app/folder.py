"""A folder for temporary files that no kill leaves behind for good.

Each run of the app has a folder and, beside it, a file that it holds locked. The system frees
the lock when the process ends, however it ends. The next start takes the free lock: so it
knows that the folder is nobody's, and removes it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
from pathlib import Path

from ..storage import open_lock, try_lock

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
            self._lock = self.path.with_suffix(".lock")
            self._descriptor = open_lock(self._lock, os.O_CREAT | os.O_EXCL, 0o600)
            os.write(self._descriptor, SIGNATURE)
            # Between these lines it looks like the lock of a dead run, which may be removed.
            try_lock(self._descriptor, patience=1.0)
            if self._lock.exists():
                break
            os.close(self._descriptor)
        self.path.mkdir(mode=0o700)

    def remove(self) -> None:
        """Remove the folder with all that is in it, and give up the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)
        self._lock.unlink(missing_ok=True)


def remove_dead(parent: Path) -> None:
    """Remove the folders of runs that are dead, and never one of a run that may be alive.

    The parent may be any folder of the user's: what our locks do not vouch for is not ours.

    Parameters
    ----------
    parent
        Of the folders and their locks.
    """
    for lock in parent.glob(f"{PREFIX}*.lock"):
        if not LOCK_NAME.fullmatch(lock.name):
            continue
        with contextlib.suppress(OSError):
            descriptor = open_lock(lock)
            try:
                content = os.read(descriptor, len(SIGNATURE) + 1)
                dead = content == SIGNATURE and try_lock(descriptor)
                if dead:
                    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            finally:
                os.close(descriptor)
            if dead and not lock.with_suffix("").exists():
                lock.unlink()


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
