"""Bars of the songs that are being separated, under a line about all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..dsp.song_stream import Progress
from ..library.batch import Listener, SongOutcome
from ..library.songs import Job
from .terminal import duration, speed

# Columns of a bar, and of a song's name, where the terminal has room.
BAR, NAME = 40, 48
# Seconds before a guess of the time that is left is worth anything.
FIRST_GUESS = 3.0


def printable(text: str) -> str:
    """A name without what would move the cursor, or what terminals cannot show."""
    return "".join(c if c.isprintable() else "?" for c in text)


@dataclass
class _Row:
    """A song that is being separated: seconds done and in total."""

    name: str
    bytes: int
    done: float = 0.0
    total: float | None = None

    @property
    def share(self) -> float:
        return min(1.0, self.done / self.total) if self.total else 0.0


class Bars(Listener):
    """What is going on, at the foot of a terminal; use as a context manager.

    Parameters
    ----------
    console
        Where it is shown, if that is a terminal and not quiet. Lines that are printed there
        meanwhile appear above.
    jobs
        All songs.
    tell_failure
        Called with what becomes the error of a song.
    """

    def __init__(
        self, console: Console, jobs: Sequence[Job], tell_failure: Callable[[Exception], None]
    ) -> None:
        self._tell_failure = tell_failure
        self._sizes = {id(job): size(job.song.path) for job in jobs}
        self._songs, self._ended = len(jobs), 0
        # Bytes of songs that are still to be separated, and of those that were.
        self._left, self._done, self._seconds = sum(self._sizes.values()), 0, 0.0
        self._rows: dict[int, _Row] = {}
        self._lock, self._began = threading.Lock(), time.monotonic()
        shown = console.is_terminal and not console.quiet and not console.is_dumb_terminal
        live = Live(self, console=console, transient=True, refresh_per_second=8)
        self._live = live if shown else None

    def __enter__(self) -> Bars:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def begin(self, job: Job) -> Progress:
        """A bar for a song."""
        row = _Row(printable(job.name), self._sizes[id(job)])
        with self._lock:
            self._rows[id(job)] = row

        def advance(done: float, total: float | None) -> None:
            row.done, row.total = done, total

        return advance

    def on_error(self, error: Exception) -> None:
        """A song has failed, and will end."""
        self._tell_failure(error)

    def end(self, outcome: SongOutcome) -> None:
        """A song has ended; its bar goes."""
        with self._lock:
            self._rows.pop(id(outcome.job), None)
            self._ended += 1
            bytes_ = self._sizes[id(outcome.job)]
            self._left -= bytes_
            if any(report.status == "ok" for report in outcome.reports):
                self._done += bytes_
                self._seconds += max(report.seconds or 0.0 for report in outcome.reports)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            rows = list(self._rows.values())
        if self._songs > 1:
            text = Text("  ".join(self._fitting(rows, options.max_width)), no_wrap=True)
            text.truncate(options.max_width, overflow="ellipsis")
            yield text
        if rows:
            yield _table(rows, options.max_width)

    def _fitting(self, rows: Sequence[_Row], width: int) -> Iterator[str]:
        """What there is to say of all songs, as far as there is room."""
        for words in self._words(rows):
            width -= len(words) + 2
            if width < -2:
                return
            yield words

    def _words(self, rows: Sequence[_Row]) -> Iterator[str]:
        count = f"{self._ended} of {self._songs}"
        elapsed = time.monotonic() - self._began
        running = sum(row.bytes * row.share for row in rows)
        worked = self._done + running
        if elapsed < FIRST_GUESS or not worked:
            yield count
            return
        yield f"{count}, {duration((self._left - running) * elapsed / worked)} left"
        audio = self._seconds + sum(row.done for row in rows)
        yield speed(audio / elapsed)


def size(path: Path) -> int:
    """Bytes of a song, for shares of the work; 1 if it is not there."""
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1


def _table(rows: Sequence[_Row], width: int) -> Table:
    """Name, bar and percentage of each song, one line each."""
    name = min(NAME, max(8, width // 2 - 4), max(len(row.name) for row in rows))
    bar = max(4, min(BAR, width - name - 7))
    table = Table.grid(padding=(0, 1))
    table.add_column(width=name, no_wrap=True, overflow="ellipsis")
    table.add_column(width=bar)
    table.add_column(width=4, justify="right", no_wrap=True)
    for row in rows:
        done = ProgressBar(total=1.0, completed=row.share, width=bar, pulse=row.total is None)
        share = f"{100 * row.share:.0f}%" if row.total else ""
        table.add_row(Text(row.name), done, share)
    return table
