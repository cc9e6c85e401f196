"""Where the user's own models live, locks, and files that appear only when they are complete."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


def user_folder() -> Path:
    """Folder for the user's models; it need not exist.

    ``$UNETSEP_HOME`` if set, else ``unetsep`` where the system keeps the data of programs:
    ``%LOCALAPPDATA%``, ``~/Library/Application Support`` or, by the XDG base directory
    specification, ``$XDG_DATA_HOME`` or ``~/.local/share``.
    """
    chosen = os.environ.get("UNETSEP_HOME")
    if chosen:
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = home / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "unetsep"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process, or thread, at a time is in a block for a file; others wait.

    The lock is ``.<name>.lock`` beside the file, and ends with the process. It stays where it
    is: who waits for a lock that is deleted would hold another one than who comes after.

    Parameters
    ----------
    path
        The file; its folder is made if need be.

    Raises
    ------
    OSError
        If the lock cannot be made.
    """
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{path.name}.lock")):
        yield


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
    partial = path.with_name(f"{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a whole file, text as UTF-8; see `open_atomically`."""
    with open_atomically(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
