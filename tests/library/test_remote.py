from __future__ import annotations

import base64
import contextlib
import errno
import functools
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, unquote

import fsspec
import pytest
import soundfile
from click.testing import Result
from fsspec.implementations.http import HTTPFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.implementations.zip import ZipFileSystem
from fsspec.registry import _registry

from tests.commands import call
from tests.releases import needs
from tests.signals import RATE, music
from tests.web import Quiet, serving
from unetsep.config import STEMS
from unetsep.errors import UnetsepError
from unetsep.library import store
from unetsep.library.remote import MARK, RemoteLog, Spool
from unetsep.library.store import Store
from unetsep.unfinished import undo_all

BUCKET = "memory://bucket"
# Older stores in memory did not list files in folders of an empty name.
EMPTY_NAMES = needs("fsspec", "2026.7")


@pytest.fixture
def memory(monkeypatch) -> Iterator[fsspec.AbstractFileSystem]:
    """An empty store in memory; tries follow each other at once."""
    monkeypatch.setattr(store, "PAUSE", 0.0)
    files = fsspec.filesystem("memory", use_listings_cache=False)
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture
def run(tiny_model):
    """Run ``unetsep separate`` in this process."""

    def separate(*words: object) -> Result:
        fixed = ["separate", "-m", tiny_model, "-d", "cpu"]
        result = call(*fixed, *words)
        assert "unexpected" not in result.stderr, result.stderr
        return result

    return separate


class Buckets(MemoryFileSystem):
    """What differs in S3: buckets must be there, and folders are but beginnings of names."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    made: ClassVar[list[str]] = []
    listed: ClassVar[list[str]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.removeprefix("s3://").strip("/")

    def _check(self, path: str) -> str:
        path = self._strip_protocol(path)
        if path.lstrip("/").partition("/")[0] != "bucket":
            raise FileNotFoundError(path)
        return path

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        if self._check(path).strip("/") == "bucket":
            return {"name": path, "size": 0, "type": "directory"}
        return dict(super().info(path))

    def put_file(self, lpath: str, rpath: str, **options: Any) -> None:
        super().put_file(lpath, self._check(rpath), **options)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self.made.append(path)
        super().makedirs(path, exist_ok=exist_ok)

    def ls(self, path: str, detail: bool = True, **_: Any) -> Any:
        self.listed.append(path)
        return super().ls(path, detail=detail)


@pytest.fixture
def buckets(monkeypatch) -> Iterator[type[Buckets]]:
    """Stores called ``s3://``, with one bucket called so."""
    monkeypatch.setitem(_registry, "s3", Buckets)
    yield Buckets
    for found in (Buckets.store, Buckets.made, Buckets.listed):
        found.clear()


class Server(Quiet):
    """Files of a folder, with faults to order."""

    faults: list[str]
    seen: list[str]

    def end_headers(self) -> None:
        path = Path(self.directory) / unquote(self.path.partition("?")[0]).lstrip("/")
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).digest()
            self.send_header("Digest", f"sha-256={base64.b64encode(digest).decode()}")
            self.send_header("ETag", f'"{digest.hex()[:16]}"')
        super().end_headers()

    def do_GET(self) -> None:  # noqa: N802
        self.seen.append(self.path)
        fault = (
            self.faults.pop(0) if self.faults and self.path.partition("?")[0][-4:] == ".wav" else ""
        )
        if fault == "503":
            self.send_error(503)
        elif fault == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(b"RIFF")
            self.close_connection = True
        elif fault == "garbled":
            content = bytearray((Path(self.directory) / self.path.lstrip("/")).read_bytes())
            content[2000] ^= 255
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        else:
            super().do_GET()


@contextlib.contextmanager
def serve(folder: Path, *faults: str) -> Iterator[tuple[str, type[Server]]]:
    kind = type("Faulty", (Server,), {"faults": list(faults), "seen": []})
    with serving(functools.partial(kind, directory=str(folder))) as address:
        yield address, kind


def write(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, music(0.3, seed=seed).T, RATE)
    return path


def stems_here(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("[!.]*.wav")}


def stems_there(files: fsspec.AbstractFileSystem, root: str = "/bucket/out") -> dict[str, bytes]:
    found = [path for path in files.store if path.startswith(root) and path.endswith(".wav")]
    return {path[len(root) + 1 :]: files.cat_file(path) for path in found}


def all_names(files: fsspec.AbstractFileSystem, root: str = "/bucket/out") -> list[str]:
    return sorted(path[len(root) + 1 :] for path in files.store if path.startswith(f"{root}/"))


