"""The queue of the app: jobs that wait, run or are done.

Everything here runs in one asyncio loop, so no locks are needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..errors import UnetsepError
from ..stopwatch import Stopwatch
from ..storage import open_atomically
from .choices import JobChoice
from .folder import size_of
from .process import CRASHED, WorkerError, WorkerProcess

PERIOD = 5.0  # s between checks for expired jobs
RETRY = 10  # s after which a client may retry, if the queue is full
RECENT = 600  # s from the last use of a finished job in which no other may take its disk space
PLAYER_SHARE = 0.1  # of the progress bar
FINAL_STATES = ("done", "failed")
MISTAKE = "the app failed unexpectedly: its log says why"
ID = r"[A-Za-z0-9_-]{22,64}"  # at least as long as ours: shorter ids could be guessed
MAX_FINISHED = 1000  # finished jobs that are kept; failed ones take no disk space


class RefusedError(UnetsepError):
    """A job that is not accepted.

    Parameters
    ----------
    message
        Why, for the user.
    status
        HTTP status of the response.
    reason
        One word for the metrics.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn errors of the disk into `RefusedError`.

    Parameters
    ----------
    what
        Name of what is written, for the message.

    Raises
    ------
    RefusedError
        If writing fails.
    """
    try:
        yield
    except OSError as error:
        raise RefusedError(f"{what} could not be written: {error.strerror}", 507, "disk") from error


@dataclass(frozen=True)
class JobLimits:
    """Limits of the app.

    Parameters
    ----------
    upload_bytes
        Largest upload.
    queue
        Songs that may be uploading or waiting; more are refused. Two for each core are plenty.
    seconds
        Time to separate one song, and to upload one.
    keep_seconds
        Longest time from the last use of a finished job to its removal.
    disk_bytes
        Disk space of all jobs together.
    silence
        Seconds without a byte after which an upload times out.
    """

    upload_bytes: int = 500_000_000
    queue: int = 20
    seconds: float = 3600.0
    keep_seconds: float = 86_400.0
    disk_bytes: int = 20_000_000_000
    silence: float = 30.0


@dataclass
class SeparationJob:
    """One song on its way through the app.

    Parameters
    ----------
    id
        A secret: anyone who knows it may see and remove the job.
    folder
        Contains all files of the job and nothing else.
    state
        ``uploading``, ``queued``, ``running``, ``done`` or ``failed``.
    bytes
        Disk space in use or reserved.
    stems
        Path of each stem.
    files
        Files that may be downloaded: path in the address to path on the disk.
    start_time, last_used
        By `time.monotonic`; 0.0 before the worker starts.
    task
        Its separation by the worker, once that was requested.
    """

    id: str
    folder: Path
    name: str = ""
    choice: JobChoice | None = None
    state: str = "uploading"
    stage: str = ""
    progress: float | None = 0.0
    bytes: int = 0
    error: str | None = None
    report: dict[str, Any] = field(default_factory=dict)
    stems: dict[str, Path] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    start_time: float = 0.0
    last_used: float = field(default_factory=time.monotonic)
    task: asyncio.Task[dict[str, Any]] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    zipping: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def worker_id(self) -> str:
        """The worker's name of the job; an id may be reused after its job was removed."""
        return self.folder.name

    @property
    def source(self) -> Path:
        """Path of the upload, which contains nothing of the client's file name."""
        return self.folder / "upload"

    @property
    def seconds_left(self) -> float | None:
        """Estimated from the speed so far."""
        if self.state != "running" or not self.progress or self.progress < 0.02:
            return None
        return round((time.monotonic() - self.start_time) * (1 / self.progress - 1), 1)

    def advance(self, stage: str, share: float) -> None:
        """Apply the worker's progress."""
        assert self.choice is not None
        if not self.start_time:
            self.start_time = time.monotonic()
        first = 1 - PLAYER_SHARE if self.choice.player else 1.0
        total = first * share if stage == "separating" else first + (1 - first) * share
        self.stage, self.progress = stage, total if share >= 0 else None

    def fail(self, error: str) -> None:
        """Mark the job as failed; the first reason counts."""
        self.error = self.error or error
        self.state = "failed"

    def finish(self, report: Mapping[str, Any]) -> None:
        """Apply the worker's report, and list the files that may be downloaded."""
        self.report = dict(report)
        self.stems = {name: self.folder / "stems" / file for name, file in report["stems"].items()}
        self.files = {f"stems/{path.name}": path for path in self.stems.values()}
        player = self.folder / "player"
        for path in player.rglob("*"):
            if path.is_file():
                self.files[f"player/{path.relative_to(player).as_posix()}"] = path
        # A limit may have been reached while the last bytes were written: the job is done anyway.
        self.progress, self.state, self.error = 1.0, "done", None


