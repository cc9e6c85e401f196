"""Threads of our own, in which we may change torch's settings.

Torch's number of threads belongs to the host program. Each of its threads has its own number, and
a new thread starts with the number that any thread set last. So we set the number only in threads
of our own, and restore the number that was set last.

In between, a new thread would start with our number. `thread_count` waits until it is restored,
and so does a fork; a thread that calls us asks for its number before it computes. Only a thread
that first computes in that moment without calling us can get our number.

A fork has only the thread that forked. Torch's worker threads belong to the thread that called
the operation, so a fork misses nothing that was started in a thread of ours.

On a GPU we compute in the caller's thread, where `without_autocast` suspends its autocast.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch

T = TypeVar("T")
# Held while new threads would start with our number. It is reentrant, since a signal handler may
# fork.
_changing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_changing.acquire,
        after_in_parent=_changing.release,
        after_in_child=_changing.release,
    )


def thread_count() -> int:
    """Number of threads that torch uses in the calling thread.

    A new thread's number is fixed by its first query.
    """
    with _changing:
        return torch.get_num_threads()


def settle_thread_count() -> None:
    """Fix the `thread_count` of the calling thread, which may not have computed yet."""
    thread_count()


def use_threads(count: int) -> None:
    """Set torch's number of threads in the calling thread, which must be our own.

    Parameters
    ----------
    count
        At least 1.
    """
    with _changing:
        previous = torch.get_num_threads()
        if previous == count:
            return
        torch.set_num_threads(count)
        # A short-lived thread changes only the number that new threads start with.
        restore = threading.Thread(target=torch.set_num_threads, args=(previous,), daemon=True)
        restore.start()
        restore.join()


class OwnThread(ThreadPoolExecutor):
    """A thread that runs functions while the caller waits.

    Parameters
    ----------
    threads
        Torch's number of threads in it.
    name
        Of the thread.
    """

    def __init__(self, threads: int, name: str) -> None:
        settle_thread_count()  # the caller may be a new thread of the host program
        super().__init__(1, name, use_threads, (threads,))

    def call(self, run: Callable[..., T], *arguments: Any) -> T:
        """Call ``run(*arguments)`` in the thread; return its result or raise its error."""
        return self.submit(run, *arguments).result()


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Disable autocast within a ``with`` block.

    On a GPU songs are computed in the caller's thread, which may be under autocast, as in the
    validation of a training in half precision. A network for inference chooses its types itself,
    and writes into memory of those types.
    """
    # Not on Apple's GPU before torch 2.5.
    if not torch.amp.autocast_mode.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
