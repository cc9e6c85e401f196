"""Threads around one song: reading ahead, writing behind."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# Blocks of some 10 seconds that wait between threads.
WAITING = 2


class ReadAhead(Generic[T]):
    """What an iterable gives, fetched by a thread before it is asked for.

    Use as a context manager: when it is left, the thread has let go of the iterable.

    Parameters
    ----------
    source
        Errors that it raises are raised where its items are taken.
    """

    def __init__(self, source: Iterable[T]) -> None:
        self._source = source
        self._ready: queue.Queue[tuple[str, Any]] = queue.Queue(WAITING)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._fetch, name="read ahead", daemon=True)

    def _fetch(self) -> None:
        try:
            for item in self._source:
                self._put("item", item)
                if self._stop.is_set():
                    return
        except BaseException as error:
            self._put("error", error)
        else:
            self._put("end", None)

    def _put(self, kind: str, value: Any) -> None:
        while not self._stop.is_set():
            with contextlib.suppress(queue.Full):
                self._ready.put((kind, value), timeout=0.1)
                return

    def __iter__(self) -> Iterator[T]:
        while True:
            kind, value = self._ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            yield value

    def __enter__(self) -> ReadAhead[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class BackgroundWriter:
    """Calls made one after the other by a thread, while the caller goes on.

    Use as a context manager: when it is left without an error all calls are made, else those
    that wait are dropped; no call is being made any more. What a call raises is raised by
    the next `call`, or at the end.
    """

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[Callable[..., object], tuple[Any, ...]] | None]
        self._calls = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="background writer", daemon=True)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            run, arguments = item
            if self._error is None:
                try:
                    run(*arguments)
                except BaseException as error:
                    self._error = error

    def call(self, run: Callable[..., object], *arguments: Any) -> None:
        """Have ``run(*arguments)`` called; waits while `WAITING` calls are waiting."""
        if self._error is not None:
            raise self._error
        self._calls.put((run, arguments))

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._error is None:
            self._error = error  # what waits is dropped
        self._calls.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error
