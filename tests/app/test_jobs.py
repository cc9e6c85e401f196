"""The queue goes on, whatever becomes of one song."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from unetsep import stopwatch
from unetsep.app import jobs, process
from unetsep.app.choices import JobChoice, ModelOffer
from unetsep.app.folder import size_of
from unetsep.app.jobs import MISTAKE, JobLimits, JobQueue, RefusedError, SeparationJob, write_zip
from unetsep.app.process import WorkerError, WorkerProcess

REPORT = {"stems": {"vocals": "vocals.flac"}, "seconds": 1.0, "warnings": []}


class ScriptedWorker(WorkerProcess):
    """Has no process: does for each song, in turn, what it is told to."""

    def __init__(self, *acts: Callable[[Path], Any]) -> None:
        super().__init__([])
        self.acts = list(acts)
        self.kills = 0
        self.cancelled = asyncio.Event()

    async def run(self, request: Any, progress: Any) -> dict[str, Any]:
        made = self.acts.pop(0)(Path(request["folder"]))
        if isinstance(made, Coroutine):
            made = await made
        return dict(made)

    async def cancel(self, job: str, running: asyncio.Task[dict[str, Any]]) -> None:
        self.cancelled.set()
        await asyncio.wait([running])

    async def kill(self) -> None:
        self.kills += 1


def separate(folder: Path) -> dict[str, Any]:
    (folder / "stems").mkdir()
    (folder / "stems" / "vocals.flac").write_bytes(bytes(100))
    return REPORT


def enqueue(queue: JobQueue, name: str) -> SeparationJob:
    job = queue.add(10)
    job.source.write_bytes(bytes(10))
    choice = JobChoice.from_fields({}, {"fast": ModelOffer.of("fast", ["vocals", "drums"])})
    queue.enqueue(job, name, choice, 10)
    return job


async def wait_for_end(*jobs: SeparationJob) -> None:
    await asyncio.wait_for(asyncio.gather(*(job.ended.wait() for job in jobs)), 20)


def test_an_internal_error_fails_one_song_and_the_next_is_separated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def err(_: Path) -> None:
        raise RuntimeError("not thought of")

    async def work() -> None:
        worker = ScriptedWorker(err, separate)
        queue = JobQueue(tmp_path, worker, JobLimits())
        queue.start()
        first, second = enqueue(queue, "First"), enqueue(queue, "Second")
        await wait_for_end(first, second)
        assert (first.state, first.error) == ("failed", MISTAKE)
        assert worker.kills == 1
        assert second.state == "done"
        assert queue.healthy
        await queue.close()

    with caplog.at_level(logging.ERROR):
        asyncio.run(work())
    assert "not thought of" in caplog.text


def test_a_lost_drive_is_reported_and_is_no_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def be_gone(*_: object, **__: object) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    def lose_drive(_: Path) -> None:
        monkeypatch.setattr(Path, "unlink", be_gone)
        monkeypatch.setattr(shutil, "disk_usage", be_gone)
        raise WorkerError("writing failed: not connected")

    async def work() -> None:
        worker = ScriptedWorker(lose_drive)
        queue = JobQueue(tmp_path, worker, JobLimits())
        queue.start()
        job = enqueue(queue, "e")
        await wait_for_end(job)
        assert (job.state, job.error) == ("failed", "writing failed: not connected")
        assert caplog.messages == [f"a song failed: {job.error}"]
        assert worker.kills == 0
        with pytest.raises(RefusedError, match="could not be written: not connected") as caught:
            queue.add(10)
        assert caught.value.status == 507
        await queue.close()

    asyncio.run(work())


def test_a_song_is_removed_only_when_its_folder_is_unused(tmp_path: Path) -> None:
    seen: list[bool] = []

    class SlowQueue(JobQueue):
        def _tidy(self, job: SeparationJob) -> None:
            time.sleep(0.2)
            seen.append(job.source.exists())
            super()._tidy(job)

    async def until_cancelled(worker: ScriptedWorker) -> None:
        await worker.cancelled.wait()
        raise WorkerError("cancelled")

    async def work() -> None:
        worker = ScriptedWorker()
        worker.acts = [lambda _: until_cancelled(worker), separate]
        queue = SlowQueue(tmp_path, worker, JobLimits())
        queue.start()
        first, second = enqueue(queue, "First"), enqueue(queue, "Second")
        while first.state != "running":
            await asyncio.sleep(0.01)
        await queue.remove(first)
        assert first.error == "the song was removed before it was done"
        assert not first.folder.exists()
        await wait_for_end(second)
        assert second.state == "done"
        assert second.bytes == 100
        await queue.close()

    asyncio.run(work())
    assert seen == [True, True]


def test_a_song_that_finishes_at_the_time_limit_has_no_error(tmp_path: Path) -> None:
    async def work() -> None:
        worker = ScriptedWorker()

        async def finish_late(folder: Path) -> dict[str, Any]:
            await worker.cancelled.wait()
            return separate(folder)

        worker.acts = [finish_late]
        queue = JobQueue(tmp_path, worker, JobLimits(seconds=0.01))
        queue.start()
        job = enqueue(queue, "Song")
        await wait_for_end(job)
        assert (job.state, job.error) == ("done", None)
        await queue.close()

    asyncio.run(work())


def test_a_song_fails_at_its_start_if_others_have_used_the_disk_space_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        worker = ScriptedWorker()

        async def run(_: Path) -> dict[str, Any]:
            await asyncio.wait_for(worker.cancelled.wait(), 0.9)  # it looks each second
            raise WorkerError("cancelled")

        worker.acts = [separate, run]
        queue = JobQueue(tmp_path, worker, JobLimits(disk_bytes=105))
        queue.start()
        first, second = enqueue(queue, "First"), enqueue(queue, "songs")
        await wait_for_end(first, second)
        assert first.state == "done"
        assert second.state == "failed"
        assert second.error.startswith("its stems need more disk space than there is")
        assert caplog.messages == [f"a song failed: {second.error}"]
        assert queue.bytes == 100
        await queue.close()

    asyncio.run(work())


def test_sleep_of_the_computer_does_not_time_a_song_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows' clock goes on meanwhile."""
    slept = 0.0
    looked = asyncio.Event()

    def now() -> float:
        looked.set()
        return time.monotonic() + slept

    monkeypatch.setattr(stopwatch, "time", SimpleNamespace(monotonic=now))

    async def sleep(folder: Path) -> dict[str, Any]:
        nonlocal slept
        await looked.wait()
        looked.clear()
        slept = 10 * 3600.0
        await looked.wait()
        return separate(folder)

    async def work() -> None:
        worker = ScriptedWorker(sleep)
        queue = JobQueue(tmp_path, worker, JobLimits(seconds=3600.0))
        queue.start()
        job = enqueue(queue, "Song")
        await wait_for_end(job)
        assert (job.state, worker.cancelled.is_set()) == ("done", False)
        await queue.close()

    asyncio.run(work())


