"""Time limits that do not count the time in which this process could not work."""

from __future__ import annotations

import time

# Seconds between two looks that count at most; a machine that is very busy looks this late.
LONGEST_LOOK = 5.0


class Stopwatch:
    """Seconds in which a process ran, for limits of what it does.

    After Ctrl-Z and ``fg``, and on Windows after a computer's sleep, the system's clock has moved
    on: whoever asked it alone would give up all that could not be worked on. So whoever has a
    limit looks again and again, as from a loop that waits, and of a longer pause only 5 s count.
    """

    def __init__(self) -> None:
        self._looked, self._seconds = time.monotonic(), 0.0

    def look(self) -> float:
        """Seconds since the start, without those in which nobody looked; for one thread."""
        now = time.monotonic()
        self._seconds += min(LONGEST_LOOK, now - self._looked)
        self._looked = now
        return self._seconds
