"""Blocks of a batch that fit a cache, each processed by one thread.

Torch divides every single operation among its threads, which then wait for each other. On
small arrays, or where other programs use the cores too, that waiting costs more than the
work. Here a thread processes a block in all operations, and waits once at the end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from ...dsp.threads import use_threads

Block = tuple[slice, slice]
Result = TypeVar("Result")

# Frames of a block on a CPU: its arrays then stay in the second-level cache.
BLOCK_FRAMES = 16
# With more threads Python's lock leaves nothing to gain.
MAX_THREADS = 16


def divide(clips: int, frames: int, device: torch.device) -> list[Block]:
    """Clips and frames of each block; one block for an accelerator."""
    if device.type != "cpu":
        return [(slice(0, clips), slice(0, frames))]
    return [
        (slice(clip, clip + 1), slice(start, min(start + BLOCK_FRAMES, frames)))
        for clip in range(clips)
        for start in range(0, frames, BLOCK_FRAMES)
    ]


def work_on(blocks: Sequence[Block], work: Callable[[Block], Result]) -> list[Result]:
    """Results of ``work`` in the order of the blocks, by as many threads as torch would use.

    Each block's result is the same for any number of threads.
    """
    threads = min(torch.get_num_threads(), MAX_THREADS)
    if threads == 1 or len(blocks) == 1:
        return [work(block) for block in blocks]
    return list(_pool(threads).map(work, blocks))


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "block", use_threads, (1,))
