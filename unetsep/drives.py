"""Names on drives: some refuse certain names, or ignore case or the encoding of accents."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Generic, TypeVar

from .storage import FULL, PREFIX

Value = TypeVar("Value")
# Names that all drives accept; Windows reserves some that consist of plain letters.
PLAIN_NAME = re.compile(
    r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\b)[\w ,()&'!+-]+(?:\.[\w ,()&'!+-]+)*",
    re.ASCII | re.IGNORECASE,
)
PLAIN = "plain"
# Characters that Windows forbids in names, besides control codes and separators.
FORBIDDEN = '<>:"|?*\\'
# Names that Windows reserves, with any suffix: nul.tar.gz is a device.
WINDOWS_NAMES = re.compile(
    r"(?i)^(con(?:in\$|out\$)?|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))"
)
# Longest paths of files and of folders on Windows, in characters, unless it is set to allow more.
LONGEST_PATH, LONGEST_FOLDER = 259, 247


def without_illegal(name: str) -> str:
    """A name with ``_`` for control codes, and on Windows for characters that it forbids.

    The colon is one of them, as it separates the name of a stream. See `without_reserved`.
    """
    forbidden = re.escape(FORBIDDEN) if os.name == "nt" else ""
    name = re.sub(rf"[\x00-\x1f{forbidden}]", "_", name)
    return without_reserved(name) if os.name == "nt" else name


def without_reserved(name: str) -> str:
    """A name with ``_`` after a device's name that Windows reserves."""
    return WINDOWS_NAMES.sub(r"\1_", name)


def stray_quote(path: Path) -> str | None:
    r"""A message about a quote in a path on Windows, where names cannot hold one; else None.

    There ``"C:\My Music\" -o out`` is one word, whose second quote is part of it.
    """
    if os.name != "nt" or '"' not in str(path):
        return None
    return f"{path} holds a quote, as no name does: leave out the backslash before a closing quote"


def path_problem(path: Path) -> str | None:
    """A message that tells why a path does not exist or cannot be opened; None if it exists."""
    if quote := stray_quote(path):
        return quote
    # Not Path.exists: from Python 3.14 on it returns False for all errors.
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a NUL in the name
        # Windows lists files that it cannot open because their paths are too long.
        if os.name == "nt" and len(os.path.abspath(path)) > LONGEST_PATH:  # noqa: PTH100
            return f"{path} does not exist, or its path is too long: move it to a shorter one"
        with contextlib.suppress(OSError, ValueError):  # of a path that is no link
            return f"{path} is a link to {os.readlink(path)}, which does not exist"  # noqa: PTH115
        return f"{path} does not exist"
    except OSError as error:  # a name too long, a folder that may not be entered
        return f"{path} cannot be opened: {error.strerror}"
    return None


def real_path(path: Path) -> Path:
    """The path without links; unlike `Path.resolve` it allows circular links."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a NUL in the name: no such file can exist
        return path


def in_real_folder(path: Path) -> Path:
    """A file's path without links in its folders; the file itself may be one."""
    return real_path(path.parent) / path.name


def folded(path: Path | str) -> str:
    """A form of a name that is equal for names that any usual file system treats as equal."""
    return unicodedata.normalize("NFC", str(path)).casefold()


class Listings:
    """The names in listings of folders; each folder is read once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, str]] = {}

    def same(self, one: Path, other: Path) -> bool:
        """Whether two paths without links lead to the same file."""
        if str(one) == str(other):
            return True
        if folded(one) != folded(other):
            return False
        return self.path(one) == self.path(other)

    def path(self, path: Path) -> Path:
        """A path without links, spelled as in the listings of its folders."""
        listed = Path(path.anchor)
        for name in path.parts[1:]:
            listed /= self.name(listed, name)
        return listed

    def name(self, folder: Path, name: str) -> str:
        """A name as spelled in its folder's listing; unchanged if the listing lacks it."""
        if folder not in self._names:
            try:
                names = os.listdir(folder)  # noqa: PTH208 (names alone)
            except (OSError, ValueError):  # the last for a NUL in the name
                names = []
            self._names[folder] = {folded(each): each for each in names}
            self._names[folder] |= {each: each for each in names}  # exact names take precedence
        spellings = self._names[folder]
        if spellings.get(name) == name or not os.path.lexists(folder / name):
            return name
        return spellings.get(folded(name), name)