def test_a_worker_that_is_cancelled_while_it_starts_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.01)
    started = asyncio.Event()

    class StartingWorker(WorkerProcess):
        """Its first kill comes before there is a process."""

        kills = 0

        async def kill(self) -> None:
            self.kills += 1
            if self.kills == 2:
                started.set()

    async def work() -> None:
        async def run() -> dict[str, Any]:
            await started.wait()
            return {}

        worker = StartingWorker([])
        monkeypatch.setattr(worker, "_send", lambda _: asyncio.sleep(0))
        await asyncio.wait_for(worker.cancel("1", asyncio.create_task(run())), 10)
        assert worker.kills == 2

    asyncio.run(work())


def test_leaving_a_job_keeps_a_newer_one_with_its_id(tmp_path: Path) -> None:
    async def work() -> None:
        queue = JobQueue(tmp_path, ScriptedWorker(separate, separate), JobLimits())
        queue.start()
        id_ = 32 * "a"
        first = queue.add(10, id_)
        await queue.remove(first)  # while it is uploaded
        second = queue.add(10, id_)
        await queue.give_up(first)
        assert queue.get(id_) is second
        second.source.write_bytes(bytes(10))
        choice = JobChoice.from_fields({}, {"fast": ModelOffer.of("fast", ["vocals", "drums"])})
        queue.enqueue(second, "Second", choice, 10)
        await wait_for_end(second)
        await queue.remove(second)
        third = queue.add(10, id_)
        await queue.remove(second)
        assert await queue.zip(second) is None
        assert queue.get(id_) is third
        await queue.close()

    asyncio.run(work())


