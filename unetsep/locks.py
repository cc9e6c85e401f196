"""Files that a process locks, and that tell when it has died."""

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


# For `os.open`: Windows else writes two bytes for the end of a line, and other functions see both.
BINARY = getattr(os, "O_BINARY", 0)


class HeldError(OSError):
    """A lock that another process has."""


class LockFile:
    """An open file that this process may lock, until it closes the file or dies.

    The system frees the lock when the process ends, however it ends: whoever can take that of a
    file which is left over knows that its owner is dead.

    Parameters
    ----------
    path
        The file.
    flags
        Of `os.open`, beside reading and writing.
    mode
        Of a file that is made.

    Raises
    ------
    OSError
        If it cannot be opened.
    """

    def __init__(self, path: Path, flags: int = 0, mode: int = 0o666) -> None:
        self.path, self._content = path, b""
        self._descriptor = os.open(path, os.O_RDWR | BINARY | flags, mode)

    def take(self, patience: float = 0.0) -> bool | None:
        """Take the lock, for whose other owner it waits some seconds.

        Returns
        -------
        bool or None
            False if another has it, None if this file system knows no locks.
        """
        end = time.monotonic() + patience
        while True:
            try:
                _lock_now(self._descriptor)
            except OSError as error:  # noqa: PERF203 (it waits here anyway)
                busy = error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
                if not busy:
                    return None
                if time.monotonic() >= end:
                    return False
                time.sleep(0.01)
            else:
                return True

    def sign(self, content: bytes) -> bool:
        """Fill a new file and take its lock; False if the file was removed in the act.

        Raises
        ------
        OSError
            If it cannot be filled; then it is removed.
        """
        try:
            self.write(content)
        except OSError as error:  # a full disk: empty, it would be nobody's for ever
            self.remove()
            error.filename = str(self.path)
            raise
        # Between these lines it looks like that of a dead owner. Where locks do not work at all,
        # nobody can take it, and it is as safe.
        self.take(patience=1.0)
        return self.path.exists()  # no other has its name

    @property
    def is_named(self) -> bool:
        """Whether the path still leads to this file."""
        if os.name == "nt":  # gives an open file no other name, and has two ways to number files
            return self.path.exists()
        try:
            return self.is_at(self.path)
        except OSError:
            return False

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to this file.

        Where the file system gives a file another number each time, any file there counts as it.

        Raises
        ------
        OSError
            If there is none, or that cannot be known.
        """
        found, status = path.stat(), self.status
        return os.path.samestat(found, status) or not os.path.samestat(status, self.status)

    @property
    def status(self) -> os.stat_result:
        """Of the open file, whatever has its name."""
        return os.fstat(self._descriptor)

    def read(self) -> bytes:
        """The content, up to 1 KiB."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.read(self._descriptor, 1024)

    def write(self, content: bytes) -> None:
        """Write in the place of the content, and set the file's time."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, content)
        self._content = content
        with contextlib.suppress(OSError):
            self.touch()

    def touch(self) -> None:
        """Set the file's time to now.

        By the clock of this machine on some network drives, whose server's clock sets the time of
        what is written, and may be hours away: times can be compared if all are set by this.

        Raises
        ------
        OSError
            If that is not allowed.
        """
        os.utime(self.path)

    def is_as_written(self) -> bool:
        """Whether the path leads to what was written here last.

        Raises
        ------
        OSError
            If that cannot be read.
        """
        return bool(self._content) and self.path.read_bytes() == self._content

    def unlock(self) -> None:
        """Give up a lock that was taken: processes forked meanwhile have the file open, too."""
        _unlock(self._descriptor)

    def close(self) -> None:
        """Give up the lock and leave the file; once closed, it stays so."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # late news of a write, on a network drive
                os.close(descriptor)

    def remove(self) -> None:
        """Remove the file, unless it has lost its name to another, and give up the lock."""
        with contextlib.suppress(OSError):
            if self.is_named:
                if os.name == "nt":  # which removes no open file
                    self.close()
                self.path.unlink()
        self.close()
        # A cloud drive without a cache (rclone's default) writes a file once it is closed, even if
        # it was removed before. It is no other's: those have other contents, or other names.
        with contextlib.suppress(OSError):
            if self.is_as_written():
                self.path.unlink()


@contextlib.contextmanager
def locked(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """One process, or thread, at a time is in a block for a file; others wait.

    Parameters
    ----------
    path
        The file; its folder is made if need be. The lock is ``.<name>.lock`` beside it.
    on_wait
        Called if another has the lock, before waiting for it.

    Raises
    ------
    OSError
        If the lock cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path.with_name(f".{path.name}.lock"), on_wait=on_wait):
        yield


@contextlib.contextmanager
def held(
    lock: Path, *, patience: float = math.inf, on_wait: Callable[[], None] | None = None
) -> Iterator[None]:
    """Hold a lock, which ends with the process at the latest.

    Its file stays where it is: who waits for a lock that is deleted would hold another one than
    who comes after. Where the file system knows no locks, nobody waits.

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
        If another has it for longer.
    OSError
        If it cannot be made.
    """
    with contextlib.closing(LockFile(lock, os.O_CREAT)) as file:
        taken = file.take()
        if taken is False:
            if on_wait:
                on_wait()
            taken = file.take(patience)
        if taken is False:
            raise HeldError(errno.EAGAIN, "another process holds it", str(lock))
        try:
            yield
        finally:
            if taken:
                file.unlock()


@dataclass(frozen=True)
class Owner:
    """Who made the file of a lock, as its content says; empty where it does not.

    Parameters
    ----------
    host
        Name of the machine.
    system
        `this_system` there.
    process
        Its number, and the name space in which that counts.
    drive
        On which the file lies, by its number there.
    """

    host: str = ""
    system: str = ""
    process: str = ""
    drive: str = ""

    @classmethod
    def here(cls) -> Owner:
        """The owner that this process is.

        Asked before a file is made, which a kill in between leaves unsigned.
        """
        return cls(socket.gethostname(), this_system(), _this_process())

    @classmethod
    def of(cls, lock: LockFile) -> Owner:
        """Who signed the file of a lock."""
        host, _, others = lock.read().decode(errors="replace").partition("\n")
        return cls(host, *others.split()[:3])

    def signature(self, lock: LockFile) -> str:
        """What the file of a lock is to hold."""
        return f"{self.host}\n{self.system} {self.process} {lock.status.st_dev}"

    def is_elsewhere(self, lock: LockFile) -> bool:
        """Whether it may hold a lock from this system, through another mount of a network drive.

        There locks are not seen from here: that this one, as it was opened here, is free says
        nothing.
        """
        others = self.drive.isdigit() and int(self.drive) != lock.status.st_dev
        return self.system == this_system() and others and not self.is_gone

    @property
    def is_gone(self) -> bool:
        """Whether a process of this system has ended; False where that cannot be known."""
        number, _, space = self.process.partition("@")
        here = _this_process().partition("@")[2]
        if os.name == "nt" or not number.isdigit() or space != here:
            return False
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return False


def this_system() -> str:
    """One word for the running system, in which locks are seen by all processes."""
    try:  # containers of one machine have different host names
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _this_process() -> str:
    """The number of this process, and the name space in which its number counts."""
    try:
        space = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 (it leads to no file)
    except OSError:
        space = ""
    return f"{os.getpid()}@{space}"
