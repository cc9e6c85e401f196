"""Locks that die with their process, so that two runs never work on one song.

A claim is a hidden file that says who made it. On one machine the system's lock on it decides.
Between machines that share a disk, or mounts of one network drive, locks may not be seen: there a
claim is alive as long as its owner sets the file's time again and again.
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
from ..unfinished import begin, end, uninterrupted

# Seconds between signs of life, and after how many without one an owner counts as dead:
# several may come late on a network drive.
BEAT = 10.0
STALE = 60.0
# And until who made a claim has signed it, or is dead: it takes a few calls of the system, over a
# network at worst. Whoever is later than that sees that it has been taken over.
UNSIGNED = 1.0
# Seconds to wait for a lock that somebody holds: whoever only looks does so for less.
PATIENCE = 0.2
# What stands in a claim that its maker gave up before it was signed.
ABANDONED = "abandoned"


# How the sentence on a claim of another run begins.
BUSY = "another run is working on it"


class ClaimedError(UnetsepError):
    """A song that another run is working on."""


class Claim:
    """What this run alone may write, until it releases it or dies; use as a context manager.

    Parameters
    ----------
    locks
        Paths of the claims' files, see `claim_path`. Folders that are missing are made, and
        removed at the end if they are empty.

    Raises
    ------
    ClaimedError
        If a living run has one of them; then none is held.
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, locks: Iterable[Path]) -> None:
        owner, token = Owner.here(), secrets.token_hex(8)
        self._held: list[LockFile] = []
        self._folders = MadeFolders()
        self._end = threading.Event()
        begin(self.release)
        try:
            # All runs take them in the same order; none waits for another while it holds one.
            for path in sorted(set(locks)):
                with uninterrupted():
                    self._folders.make(path.parent)
                    self._held.append(self._take(path))
                    # Held by now, it is removed if a full disk leaves it unsigned.
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
        """A claim that is now ours, to be signed."""
        while True:
            try:
                lock, new = LockFile(path, os.O_CREAT | os.O_EXCL), True
            except FileExistsError:
                try:
                    lock, new = LockFile(path), False
                except FileNotFoundError:  # released between the two lines
                    continue
            except FileNotFoundError:  # another run made this folder, too, and removed it
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
        """Whether a claim is ours; False to try again, after removing one that is dead."""
        locked = lock.take(PATIENCE)
        if not lock.is_named:  # removed or replaced meanwhile
            if new:  # who moved it aside by mistake puts it back, see `_remove`
                lock.write(ABANDONED.encode())
            return False
        owner = Owner.of(lock)
        if locked is False or (not new and _lives(owner, lock, locked=bool(locked))):
            raise ClaimedError(_sentence(owner))
        if new or os.name == "nt":  # which removes no open file: it is signed anew
            return True
        _remove(lock)
        return False

    @property
    def held(self) -> bool:
        """Whether all is still ours: a machine that slept may have been taken for dead.

        Raises
        ------
        OSError
            If a claim is there, but cannot be read.
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
        """Give everything up and leave no trace."""
        with uninterrupted():
            self._end.set()
            while self._held:
                self._held.pop().remove()
            self._folders.remove()
            end(self.release)


def claim_path(folder: Path, token: str) -> Path:
    """Where a claim lies; `unetsep.audio.staging` removes it, too, when its owner is dead.

    Parameters
    ----------
    folder
        Of the stems.
    token
        Letters and digits, the same for all runs that would write the same files.
    """
    return folder / f"{PREFIX}{token}.lock"


def _lives(owner: Owner, lock: LockFile, *, locked: bool) -> bool:
    """Whether the owner of a claim works on, as far as that can be known from here."""
    if owner == Owner(ABANDONED):
        return False
    if owner.system == this_system():
        if locked and not owner.is_elsewhere(lock):  # its lock would not have been to be had
            return False
        if owner.is_gone:
            return False
    seconds = age(lock)
    if owner == Owner():
        return seconds < UNSIGNED
    # Before a power cut this machine's clock was ahead of what it is now, as of a small one that
    # has no battery: whoever lives sets the time anew. That of another machine may be wrong.
    if seconds < -STALE and owner.host == socket.gethostname():
        return False
    return seconds < STALE


def _remove(lock: LockFile) -> None:
    """Remove a dead claim, and never one that another run has made in its place."""
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
