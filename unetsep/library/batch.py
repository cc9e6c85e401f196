"""Songs of a run, several at a time: some are decoded or encoded while others are computed.

Each song has a thread of its own, and all share the threads that run the network, so that
the stems have the same bytes however many songs there are at a time. A song that is to end
is asked to at its next block; one that does not hear, because its decoder hangs, is left
behind: its thread can no longer write anything, and the run goes on without it.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ..dsp.segments import MAX_WORKERS, SegmentPool, segment_pool
from ..dsp.song_stream import Progress
from ..dsp.threads import thread_count
from ..files import FileOptions, SeparationReport
from ..unfinished import TICK, uninterrupted
from .log import now, song_status
from .memory import available_memory, free_memory
from .songs import Job, Shared, separate_song, stopped_reports
from .stopwatch import Stopwatch

# Seconds that a song has to end after it was asked to. A block takes a second or two.
GRACE = 10.0
# Bytes that a song takes beside those of the first: segments on their way, blocks that wait.
SONG_BYTES = 700 << 20
# And for each further pass.
PASS_BYTES = 200 << 20
# Typical bytes of a second of music, for a guess at lengths that opens no file.
LOSSLESS_RATE, LOSSY_RATE = 120_000, 24_000
LOSSLESS = frozenset(".wav .wave .bwf .rf64 .w64 .flac .aif .aiff .aifc .caf .au .ape .wv".split())  # noqa: SIM905
# Songs shorter than this hold few segments, which keep few threads busy.
SHORT_SECONDS = 60.0


@dataclass(frozen=True)
class SongOutcome:
    """A song that has ended.

    Parameters
    ----------
    job
        The song.
    reports
        What became of it, with each model.
    begun
        When its work began, in UTC.
    line
        What the log is to say of it, if that was found out elsewhere.
    """

    job: Job
    reports: list[SeparationReport]
    begun: datetime
    line: dict[str, Any] | None = None


class Listener:
    """What wants to know of songs while they are separated; methods are called from threads."""

    def begin(self, job: Job) -> Progress | None:  # noqa: ARG002
        """Work on a song begins; the callback that gets its progress."""
        return None

    def failed(self, error: Exception) -> None:
        """What became the error of a report."""


def check_timeout(timeout: float | None) -> None:
    """Refuse what is no time limit in seconds; None is none.

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
    """Separate songs and yield what became of each as soon as it has ended.

    Close the iterator, or exhaust it: then no thread of a song is left but such as hang.

    Parameters
    ----------
    jobs
        The songs.
    options
        See `separate_song`.
    at_once
        How many are worked on at the same time. With one, they end in their order.
    timeout
        Seconds after which a song is given up, if it has not ended.
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


class _Task:
    """One song with its thread.

    Parameters
    ----------
    job
        The song.
    run
        What separates it, given what the songs share.
    shared
        See `Shared`.
    ended
        Gets this task at its end.
    started
        By the watch of the time limit, in seconds.
    """

    def __init__(
        self,
        job: Job,
        run: Callable[[Job, Shared], list[SeparationReport]],
        shared: Shared,
        ended: queue.Queue[_Task],
        started: float,
    ) -> None:
        self.job, self.begun, self.started = job, now(), started
        self.shared = shared
        self.reports: list[SeparationReport] | None = None
        self.error: BaseException | None = None
        self._work, self._ended = run, ended
        self.thread = threading.Thread(target=self._run, name=f"song {job.song.path}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.reports = self._work(self.job, self.shared)
        except BaseException as error:  # to be raised where the run is, whatever it is
            self.error = error
        self._ended.put(self)


class _Batch:
    """Songs that are worked on."""

    def __init__(
        self,
        options: FileOptions,
        pool: SegmentPool | None,
        timeout: float | None,
        listener: Listener,
    ) -> None:
        self._options, self._pool = options, pool
        self._timeout, self._listener = math.inf if timeout is None else timeout, listener
        self._ended: queue.Queue[_Task] = queue.Queue()
        self._watch = Stopwatch()
        self._tidied: set[Path] = set()
        self.running: list[_Task] = []

    def begin(self, job: Job) -> None:
        """Let a thread work on a song."""
        shared = Shared(self._pool, tidied=self._tidied)
        with uninterrupted():  # `end` must know of every thread
            started = self._watch.look()
            self.running.append(_Task(job, self._separate, shared, self._ended, started))

    def _separate(self, job: Job, shared: Shared) -> list[SeparationReport]:
        progress = self._listener.begin(job)
        return separate_song(job, self._options, progress, self._listener.failed, shared)

    def next(self) -> SongOutcome:
        """Wait for the next song that ends, or whose time is over."""
        while True:
            with contextlib.suppress(queue.Empty):
                task = self._ended.get(timeout=TICK)
                if task in self.running:  # else it was left behind
                    return self._outcome(task)
            seconds = self._watch.look()
            for task in self.running:
                over = seconds - task.started - self._timeout
                if over > 0:
                    task.shared.stop.set()
                if over > GRACE:
                    return self._outcome(task)

    def _outcome(self, task: _Task) -> SongOutcome:
        self.running.remove(task)
        if task.error is not None:
            raise task.error
        reports = task.reports
        # A song that came to its end just in time has stems.
        if reports is None or (task.shared.stop.is_set() and song_status(reports) == "error"):
            reports = stopped_reports(task.job, f"took longer than {self._timeout:g} s")
        return SongOutcome(task.job, task.job.present(reports), task.begun)

    def end(self) -> None:
        """End what is being worked on, without leaving anything."""
        for task in self.running:
            task.shared.stop.set()
        end = time.monotonic() + GRACE
        for task in self.running:
            while task.thread.is_alive() and time.monotonic() < end:
                task.thread.join(TICK)


def choose_songs_at_once(jobs: Sequence[Job]) -> int:
    """How many songs to work on at the same time, by cores, memory and their lengths.

    With one core, nothing can overlap. Two songs are enough to decode and encode one while the
    other is computed; of short songs, whose few segments leave threads idle, it takes more. So
    does a GPU, which computes faster than one thread reads and another writes; there songs share
    its memory, too. Songs that are yet to be fetched may be long, and their stems fill the disk:
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
    wanted = min(threads, MAX_WORKERS) + 1 if short or by_gpu else 2
    passes = max((part.separator.passes for part in jobs[0].parts), default=1)
    each = SONG_BYTES + (passes - 1) * PASS_BYTES
    room = [available_memory(), *map(free_memory, devices)]
    fits = [memory // each for memory in room if memory is not None]
    return max(1, min(wanted, len(jobs), *fits))


def guess_seconds(path: Path) -> float | None:
    """About how long a song is, by its size; None if it is not there."""
    try:
        size = path.stat().st_size
    except OSError:
        return None
    lossless = path.suffix.lower() in LOSSLESS
    return size / (LOSSLESS_RATE if lossless else LOSSY_RATE)
