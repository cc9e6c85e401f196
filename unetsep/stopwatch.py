"""Time limits that leave out the time in which this process could not run."""

from __future__ import annotations

import time

# Most seconds that count between two looks; a very busy machine may be this late.
LONGEST_LOOK = 5.0


class Stopwatch:
    """Seconds in which a process ran, for time limits.

    After Ctrl-Z and ``fg``, and on Windows after a computer's sleep, the system's clock has moved
    on, and by that clock alone all work would time out. So a waiting loop looks at the stopwatch
    again and again, and of a longer pause only 5 s count.
    """

    def __init__(self) -> None:
        self._last_look, self._seconds = time.monotonic(), 0.0

    def look(self) -> float:
        """Seconds since the start, without long pauses between looks; for one thread."""
        now = time.monotonic()
        self._seconds += min(LONGEST_LOOK, now - self._last_look)
        self._last_look = now
        return self._seconds