def test_stems_in_a_bucket_have_the_bytes_of_stems_on_a_disk(memory, run, tmp_path):
    for seed, name in enumerate(("a.wav", "album 1/b.wav")):
        memory.pipe_file(f"/bucket/in/{name}", write(tmp_path / "in" / name, seed).read_bytes())
    memory.pipe_file("/bucket/in/notes.txt", b"no audio")
    assert run(tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    result = run(f"{BUCKET}/in/", "-o", f"{BUCKET}/out", "--json")
    assert result.exit_code == 0, result.stderr
    assert stems_there(memory) == stems_here(tmp_path / "out") != {}
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert {r["source"] for r in reports} == {f"{BUCKET}/in/a.wav", f"{BUCKET}/in/album 1/b.wav"}
    assert {r["stems"]["bass"] for r in reports} == {
        f"{BUCKET}/out/a/bass.wav",
        f"{BUCKET}/out/album 1/b/bass.wav",
    }
    assert "1 .txt" in result.stderr
    logs = [name for name in all_names(memory) if name.endswith(".jsonl")]
    assert f"Log: {BUCKET}/out/{logs[0]}" in result.stderr
    lines = [json.loads(x) for x in memory.cat_file(f"/bucket/out/{logs[0]}").splitlines()]
    assert {line["path"] for line in lines} == {r["source"] for r in reports}
    hashes = {hashlib.sha256((tmp_path / "in/a.wav").read_bytes()).hexdigest()}
    assert hashes < {line["input"]["sha256"] for line in lines}
    assert not [name for name in all_names(memory) if name.endswith(".part")]


def test_a_folder_marker_is_no_file_and_local_names_are_ignored(memory, run, tmp_path, monkeypatch):
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "a.wav").read_bytes())
    memory.pipe_file("/bucket/in/notes", b"no audio")
    find = type(memory).find
    # As of S3, whose consoles make an empty object where a folder is made.
    monkeypatch.setattr(type(memory), "find", lambda *a, **k: [f"{a[1]}", *find(*a, **k)])
    (tmp_path / "notes").mkdir()
    monkeypatch.chdir(tmp_path)
    result = run(f"{BUCKET}/in/", "-o", f"{BUCKET}/out", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert "skipped: 1 without suffix\n" in result.stderr


@pytest.mark.parametrize("name", ["Song [Live]", "a*b", "Why?", "[!x]"])
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_names_with_wildcards_are_taken_literally(memory, run, tmp_path, name, kind):
    if os.name == "nt" and set("*?") & set(name):
        pytest.skip("no such names here")
    song = write(tmp_path / "in" / f"{name}.wav").read_bytes()
    memory.pipe_file(f"/bucket/in/{name}.wav", song)
    top = BUCKET if kind == "memory" else f"local:///{tmp_path.as_posix().lstrip('/')}"
    words = (f"{top}/in/", "-o", f"{top}/out", "--json")
    for flags, status in (([], "ok"), (["--overwrite"], "ok"), (["--skip-existing"], "skipped")):
        result = run(*words, *flags)
        assert result.exit_code == 0, result.stderr
        (report,) = (json.loads(line) for line in result.stdout.splitlines())
        assert report["status"] == status
        assert report["stems"]["bass"] == f"{top}/out/{name}/bass.wav"
        stems = stems_there(memory) if kind == "memory" else stems_here(tmp_path / "out")
        assert set(stems) == {f"{name}/{stem}.wav" for stem in STEMS}
    names = [*all_names(memory), *(path.name for path in tmp_path.rglob("*"))]
    assert not [each for each in names if each.endswith(".part")]


def test_a_second_run_skips_songs_with_stems_without_a_download(memory, run, tmp_path, monkeypatch):
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "a.wav").read_bytes())
    words = (f"{BUCKET}/in/a.wav", "-o", f"{BUCKET}/out", "--skip-existing")
    assert run(*words).exit_code == 0
    before = dict(memory.store)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "fetch", lambda *_: pytest.fail("fetched"))
        patch.setattr(Store, "put", lambda *_: pytest.fail("uploaded"))
        result = run(*words, "--json")
    assert json.loads(result.stdout)["status"] == "skipped"
    assert result.exit_code == 0
    assert dict(memory.store) == before
    # Another song under the same name, and a stem that is gone.
    del memory.store["/bucket/out/a/bass.wav"]
    assert json.loads(run(*words, "--json").stdout)["status"] == "ok"
    assert len(stems_there(memory)) == 4
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "b.wav", seed=5).read_bytes())
    result = run(*words)
    assert result.exit_code == 1
    assert "was made from another version of the song" in result.stderr
    old = stems_there(memory)
    assert run(*words, "--overwrite").exit_code == 0
    assert stems_there(memory)["a/bass.wav"] != old["a/bass.wav"]


def test_stems_at_a_url_are_replaced_only_with_overwrite(memory, run, tmp_path):
    song = write(tmp_path / "a.wav")
    memory.pipe_file("/bucket/out/a/drums.wav", b"somebody's")
    result = run(song, "-o", f"{BUCKET}/out")
    assert result.exit_code == 1
    assert f"{BUCKET}/out/a/drums.wav already exists: use --overwrite" in result.stderr
    assert all_names(memory) == ["a/drums.wav"]
    assert run(song, "-o", f"{BUCKET}/out", "--dry-run").exit_code == 1


def test_urls_in_messages_have_slashes_on_windows(memory, monkeypatch):
    with Spool(f"{BUCKET}/out") as spool:
        monkeypatch.setattr(os, "sep", "\\")
        text = rf"{spool.out}\a b\drums.wav exists: {spool.out}\c.wav, C:\d"
        assert spool.display(text) == (
            rf"{BUCKET}/out/a b/drums.wav exists: {BUCKET}/out/c.wav, C:\d"
        )


def test_all_paths_in_a_message_become_urls(memory):
    with Spool(f"{BUCKET}/out") as spool:
        text = f"{spool.out}/a.wav and {spool.out}/b.wav exist"
        assert spool.display(text) == f"{BUCKET}/out/a.wav and {BUCKET}/out/b.wav exist"


@pytest.mark.parametrize("failing", [0, 2, 5])
def test_a_failed_upload_leaves_nothing_that_looks_complete(
    memory, run, tmp_path, monkeypatch, failing
):
    calls = iter(range(100))
    kind = type(memory)
    original = kind.put_file

    def put_file(self, source, target, **kwargs):
        if next(calls) >= failing:
            self.pipe_file(target, b"half")
            raise ConnectionError("connection reset")
        return original(self, source, target, **kwargs)

    song = write(tmp_path / "a.wav")
    with monkeypatch.context() as patch:
        patch.setattr(kind, "put_file", put_file)
        result = run(song, "-o", f"{BUCKET}/out")
    assert result.exit_code == 1
    assert "could not be uploaded: connection reset" in result.stderr
    # After the record was announced stems have names, and the record says: incomplete.
    assert len(stems_there(memory)) == (4 if failing == 5 else 0)
    assert not [name for name in all_names(memory) if name.endswith(".part")]
    assert run(song, "-o", f"{BUCKET}/out", "--skip-existing").exit_code == 0
    record = json.loads(memory.cat_file("/bucket/out/a/.unetsep.wav.json"))
    assert [entry["complete"] for entry in record["entries"]] == [True]
    assert stems_there(memory).keys() == {f"a/{stem}.wav" for stem in STEMS}


def test_a_corrupted_upload_is_repeated(memory, run, tmp_path, monkeypatch):
    kind, calls = type(memory), iter(range(100))
    original = kind.put_file

    def put_file(self, source, target, **kwargs):
        original(self, source, target, **kwargs)
        if next(calls) == 1:
            self.pipe_file(target, b"x" * self.size(target))  # the same size

    song = write(tmp_path / "a.wav")
    assert run(song, "-o", tmp_path / "out").exit_code == 0
    monkeypatch.setattr(kind, "put_file", put_file)
    assert run(song, "-o", f"{BUCKET}/out").exit_code == 0
    assert stems_there(memory) == stems_here(tmp_path / "out")


