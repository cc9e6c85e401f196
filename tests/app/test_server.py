"""The app over HTTP: songs in, stems out, and whatever goes wrong between."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.responses import FileResponse

from tests.app.serving import ROOT, LocalApp, form, run_app, until
from tests.commands import call
from tests.signals import music
from unetsep.app import connections, jobs, process
from unetsep.app.jobs import JobLimits, write_zip
from unetsep.app.openapi import describe
from unetsep.app.server import AppSettings
from unetsep.config import STEMS

LIMITS = JobLimits(upload_bytes=40_000_000, queue=8)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[LocalApp]:
    folder = tmp_path_factory.mktemp("app")
    settings = AppSettings(
        port=0, models=(str(tiny_model),), device="cpu", threads=1, limits=LIMITS, folder=folder
    )
    with run_app(settings) as served:
        yield served
    assert list(folder.iterdir()) == []


@pytest.fixture(autouse=True)
def _clean_disk(app: LocalApp) -> Iterator[None]:
    """Each test removes its jobs; nothing of them may stay on the disk."""
    yield
    app.queue.limits = LIMITS
    for id_ in list(app.queue.jobs):
        app.ask("DELETE", f"/jobs/{id_}")
    until(lambda: not app.queue.jobs)
    until(lambda: [path.suffix for path in app.files] == [".lock"])


@pytest.fixture(scope="module")
def tune(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "My tune.flac"
    with soundfile.SoundFile(path, "w", 44_100, 2) as file:
        file.title, file.artist = "The title", "The artist"
        file.write(music(2).T)
    return path


@pytest.fixture(scope="module")
def long_song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half an hour of next to nothing: it takes many seconds."""
    path = tmp_path_factory.mktemp("songs") / "long.flac"
    wave = np.tile(music(10, 8000, 1, 3)[0], 180)
    soundfile.write(path, wave, 8000, subtype="PCM_16")
    return path


def limit(app: LocalApp, **values: Any) -> None:
    app.queue.limits = dataclasses.replace(LIMITS, **values)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({}, 2),
        ({"passes": "2"}, 2),
        ({"sample-rate": "48000"}, 2),
        ({"start": "0:00.5", "duration": "1"}, 1),
    ],
)
def test_stems_equal_those_of_the_command(
    app: LocalApp,
    tune: Path,
    tiny_model: Path,
    tmp_path: Path,
    fields: dict[str, str],
    seconds: float,
) -> None:
    values = {name.replace("-", "_"): value for name, value in fields.items()}
    answer = app.send(tune, format="flac", **values)
    assert answer.status == 202
    assert answer.headers["location"] == f"/jobs/{answer.json['id']}"
    job = app.wait(answer.json["id"])
    assert (job["state"], job["name"], job["progress"]) == ("done", "My tune", 1)
    assert job["seconds"] == pytest.approx(seconds)
    words = ["separate", tune, "-m", tiny_model, "-d", "cpu", "-f", "flac", "-o", tmp_path, "-q"]
    words += [word for name, value in fields.items() for word in (f"--{name}", value)]
    assert call(*words).exit_code == 0
    archive = zipfile.ZipFile(io.BytesIO(app.get(job["zip"]).body))
    assert archive.namelist() == [f"My tune/{stem}.flac" for stem in STEMS]
    for stem in STEMS:
        written = (tmp_path / "My tune" / f"{stem}.flac").read_bytes()
        answer = app.get(job["stems"][stem])
        assert answer.body == archive.read(f"My tune/{stem}.flac") == written
        assert f"The title ({stem.capitalize()})".encode() in written
        named = f"attachment; filename=\"My tune - {stem}.flac\"; filename*=utf-8''My%20tune%20-%20"
        assert answer.headers["content-disposition"] == f"{named}{stem}.flac"


