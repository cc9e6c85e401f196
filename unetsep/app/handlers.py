"""The response of the app at each address.

Only Starlette is used, without a library for forms or pages: uploads must be measured while they
arrive, the player must keep its own page, and no script may come from another host.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.resources
import time
import unicodedata
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import AudioError
from ..version import __version__
from .choices import FORBIDDEN, JobChoice, ModelOffer, flag, formats, qualities, safe_name
from .jobs import MISTAKE, RECENT, RETRY, JobQueue, RefusedError, SeparationJob
from .openapi import describe, render
from .process import CRASHED
from .uploads import announced_bytes, cut_off, receive

STATIC = {"app.css": "text/css", "app.js": "text/javascript", "icon.svg": "image/svg+xml"}
# The player's scripts are inline in its page, one of them WebAssembly.
PLAYER_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'wasm-unsafe-eval' blob: data:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self' blob: data:; media-src 'self' blob: data:; worker-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'self'"
)
LINGER = 2.0  # s in which a refused client may read the error while it still sends
DISPOSITION = "content-disposition"
GONE = "there is no such job, or it was removed"
Result = TypeVar("Result")


class Refusal(JSONResponse):
    """The response to a refused request whose client may still be sending.

    Closing a connection while bytes arrive may destroy the response as well. So what arrives
    during the next seconds is discarded.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Respond, discard what arrives, close."""
        start = {"type": "http.response.start", "status": self.status_code}
        await send(start | {"headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        end = time.monotonic() + LINGER
        with contextlib.suppress(asyncio.TimeoutError):
            while (remaining := end - time.monotonic()) > 0:
                message = await asyncio.wait_for(receive(), remaining)
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    break
        await send({"type": "http.response.body", "body": b"", "more_body": False})


class Handlers:
    """The response of the app at each address.

    Parameters
    ----------
    queue
        The queue of jobs.
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
        """The API as a page."""
        return HTMLResponse(render(describe()))

    async def openapi(self, _: Request) -> Response:
        """The API as an OpenAPI document."""
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
        """Receive a song; answer with its job, or wait for its stems."""
        limits = self._queue.limits
        ids = _ids(request, "send it as a field of the form")
        job = self._queue.add(
            announced_bytes(request, limits.upload_bytes), ids[-1] if ids else None
        )
        try:
            upload = await self._until_ended(receive(request, job.source, limits), job)
            if upload is None:
                raise cut_off()
            wait = flag(upload.fields, "wait")
            fields = {name: v for name, v in upload.fields.items() if name != "wait"}
            choice = JobChoice.from_fields(fields, self._offers)
            if wait and choice.player:
                raise ValueError(
                    "choose either wait or player: after the answer the page is removed"
                )
            # The client would never learn the job's id, or has removed the job by an id of its own.
            if await request.is_disconnected() or job.ended.is_set():
                raise cut_off()
        except (AudioError, ValueError) as error:
            await self._queue.give_up(job)
            raise HTTPException(422, str(error)) from error
        except BaseException:
            await self._queue.give_up(job)
            raise
        name = safe_name(upload.filename)
        self._queue.enqueue(job, name, choice, upload.bytes)
        if not wait:
            return JSONResponse(self._to_json(job), 202, headers={"location": f"/jobs/{job.id}"})
        return await self._await_zip(request, job)

    async def _await_zip(self, request: Request, job: SeparationJob) -> ASGIApp:
        """The zip of a job once it is done; if the client disconnects earlier, the job ends."""
        try:
            await self._until_ended(_disconnected(request), job)
            if job.state != "done":
                raise HTTPException(500 if job.error in (CRASHED, MISTAKE) else 422, job.error)
            return Once(await self._zip_response(job), lambda: self._queue.remove(job))
        except BaseException:
            await self._queue.remove(job)
            raise

    async def _until_ended(
        self, work: Coroutine[Any, Any, Result], job: SeparationJob
    ) -> Result | None:
        """The result of some work, or None if its job ends first; refused when the app ends."""
        closed = self._queue.closed
        task = asyncio.create_task(work)
        events = [asyncio.create_task(event.wait()) for event in (closed, job.ended)]
        try:
            await asyncio.wait([task, *events], return_when=asyncio.FIRST_COMPLETED)
            if closed.is_set():
                raise RefusedError("the app was stopped", 503, "stopped")
            return None if job.ended.is_set() else task.result()
        finally:
            for each in (task, *events):
                each.cancel()
            await asyncio.gather(task, *events, return_exceptions=True)

    async def jobs(self, request: Request) -> Response:
        """The jobs with the requested ids."""
        jobs = [self._queue.get(id_) for id_ in _ids(request, "expected id")]
        return JSONResponse({"jobs": [self._to_json(job) for job in jobs if job is not None]})

    async def job(self, request: Request) -> Response:
        """One job; DELETE cancels and removes it."""
        job = self._find(request)
        if request.method != "DELETE":
            return JSONResponse(self._to_json(job))
        await self._queue.remove(job)
        return Response(status_code=204)

    async def zip(self, request: Request) -> Response:
        """All stems of a job."""
        return await self._zip_response(self._find_done(request))

    async def file(self, request: Request) -> Response:
        """A stem, or a file of the player, among those that the job lists."""
        job, path = self._find_done(request), request.path_params["path"]
        file = job.files.get("player/index.html" if path == "player/" else path)
        if file is None:
            raise HTTPException(404, "this job has no such file")
        if file in job.stems.values():
            return _file_response(file, headers=_disposition(f"{job.name} - {file.name}"))
        return _file_response(file, headers={"content-security-policy": PLAYER_POLICY})

    async def _zip_response(self, job: SeparationJob) -> FileResponse:
        path = await self._queue.zip(job)
        if path is None:
            raise HTTPException(404, GONE)
        headers = _disposition(f"{job.name}.zip")
        return _file_response(path, headers=headers, media_type="application/zip")

    def _find(self, request: Request) -> SeparationJob:
        job = self._queue.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, GONE)
        return job

    def _find_done(self, request: Request) -> SeparationJob:
        job = self._find(request)
        if job.state == "failed":
            raise HTTPException(409, f"the job failed: {job.error}")
        if job.state != "done":
            raise HTTPException(409, f"the job is not done: it is {job.state}")
        return job

    def _to_json(self, job: SeparationJob) -> dict[str, Any]:
        """A job as JSON of the API."""
        home = f"/jobs/{job.id}"
        return {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "model": job.choice.offer.name if job.choice else None,
            "before": self._queue.songs_ahead(job),
            "stage": job.stage or None,
            "progress": None if job.progress is None else round(job.progress, 4),
            "seconds_left": job.seconds_left,
            "error": job.error,
            "seconds": job.report.get("seconds"),
            "gain_db": job.report.get("gain_db"),
            "warnings": job.report.get("warnings", []),
            "stems": {n: f"{home}/stems/{quote(path.name)}" for n, path in job.stems.items()},
            "zip": f"{home}/stems.zip" if job.state == "done" else None,
            "player": f"{home}/player/" if "player/index.html" in job.files else None,
        }

    # Operation

    async def health(self, _: Request) -> Response:
        """Whether jobs are processed."""
        queue = self._queue
        content = {
            "status": "ok" if queue.healthy else "failed",
            "version": __version__,
            "waiting": queue.waiting,
            "running": queue.count("running"),
        }
        return JSONResponse(content, 200 if queue.healthy else 503)

    async def metrics(self, _: Request) -> Response:
        """Metrics for Prometheus."""
        text = generate_latest(self._queue.metrics.registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    # Errors

    async def refuse(self, _: Request, error: Exception) -> Response:
        """Answer a `RefusedError`: too many songs, an upload too large or slow, no disk space."""
        assert isinstance(error, RefusedError)
        self._queue.metrics.refused.labels(error.reason).inc()
        headers = {"connection": "close"}
        if error.status in (429, 507):
            headers["retry-after"] = str(RETRY if error.status == 429 else RECENT)
        return Refusal({"error": str(error)}, error.status, headers=headers)

    async def explain(self, request: Request, error: Exception) -> Response:
        """Answer an `HTTPException`, such as an unknown address."""
        assert isinstance(error, HTTPException)
        # Not request.url: older versions of Starlette build it from any Host, or fail to.
        text, path = error.detail, request.scope["path"]
        if text == HTTPStatus.NOT_FOUND.phrase:  # so Starlette calls what has no route
            text = f"there is nothing at {path}: see /api"
        elif text == HTTPStatus.METHOD_NOT_ALLOWED.phrase:
            methods = (error.headers or {}).get("Allow")
            text = f"{path} does not take {request.method}: expected {methods}"
        return JSONResponse({"error": text}, error.status_code, headers=error.headers)

    async def fail(self, _: Request, __: Exception) -> Response:
        """Answer any other exception, which is a bug; the log has its traceback."""
        return JSONResponse({"error": MISTAKE}, 500)


@dataclass(frozen=True)
class Once:
    """A response after which its job is removed, even if sending fails."""

    response: Response
    remove: Callable[[], Awaitable[object]]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response, then remove the job."""
        try:
            await self.response(scope, receive, send)
        finally:
            await self.remove()


def _ids(request: Request, advice: str) -> list[str]:
    """The values of ``id``, the only parameter that an address takes.

    Raises
    ------
    RefusedError
        If there is another parameter; the advice says what to do instead.
    """
    for name in request.query_params:
        if name != "id":
            raise RefusedError(f"unknown parameter {name!r}: {advice}", 422, "parameter")
    return request.query_params.getlist("id")


def _disposition(filename: str) -> dict[str, str]:
    """The header that names a file for clients that save it.

    By RFC 6266 that is ``filename*``. Some clients, such as curl, only read ``filename``, in ASCII.
    """
    letters = unicodedata.normalize("NFKD", filename)  # also turns wide ? and / into plain ones
    bases = (each for each in letters if not unicodedata.combining(each))
    plain = "".join(each if each.isascii() and each not in FORBIDDEN else "_" for each in bases)
    encoded = quote(filename, safe="")
    return {DISPOSITION: f"attachment; filename=\"{plain}\"; filename*=utf-8''{encoded}"}


def _file_response(path: Path, **options: Any) -> FileResponse:
    """A file of a job, which may be removed at any moment."""
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
