"""Progress bars of the songs being separated, below a line about the whole run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..dsp.song_stream import Progress
from ..library.batch import Listener, SongOutcome
from ..library.songs import Job
from .terminal import can_draw, duration, printable, speed

# Most columns of a bar, and of a song's name.
BAR, NAME = 40, 48
# Seconds before an estimate of the remaining time is useful.
FIRST_ESTIMATE = 3.0
# Seconds between lines about a song where no bars can be drawn.
LINE_EVERY = 30.0


@dataclass
class _Row:
    """A song being separated: seconds done and in total, and when a line was last printed."""

    name: str
    bytes: int
    seconds_done: float = 0.0
    total: float | None = None
    line_time: float = field(default_factory=lambda: time.monotonic())

    @property
    def share(self) -> float:
        return min(1.0, self.seconds_done / self.total) if self.total else 0.0

    @property
    def percentage(self) -> str:
        """The share as text; empty if the length is unknown."""
        return f"{100 * self.share:.0f}%" if self.total else ""


class Bars(Listener):
    """Progress of a run at the foot of a terminal; use as a context manager.

    Parameters
    ----------
    console
        Where bars are shown, and lines printed meanwhile above them. Where none can be drawn, a
        song gets a line every `LINE_EVERY` seconds.
    jobs
        All songs.
    on_failure
        Called with the exception of each song that fails.
    """

    def __init__(
        self, console: Console, jobs: Sequence[Job], on_failure: Callable[[Exception], None]
    ) -> None:
        self._on_failure = on_failure
        self._sizes = {job: size(job.song.path) for job in jobs}
        self._songs, self._completed = len(jobs), 0
        # Bytes of songs yet to be separated, bytes of separated ones, and their seconds.
        self._bytes_left, self._bytes_done, self._seconds = sum(self._sizes.values()), 0, 0.0
        self._rows: dict[Job, _Row] = {}
        self._lock, self._start = threading.Lock(), time.monotonic()
        live = Live(self, console=console, transient=True, refresh_per_second=8)
        self._console, self._live = console, live if can_draw(console) else None

    def __enter__(self) -> Bars:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def begin(self, job: Job) -> Progress:
        """Add a bar for a song."""
        row = _Row(printable(job.name), self._sizes[job])
        with self._lock:
            self._rows[job] = row

        def advance(seconds: float, total: float | None) -> None:
            row.seconds_done, row.total = seconds, total
            now = time.monotonic()
            if self._live is None and now - row.line_time >= LINE_EVERY:
                row.line_time = now
                self._console.print(f"{row.name}: {row.percentage or duration(seconds)}")

        return advance

    def on_error(self, error: Exception) -> None:
        """Report the exception of a song that fails."""
        self._on_failure(error)

    def end(self, outcome: SongOutcome) -> None:
        """Remove the bar of a song that has ended."""
        with self._lock:
            self._rows.pop(outcome.job, None)
            self._completed += 1
            bytes_ = self._sizes[outcome.job]
            self._bytes_left -= bytes_
            if any(report.status == "ok" for report in outcome.reports):
                self._bytes_done += bytes_
                self._seconds += max(report.seconds or 0.0 for report in outcome.reports)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        with self._lock:
            rows = list(self._rows.values())
        if self._songs > 1:
            yield Text(self._summary(rows), no_wrap=True, overflow="ellipsis")
        if rows:
            yield _table(rows, options.max_width)

    def _summary(self, rows: Sequence[_Row]) -> str:
        """How much is done, the time left, and the speed."""
        count = f"{self._completed} of {self._songs}"
        elapsed = time.monotonic() - self._start
        current = sum(row.bytes * row.share for row in rows)
        bytes_done = self._bytes_done + current
        if elapsed < FIRST_ESTIMATE or not bytes_done:
            return count
        left = duration((self._bytes_left - current) * elapsed / bytes_done)
        audio = self._seconds + sum(row.seconds_done for row in rows)
        return f"{count}, {left} left  {speed(audio / elapsed)}"


def size(path: Path) -> int:
    """Bytes of a song, as a measure of its work; 1 if the file is missing."""
    try:
        return max(1, path.stat().st_size)
    except OSError:
        return 1


def _table(rows: Sequence[_Row], width: int) -> Table:
    """Name, bar and percentage of each song, one line each."""
    name = min(NAME, max(8, width // 2 - 4), max(cell_len(row.name) for row in rows))
    bar = max(4, min(BAR, width - name - 7))
    table = Table.grid(padding=(0, 1))
    table.add_column(width=name, no_wrap=True, overflow="ellipsis")
    table.add_column(width=bar)
    table.add_column(width=4, justify="right", no_wrap=True)
    for row in rows:
        progress = ProgressBar(total=1.0, completed=row.share, width=bar, pulse=row.total is None)
        table.add_row(Text(row.name), progress, row.percentage)
    return table
