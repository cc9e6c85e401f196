"""The addresses of the app, and the program that serves them.

Starlette and uvicorn, and nothing that builds forms or pages for us: uploads must be measured
while they arrive, the player must keep its own page, and no script may come from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import os
import signal
import socket
import time
import unicodedata
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import UnetsepError
from ..storage import user_folder
from ..unfinished import ENDING
from ..version import __version__
from .choices import (
    FORBIDDEN,
    JobChoice,
    ModelOffer,
    flag,
    formats,
    offered_names,
    qualities,
    safe_name,
)
from .connections import PromptProtocol
from .folder import WorkFolder
from .guard import Guard, host_name, is_address
from .jobs import MISTAKE, RETRY, JobLimits, JobQueue, RefusedError, SeparationJob
from .openapi import describe, render
from .process import WorkerProcess
from .uploads import announced_bytes, cut_off, receive

STATIC = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
# The player has its scripts inside its page, one of them WebAssembly.
PLAYER_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob: data:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' blob: data:; media-src 'self' blob: data:; worker-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
LINGER = 2.0  # s in which a client that is refused may read why, while it still sends
CLOSE_SECONDS = 3  # for requests that are being answered when the app ends
STOPPED_SECONDS = 3  # then, for telling the others that it was stopped; more than LINGER
CONNECTIONS = 200
DISPOSITION = "content-disposition"
GONE = "there is no such job, or it was removed"
Result = TypeVar("Result")


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


class Refusal(JSONResponse):
    """Why a request was refused, told to a client that may still be sending.

    Whoever closes a connection that bytes are coming in on may destroy the answer, too. So what
    comes in during the next seconds is thrown away.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer, throw away, close."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        end = time.monotonic() + LINGER
        with contextlib.suppress(asyncio.TimeoutError):
            while (left := end - time.monotonic()) > 0:
                message = await asyncio.wait_for(receive(), left)
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Handlers:
    """What the app answers at each address.

    Parameters
    ----------
    queue
        The jobs.
    offers
        Models by name.
    """

    def __init__(self, queue: JobQueue, offers: dict[str, ModelOffer]) -> None:
        self._queue, self._offers = queue, offers

    def routes(self) -> list[Route]:
        """All addresses."""
        return [
            Route("/", self.index),
            Route("/static/{name}", self.static),
            Route("/api", self.api),
            Route("/openapi.json", self.openapi),
            Route("/choices", self.choices),
            Route("/separate", self.separate, methods=["POST"]),
            Route("/jobs", self.jobs),
            Route("/jobs/{id}", self.job, methods=["GET", "DELETE"]),
            Route("/jobs/{id}/stems.zip", self.zip),
            Route("/jobs/{id}/{path:path}", self.file),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
        ]

    # Pages

    async def index(self, _: Request) -> Response:
        """The page."""
        return HTMLResponse(read("index.html"))

    async def static(self, request: Request) -> Response:
        """A file of the page."""
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404, "there is no such file")
        return Response(read(name), media_type=STATIC[name])

    async def api(self, _: Request) -> Response:
        """What the API promises, to read."""
        return HTMLResponse(render(describe()))

    async def openapi(self, _: Request) -> Response:
        """The same for programs."""
        return JSONResponse(describe())

    async def choices(self, _: Request) -> Response:
        """Models, formats and limits."""
        limits = self._queue.limits
        return JSONResponse(
            {
                "models": [offer.to_json() for offer in self._offers.values()],
                "qualities": qualities(list(self._offers.values())),
                "formats": formats(),
                "limits": {
                    "upload_bytes": limits.upload_bytes,
                    "queue": limits.queue,
                    "seconds": limits.seconds,
                    "keep_seconds": limits.keep_seconds,
                },
            }
        )

    # Jobs

    async def separate(self, request: Request) -> ASGIApp:
        """Take a song in; answer with its job, or wait for its stems."""
        limits = self._queue.limits
        job = self._queue.open(
            announced_bytes(request, limits.upload_bytes), request.query_params.get("id")
        )
        try:
            receiving = receive(request, job.source, limits)
            upload = await self._until_ended(receiving, job)
            if upload is None:
                raise cut_off()
            wait = flag(upload.fields, "wait")
            fields = {name: v for name, v in upload.fields.items() if name != "wait"}
            choice = JobChoice.from_fields(fields, self._offers)
            if wait and choice.player:
                raise ValueError("choose either wait or player: the page is gone with the answer")
            # Nobody would ever know the job's id; or who knew it beforehand has removed it.
            if await request.is_disconnected() or job.ended.is_set():
                raise cut_off()
        except ValueError as error:
            await self._queue.give_up(job)
            raise HTTPException(422, str(error)) from error
        except BaseException:
            await self._queue.give_up(job)
            raise
        name = safe_name(upload.filename)
        self._queue.enqueue(job, name, choice, upload.bytes)
        if not wait:
            return JSONResponse(self._to_json(job), 202, headers={"location": f"/jobs/{job.id}"})
        return await self._when_done(request, job)

    async def _when_done(self, request: Request, job: SeparationJob) -> ASGIApp:
        """The zip of a job once it is done; if the client leaves before, the job ends."""
        try:
            await self._until_ended(_disconnected(request), job)
            if job.state != "done":
                raise HTTPException(422, job.error or "the song was removed before it was done")
            return Once(await self._zipped(job), lambda: self._queue.remove(job))
        except BaseException:
            await self._queue.remove(job)
            raise

    async def _until_ended(
        self, work: Coroutine[Any, Any, Result], job: SeparationJob
    ) -> Result | None:
        """What comes of some work; None if its job ends before. The app's end breaks it off."""
        closed = self._queue.closed
        working = asyncio.create_task(work)
        waiting = [asyncio.create_task(event.wait()) for event in (closed, job.ended)]
        try:
            await asyncio.wait([working, *waiting], return_when=asyncio.FIRST_COMPLETED)
            if closed.is_set():
                raise RefusedError("the app was stopped", 503, "stopped")
            return None if job.ended.is_set() else working.result()
        finally:
            for task in (working, *waiting):
                task.cancel()
            await asyncio.gather(working, *waiting, return_exceptions=True)

    async def jobs(self, request: Request) -> Response:
        """The jobs whose names are given."""
        found = [self._queue.get(id_) for id_ in request.query_params.getlist("id")]
        return JSONResponse({"jobs": [self._to_json(job) for job in found if job is not None]})

    async def job(self, request: Request) -> Response:
        """One job; or cancel and forget it."""
        job = self._find(request)
        if request.method != "DELETE":
            return JSONResponse(self._to_json(job))
        await self._queue.remove(job)
        return Response(status_code=204)

    async def zip(self, request: Request) -> Response:
        """All stems of a job."""
        return await self._zipped(self._done(request))

    async def file(self, request: Request) -> Response:
        """A stem, or a file of the player: one that the job listed, and no other."""
        job, path = self._done(request), request.path_params["path"]
        file = job.files.get("player/index.html" if path == "player/" else path)
        if file is None:
            raise HTTPException(404, "this job has no such file")
        if path.startswith("stems/"):
            return _sent(file, headers=_named(f"{job.name} - {file.name}"))
        return _sent(file, headers={"content-security-policy": PLAYER_POLICY})

    async def _zipped(self, job: SeparationJob) -> FileResponse:
        path = await self._queue.zip(job)
        if path is None:
            raise HTTPException(404, GONE)
        headers = _named(f"{job.name}.zip")
        return _sent(path, headers=headers, media_type="application/zip")

    def _find(self, request: Request) -> SeparationJob:
        job = self._queue.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, GONE)
        return job

    def _done(self, request: Request) -> SeparationJob:
        job = self._find(request)
        if job.state != "done":
            raise HTTPException(409, f"the job is not done: it is {job.state}")
        return job

    def _to_json(self, job: SeparationJob) -> dict[str, Any]:
        """A job as the API tells it."""
        home = f"/jobs/{job.id}"
        done = job.state == "done"
        stems = {Path(path).stem: f"{home}/{path}" for path in job.files if path[:6] == "stems/"}
        return {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "model": job.choice.offer.name if job.choice else None,
            "before": self._queue.place(job),
            "stage": job.stage or None,
            "progress": None if job.progress is None else round(job.progress, 4),
            "seconds_left": job.seconds_left,
            "error": job.error,
            "seconds": job.report.get("seconds"),
            "gain_db": job.report.get("gain_db"),
            "warnings": job.report.get("warnings", []),
            "stems": stems,
            "zip": f"{home}/stems.zip" if done else None,
            "player": f"{home}/player/" if "player/index.html" in job.files else None,
        }

    # Operation

    async def health(self, _: Request) -> Response:
        """Whether songs are taken."""
        queue = self._queue
        content = {
            "status": "ok" if queue.healthy else "failed",
            "version": __version__,
            "waiting": queue.waiting,
            "running": queue.count("running"),
        }
        return JSONResponse(content, 200 if queue.healthy else 503)

    async def metrics(self, _: Request) -> Response:
        """Figures for Prometheus."""
        text = generate_latest(self._queue.figures.registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    # Errors

    async def refuse(self, _: Request, error: Exception) -> Response:
        """Too much, too large, too slow."""
        assert isinstance(error, RefusedError)
        self._queue.figures.refused.labels(error.reason).inc()
        headers = {"connection": "close"}
        if error.status in (429, 507):
            headers["retry-after"] = str(RETRY)
        return Refusal({"error": str(error)}, error.status, headers=headers)

    async def explain(self, _: Request, error: Exception) -> Response:
        """Anything that is not there."""
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)

    async def fail(self, _: Request, __: Exception) -> Response:
        """A mistake of ours; the log has it."""
        return JSONResponse({"error": MISTAKE}, 500)