@pytest.mark.parametrize("lost", [1, 9], ids=["for a moment", "for good"])
def test_a_stem_lost_before_renaming_is_retried_once_and_then_an_error(
    memory, run, tmp_path, monkeypatch, lost
):
    song, kind = write(tmp_path / "a.wav"), type(memory)
    assert run(song, "-o", f"{BUCKET}/out").exit_code == 0
    old, original, calls = stems_there(memory), kind.cp_file, iter(range(100))

    def cp_file(self, source, target, **kwargs):
        if target.endswith("drums.wav") and next(calls) < lost:
            raise FileNotFoundError(source)
        original(self, source, target, **kwargs)

    monkeypatch.setattr(kind, "cp_file", cp_file)
    result = run(song, "-o", f"{BUCKET}/out", "--overwrite", "--bit-depth", "24")
    record = json.loads(memory.cat_file("/bucket/out/a/.unetsep.wav.json"))
    kept = [name for name, content in stems_there(memory).items() if content == old[name]]
    assert result.exit_code == (lost > 1)
    assert [entry["complete"] for entry in record["entries"]] == [lost == 1]
    assert ("a/drums.wav" in kept) == (lost > 1)
    assert not [name for name in all_names(memory) if name.endswith(".part")]
    said = f"{BUCKET}/out/a/drums.wav could not be written: the store says not found"
    assert (said in result.stderr) == (lost > 1)
    cure = "only some of its stems were replaced: --skip-existing --overwrite completes them\n"
    assert result.stderr.endswith(cure) == (lost > 1)


def test_a_stem_missing_after_its_upload_is_uploaded_again(memory, run, tmp_path, monkeypatch):
    kind, calls = type(memory), iter(range(100))
    original = kind._open

    def open_(self, path, mode="rb", **kwargs):
        if mode == "rb" and path.endswith("-0.part") and next(calls) < 1:
            raise FileNotFoundError(path)
        return original(self, path, mode, **kwargs)

    monkeypatch.setattr(kind, "_open", open_)
    assert run(write(tmp_path / "a.wav"), "-o", f"{BUCKET}/out").exit_code == 0
    assert next(calls) > 1
    assert len(stems_there(memory)) == 4


@pytest.mark.parametrize("place", ["song", "stems"])
def test_a_full_temporary_folder_is_named_and_no_store_blamed(
    memory, run, tmp_path, monkeypatch, place
):
    tried = []

    def fail(*_: object) -> None:
        tried.append(place)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with memory.open("/bucket/in/a.wav", "wb") as file:
        file.write(write(tmp_path / "a.wav").read_bytes())
    if place == "song":
        monkeypatch.setattr(type(memory), "get_file", fail)
    else:
        monkeypatch.setattr("unetsep.library.songs.Claim", fail)
    result = run(f"{BUCKET}/in/a.wav", "-o", f"{BUCKET}/out")
    assert result.exit_code == 1
    assert result.stderr.strip() == (
        f"Error: writing to the temporary folder {tempfile.gettempdir()} failed: No space left on "
        "device; set TMPDIR to a folder with room for a song and its stems"
    )
    # Other songs, which are done meanwhile, may leave room.
    assert len(tried) == (store.ATTEMPTS if place == "song" else 1)


def test_the_second_of_two_runs_notices_the_first_before_renaming(
    memory, run, tmp_path, monkeypatch
):
    song = write(tmp_path / "a.wav")
    assert run(song, "-o", f"{BUCKET}/out").exit_code == 0
    record = json.loads(memory.cat_file("/bucket/out/a/.unetsep.wav.json"))
    del record["entries"][0]["gain_db"]  # as by an older version
    record["entries"][0]["later"] = 1  # and by a newer one
    memory.pipe_file("/bucket/out/a/.unetsep.wav.json", json.dumps(record).encode())
    other_run = dict(memory.store)
    original = Store.put

    def put(self, source, name):
        if "-3.part" in name:  # while the last stem is on its way, another run completes the song
            memory.store.update(other_run)
        original(self, source, name)

    monkeypatch.setattr(Store, "put", put)
    memory.store.clear()
    monkeypatch.setattr("unetsep.library.songs.__version__", "9.0")  # with the same stems
    assert run(song, "-o", f"{BUCKET}/out").exit_code == 0
    assert dict(memory.store) == other_run  # the same objects, none written again
    memory.store.clear()
    result = run(song, "-o", f"{BUCKET}/out", "--bit-depth", "24")
    assert result.exit_code == 1
    assert "appeared while its song was being separated" in result.stderr
    assert dict(memory.store) == other_run


def test_failed_and_incomplete_downloads_from_a_server_are_retried(memory, run, tmp_path):
    write(tmp_path / "in/a song.wav")
    assert run(tmp_path / "in", "-o", tmp_path / "out").exit_code == 0
    with serve(tmp_path / "in", "503", "cut") as (url, server):
        words = (f"{url}/a%20song.wav?signature=secret", "-o", tmp_path / "served", "--json")
        result = run(*words)
        assert result.exit_code == 0, result.stderr
        assert server.faults == []
    assert stems_here(tmp_path / "served") == stems_here(tmp_path / "out")
    said = result.stdout + result.stderr
    said += (tmp_path / "served/a song/.unetsep.wav.json").read_text()
    assert "secret" not in said
    assert json.loads(result.stdout)["source"] == f"{url}/a%20song.wav"


def test_a_download_is_checked_by_the_servers_checksum(memory, run, tmp_path):
    write(tmp_path / "in/a.wav")
    with serve(tmp_path / "in", "garbled") as (url, server):
        assert run(f"{url}/a.wav", "-o", tmp_path / "once").exit_code == 0
        server.faults += ["garbled"] * store.ATTEMPTS
        result = run(f"{url}/a.wav", "-o", tmp_path / "always")
    assert result.exit_code == 1
    assert f"{url}/a.wav could not be downloaded: its SHA256 differs" in result.stderr
    assert not stems_here(tmp_path / "always")


@pytest.mark.parametrize("named", [True, False])
def test_a_song_missing_on_a_server_does_not_stop_others(memory, run, tmp_path, named):
    write(tmp_path / "in/a.wav")
    (tmp_path / "list.txt").write_text("URL/gone.wav\nURL/a.wav\n")
    with serve(tmp_path / "in") as (url, server):
        text = (tmp_path / "list.txt").read_text().replace("URL", url)
        (tmp_path / "list.txt").write_text(text)
        result = run("--files-from", tmp_path / "list.txt", "-o", tmp_path / "out")
        assert result.exit_code == 1
        assert f"Error: {url}/gone.wav does not exist" in result.stderr
        assert len(stems_here(tmp_path / "out")) == 4
        assert len([path for path in server.seen if "gone" in path]) <= 2
        # Once it is there, the log says what to take.
        write(tmp_path / "in/gone.wav")
        words = [f"{url}/gone.wav", f"{url}/a.wav"] if named else []
        result = run("--retry-failed", *words, "-o", tmp_path / "out", "--json")
        assert result.exit_code == 0, result.stderr
        (report,) = map(json.loads, result.stdout.splitlines())
        assert report["source"] == f"{url}/gone.wav"
    assert len(stems_here(tmp_path / "out")) == 8


