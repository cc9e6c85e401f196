"""The process that serves the app, from start to end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ..errors import UnetsepError
from ..storage import user_folder
from ..unfinished import ENDING, uninterrupted
from .choices import ModelOffer, offered_names
from .connections import PromptProtocol
from .folder import WorkFolder
from .guard import Guard, is_address
from .handlers import Handlers
from .jobs import JobLimits, JobQueue, RefusedError
from .process import WorkerProcess

CLOSE_SECONDS = 3  # for open requests to complete when the app ends
STOPPED_SECONDS = 3  # then, to answer the others that it was stopped; more than handlers' LINGER
CONNECTIONS = 200
HOST_NAME = re.compile(r"[A-Za-z0-9._-]+")  # as in Host: browsers write others as xn--...


@dataclass(frozen=True)
class AppSettings:
    """How the app runs.

    Parameters
    ----------
    host, port
        Address to listen on; port 0 picks a free one.
    names
        Additional host names that requests may use.
    models
        Names or paths; if empty, the default of `offered_names`.
    device, threads
        See `unetsep.app.process.WorkerProcess`.
    limits
        Limits on uploads, time and disk space.
    folder
        Folder for temporary files; None is ``app`` in the user's folder. The system's own folder
        for them is often in memory.

    Raises
    ------
    ValueError
        If a host name is invalid.
    """

    host: str = "127.0.0.1"
    port: int = 8421
    names: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    device: str = "auto"
    threads: int | None = None
    limits: JobLimits = field(default_factory=JobLimits)
    folder: Path | None = None

    def __post_init__(self) -> None:
        for name in self.names:
            if not (HOST_NAME.fullmatch(name) or is_address(name)):
                raise ValueError(
                    f"--allow-host {name}: expected a name without http:// and port, such as "
                    "songs.example.org (letters beyond ASCII as xn--...)"
                )


def build_app(queue: JobQueue, offers: dict[str, ModelOffer], settings: AppSettings) -> ASGIApp:
    """The app as ASGI, behind its guard."""
    handlers = Handlers(queue, offers)
    inner = Starlette(
        routes=handlers.routes(),
        exception_handlers={
            RefusedError: handlers.refuse,
            HTTPException: handlers.explain,
            Exception: handlers.fail,
        },
    )
    # Redirects would lead to http, even behind a proxy that serves https.
    inner.router.redirect_slashes = False
    refused = queue.metrics.refused.labels
    return Guard(inner, settings.host, settings.names, lambda header: refused(header).inc())


class AppServer(uvicorn.Server):
    """uvicorn that reports its start, and ends open requests in time.

    Parameters
    ----------
    config
        Configuration of uvicorn.
    started
        Called once the server answers.
    close
        Called at the end, after `CLOSE_SECONDS`; it ends the remaining requests.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[], object],
        close: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(config)
        self._started, self._close = started, close

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let SIGHUP end the app as the other signals do.

        uvicorn alone would raise a signal again at the end, which would end the whole process.
        """
        if threading.current_thread() is not threading.main_thread():  # which alone gets signals
            yield
            return
        previous = {
            number: signal.signal(number, self.handle_exit)
            for number in ENDING
            if signal.getsignal(number) != signal.SIG_IGN  # as nohup has SIGHUP
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer."""
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End; uvicorn alone would cancel open requests without a response."""
        closing = asyncio.create_task(self._close_in_time())
        try:
            await super().shutdown(sockets)
        finally:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)

    async def _close_in_time(self) -> None:
        await asyncio.sleep(CLOSE_SECONDS)
        await self._close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises
    ------
    UnetsepError
        If the address is not of this machine or the port is in use.
    """
    sock: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        if os.name != "nt":  # where it would let two programs share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()  # now: a second app would otherwise fail only after loading its models
    except (OSError, UnicodeError) as error:  # the latter for an impossible name
        if sock is not None:
            sock.close()
        reason = getattr(error, "strerror", None) or "it is not a host name"
        raise UnetsepError(
            f"the app cannot listen on {host}, port {port}: {reason}; choose another "
            "with --host or --port"
        ) from error
    return sock


def work_folder(parent: Path) -> WorkFolder:
    """The folder of this run.

    Raises
    ------
    UnetsepError
        If it cannot be created.
    """
    try:
        return WorkFolder(parent)
    except OSError as error:
        reason = "it is a file" if parent.is_file() else error.strerror
        raise UnetsepError(
            f"the app cannot write temporary files to {parent}: {reason}; choose another folder "
            "with --folder"
        ) from error


async def serve(settings: AppSettings, started: Callable[[str], object]) -> Path | None:
    """Run the app until a signal ends it; then remove its temporary files.

    Parameters
    ----------
    settings
        How the app runs.
    started
        Called with the address once the app answers.

    Returns
    -------
    Path or None
        A folder of temporary files that could not be removed.

    Raises
    ------
    UnetsepError
        If a model cannot be loaded, it cannot listen, or its folder cannot be written to.
    """
    names = offered_names(settings.models)
    with listen(settings.host, settings.port) as sock:
        folder = work_folder(settings.folder or user_folder() / "app")
        try:
            await _answer(settings, names, folder.path, sock, started)
        finally:
            with uninterrupted():  # by a second signal
                removed = folder.remove()
    return None if removed else folder.path


async def _answer(
    settings: AppSettings,
    names: list[str],
    folder: Path,
    sock: socket.socket,
    started: Callable[[str], object],
) -> None:
    """Serve some models until a signal ends the app."""
    worker = WorkerProcess(names, settings.device, settings.threads)
    queue = JobQueue(folder, worker, settings.limits)
    try:
        stems = await worker.start()
        offers = {offer.name: offer for offer in map(ModelOffer.of, names, stems.values())}
        queue.start()
        config = uvicorn.Config(
            build_app(queue, offers, settings),
            http=PromptProtocol,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=CLOSE_SECONDS + STOPPED_SECONDS,
        )
        address = _address(settings.host, sock.getsockname()[1])
        server = AppServer(config, lambda: started(address), queue.close)
        await server.serve(sockets=[sock])
    finally:
        await queue.close()


def _address(host: str, port: int) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def run(settings: AppSettings, started: Callable[[str], object]) -> Path | None:
    """Run `serve` in an event loop of its own."""
    return asyncio.run(serve(settings, started))
