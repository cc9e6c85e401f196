from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from unetsep.storage import locked, open_atomically, write_atomically


def test_text_and_bytes_are_written_whole_and_replace_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_has_the_name_before_the_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    with open_atomically(path) as one, open_atomically(path) as other:
        one.write(b"one")
        other.write(b"other")
        assert path.read_text() == "before"
    assert path.read_text() == "one"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_after_an_error_all_is_as_before(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a"
    path.write_text("before")

    def fail_halfway() -> None:
        with open_atomically(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(type(error)):
        fail_halfway()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_renaming_leaves_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    plain, atomic = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic"))
    assert plain == atomic


def test_a_lock_is_held_in_the_block_and_by_nobody_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "a"
    other = FileLock(tmp_path / "folder" / ".a.lock", blocking=False)

    def fail() -> None:
        with locked(path):
            with pytest.raises(Timeout):
                other.acquire()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with other:
        pass
    with locked(path):
        path.write_text("")