class JobMetrics:
    """Metrics since the start, for Prometheus, without names of songs."""

    def __init__(self, queue: JobQueue) -> None:
        self.registry = CollectorRegistry()
        options: dict[str, Any] = {"registry": self.registry}
        self.jobs = Counter("unetsep_jobs", "Jobs that ended.", ["outcome"], **options)
        self.refused = Counter("unetsep_refused", "Requests refused.", ["reason"], **options)
        self.uploaded = Counter("unetsep_upload_bytes", "Bytes received.", **options)
        self.audio = Counter("unetsep_audio_seconds", "Seconds of sound separated.", **options)
        self.seconds = Histogram(
            "unetsep_separation_seconds",
            "Seconds from the start of a separation to its end.",
            buckets=(1, 3, 10, 30, 100, 300, 1000, 3600),
            **options,
        )
        waiting = Gauge("unetsep_jobs_waiting", "Jobs uploaded or queued.", **options)
        waiting.set_function(lambda: queue.waiting)
        running = Gauge("unetsep_jobs_running", "Jobs being separated.", **options)
        running.set_function(lambda: queue.count("running"))
        disk = Gauge("unetsep_disk_bytes", "Bytes of all jobs.", **options)
        disk.set_function(lambda: queue.bytes)
        for outcome in (*FINAL_STATES, "cancelled"):
            self.jobs.labels(outcome)


