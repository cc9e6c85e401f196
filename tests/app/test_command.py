"""``unetsep app`` as a process: crowds, kills, signals, and no network."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import soundfile

from tests.app.serving import ROOT, Command, command, form, process_exists, until
from tests.commands import call
from tests.signals import music
from unetsep.app import server
from unetsep.app.server import AppSettings, listen, work_folder
from unetsep.cli import CONTEXT
from unetsep.cli.app import AppOptions, has_screen
from unetsep.cli.options.app import app as app_command
from unetsep.cli.parsing import build
from unetsep.errors import UnetsepError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and /proc")
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "tune.flac"
    soundfile.write(path, music(3).T, 44_100)
    return path


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "hour.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        minute = np.sin(np.arange(480_000) / 50) / 4
        for _ in range(60):
            file.write(minute)
    return path


def song_of_12_mb(tune: Path) -> bytes:
    """A song of half a second in a wav file of 12 MB, most of it a chunk that nobody reads."""
    file = io.BytesIO()
    soundfile.write(file, soundfile.read(tune)[0][:22_050], 44_100, format="WAV")
    content = file.getvalue() + struct.pack("<4sI", b"JUNK", 12 * MEGABYTE) + bytes(12 * MEGABYTE)
    return content[:4] + struct.pack("<I", len(content) - 8) + content[8:]


def peak(pid: int) -> int:
    """The most memory that a process ever had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(word) for task in tasks for word in (task / "children").read_text().split()]


def options(model: Path, folder: Path) -> list[str]:
    words = f"-m {model} -d cpu --threads 1 --queue 30 --max-upload 20 --folder {folder}"
    return words.split()


def crowd(app: Command, tune: Path) -> None:
    """Twenty uploads at once, 240 MB together: all are separated, in little memory."""
    (worker,) = children(app.process.pid)
    app.wait(app.send(tune).json["id"])  # the worker has its buffers now
    before, worker_before = peak(app.process.pid), peak(worker)
    kind, body = form({}, "noise.wav", song_of_12_mb(tune))
    begin = threading.Barrier(20)

    def send(_: int) -> str:
        begin.wait()
        answer = app.ask("POST", "/separate", body, {"content-type": kind})
        assert answer.status == 202
        return str(answer.json["id"])

    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(send, range(20)))
    assert {app.wait(id_)["state"] for id_ in ids} == {"done"}
    assert peak(app.process.pid) - before < 60 * MEGABYTE
    assert peak(worker) - worker_before < 60 * MEGABYTE
    assert b'unetsep_jobs_total{outcome="done"} 21.0' in app.get("/metrics").body


@contextmanager
def slow_upload(app: Command) -> Iterator[socket.socket]:
    """An upload that has begun, and does not go on."""
    with socket.create_connection(("127.0.0.1", app.port)) as slow:
        slow.sendall(b"POST /separate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n")
        slow.sendall(b"Content-Type: multipart/form-data; boundary=mark\r\n\r\n--mark\r\n")
        until(lambda: app.get("/health").json["waiting"])
        yield slow


