"""What the commands print, also after the reader has closed the stream."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from typing import Any, TextIO

from rich.console import Console

# Categories of Unicode: control characters, halves of characters, breaks of lines.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")


def printable(text: str) -> str:
    """A text with escapes for control characters, which names of files may hold."""
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in UNPRINTABLE else c for c in text)


class Messages(Console):
    """A console on stderr for plain text, which goes silent when stderr is closed.

    Control characters are escaped. Each object is a line.

    Parameters
    ----------
    quiet
        Print nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(
            stderr=True,
            quiet=quiet,
            highlight=False,
            soft_wrap=True,
            markup=False,  # [live] may be part of a name
            emoji=False,  # as :fire: may
        )

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; a closed stderr must not end the work."""
        lines = [printable(each) if isinstance(each, str) else each for each in objects]
        try:
            super().print(*lines, sep="\n", **options)
        except (OSError, ValueError):
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Print nothing more; rich would end the process."""
        self.quiet = True
        silence(sys.stderr)


def can_draw(console: Console) -> bool:
    """Whether bars can be drawn and erased: on a terminal that can do more than lines."""
    return console.is_terminal and not console.is_dumb_terminal and not console.quiet


def table_console() -> Console:
    """A console on stdout for tables, 200 columns wide unless a terminal sets the width."""
    terminal = sys.stdout is not None and sys.stdout.isatty()  # None: closed at the start
    return Console(width=None if terminal else 200, highlight=False, markup=False, emoji=False)


def silence(stream: TextIO | None) -> None:
    """Redirect a stream whose reader is gone to the null device, so closing it is no error."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)


class Lines:
    """Lines on stdout for other programs, which may close it."""

    def __init__(self) -> None:
        self.failure: str | None = None
        self._stream = sys.stdout  # may be replaced later for what libraries print
        with contextlib.suppress(AttributeError, ValueError):
            # File names may contain bytes that are no text: they are written unchanged, unless
            # PYTHONIOENCODING sets another error handler.
            if self._stream.errors == "strict":
                self._stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]

    def write(self, line: str) -> None:
        """Write a line; after the first failure, which is stored, write nothing."""
        if self.failure:
            return
        try:
            if self._stream is None:
                self.failure = "it is closed"
                return
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            self.failure = getattr(error, "strerror", None) or str(error)
            silence(self._stream)


def duration(seconds: float) -> str:
    """A duration as text: ``45 s``, ``3 min``, ``2 h 5 min``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def speed(times: float) -> str:
    """Seconds of audio per second as text: ``0.3x real time``, ``31x real time``."""
    return f"{times:.0f}x real time" if times >= 9.95 else f"{times:.2g}x real time"
