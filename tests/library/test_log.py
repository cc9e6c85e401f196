from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from unetsep.inputs import Input
from unetsep.library.log import (
    RunLog,
    failed_lines,
    failed_songs,
    find_logs,
    last_lines,
    log_path,
    read_log,
)


def line(path: str, status: str, ended: str, stems: dict[str, str] | None = None) -> dict[str, Any]:
    reports = [{"stems": stems or {}}]
    return {
        "schema": 1,
        "path": path,
        "source": path.removeprefix("/"),
        "track": f"t{path}",
        "status": status,
        "ended": ended,
        "reports": reports,
    }


def write(path: Path, *lines: dict[str, Any]) -> Path:
    log = RunLog(path)
    for each in lines:
        log.write(each)
    assert log.lines == len(lines)
    return path


def failures(logs: list[Path]) -> list[Input]:
    return failed_songs(failed_lines(last_lines(logs)).values())


def test_the_last_of_several_attempts_counts_in_whatever_log(tmp_path):
    later = write(tmp_path / "a.jsonl", line("/x", "ok", "3"), line("/y", "error", "4"))
    write(tmp_path / "b.jsonl", line("/x", "error", "1"), line("/y", "ok", "2"))
    both = [later, tmp_path / "b.jsonl"]
    for logs in (both, both[::-1]):
        (song,) = failures(logs)
        assert (str(song.path), song.track) == ("y", "t/y")


@pytest.mark.parametrize(("stems", "count"), [({}, 1), ({"bass": "b.wav"}, 0)])
def test_a_song_skipped_for_another_run_was_not_tried(tmp_path, stems, count):
    log = write(tmp_path / "a", line("/x", "error", "1"), line("/x", "skipped", "2", stems))
    assert len(failures([log])) == count


def test_lines_that_are_broken_or_of_another_schema_are_skipped(tmp_path):
    path = write(tmp_path / "a", line("/x", "error", "1"))
    with path.open("ab") as file:
        file.write(b'{"schema": 2, "path": "/z"}\n[1]\n{"schema": 1, "pa')
        file.write(b"\n" + 200_000 * b"[")
    assert [each["path"] for each in read_log(path)] == ["/x"]


def test_an_unfinished_line_does_not_damage_the_next_one(tmp_path):
    path = write(tmp_path / "a", line("/x", "error", "1"))
    with path.open("ab") as file:  # as on a full disk
        file.write(b'{"schema": 1, "pa')
    write(path, line("/y", "error", "2"), line("/z", "error", "3"))
    assert [each["path"] for each in read_log(path)] == ["/x", "/y", "/z"]
    assert len(path.read_bytes().splitlines()) == 4


def test_an_unfinished_line_of_another_run_at_the_same_time_does_not_damage_the_next_one(tmp_path):
    log = RunLog(tmp_path / "a")
    log.write(line("/x", "error", "1"))
    with log.path.open("ab") as file:
        file.write(b'{"schema": 1, "pa')
    log.write(line("/y", "error", "2"))
    assert [each["path"] for each in read_log(log.path)] == ["/x", "/y"]


@pytest.mark.parametrize("name", ["path", "source", "track", "status", "ended", "reports"])
@pytest.mark.parametrize(
    "change", [lambda line, name: line.pop(name), lambda line, name: line.update({name: 5})]
)
def test_lines_without_required_fields_are_skipped(tmp_path, name, change):
    bad = line("/bad", "error", "2")
    change(bad, name)
    path = write(
        tmp_path / "a", line("/x", "error", "1"), bad, {**line("/z", "error", "1"), "reports": [1]}
    )
    assert [str(song.path) for song in failures([path])] == ["x"]


def test_songs_are_found_from_another_folder_than_that_of_the_run(tmp_path, monkeypatch):
    for folder in ("run", "other"):
        (tmp_path / folder / "in").mkdir(parents=True)
        (tmp_path / folder / "in/song.wav").touch()
    song = tmp_path / "run/in/song.wav"
    log = write(tmp_path / "a", {**line(str(song), "error", "1"), "source": "in/song.wav"})
    for folder, path in (("run", Path("in/song.wav")), ("other", song), (".", song)):
        monkeypatch.chdir(tmp_path / folder)
        assert [song.path for song in failures([log])] == [path]
    song.unlink()  # as on another machine
    assert [song.path for song in failures([log])] == [Path("in/song.wav")]


def test_names_that_are_not_unicode_are_logged_exactly(tmp_path):
    path = write(tmp_path / "a", line("/caf\udce9", "error", "1"))
    assert json.loads(path.read_text("ascii"))["path"] == "/caf\udce9"
    assert str(failures([path])[0].path) == "caf\udce9"


def test_the_first_failure_to_write_is_stored(tmp_path):
    (tmp_path / "file").touch()
    log = RunLog(tmp_path / "file/log.jsonl")
    log.write({})
    log.write({})
    with pytest.raises(OSError) as caught:
        (tmp_path / "file").mkdir()
    assert (log.lines, log.failure) == (0, caught.value.strerror)


def test_logs_are_found_by_their_names(tmp_path):
    write(log_path(tmp_path), line("/x", "ok", "1"))
    (tmp_path / "other.jsonl").touch()
    assert find_logs(tmp_path) == [log_path(tmp_path)]


def test_memory_for_logs_grows_with_songs_not_with_lines_of_all_runs(tmp_path):
    stems = {f"stem {i}": "x" * 1000 for i in range(10)}
    runs = [line(f"/{song}", "ok", str(run), stems) for run in range(100, 130) for song in range(5)]
    log = write(tmp_path / "a", *runs)
    tracemalloc.start()
    try:
        last = last_lines([log])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [each["ended"] for each in last.values()] == 5 * ["129"]
    assert peak < log.stat().st_size / 10
