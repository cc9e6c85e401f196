"""Where the user's own models live, and files that appear only when they are complete."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shlex
import stat
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from .errors import UnetsepError

# Names of files that no run leaves behind begin so.
PREFIX = ".unetsep-"
# A disk without room, or a user without.
FULL = (errno.ENOSPC, errno.EDQUOT)
# At a time.
READ_BYTES = 1 << 20


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
