"""Threads of our own, in which torch may be set as we need it.

How many threads torch computes with belongs to the program that we are a guest of. Each of its
threads has a number of its own; a new one begins with that which was set last, in any thread. So
here the number is set in threads that nobody else uses, and what was set last is put back.

So for a moment new threads would begin with a number of ours. Whoever asks for his number here
waits for the end of that moment, and so does a fork; a thread that calls us asks before it
computes. Only one that computes for the first time in its life without us can meet it.

A fork has only the thread that forked. What torch's operations share out their work to belongs
to the thread that called them, so nothing that was begun in a thread of ours is missing there.

On a GPU we compute in the caller's thread: `without_autocast` sets aside what it has set.
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
# Held while new threads would begin with a number of ours. It can be taken again by a thread that
# has it: a signal's handler may fork.
_changing = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_changing.acquire,
        after_in_parent=_changing.release,
        after_in_child=_changing.release,
    )


def thread_count() -> int:
    """How many threads torch uses in the calling thread.

    A new thread keeps from its first question on what it is told.
    """
    with _changing:
        return torch.get_num_threads()


def use_threads(count: int) -> None:
    """Let torch use so many threads in the calling thread, which must be ours.

    Parameters
    ----------
    count
        At least 1.
    """
    with _changing:
        before = torch.get_num_threads()
        if before == count:
            return
        torch.set_num_threads(count)
        # A thread that ends at once sets what new threads begin with, and nothing else.
        restore = threading.Thread(target=torch.set_num_threads, args=(before,), daemon=True)
        restore.start()
        restore.join()


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
        thread_count()  # the caller may be a new thread of the host
        super().__init__(1, name, use_threads, (threads,))

    def call(self, run: Callable[..., T], *arguments: Any) -> T:
        """What ``run(*arguments)`` returns or raises."""
        return self.submit(run, *arguments).result()


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within this torch computes with the types of numbers that it is given.

    A GPU's songs are computed in the caller's thread, which may be within autocast: a validation
    is, where a network is trained in half precision. A network that separates chooses its types
    itself, and writes into memory of those types.
    """
    # Not on Apple's GPU before torch 2.5.
    if not torch.amp.autocast_mode.is_autocast_available(device.type):
        return contextlib.nullcontext()
    return torch.autocast(device.type, enabled=False)
