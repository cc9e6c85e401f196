from __future__ import annotations

import contextlib
import errno
import functools
import os
import time
import zipfile
from datetime import datetime
from email.utils import formatdate
from typing import ClassVar

import aiohttp
import fsspec
import pytest

from tests.web import Quiet, serving
from unetsep.errors import UnetsepError
from unetsep.library import store
from unetsep.library.file_info import modified
from unetsep.library.store import Store, TransferError


def test_a_folder_has_a_place_in_another_only_on_one_server(monkeypatch):
    def connect(url: str, **_: object) -> tuple[fsspec.AbstractFileSystem, str]:
        place, _, path = url.removeprefix("sftp://").partition("/")
        user, _, host = place.rpartition("@")
        return fsspec.filesystem("memory", host=host, user=user), f"/{path}"

    monkeypatch.setattr("unetsep.library.store._open", connect)
    songs = Store("sftp://me:word@x.org/music/album/")
    assert songs.place_in(Store("sftp://x.org/music")) == "album"
    assert songs.place_in(Store("sftp://me:word@x.org/music/album")) == ""
    for other in ("sftp://y.org/music", "sftp://x.org/mus", "sftp://x.org/music/album/one"):
        assert songs.place_in(Store(other)) is None


def test_a_scheme_without_its_package_names_the_extra(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("unetsep.library.store._open", refuse)
    with pytest.raises(UnetsepError, match=r's3://b needs .* pip install "unetsep\[remote\]'):
        Store("s3://b")


def test_permanent_errors_are_not_retried():
    tries = []

    def refused() -> None:
        tries.append(1)
        raise PermissionError("forbidden by https://user:word@x.org/a?sig=secret")

    with pytest.raises(
        TransferError, match=r"b/a could not be read: forbidden by https://x.org/a$"
    ):
        Store("memory://b").retry("a", "read", refused)
    assert len(tries) == 1


def test_an_error_without_a_message_is_named_by_its_class():
    class TooManyRedirects(Exception):  # noqa: N818 (so aiohttp calls it)
        status, message = 0, ""

        def __str__(self) -> str:
            return "0, message='', url='http://x.org/a'"

    def circle() -> None:
        raise TooManyRedirects

    folder = Store("memory://b")
    folder.attempts = 1
    with pytest.raises(TransferError, match=r"b/a could not be read: TooManyRedirects$"):
        folder.retry("a", "read", circle)


def test_a_server_that_closes_its_connections_is_no_missing_file(tmp_path, monkeypatch):
    class Closing(Quiet):
        seen = 0

        def parse_request(self) -> bool:
            Closing.seen += 1
            self.close_connection = True
            return Closing.seen > 2 and super().parse_request()

    monkeypatch.setattr("unetsep.library.store.PAUSE", 0.0)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    with serving(functools.partial(Closing, directory=str(tmp_path))) as address:
        assert Store(f"{address}/song.wav").info()["size"] == 4
        Closing.seen = -100
        with pytest.raises(TransferError, match=r"song\.wav could not be looked up: .+"):
            Store(f"{address}/song.wav").info()


@pytest.mark.parametrize(
    ("asked", "low", "high"),
    [
        ("7", 7, 7),
        (40, 30, 40),
        ("86400", 60, 60),
        ("soon", 0.5, 1.5),
        (f"Mon, 01 Jan 2024 10:00:{'9' * 26} GMT", 0.5, 1.5),
        (f"Mon, 01 Jan 2024 10:00:00 +{'9' * 17}", 0.5, 1.5),
        (None, 0.5, 1.5),
        ("0", 0.5, 1.5),
        (-1000, 0.5, 1.5),
    ],
)
def test_a_retry_waits_as_long_as_the_server_asks_within_a_limit(
    tmp_path, monkeypatch, asked, low, high
):
    class Busy(Quiet):
        seen = 0

        def do_GET(self) -> None:  # noqa: N802
            Busy.seen += 1
            if Busy.seen > 1:
                super().do_GET()
                return
            self.send_response(429)
            if asked is not None:
                date = isinstance(asked, int) and formatdate(time.time() + asked, usegmt=True)
                self.send_header("Retry-After", date or asked)
            self.send_header("Content-Length", "0")
            self.end_headers()

    pauses: list[float] = []
    monkeypatch.setattr("unetsep.library.store.time.sleep", pauses.append)
    (tmp_path / "song.wav").write_bytes(b"RIFF")
    with serving(functools.partial(Busy, directory=str(tmp_path))) as address:
        assert Store(f"{address}/song.wav").read("") == b"RIFF"
    assert len(pauses) == 1
    assert low <= pauses[0] <= high


@pytest.mark.parametrize(
    ("status", "every", "requests"),
    [(503, 1, store.ATTEMPTS + store.FAILURES - 1), (503, 2, 10 * store.ATTEMPTS), (403, 1, 20)],
)
def test_a_server_that_fails_is_not_asked_for_all_folders_and_none_is_forgotten(
    tmp_path, monkeypatch, status, every, requests
):
    class Failing(Quiet):
        folders: ClassVar[list[str]] = []
        refused: ClassVar[list[str]] = []

        def do_GET(self) -> None:  # noqa: N802
            if self.path not in ("/", *self.folders):
                self.folders.append(self.path)
            if self.path == "/" or self.folders.index(self.path) % every:
                super().do_GET()
            else:
                self.refused.append(self.path)
                self.send_error(status)

    monkeypatch.setattr("unetsep.library.store.PAUSE", 0.0)
    for number in range(20):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}/a.wav").touch()
    errors: dict[str, str] = {}
    with serving(functools.partial(Failing, directory=str(tmp_path))) as address:
        files = Store(address).files_below(errors.__setitem__)
    assert len(Failing.refused) == requests
    assert len(errors) == 20 // every
    folders = [*errors, *(file.removesuffix("a.wav") for file in files)]
    assert sorted(folders) == sorted(f"{address}/{number}/" for number in range(20))
    for folder, message in errors.items():
        assert message.startswith(f"{folder.rstrip('/')} could not be listed: ")


