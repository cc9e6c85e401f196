"""Checks of output paths before any work, and remedies for failed writes."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import soundfile

from ..drives import LONGEST_FOLDER, LONGEST_PATH, refused_name
from ..errors import AudioError, WritingError
from ..storage import is_special

DRIVE_GONE = "the drive was disconnected: connect it again or choose another folder with -o"
OTHER_NAME = "rename the song, or write {title} in --filename where it has {track}"
REMEDIES = {
    errno.ENOSPC: "make room or choose another folder with -o",
    errno.EDQUOT: "make room or choose another folder with -o",
    errno.EFBIG: "this file system or account allows no larger files: choose another with -o",
    errno.EROFS: "choose another folder with -o",
    errno.EACCES: "choose a folder that you may write to with -o",
    errno.EPERM: "choose a folder that you may write to with -o",
    errno.ENOENT: "the folder cannot be created, or was removed meanwhile",
    errno.EEXIST: "a part of this path is a file or a broken link: choose another folder with -o",
    errno.ENOTDIR: "a part of this path is a file: choose another folder with -o",
    errno.ENAMETOOLONG: "give shorter names with --filename",
    errno.EINVAL: f"if the drive does not allow such a name, {OTHER_NAME}",
    errno.EIO: "the disk or network drive fails: choose another folder with -o",
    errno.ENODEV: DRIVE_GONE,
    errno.ENXIO: DRIVE_GONE,
    errno.ENOTCONN: DRIVE_GONE,
    errno.ESTALE: DRIVE_GONE,
    # The error of a call during which a FUSE drive ended.
    errno.ECONNABORTED: DRIVE_GONE,
    errno.ESPIPE: "this drive writes files from front to back only: mount it with a cache for "
    "writing (rclone: --vfs-cache-mode writes) or choose another folder with -o",
}


@contextlib.contextmanager
def explain_writing(folder: Path) -> Iterator[None]:
    """Turn errors of the operating system while writing into one clear sentence.

    Raises
    ------
    WritingError
        In their place.
    """
    try:
        yield
    except (OSError, soundfile.LibsndfileError) as error:
        if isinstance(error, OSError):
            reason, remedy = error.strerror or str(error), _remedy(error)
        else:
            reason, remedy = _reason(error), "is the disk full or read-only?"
        raise WritingError.to(folder, reason, remedy) from error


def _reason(error: soundfile.LibsndfileError) -> str:
    """The text of libsndfile for an error; it has none for a failure to close a file."""
    if error.code < 0:  # the result of the system's function
        return "libsndfile could not complete a file"
    return f"libsndfile says {str(error.error_string).rstrip('.')!r}"


def _remedy(error: OSError) -> str | None:
    """What the user can do; None if unknown."""
    remedy = REMEDIES.get(error.errno or 0)
    if sys.platform == "win32":
        names = [str(name) for name in (error.filename, error.filename2) if name]
        # Windows reports a path that is too long as missing or invalid.
        if any(len(os.path.abspath(name)) > LONGEST_FOLDER for name in names):  # noqa: PTH100
            return "its path is too long: choose a shorter -o, or shorter names with --filename"
        if error.errno == errno.EACCES:
            return f"{remedy}, or close the program that has a file there open"
    return remedy


def _takes_long_paths() -> bool:
    """Whether Windows is set to accept paths of any length from this program."""
    import ctypes

    try:
        enabled = ctypes.WinDLL("ntdll").RtlAreLongPathsEnabled  # type: ignore[attr-defined]
    except AttributeError:  # before Windows 10
        return False
    enabled.restype = ctypes.c_ubyte
    return bool(enabled())


def _is_too_long(target: Path) -> bool:
    """Whether Windows refuses a path for its length, which it would do after the separation."""
    path = os.path.abspath(target)  # noqa: PTH100
    folder = os.path.dirname(path)  # noqa: PTH120
    is_long = len(path) > LONGEST_PATH or len(folder) > LONGEST_FOLDER
    return is_long and not path.startswith("\\\\?\\") and not _takes_long_paths()


def _is_read_only(folder: Path) -> bool:
    """Whether a folder is on a disk that is read-only."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def check_replaceable(target: Path) -> None:
    """Raise if a path is too long, or exists and cannot be replaced by a file."""
    if sys.platform == "win32" and _is_too_long(target):
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), target)
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise AudioError(f"{target} is a folder: move it away or choose another with -o")
    if is_special(target):
        raise AudioError(
            f"{target} is a device or a pipe, which stays: choose another folder with -o"
        )
    if sys.platform == "win32":
        _check_free(target)


def _check_free(target: Path) -> None:
    """Raise if Windows would not replace a file: it is read-only, or a player has it open.

    With one such stem, stems of two runs would be mixed. The test is to rename it to itself.
    """
    if not os.access(target, os.W_OK):
        raise AudioError(f"{target} is read-only: make it writable, or choose another with -o")
    try:
        target.rename(target)
    except PermissionError as error:
        raise AudioError(
            f"{target} cannot be replaced while another program has it open: close it there, or "
            "choose another folder with -o"
        ) from error


def check_targets(targets: Sequence[Path]) -> None:
    """Refuse targets that cannot be written, as far as that is known without writing.

    Raises
    ------
    AudioError
        If a folder cannot be created or written to, or a file cannot have that name.
    """
    for target in targets:
        with explain_writing(target.parent):
            folder = _existing_folder(target)
            if not folder.is_dir():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), folder)
            if not os.access(folder, os.W_OK | os.X_OK):
                code = errno.EROFS if _is_read_only(folder) else errno.EACCES
                raise OSError(code, os.strerror(code), folder)
            check_replaceable(target)
            for part in target.relative_to(folder).parts:
                with contextlib.suppress(FileNotFoundError):
                    (folder / part).lstat()  # raises for names that are too long


def _existing_folder(target: Path) -> Path:
    """The nearest existing folder above a file; FileNotFoundError if there is none."""
    for folder in target.parents:
        if os.path.lexists(folder):
            return folder
    # For instance because the drive does not exist.
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target.parent)


def check_names(targets: Sequence[Path]) -> None:
    """Refuse names that a drive refuses; see `refused_name`.

    Raises
    ------
    AudioError
        For the first such name.
    """
    new: dict[Path, dict[str, Path]] = {}
    for target in targets:
        with explain_writing(target.parent):
            place = folder = _existing_folder(target)
        for part in target.relative_to(folder).parts:
            place /= part
            new.setdefault(folder, {}).setdefault(part, place)
    for folder, places in new.items():
        if name := refused_name(places, folder):
            raise AudioError(f"{places[name]}: this drive does not allow such a name; {OTHER_NAME}")