def test_no_files_remain_after_crowds_kills_and_signals(
    tiny_model: Path, tmp_path: Path, tune: Path, hour: Path
) -> None:
    with command(*options(tiny_model, tmp_path)) as app:
        crowd(app, tune)
        id_ = app.send(hour).json["id"]
        until(lambda: app.job(id_)["progress"])
        (worker,) = children(app.process.pid)
        app.end(signal.SIGKILL)
        until(lambda: not process_exists(worker))
    (left,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert list(left.rglob("upload"))
    with command(*options(tiny_model, tmp_path)) as app:
        assert not left.exists()
        stop(app, hour, signal.SIGTERM)
    assert list(tmp_path.iterdir()) == []


def test_a_second_signal_does_not_interrupt_the_removal_of_files(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(_: object, __: object, folder: Path, *___: object) -> None:
        (folder / "upload").write_text("")

    def interrupted(*words: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGTERM)
        remove(*words, **options)

    remove = shutil.rmtree
    monkeypatch.setattr(server, "_answer", answer)
    monkeypatch.setattr(shutil, "rmtree", interrupted)
    settings = AppSettings(port=0, models=(str(tiny_model),), folder=tmp_path)
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with pytest.raises(SystemExit):
            server.run(settings, lambda _: None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == []


def stop(app: Command, hour: Path, number: int) -> None:
    """Stop an app at work: who still waits for a song or sends one is told so."""
    id_ = 32 * "a"
    kind, body = form({"wait": "true"}, hour.name, hour.read_bytes())
    with ThreadPoolExecutor(1) as pool:
        words = ("POST", f"/separate?id={id_}", body, {"content-type": kind})
        waiting = pool.submit(app.ask, *words)
        until(lambda: app.job(id_).get("progress"))
        (worker,) = children(app.process.pid)
        os.kill(worker, signal.SIGTERM)  # as when systemd stops all of a service
        with slow_upload(app) as slow:
            code, seconds = app.end(number)
            told = b"".join(iter(lambda: slow.recv(1000), b""))
        assert (code, seconds < 10) == (0, True)
        assert not process_exists(worker)
        assert app.process.stderr is not None
        assert app.process.stderr.read() == "Stopped; all temporary files were removed.\n"
        answer = waiting.result()
    assert (answer.status, answer.json) == (503, {"error": "the app was stopped"})
    assert told.startswith(b"HTTP/1.1 503 ")
    assert b'{"error":"the app was stopped"}' in told


def test_closing_the_terminal_stops_the_app_as_sigterm_does(
    tiny_model: Path, tmp_path: Path, hour: Path
) -> None:
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("whoever started the tests has them outlive the terminal")
    with command(*options(tiny_model, tmp_path)) as app:
        stop(app, hour, signal.SIGHUP)
    assert list(tmp_path.iterdir()) == []


# Whoever asks for an address that is not this machine's ends with it written down.
WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        name = arguments[0]
    elif event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[-1]
        name = address[0] if isinstance(address, tuple) else None
    else:
        return
    if name not in (None, "127.0.0.1", "localhost", "::1"):
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{event} {name}\\n")
        os._exit(9)
sys.addaudithook(watch)
"""
# Takes the only device of a network name space up, then runs the app and asks it.
ALONE = """
import fcntl, json, socket, struct, sys
from pathlib import Path
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 0x41))
from tests.app.serving import command
model, folder, tune = sys.argv[1:]
with command("-m", f"{model},fast", "-d", "cpu", "--threads", "1", "--folder", folder) as app:
    job = app.wait(app.send(Path(tune), player="true", model="fast").json["id"])
    pages = [app.get(path).status for path in ("/", "/api", job["player"], job["zip"])]
    print(json.dumps({"state": job["state"], "pages": pages, "code": app.end()[0]}))
"""


def test_the_app_works_offline_and_makes_no_requests(
    tiny_model: Path, tmp_path: Path, tune: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    asked = tmp_path / "asked"
    environment = os.environ | {
        "ASKED": str(asked),
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
    }
    check = [sys.executable, "-c", "import socket; socket.getaddrinfo('example.org', 80)"]
    assert subprocess.run(check, env=environment, check=False).returncode == 9
    assert asked.read_text() == "socket.getaddrinfo example.org\n"
    asked.unlink()
    cut = ["unshare", "-rn"]
    if not shutil.which("unshare") or subprocess.run([*cut, "true"], check=False).returncode:
        cut = []  # the hook still sees whoever asks
    words = [sys.executable, "-c", ALONE, tiny_model, tmp_path / "app", tune]
    run = subprocess.run(
        [*cut, *map(str, words)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert told == {"state": "done", "pages": [200, 200, 200, 200], "code": 0}
    assert not asked.exists()


def test_options_that_cannot_work_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    def error(*words: object) -> str:
        result = call("app", "--no-browser", "--folder", tmp_path, *words)
        assert result.exit_code == 1
        return result.output.splitlines()[-1]

    assert "there is no model 'nothing'" in error("-m", "nothing")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        sentence = error("-m", tiny_model, "--port", port)
    assert sentence.startswith(f"Error: the app cannot listen on 127.0.0.1, port {port}: Address")
    assert "expected" in error("-m", __file__, "--port", "0")
    assert list(tmp_path.iterdir()) == []


def test_a_port_is_taken_before_any_model_is_loaded() -> None:
    with closing(listen("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UnetsepError, match=f"cannot listen on 127.0.0.1, port {port}: Address"):
            listen("127.0.0.1", port)


def test_options_become_limits() -> None:
    words = ["--max-upload", "1.5", "--time-limit", "2", "--keep", "0.5", "--disk", "3"]
    values = app_command.make_context("app", words, **CONTEXT).params
    limits = build(AppOptions, values).settings.limits
    assert (limits.upload_bytes, limits.seconds) == (1_500_000, 120)
    assert (limits.keep_seconds, limits.disk_bytes) == (1800, 3_000_000_000)
    defaults = build(AppOptions, app_command.make_context("app", [], **CONTEXT).params)
    assert defaults.settings == AppSettings()


def test_infinite_and_nan_limits_are_refused() -> None:
    for option, value in (("--disk", "inf"), ("--keep", "1e308"), ("--max-upload", "nan")):
        with pytest.raises(click.BadParameter, match="expected a smaller number, got"):
            app_command.make_context("app", [option, value], **CONTEXT)


def test_allowed_hosts_are_names_alone() -> None:
    for name in ("songs.example.org", "SONGS", "192.168.0.7", "fe80::1"):
        values = app_command.make_context("app", ["--allow-host", name], **CONTEXT).params
        assert build(AppOptions, values).settings.names == (name,)
    wrong = ("songs.example.org:8080", "https://songs.example.org", "[::1]:80", "", "*", "müsik.de")
    for name in wrong:
        values = app_command.make_context("app", ["--allow-host", name], **CONTEXT).params
        with pytest.raises(ValueError, match=f"--allow-host {re.escape(name)}: expected a name"):
            build(AppOptions, values)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path, reason in ((file, "it is a file"), (file / "app", "Not a directory")):
        sentence = f"the app cannot write temporary files to {path}: {reason}; choose another"
        with pytest.raises(UnetsepError, match=re.escape(sentence)):
            work_folder(path)


@pytest.mark.parametrize("host", ["a..b", 70 * "x"])
def test_an_invalid_host_is_refused_with_a_message(host: str) -> None:
    with pytest.raises(UnetsepError, match=f"the app cannot listen on {re.escape(host)}, port 0"):
        listen(host, 0)


def test_a_screen_is_detected_by_the_display_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not has_screen()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_screen()