def test_dates_that_cannot_be_represented_are_ignored(monkeypatch):
    class Early(datetime):
        def timestamp(self) -> float:  # on Windows, before 1970
            raise OSError(errno.EINVAL, "Invalid argument")

    def busy() -> None:
        error = OSError("busy")
        error.headers = {"Retry-After": "Mon, 01 Jan 1960 10:00:00 -0000"}
        raise error

    pauses: list[float] = []
    monkeypatch.setattr("unetsep.library.store.time.sleep", pauses.append)
    monkeypatch.setattr("unetsep.library.store.ATTEMPTS", 2)
    assert modified({"Last-Modified": f"Mon, 01 Jan 2024 10:00:{'9' * 26} GMT"}) is None
    monkeypatch.setattr(
        "unetsep.library.store.parsedate_to_datetime", lambda _: Early(1960, 1, 1, 10)
    )
    with pytest.raises(TransferError, match="busy"):
        Store("memory://b").retry("a", "read", busy)
    assert len(pauses) == 1
    assert 0.5 <= pauses[0] <= 1.5


def test_colons_in_a_name_are_literal_and_chained_urls_work(tmp_path):
    for name in ("A",) if os.name == "nt" else ("A::Live.wav", "A::live::b.wav", "A"):
        (tmp_path / name).write_text(name)
        assert Store(f"file://{tmp_path}/{name}").read("") == name.encode()
    with zipfile.ZipFile(tmp_path / "songs.zip", "w") as archive:
        archive.writestr("a.wav", "sound")
    assert Store(f"zip://a.wav::file://{tmp_path}/songs.zip").read("") == b"sound"


@pytest.mark.parametrize("link", ["", "zip://song.wav::"])
def test_a_download_has_no_time_limit_while_bytes_arrive(tmp_path, monkeypatch, link):
    with zipfile.ZipFile(tmp_path / "songs", "w") as archive:
        archive.writestr("song.wav", "RIFF")
    seen = []
    original = aiohttp.ClientSession._request

    async def request(self, *arguments, **options):
        seen.append(self.timeout)
        return await original(self, *arguments, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", request)
    with (
        serving(functools.partial(Quiet, directory=str(tmp_path))) as address,
        contextlib.suppress(UnetsepError),  # archives are read in pieces, which it has none of
    ):
        Store(f"{link}{address}/songs").fetch(tmp_path / "song", {})
    assert seen
    assert {timeout.total for timeout in seen} == {None}
    assert all(timeout.sock_connect and timeout.sock_read for timeout in seen)
