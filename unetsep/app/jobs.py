"""The queue of the app: songs that wait, the one that is separated, those that are done.

Everything here runs in one asyncio loop, so nothing needs a lock.
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
from ..library.stopwatch import Stopwatch
from ..storage import open_atomically
from .choices import JobChoice
from .folder import size_of
from .process import WorkerError, WorkerProcess

PERIOD = 5.0  # s between two looks for jobs that are over
RETRY = 10  # s after which it is worth asking again
PLAYER_SHARE = 0.1  # of the progress bar
ENDED = ("done", "failed")
MISTAKE = "the app made a mistake: its log says more"
ID = r"[A-Za-z0-9_-]{22,64}"  # as long as our own, or it could be guessed
MOST_ENDED = 1000  # jobs that are kept when they have ended: those that failed take no room


class RefusedError(UnetsepError):
    """A job that is not taken.

    Parameters
    ----------
    message
        Why, for the user.
    status
        Of the answer in HTTP.
    reason
        One word for the figures.
    """

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@contextlib.contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Refuse a job where the disk fails, or is full.

    Parameters
    ----------
    what
        Is being written.

    Raises
    ------
    RefusedError
        For what the system says.
    """
    try:
        yield
    except OSError as error:
        raise RefusedError(f"{what} could not be written: {error.strerror}", 507, "disk") from error


@dataclass(frozen=True)
class JobLimits:
    """What the app takes on.

    Parameters
    ----------
    upload_bytes
        Of one upload.
    queue
        Songs that are uploaded or wait; more are refused. Two songs for each core are plenty.
    seconds
        For separating one song, and for uploading one.
    keep_seconds
        From the last use of a finished job to its removal.
    disk_bytes
        Of all jobs together.
    silence
        Seconds without a byte after which an upload is given up.
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
        A name that nobody can guess: who knows it may see and remove the job.
    folder
        Holds all its files and nothing else.
    state
        ``uploading``, ``queued``, ``running``, ``done`` or ``failed``.
    bytes
        On the disk, or reserved there.
    files
        What may be fetched: path in the address to path on the disk.
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
    files: dict[str, Path] = field(default_factory=dict)
    begun: float = 0.0
    used: float = field(default_factory=time.monotonic)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    zipping: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def request(self) -> str:
        """What the worker calls it: its id may have been that of a job that was removed."""
        return self.folder.name

    @property
    def source(self) -> Path:
        """Where the upload lies; nothing of the name that it was sent under is in it."""
        return self.folder / "upload"

    @property
    def seconds_left(self) -> float | None:
        """From the speed until now."""
        if self.state != "running" or not self.progress or self.progress < 0.02:
            return None
        return round((time.monotonic() - self.begun) * (1 / self.progress - 1), 1)

    def advance(self, stage: str, share: float) -> None:
        """Take in the worker's progress."""
        assert self.choice is not None
        if not self.begun:
            self.begun = time.monotonic()
        first = 1 - PLAYER_SHARE if self.choice.player else 1.0
        whole = first * share if stage == "separating" else first + (1 - first) * share
        self.stage, self.progress = stage, whole if share >= 0 else None

    def fail(self, error: str) -> None:
        """Take in why it failed; the first reason counts."""
        self.error = self.error or error
        self.state = "failed"

    def finish(self, report: Mapping[str, Any]) -> None:
        """Take in the worker's report, and list the files that may be fetched."""
        self.report = dict(report)
        self.files = {f"stems/{n}": self.folder / "stems" / n for n in report["stems"].values()}
        player = self.folder / "player"
        for path in player.rglob("*"):
            if path.is_file():
                self.files[f"player/{path.relative_to(player).as_posix()}"] = path
        # A limit may have struck while its last bytes were written: it is done all the same.
        self.progress, self.state, self.error = 1.0, "done", None


class JobFigures:
    """What happened since the start, for Prometheus; no names of songs are in it."""

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
        for outcome in (*ENDED, "cancelled"):
            self.jobs.labels(outcome)