def test_files_have_names_that_every_client_can_read(app: LocalApp, tune: Path) -> None:
    job = app.wait(app.send(tune, name='Où "春"\uff0f\uff1f.wav', stems="vocals").json["id"])
    named = app.get(job["zip"]).headers["content-disposition"]
    plain, whole = "Ou _____.zip", "O%C3%B9%20_%E6%98%A5_%EF%BC%8F%EF%BC%9F.zip"
    assert named == f"attachment; filename=\"{plain}\"; filename*=utf-8''{whole}"


def test_a_part_of_a_stem_can_be_fetched(app: LocalApp, tune: Path) -> None:
    job = app.wait(app.send(tune, without="vocals").json["id"])
    assert list(job["stems"]) == ["no_vocals"]
    job = app.wait(app.send(tune, two_stems="vocals").json["id"])
    assert list(job["stems"]) == ["vocals", "no_vocals"]
    whole = app.get(job["stems"]["vocals"]).body
    part = app.get(job["stems"]["vocals"], range="bytes=100-199")
    assert (part.status, part.body) == (206, whole[100:200])
    described = describe()["paths"]
    addresses = {"stems.zip": job["zip"], "{path}": job["stems"]["vocals"]}
    for name, address in addresses.items():
        answers = described[f"/jobs/{{id}}/{name}"]["get"]["responses"]
        for asked, status in (("0-1", 206), ("0-1,4-5", 206), ("5-1", 400), ("99999999-", 416)):
            answer = app.get(address, range=f"bytes={asked}")
            assert answer.status == status
            kinds = list(answers[str(status)]["content"])
            assert kinds in (["*/*"], [answer.headers["content-type"].partition(";")[0]])
    assert app.get(job["stems"]["vocals"]).status == 200
    assert list(described["/jobs/{id}/{path}"]["get"]["responses"]["200"]["content"]) == ["*/*"]


def test_one_request_can_wait_for_the_zip_and_its_job_is_removed(app: LocalApp, tune: Path) -> None:
    answer = app.send(tune, wait="true", stems="drums,bass")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/zip")
    names = zipfile.ZipFile(io.BytesIO(answer.body)).namelist()
    assert names == ["My tune/drums.wav", "My tune/bass.wav"]
    until(lambda: not app.queue.jobs)


def test_disconnecting_while_waiting_cancels_the_job(app: LocalApp, long_song: Path) -> None:
    kind, body = form({"wait": "1"}, "a.flac", long_song.read_bytes())
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        head = f"POST /separate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: app.queue.count("running"))
    until(lambda: not app.queue.jobs)