class JobQueue:
    """Jobs that a worker processes one after another.

    Parameters
    ----------
    folder
        Parent of the jobs' folders.
    worker
        The process that separates.
    limits
        Limits of the app.
    """

    def __init__(self, folder: Path, worker: WorkerProcess, limits: JobLimits) -> None:
        self._folder, self._worker, self.limits = folder, worker, limits
        self.jobs: dict[str, SeparationJob] = {}  # by id, in the order in which they came
        self._ready = asyncio.Event()
        self.closed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.metrics = JobMetrics(self)

    def start(self) -> None:
        """Start to process jobs."""
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._expire())]

    async def close(self) -> None:
        """Drop all jobs and end the worker, within seconds."""
        self.closed.set()  # first, so that clients that wait for a job are told why it ended
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.kill()

    # State

    @property
    def healthy(self) -> bool:
        """Whether jobs are processed; a worker that died is restarted for the next job."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def waiting(self) -> int:
        """Number of songs that are uploading or queued."""
        return self.count("uploading") + self.count("queued")

    @property
    def bytes(self) -> int:
        """Disk space in use or reserved."""
        return sum(job.bytes for job in self.jobs.values())

    def count(self, state: str) -> int:
        """Number of jobs in a state."""
        return sum(job.state == state for job in self.jobs.values())

    def get(self, id_: str) -> SeparationJob | None:
        """A job by its id; its removal is postponed."""
        job = self.jobs.get(id_)
        if job is not None:
            job.last_used = time.monotonic()
        return job

    def songs_ahead(self, job: SeparationJob) -> int | None:
        """Number of songs ahead of a queued job."""
        if job.state != "queued":
            return None
        queued = [other for other in self.jobs.values() if other.state == "queued"]
        return queued.index(job) + self.count("running")

    # Uploads

    def add(self, bytes_: int, id_: str | None = None) -> SeparationJob:
        """Add a job for an upload.

        Parameters
        ----------
        bytes_
            Disk space to reserve: the size of the upload, or the largest allowed.
        id_
            Id chosen by the client, which can then remove the job before it reads the response.

        Raises
        ------
        RefusedError
            If the id is invalid or in use, the queue is full, or the disk is full or fails.
        """
        if id_ is None:
            id_ = secrets.token_urlsafe(16)
        if not re.fullmatch(ID, id_):
            raise RefusedError("an id must have 22 to 64 letters, digits, - or _", 422, "id")
        if id_ in self.jobs:
            raise RefusedError("there is already a job with this id", 409, "id")
        if self.waiting >= self.limits.queue:
            raise RefusedError(
                f"{self.waiting} songs are already waiting: try again later", 429, "queue"
            )
        job = SeparationJob(id_, self._folder / secrets.token_hex(8), bytes=bytes_)
        with disk_errors("the upload"):
            self._check_room(bytes_)
            job.folder.mkdir()
        self.jobs[id_] = job
        return job

    def _check_room(self, bytes_: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if not self._make_room(max(self.bytes + bytes_ - self.limits.disk_bytes, bytes_ - free)):
            raise RefusedError("there is not enough disk space: remove finished songs", 507, "disk")

    def _make_room(self, bytes_: int) -> bool:
        """Remove the longest unused finished jobs; none if that frees too little."""
        latest = time.monotonic() - RECENT
        unused = [
            job
            for job in self.jobs.values()
            if job.bytes
            and job.ended.is_set()
            and job.last_used < latest
            and not job.zipping.locked()
        ]
        if bytes_ > sum(job.bytes for job in unused):
            return False
        unused.sort(key=lambda job: job.last_used, reverse=True)
        while bytes_ > 0:
            job = unused.pop()
            bytes_ -= job.bytes
            self._forget(job)
            job.state = "removed"
            shutil.rmtree(job.folder, ignore_errors=True)
        return True

    def enqueue(self, job: SeparationJob, name: str, choice: JobChoice, bytes_: int) -> None:
        """Queue a job whose upload is complete."""
        # Jobs are queued in the order in which uploads end: a slow upload delays no other.
        del self.jobs[job.id]
        self.jobs[job.id] = job
        job.name, job.choice, job.bytes, job.state = name, choice, bytes_, "queued"
        self.metrics.uploaded.inc(bytes_)
        self._ready.set()

    def _is_listed(self, job: SeparationJob) -> bool:
        """Whether a job is still listed; by now its id may belong to another."""
        return self.jobs.get(job.id) is job

    def _forget(self, job: SeparationJob) -> bool:
        """Remove a job from the list; whether it was listed."""
        listed = self._is_listed(job)
        if listed:
            del self.jobs[job.id]
        return listed

    async def remove(self, job: SeparationJob) -> None:
        """Cancel a job if it is not done, and remove its files.

        The files of an upload in progress are removed by its receiver, with `give_up`.
        """
        if not self._forget(job):
            return
        if job.state == "uploading":
            job.ended.set()
            return
        if job.state in ("queued", "running"):
            job.error = "the song was removed before it was done"
            self.metrics.jobs.labels("cancelled").inc()
        if job.task is not None and not job.ended.is_set():
            await self._worker.cancel(job.worker_id, job.task)
            await job.ended.wait()  # until then its folder is in use
        job.state = "removed"
        job.ended.set()
        async with job.zipping:  # as above
            await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def give_up(self, job: SeparationJob) -> None:
        """Remove the job of an upload that will not be completed."""
        self._forget(job)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    # Processing

    async def _work(self) -> None:
        while True:
            job = next((job for job in self.jobs.values() if job.state == "queued"), None)
            if job is None:
                self._ready.clear()
                await self._ready.wait()
            else:
                await self._process(job)

    async def _process(self, job: SeparationJob) -> None:
        job.state = "running"
        start = time.monotonic()
        try:
            await self._run(job)
            await asyncio.to_thread(self._tidy, job)
        except Exception:  # or the rest of the queue would wait forever
            logging.getLogger(__name__).exception("a song could not be separated")
            job.fail(MISTAKE)
            await self._worker.kill()  # its state is unknown; the next job restarts it
        finally:
            job.last_used = time.monotonic()
            job.ended.set()
        self._update_metrics(job, time.monotonic() - start)

    async def _run(self, job: SeparationJob) -> None:
        assert job.choice is not None
        request = job.choice.to_request() | {
            "job": job.worker_id,
            "source": str(job.source),
            "folder": str(job.folder),
            "name": job.name,
        }
        task = job.task = asyncio.create_task(self._worker.run(request, job.advance))
        watch = asyncio.create_task(self._watch(job, task))
        try:
            job.finish(await task)
        except WorkerError as error:
            reason = job.error or self._anonymize(str(error), job)  # limits name no song
            job.fail(str(error))
            if self._is_listed(job):  # else its sender has removed it
                logging.getLogger(__name__).warning("a song failed: %s", reason)
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    def _anonymize(self, error: str, job: SeparationJob) -> str:
        """The worker's error for the log: without the song's name, with the exit status."""
        if error == CRASHED:
            return f"{CRASHED} (exit status {self._worker.status})"
        # Only as whole words: a song may be called "e".
        return re.sub(rf"(?<!\w){re.escape(job.name)}(?!\w)", "the file", error)

    def _tidy(self, job: SeparationJob) -> None:
        """Remove everything but the results."""
        if job.state == "failed":
            shutil.rmtree(job.folder, ignore_errors=True)
        # If a network drive is gone, the job has failed for that reason.
        with contextlib.suppress(OSError):
            job.source.unlink(missing_ok=True)
        job.bytes = size_of(job.folder)

    def _update_metrics(self, job: SeparationJob, seconds: float) -> None:
        if not self._is_listed(job):  # removed meanwhile, and already counted
            return
        self.metrics.jobs.labels(job.state).inc()
        if job.state == "done":
            self.metrics.seconds.observe(seconds)
            self.metrics.audio.inc(job.report["seconds"])

    async def _watch(self, job: SeparationJob, task: asyncio.Task[dict[str, Any]]) -> None:
        """Cancel a job that takes too much time or disk space."""
        watch = Stopwatch()
        while True:
            job.bytes = await asyncio.to_thread(size_of, job.folder)
            seconds = watch.look()
            if seconds >= self.limits.seconds:
                job.error = f"it took longer than {self.limits.seconds / 60:g} minutes"
            elif not self._make_room(self.bytes - self.limits.disk_bytes):
                job.error = "its stems need more disk space than there is: remove finished songs"
            else:
                await asyncio.sleep(min(1.0, self.limits.seconds - seconds))
                continue
            await self._worker.cancel(job.worker_id, task)
            return

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(max(0.1, min(PERIOD, self.limits.keep_seconds / 2)))
            oldest = time.monotonic() - self.limits.keep_seconds
            jobs = [job for job in self.jobs.values() if job.ended.is_set()]
            jobs.sort(key=lambda job: job.last_used, reverse=True)
            for index, job in enumerate(jobs):
                if job.last_used < oldest or index >= MAX_FINISHED:
                    await self.remove(job)

    # Results

    async def zip(self, job: SeparationJob) -> Path | None:
        """A zip of a job's stems, written at its first download.

        Returns
        -------
        Path or None
            None if the job was removed meanwhile.

        Raises
        ------
        RefusedError
            If there is no disk space, or it cannot be written.
        """
        path = job.folder / "stems.zip"
        async with job.zipping:
            if self._is_listed(job) and not path.exists():
                stems = {f"{job.name}/{file.name}": file for file in job.stems.values()}
                with disk_errors("the zip"):
                    bytes_ = sum(file.stat().st_size for file in stems.values())
                    self._check_room(bytes_)
                    job.bytes += bytes_  # reserved: zips of other jobs are written meanwhile
                    try:
                        await asyncio.to_thread(write_zip, stems, path)
                    finally:
                        job.bytes = size_of(job.folder)
            return path if self._is_listed(job) else None


def write_zip(files: Mapping[str, Path], path: Path) -> None:
    """Write an uncompressed zip, which appears only when complete.

    Parameters
    ----------
    files
        Name in the zip to path.
    path
        Path of the zip.
    """
    # A wrong clock may have set times before 1980, which a zip cannot hold.
    with (
        open_atomically(path) as file,
        zipfile.ZipFile(file, "w", strict_timestamps=False) as archive,
    ):
        for name, each in files.items():
            archive.write(each, name)