@dataclass(frozen=True)
class Once:
    """An answer that is sent once; what it belongs to is removed then, come what may."""

    answer: Response
    remove: Callable[[], Awaitable[object]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, then remove."""
        try:
            await self.answer(scope, receive, send)
        finally:
            await self.remove()


def _named(filename: str) -> dict[str, str]:
    """What tells clients under which name to save a file.

    By RFC 6266 that is ``filename*``. Some, such as curl, know but ``filename``, in ASCII.
    """
    letters = unicodedata.normalize("NFKD", filename)  # makes ? and / of wide ones, too
    known = (each for each in letters if not unicodedata.combining(each))
    plain = "".join(each if each.isascii() and each not in FORBIDDEN else "_" for each in known)
    whole = quote(filename, safe="")
    return {DISPOSITION: f"attachment; filename=\"{plain}\"; filename*=utf-8''{whole}"}


def _sent(path: Path, **options: Any) -> FileResponse:
    """A file of a job, which may just be removed."""
    try:
        return FileResponse(path, stat_result=path.stat(), **options)
    except FileNotFoundError as error:
        raise HTTPException(404, GONE) from error


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def read(name: str) -> bytes:
    """A file of the page."""
    return importlib.resources.files(__package__).joinpath("web", name).read_bytes()


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


async def serve(settings: AppSettings, started: Callable[[str], object]) -> None:
    """Run the app until a signal ends it; nothing of it is left then.

    Parameters
    ----------
    settings
        How.
    started
        Called with the address once it answers.

    Raises
    ------
    UnetsepError
        If a model cannot be loaded, or it cannot listen.
    """
    names = offered_names(settings.models)
    async with contextlib.AsyncExitStack() as stack:
        sock = stack.enter_context(listen(settings.host, settings.port))
        folder = WorkFolder(settings.folder or user_folder() / "app")
        stack.callback(folder.remove)
        worker = WorkerProcess(names, settings.device, settings.threads)
        queue = JobQueue(folder.path, worker, settings.limits)
        stack.push_async_callback(queue.close)
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
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104
    return f"http://{f'[{name}]' if ':' in name and name[0] != '[' else name}:{port}/"


def run(settings: AppSettings, started: Callable[[str], object]) -> None:
    """As `serve`, for whoever has no loop."""
    asyncio.run(serve(settings, started))
