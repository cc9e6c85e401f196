"""A hub on loopback that answers well or badly, for the real client."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.web import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# Of its only file.
CONTENT = bytes(range(256)) * 800


@contextmanager
def fake_hub(behaviour: str) -> Iterator[tuple[str, list[str]]]:
    """Address of a hub that has one file under any name, and the list of its requests.

    Parameters
    ----------
    behaviour
        ``good``; ``slow``, ``hang`` or ``cut``: bytes come late, never, or end too early;
        ``corrupt`` or ``lying``: the bytes or the name are others; or an HTTP status.
    """
    requests: list[str] = []
    body = bytes(reversed(CONTENT)) if behaviour == "corrupt" else CONTENT

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            requests.append(f"{self.command} {self.path}")
            if behaviour == "hang":
                time.sleep(60)
            if behaviour.isdigit() or "/resolve/" not in self.path:
                self.send_response(int(behaviour) if behaviour.isdigit() else 404)
                if behaviour == "404":
                    self.send_header("X-Error-Code", "EntryNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            lie = "../../../../victim.txt"  # from the folder of blobs
            etag = lie if behaviour == "lying" else hashlib.sha256(body).hexdigest()
            self.send_header("ETag", f'"{etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if with_body:
                self.send(body)

        def send(self, body: bytes) -> None:
            if behaviour == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.connection.close()
            elif behaviour == "slow":
                for start in range(0, len(body), len(body) // 8 + 1):
                    self.wfile.write(body[start : start + len(body) // 8 + 1])
                    self.wfile.flush()
                    time.sleep(0.25)
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Handler) as address:
        yield address, requests
