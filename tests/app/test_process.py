"""The worker's process ends with all that it started, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.app.serving import process_exists, until
from unetsep.app import process
from unetsep.app.process import WorkerError, WorkerProcess

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")
# Hangs either when it is to say what is in a file, or when it is to decode it.
HANGING = """#!/bin/sh
case "$*" in
  *pipe:1*) ;;
  *) echo "Stream #0:0: Audio: aac, 44100 Hz, stereo" >&2; [ {hangs} = probe ] || exit 1 ;;
esac
echo $$ > {pid}.new && mv {pid}.new {pid}
exec sleep 1000
"""


async def killed(worker: WorkerProcess) -> None:
    await worker.kill()


async def crashed(worker: WorkerProcess) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)


async def left_alone(worker: WorkerProcess) -> None:
    """As when the app is killed."""
    assert worker._process is not None
    assert worker._process.stdin is not None
    worker._process.stdin.close()


@pytest.mark.parametrize("hangs", ["probe", "decoder"])
@pytest.mark.parametrize("end", [killed, crashed, left_alone])
def test_a_hanging_decoder_ends_with_the_worker(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[WorkerProcess], Awaitable[None]],
    hangs: str,
) -> None:
    pid = tmp_path / "pid"
    (tmp_path / "ffmpeg").write_text(HANGING.format(hangs=hangs, pid=pid))
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "upload").write_bytes(b"\0\0\0\x20ftypisom" + bytes(1000))
    request = {
        "job": "1",
        "source": str(tmp_path / "upload"),
        "folder": str(tmp_path),
        "name": "Song",
        "model": str(tiny_model),
        "options": {},
        "passes": 1,
        "player": False,
    }

    async def work() -> None:
        worker = WorkerProcess([str(tiny_model)], "cpu", 1)
        await worker.start()
        running = asyncio.create_task(worker.run(request, lambda *_: None))
        await asyncio.to_thread(until, pid.exists)
        assert process_exists(int(pid.read_text()))
        await end(worker)
        with pytest.raises(WorkerError, match="ended unexpectedly"):
            await asyncio.wait_for(running, 20)

    asyncio.run(work())
    until(lambda: not process_exists(int(pid.read_text())))


def test_a_worker_whose_pipe_breaks_has_an_exit_status() -> None:
    worker = WorkerProcess([])

    async def send() -> None:
        worker._process = await asyncio.create_subprocess_shell(
            "exec sleep 20 <&-", stdin=asyncio.subprocess.PIPE, start_new_session=True
        )
        while True:
            await worker._send({})
            await asyncio.sleep(0.01)

    with pytest.raises(WorkerError, match="ended unexpectedly"):
        asyncio.run(send())
    assert worker.status == -signal.SIGKILL


def test_stdin_of_the_worker_is_the_null_device(
    tiny_model: Path,
) -> None:
    """On Windows whoever looks at stdin meanwhile waits until a line comes: torch's libraries."""

    async def stdin_of_worker() -> Path:
        worker = WorkerProcess([str(tiny_model)], "cpu", 1)
        await worker.start()
        try:
            return Path(f"/proc/{worker.pid}/fd/0").readlink()
        finally:
            await worker.kill()

    assert asyncio.run(stdin_of_worker()) == Path(os.devnull)


def test_a_worker_that_cannot_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PROGRAM", "import sys; sys.exit(3)")
    with pytest.raises(WorkerError, match="ended before it was ready, with status 3"):
        asyncio.run(WorkerProcess(["fast"]).start())
