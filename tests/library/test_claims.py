from __future__ import annotations

import contextlib
import errno
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import unetsep.library.claims
import unetsep.locks
from unetsep.audio.staging import remove_leftovers
from unetsep.library.claims import STALE, Claim, ClaimedError, claim_path
from unetsep.locks import LockFile, Owner
from unetsep.storage import PREFIX

HOLD = """
import sys, time
from pathlib import Path
from unetsep.library.claims import Claim
claim = Claim([Path(sys.argv[1])])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path):
    return claim_path(tmp_path / "song", "0123456789ab")


@pytest.fixture
def no_locks(monkeypatch):
    """A file system that knows no locks."""
    monkeypatch.setattr(LockFile, "take", lambda *_: None)


def hold(lock: Path) -> subprocess.Popen[str]:
    """A process that claims a song and does not end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def write_foreign_claim(lock: Path, age: float) -> None:
    """A claim that another machine signed some seconds ago."""
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("elsewhere\nother-boot 12@ abc\n")
    os.utime(lock, (time.time() - age,) * 2)


def test_a_claim_is_held_by_one_run_and_leaves_no_trace(lock, tmp_path):
    with Claim([lock]) as claim:
        assert claim.held
        with pytest.raises(ClaimedError, match=f"another run .*process {os.getpid()} on "):
            Claim([lock])
    assert list(tmp_path.iterdir()) == []
    assert not claim.held


@pytest.mark.skipif(os.name == "nt", reason="it is so there, and all the other tests see it")
def test_a_claim_is_held_where_files_open_in_text_mode(lock, monkeypatch):
    """As on Windows, where `os.write` makes two bytes of the end of a line."""
    binary, as_text = 1 << 30, set()
    really_open, really_write = os.open, os.write

    def open_as_there(path, flags, *arguments, **options):
        descriptor = really_open(path, flags & ~binary, *arguments, **options)
        (as_text.discard if flags & binary else as_text.add)(descriptor)
        return descriptor

    def write_as_there(descriptor, data):
        in_full = data.replace(b"\n", b"\r\n") if descriptor in as_text else data
        really_write(descriptor, in_full)
        return len(data)

    monkeypatch.setattr(unetsep.locks, "BINARY", binary)
    monkeypatch.setattr(os, "open", open_as_there)
    monkeypatch.setattr(os, "write", write_as_there)
    with Claim([lock]) as claim:
        assert claim.held


def test_a_claim_takes_all_of_several_locks_or_none(tmp_path):
    first, second = (claim_path(tmp_path / name, "ab") for name in "ab")
    with Claim([second]), pytest.raises(ClaimedError):
        Claim([first, second])
    assert not first.parent.exists()
    with Claim([second, first, first]) as claim:
        assert claim.held
        assert first.exists()


def test_folders_with_content_are_kept(lock):
    with Claim([lock]):
        (lock.parent / "vocals.wav").touch()
    assert [path.name for path in lock.parent.iterdir()] == ["vocals.wav"]


def test_a_claim_ends_with_its_process(lock):
    process = hold(lock)
    with pytest.raises(ClaimedError, match=f"process {process.pid} on "):
        Claim([lock])
    process.kill()
    process.communicate()
    assert lock.exists()
    with Claim([lock]) as claim:
        assert claim.held


def test_leftovers_include_dead_claims_but_not_live_ones(lock):
    process = hold(lock)
    remove_leftovers(lock.parent)
    assert lock.exists()
    process.kill()
    process.communicate()
    remove_leftovers(lock.parent)
    assert not lock.exists()


def test_a_claim_that_replaces_a_dead_one_is_not_removed_with_it(lock, monkeypatch):
    lock.parent.mkdir()
    lock.write_text(socket.gethostname())
    os.utime(lock, (time.time() - STALE - 20,) * 2)
    lock_now, claims = unetsep.locks._lock_now, []

    def replaced_before(descriptor: int) -> None:
        if not claims:
            claims.append(None)
            claims[0] = Claim([lock])
        lock_now(descriptor)

    monkeypatch.setattr(unetsep.locks, "_lock_now", replaced_before)
    remove_leftovers(lock.parent)
    with claims[0] as claim:
        assert claim.held


