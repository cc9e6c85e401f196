from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import unetsep.library.batch as batch
from unetsep.audio.reader import AudioReader
from unetsep.file_options import FileOptions
from unetsep.inputs import Input
from unetsep.library.batch import Listener, choose_songs_at_once, guess_seconds, separate_songs
from unetsep.library.records import Recipe, Record
from unetsep.library.songs import Job, Part


@pytest.fixture
def jobs(song, tmp_path, tiny_separator):
    """Make jobs of songs with these names."""

    def make(*names: str, seconds: float = 0.2) -> list[Job]:
        made = []
        for name in names:
            folder = tmp_path / "out" / name
            stems = {stem: folder / f"{stem}.wav" for stem in tiny_separator.stems}
            record = Record(folder / ".unetsep.w.json")
            part = Part(tiny_separator, Recipe([("tiny", "aa")], {}, "1"), stems, record, None)
            made.append(Job(Input(song(f"{name}.wav", seconds=seconds), name), [part], False))
        return made

    return make


class HangingReader(AudioReader):
    """A file on a drive that went away in the middle of a song."""

    gone = threading.Event()

    def blocks(self, block_frames: int = 1) -> Iterator[np.ndarray]:
        yield np.zeros((2, 1000), np.float32)
        if "hangs" in self.path.name:
            self.gone.wait(60)
        yield np.zeros((2, 1000), np.float32)


@pytest.fixture
def end_of_hang(monkeypatch):
    HangingReader.gone.clear()
    monkeypatch.setattr("unetsep.files.AudioReader", HangingReader)
    yield HangingReader.gone
    HangingReader.gone.set()


def test_a_hanging_decoder_times_out_only_its_song(jobs, end_of_hang, monkeypatch, tmp_path):
    monkeypatch.setattr(batch, "GRACE", 0.2)
    outcomes = list(separate_songs(jobs("a", "hangs", "b"), FileOptions(), timeout=1.0))
    assert [outcome.reports[0].status for outcome in outcomes] == ["ok", "error", "ok"]
    assert "hangs.wav: took longer than 1 s and was stopped" in str(outcomes[1].reports[0].error)
    # What wakes up afterwards writes nothing.
    left = [thread for thread in threading.enumerate() if "hangs.wav" in thread.name]
    assert len(left) == 1
    end_of_hang.set()
    left[0].join(10)
    assert not left[0].is_alive()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_suspending_the_program_times_no_song_out(jobs, monkeypatch):
    slept, looked, monotonic = 0.0, threading.Event(), time.monotonic

    def clock() -> float:
        if slept and threading.current_thread() is threading.main_thread():
            looked.set()
        return monotonic() + slept

    class Sleeping(AudioReader):
        def blocks(self, block_frames: int = 1) -> Iterator[np.ndarray]:
            nonlocal slept
            slept = 3600.0
            assert looked.wait(60)
            looked.clear()  # the limit has been looked at, and again, when this is set anew
            assert looked.wait(60)
            yield np.zeros((2, 1000), np.float32)

    monkeypatch.setattr("unetsep.files.AudioReader", Sleeping)
    monkeypatch.setattr(time, "monotonic", clock)
    (outcome,) = separate_songs(jobs("a"), FileOptions(), timeout=600.0)
    assert (outcome.reports[0].status, outcome.reports[0].error) == ("ok", None)


def test_an_interrupt_stops_all_songs_and_leaves_no_partial_files(jobs, end_of_hang, tmp_path):
    songs = jobs("a", "b", "c")
    begun = threading.Event()

    class Interrupted(Listener):
        def begin(self, job: Job):
            def progress(done: float, total: float | None) -> None:
                begun.set()
                time.sleep(0.05)

            return progress

    outcomes = separate_songs(songs, FileOptions(), at_once=3, listener=Interrupted())
    next(outcomes)
    outcomes.close()  # as a KeyboardInterrupt would
    assert begun.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("song /")]
    done = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    for folder in done:  # what had ended by then is whole
        assert len(list(folder.glob("*.wav"))) == 4
        assert not list(folder.glob(".unetsep-*"))


def test_songs_run_at_the_same_time_and_are_yielded_as_they_end(jobs, end_of_hang):
    a, b, c = jobs("hangs", "b", "c")
    ended = []
    for outcome in separate_songs([a, b, c], FileOptions(), at_once=2):
        ended.append(outcome.job.song.track)
        if len(ended) == 2:
            end_of_hang.set()
    assert ended == ["b", "c", "hangs"]


