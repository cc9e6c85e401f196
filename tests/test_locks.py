from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import unetsep.locks
from unetsep.locks import HeldError, LockFile, held, locked


def test_a_lock_is_held_in_the_block_and_released_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a"
    lock = tmp_path / "folder" / ".a.lock"

    def fail() -> None:
        with locked(path):
            with pytest.raises(HeldError), held(lock, patience=0):
                pass
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with held(lock, patience=0):
        pass
    with locked(path):
        path.write_text("")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_file_systems_without_locks_cause_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(unetsep.locks, "_lock_now", fail)
    with locked(tmp_path / "a"), locked(tmp_path / "a"):
        pass


def test_a_waiting_process_is_notified_and_gets_its_turn(tmp_path: Path) -> None:
    waiting, order = threading.Event(), []

    def wait() -> None:
        with locked(tmp_path / "a", on_wait=waiting.set):
            order.append("second")

    thread = threading.Thread(target=wait)
    with locked(tmp_path / "a", on_wait=lambda: order.append("wrong")):
        thread.start()
        assert waiting.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


@pytest.mark.skipif(os.name == "nt", reason="Windows does not fork")
def test_a_child_that_was_forked_in_the_block_does_not_keep_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from unetsep.locks import held\n"
        "lock = Path(sys.argv[1])\n"
        "with held(lock):\n"
        "    if not (child := os.fork()): time.sleep(60); os._exit(0)\n"
        "try:\n"
        "    with held(lock, patience=0): pass\n"
        "finally: os.kill(child, 9)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "lock"], check=True, timeout=50)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_processes_that_share_a_folder_share_its_locks(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        with locked(tmp_path / "a"):
            assert stat.S_IMODE((tmp_path / ".a.lock").stat().st_mode) == 0o664
    finally:
        os.umask(before)


def test_a_file_that_a_drive_writes_when_it_is_closed_is_removed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As rclone does without a cache, whether the file was removed by then or not."""
    path, truly, closed = tmp_path / "a.lock", os.close, []
    lock = LockFile(path, os.O_CREAT | os.O_EXCL)
    assert lock.sign(b"mine")

    def close(descriptor: int) -> None:
        truly(descriptor)
        closed.append(path.exists())
        path.write_bytes(content)

    monkeypatch.setattr(os, "close", close)
    content = b"mine"
    lock.remove()
    assert closed == [False]
    assert not path.exists()
    other = LockFile(path, os.O_CREAT | os.O_EXCL)
    assert other.sign(b"mine")
    content = b"another's, which came just then"
    other.remove()
    assert path.read_bytes() == content