@pytest.mark.parametrize("user", ["", "me:word@"])
def test_a_page_of_links_is_searched_as_a_folder(memory, run, tmp_path, user):
    write(tmp_path / "in/a.wav")
    write(tmp_path / "in/disc 1/b.wav")
    with serve(tmp_path / "in") as (url, _):
        url = url.replace("://", f"://{user}")
        result = run(f"{url}/", "-o", tmp_path / "out")
    assert result.exit_code == 0
    assert {name.rpartition("/")[0] for name in stems_here(tmp_path / "out")} == {"a", "disc 1/b"}
    (log,) = (tmp_path / "out").glob("*.jsonl")
    assert "word" not in result.stderr + log.read_text()


def test_songs_of_a_page_that_names_them_by_https_have_their_own_names(tmp_path):
    page = tmp_path / "in/index.html"
    page.parent.mkdir()
    with serve(tmp_path) as (url, _), Spool(None) as spool:
        page.write_text(f'<a href="{url.replace("http:", "https:")}/in/disc%201/b.wav">b</a>')
        (song,) = spool.find([f"{url}/in/"], tmp_path / "out", print)
    assert song.track == "disc 1/b"


def test_no_song_of_a_web_folder_is_lost_or_searched_in_circles(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PAUSE", 0.0)
    links = ["./", "../../", "?dir=/", "no/", "b.wav", "./cd%201/a.wav", "cd%202/a.wav", "cd%203/"]
    for folder, names in (("in", links), ("in/cd 3", ["a.wav", "../", "../../"])):
        (tmp_path / folder).mkdir()
        page = "".join(f'<a href="{name}">x</a>' for name in names)
        (tmp_path / folder / "index.html").write_text(page)
    timed_out = [True]
    list_page = HTTPFileSystem.ls

    def listing(self, url, **options):
        if "cd%203" in url and timed_out:
            timed_out.pop()
            raise TimeoutError
        return list_page(self, url, **options)

    monkeypatch.setattr(HTTPFileSystem, "ls", listing)
    with serve(tmp_path) as (url, _), Spool(None) as spool:
        songs = spool.find([f"{url}/in/"], tmp_path / "out", lambda _: None)
        assert not timed_out
        assert [song.track for song in songs] == ["b", "cd 1/a", "cd 2/a", "cd 3/a"]
        (missing,) = spool.find([f"{url}/no/"], tmp_path / "out", print)
    assert str(missing.error).endswith("/no does not exist")


FORBIDDEN = "no%1"


@pytest.mark.parametrize("words", [(), ("",), ("/",), (f"/{FORBIDDEN}",), (f"/{FORBIDDEN}/cd 1/",)])
def test_a_folder_that_cannot_be_listed_is_an_error_and_retried(
    memory, run, tmp_path, monkeypatch, words
):
    for name in ("a.wav", f"{FORBIDDEN}/cd 1/b.wav", "hidden/.x/c.wav"):
        memory.pipe_file(f"/bucket/in/{name}", write(tmp_path / "a.wav").read_bytes())
    # Searched as sftp:// is, folder by folder.
    monkeypatch.setattr(MemoryFileSystem, "find", fsspec.AbstractFileSystem.find)
    list_folder = MemoryFileSystem.ls

    def ls(self, path, detail=True, **options):
        if path.rstrip("/").endswith((FORBIDDEN, ".x")):
            raise PermissionError(errno.EACCES, "Permission denied")
        return list_folder(self, path, detail, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    result = run(f"{BUCKET}/in/", "-o", tmp_path / "out")
    assert result.exit_code == 1
    message = f"Error: {BUCKET}/in/{FORBIDDEN} could not be listed: [Errno 13] Permission denied"
    assert message in result.stderr
    assert "1 of 2 failed" in result.stderr
    assert "skipped: 1 hidden" in result.stderr
    assert {name.rpartition("/")[0] for name in stems_here(tmp_path / "out")} == {"a"}
    monkeypatch.setattr(MemoryFileSystem, "ls", list_folder)
    urls = [f"{BUCKET}/in{word}" for word in words]
    result = run("--retry-failed", *urls, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    names = {name.rpartition("/")[0] for name in stems_here(tmp_path / "out")}
    assert names == {"a", f"{FORBIDDEN}/cd 1/b"}


def test_a_page_that_may_not_be_read_is_an_error_and_retried(memory, run, tmp_path, monkeypatch):
    write(tmp_path / "in/a.wav")
    write(tmp_path / "in/no 1/b 2.wav")
    list_page = HTTPFileSystem.ls

    def listing(self, url, **options):
        if url.endswith("no%201/"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return list_page(self, url, **options)

    monkeypatch.setattr(HTTPFileSystem, "ls", listing)
    with serve(tmp_path / "in") as (url, _):
        result = run(f"{url}/", "-o", tmp_path / "out")
        assert result.exit_code == 1
        assert f"Error: {url}/no%201 could not be listed: [Errno 13] Permission" in result.stderr
        assert {name.rpartition("/")[0] for name in stems_here(tmp_path / "out")} == {"a"}
        monkeypatch.setattr(HTTPFileSystem, "ls", list_page)
        assert run("--retry-failed", "-o", tmp_path / "out").exit_code == 0
    names = {name.rpartition("/")[0] for name in stems_here(tmp_path / "out")}
    assert names == {"a", "no 1/b 2"}


@EMPTY_NAMES
def test_songs_of_a_folder_that_failed_are_found_at_https_and_behind_empty_names(
    memory, buckets, run, tmp_path
):
    (tmp_path / "in/cd").mkdir(parents=True)
    (tmp_path / "in/index.html").write_text('<a href="cd/">cd</a>')
    page, key = tmp_path / "in/cd/index.html", "/bucket/in//cd/a.wav"
    page.touch()
    with serve(tmp_path) as (url, _):
        top, bucket = f"{url}/in/", "s3://bucket/in/"
        fail = run(f"{top}cd/", f"{bucket}/cd/", "-o", tmp_path / "out")
        assert "2 of 2 failed" in fail.stderr
        song = f"{top}cd/a.wav".replace("http:", "https:")
        page.write_text(f'<a href="{song}">a</a>')
        fsspec.filesystem("s3").pipe_file(key, b"")
        found = run("--retry-failed", top, bucket, "-o", tmp_path / "out", "--dry-run", "--json")
    sources = {json.loads(line)["source"] for line in found.stdout.splitlines()}
    assert sources == {song, f"s3:/{key}"}


def test_failed_songs_of_a_bucket_are_retried_by_the_log_beside_its_stems(memory, run, tmp_path):
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "a.wav").read_bytes())
    memory.pipe_file("/bucket/in/b.wav", b"no audio")
    result = run(f"{BUCKET}/in", "-o", f"{BUCKET}/out")
    assert result.exit_code == 1
    assert f"{BUCKET}/in/a.wav: vocals, drums, bass, other in {BUCKET}/out/a (" in result.stderr
    assert f"Error: {BUCKET}/in/b.wav is not audio that can be read" in result.stderr, result.stderr
    memory.pipe_file("/bucket/in/b.wav", write(tmp_path / "b.wav").read_bytes())
    result = run("--retry-failed", "-o", f"{BUCKET}/out", "--json")
    assert [json.loads(x)["source"] for x in result.stdout.splitlines()] == [f"{BUCKET}/in/b.wav"]
    assert result.exit_code == 0
    assert len(stems_there(memory)) == 8


@pytest.mark.parametrize("words", [(), (f"{BUCKET}/in/b/c/",), (f"{BUCKET}/in/b/c/x.wav",)])
def test_retried_songs_keep_their_folders(memory, run, tmp_path, words):
    memory.pipe_file("/bucket/in/a/x.wav", write(tmp_path / "a.wav").read_bytes())
    memory.pipe_file("/bucket/in/b/c/x.wav", b"no audio")
    for out in (f"{BUCKET}/out", tmp_path / "out"):
        assert run(f"{BUCKET}/in/", "-o", out).exit_code == 1
    memory.pipe_file("/bucket/in/b/c/x.wav", write(tmp_path / "x.wav").read_bytes())
    for out in (f"{BUCKET}/out", tmp_path / "out"):
        assert run("--retry-failed", *words, "-o", out).exit_code == 0
    for stems in (stems_there(memory), stems_here(tmp_path / "out")):
        assert {name.rpartition("/")[0] for name in stems} == {"a/x", "b/c/x"}


def test_a_log_does_not_replace_that_of_an_earlier_run_with_its_pid(memory, run, tmp_path):
    memory.pipe_file("/bucket/in/a.wav", b"no audio")
    memory.pipe_file("/bucket/in/b.wav", b"no audio")
    memory.pipe_file("/bucket/other/c.wav", write(tmp_path / "c.wav").read_bytes())
    for folder in ("in", "other"):
        run(f"{BUCKET}/{folder}/", "-o", f"{BUCKET}/out", "--shard", "1/1")
    assert len([name for name in all_names(memory) if name.endswith(".jsonl")]) == 2
    result = run("--retry-failed", "-o", f"{BUCKET}/out", "--dry-run", "--json")
    retried = [json.loads(line)["source"] for line in result.stdout.splitlines()]
    assert retried == [f"{BUCKET}/in/a.wav", f"{BUCKET}/in/b.wav"]


def test_leftovers_of_a_killed_run_are_removed_after_a_day_with_its_log(run, tmp_path):
    out = tmp_path / "out"
    (out / "a").mkdir(parents=True)
    old = [out / ".unetsep-0123-unetsep-host-1.jsonl.part", out / "a/.unetsep-0123-0.part"]
    young = [path.with_name(path.name.replace("0123", "4567")) for path in old]
    for path in (*old, *young):
        path.touch()
    for path in old:
        os.utime(path, (1000, 1000))
    words = (write(tmp_path / "a.wav"), "-o", f"local://{out}", "--shard", "1/1")
    assert run(*words, "--dry-run").exit_code == 0
    assert sorted(out.rglob("*.part")) == sorted((*old, *young))
    result = run(*words)
    assert result.exit_code == 0, result.stderr
    assert sorted(out.rglob("*.part")) == sorted(young)


@pytest.mark.parametrize("name", ["Dr. Dre - Still", "a.php-1", "a.mp+", f"a.{'x' * 300}"])
def test_a_song_at_a_url_is_shown_by_its_url_whatever_its_name(name):
    with Spool(None) as spool:
        song = spool.input(f"https://example.org/{quote(name)}", "song")
        assert len(song.path.name) < 30
        assert str(spool.shown_path(song.path)) == f"https://example.org/{quote(name)}"


def test_the_folder_of_a_dead_spool_is_removed_on_windows(tmp_path, monkeypatch):
    """As on Windows, where its lock, which is held meanwhile, outlives the rest."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    dead = tmp_path / "unetsep-dead"
    dead.mkdir()
    (dead / "song.wav").write_bytes(b"sound")
    (dead / MARK).write_bytes(b"")
    os.utime(dead / MARK, (0, 0))
    really_remove = shutil.rmtree

    def remove(folder, **options):
        if Path(folder) != dead:
            return really_remove(folder, **options)
        return [path.unlink() for path in dead.iterdir() if path.name != MARK]

    monkeypatch.setattr(shutil, "rmtree", remove)
    with Spool(None):
        assert not dead.exists()


def test_temporary_files_of_a_killed_run_are_removed_by_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "from unetsep.library.remote import Spool; spool = Spool(None).__enter__(); "
        "(spool.folder / 'song.wav').write_bytes(b'sound'); "
        "print(spool.folder, flush=True); input()"
    )
    (tmp_path / "unetsep-foreign").mkdir()
    with contextlib.ExitStack() as runs:
        spools = []
        for number in range(2):
            run = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"TMPDIR": str(tmp_path)},
            )
            runs.enter_context(run)
            runs.callback(run.kill)
            assert run.stdout
            spools.append(Path(run.stdout.readline().strip()))
            if number == 0:
                run.kill()
                run.wait()
        for spool in spools:
            os.utime(spool / MARK, (0, 0))  # a process that slept, too
        with Spool(None) as own:
            left = {path.name for path in tmp_path.iterdir()}
            assert left == {own.folder.name, spools[1].name, "unetsep-foreign"}
    assert not own.folder.exists()


def test_temporary_files_are_removed_whenever_a_signal_comes(monkeypatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile.TemporaryDirectory, "__exit__", interrupted)
    spool = Spool(None).__enter__()
    (spool.folder / "song.wav").touch()
    with pytest.raises(KeyboardInterrupt):
        spool.__exit__()
    assert spool.folder.exists()
    undo_all()
    assert not spool.folder.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interrupted_run_uploads_its_log(memory, run, tmp_path, monkeypatch, error):
    for name in ("a.wav", "b.wav"):
        memory.pipe_file(f"/bucket/in/{name}", b"no audio")
    shown = []

    def show(self, _: object) -> None:
        shown.append(self)
        if len(shown) == 2:
            raise error

    with monkeypatch.context() as patch:
        patch.setattr("unetsep.cli.reporter.Reporter.print_song", show)
        result = run(f"{BUCKET}/in/", "-o", f"{BUCKET}/out", "--jobs", "1")
    assert len(shown) == 2
    assert f"Log: {BUCKET}/out/unetsep-" in result.stderr
    result = run("--retry-failed", "-o", f"{BUCKET}/out", "--dry-run", "--json")
    (report,) = (json.loads(line) for line in result.stdout.splitlines())
    assert report["source"] == f"{BUCKET}/in/a.wav"


@pytest.mark.parametrize("problem", [OSError("gone"), FileNotFoundError("no such bucket")])
def test_a_log_that_a_store_refuses_is_a_warning(memory, run, tmp_path, monkeypatch, problem):
    tried = []

    def fail(*_: object) -> None:
        tried.append(problem)
        raise problem

    songs = [write(tmp_path / f"{name}.wav") for name in "ab"]
    monkeypatch.setattr(type(memory), "put_file", fail)
    result = run(*songs, "-o", f"{BUCKET}/out", "--jobs", "1")
    assert result.exit_code == 1
    assert "Warning: the log memory://bucket/out/unetsep-" in result.stderr
    assert str(problem) in result.stderr
    tried.clear()
    log = RemoteLog(tmp_path / "log.jsonl", Store(f"{BUCKET}/out"))
    with contextlib.suppress(KeyboardInterrupt), log:
        log.write({"a": 1})
        raise KeyboardInterrupt
    assert str(problem) in (log.failure or "")
    assert len(tried) <= 2  # of which one may be after making the folder


def test_a_log_is_uploaded_less_often_the_longer_it_takes_and_in_spite_of_errors_meanwhile(
    memory, tmp_path, monkeypatch
):
    seconds, publish = [0.0], Store.publish
    ends: list[float] = []

    def upload(self, source, name):
        seconds[0] += 3
        ends.append(seconds[0])
        if len(ends) == 1:
            raise UnetsepError("the store does not answer")
        publish(self, source, name)

    monkeypatch.setattr(time, "monotonic", lambda: seconds[0])
    monkeypatch.setattr(Store, "publish", upload)
    with RemoteLog(tmp_path / "log.jsonl", Store(f"{BUCKET}/out")) as log:
        for number in range(250):
            seconds[0] += 1
            log.write({"song": number})
    assert log.failure is None
    # 60 s after the beginning, then so that uploads take a fiftieth of the time.
    assert ends == [64, 218, 259]
    (name,) = all_names(memory)
    assert len(memory.cat_file(f"/bucket/out/{name}").splitlines()) == 250


def test_an_output_folder_within_the_songs_is_not_searched(memory, run, tmp_path):
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "a.wav").read_bytes())
    memory.pipe_file("/bucket/in/stems/b.wav", write(tmp_path / "b.wav").read_bytes())
    for source, output, songs in (
        ("in/", "in/stems", ["in/a.wav"]),
        ("in/", "in", ["in/a.wav", "in/stems/b.wav"]),
        ("in/stems/", "in", ["in/stems/b.wav"]),
        ("in", "in2", ["in/a.wav", "in/stems/b.wav"]),
    ):
        result = run(f"{BUCKET}/{source}", "-o", f"{BUCKET}/{output}", "--dry-run", "--json")
        said = [json.loads(line)["source"] for line in result.stdout.splitlines()]
        assert said == [f"{BUCKET}/{song}" for song in songs]


@pytest.mark.parametrize("song", ["in/", "in/a.wav"])
def test_a_song_of_a_bucket_is_never_replaced_by_its_stem(memory, run, tmp_path, song):
    content = write(tmp_path / "a.wav").read_bytes()
    memory.pipe_file("/bucket/in/a.wav", content)
    name = ("--filename", "{track}.{ext}", "--stems", "vocals", "--overwrite")
    result = run(f"{BUCKET}/{song}", "-o", f"{BUCKET}/in", *name)
    assert result.exit_code == 1
    assert f"{BUCKET}/in/a.wav would be written over an input" in result.stderr
    assert memory.cat_file("/bucket/in/a.wav") == content


@pytest.mark.parametrize("names", [("{url}", "{path}"), ("{path}", "{url}"), ("{url}", "{url}")])
def test_a_url_and_a_path_of_one_file_are_recognised_as_equal(run, tmp_path, names):
    song = write(tmp_path / "a.wav")
    content = song.read_bytes()
    source, output = (n.format(url=tmp_path.as_uri(), path=tmp_path) for n in names)
    name = ("--filename", "{track}.{ext}", "--stems", "vocals", "--overwrite")
    result = run(f"{source}/", "-o", output, *name)
    assert result.exit_code == 1
    assert "would be written over an input" in result.stderr
    assert song.read_bytes() == content


@pytest.mark.parametrize("name", ["{track}/{stem}.{ext}", "{stem}/{track}.{ext}"])
def test_the_next_run_does_not_separate_stems_beside_songs_of_a_bucket(memory, run, tmp_path, name):
    for song in ("a[1].wav", "b/c.wav"):
        memory.pipe_file(f"/bucket/in/{song}", write(tmp_path / song).read_bytes())
    for way in ("--overwrite", "--skip-existing"):
        words = ("-o", f"{BUCKET}/in", "--stems", "vocals,drums", "--filename", name, way)
        result = run(f"{BUCKET}/in/", *words)
        assert result.exit_code == 0, result.stderr
        assert len(stems_there(memory, "/bucket/in")) == 2 + 4


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("local://{}/in", "{}/in"),
        ("{}/in", "local://{}/in"),
        ("local://{}/in/", "file://{}/in"),
        ("local://{}/in/", "local://{}/in/../link"),
        ("local://{}/in/album/", "{}/in"),
        ("memory:///bucket/in/", "memory://bucket/in"),
        ("memory://bucket/in/album", "memory:///bucket/in/"),
    ],
)
def test_stems_are_recognised_however_their_folder_is_spelled(
    memory, run, tmp_path, monkeypatch, source, output
):
    content = write(tmp_path / "in/album/a.wav").read_bytes()
    memory.pipe_file("/bucket/in/album/a.wav", content)
    try:
        (tmp_path / "link").symlink_to("in")
    except OSError:
        pytest.skip("no links here")
    for kind in (tmp_path / "in", f"{BUCKET}/in"):
        assert run(kind, "-o", kind, "--instrumental").exit_code == 0
    places = [text.format(tmp_path) for text in (source, output)]
    result = run(places[0], "-o", places[1], "--dry-run", "--json")
    (report,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert report["source"].endswith("album/a.wav")


@pytest.mark.parametrize("names", [("{url}", "{path}"), ("{path}", "{url}"), ("{url}", "{url}/.")])
def test_the_output_folder_is_skipped_however_it_is_spelled(run, tmp_path, names):
    write(tmp_path / "in/a.wav")
    write(tmp_path / "in/out/b.wav")
    source, output = (n.format(url=f"local://{tmp_path}/in", path=tmp_path / "in") for n in names)
    result = run(source, "-o", f"{output}/out", "--dry-run", "--json")
    (report,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert report["source"].endswith("in/a.wav")


def test_a_folder_of_stems_alone_is_reported_as_such(memory, run, tmp_path):
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "a.wav").read_bytes())
    assert run(f"{BUCKET}/in", "-o", f"{BUCKET}/in", "--stems", "vocals").exit_code == 0
    result = run(f"{BUCKET}/in/a/", "-o", f"{BUCKET}/in", "--dry-run")
    assert f"{BUCKET}/in/a holds only stems that unetsep made" in result.stderr
    result = run(f"{BUCKET}/in/a/", "-o", f"{BUCKET}/out", "--dry-run")
    assert result.stdout.count("\n") == 4


def test_stems_beside_songs_of_a_bucket_are_skipped(memory, run, tmp_path):
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "a.wav").read_bytes())
    assert run(tmp_path / "a.wav", "-o", tmp_path / "earlier", "--stems", "vocals").exit_code == 0
    words = ("-o", tmp_path / "out", "--dry-run", "--json")
    for url, source in (("a.wav", f"{BUCKET}/in/a.wav"), ("no/", "earlier/a/vocals.wav")):
        result = run(tmp_path / "earlier", f"{BUCKET}/in/{url}", *words)
        reports = [json.loads(line) for line in result.stdout.splitlines()]
        (planned,) = [each["source"] for each in reports if each["status"] == "planned"]
        assert planned.endswith(source)
        assert ("Stems that unetsep made, skipped: 1" in result.stderr) == (url == "a.wav")


def test_a_dry_run_does_not_fetch_songs_to_learn_their_lengths(memory, run, tmp_path):
    song = tmp_path / "c.wav"
    soundfile.write(song, music(2).T, RATE)
    for name in "ab":
        memory.pipe_file(f"/bucket/in/{name}.wav", song.read_bytes())
    result = run(f"{BUCKET}/in/", song, "-o", tmp_path / "out", "--dry-run")
    assert "3 of 3 songs would be separated: 2 s of audio, 2 of unknown length" in result.stderr
    result = run(f"{BUCKET}/in/", "-o", tmp_path / "out", "--dry-run")
    assert "2 of 2 songs would be separated: 2 of unknown length" in result.stderr


def test_file_names_by_tags_and_folder_are_refused_for_urls_and_retries(memory, run, tmp_path):
    memory.pipe_file("/bucket/in/a.wav", b"no audio")
    assert run(f"{BUCKET}/in/a.wav", "-o", f"{BUCKET}/out", "--shard", "1/1").exit_code == 1
    memory.pipe_file("/bucket/in/a.wav", write(tmp_path / "a.wav").read_bytes())
    retry = ["--retry-failed", "-o", f"{BUCKET}/out"]
    for words in ([f"{BUCKET}/in/a.wav", "-o", tmp_path / "out"], retry):
        result = run(*words, "--filename", "{artist}/{stem}.{ext}")
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: --filename has fields of tags, which are unknown")
        result = run(*words, "--filename", "{folder}/{stem}.{ext}")
        assert result.exit_code == 1
        assert "{folder} is that of a file on this computer, which URLs" in result.stderr
    assert not stems_there(memory)
    assert run(*retry).exit_code == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-f", "mp3", "--bit-depth", "16"], "mp3 has no bit depth"),
        (["--start", "-1"], "start must be 0 or more seconds"),
        (["--duration", "0"], "duration must be more than 0 seconds"),
        (["--timeout", "0"], "timeout must be more than 0 seconds"),
        (["--timeout", "0", "--engine", "ray"], "timeout must be more than 0 seconds"),
        (["-f", "stem.mp4", "-m", "spleeter-vocals"], "a .stem.mp4 holds 4 stems, not 1"),
    ],
)
def test_impossible_options_are_refused_before_any_download(
    memory, run, tmp_path, options, sentence
):
    for name in "ab":
        memory.pipe_file(f"/bucket/in/{name}.wav", b"no audio")
    for more in ([], ["--dry-run"]):
        result = run(f"{BUCKET}/in/", "-o", tmp_path / "out", *options, *more)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.startswith(f"Error: {sentence}")
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()  # where a log of songs that failed would be


@pytest.mark.parametrize("song", ["here", "s3://bucket/in/a.wav"])
def test_a_missing_bucket_is_reported_before_anything_is_separated(buckets, run, tmp_path, song):
    place = write(tmp_path / "a.wav")
    result = run(place if song == "here" else song, "-o", "s3://buckte/out")
    assert result.exit_code == 1
    assert "s3://buckte/out cannot be written to: there is no bucket buckte; " in result.stderr
    assert result.stderr.count("\n") == 1
    assert not buckets.made


@EMPTY_NAMES
def test_songs_of_a_bucket_are_separated_without_listing_their_new_folders(buckets, run, tmp_path):
    files = fsspec.filesystem("s3")
    for name in ("/a.wav", "B::live.wav"):  # names that are none of a file's
        files.pipe_file(f"/bucket/in/{name}", write(tmp_path / "a.wav", len(name)).read_bytes())
    result = run("s3://bucket/in/", "-o", "s3://bucket/out")
    assert result.exit_code == 0, result.stderr
    assert {name.rpartition("/")[0] for name in stems_there(files)} == {"a", "B::live"}
    assert not {"/bucket/out/a", "/bucket/out/B::live"} & set(buckets.listed)


def test_a_folder_that_takes_the_stems_of_all_songs_is_not_listed_for_each(
    buckets, run, tmp_path, monkeypatch
):
    files, listed = fsspec.filesystem("s3"), []
    listing = Store.listing
    monkeypatch.setattr(Store, "listing", lambda *words: listed.append(1) or listing(*words))
    words = ("s3://bucket/in/", "-o", "s3://bucket/out", "--instrumental", "--skip-existing")
    words += ("--jobs", 1, "--json")
    counts = []
    for number in range(4):
        files.pipe_file(f"/bucket/in/{number}.wav", write(tmp_path / "a.wav", number).read_bytes())
        listed.clear()
        statuses = [json.loads(line)["status"] for line in run(*words).stdout.splitlines()]
        assert statuses == [*(number * ["skipped"]), "ok"]
        counts.append(len(listed))
    assert counts[1:] == 3 * [1]
    files.rm_file("/bucket/out/3 (Instrumental).wav")
    files.pipe_file("/bucket/out/2 (Instrumental).wav", b"somebody's")
    statuses = [json.loads(line)["status"] for line in run(*words).stdout.splitlines()]
    assert statuses == ["skipped", "skipped", "error", "ok"]


@EMPTY_NAMES
def test_keys_that_are_not_valid_paths_are_retried_unchanged(buckets, run, tmp_path):
    files = fsspec.filesystem("s3")
    song = write(tmp_path / "a.wav").read_bytes()
    keys = ["/a.wav", "./b.wav", "c\\d.wav"]
    for key in keys:
        files.pipe_file(f"/bucket/in/{key}", b"no audio")
    assert run("s3://bucket/in/", "-o", "s3://bucket/out").exit_code == 1
    for key in keys:
        files.pipe_file(f"/bucket/in/{key}", song)
    result = run("--retry-failed", "-o", "s3://bucket/out", "--json")
    assert result.exit_code == 0, result.stderr
    sources = {json.loads(line)["source"] for line in result.stdout.splitlines()}
    assert sources == {f"s3://bucket/in/{key}" for key in keys}


def test_songs_within_an_archive_have_their_own_names(memory, run, tmp_path):
    song = write(tmp_path / "song.wav")
    with zipfile.ZipFile(tmp_path / "songs.zip", "w") as archive:
        archive.write(song, "a.wav")
        archive.write(song, "disc/b.wav")
    memory.pipe_file("/bucket/songs.zip", (tmp_path / "songs.zip").read_bytes())
    place = f"{BUCKET}/songs.zip"
    for number, (inner, names) in enumerate(
        {"": {"a", "disc/b"}, "disc/": {"b"}, "a.wav": {"a"}}.items()
    ):
        result = run(f"zip://{inner}::{place}", "-o", tmp_path / f"{number}")
        assert result.exit_code == 0, result.stderr
        stems = stems_here(tmp_path / f"{number}")
        assert {name.rpartition("/")[0] for name in stems} == names
    assert f"zip://a.wav::{place}: vocals" in result.stderr


def test_an_archive_is_searched_by_its_index(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "songs.zip", "w") as archive:
        for name in ("a.wav", "/Album/b.wav", "Album/c.wav"):
            archive.writestr(zipfile.ZipInfo(name), "")
    # It reads the whole index for each folder.
    monkeypatch.setattr(ZipFileSystem, "ls", lambda *_, **__: pytest.fail("listed"))
    with Spool(None) as spool:
        songs = spool.find([f"zip://::file://{tmp_path}/songs.zip"], tmp_path / "out", print)
    assert [song.track for song in songs] == ["Album/b", "Album/c", "a"]


def test_names_with_hashes_and_question_marks_are_taken_literally(memory, run, tmp_path):
    names = ["Track #1.wav", "Track #2.wav", "Track?3.mp3", "Why?.wav"]
    for name in names:
        memory.pipe_file(f"/bucket/in/{name}", b"no audio")
    urls = [f"{BUCKET}/in/{name}" for name in names]
    result = run(*urls, "-o", f"{BUCKET}/out", "--json")
    assert result.exit_code == 1
    assert [f"Error: {url} is not audio" in result.stderr for url in urls] == [True] * 4
    memory.pipe_file("/bucket/in/Track #2.wav", write(tmp_path / "2.wav").read_bytes())
    for words in ((f"{BUCKET}/in/", "--dry-run"), ()):
        result = run("--retry-failed", *words, "-o", f"{BUCKET}/out", "--json")
        assert [json.loads(x)["source"] for x in result.stdout.splitlines()] == urls
    assert {name.rpartition("/")[0] for name in stems_there(memory)} == {"Track #2"}


def test_a_bucket_has_the_same_shards_as_a_folder(memory, run, tmp_path):
    for name in ("a", "b", "c"):
        memory.pipe_file(f"/bucket/in/{name}.wav", write(tmp_path / f"in/{name}.wav").read_bytes())
    for source in (tmp_path / "in", f"{BUCKET}/in"):
        result = run(source, "-o", tmp_path / "out", "--shard", "1/2", "--dry-run")
        said = {Path(line).parent.name for line in result.stdout.splitlines()}
        assert said == {name for name in "abc" if remote_shard(name)}


def remote_shard(name: str) -> bool:
    from unetsep.library.shards import Shard

    return Shard(1, 2).holds(name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "https://example.org/stems"), "cannot be written to: name a bucket"),
        (("-o", f"{BUCKET}/out", "--player"), "--player and --plots need a local folder"),
        (("-o", "nosuch://bucket/out"), "nosuch://bucket/out cannot be opened: Protocol not known"),
    ],
)
def test_impossible_urls_are_refused_before_any_work(run, tmp_path, words, message):
    result = run(write(tmp_path / "a.wav"), *words)
    assert result.exit_code == 1
    assert message in result.stderr


def test_an_unreachable_server_is_not_a_missing_song(run, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PAUSE", 0.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run(f"http://127.0.0.1:{port}/a.wav", "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert "could not be looked up: Cannot connect to host 127.0.0.1" in result.stderr
    assert "does not exist" not in result.stderr
