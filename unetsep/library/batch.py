"""Songs of a run, several at a time: some are decoded or encoded while others are computed.

Each song has a thread of its own, and all share the threads that run the network, so that
the stems have the same bytes however many songs run at a time. A song that must stop is
asked to at its next block. If its decoder hangs and it does not respond, the run abandons it
and continues: its thread can no longer write anything.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ..dsp.segments import MAX_WORKERS, SegmentPool, segment_pool
from ..dsp.song_stream import Progress
from ..dsp.threads import thread_count
from ..file_options import FileOptions
from ..files import SeparationReport
from ..stopwatch import Stopwatch
from ..unfinished import TICK, uninterrupted
from .log import now, song_status
from .memory import available_memory, free_memory
from .songs import Job, Shared, separate_song, stopped_reports

# Seconds that a song has to stop after it was asked to. A block takes a second or two.
GRACE = 10.0
# Bytes of memory that each further song takes: segments and blocks in queues.
SONG_BYTES = 700 << 20
# Bytes of memory for each further pass.
PASS_BYTES = 200 << 20
# Typical bytes for a second of music, to guess lengths without opening files.
LOSSLESS_RATE, LOSSY_RATE = 120_000, 24_000
LOSSLESS = frozenset(".wav .wave .bwf .rf64 .w64 .flac .aif .aiff .aifc .caf .au .ape .wv".split())  # noqa: SIM905
# Songs shorter than this have too few segments to keep many threads busy.
SHORT_SECONDS = 60.0


@dataclass(frozen=True)
class SongOutcome:
    """A song that has ended.

    Parameters
    ----------
    job
        The song.
    reports
        Its report from each model.
    start_time
        When work on it began, in UTC.
    line
        Its line for the log, if another process has made it.
    """

    job: Job
    reports: list[SeparationReport]
    start_time: datetime
    line: dict[str, Any] | None = None


class Listener:
    """Receives events of songs while they are separated; methods are called from threads."""

    def begin(self, job: Job) -> Progress | None:  # noqa: ARG002
        """Called when work on a song begins; returns the callback for its progress."""
        return None

    def on_error(self, error: Exception) -> None:
        """Called with the exception behind an error report."""


def check_timeout(timeout: float | None) -> None:
    """Refuse an invalid time limit in seconds; None means no limit.

    Raises
    ------
    ValueError
        If it is not positive.
    """
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be more than 0 seconds, got {timeout:g}")


def separate_songs(
    jobs: Sequence[Job],
    options: FileOptions,
    *,
    at_once: int = 1,
    timeout: float | None = None,
    listener: Listener | None = None,
) -> Generator[SongOutcome, None, None]:
    """Separate songs and yield the outcome of each as soon as it has ended.

    Close the iterator, or exhaust it: then all threads of songs have ended, unless they hang.

    Parameters
    ----------
    jobs
        The songs.
    options
        See `separate_song`.
    at_once
        How many run at the same time. With one, they end in order.
    timeout
        Seconds after which a song that has not ended is stopped.
    listener
        See `Listener`.

    Yields
    ------
    SongOutcome
        One for each song.

    Raises
    ------
    ValueError
        If the time limit is not positive.
    """
    check_timeout(timeout)
    if not jobs:
        return
    with segment_pool(jobs[0].parts[0].separator.device) as pool:
        batch = _Batch(options, pool, timeout, listener or Listener())
        try:
            for job in jobs:
                if len(batch.running) >= at_once:
                    yield batch.next()
                batch.begin(job)
            while batch.running:
                yield batch.next()
        finally:
            batch.end()


@dataclass(eq=False)
class _Task:
    """A song with its thread, which leaves reports or an error; its start by the stopwatch, too."""

    job: Job
    shared: Shared
    start_seconds: float
    start_time: datetime = field(default_factory=now)
    thread: threading.Thread = field(init=False)
    reports: list[SeparationReport] | None = None
    error: BaseException | None = None


class _Batch:
    """Songs that are being separated."""

    def __init__(
        self,
        options: FileOptions,
        pool: SegmentPool | None,
        timeout: float | None,
        listener: Listener,
    ) -> None:
        self._options, self._pool = options, pool
        self._timeout, self._listener = math.inf if timeout is None else timeout, listener
        self._finished: queue.Queue[_Task] = queue.Queue()
        self._watch = Stopwatch()
        self._tidy_folders: set[Path] = set()
        self.running: list[_Task] = []

    def begin(self, job: Job) -> None:
        """Start a thread for a song."""
        shared = Shared(self._pool, tidy_folders=self._tidy_folders)
        task = _Task(job, shared, self._watch.look())
        name = f"song {job.song.path}"
        task.thread = threading.Thread(target=self._run, args=(task,), name=name, daemon=True)
        with uninterrupted():  # `end` must know of every thread
            task.thread.start()
            self.running.append(task)

    def _run(self, task: _Task) -> None:
        job, listener = task.job, self._listener
        try:
            progress = listener.begin(job)
            task.reports = separate_song(
                job, self._options, progress, listener.on_error, task.shared
            )
        except BaseException as error:  # raised again in the thread of the run
            task.error = error
        self._finished.put(task)

    def next(self) -> SongOutcome:
        """Wait for the next song that ends or reaches its time limit."""
        while True:
            with contextlib.suppress(queue.Empty):
                task = self._finished.get(timeout=TICK)
                if task in self.running:  # else it was abandoned
                    return self._outcome(task)
            seconds = self._watch.look()
            for task in self.running:
                excess = seconds - task.start_seconds - self._timeout
                if excess > 0:
                    task.shared.stop.set()
                if excess > GRACE:
                    return self._outcome(task)

    def _outcome(self, task: _Task) -> SongOutcome:
        self.running.remove(task)
        if task.error is not None:
            raise task.error
        reports = task.reports
        # A song that ended just in time has stems.
        if reports is None or (task.shared.stop.is_set() and song_status(reports) == "error"):
            reports = stopped_reports(task.job, f"took longer than {self._timeout:g} s")
        return SongOutcome(task.job, task.job.present(reports), task.start_time)

    def end(self) -> None:
        """Stop all running songs; they leave no files."""
        for task in self.running:
            task.shared.stop.set()
        deadline = time.monotonic() + GRACE
        for task in self.running:
            while task.thread.is_alive() and time.monotonic() < deadline:
                task.thread.join(TICK)


def choose_songs_at_once(jobs: Sequence[Job]) -> int:
    """Number of songs to separate at the same time, by cores, memory and their lengths.

    With one core, nothing can overlap. Two songs are enough to decode and encode one while the
    other is computed. Short songs, whose few segments leave threads idle, need more. So does a
    GPU, which computes faster than one thread reads and another writes; there songs share its
    memory, too. Songs that are not downloaded yet may be long, and their stems fill the disk:
    they do not count as short.
    """
    threads = thread_count()
    if len(jobs) < 2 or threads < 2:
        return 1
    guesses = [guess_seconds(job.song.path) for job in jobs]
    lengths = sorted(guess for guess in guesses if guess is not None)
    short = bool(lengths) and lengths[len(lengths) // 2] < SHORT_SECONDS
    devices = {part.separator.device for part in jobs[0].parts}
    by_gpu = any(device.type == "cuda" for device in devices)
    useful = min(threads, MAX_WORKERS) + 1 if short or by_gpu else 2
    passes = max((part.separator.passes for part in jobs[0].parts), default=1)
    song_bytes = SONG_BYTES + (passes - 1) * PASS_BYTES
    memories = [available_memory(), *map(free_memory, devices)]
    limits = [memory // song_bytes for memory in memories if memory is not None]
    return max(1, min(useful, len(jobs), *limits))


def guess_seconds(path: Path) -> float | None:
    """Approximate length of a song, by its size; None if there is no such file."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    lossless = path.suffix.lower() in LOSSLESS
    return size / (LOSSLESS_RATE if lossless else LOSSY_RATE)
