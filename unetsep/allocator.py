"""The C library's memory allocator, told to keep what it gets."""

from __future__ import annotations

import ctypes
import sys

# Parameters of mallopt(3): see malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
LARGE = 2**31 - 1
# The heap grows by this much at once; memory that is not touched costs nothing.
GROWTH = 1 << 26


def keep_freed_memory() -> bool:
    """Reuse large buffers instead of returning them to the system each time.

    Spectra and masks of a segment are buffers of many megabytes. glibc maps such buffers
    afresh for every operation, and the page faults cost more than the arithmetic: an
    inverse FFT of a segment's stems takes a third of the time without them. All threads
    share one heap, since those that glibc makes for threads end at 64 MB. It concerns the
    whole process, so only the command line and training call this, never the library.

    Returns
    -------
    bool
        Whether the allocator understood; elsewhere than on glibc nothing is done.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (M_MMAP_THRESHOLD, LARGE),
        (M_TRIM_THRESHOLD, LARGE),
        (M_TOP_PAD, GROWTH),
        (M_ARENA_MAX, 1),
    )
    return all(mallopt(parameter, value) == 1 for parameter, value in settings)
