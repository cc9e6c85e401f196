"""The worker's process: started, asked, cancelled and ended, all from one asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import UnetsepError

# It finds the same modules as this process, wherever that was started.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from unetsep.app.worker import main; main()"
)
START_SECONDS = 120.0
GRACE = 5.0  # s from a request to cancel to a kill: a block of a slow model takes less
LINE_BYTES = 1 << 20
# Nothing that the worker imports may report home; models are on this machine already.
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
GONE = (
    "the separation ended unexpectedly: the file may be damaged, or the computer may have run "
    "out of memory"
)


class WorkerError(UnetsepError):
    """The worker could not do what it was asked to; the message is for the user."""


class WorkerProcess:
    """The process that separates; started again when it is gone.

    Parameters
    ----------
    models
        Names or paths, the first one loaded at the start.
    device, threads
        See `unetsep.separator.Separator` and ``torch.set_num_threads``.
    """

    def __init__(self, models: list[str], device: str = "auto", threads: int | None = None) -> None:
        self._settings = {"models": models, "device": device, "threads": threads}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Its number."""
        return self._process.pid if self._process else None

    async def start(self) -> dict[str, list[str]]:
        """Start it and wait until its first model is loaded.

        Returns
        -------
        dict
            The stems of each model.

        Raises
        ------
        WorkerError
            If a model cannot be loaded or the process ends.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            json.dumps(sys.path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | QUIET,
            limit=LINE_BYTES,
            start_new_session=True,  # a group that decoders are in, too: see kill_group
        )
        try:
            return await self._load()
        except BaseException:
            await self.kill()
            raise

    async def _load(self) -> dict[str, list[str]]:
        """Have the process load its first model; the stems of each model."""
        assert self._process is not None
        try:
            await self._send(self._settings)
            message = await asyncio.wait_for(self._receive(), START_SECONDS)
        except asyncio.TimeoutError as error:
            raise WorkerError("the models could not be loaded in time") from error
        except WorkerError as error:
            await self.kill()  # or it may have no status yet
            raise WorkerError(
                "the program that separates ended before it was ready, with status "
                f"{self._process.returncode}: what the app has printed says why, "
                "or else the memory was too small"
            ) from error
        if "ready" not in message:
            raise WorkerError(message["failed"])
        ready: dict[str, list[str]] = message["ready"]
        return ready

    async def run(
        self, request: Mapping[str, Any], progress: Callable[[str, float], None]
    ) -> dict[str, Any]:
        """Let it separate one song.

        Parameters
        ----------
        request
            See `unetsep.app.worker.separate`; also ``job``, a name of the request.
        progress
            Called with the stage and its share, 0 to 1, or -1 if that is unknown.

        Returns
        -------
        dict
            The report.

        Raises
        ------
        WorkerError
            If it fails, or the process ends.
        """
        if not self.alive:
            await self.start()
        await self._send(request)
        while True:
            message = await self._receive()
            if "stage" in message:
                progress(message["stage"], message["share"])
            elif "done" in message:
                report: dict[str, Any] = message["done"]
                return report
            else:
                raise WorkerError(message.get("failed", "cancelled"))

    async def cancel(self, job: str, running: asyncio.Task[dict[str, Any]]) -> None:
        """End a request: politely, and after a few seconds by a kill.

        Parameters
        ----------
        job
            The name of the request.
        running
            The task that awaits `run`; it has ended when this returns.
        """
        with contextlib.suppress(WorkerError):
            await self._send({"cancel": job})
        await asyncio.wait([running], timeout=GRACE)
        while not running.done():  # again, should it just have been started
            await self.kill()
            await asyncio.wait([running], timeout=GRACE)

    async def kill(self) -> None:
        """End the process now, and what it started."""
        if not self.alive:
            return
        assert self._process is not None
        kill_group(self._process)
        await self._process.wait()

    async def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            await self._process.stdin.drain()
        except (OSError, RuntimeError) as error:
            raise WorkerError(GONE) from error

    async def _receive(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            kill_group(self._process)  # a decoder may have outlived it
            await self._process.wait()
            raise WorkerError(GONE)
        message: dict[str, Any] = json.loads(line)
        return message


def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill a process that leads a group, with all that is in the group.

    A decoder that hangs reads and writes nothing, so it would not notice that nobody waits.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left
        if os.name == "nt":  # which has no groups
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
