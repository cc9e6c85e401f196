"""A shorter start, and a shorter end, for the command line."""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import io
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

# Parts of torch that it loads while it is imported, which takes a third of that time, and does
# not look at again: shapes of results for tracing and compiling, the export of programs,
# distributions, masked tensors and quantised networks.
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
# What a part needs before it, and would have got from one that is postponed: since torch 2.15.
BEFORE = {"torch.func": "torch.fx"}
# Releases of torch with which this was tried, from the first to the last. Which part needs which
# others is torch's to change, so a release that is not known is imported as it is.
TRIED = ((2, 4), (2, 15))


class _Postponed(ModuleType):
    """A module whose code runs when one of its names is first asked for."""

    def __getattr__(self, name: str) -> Any:
        # What `inspect` asks of every module is there already, or not there at all.
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert isinstance(self.__spec__, ModuleSpec)
        loader = self.__spec__.loader
        assert isinstance(loader, _LaterLoader)
        loader.real.exec_module(self)
        return getattr(self, name)


class _LaterLoader(Loader):
    """Makes modules without running their code."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Postponed(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing, yet."""


class _Finder:
    """Finds the modules of `POSTPONED` for the import system."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in BEFORE:
            import_module(BEFORE[name])
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
    """Import torch for a process that only separates, and will not compile or trace.

    Once torch is imported this does nothing: it is for the command line, not the library.
    """
    if "torch" in sys.modules:
        return
    from importlib.metadata import PackageNotFoundError, version  # torch imports it, too

    try:
        if not is_tried(version("torch")):
            return
    except PackageNotFoundError:  # the import says so, or knows a torch that was built in place
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    gc.disable()  # a thousand modules are no garbage, and need not be looked through again
    try:
        import torch  # noqa: F401
    finally:
        sys.meta_path.remove(finder)
        gc.freeze()
        gc.enable()


def reopen_closed() -> None:
    """Open standard streams that were closed when the process began, as the null device.

    Otherwise the first file that is opened would take their place, and get what libraries
    print. Python has no object for such a stream then; `print` and rich know that.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # noqa: PERF203 (the lowest free number is this one)
            os.open(os.devnull, os.O_RDWR)


def forget_no_size() -> None:
    """Take a terminal of 0 columns for one of unknown size, as others do: rich prints nothing."""
    for name in ("COLUMNS", "LINES"):
        if not os.environ.get(name, "1").strip("0"):
            del os.environ[name]


def write_utf8() -> None:
    """Write UTF-8 to files and other programs on Windows, too: JSON is UTF-8, and lists of names.

    Its own choice is one of 256 letters, which most names in the world do not fit; terminals take
    all. PYTHONIOENCODING says otherwise.
    """
    if os.name != "nt" or os.environ.get("PYTHONIOENCODING"):
        return
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
            stream.reconfigure(encoding="utf-8", errors=stream.errors)


def name_closed_pipes() -> None:
    """Let writing to a pipe that nobody reads be a broken pipe on Windows, too.

    Its C library says of that "Invalid argument" (https://bugs.python.org/issue19612).
    """
    for stream in (sys.stdout, sys.stderr) if os.name == "nt" else ():
        with contextlib.suppress(OSError, ValueError):  # of no true file
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
    """End the process without taking Python and torch apart piece by piece.

    That takes half a second and has no effect that anybody could see: the system takes
    everything back at once. Files must be closed and threads have ended.
    """
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed when the process began
                stream.flush()
    except (OSError, ValueError):  # nobody listens any more: let Python say so as it does
        return
    os._exit(code)