def test_disconnecting_during_the_zip_removes_the_job(app: LocalApp, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", music(30).T, 44_100)  # 20 MB of stems
    kind, body = form({"wait": "1"}, "a.flac", (tmp_path / "a.flac").read_bytes())
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        head = f"POST /separate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        assert app.queue.jobs
    until(lambda: not app.queue.jobs)


def test_a_zip_that_cannot_be_sent_removes_its_job(
    app: LocalApp, tune: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(FileResponse, "__call__", fail)
    assert app.send(tune, wait="1").status == 500
    until(lambda: not app.queue.jobs)


def test_cancelling_one_of_two_songs_keeps_the_other(
    app: LocalApp, tune: Path, long_song: Path
) -> None:
    first = app.send(long_song).json["id"]
    second = app.send(tune).json["id"]
    assert app.job(second)["before"] == 1
    seen = until(lambda: (job := app.job(first))["seconds_left"] and job)
    assert 0 < seen["progress"] < 1
    assert app.get(f"/jobs/{first}/stems.zip").status == 409
    assert app.ask("DELETE", f"/jobs/{first}").status == 204
    assert app.get(f"/jobs/{first}").status == 404
    assert app.wait(second)["state"] == "done"
    told = app.get(f"/jobs?id={first}&id={second}").json["jobs"]
    assert [job["id"] for job in told] == [second]


def test_a_queued_job_can_be_cancelled(app: LocalApp, tune: Path, long_song: Path) -> None:
    first, second = app.send(long_song).json["id"], app.send(tune).json["id"]
    assert app.ask("DELETE", f"/jobs/{second}").status == 204
    assert app.job(first)["state"] in ("queued", "running")
    assert app.ask("DELETE", f"/jobs/{second}").status == 404


def test_stems_whose_files_were_removed_answer_404(app: LocalApp, tune: Path) -> None:
    id_ = app.send(tune).json["id"]
    stem = next(iter(app.wait(id_)["stems"].values()))
    assert app.get(stem).status == 200
    for path in app.files:
        if path.suffix != ".lock":
            path.unlink()
    answer = app.get(stem)
    assert (answer.status, answer.json) == (
        404,
        {"error": "there is no such job, or it was removed"},
    )


def test_an_unsupported_method_answers_405_with_those_allowed(app: LocalApp) -> None:
    answer = app.ask("PUT", "/jobs/0123456789abcdef0123456789abcdef")
    assert answer.status == 405
    sentence = "/jobs/0123456789abcdef0123456789abcdef does not take PUT: expected "
    assert answer.json["error"].startswith(sentence)
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "DELETE"}


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: local"])
def test_connections_without_a_complete_request_are_closed(
    app: LocalApp, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    begin = time.monotonic()
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" if begun else b"")
        if begun:
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
        connection.sendall(begun)
        while connection.recv(10_000):
            pass
    assert 0.4 < time.monotonic() - begin < 4


@pytest.mark.parametrize("answered", [False, True])
@pytest.mark.parametrize("path", ["separate", "choices"])
def test_a_broken_body_ends_its_request_without_an_error_of_the_app(
    app: LocalApp, caplog: pytest.LogCaptureFixture, path: str, answered: bool
) -> None:
    head = f"POST /{path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", app.port), timeout=20) as connection:
        answer = b""
        if answered:
            connection.sendall(head.encode())
            answer = connection.recv(10_000)
        connection.sendall(b"no size\r\n" if answered else f"{head}no size\r\n".encode())
        while received := connection.recv(10_000):
            answer += received
    assert answer.startswith(b"HTTP/1.1 4")
    assert app.get("/health").status == 200
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == []


