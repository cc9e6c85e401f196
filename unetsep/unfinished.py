"""Work that has begun, and must be finished or taken back whatever signal comes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Result = TypeVar("Result")

# Signals that ask a process to end, and let it clean up: Ctrl-C, a polite kill, a terminal that
# was closed and Ctrl-Break, which is the polite kill of Windows. No system has all of them.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
# Seconds between looks for Ctrl-C on Windows, where waiting hears nothing.
TICK = 0.2
# What takes back work that has begun: methods of objects that have files of their own.
# In the order in which it began.
_unfinished: dict[Callable[[], None], None] = {}


def begin(undo: Callable[[], None]) -> None:
    """Note what takes some work back, until `end`; it may be called more than once."""
    _unfinished[undo] = None


def end(undo: Callable[[], None]) -> None:
    """The work is finished, or taken back."""
    _unfinished.pop(undo, None)


def take_back() -> None:
    """Take all back that is unfinished, the latest first, before a process ends at once.

    Context managers do so, unless a signal comes just when they have begun to.
    """
    while _unfinished:
        undo, _ = _unfinished.popitem()
        with contextlib.suppress(OSError):
            undo()


def ignore_signals() -> None:
    """From here on no signal of `ENDING` does anything."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def as_they_end(futures: Iterable[Future[Result]]) -> Iterator[Future[Result]]:
    """Futures as they end; Ctrl-C is heard meanwhile, on Windows too.

    `concurrent.futures.as_completed` waits without limit, or gives up at one.
    """
    from concurrent.futures import FIRST_COMPLETED, wait

    running = set(futures)
    while running:
        ended, running = wait(running, TICK, FIRST_COMPLETED)
        yield from ended


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C, a polite kill and a closed terminal back until the end of a short block.

    Python raises their exceptions between any two instructions, so also between making a file
    and noting that it was made. Other threads than the main one get none, and nothing is done.

    Examples
    --------
    >>> with uninterrupted():
    ...     pass
    """
    came: list[int] = []
    before: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                handler = signal.getsignal(number)
                if callable(handler):
                    before[number] = handler
                    signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for other in came:
            signal.raise_signal(other)
