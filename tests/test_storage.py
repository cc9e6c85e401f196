from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest

from unetsep.errors import UnetsepError
from unetsep.storage import (
    MadeFolders,
    open_atomically,
    shell_word,
    user_folder,
    write_atomically,
)


def test_text_and_bytes_are_written_exactly_and_replace_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    write_atomically(path, "é\n")
    assert path.read_bytes() == "é\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_gets_its_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")
    with open_atomically(path) as one, open_atomically(path) as other:
        one.write(b"one")
        other.write(b"other")
        assert path.read_text() == "before"
        assert {each.name[0] for each in tmp_path.iterdir() if each != path} == {"."}
    assert path.read_text() == "one"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_an_error_changes_nothing(tmp_path: Path, error: BaseException) -> None:
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


def test_an_error_names_the_file_and_not_the_partial_one(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere" / "file", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(OSError, match=r"(No such file|Is a directory|denied)") as caught:
            write_atomically(path, b"content")
        assert (caught.value.filename, caught.value.filename2) == (str(path), None)
        assert str(caught.value).endswith(f": {str(path)!r}")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
def test_a_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(FileExistsError, match="a device or a pipe"):
        write_atomically(pipe, b"content")
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
    link = tmp_path / "link"
    link.symlink_to(pipe)
    write_atomically(link, b"content")
    assert link.read_bytes() == b"content"
    assert pipe.is_fifo()


def test_an_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def fill() -> None:
        with open_atomically(tmp_path / "a"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.filename == str(tmp_path / "a")


def test_an_error_of_renaming_leaves_no_partial_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_atomically(tmp_path / "atomic", b"")
    plain, atomic = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic"))
    assert plain == atomic


@pytest.mark.parametrize("chosen", ["", "~no-such-user-54/models"])
def test_an_unknown_home_folder_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: str
) -> None:
    def unknown(path: Path) -> Path:
        if path.parts[0].startswith("~"):
            raise RuntimeError("Could not determine home directory.")
        return path

    monkeypatch.setattr(Path, "expanduser", unknown)  # no test can take an account away
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UNETSEP_HOME", chosen)
    with pytest.raises(UnetsepError, match=r"no home folder for ~.*: set UNETSEP_HOME to the path"):
        user_folder()
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    assert user_folder() == tmp_path


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="other systems have other folders")
def test_a_relative_folder_of_data_is_ignored(tmp_path, monkeypatch):
    monkeypatch.delenv("UNETSEP_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert user_folder() == tmp_path / "unetsep"
    monkeypatch.setenv("XDG_DATA_HOME", "here")
    assert user_folder() == Path("~/.local/share/unetsep").expanduser()


@pytest.mark.parametrize(
    ("path", "word"),
    [
        (r"C:\runs\a-1", "C:/runs/a-1"),
        (r"C:\Users\Jo O'Hara (home)\run", '"C:/Users/Jo O\'Hara (home)/run"'),
    ],
)
def test_a_path_to_type_has_quotes_of_windows(path, word, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        shown = shell_word(path)
    assert shown == word


def test_folders_that_several_needed_are_removed_by_the_last(tmp_path: Path) -> None:
    first, second = MadeFolders(), MadeFolders()
    first.make(tmp_path / "out" / "a")
    second.make(tmp_path / "out" / "b")
    first.remove()
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "b"]
    second.remove()
    assert list(tmp_path.iterdir()) == []


def test_created_folders_are_removed_again_unless_they_hold_files(tmp_path: Path) -> None:
    folders = MadeFolders()
    (tmp_path / "before").mkdir()
    for name in ("before/a/b", "before/a/c", "d/e", "before"):
        folders.make(tmp_path / name)
        assert (tmp_path / name).is_dir()
    (tmp_path / "d" / "stem.wav").touch()
    folders.remove()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["before", "d", "stem.wav"]


@pytest.mark.parametrize("error", [FileNotFoundError, FileExistsError])
def test_a_folder_that_another_run_removes_while_it_is_created_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    mkdir, removals = Path.mkdir, [True]

    def losing(path: Path, *words: object, **options: object) -> None:
        if removals:
            removals.pop()
            raise error
        mkdir(path, *words, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", losing)
    folders = MadeFolders()
    folders.make(tmp_path / "a")
    assert not removals
    assert (tmp_path / "a").is_dir()
    folders.remove()
