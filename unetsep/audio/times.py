"""Times as users write them; light, since the command line parses them, too."""

from __future__ import annotations

import re

CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-9]+(?:\.[0-9]*)?)")


def as_seconds(time: float | str) -> float:
    """Seconds from a number, or from ``"90"``, ``"1:30"`` or ``"1:02:03"``.

    Parameters
    ----------
    time
        A time; its range is not checked.

    Raises
    ------
    ValueError
        If it is not a time.

    Examples
    --------
    >>> as_seconds("1:30")
    90.0
    """
    clock = CLOCK.fullmatch(time.strip()) if isinstance(time, str) else None
    try:
        if clock is None and not isinstance(time, bool):
            return float(time)
        if clock is not None:
            hours, minutes, seconds = int(clock[1] or 0), int(clock[2]), float(clock[3])
            # Only the first part may exceed 59.
            if seconds < 60 and (minutes < 60 or clock[1] is None):
                return 3600 * hours + 60 * minutes + seconds
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{time!r} is not a time: expected seconds, 1:30 or 1:02:03")
