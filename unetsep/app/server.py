"""The program that serves the app, from its first moment to its last."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from ..errors import UnetsepError
from ..storage import user_folder
from ..unfinished import ENDING
from .choices import ModelOffer, offered_names
from .connections import PromptProtocol
from .folder import WorkFolder
from .guard import Guard, host_name, is_address
from .handlers import Handlers
from .jobs import JobLimits, JobQueue, RefusedError
from .process import WorkerProcess

CLOSE_SECONDS = 3  # for requests that are being answered when the app ends
STOPPED_SECONDS = 3  # then, for telling the others that it was stopped; more than handlers' LINGER
CONNECTIONS = 200


@dataclass(frozen=True)
class AppSettings:
    """How the app runs.

    Parameters
    ----------
    host, port
        Where it listens; port 0 takes a free one.
    names
        Further names under which it may be reached.
    models
        Names or paths; without any, those of `offered_names`.
    device, threads
        See `unetsep.app.process.WorkerProcess`.
    limits
        What it takes on.
    folder
        For temporary files; None is ``app`` in the user's folder. The system's own folder for
        them is often a part of the memory.

    Raises
    ------
    ValueError
        If a name is none.
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
            if host_name(name) != name.lower() and not is_address(name):
                raise ValueError(
                    f"--allow-host {name}: expected a name alone, such as songs.example.org, "
                    "without http:// and port"
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
    # The address that it leads to begins with http, also where a proxy speaks https for us.
    inner.router.redirect_slashes = False
    refused = queue.figures.refused.labels("origin").inc
    return Guard(inner, settings.host, settings.names, refused)


class AppServer(uvicorn.Server):
    """uvicorn, which tells when it answers, and ends what is not answered in time.

    Parameters
    ----------
    config
        Of uvicorn.
    started
        Called once it answers.
    close
        Called when it is to end and requests have had their time: those that remain end by it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        started: Callable[[], object],
        close: Callable[[], Awaitable[object]],
    ) -> None:
        super().__init__(config)
        self._started, self._close = started, close

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: uvicorn alone would cancel what is not answered, without a word to its client."""
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
    """A socket that listens.

    Raises
    ------
    UnetsepError
        If the address is not ours or the port is taken.
    """
    sock: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, protocol)
        if os.name != "nt":  # where it would let two programs have one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen()  # or another could bind it, too, and learn that only with its models loaded
    except (OSError, UnicodeError) as error:  # the latter of what cannot be a name
        if sock is not None:
            sock.close()
        reason = getattr(error, "strerror", None) or "it is no name of a machine"
        raise UnetsepError(
            f"the app cannot listen at {host}, port {port}: {reason}; choose another "
            "with --host or --port"
        ) from error
    return sock


async def serve(settings: AppSettings, started: Callable[[str], object]) -> Path | None:
    """Run the app until a signal ends it; nothing of it is left then, if its drive works.

    Parameters
    ----------
    settings
        How.
    started
        Called with the address once it answers.

    Returns
    -------
    Path or None
        A folder of temporary files that could not be removed.

    Raises
    ------
    UnetsepError
        If a model cannot be loaded, or it cannot listen.
    """
    names = offered_names(settings.models)
    with listen(settings.host, settings.port) as sock:
        folder = WorkFolder(settings.folder or user_folder() / "app")
        try:
            await _answer(settings, names, folder.path, sock, started)
        finally:
            removed = folder.remove()
    return None if removed else folder.path


async def _answer(
    settings: AppSettings,
    names: list[str],
    folder: Path,
    sock: socket.socket,
    started: Callable[[str], object],
) -> None:
    """Answer requests with some models, until a signal ends it."""
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
        with signals_end_here():
            server = AppServer(config, lambda: started(address), queue.close)
            await server.serve(sockets=[sock])
    finally:
        await queue.close()


@contextlib.contextmanager
def signals_end_here() -> Iterator[None]:
    """Have a closed terminal end the app as a polite kill does, and no signal end more than it.

    Uvicorn sends a signal once more when it has ended: it has been obeyed by then.
    """
    hangup = getattr(signal, "SIGHUP", None)  # which nohup ignores, and some systems lack
    handlers: dict[int, Any] = {n: lambda *_: None for n in ENDING if n != hangup}
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        handlers[hangup] = lambda *_: signal.raise_signal(signal.SIGTERM)
    try:
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    except ValueError:  # not the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _address(host: str, port: int) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def run(settings: AppSettings, started: Callable[[str], object]) -> Path | None:
    """As `serve`, for whoever has no loop."""
    return asyncio.run(serve(settings, started))
