"""Unfinished work, which must be completed or undone even if a signal comes."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from concurrent.futures import Future

Result = TypeVar("Result")

# Signals that ask a process to end and let it clean up: Ctrl-C, kill, a closed terminal, and
# Ctrl-Break, which is the kill of Windows. No system has all of them.
ENDING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")
    if hasattr(signal, name)
)
# Seconds between checks for Ctrl-C on Windows, where it does not interrupt waiting.
TICK = 0.2
# Functions that undo unfinished work, in the order of its start: methods of objects with files.
_unfinished: dict[Callable[[], None], None] = {}


def register_undo(undo: Callable[[], None]) -> None:
    """Register a function that undoes some work and may be called repeatedly."""
    _unfinished[undo] = None


def unregister_undo(undo: Callable[[], None]) -> None:
    """Unregister a function: its work is finished or undone."""
    _unfinished.pop(undo, None)


def undo_all() -> None:
    """Undo all unfinished work, the latest first, before a process ends at once.

    Context managers do so, too, unless a signal interrupts them.
    """
    while _unfinished:
        undo, _ = _unfinished.popitem()
        with contextlib.suppress(OSError):
            undo()


def ignore_signals() -> None:
    """Ignore all signals of `ENDING` from now on."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


def as_they_end(futures: Iterable[Future[Result]]) -> Iterator[Future[Result]]:
    """Futures in the order of their completion; Ctrl-C interrupts, on Windows too.

    `concurrent.futures.as_completed` waits without a timeout, or fails at it. ``wait`` looks at all
    futures each time: of 20 000 it would take half a minute.
    """
    from queue import Empty, Queue

    ended: Queue[Future[Result]] = Queue()
    running = list(futures)
    for future in running:
        future.add_done_callback(ended.put)
    count = len(running)
    while count:
        with contextlib.suppress(Empty):
            yield ended.get(timeout=TICK)
            count -= 1


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C, kill and a closed terminal until the end of a short block.

    Python raises their exceptions between any two instructions, so also between creating a file
    and registering it. Only the main thread gets them; in other threads this does nothing.

    Examples
    --------
    >>> with uninterrupted():
    ...     pass
    """
    pending: list[int] = []
    handlers: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in ENDING:
                handler = signal.getsignal(number)
                if callable(handler):
                    handlers[number] = handler
                    signal.signal(number, lambda number, _: pending.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for pending_number in pending:
            signal.raise_signal(pending_number)
