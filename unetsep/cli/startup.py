"""A faster start and exit of the command line."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import io
import logging
import os
import stat
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from importlib.abc import Loader
else:  # importlib.abc takes 6 ms, and adds nothing to a loader that has all methods
    Loader = object

# Modules that importing torch loads, in a third of its time, but separating never uses: shapes
# of results for tracing and compiling, the export of programs, distributions, masked tensors
# and quantised networks.
POSTPONED = (
    "torch._meta_registrations",
    "torch.export",
    "torch.distributions",
    "torch.masked",
    "torch.quantization",
    "torch.nn.intrinsic",
    "torch.nn.qat",
    "torch.nn.quantized",
    "torch.nn.quantizable",
)
# Modules to import before others, which a postponed module would have imported: since torch 2.15.
PREREQUISITES = {"torch.func": "torch.fx"}
# First and last release of torch with which this was tested. Dependencies between modules may
# change with any release, so an untested one is imported normally.
TRIED = ((2, 4), (2, 15))


class _Postponed(ModuleType):
    """A module whose code runs when one of its attributes is first accessed."""

    def __getattr__(self, name: str) -> Any:
        # `inspect` asks every module for such names; those missing now stay missing.
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert isinstance(self.__spec__, ModuleSpec)
        loader = self.__spec__.loader
        assert isinstance(loader, _LaterLoader)
        loader.loader.exec_module(self)
        return getattr(self, name)


class _LaterLoader(Loader):
    """Creates modules without running their code."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Postponed(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing yet."""


class _Finder:
    """Finds the modules of `POSTPONED` for the import system."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in PREREQUISITES:
            import_module(PREREQUISITES[name])
        if name not in POSTPONED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LaterLoader(spec.loader)
        return spec


def is_tried(release: str) -> bool:
    """Whether a release of torch, such as ``"2.11.0+cpu"``, is one of `TRIED`."""
    first, last = TRIED
    numbers = release.split(".")[:2]
    return all(map(str.isdecimal, numbers)) and first <= tuple(map(int, numbers)) <= last


def import_torch() -> None:
    """Import torch for a process that only separates, without compiling or tracing.

    Does nothing if torch is imported already: this is for the command line, not the library.
    """
    if "torch" in sys.modules:
        return
    from importlib.metadata import PackageNotFoundError, version  # torch imports it as well

    try:
        if not is_tried(version("torch")):
            return
    except PackageNotFoundError:  # importing torch fails, or finds a torch built in place
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    gc.disable()  # a thousand modules hold no garbage, so scanning them is wasted
    try:
        import torch  # noqa: F401
    finally:
        sys.meta_path.remove(finder)
        gc.freeze()
        gc.enable()


def reopen_closed() -> None:
    """Open standard streams that were closed at the start as the null device.

    Otherwise the next file to be opened would get their descriptor, and what libraries print.
    Python's stream objects stay None, which `print` and rich handle.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # noqa: PERF203 (the lowest free number is this one)
            os.open(os.devnull, os.O_RDWR)


def unset_zero_size() -> None:
    """Treat 0 columns or lines as unknown, as others do: rich would print nothing."""
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip("0"):
            del os.environ[name]


def silence_matplotlib() -> None:
    """Keep warnings of matplotlib's own logger off stderr, such as of a home that is read-only."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)


def write_utf8() -> None:
    """Write UTF-8 to files and other programs on Windows too, as JSON and lists of names require.

    The default there is an encoding of 256 characters, which lacks most of the world's letters.
    Terminals accept all. PYTHONIOENCODING overrides this.
    """
    if os.name != "nt" or os.environ.get("PYTHONIOENCODING"):
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding="utf-8", errors=stream.errors)


def raise_broken_pipes() -> None:
    """Make writing to a closed pipe raise `BrokenPipeError` on Windows too.

    Its C library reports "Invalid argument" (https://bugs.python.org/issue19612).
    """
    for stream in (sys.stdout, sys.stderr) if os.name == "nt" else ():
        with contextlib.suppress(OSError, ValueError):  # not a real file
            if isinstance(stream, io.TextIOWrapper) and _is_pipe(stream):
                raw: Any = getattr(stream.buffer, "raw", stream.buffer)  # the same if unbuffered
                raw.write = functools.partial(_write_to_pipe, raw.write)


def _is_pipe(stream: TextIO) -> bool:
    return stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)


def _write_to_pipe(write: Callable[[bytes], int | None], data: bytes) -> int | None:
    try:
        return write(data)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from error


def leave(code: int) -> None:
    """Exit without the teardown of Python and torch, which takes half a second.

    The system frees everything at once. Files must be closed, and threads must have ended.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # None: closed at the start
                stream.flush()
    except (OSError, ValueError):  # the reader is gone: let Python report it
        return
    os._exit(code)
