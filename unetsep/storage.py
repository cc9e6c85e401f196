"""Where the user's own models live, locks, and files that appear only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import math
import os
import re
import secrets
import shlex
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from .errors import UnetsepError

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
# A disk without room, or a user without.
FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
# At a time.
READ_BYTES = 1 << 20


class HeldError(OSError):
    """A lock that another process has."""


def user_folder() -> Path:
    """Folder for the user's models; it need not exist.

    ``$UNETSEP_HOME`` if set, else ``unetsep`` where the system keeps the data of programs:
    ``%LOCALAPPDATA%``, ``~/Library/Application Support`` or, by the XDG base directory
    specification, ``$XDG_DATA_HOME`` or ``~/.local/share``.

    Raises
    ------
    UnetsepError
        If it would be in a home folder that the system does not know.
    """
    if sys.platform == "win32":
        data = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        data = "~/Library/Application Support"
    else:
        data = os.environ.get("XDG_DATA_HOME", "")
        if not Path(data).is_absolute():  # such are to be ignored
            data = "~/.local/share"
    place = os.environ.get("UNETSEP_HOME") or f"{data}/unetsep"
    try:
        return Path(place).expanduser()
    except RuntimeError as error:  # as of a container whose account has no name
        raise UnetsepError(
            f"there is no home folder for {place}: set UNETSEP_HOME to the path of a folder for "
            "your models"
        ) from error


def shell_word(path: str | Path) -> str:
    """A path as one word of a command that a message tells to type, with quotes if it needs any.

    Slashes stand for Windows' backslashes, which would need quotes.
    """
    return quoted(PurePath(path).as_posix())


def quoted(*words: str) -> str:
    """Words as they can be typed; in double quotes on Windows, where cmd knows no others."""
    if os.name != "nt":
        return shlex.join(words)
    plain = re.compile(r"[\w@%+=:,./\\-]+", re.ASCII)
    return " ".join(word if plain.fullmatch(word) else f'"{word}"' for word in words)


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
        self.path = path
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
        except OSError:  # a full disk: empty, it would be nobody's for ever
            self.remove()
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
            return os.path.samestat(self.path.stat(), self.status)
        except OSError:
            return False

    @property
    def status(self) -> os.stat_result:
        """Of the open file, whatever has its name."""
        return os.fstat(self._descriptor)

    def read(self) -> bytes:
        """The content, up to 1 KiB."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.read(self._descriptor, 1024)

    def write(self, content: bytes) -> None:
        """Write in the place of the content."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, content)

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


def is_special(path: Path) -> bool:
    """Whether a name is that of a device, a pipe or a socket, and of no link to one."""
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    return False


class MadeFolders:
    """Folders that were made for files, and go again if no file came to stay in them."""

    def __init__(self) -> None:
        self._made: set[Path] = set()

    def make(self, folder: Path) -> None:
        """Make a folder and those above it, as far as they are missing.

        Raises
        ------
        OSError
            If it cannot be made.
        """
        # Noted before making them: it may fail half-way.
        self._made |= {path for path in (folder, *folder.parents) if not path.exists()}
        folder.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove those that are empty: others may write there, too."""
        for folder in sorted(self._made, reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """A file to fill that gets its name only when the block ends without an error.

    It lies beside its target, so that it can be renamed, and under a name of its own, so that
    several threads and processes may write the same target. After an error nothing of it is
    left, and what had the name before is as it was.

    Parameters
    ----------
    path
        The target; its folder exists.

    Raises
    ------
    OSError
        If it cannot be written.

    Examples
    --------
    >>> with open_atomically(Path("numbers.bin")) as file:
    ...     written = file.write(bytes(8))
    """
    if is_special(path):  # the rename would remove it
        raise FileExistsError(errno.EEXIST, "it is a device or a pipe, which stays", str(path))
    partial = path.with_name(f"{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            full = error.errno in FULL and not error.filename
            if full or error.filename == str(partial):  # a name that nobody knows
                error.filename = str(path)
                del error.filename2  # None would be told as a second name
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file, text as UTF-8; see `open_atomically`."""
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return file_digest(file)


def file_digest(file: BinaryIO, kind: str = "sha256") -> str:
    """Hexadecimal checksum of an open file from where it stands.

    `hashlib.file_digest` needs Python 3.11, and true files.
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    while block := file.read(READ_BYTES):
        digest.update(block)
    return digest.hexdigest()