@pytest.mark.skipif(os.name == "nt", reason="locks always work there")
def test_a_dead_process_has_no_claim_even_without_locks(lock, no_locks):
    process = hold(lock)
    with pytest.raises(ClaimedError):
        Claim([lock])
    process.kill()
    process.communicate()
    with Claim([lock]) as claim:
        assert claim.held


@pytest.mark.parametrize("locks", [True, False])
def test_a_claim_of_another_machine_is_live_until_it_is_stale(lock, locks, request):
    if not locks:
        request.getfixturevalue("no_locks")
    write_foreign_claim(lock, STALE - 20)
    with pytest.raises(ClaimedError, match=r"process 12 on elsewhere"):
        Claim([lock])
    assert lock.read_text().startswith("elsewhere")
    write_foreign_claim(lock, STALE + 20)
    with Claim([lock]) as claim:
        assert claim.held
    assert not lock.parent.exists() or list(lock.parent.iterdir()) == []


@pytest.mark.parametrize("locks", [True, False])
def test_a_claim_from_before_a_reboot_is_dead_whatever_the_clock_says(lock, locks, request):
    if not locks:
        request.getfixturevalue("no_locks")
    write_foreign_claim(lock, -3600)
    with pytest.raises(ClaimedError, match=r"process 12 on elsewhere"):
        Claim([lock])
    lock.write_text(f"{socket.gethostname()}\nother-boot 12@ abc\n")
    os.utime(lock, (time.time() + 3600,) * 2)
    with Claim([lock]) as claim:
        assert claim.held


def write_claim_of_mount(lock: Path, process: int, age: float) -> None:
    """A claim that a process of this system holds, whose lock is not seen from here."""
    lock.parent.mkdir(exist_ok=True)
    with contextlib.closing(LockFile(lock, os.O_CREAT)) as file:
        owner, _, drive = Owner.current().signature(file).rpartition(" ")
        owner = owner.replace(f" {os.getpid()}@", f" {process}@")
        file.write(f"{owner} {int(drive) + 1} abc\n".encode())
    os.utime(lock, (time.time() - age,) * 2)


@pytest.mark.skipif(os.name == "nt", reason="no process is known to be gone there")
def test_a_claim_of_another_mount_ends_with_its_process_or_when_stale(lock):
    write_claim_of_mount(lock, os.getpid(), STALE - 20)
    other = lock.with_name(f"{PREFIX}abc-0.spool")
    write_claim_of_mount(lock.with_name(f"{PREFIX}abc.lock"), os.getpid(), STALE - 20)
    other.touch()
    with pytest.raises(ClaimedError, match=f"process {os.getpid()} on "):
        Claim([lock])
    remove_leftovers(lock.parent)
    assert lock.exists()
    assert other.exists()
    write_claim_of_mount(lock, os.getpid(), STALE + 20)
    with Claim([lock]) as claim:
        assert claim.held
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.communicate()
    write_claim_of_mount(lock, gone.pid, 0)
    write_claim_of_mount(lock.with_name(f"{PREFIX}abc.lock"), gone.pid, 0)
    with Claim([lock]) as claim:
        assert claim.held
        remove_leftovers(lock.parent)
    assert not other.exists()


def test_a_claim_renews_the_time_of_its_file(lock, monkeypatch):
    monkeypatch.setattr(unetsep.library.claims, "BEAT", 0.01)
    with Claim([lock]):
        os.utime(lock, (1, 1))
        end = time.monotonic() + 5
        while lock.stat().st_mtime == 1 and time.monotonic() < end:
            time.sleep(0.01)
        assert lock.stat().st_mtime > time.time() - 60


def test_claims_use_one_clock_even_if_new_files_have_another(lock, monkeypatch, no_locks):
    """As on network drives that set the time of new files themselves, and others as asked."""
    really_open, ahead = os.open, 300.0

    def open_there(path, flags, *arguments, **options):
        descriptor = really_open(path, flags, *arguments, **options)
        if flags & os.O_CREAT:
            os.utime(path, (time.time() + ahead,) * 2)
        return descriptor

    monkeypatch.setattr(os, "open", open_there)
    with Claim([lock]):
        assert abs(lock.stat().st_mtime - time.time()) < ahead / 2
    write_foreign_claim(lock, 1)
    with pytest.raises(ClaimedError, match="on elsewhere"):
        Claim([lock])
    write_foreign_claim(lock, STALE + 20)
    with Claim([lock]) as claim:
        assert claim.held


