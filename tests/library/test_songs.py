from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch

from unetsep.errors import AudioError
from unetsep.file_options import FileOptions
from unetsep.inputs import Input
from unetsep.library.claims import Claim
from unetsep.library.records import Recipe, Record
from unetsep.library.songs import Job, Part, sentence, separate_song
from unetsep.storage import PREFIX


@pytest.fixture
def job(song, tmp_path, tiny_separator):
    """Make the job of one song, as a run that begins now sees it."""
    path = song(seconds=0.2)

    def make(*, skip_existing: bool = False, model: str = "aa", record: str = "w") -> Job:
        stems = {name: tmp_path / "out" / f"{name}.wav" for name in tiny_separator.stems}
        recipe = Recipe([("tiny", model)], {"stems": [*tiny_separator.stems]}, "1")
        kept = Record(tmp_path / "out" / f".unetsep.{record}.json")
        part = Part(tiny_separator, recipe, stems, kept, kept.signature)
        return Job(Input(path, "song"), [part], skip_existing)

    return make


def run(job: Job, *, overwrite: bool = False, track: int | None = None) -> tuple[str, str]:
    (report,) = separate_song(job, FileOptions(overwrite=overwrite, track=track))
    return report.status, report.error or report.reason or ""


def inodes(folder: Path) -> set[tuple[str, int]]:
    return {(path.name, path.stat().st_ino) for path in folder.glob("*.wav")}


@pytest.mark.parametrize(
    ("skip_existing", "overwrite"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_a_second_run_repeats_nothing(job, tmp_path, skip_existing, overwrite):
    first, second = job(skip_existing=skip_existing), job(skip_existing=skip_existing)
    assert run(first, overwrite=overwrite)[0] == "ok"
    before = inodes(tmp_path / "out")
    assert run(second, overwrite=overwrite) == ("skipped", "its stems exist")
    assert inodes(tmp_path / "out") == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_claimed_song_is_skipped(job, tmp_path, overwrite):
    busy = job()
    with Claim([busy.parts[0].record.claim]):
        status, reason = run(busy, overwrite=overwrite)
        assert status == "skipped"
        assert f"another run is working on it (process {os.getpid()}" in reason
    assert run(busy)[0] == "ok"
    assert len(list((tmp_path / "out").iterdir())) == 5


def test_stems_of_another_model_are_replaced_only_with_overwrite(job, tmp_path):
    assert run(job())[0] == "ok"
    before = inodes(tmp_path / "out")
    (tmp_path / "out/drums.wav").unlink()
    status, error = run(job(skip_existing=True, model="bb"))
    assert status == "error"
    assert "was made by tiny; --skip-existing --overwrite separates such songs again" in error
    assert inodes(tmp_path / "out") < before
    assert run(job(skip_existing=True, model="bb"), overwrite=True)[0] == "ok"
    assert run(job(skip_existing=True, model="bb"), overwrite=True)[0] == "skipped"
    assert len(inodes(tmp_path / "out")) == 4


def test_leftovers_of_a_killed_run_beside_complete_stems_are_removed(job, tmp_path):
    assert run(job())[0] == "ok"
    before = sorted((tmp_path / "out").iterdir())
    job().parts[0].record.claim.write_bytes(f"{socket.gethostname()}\ngone 1@ x\n".encode())
    assert run(job(skip_existing=True))[0] == "skipped"
    assert sorted((tmp_path / "out").iterdir()) == before


def test_leftovers_of_a_killed_run_in_the_output_folder_are_removed(job, tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("abc.lock", "abc-0.part"):
        (tmp_path / f"out/{PREFIX}{name}").touch()
    assert run(job())[0] == "ok"
    assert not list((tmp_path / "out").glob(f"{PREFIX}abc*"))


def test_stems_without_a_record_are_not_replaced(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/vocals.wav").write_text("mine")
    status, error = run(job(skip_existing=True))
    assert status == "error"
    assert "no record says what made" in error
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vocals.wav"]


def test_missing_stems_are_separated_again(job, tmp_path):
    assert run(job())[0] == "ok"
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out/drums.wav").unlink()
    assert run(job(skip_existing=True))[0] == "ok"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == whole


def test_stems_of_a_run_killed_while_renaming_are_separated_again(job, tmp_path):
    first, retry = job(), job()
    assert run(first)[0] == "ok"
    before = inodes(tmp_path / "out")
    record = first.parts[0].record
    (entry,) = record.entries()
    record.write(entry | {"complete": False})  # killed with all stems named
    later = job()
    assert "already exists" in run(later)[1]
    (tmp_path / "out" / "bass.wav").unlink()  # and with one still to name
    assert "already exists" in run(later)[1]
    assert run(retry) == ("ok", "")
    assert not inodes(tmp_path / "out") & before
    assert [each["complete"] for each in record.entries()] == [True]


def test_an_existing_stem_is_an_error_before_any_work(job, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/vocals.wav").write_text("mine")
    monkeypatch.setattr("unetsep.library.songs.separate_into", None)
    status, error = run(job())
    assert (status, "vocals.wav already exists: use" in error) == ("error", True)
    assert "--filename" not in error
    assert "stems of each sound track need a folder (-o) or names" in run(job(), track=1)[1]
    assert "has no sound track 2" in run(job(), track=2)[1]


def test_a_failed_song_writes_no_record_and_keeps_the_old_one(job, tmp_path, monkeypatch):
    assert run(job())[0] == "ok"
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("unetsep.audio.stem_files.StemFiles._publish", fail)
    assert run(job(model="bb"), overwrite=True)[0] == "error"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    assert run(job())[0] == "error"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_run_that_lost_its_claim_writes_nothing(job, tmp_path, monkeypatch):
    monkeypatch.setattr("unetsep.library.claims.Claim.held", False)
    status, error = run(job())
    assert (status, "took" in error) == ("error", True)
    assert not (tmp_path / "out").exists()


def out_of_memory() -> RuntimeError:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AudioError("x cannot be read"), "x cannot be read"),
        (MemoryError(), "a.wav: out of memory; close other programs or use --device cpu"),
        (out_of_memory(), "a.wav: out of memory; close other programs or use --device cpu"),
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to"), "a.wav: out of memory; "),
        (RuntimeError("MPS backend out of memory (MPS allocated"), "a.wav: out of memory; "),
        (RuntimeError("can't start new thread"), "a.wav: the system allows no further threads"),
        (OSError(2, "No usable temporary directory"), "a.wav: No usable temporary directory"),
        (PermissionError(13, "Permission denied", "/x"), "a.wav: Permission denied (/x)"),
        (KeyError("samplerate"), "a.wav: unexpected KeyError: 'samplerate'; please report it"),
        (TypeError("two\n  lines"), "a.wav: unexpected TypeError: two lines; please report it"),
    ],
)
def test_any_error_becomes_one_sentence(error, text):
    assert sentence(error, Path("a.wav")).startswith(text)


def test_errors_become_reports_but_interrupts_are_raised(job, monkeypatch):
    seen: list[Exception] = []
    for error in (KeyError("x"), AssertionError(), RuntimeError("torch says"), StopIteration()):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("unetsep.library.songs.separate_into", fail)
        (report,) = separate_song(job(), FileOptions(), on_error=seen.append)
        assert report.status == "error"
        assert seen[-1] is error

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unetsep.library.songs.separate_into", interrupt)
    with pytest.raises(KeyboardInterrupt):
        separate_song(job(), FileOptions())