def test_a_run_searches_a_folder_of_many_songs_for_leftovers_once(jobs, tmp_path, monkeypatch):
    """To list a folder with the stems of ten thousand songs takes some hundredths of a second."""
    looked: list[Path] = []
    monkeypatch.setattr("unetsep.library.songs.remove_leftovers", looked.append)

    def flat(job: Job) -> Job:
        (part,) = job.parts
        name, out = job.song.track, tmp_path / "out"
        stems = {stem: out / f"{name} {stem}.wav" for stem in part.stems}
        record = Record(out / f".unetsep.{name}.json")
        return replace(job, parts=[replace(part, stems=stems, record=record)])

    songs = [flat(job) for job in jobs("a", "b", "c")]
    for status in ("ok", "skipped"):
        looked.clear()
        outcomes = separate_songs(songs, FileOptions())
        assert [outcome.reports[0].status for outcome in outcomes] == [status] * 3
        assert looked == [tmp_path / "out"]


def test_an_interrupt_within_a_song_ends_the_run(jobs, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unetsep.library.songs.separate_into", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(separate_songs(jobs("a"), FileOptions()))


def test_an_empty_list_of_songs_yields_nothing():
    assert list(separate_songs([], FileOptions())) == []


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_timeout_must_be_positive(timeout):
    with pytest.raises(ValueError, match="timeout must be more than 0 seconds"):
        list(separate_songs([], FileOptions(), timeout=timeout))


@pytest.mark.parametrize(
    ("threads", "count", "size", "memory", "expected"),
    [
        (1, 9, 1 << 20, 1 << 40, 1),  # nothing can overlap
        (2, 1, 1 << 20, 1 << 40, 1),
        (2, 9, 1 << 20, 1 << 40, 3),  # eight seconds each
        (16, 9, 1 << 20, 1 << 40, 5),
        (16, 3, 1 << 20, 1 << 40, 3),
        (16, 9, 40 << 20, 1 << 40, 2),  # songs of six minutes
        (16, 9, 1 << 20, 1 << 31, 2),  # as many as there is room for
        (16, 9, 1 << 20, 1, 1),
        (16, 9, 1 << 20, None, 5),
    ],
)
def test_parallel_songs_depend_on_cores_memory_and_lengths(
    monkeypatch, tmp_path, tiny_separator, threads, count, size, memory, expected
):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(batch, "available_memory", lambda: memory)
    path = tmp_path / "song.wav"
    with path.open("wb") as file:
        file.truncate(size)
    assert choose_songs_at_once([Job(Input(path, "song"), [], False)] * count) == expected


def test_a_gpu_has_more_parallel_songs(monkeypatch, tmp_path, tiny_separator):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(batch, "available_memory", lambda: 1 << 40)
    path = tmp_path / "song.wav"
    with path.open("wb") as file:
        file.truncate(40 << 20)
    record = Record(tmp_path / ".unetsep.json")
    part = Part(tiny_separator, Recipe([("tiny", "aa")], {}, "1"), {}, record, None)
    jobs = [Job(Input(path, "song"), [part], False)] * 9
    assert choose_songs_at_once(jobs) == 2
    monkeypatch.setattr(tiny_separator, "device", torch.device("cuda"))
    assert choose_songs_at_once(jobs) == 5
    monkeypatch.setattr(batch, "available_memory", lambda: 4 * batch.SONG_BYTES)
    assert choose_songs_at_once(jobs) == 4
    monkeypatch.setattr(tiny_separator, "passes", 4)
    assert choose_songs_at_once(jobs) == 2  # each takes more


@pytest.mark.parametrize(("free", "expected"), [(9, 5), (3, 3), (0, 1)])
def test_parallel_songs_fit_into_the_memory_of_a_gpu(
    monkeypatch, tmp_path, tiny_separator, free, expected
):
    asked = []

    def memory(device):
        asked.append(device)
        return free * batch.SONG_BYTES, 1 << 40

    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory)
    monkeypatch.setattr(batch, "available_memory", lambda: 1 << 40)
    monkeypatch.setattr(tiny_separator, "device", torch.device("cuda:1"))
    record = Record(tmp_path / ".unetsep.json")
    part = Part(tiny_separator, Recipe([("tiny", "aa")], {}, "1"), {}, record, None)
    jobs = [Job(Input(tmp_path / "song.wav", "song"), [part], False)] * 9
    assert choose_songs_at_once(jobs) == expected
    assert asked == [torch.device("cuda:1")]


def test_lengths_are_estimated_by_size(tmp_path):
    for name in ("a.flac", "a.mp3"):
        (tmp_path / name).write_bytes(bytes(2_400_000))
    assert guess_seconds(tmp_path / "a.flac") == 20
    assert guess_seconds(tmp_path / "a.mp3") == 100
    assert guess_seconds(Path("none.mp3")) is None


def test_a_signal_at_the_start_of_a_song_leaves_no_orphaned_thread(jobs, monkeypatch):
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        # Not as well for threads that the song starts, whenever that may be.
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)

    songs = batch._Batch(FileOptions(), None, None, Listener())
    # Who starts the tests in the background of a shell has them ignore Ctrl-C.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(threading.Thread, "start", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            songs.begin(jobs("a")[0])
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    (task,) = songs.running
    songs.end()
    assert not task.thread.is_alive()
