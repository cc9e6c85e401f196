"""Threads of our own, in which torch may be set as we need it.

How many threads torch computes with belongs to the program that we are a guest of. Each of its
threads has a number of its own; a new one begins with that which was set last, in any thread. So
here the number is set in threads that nobody else uses, and what was set last is put back.

A fork has only the thread that forked. What torch's operations share out their work to belongs
to the thread that called them, so nothing that was begun in a thread of ours is missing there.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")
# One at a time takes another number for its thread, which the others must not take for the
# host's. A fork may copy the lock while it is held, hence a limit to waiting, in seconds.
_changing = threading.Lock()
PATIENCE = 1.0


def use_threads(count: int) -> None:
    """Let torch use so many threads in the calling thread, which must be ours.

    Parameters
    ----------
    count
        At least 1.
    """
    locked = _changing.acquire(timeout=PATIENCE)
    try:
        before = torch.get_num_threads()
        if before == count:
            return
        torch.set_num_threads(count)
        # A thread that ends at once sets what new threads begin with, and nothing else.
        restore = threading.Thread(target=torch.set_num_threads, args=(before,), daemon=True)
        restore.start()
        restore.join()
    finally:
        if locked:
            _changing.release()


class OwnThread(ThreadPoolExecutor):
    """A thread that calls what it is given, while the caller waits.

    Parameters
    ----------
    threads
        Of torch.
    name
        Of the thread.
    """

    def __init__(self, threads: int, name: str) -> None:
        super().__init__(1, name, use_threads, (threads,))

    def call(self, run: Callable[..., T], *arguments: Any) -> T:
        """What ``run(*arguments)`` returns or raises."""
        return self.submit(run, *arguments).result()