def test_a_slow_upload_does_not_count_as_a_silent_connection(
    app: LocalApp, tune: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    kind, body = form({"wait": "1"}, "a.flac", tune.read_bytes())
    with socket.create_connection(("127.0.0.1", app.port), timeout=60) as connection:
        head = f"POST /separate HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-9])
        time.sleep(1)
        connection.sendall(body[-9:])
        assert connection.recv(10_000).startswith(b"HTTP/1.1 200")


def test_a_job_has_the_id_that_its_client_chose(app: LocalApp, tune: Path) -> None:
    id_ = "0123456789abcdef0123456789abcdef"
    kind, body = form({}, "a.flac", tune.read_bytes())
    for status in (202, 409):
        answer = app.ask("POST", f"/separate?id={id_}", body, {"content-type": kind})
        assert answer.status == status
    assert answer.json["error"] == "there is already a job with this id"
    assert app.wait(id_)["state"] == "done"
    assert app.ask("DELETE", f"/jobs/{id_}").status == 204
    for wrong in ("", "short", "0123456789abcdef0123456789/.", "a" * 65):
        answer = app.ask("POST", f"/separate?id={wrong}", body, {"content-type": kind})
        assert answer.status == 422
        assert answer.json["error"] == "an id must have 22 to 64 letters, digits, - or _"
    assert not app.queue.jobs


def test_a_parameter_that_no_address_takes_is_refused(app: LocalApp, tune: Path) -> None:
    kind, body = form({}, "a.flac", tune.read_bytes())
    for query in ("model=fast", f"id={32 * 'e'}&model=fast&wait=true", "model"):
        answer = app.ask("POST", f"/separate?{query}", body, {"content-type": kind})
        assert answer.status == 422
        assert answer.json["error"] == "unknown parameter 'model': send it as a field of the form"
    answer = app.get(f"/jobs?ids={32 * 'e'}")
    assert (answer.status, answer.json["error"]) == (422, "unknown parameter 'ids': expected id")
    assert app.get("/jobs").json == {"jobs": []}
    assert not app.queue.jobs


def test_an_id_can_be_used_again_when_its_job_was_cancelled(
    app: LocalApp, tune: Path, long_song: Path
) -> None:
    id_ = 32 * "c"
    for song, state in ((long_song, "running"), (tune, "done")):
        kind, body = form({}, "a.flac", song.read_bytes())
        answer = app.ask("POST", f"/separate?id={id_}", body, {"content-type": kind})
        assert answer.status == 202
        until(lambda: app.get(f"/jobs/{id_}").json["progress"])
        if state == "done":
            assert app.wait(id_)["state"] == "done"
        assert app.ask("DELETE", f"/jobs/{id_}").status == 204


def test_an_upload_is_removed_by_its_id(app: LocalApp, tune: Path) -> None:
    id_ = "fedcba9876543210fedcba9876543210"
    kind, body = form({}, "a.flac", tune.read_bytes())
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        head = f"POST /separate?id={id_} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-9])
        assert until(lambda: app.queue.get(id_)).state == "uploading"
        folder = app.queue.jobs[id_].folder
        assert app.ask("DELETE", f"/jobs/{id_}").status == 204
        assert app.get(f"/jobs/{id_}").status == 404
        answer = b""
        while b"the upload was cut off" not in answer:
            answer += connection.recv(10_000) or pytest.fail(answer.decode())
        assert not folder.exists()


def test_the_player_is_served_with_its_data_and_nothing_else_is(app: LocalApp, tune: Path) -> None:
    job = app.wait(app.send(tune, player="true").json["id"])
    page = app.get(job["player"])
    assert b"My tune" in page.body
    assert "frame-ancestors 'self'" in page.headers["content-security-policy"]
    home = f"/jobs/{job['id']}"
    (data,) = [name for name in app.queue.get(job["id"]).files if name.endswith("song.js")]  # type: ignore[union-attr]
    assert app.get(f"{home}/{data}").body.startswith(b"unetsepData(")
    for path in (
        "/upload",
        "/stems/../upload",
        "/stems/..%2fupload",
        "/stems/%2e%2e/upload",
        "/player/../../../run.lock",
        "/player/..%5c..%5cupload",
        "//etc/passwd",
        "/stems//etc/passwd",
        "/stems/vocals.wav%00.js",
        "/stems",
        "/player",
    ):
        assert app.get(home + path).status == 404, path
    for path in ("/static/../server.py", "/static/%2e%2e%2fserver.py", "/static/index.html"):
        assert app.get(path).status == 404, path


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("../../../tmp/evil.wav", "evil"),
        ("..\\..\\evil.wav", "evil"),
        ("", "song"),
        ("<script>alert(1)</script>.wav", "script_"),
        ('quote" ; filename=b.wav', "quote_ ; filename=b"),
    ],
)
def test_odd_names_are_made_safe_and_lead_nowhere(
    app: LocalApp, tune: Path, sent: str, name: str
) -> None:
    kind, body = form({}, sent, tune.read_bytes())
    job = app.wait(app.ask("POST", "/separate", body, {"content-type": kind}).json["id"])
    assert (job["name"], job["state"]) == (name, "done")
    (member, *_) = zipfile.ZipFile(io.BytesIO(app.get(job["zip"]).body)).namelist()
    assert member == f"{name}/vocals.wav"
    assert all(path.is_relative_to(app.folder) for path in app.files)


