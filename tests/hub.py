"""A small server on loopback that answers like the hub, well or badly.

``python tests/hub.py FILE BEHAVIOUR`` serves FILE under any repository and prints its port.
"""

from __future__ import annotations

import hashlib
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
BEHAVIOURS = ("good", "corrupt", "cut", "404", "403", "500", "slow", "hang", "lying")


def serve(content: bytes, behaviour: str) -> ThreadingHTTPServer:
    """A server for one file; ``server.requests`` collects what was asked for."""
    asked: list[str] = []
    body = bytes(reversed(content)) if behaviour == "corrupt" else content

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            asked.append(f"{self.command} {self.path}")
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
            if not with_body:
                return
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
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests = asked  # type: ignore[attr-defined]
    return server


if __name__ == "__main__":
    running = serve(Path(sys.argv[1]).read_bytes(), sys.argv[2])
    print(running.server_port, flush=True)  # noqa: T201
    running.serve_forever()
