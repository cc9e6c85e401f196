"""Files that a process locks; a free lock shows that its owner has died."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl

    def _lock_now(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

except ImportError:  # Windows
    import msvcrt

    def _lock_now(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the content, which stays readable
        vars(msvcrt)["locking"](descriptor, vars(msvcrt)["LK_NBLCK"], 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        vars(msvcrt)["locking"](descriptor, vars(msvcrt)["LK_UNLCK"], 1)


# For `os.open`: without it Windows writes two bytes for each newline, which other functions see.
BINARY = getattr(os, "O_BINARY", 0)


class HeldError(OSError):
    """A lock that another process holds."""


class LockFile:
    """An open file that this process may lock, until it closes the file or dies.

    The system frees the lock when the process ends, however it ends: a process that can lock a
    leftover file knows that its owner is dead.

    Parameters
    ----------
    path
        The file.
    flags
        Flags of `os.open`, besides reading and writing.
    mode
        Permissions of a new file.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path, flags: int = 0, mode: int = 0o666) -> None:
        self.path, self._content = path, b""
        self._descriptor = os.open(path, os.O_RDWR | BINARY | flags, mode)

    def take(self, patience: float = 0.0) -> bool | None:
        """Take the lock, waiting up to ``patience`` seconds for another owner.

        Returns
        -------
        bool or None
            False if another process holds it, None if this file system has no locks.
        """
        deadline = time.monotonic() + patience
        while True:
            try:
                _lock_now(self._descriptor)
            except OSError as error:  # noqa: PERF203 (it waits here anyway)
                busy = error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
                if not busy:
                    return None
                if time.monotonic() >= deadline:
                    return False
                time.sleep(0.01)
            else:
                return True

    def sign(self, content: bytes) -> bool:
        """Fill a new file and take its lock; False if the file was removed meanwhile.

        Raises
        ------
        OSError
            If it cannot be written; then it is removed.
        """
        try:
            self.write(content)
        except OSError as error:  # a full disk: an empty file would stay for ever
            self.remove()
            error.filename = str(self.path)
            raise
        # Before the next line the file looks like that of a dead owner. Where locks do not work at
        # all, nobody can lock it, so it is just as safe.
        self.take(patience=1.0)
        return self.path.exists()  # no other file has its name

    @property
    def is_named(self) -> bool:
        """Whether the path still leads to this file."""
        if os.name == "nt":  # open files keep their names, and file numbers come in two kinds
            return self.path.exists()
        try:
            return self.is_at(self.path)
        except OSError:
            return False

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to this file.

        Where the file system changes the numbers of files, any file at the path counts.

        Raises
        ------
        OSError
            If there is none, or it cannot be read.
        """
        at_path, status = path.stat(), self.status
        return os.path.samestat(at_path, status) or not os.path.samestat(status, self.status)

    @property
    def status(self) -> os.stat_result:
        """Status of the open file, whichever file has its name now."""
        return os.fstat(self._descriptor)

    def read(self) -> bytes:
        """The content, up to 1 KiB."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.read(self._descriptor, 1024)

    def write(self, content: bytes) -> None:
        """Replace the content, and set the file's time."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, content)
        self._content = content
        with contextlib.suppress(OSError):
            self.touch()

    def touch(self) -> None:
        """Set the file's time to now.

        On some network drives writing sets the time of the server's clock, which may be hours off,
        but this call sets that of this machine: times are comparable if all are set by it.

        Raises
        ------
        OSError
            If it is not allowed.
        """
        os.utime(self.path)

    def is_as_written(self) -> bool:
        """Whether the file at the path has the content that was written last.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        return bool(self._content) and self.path.read_bytes() == self._content

    def unlock(self) -> None:
        """Release the lock: closing is not enough if a forked process has the file open, too."""
        _unlock(self._descriptor)

    def close(self) -> None:
        """Release the lock and leave the file; closing it again does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # a late error of a write, on a network drive
                os.close(descriptor)

    def remove(self) -> None:
        """Remove the file, unless its name belongs to another one, and release the lock."""
        with contextlib.suppress(OSError):
            if self.is_named:
                if os.name == "nt":  # which removes no open file
                    self.close()
                self.path.unlink()
        self.close()
        # A cloud drive without a cache (rclone's default) writes a file when it is closed, even if
        # it was removed before. Files of other owners have other contents, or other names.
        with contextlib.suppress(OSError):
            if self.is_as_written():
                self.path.unlink()


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Run a block for a file in one process or thread at a time; others wait.

    Parameters
    ----------
    path
        The file; its folder is created if needed. The lock is ``.<name>.lock`` beside it.
    on_wait
        Called if another owner has the lock, before waiting for it.

    Raises
    ------
    OSError
        If the lock cannot be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name}.lock"), on_wait=on_wait):
        yield


@contextlib.contextmanager
def held(
    lock: Path, *, patience: float = math.inf, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a lock, which is released when the process ends at the latest.

    Its file is never deleted: a process that waits for a deleted file and one that comes later
    would hold two different locks. Where the file system has no locks, nobody waits.

    Parameters
    ----------
    lock
        The file of the lock; its folder exists.
    patience
        Seconds to wait for another owner.
    on_wait
        Called if there is one, before waiting.

    Raises
    ------
    HeldError
        If another owner holds it for longer.
    OSError
        If it cannot be created.
    """
    with contextlib.closing(LockFile(lock, os.O_CREAT)) as file:
        is_locked = file.take()
        if is_locked is False:
            if on_wait:
                on_wait()
            is_locked = file.take(patience)
        if is_locked is False:
            raise HeldError(errno.EAGAIN, "another process holds it", str(lock))
        try:
            yield
        finally:
            if is_locked:
                file.unlock()


@dataclass(frozen=True)
class Owner:
    """The owner of a lock's file, read from its content; empty fields if unknown.

    Parameters
    ----------
    host
        Name of the machine.
    system
        `this_system` on that machine.
    process
        Its number, and the namespace of that number.
    drive
        Device number of the file's drive on that machine.
    """

    host: str = ""
    system: str = ""
    process: str = ""
    drive: str = ""

    @classmethod
    def current(cls) -> Owner:
        """The owner that is this process.

        Call it before creating the file: a kill in between leaves the file unsigned.
        """
        return cls(socket.gethostname(), this_system(), _this_process())

    @classmethod
    def of(cls, lock: LockFile) -> Owner:
        """The owner that signed the file of a lock."""
        host, _, fields = lock.read().decode(errors="replace").partition("\n")
        return cls(host, *fields.split()[:3])

    def signature(self, lock: LockFile) -> str:
        """Content for the file of a lock."""
        return f"{self.host}\n{self.system} {self.process} {lock.status.st_dev}"

    def is_elsewhere(self, lock: LockFile) -> bool:
        """Whether it may hold the lock on this system through another mount of a network drive.

        Such locks are invisible through this mount: a lock that is free here may be held there.
        """
        other_mount = self.drive.isdigit() and int(self.drive) != lock.status.st_dev
        return self.system == this_system() and other_mount and not self.is_gone

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended, if that is of this system; False where that is unknown."""
        number, _, namespace = self.process.partition("@")
        own_namespace = _this_process().partition("@")[2]
        if os.name == "nt" or not number.isdigit() or namespace != own_namespace:
            return False
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


def this_system() -> str:
    """Identifier of the running system, whose processes all see the same locks."""
    try:  # containers of one machine have different host names
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _this_process() -> str:
    """The number of this process, and the namespace of that number."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (it leads to no file)
    except OSError:
        namespace = ""
    return f"{os.getpid()}@{namespace}"
