"""Errors of the outside world; bad arguments raise `ValueError`."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def how_to_install(extra: str) -> str:
    """The commands that install the packages of an extra, for users and in a checkout."""
    # Double quotes, which Windows' cmd knows, too.
    return f'pip install "unetsep[{extra}]" or, in a checkout, pip install -e ".[{extra}]"'


# Words in torch's errors without a class of their own: of a CPU, of Apple's GPU, and of CUDA's
# libraries, of which cuDNN 9 writes the long word.
NO_MEMORY = ("DefaultCPUAllocator: ", "out of memory", "_ALLOC_FAILED", "_ALLOCATION_FAILED")
# End of the system loader's message if `ulimit -v` leaves no room for torch's libraries, of which
# CUDA's take 3 GB of addresses; with a reason after it the cause is another one.
NO_ROOM_TO_LOAD = "failed to map segment from shared object"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, the computer's or a GPU's."""
    if isinstance(error, RuntimeError):
        return any(words in str(error) for words in NO_MEMORY)
    if isinstance(error, ImportError):
        return str(error).endswith((NO_ROOM_TO_LOAD, "Cannot allocate memory"))
    return isinstance(error, MemoryError)


# The limit may be that of an account or of a container.
NO_THREADS = (
    "the system allows no further threads: let it allow more (ulimit -u, or pids of a container)"
)


def is_out_of_threads(error: BaseException) -> bool:
    """Whether an error means that this process may start no further thread."""
    return isinstance(error, RuntimeError) and "can't start new thread" in str(error)


class UnetsepError(Exception):
    """Base of all errors that a user can cause or cure; the message is one clear sentence."""


class AudioError(UnetsepError):
    """An audio file that cannot be read, separated or written."""


class WritingError(AudioError):
    """Files that could not be written to a folder.

    Parameters
    ----------
    message
        The whole message.
    folder
        The folder.
    reason
        Message of the system, or of the library that writes.
    """

    def __init__(self, message: str, folder: Path | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.folder, self.reason = folder, reason

    @classmethod
    def to(cls, folder: Path, reason: str, remedy: str | None = None) -> WritingError:
        """An error with the usual message, and what to do if that is known."""
        message = f"writing to {folder} failed: {reason}" + (f"; {remedy}" if remedy else "")
        return cls(message, folder, reason)


def temporary_folder_error(folder: Path, reason: str) -> UnetsepError:
    """An error for songs and stems that could not be written to the temporary folder."""
    return UnetsepError(
        f"writing to the temporary folder {folder} failed: {reason}; set TMPDIR to a folder with "
        "room for a song and its stems"
    )


class WeightsError(UnetsepError):
    """A checkpoint that is unknown, missing, damaged or does not fit its config."""


class CancelledError(UnetsepError):
    """A progress callback cancelled the work; no files are left."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Raise `ValueError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