def refused_name(names: Iterable[str], folder: Path) -> str | None:
    """The first of some names that a drive refuses, such as one formatted for Windows.

    A drive shows this only when a file is created: empty files are created and removed.

    Parameters
    ----------
    names
        Of files or folders.
    folder
        An existing one on the drive.

    Returns
    -------
    str or None
        None if the drive accepts all, or another error prevents the test, such as a full disk.
    """
    doubtful = [name for name in dict.fromkeys(names) if not PLAIN_NAME.fullmatch(name)]
    if not doubtful or sys.platform == "win32":  # where names are already adapted
        return None
    name = PLAIN
    try:
        with TemporaryDirectory(prefix=PREFIX, dir=folder, ignore_cleanup_errors=True) as empty:
            for name in (PLAIN, *doubtful):  # the first tests whether files can be created at all
                Path(empty, name).touch()
    except OSError as error:
        # A path that is too long here may fit with its real folder.
        if name != PLAIN and error.errno not in (errno.ENAMETOOLONG, *FULL):
            return name
    return None


class NameRules:
    """Tells which names lead to the same file, by the rules of their drives.

    The rules do not follow from the system: cards, sticks and disks of Macs are used with any. So
    a folder is tested, once, when names differ only in case or the encoding of accents.

    Parameters
    ----------
    probe
        Whether to test folders by creating and removing files; otherwise names must be equal.
    """

    def __init__(self, *, probe: bool = True) -> None:
        self._probe = probe
        self._rules: dict[Path, tuple[bool, bool]] = {}

    def same(self, one: Path, other: Path) -> bool:
        """Whether two paths without links lead to the same file."""
        if str(one) == str(other):
            return True
        if folded(one) != folded(other):
            return False
        if sys.platform in ("win32", "darwin"):  # true for nearly all of their drives
            return True
        if not self._probe:
            return False
        shared = Path(os.path.commonpath([one, other]))
        folder = next(f for f in (shared, *shared.parents) if os.path.isdir(f))  # noqa: PTH112
        if folder not in self._rules:
            self._rules[folder] = _rules_of_names(folder)
        case, accents = self._rules[folder]
        names = [str(path) for path in (one, other)]
        if accents:
            names = [unicodedata.normalize("NFC", name) for name in names]
        if case:
            names = [name.casefold() for name in names]
        return names[0] == names[1]


def _rules_of_names(folder: Path) -> tuple[bool, bool]:
    """Whether a folder ignores case, and whether it ignores how accents are encoded."""
    probe = folder / f"{PREFIX}{secrets.token_hex(6)}-\u00e9.part"
    variants = probe.name.upper(), unicodedata.normalize("NFD", probe.name)
    try:
        probe.touch(exist_ok=False)
        try:
            case, accents = (os.path.lexists(folder / name) for name in variants)
        finally:
            probe.unlink()
    except (OSError, UnicodeEncodeError):  # without write access, nothing can clash
        return False, False
    return case, accents


class FileMap(Generic[Value]):
    """A mapping from files to values, by paths without links that may have several spellings.

    Parameters
    ----------
    same
        Whether two paths lead to the same file; see `NameRules` and `Listings`.
    """

    def __init__(self, same: Callable[[Path, Path], bool]) -> None:
        self._same = same
        self._values: dict[str, list[tuple[Path, Value]]] = {}

    def setdefault(self, path: Path, value: Value) -> Value:
        """The value of the file at a path, after setting it if there was none."""
        values = self._values.setdefault(folded(path), [])
        for other_path, old_value in values:
            if self._same(other_path, path):
                return old_value
        values.append((path, value))
        return value

    def __contains__(self, path: Path) -> bool:
        values = self._values.get(folded(path), ())
        return any(self._same(other_path, path) for other_path, _ in values)
