from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import unetsep.locks
from unetsep.audio.staging import Staging, remove_leftovers
from unetsep.storage import PREFIX

RUN = """
import sys, time
from pathlib import Path
import unetsep.audio.staging
from unetsep.audio.staging import Staging
folder = Path(sys.argv[1])
staging = Staging([folder])
staging.name(folder / "a.wav", 0, ".part").write_bytes(b"half")
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other_run(tmp_path):
    """Another process that is writing into the folder."""
    process = subprocess.Popen([sys.executable, "-c", RUN, tmp_path], stdout=subprocess.PIPE)
    assert process.stdout.readline().split() == [b"ready"]
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def leftovers(folder: Path) -> list[Path]:
    return sorted(folder.glob(PREFIX + "*"))


def test_files_of_a_dead_run_are_removed_and_those_of_a_live_one_are_not(tmp_path, other_run):
    assert len(leftovers(tmp_path)) == 2
    remove_leftovers(tmp_path)
    assert len(leftovers(tmp_path)) == 2
    other_run.kill()
    other_run.wait()
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == []


def test_own_files_are_not_removed_by_a_second_song_in_the_same_process(tmp_path):
    first = Staging([tmp_path])
    first.name(tmp_path / "a.wav", 0, ".part").write_bytes(b"half")
    second = Staging([tmp_path])
    assert len(leftovers(tmp_path)) == 3
    second.release()
    first.name(tmp_path / "a.wav", 0, ".part").unlink()
    first.release()
    assert leftovers(tmp_path) == []


def test_a_file_that_another_program_has_open_on_windows_is_removed_later(tmp_path, monkeypatch):
    kept = [tmp_path / f"{PREFIX}abc-0.part", tmp_path / f"{PREFIX}abc.lock"]
    for path in (*kept, tmp_path / f"{PREFIX}abc-1.part"):
        path.touch()
    unlink = Path.unlink

    def unless_it_is_open(path: Path, missing_ok: bool = False) -> None:
        if path == kept[0]:
            raise PermissionError(errno.EACCES, "another program has it open", str(path))
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unless_it_is_open)
        remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == kept
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == []


def test_files_of_another_machine_are_kept_for_a_day(tmp_path, monkeypatch):
    lock = tmp_path / f"{PREFIX}abc.lock"
    part = tmp_path / f"{PREFIX}abc-0.part"
    part.touch()
    lock.write_text("another-" + socket.gethostname())
    remove_leftovers(tmp_path)
    assert lock.exists()
    assert part.exists()
    old = time.time() - 25 * 3600
    os.utime(lock, (old, old))
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == []


def test_files_of_another_machine_are_kept_whatever_our_clock_says(tmp_path, monkeypatch):
    lock = tmp_path / f"{PREFIX}abc.lock"
    lock.write_text("another-" + socket.gethostname())
    now = time.time() + 48 * 3600  # the server's clock is behind
    monkeypatch.setattr(time, "time", lambda: now)
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == [lock]


def test_files_without_a_lock_and_foreign_files_are_left_alone(tmp_path):
    kept = [tmp_path / f"{PREFIX}abc-0.part", tmp_path / "song.part", tmp_path / ".hidden"]
    for path in kept:
        path.touch()
    remove_leftovers(tmp_path)
    assert all(path.exists() for path in kept)


def test_a_folder_that_is_gone_is_no_error(tmp_path):
    remove_leftovers(tmp_path / "gone")


def test_each_folder_is_locked_once(tmp_path):
    staging = Staging([tmp_path, tmp_path])
    assert len(leftovers(tmp_path)) == 1
    staging.release()
    staging.release()
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_locked_leaves_no_lock_in_the_others(tmp_path):
    with pytest.raises(OSError):
        Staging([tmp_path, tmp_path / "gone"])
    assert leftovers(tmp_path) == []


def test_a_lock_without_a_name_belongs_to_a_run_that_died_while_creating_it(tmp_path):
    (tmp_path / f"{PREFIX}abc.lock").touch()
    remove_leftovers(tmp_path)
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="no open file is removed there")
def test_a_lock_that_is_removed_at_once_is_created_again(tmp_path, monkeypatch):
    removed = []
    lock_now = unetsep.locks._lock_now

    def lose_the_first(descriptor: int) -> None:
        lock_now(descriptor)
        if not removed:
            removed.extend(leftovers(tmp_path))
            removed[0].unlink()

    monkeypatch.setattr(unetsep.locks, "_lock_now", lose_the_first)
    staging = Staging([tmp_path])
    assert leftovers(tmp_path) == [tmp_path / f"{PREFIX}{staging.token}.lock"] != removed
    staging.release()


def test_files_are_safe_where_locks_do_not_work(tmp_path, monkeypatch):
    def fail(_: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(unetsep.locks, "_lock_now", fail)
    staging = Staging([tmp_path])
    staging.name(tmp_path / "a.wav", 0, ".part").touch()
    remove_leftovers(tmp_path)
    assert len(leftovers(tmp_path)) == 2
    staging.release()


def test_many_runs_start_and_end_in_one_folder(tmp_path):
    def run() -> None:
        for _ in range(30):
            staging = Staging([tmp_path])
            part = staging.name(tmp_path / "a.wav", 0, ".part")
            part.write_bytes(b"half")
            assert part.exists()
            part.unlink()
            staging.release()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(run) for _ in range(8)]:
            done.result()
    assert leftovers(tmp_path) == []
