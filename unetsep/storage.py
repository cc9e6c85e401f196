"""Folder of the user's models, and files that appear only when they are complete."""

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
from typing import BinaryIO, ClassVar

from .errors import UnetsepError

# Prefix of all temporary files.
PREFIX = ".unetsep-"
# Errors of a full disk, and of a full quota.
FULL = (errno.ENOSPC, errno.EDQUOT)
# How often in a row another run may remove a folder that this one needs and that is still empty.
REMOVALS = 5
# Bytes for each read.
READ_BYTES = 1 << 20


def user_folder() -> Path:
    """Folder for the user's models, which may not exist yet.

    ``$UNETSEP_HOME`` if set, else ``unetsep`` in the system's folder for data of programs:
    ``%LOCALAPPDATA%``, ``~/Library/Application Support`` or, by the XDG base directory
    specification, ``$XDG_DATA_HOME`` or ``~/.local/share``.

    Raises
    ------
    UnetsepError
        If it needs the user's home folder and the system does not know one.
    """
    if sys.platform == "win32":
        data = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        data = "~/Library/Application Support"
    else:
        data = os.environ.get("XDG_DATA_HOME", "")
        if not Path(data).is_absolute():  # the XDG specification ignores relative paths
            data = "~/.local/share"
    path = os.environ.get("UNETSEP_HOME") or f"{data}/unetsep"
    try:
        return Path(path).expanduser()
    except RuntimeError as error:  # as in a container whose account has no name
        raise UnetsepError(
            f"there is no home folder for {path}: set UNETSEP_HOME to the path of a folder for "
            "your models"
        ) from error


def shell_word(path: str | Path) -> str:
    """A path as one word of a command in a message, quoted if needed.

    On Windows it has slashes: Git's bash there takes backslashes for escapes.
    """
    return quoted(PurePath(path).as_posix())


def quoted(*words: str) -> str:
    """Words quoted for a shell; on Windows with double quotes, as cmd knows no others."""
    if os.name != "nt":
        return shlex.join(words)
    plain = re.compile(r"[\w@%+=:,./\\-]+", re.ASCII)
    return " ".join(word if plain.fullmatch(word) else f'"{word}"' for word in words)


def is_special(path: Path) -> bool:
    """Whether a path is a device, a pipe or a socket, and not a link to one."""
    with contextlib.suppress(OSError):
        mode = path.lstat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))
    return False


class MadeFolders:
    """Folders that were created for files, and are removed again if they stay empty.

    Those that several songs need are removed with the last of them.
    """

    _active: ClassVar[set[MadeFolders]] = set()

    def __init__(self) -> None:
        self._folders: frozenset[Path] = frozenset()

    def make(self, folder: Path) -> None:
        """Create a folder and all missing folders above it.

        Raises
        ------
        OSError
            If it cannot be created.
        """
        folders = (folder, *folder.parents)
        missing = {path for path in folders if not path.exists()}
        made = frozenset().union(*(each._folders for each in list(self._active)))
        # Noted before creating them, which may fail halfway.
        self._folders |= missing | made.intersection(folders)
        self._active.add(self)
        for _ in range(REMOVALS):
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                folder.mkdir(parents=True, exist_ok=True)
                return
        folder.mkdir(parents=True, exist_ok=True)

    def remove(self) -> None:
        """Remove the empty ones: other programs may write there, too."""
        for folder in sorted(self._folders, reverse=True):
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._active.discard(self)


@contextlib.contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a file for writing that gets its name only when the block ends without an error.

    It is written beside its target, so that it can be renamed, and under a unique name, so that
    several threads and processes may write the same target. After an error it is removed, and
    an older file of the name is unchanged.

    Parameters
    ----------
    path
        The target; its folder must exist.

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
    partial = path.with_name(f"{PREFIX}{secrets.token_hex(8)}.part")
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        if isinstance(error, OSError):
            full = error.errno in FULL and not error.filename
            if full or error.filename == str(partial):  # a name that the user does not know
                error.filename = str(path)
                del error.filename2  # None would be printed as a second name
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
    """Hexadecimal checksum of an open file from its current position.

    `hashlib.file_digest` needs Python 3.11, and real files.
    """
    digest = hashlib.new(kind, usedforsecurity=False)
    while block := file.read(READ_BYTES):
        digest.update(block)
    return digest.hexdigest()
