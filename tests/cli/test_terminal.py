from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile

import unetsep.playlists
from tests.commands import call
from tests.releases import needs
from tests.signals import RATE, music
from unetsep.cli.pipes import listed_files
from unetsep.cli.startup import raise_broken_pipes, write_utf8
from unetsep.cli.terminal import Lines, Messages, printable, speed


@pytest.mark.parametrize(
    ("errors", "line", "written"),
    [("strict", "caf\udce9", b"caf\xe9\n"), ("replace", "caf\u00e9", b"caf?\n")],
)
def test_unencodable_characters_follow_the_error_handler_of_users(
    monkeypatch: pytest.MonkeyPatch, errors: str, line: str, written: bytes
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors=errors, newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    lines = Lines()
    lines.write(line)
    assert lines.failure is None
    assert stream.buffer.getvalue() == written


def test_output_is_utf8_on_windows_unless_pythonioencoding_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\n")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        write_utf8()
        assert stream.encoding == "cp1252"
        patch.delenv("PYTHONIOENCODING")
        write_utf8()
    lines = Lines()
    lines.write("Дом/vocals.wav")
    assert lines.failure is None
    assert stream.buffer.getvalue().decode() == "Дом/vocals.wav\n"


def test_control_characters_are_escaped_in_messages(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("Дом\u3000\u200d [1].wav") == "Дом\u3000\u200d [1].wav"
    assert printable("a\nb\x1b[2J\x9b\u2028c\udce9") == r"a\nb\x1b[2J\x9b\u2028c\udce9"
    Messages().print("2 failed:", "  a\r\nb", "  \x1b]0;c\a")
    assert capsys.readouterr().err == "2 failed:\n  a\\r\\nb\n  \\x1b]0;c\\x07\n"


@pytest.mark.skipif(os.name == "nt", reason="Windows forbids such names")
def test_names_with_newlines_stay_one_line(tmp_path: Path) -> None:
    name = "a\nb\x1b[31m.wav"
    (tmp_path / name).write_bytes(b"no audio")
    (tmp_path / "c.wav").write_bytes(b"no audio")
    path = str(tmp_path / name)
    songs = [path, str(tmp_path / "c.wav")]
    output = ["-o", str(tmp_path / "out")]
    for arguments in (["separate", *songs, *output], ["listen", path]):
        run = call(*arguments)
        assert run.exit_code == 1
        assert r"a\nb\x1b[31m.wav" in run.stderr
        assert "\x1b" not in run.stderr
        assert not [line for line in run.stderr.splitlines() if line.startswith("b")]


@pytest.mark.parametrize("columns", ["0", ""])
def test_a_terminal_without_a_width_shows_messages(tmp_path: Path, columns: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "unetsep", "separate", str(tmp_path / "nothing.wav")],
        env=os.environ | {"COLUMNS": columns, "LINES": columns},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 1
    assert run.stderr == f"Error: {tmp_path / 'nothing.wav'} does not exist\n"


class PipeOfWindows(io.FileIO):
    def write(self, _: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")


@pytest.mark.parametrize("buffered", [True, False])
def test_a_closed_pipe_is_a_broken_pipe_on_windows_too(
    monkeypatch: pytest.MonkeyPatch, buffered: bool
) -> None:
    reader, writer = os.pipe()
    raw = PipeOfWindows(writer, "wb", closefd=False)
    binary: Any = io.BufferedWriter(raw) if buffered else raw
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, write_through=True))
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        raise_broken_pipes()
    lines = Lines()
    lines.write("a.wav")
    assert lines.failure == os.strerror(errno.EPIPE)
    with pytest.raises(BrokenPipeError):
        raw.write(b"more")
    os.close(reader)
    os.close(writer)


def in_shell(*arguments: object, shell: str) -> tuple[int, str]:
    """Exit code of a command whose streams a shell led elsewhere, and what stderr got."""
    words = [sys.executable, "-m", "unetsep", *map(str, arguments)]
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *words]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.returncode, done.stderr.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="no such shell")
def test_a_table_for_a_closed_stdout_is_no_error() -> None:
    assert in_shell("models", shell=">&-") == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@needs("rich", "14.3")  # before it an empty line came first
def test_a_page_is_written_even_if_stderr_is_full(tmp_path: Path) -> None:
    folder = tmp_path / "d:fire:"
    folder.mkdir()
    soundfile.write(folder / "vocals.wav", music(0.1).T, RATE)
    assert in_shell("listen", folder, shell="2>/dev/full") == (0, "")
    code, shown = in_shell("listen", folder, shell="")
    assert (code, shown) == (0, f"{folder / 'index.html'}: open it in a browser\n")


def test_pictures_are_drawn_without_a_word_where_the_home_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    soundfile.write(tmp_path / "vocals.wav", music(0.1).T, RATE)
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "vocals.wav"))
    words = [sys.executable, "-m", "unetsep", "listen", tmp_path, "--plots", "-q"]
    done = subprocess.run(words, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list(tmp_path.glob("*-spectrograms.png"))) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps the folder")
def test_a_removed_working_folder_gets_a_message_of_one_sentence(
    tmp_path: Path, tiny_model: Path
) -> None:
    soundfile.write(tmp_path / "a.wav", music(0.1).T, RATE)
    (tmp_path / "gone").mkdir()
    words = [sys.executable, "-m", "unetsep", "separate", "-m", tiny_model, "-o", tmp_path / "out"]
    command = ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *words, tmp_path / "a.wav"]
    done = subprocess.run(command, cwd=tmp_path / "gone", capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(b"Error: the current folder no longer exists")
    assert done.stderr.count(b"\n") == 1


def test_a_list_may_hold_quoted_paths_of_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "songs.txt"
    path.write_bytes(b'"C:\\My Music\\1.wav" \r\nC:\\2.wav\r\n')
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        patch.setattr("unetsep.cli.pipes.path_or_url", str)
        assert listed_files(path) == [r"C:\My Music\1.wav", r"C:\2.wav"]


def test_a_list_in_an_old_encoding_is_read_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where `os.fsdecode` takes UTF-8 alone, and old programs write otherwise."""
    (tmp_path / "songs.txt").write_bytes(b"caf\xe9.wav\r\nplain.wav\r\n")
    monkeypatch.setattr(os, "fsdecode", lambda raw: raw.decode("utf-8", "surrogatepass"))
    assert listed_files(tmp_path / "songs.txt") == [Path("café.wav"), Path("plain.wav")]
    # As dir writes it into a pipe: by the encoding of terminals, in which the file is there.
    (tmp_path / "café.wav").touch()
    (tmp_path / "songs.txt").write_bytes("café.wav\r\n".encode("cp850"))
    monkeypatch.setattr(unetsep.playlists, "OLD_ENCODINGS", ("cp1252", "cp850"))
    monkeypatch.chdir(tmp_path)
    assert listed_files(tmp_path / "songs.txt") == [Path("café.wav")]


@pytest.mark.parametrize(
    ("times", "words"), [(31.4, "31x"), (9.96, "10x"), (5.84, "5.8x"), (0.31, "0.31x")]
)
def test_a_speed_below_real_time_is_not_shown_as_zero(times: float, words: str) -> None:
    assert speed(times) == f"{words} real time"
