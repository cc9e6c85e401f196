"""The app while it serves: in a thread of the test, or as the real command."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from unetsep.app import server
from unetsep.app.jobs import JobQueue
from unetsep.app.server import AppServer, AppSettings, serve

ROOT = Path(__file__).parent.parent.parent


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Requests to an app."""

    port: int

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body or None, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())  # type: ignore[arg-type]
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def send(self, path: Path, name: str | None = None, **fields: str) -> Answer:
        kind, body = form(fields, name or path.name, path.read_bytes())
        return self.ask("POST", "/separate", body, {"content-type": kind})

    def job(self, id_: str) -> Any:
        return self.get(f"/jobs/{id_}").json

    def wait(self, id_: str, states: tuple[str, ...] = ("done", "failed")) -> Any:
        return until(lambda: (job := self.job(id_))["state"] in states and job)


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """The first value of a condition that is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.03)
    return value


def process_exists(pid: int) -> bool:
    """Whether a process is there and is no zombie."""
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def form(fields: Mapping[str, str], name: str, content: bytes) -> tuple[str, bytes]:
    """A multipart form: its type and its body."""
    parts = [
        f'--mark\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    ]
    name = name.replace("\\", "\\\\").replace('"', '\\"')
    parts.append(
        f'--mark\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = "".join(parts).encode("utf-8", "surrogateescape") + content + b"\r\n--mark--\r\n"
    return "multipart/form-data; boundary=mark", body


@dataclass
class LocalApp(Client):
    """An app in this process, and what is inside it."""

    queue: JobQueue
    folder: Path

    @property
    def files(self) -> list[Path]:
        """All files; rglob raises if one folder vanishes meanwhile."""
        return [Path(parent, name) for parent, _, names in os.walk(self.folder) for name in names]


@contextmanager
def run_app(settings: AppSettings) -> Iterator[LocalApp]:
    """The app in a thread, with a worker of its own."""
    queues: list[JobQueue] = []
    addresses: list[str] = []
    failures: list[BaseException] = []
    servers: list[AppServer] = []

    class SeenQueue(JobQueue):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            queues.append(self)

    class SeenServer(AppServer):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            servers.append(self)

    def run() -> None:
        try:
            asyncio.run(serve(settings, addresses.append))
        except BaseException as error:
            failures.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "JobQueue", SeenQueue)
        patch.setattr(server, "AppServer", SeenServer)
        thread = threading.Thread(target=run)
        thread.start()
        try:
            until(lambda: addresses or failures)
            assert not failures
            port = int(addresses[0].rstrip("/").rpartition(":")[2])
            assert settings.folder is not None
            yield LocalApp(port, queues[0], settings.folder)
        finally:
            for each in servers:
                each.should_exit = True  # as a signal does
            thread.join(20)
    assert not thread.is_alive()
    assert not failures


@dataclass
class Command(Client):
    """The real command."""

    process: subprocess.Popen[str]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, float]:
        """Send a signal; the exit code, and the seconds that it took."""
        begun = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(20)
        return code, time.monotonic() - begun


@contextmanager
def command(*options: str | Path, **environment: str) -> Iterator[Command]:
    """``unetsep app`` as a process; killed at the end if it still runs."""
    words = [sys.executable, "-m", "unetsep", "app", "--no-browser", "--port", "0"]
    with subprocess.Popen(
        [*words, *map(str, options)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    ) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "The app is at" in line:
                    break
            else:
                raise AssertionError("".join(lines))
            yield Command(int(lines[-1].split("/ ")[0].rpartition(":")[2]), process)
        finally:
            process.kill()
