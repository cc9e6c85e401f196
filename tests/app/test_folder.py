"""The folder for temporary files outlives no run."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.commands import call
from unetsep.app.folder import SIGNATURE, WorkFolder, remove_dead, size_of


def test_folders_of_dead_runs_are_removed_and_others_kept(tmp_path: Path) -> None:
    alive = WorkFolder(tmp_path)
    (alive.path / "upload").write_bytes(b"x")
    dead = tmp_path / "run-0123456789abcdef"
    (dead / "job").mkdir(parents=True)
    (dead / "job" / "upload").write_bytes(b"x")
    dead.with_suffix(".lock").write_bytes(SIGNATURE)
    (tmp_path / "mine").mkdir()  # nothing of ours
    other = WorkFolder(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == sorted(
        ["mine", alive.path.name, other.path.name]
    )
    remove_dead(tmp_path)
    assert (alive.path / "upload").exists()
    alive.remove()
    other.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("run-2024", b""), ("run-2024", SIGNATURE), ("run-0123456789abcdef", b"of another program")],
)
def test_foreign_files_that_look_like_a_dead_run_are_kept(
    tmp_path: Path, name: str, content: bytes
) -> None:
    thesis, lock = tmp_path / name / "thesis.txt", tmp_path / f"{name}.lock"
    thesis.parent.mkdir()
    thesis.write_text("mine")
    lock.write_bytes(content)
    WorkFolder(tmp_path).remove()
    assert (thesis.read_text(), lock.read_bytes()) == ("mine", content)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_only_its_owner_may_look_into_the_folder(tmp_path: Path) -> None:
    folder = WorkFolder(tmp_path / "app")
    assert folder.path.stat().st_mode & 0o077 == 0
    assert folder.path.parent.stat().st_mode & 0o077 == 0
    folder.remove()


def test_the_size_of_a_folder_is_that_of_all_its_files_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1000))
    (tmp_path / "c").write_bytes(bytes(24))
    (tmp_path / "link").symlink_to(tmp_path / "c")
    assert size_of(tmp_path) == 1024


def test_a_folder_that_vanishes_while_it_is_measured_has_no_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stems").mkdir()
    (tmp_path / "stems" / "drums.wav").write_bytes(bytes(1000))
    (tmp_path / "upload").write_bytes(bytes(24))
    scandir = os.scandir

    def scan(path: str | Path | int) -> Any:
        if not isinstance(path, int) and Path(path).name == "stems":
            (Path(path) / "drums.wav").unlink()
            Path(path).rmdir()
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert size_of(tmp_path) == 24


def test_a_full_disk_leaves_no_orphaned_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*\.lock'"):
            WorkFolder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_removed_at_once_is_removed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, **_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    folder = WorkFolder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", fail)
        folder.remove()
    assert folder.path.exists()
    remove_dead(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_whose_drive_is_gone_or_fails_does_not_count_as_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WorkFolder(tmp_path).remove()
    folder = WorkFolder(tmp_path / "drive")
    (tmp_path / "drive").rename(tmp_path / "unplugged")
    assert not folder.remove()
    folder, original = WorkFolder(tmp_path), Path.lstat

    def lstat(self: Path) -> os.stat_result:
        if self == folder.path:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN), str(self))
        return original(self)

    monkeypatch.setattr(Path, "lstat", lstat)
    assert not folder.remove()


@pytest.mark.parametrize("left", [None, Path("drive", "run-1")])
def test_the_last_message_says_whether_files_were_removed(
    monkeypatch: pytest.MonkeyPatch, left: Path | None
) -> None:
    monkeypatch.setattr("unetsep.cli.app.run", lambda *_: left)
    result = call("app", "--no-browser")
    assert result.exit_code == 0, result.output
    assert ("all temporary files were removed" in result.stderr) == (left is None)
    assert (f"temporary files may remain in {left}: the next" in result.stderr) == bool(left)