def test_a_file_that_is_no_audio_fails_with_a_message_that_names_it(
    app: LocalApp, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "holiday.jpg"
    bad.write_bytes(os.urandom(50_000))
    job = app.wait(app.send(bad).json["id"])
    assert job["state"] == "failed"
    assert "holiday" in job["error"]
    assert str(app.folder) not in job["error"]
    answer = app.get(f"/jobs/{job['id']}/stems/vocals.wav")
    assert (answer.status, answer.json["error"]) == (409, f"the job failed: {job['error']}")
    answer = app.send(bad, wait="true")
    assert (answer.status, answer.json["error"]) == (422, job["error"])
    assert caplog.messages == 2 * [f"a song failed: {job['error'].replace(bad.name, 'the file')}"]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"format": "exe"}, "expected wav"),
        ({"format": "mp3", "bit_depth": "16"}, "mp3 has no bit depth"),
    ],
)
def test_a_wrong_field_answers_422_and_creates_no_job(
    app: LocalApp, tune: Path, fields: dict[str, str], sentence: str
) -> None:
    answer = app.send(tune, **fields)
    assert answer.status == 422
    assert sentence in answer.json["error"]
    assert not app.queue.jobs


def test_wait_and_player_cannot_be_combined(app: LocalApp, tune: Path) -> None:
    answer = app.send(tune, wait="true", player="true")
    assert answer.status == 422
    assert answer.json["error"].startswith("choose either wait or player")
    assert not app.queue.jobs


def test_a_full_queue_answers_429_with_a_time_to_retry(
    app: LocalApp, tune: Path, long_song: Path
) -> None:
    limit(app, queue=2)
    app.send(long_song)
    until(lambda: app.queue.count("running"))
    assert [app.send(tune).status for _ in range(3)] == [202, 202, 429]
    answer = app.send(tune)
    assert answer.headers["retry-after"] == "10"
    assert answer.json["error"] == "2 songs are already waiting: try again later"
    assert b'unetsep_refused_total{reason="queue"} 2.0' in app.get("/metrics").body


def test_a_full_disk_answers_507_and_stems_that_exceed_it_fail_the_job(
    app: LocalApp, tune: Path, long_song: Path
) -> None:
    limit(app, disk_bytes=100_000)
    assert app.send(tune).status == 507
    limit(app, disk_bytes=len(long_song.read_bytes()) + 3_000_000)
    job = app.wait(app.send(long_song).json["id"])
    assert job["state"] == "failed"
    assert "more disk space than there is" in job["error"]


