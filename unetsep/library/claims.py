"""Locks that die with their process, so that two runs never work on one song.

A claim is a dotfile that names its owner. On one machine the system's lock on it decides.
Between machines that share a disk, or mounts of one network drive, locks may be invisible: there a
claim is alive as long as its owner keeps updating the file's time.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
from collections.abc import Iterable
from pathlib import Path

from ..audio.staging import age
from ..errors import UnetsepError
from ..locks import LockFile, Owner, this_system
from ..storage import PREFIX, MadeFolders
from ..unfinished import register_undo, uninterrupted, unregister_undo

# Seconds between heartbeats, and seconds without one after which an owner counts as dead:
# several may be late on a network drive.
BEAT = 10.0
STALE = 60.0
# Seconds after which an unsigned claim counts as dead: signing takes a few system calls, over a
# network at worst. An owner that signs later notices that another run has taken over.
UNSIGNED = 1.0
# Seconds to wait for a lock that is held: processes that only test it hold it for less.
PATIENCE = 0.2
# Content of a claim whose owner gave it up before signing it.
ABANDONED = "abandoned"
# Start of the message about a claim of another run.
BUSY = "another run is working on it"


class ClaimedError(UnetsepError):
    """A song that another run is working on."""


class Claim:
    """The exclusive right to write files, until release or death; use as a context manager.

    Parameters
    ----------
    locks
        Paths of the claims' files, see `claim_path`. Missing folders are created, and removed at
        the end if they are empty.

    Raises
    ------
    ClaimedError
        If a living run holds one of them; then none is claimed.
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, locks: Iterable[Path]) -> None:
        owner, token = Owner.current(), secrets.token_hex(8)
        self._held: list[LockFile] = []
        self._folders = MadeFolders()
        self._end = threading.Event()
        register_undo(self.release)
        try:
            # All runs claim in the same order, and none waits for another while it holds one.
            for path in sorted(set(locks)):
                with uninterrupted():
                    self._folders.make(path.parent)
                    self._held.append(self._take(path))
                    # It is in the list already, so it is removed if a full disk prevents signing.
                    lock = self._held[-1]
                    lock.write(f"{owner.signature(lock)} {token}\n".encode())
        except BaseException:
            self.release()
            raise
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self, path: Path) -> LockFile:
        """Lock the file of a claim; the caller signs it."""
        while True:
            try:
                lock, new = LockFile(path, os.O_CREAT | os.O_EXCL), True
            except FileExistsError:
                try:
                    lock, new = LockFile(path), False
                except FileNotFoundError:  # released since the line above
                    continue
            except FileNotFoundError:  # another run used this folder, too, and removed it
                self._folders.make(path.parent)
                continue
            try:
                if self._settle(lock, new=new):
                    return lock
            except BaseException:
                if new:  # unsigned
                    lock.remove()
                lock.close()
                raise
            lock.close()

    def _settle(self, lock: LockFile, *, new: bool) -> bool:
        """Whether this run has a claim; False to retry, after a dead one was removed."""
        locked = lock.take(PATIENCE)
        if not lock.is_named:  # removed or replaced meanwhile
            if new:  # a run that moved it aside by mistake puts it back, see `_remove`
                lock.write(ABANDONED.encode())
            return False
        owner = Owner.of(lock)
        if locked is False or (not new and _lives(owner, lock, locked=bool(locked))):
            raise ClaimedError(_sentence(owner))
        if new or os.name == "nt":  # which removes no open file: it is signed again
            return True
        _remove(lock)
        return False

    @property
    def held(self) -> bool:
        """Whether this run still has all claims: others take over from a machine that slept.

        Raises
        ------
        OSError
            If a claim exists but cannot be read.
        """
        if self._end.is_set():
            return False
        try:
            return all(lock.is_as_written() for lock in self._held)
        except FileNotFoundError:
            return False

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            for lock in list(self._held):
                with contextlib.suppress(OSError):
                    lock.touch()

    def release(self) -> None:
        """Release all claims and remove their files and empty folders."""
        with uninterrupted():
            self._end.set()
            while self._held:
                self._held.pop().remove()
            self._folders.remove()
            unregister_undo(self.release)


def claim_path(folder: Path, token: str) -> Path:
    """Path of a claim's file; `unetsep.audio.staging` also removes it if its owner is dead.

    Parameters
    ----------
    folder
        Of the stems.
    token
        Letters and digits, the same for all runs that would write the same files.
    """
    return folder / f"{PREFIX}{token}.lock"


def _lives(owner: Owner, lock: LockFile, *, locked: bool) -> bool:
    """Whether the owner of a claim is alive, as far as this machine can tell."""
    if owner == Owner(ABANDONED):
        return False
    if owner.system == this_system():
        if locked and not owner.is_elsewhere(lock):  # a living owner would hold the lock
            return False
        if owner.is_gone:
            return False
    seconds = age(lock)
    if owner == Owner():
        return seconds < UNSIGNED
    # The file is from the future of this machine's own clock, which went back at a power cut, as on
    # small machines without a battery: a living owner updates the time. Other clocks may be wrong.
    if seconds < -STALE and owner.host == socket.gethostname():
        return False
    return seconds < STALE


def _remove(lock: LockFile) -> None:
    """Remove a dead claim, but never a new one that another run has put in its place."""
    aside = lock.path.with_name(f"{PREFIX}{secrets.token_hex(6)}-claim.part")
    with contextlib.suppress(FileNotFoundError):
        lock.path.rename(aside)
        if not lock.is_at(aside):
            with contextlib.suppress(FileExistsError):
                os.link(aside, lock.path)
        aside.unlink()


def _sentence(owner: Owner) -> str:
    number = owner.process.partition("@")[0]
    who = f" (process {number} on {owner.host})" if number else ""
    return f"{BUSY}{who}"