@pytest.mark.skipif(os.name == "nt", reason="files have no numbers there that are looked at")
def test_a_claim_is_held_and_removed_where_inode_numbers_change(lock, monkeypatch):
    looks: list[LockFile] = []
    monkeypatch.setattr(os.path, "samestat", lambda *_: False)

    def take(lock: LockFile, patience: float = 0.0) -> bool | None:
        looks.append(lock)
        assert len(looks) < 100, "it goes on for ever"
        return really_take(lock, patience)

    really_take = LockFile.take
    monkeypatch.setattr(LockFile, "take", take)
    write_foreign_claim(lock, STALE + 20)  # to be replaced
    with Claim([lock]) as claim:
        assert claim.held
        with pytest.raises(ClaimedError):
            Claim([lock])
    assert not lock.exists()


def test_a_claim_that_cannot_be_checked_leaves_no_file(lock, monkeypatch):
    def fail(_: LockFile) -> bytes:
        monkeypatch.undo()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(LockFile, "read", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        Claim([lock])
    assert not lock.parent.exists()


def test_a_claim_that_cannot_be_read_raises_the_error_of_the_disk(lock, monkeypatch):
    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    with Claim([lock]) as claim:
        monkeypatch.setattr(Path, "read_bytes", fail)
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            _ = claim.held


@pytest.mark.skipif(os.name == "nt", reason="no open file is removed there")
def test_a_claim_that_was_taken_over_is_no_longer_held_and_not_removed(lock):
    with Claim([lock]) as claim:
        lock.unlink()
        write_foreign_claim(lock, 0)
        assert not claim.held
    assert lock.exists()


@pytest.mark.parametrize("locks", [True, False])
def test_one_of_many_runs_takes_over_a_dead_claim(lock, locks, request):
    if not locks:
        request.getfixturevalue("no_locks")
    for _ in range(10):
        write_foreign_claim(lock, STALE + 20)
        claims, start = [], threading.Barrier(6)

        def take(claims=claims, start=start) -> None:
            start.wait()
            try:
                claims.append(Claim([lock]))
            except ClaimedError:
                claims.append(None)

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(claims) == 6
        held = [claim for claim in claims if claim and claim.held]
        assert len(held) == 1
        for claim in claims:
            if claim:
                claim.release()


def test_a_claim_is_held_if_its_first_file_was_moved_aside(lock, no_locks, monkeypatch):
    named, seen = LockFile.is_named.fget, []

    def moved_aside_at_first(file: LockFile) -> bool:
        seen.append(file)
        return len(seen) > 1 and named(file)

    monkeypatch.setattr(LockFile, "is_named", property(moved_aside_at_first))
    with Claim([lock]) as claim:
        assert claim.held
    assert len(seen) > 2


def test_a_full_disk_leaves_no_claim_behind(lock, monkeypatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            Claim([lock])
    assert not lock.parent.exists()
    with Claim([lock]) as claim:
        assert claim.held


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        Claim([claim_path(tmp_path / "file" / "song", "ab")])


def test_a_claim_is_held_on_windows_whatever_its_inode_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.12 numbers files by their names in another way than open ones."""
    ours, gone = tmp_path / "a.lock", tmp_path / "b.lock"
    file, named = LockFile(ours, os.O_CREAT), []
    with contextlib.closing(file), monkeypatch.context() as patch:
        patch.setattr(os.path, "samestat", lambda *_: False)
        patch.setattr(os, "name", "nt")
        for file.path in (ours, gone):
            named.append(file.is_named)
    assert named == [True, False]


@pytest.mark.parametrize(("seconds", "lives"), [(0.5, True), (2.0, False)])
def test_an_unsigned_claim_is_live_for_a_moment_only(tmp_path, monkeypatch, seconds, lives):
    """Its owner was killed before that, or is about to, where locks are not seen from here."""
    path = claim_path(tmp_path, "song")
    path.touch()
    monkeypatch.setattr(unetsep.library.claims, "age", lambda lock: seconds)
    if lives:
        with pytest.raises(ClaimedError):
            Claim([path])
    else:
        with Claim([path]) as claim:
            assert claim.held
        assert not list(tmp_path.iterdir())