def test_a_zip_that_cannot_be_written_answers_507_and_leaves_nothing(
    app: LocalApp, tune: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_disk(archive: zipfile.ZipFile, *_: object) -> None:
        archive.writestr("half", b"of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    job = app.wait(app.send(tune).json["id"])
    until(app.queue.jobs[job["id"]].ended.is_set)
    before, files = app.queue.bytes, sorted(app.files)
    with monkeypatch.context() as patch:
        patch.setattr(zipfile.ZipFile, "write", fill_disk)
        answer = app.get(job["zip"])
    assert answer.status == 507
    assert answer.json["error"] == "the zip could not be written: No space left on device"
    assert (app.queue.bytes, sorted(app.files)) == (before, files)
    assert app.get(job["zip"]).status == 200


def test_a_song_removed_while_its_zip_is_written_answers_404(
    app: LocalApp, tune: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, removed = threading.Event(), threading.Event()

    def write_slowly(files: Mapping[str, Path], path: Path) -> None:
        begun.set()
        assert removed.wait(60)
        write_zip(files, path)

    monkeypatch.setattr(jobs, "write_zip", write_slowly)
    job = app.wait(app.send(tune).json["id"])
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(app.get, job["zip"])
        assert begun.wait(60)
        removal = pool.submit(app.ask, "DELETE", f"/jobs/{job['id']}")
        until(lambda: not app.queue.jobs)
        removed.set()
    assert (answer.result().status, removal.result().status) == (404, 204)


def test_a_job_that_exceeds_the_time_limit_fails(
    app: LocalApp, tune: Path, long_song: Path
) -> None:
    limit(app, seconds=1.2)
    job = app.wait(app.send(long_song).json["id"])
    assert (job["state"], job["error"]) == ("failed", "it took longer than 0.02 minutes")
    limit(app)
    assert app.wait(app.send(tune).json["id"])["state"] == "done"


def test_unused_jobs_are_removed(app: LocalApp, tune: Path) -> None:
    id_ = app.send(tune).json["id"]
    app.wait(id_)
    limit(app, keep_seconds=0.0)
    until(lambda: id_ not in app.queue.jobs)


def send_head(connection: socket.socket, *lines: str) -> None:
    head = ["POST /separate HTTP/1.1", "Host: localhost", *lines]
    head.append("Content-Type: multipart/form-data; boundary=mark")
    connection.sendall(("\r\n".join(head) + "\r\n\r\n").encode())


def test_two_gigabytes_are_refused_before_they_are_sent(app: LocalApp) -> None:
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        send_head(connection, "Content-Length: 2000000000")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_two_gigabytes_of_unknown_length_are_refused_while_they_arrive(app: LocalApp) -> None:
    limit(app, upload_bytes=3_000_000)
    block = bytes(1 << 20)
    piece = b"%x\r\n" % len(block) + block + b"\r\n"
    begin = form({}, "a.wav", b"")[1].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        send_head(connection, "Transfer-Encoding: chunked")
        connection.sendall(b"%x\r\n" % len(begin) + begin + b"\r\n")
        sent = 0
        while not select.select([connection], [], [], 0)[0] and sent < 2_000_000_000:
            connection.sendall(piece)
            sent += len(block)
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
    # What had been sent when the answer came was in the system's buffers or thrown away.
    assert sent < 500_000_000
    until(lambda: not app.queue.jobs)


def test_a_stalled_upload_times_out_and_does_not_block_others(app: LocalApp, tune: Path) -> None:
    limit(app, silence=1.0)
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        send_head(connection, "Content-Length: 1000000")
        connection.sendall(form({}, "a.wav", b"")[1][:50])
        assert app.wait(app.send(tune).json["id"])["state"] == "done"
        assert connection.recv(1000).startswith(b"HTTP/1.1 408")


def test_a_broken_upload_leaves_no_job(app: LocalApp) -> None:
    with socket.create_connection(("127.0.0.1", app.port)) as connection:
        send_head(connection, "Content-Length: 3000000")
        connection.sendall(form({}, "a.wav", bytes(2_000_000))[1][:-20])
        until(lambda: app.queue.waiting)
    until(lambda: not app.queue.jobs)


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", "text/plain"])
def test_requests_without_a_form_are_refused(app: LocalApp, kind: str) -> None:
    answer = app.ask("POST", "/separate", b"{}", {"content-type": kind})
    assert answer.status == 400
    assert "curl -F file=@song.mp3" in answer.json["error"]


def test_a_worker_that_dies_fails_one_job_and_is_restarted(
    app: LocalApp, tune: Path, long_song: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def crash() -> None:
        until(lambda: any(job.progress for job in app.queue.jobs.values()))
        kill = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows all signals kill
        os.kill(app.queue._worker.pid, kill)  # type: ignore[arg-type]

    id_ = app.send(long_song).json["id"]
    crash()
    job = app.wait(id_)
    assert job["state"] == "failed"
    assert "ended unexpectedly" in job["error"]
    (line,) = caplog.messages
    assert line.startswith(f"a song failed: {job['error']} (exit status ")
    assert app.ask("DELETE", f"/jobs/{id_}").status == 204
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(app.send, long_song, wait="true")
        crash()
    assert (answer.result().status, answer.result().json["error"]) == (500, job["error"])
    assert app.get("/health").status == 200
    assert app.wait(app.send(tune).json["id"])["state"] == "done"


@pytest.mark.skipif(os.name == "nt", reason="no process is stopped there")
def test_a_worker_that_hangs_is_killed_when_its_job_is_cancelled(
    app: LocalApp, tune: Path, long_song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "GRACE", 0.5)
    id_ = app.send(long_song).json["id"]
    until(lambda: app.job(id_)["progress"])
    os.kill(app.queue._worker.pid, signal.SIGSTOP)  # type: ignore[arg-type]
    begun = time.monotonic()
    assert app.ask("DELETE", f"/jobs/{id_}").status == 204
    assert time.monotonic() - begun < 10
    assert app.wait(app.send(tune).json["id"])["state"] == "done"


def test_health_choices_metrics_and_pages_answer(app: LocalApp, tiny_model: Path) -> None:
    assert app.get("/health").json["status"] == "ok"
    told = app.get("/choices").json
    assert [model["name"] for model in told["models"]] == [tiny_model.stem]
    assert str(tiny_model.parent) not in str(told)
    assert told["models"][0]["stems"] == list(STEMS)
    assert told["limits"]["upload_bytes"] == LIMITS.upload_bytes
    kinds: dict[str, Callable[[bytes], object]] = {
        "/": lambda body: body.index(b"<!doctype html>"),
        "/static/app.js": lambda body: body.index(b"use strict"),
        "/static/app.css": lambda body: body.index(b":root"),
        "/api": lambda body: body.index(b"The HTTP API"),
        "/openapi.json": lambda body: body.index(b'"openapi":"3.1.0"'),
        "/metrics": lambda body: body.index(b"unetsep_jobs_waiting 0.0"),
    }
    for path, check in kinds.items():
        answer = app.get(path)
        assert answer.status == 200
        check(answer.body)
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert app.get("/nothing").json == {"error": "there is nothing at /nothing: see /api"}
    answer = app.get("/a%3Fb", host="[localhost")
    assert (answer.status, answer.json) == (404, {"error": "there is nothing at /a?b: see /api"})
    answer = app.get("/api/")  # a redirect would name http, and a proxy may speak https
    assert (answer.status, answer.json) == (404, {"error": "there is nothing at /api/: see /api"})


def test_a_foreign_page_can_neither_read_nor_send(app: LocalApp, tune: Path) -> None:
    kind, body = form({}, "a.wav", tune.read_bytes())
    foreign = {"content-type": kind, "origin": "https://evil.example"}
    assert app.ask("POST", "/separate", body, foreign).status == 403
    assert app.get("/choices", host="evil.example").status == 403
    assert not app.queue.jobs


def test_the_python_client_of_the_documentation_works(
    app: LocalApp, tune: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/how-to/web-service.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert ":8421" in program
    monkeypatch.chdir(tmp_path)
    (tmp_path / "song.mp3").write_bytes(tune.read_bytes())  # the content decides
    exec(program.replace(":8421", f":{app.port}").replace("sleep(1)", "sleep(0.1)"), {})
    for stem in STEMS:
        assert soundfile.info(tmp_path / f"{stem}.wav").frames == 88_200


def test_the_curl_of_the_documentation_works(app: LocalApp, tune: Path, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    page = (ROOT / "docs/how-to/web-service.md").read_text(encoding="utf-8")
    line = next(line for line in page.splitlines() if line.startswith("curl -F") and "wait" in line)
    (tmp_path / "song.mp3").write_bytes(tune.read_bytes())
    words = shlex.split(line.replace(":8421", f":{app.port}"))
    subprocess.run([*words, "--silent", "--fail"], check=True, cwd=tmp_path)
    names = zipfile.ZipFile(tmp_path / "stems.zip").namelist()
    assert names == [f"song/{stem}.wav" for stem in STEMS]


def test_an_internal_error_answers_500_with_one_sentence(
    app: LocalApp, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise RuntimeError("the reason")

    monkeypatch.setattr("unetsep.app.handlers.formats", broken)
    answer = app.get("/choices")
    assert (answer.status, answer.json["error"]) == (500, jobs.MISTAKE)
    until(lambda: "the reason" in caplog.text)
    assert answer.headers["x-content-type-options"] == "nosniff"
