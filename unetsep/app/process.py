"""Starting, calling, cancelling and ending the worker's process, from one asyncio loop."""

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

# With the module path of this process, whatever the current folder.
PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from unetsep.app.worker import main; main()"
)
START_SECONDS = 120.0
GRACE = 5.0  # s from cancelling to a kill: a block of a slow model takes less
LINE_BYTES = 1 << 20
# Libraries of the worker must not send telemetry; all models are on this machine.
OFFLINE = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}
CRASHED = (
    "the separation ended unexpectedly: the file may be damaged, or the computer may have run "
    "out of memory"
)


class WorkerError(UnetsepError):
    """A request that the worker could not fulfil; the message is for the user."""


class WorkerProcess:
    """The process that separates; restarted after it has ended.

    Parameters
    ----------
    models
        Names or paths; the first one is loaded at the start.
    device, threads
        See `unetsep.separator.Separator` and ``torch.set_num_threads``.
    """

    def __init__(self, models: list[str], device: str = "auto", threads: int | None = None) -> None:
        self._settings = {"models": models, "device": device, "threads": threads}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Id of the process."""
        return self._process.pid if self._process else None

    @property
    def status(self) -> int | None:
        """Exit status of the process, if it has ended."""
        return self._process.returncode if self._process else None

    async def start(self) -> dict[str, list[str]]:
        """Start the process and wait until its first model is loaded.

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
            env=os.environ | OFFLINE,
            limit=LINE_BYTES,
            start_new_session=True,  # a group that includes decoders: see kill_group
        )
        try:
            return await self._load()
        except BaseException:
            await self.kill()
            raise

    async def _load(self) -> dict[str, list[str]]:
        """Let the process load its first model; returns the stems of each model."""
        assert self._process is not None
        try:
            await self._send(self._settings)
            message = await asyncio.wait_for(self._receive(), START_SECONDS)
        except asyncio.TimeoutError as error:
            raise WorkerError("the models could not be loaded in time") from error
        except WorkerError as error:
            await self.kill()  # so that it has an exit status
            raise WorkerError(
                "the process that separates ended before it was ready, with status "
                f"{self._process.returncode}: see what the app printed; if that says nothing, "
                "it probably ran out of memory"
            ) from error
        if "ready" not in message:
            raise WorkerError(message["failed"])
        ready: dict[str, list[str]] = message["ready"]
        return ready

    async def run(
        self, request: Mapping[str, Any], progress: Callable[[str, float], None]
    ) -> dict[str, Any]:
        """Separate one song.

        Parameters
        ----------
        request
            See `unetsep.app.worker.separate`; also ``job``, the name of the request.
        progress
            Called with the stage and its completed share, 0 to 1, or -1 if unknown.

        Returns
        -------
        dict
            The report.

        Raises
        ------
        WorkerError
            If the request fails, or the process ends.
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

    async def cancel(self, job: str, task: asyncio.Task[dict[str, Any]]) -> None:
        """Cancel a request; kill the process if that takes more than a few seconds.

        Parameters
        ----------
        job
            The name of the request.
        task
            The task that awaits `run`; it has ended when this returns.
        """
        with contextlib.suppress(WorkerError):
            await self._send({"cancel": job})
        await asyncio.wait([task], timeout=GRACE)
        while not task.done():  # again if the process has just been restarted
            await self.kill()
            await asyncio.wait([task], timeout=GRACE)

    async def kill(self) -> None:
        """Kill the process and its children."""
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
            await self.kill()  # so that it has an exit status
            raise WorkerError(CRASHED) from error

    async def _receive(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            kill_group(self._process)  # a decoder may have outlived it
            await self._process.wait()
            raise WorkerError(CRASHED)
        message: dict[str, Any] = json.loads(line)
        return message


def kill_group(process: asyncio.subprocess.Process) -> None:
    """Kill the leader of a process group with all its members.

    A decoder that hangs reads and writes nothing, so it would never notice that its pipe closed.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended
        if os.name == "nt":  # which has no groups
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
