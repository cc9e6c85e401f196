"""Names as drives take them: some refuse a few, and to some case or coded accents do not count."""

from __future__ import annotations

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
# Names that no drive minds; some of letters alone are kept by Windows for itself.
PLAIN_NAME = re.compile(
    r"(?!(?:con|prn|aux|nul|com\d|lpt\d)\b)[\w ,()&'!+-]+(?:\.[\w ,()&'!+-]+)*",
    re.ASCII | re.IGNORECASE,
)
PLAIN = "plain"
# Names that Windows keeps for itself, whatever follows their first dot: nul.tar.gz is a device.
WINDOWS_NAMES = re.compile(
    r"(?i)^(con(?:in\$|out\$)?|prn|aux|nul|(?:com|lpt)[0-9¹²³])(?= *(?:\.|$))"
)
# Characters that Windows takes, unless it is set to take more, of a file's path and of a folder's.
LONGEST_PATH, LONGEST_FOLDER = 259, 247


def without_illegal(name: str) -> str:
    """A name with ``_`` for control codes, and on Windows for what no name may hold there.

    That is the colon, too, behind which a stream of a file is named. See `without_reserved`.
    """
    illegal = r'[\x00-\x1f<>:"|?*\\]' if os.name == "nt" else r"[\x00-\x1f]"
    name = re.sub(illegal, "_", name)
    return without_reserved(name) if os.name == "nt" else name


def without_reserved(name: str) -> str:
    """A name with ``_`` behind what Windows else takes for a device."""
    return WINDOWS_NAMES.sub(r"\1_", name)


def stray_quote(path: Path) -> str | None:
    r"""A sentence on a quote in a path of Windows, where no name holds one; None if none is.

    There ``"C:\My Music\" -o out`` is one word, whose second quote is a letter.
    """
    if os.name != "nt" or '"' not in str(path):
        return None
    return f"{path} holds a quote, as no name does: leave out the backslash before a closing quote"


def why_not_there(path: Path) -> str | None:
    """A sentence on why nothing can be found at a path; None if something is there."""
    if quote := stray_quote(path):
        return quote
    # Not Path.exists, which from Python 3.14 on says no to whatever cannot be looked at.
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last by a NUL in the name
        # Windows lists files in folders that it does not find by the length of their paths.
        if os.name == "nt" and len(os.path.abspath(path)) > LONGEST_PATH:  # noqa: PTH100
            return f"{path} does not exist, or its path is too long: move it to a shorter one"
        return f"{path} does not exist"
    except OSError as error:  # a name too long, a folder that may not be entered
        return f"{path} cannot be opened: {error.strerror}"
    return None


def folded(path: Path | str) -> str:
    """Equal for names that any of the usual file systems takes for the same."""
    return unicodedata.normalize("NFC", str(path)).casefold()


class Listings:
    """The names that folders list, each of which is read once."""

    def __init__(self) -> None:
        self._names: dict[Path, dict[str, str]] = {}

    def same(self, one: Path, other: Path) -> bool:
        """Whether two paths without links are those of one file."""
        if str(one) == str(other) or folded(one) != folded(other):
            return str(one) == str(other)
        return self.path(one) == self.path(other)

    def path(self, path: Path) -> Path:
        """A path without links, by the names that its folders list."""
        place = Path(path.anchor)
        for name in path.parts[1:]:
            place /= self.name(place, name)
        return place

    def name(self, folder: Path, name: str) -> str:
        """The name under which a folder lists what has a name for its drive; else that name."""
        if folder not in self._names:
            try:
                names = os.listdir(folder)  # noqa: PTH208 (names alone)
            except (OSError, ValueError):  # the last by a NUL in the name
                names = []
            self._names[folder] = {folded(each): each for each in names}
            self._names[folder] |= {each: each for each in names}  # which come before any others
        names_of = self._names[folder]
        if names_of.get(name) == name or not os.path.lexists(folder / name):
            return name
        return names_of.get(folded(name), name)


def refused_name(names: Iterable[str], folder: Path) -> str | None:
    """The first of some names that a drive refuses, as those that are for Windows, too, do.

    It tells only when a file is made: empty ones are made, and removed.

    Parameters
    ----------
    names
        Of files or folders.
    folder
        An existing one on the drive.

    Returns
    -------
    str or None
        None if it takes all of them, or something else keeps it from that, such as a full disk.
    """
    doubtful = [name for name in dict.fromkeys(names) if not PLAIN_NAME.fullmatch(name)]
    if not doubtful or sys.platform == "win32":  # where names have been made for it
        return None
    name = PLAIN
    try:
        with TemporaryDirectory(prefix=PREFIX, dir=folder, ignore_cleanup_errors=True) as empty:
            for name in (PLAIN, *doubtful):  # the first tells whether any can be made
                Path(empty, name).touch()
    except OSError as error:
        # A path that is longer here is told by its own length.
        if name != PLAIN and error.errno not in (errno.ENAMETOOLONG, *FULL):
            return name
    return None


class Drives:
    """Which names lead to one file, as the drives that they are on take them.

    The system does not tell: cards, sticks and the disks of Macs are used with any. So a folder is
    asked, once, when names differ in no more than that.

    Parameters
    ----------
    ask
        Whether files may be made, and removed, to ask; else names that differ are of two files.
    """

    def __init__(self, *, ask: bool = True) -> None:
        self._ask = ask
        self._rules: dict[Path, tuple[bool, bool]] = {}

    def same(self, one: Path, other: Path) -> bool:
        """Whether two paths without links are those of one file."""
        if str(one) == str(other) or folded(one) != folded(other):
            return str(one) == str(other)
        if sys.platform in ("win32", "darwin"):  # nearly all drives there
            return True
        if not self._ask:
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
    """Whether names that differ in case, or in how accents are coded, are one in a folder."""
    probe = folder / f"{PREFIX}{secrets.token_hex(6)}-\u00e9.part"
    others = probe.name.upper(), unicodedata.normalize("NFD", probe.name)
    try:
        probe.touch(exist_ok=False)
        try:
            case, accents = (os.path.lexists(folder / other) for other in others)
        finally:
            probe.unlink()
    except (OSError, UnicodeEncodeError):  # where nothing can be written, nothing clashes
        return False, False
    return case, accents


class Places(Generic[Value]):
    """Something of each file, by paths without links, of which a drive may take several for one.

    Parameters
    ----------
    same
        Whether two paths are those of one file; see `Drives` and `Listings`.
    """

    def __init__(self, same: Callable[[Path, Path], bool]) -> None:
        self._same = same
        self._values: dict[str, list[tuple[Path, Value]]] = {}

    def setdefault(self, place: Path, value: Value) -> Value:
        """What the file of a path has already, or else now."""
        values = self._values.setdefault(folded(place), [])
        for other, found in values:
            if self._same(other, place):
                return found
        values.append((place, value))
        return value

    def __contains__(self, place: Path) -> bool:
        values = self._values.get(folded(place), ())
        return any(self._same(other, place) for other, _ in values)
