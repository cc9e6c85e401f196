"""Threads around one song: reading ahead, writing in the background."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
# Blocks, of some 10 seconds each, in the queue between two threads.
WAITING = 2


class ReadAhead(Generic[T]):
    """The items of an iterable, fetched in advance by a thread.

    Use as a context manager: on exit the thread has stopped using the iterable.

    Parameters
    ----------
    source
        Its errors are raised again in the consumer.
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
    """Calls that a thread makes in order, while the caller continues.

    Use as a context manager. On exit no call is running: all calls were made, or after an
    error the queued ones were dropped. An error of a call is raised by the next `call`, or
    on exit.
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
        """Queue ``run(*arguments)``; blocks while `WAITING` calls are queued."""
        if self._error is not None:
            raise self._error
        self._calls.put((run, arguments))

    def __enter__(self) -> BackgroundWriter:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and self._error is None:
            self._error = error  # queued calls are dropped
        self._calls.put(None)
        self._thread.join()
        if error is None and self._error is not None:
            raise self._error