class JobQueue:
    """Jobs, taken one after another by a worker.

    Parameters
    ----------
    folder
        For the folders of the jobs.
    worker
        What separates.
    limits
        What is taken on.
    """

    def __init__(self, folder: Path, worker: WorkerProcess, limits: JobLimits) -> None:
        self._folder, self._worker, self.limits = folder, worker, limits
        self.jobs: dict[str, SeparationJob] = {}  # by id, in the order in which they came
        self._ready = asyncio.Event()
        self.closed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._running: tuple[SeparationJob, asyncio.Task[dict[str, Any]]] | None = None
        self.figures = JobFigures(self)

    def start(self) -> None:
        """Begin to take jobs."""
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._expire())]

    async def close(self) -> None:
        """Drop all jobs and end the worker, within seconds."""
        self.closed.set()  # before a job ends by it: who waits for one is to know why
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._worker.kill()

    # What there is

    @property
    def healthy(self) -> bool:
        """Whether jobs are being taken; a worker that died is started again for the next one."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def waiting(self) -> int:
        """Songs that are uploaded or wait."""
        return self.count("uploading") + self.count("queued")

    @property
    def bytes(self) -> int:
        """On the disk, or reserved there."""
        return sum(job.bytes for job in self.jobs.values())

    def count(self, state: str) -> int:
        """Jobs in a state."""
        return sum(job.state == state for job in self.jobs.values())

    def get(self, id_: str) -> SeparationJob | None:
        """A job by its name, which keeps it from being removed for a while."""
        job = self.jobs.get(id_)
        if job is not None:
            job.used = time.monotonic()
        return job

    def place(self, job: SeparationJob) -> int | None:
        """How many songs are before a job that waits."""
        if job.state != "queued":
            return None
        queued = [other for other in self.jobs.values() if other.state == "queued"]
        return queued.index(job) + self.count("running")

    # What comes in

    def open(self, bytes_: int, id_: str | None = None) -> SeparationJob:
        """A job for an upload that begins.

        Parameters
        ----------
        bytes_
            That are reserved on the disk: the size of the upload, or the most it may have.
        id_
            Its name, for a client that may have to remove it before it has read our answer.

        Raises
        ------
        RefusedError
            If the name is not fit or taken, too much is waiting, or there is no room or no disk.
        """
        if id_ is None:
            id_ = secrets.token_urlsafe(16)
        if not re.fullmatch(ID, id_):
            raise RefusedError("an id must have 22 to 64 letters, digits, - or _", 422, "id")
        if id_ in self.jobs:
            raise RefusedError("there is a job with this id already", 409, "id")
        if self.waiting >= self.limits.queue:
            raise RefusedError(
                f"{self.waiting} songs are waiting already: try again later", 429, "queue"
            )
        job = SeparationJob(id_, self._folder / secrets.token_hex(8), bytes=bytes_)
        with disk_errors("the upload"):
            self._check_room(bytes_)
            job.folder.mkdir()
        self.jobs[id_] = job
        return job

    def _check_room(self, bytes_: int) -> None:
        free = shutil.disk_usage(self._folder).free
        if self.bytes + bytes_ > self.limits.disk_bytes or bytes_ > free:
            raise RefusedError(
                "there is no room on the disk: remove songs that are done", 507, "disk"
            )

    def enqueue(self, job: SeparationJob, name: str, choice: JobChoice, bytes_: int) -> None:
        """Let a job wait whose upload is complete."""
        # The order is that in which uploads ended: a slow one holds up nobody.
        del self.jobs[job.id]
        self.jobs[job.id] = job
        job.name, job.choice, job.bytes, job.state = name, choice, bytes_, "queued"
        self.figures.uploaded.inc(bytes_)
        self._ready.set()

    def _has(self, job: SeparationJob) -> bool:
        """Whether a job is still listed: another one may have its id by now."""
        return self.jobs.get(job.id) is job

    def _forget(self, job: SeparationJob) -> bool:
        """Take a job off the list, if it is there."""
        found = self._has(job)
        if found:
            del self.jobs[job.id]
        return found

    async def remove(self, job: SeparationJob) -> None:
        """Cancel a job if it is not done, and remove all of it.

        What is still being uploaded is removed by who receives it, by `give_up`.
        """
        if not self._forget(job):
            return
        if job.state == "uploading":
            job.ended.set()
            return
        if job.state in ("queued", "running"):
            self.figures.jobs.labels("cancelled").inc()
        if self._running is not None and self._running[0] is job:
            await self._worker.cancel(job.request, self._running[1])
            await job.ended.wait()  # until then its folder is in use
        job.state = "removed"
        job.ended.set()
        async with job.zipping:  # as above
            await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    async def give_up(self, job: SeparationJob) -> None:
        """Forget an upload that will not be complete."""
        self._forget(job)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)

    # What goes on

    async def _work(self) -> None:
        while True:
            job = next((job for job in self.jobs.values() if job.state == "queued"), None)
            if job is None:
                self._ready.clear()
                await self._ready.wait()
            else:
                await self._separate(job)

    async def _separate(self, job: SeparationJob) -> None:
        job.state = "running"
        begun = time.monotonic()
        try:
            await self._run(job)
            await asyncio.to_thread(self._tidy, job)
        except Exception:  # or all songs behind it would wait for ever
            logging.getLogger(__name__).exception("a song could not be separated")
            job.fail(MISTAKE)
            await self._worker.kill()  # it may be at anything; the next song starts it again
        finally:
            self._running = None
            job.used = time.monotonic()
            job.ended.set()
        self._count(job, time.monotonic() - begun)

    async def _run(self, job: SeparationJob) -> None:
        assert job.choice is not None
        request = job.choice.to_request() | {
            "job": job.request,
            "source": str(job.source),
            "folder": str(job.folder),
            "name": job.name,
        }
        task = asyncio.create_task(self._worker.run(request, job.advance))
        watch = asyncio.create_task(self._watch(job, task))
        self._running = (job, task)
        try:
            job.finish(await task)
        except WorkerError as error:
            job.fail(str(error))
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    def _tidy(self, job: SeparationJob) -> None:
        """Keep nothing but the results."""
        if job.state == "failed":
            shutil.rmtree(job.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # a network drive that is gone made the song fail, too
            job.source.unlink(missing_ok=True)
        job.bytes = size_of(job.folder)

    def _count(self, job: SeparationJob, seconds: float) -> None:
        if not self._has(job):  # removed meanwhile, and counted then
            return
        self.figures.jobs.labels(job.state).inc()
        if job.state == "done":
            self.figures.seconds.observe(seconds)
            self.figures.audio.inc(job.report["seconds"])

    async def _watch(self, job: SeparationJob, task: asyncio.Task[dict[str, Any]]) -> None:
        """End a job that takes too long or too much room."""
        watch, seconds = Stopwatch(), 0.0
        while True:
            await asyncio.sleep(min(1.0, max(0.0, self.limits.seconds - seconds)))
            job.bytes = await asyncio.to_thread(size_of, job.folder)
            seconds = watch.look()
            if seconds >= self.limits.seconds:
                job.error = f"it took longer than {self.limits.seconds / 60:g} minutes"
            elif self.bytes > self.limits.disk_bytes:
                job.error = "its stems need more room than there is: remove songs that are done"
            else:
                continue
            await self._worker.cancel(job.request, task)
            return

    async def _expire(self) -> None:
        while True:
            await asyncio.sleep(max(0.1, min(PERIOD, self.limits.keep_seconds / 2)))
            old = time.monotonic() - self.limits.keep_seconds
            ended = [job for job in self.jobs.values() if job.state in ENDED]
            for index, job in enumerate(sorted(ended, key=lambda job: job.used, reverse=True)):
                if job.used < old or index >= MOST_ENDED:
                    await self.remove(job)

    # What comes out

    async def zip(self, job: SeparationJob) -> Path | None:
        """A zip of a job's stems, made when it is first asked for.

        Returns
        -------
        Path or None
            None if the job was removed meanwhile.

        Raises
        ------
        RefusedError
            If there is no room, or it cannot be written.
        """
        path = job.folder / "stems.zip"
        async with job.zipping:
            if self._has(job) and not path.exists():
                stems = {
                    f"{job.name}/{file.name}": file
                    for name, file in job.files.items()
                    if name.startswith("stems/")
                }
                with disk_errors("the zip"):
                    self._check_room(sum(file.stat().st_size for file in stems.values()))
                    await asyncio.to_thread(write_zip, stems, path)
                    job.bytes += path.stat().st_size
            return path if self._has(job) else None


def write_zip(files: Mapping[str, Path], path: Path) -> None:
    """Files, as they are, in a zip that gets its name when it is complete; else nothing is left.

    Parameters
    ----------
    files
        Name in the zip to file.
    path
        The zip.
    """
    # Clocks may be wrong, and a zip holds no time before 1980.
    with (
        open_atomically(path) as file,
        zipfile.ZipFile(file, "w", strict_timestamps=False) as archive,
    ):
        for name, each in files.items():
            archive.write(each, name)