def test_a_job_expires_only_after_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_slowly(folder: Path) -> int:
        time.sleep(0.6)
        return size_of(folder)

    async def work() -> None:
        queue = JobQueue(tmp_path, ScriptedWorker(separate), JobLimits(keep_seconds=0.2))
        queue.start()
        job = enqueue(queue, "Song")
        monkeypatch.setattr(jobs, "size_of", measure_slowly)
        await wait_for_end(job)
        assert queue.get(job.id) is job
        assert job.state == "done"
        await queue.close()

    asyncio.run(work())


@pytest.mark.parametrize("call", ["disk_usage", "mkdir"])
def test_a_failing_disk_refuses_a_job_and_is_no_internal_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(path: Path, *_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    queue = JobQueue(tmp_path, ScriptedWorker(), JobLimits())
    with monkeypatch.context() as patch:
        patch.setattr(*((shutil, call) if call == "disk_usage" else (Path, call)), fail)
        with pytest.raises(RefusedError, match="the upload could not be written: Input") as caught:
            queue.add(10)
    assert (caught.value.status, caught.value.reason) == (507, "disk")
    assert queue.add(10).folder.exists()


def test_songs_that_were_not_used_of_late_make_room_for_others(tmp_path: Path) -> None:
    done: list[SeparationJob] = []

    async def separate_slowly(folder: Path) -> dict[str, Any]:
        report = separate(folder)
        while done[0].folder.exists():
            await asyncio.sleep(0.01)
        return report

    async def work() -> None:
        worker = ScriptedWorker(*3 * [separate], separate_slowly)
        queue = JobQueue(tmp_path, worker, JobLimits(disk_bytes=305))
        queue.start()
        done.extend(enqueue(queue, name) for name in ("First", "Second", "Third"))
        await wait_for_end(*done)
        for job, age in zip(done, (900, 1000, 0), strict=True):
            job.last_used -= age
        with pytest.raises(RefusedError, match="not enough disk space"):
            queue.add(206)
        assert list(queue.jobs.values()) == done
        fourth = enqueue(queue, "Fourth")
        assert list(queue.jobs.values()) == [done[0], done[2], fourth]
        assert not done[1].folder.exists()
        await wait_for_end(fourth)
        assert fourth.state == "done"
        assert list(queue.jobs.values()) == [done[2], fourth]
        await queue.close()

    asyncio.run(work())


def test_zips_that_are_written_at_once_share_the_disk_space(tmp_path: Path) -> None:
    async def work() -> None:
        limits = JobLimits(disk_bytes=350)  # two stems of 100 bytes, and one zip
        queue = JobQueue(tmp_path, ScriptedWorker(separate, separate), limits)
        queue.start()
        both = enqueue(queue, "First"), enqueue(queue, "Second")
        await wait_for_end(*both)
        results = await asyncio.gather(*map(queue.zip, both), return_exceptions=True)
        assert results[0] == both[0].folder / "stems.zip"
        assert isinstance(results[1], RefusedError)
        assert queue.bytes == 200 + results[0].stat().st_size
        await queue.close()

    asyncio.run(work())


def test_a_zip_can_hold_files_of_any_date(tmp_path: Path) -> None:
    times = {"old": 0, "new": 5e9}
    for name, time_ in times.items():
        (tmp_path / name).write_bytes(b"sound")
        os.utime(tmp_path / name, (time_, time_))
    write_zip({name: tmp_path / name for name in times}, tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert sorted(archive.namelist()) == ["new", "old"]
