# ruff: noqa: PT012, SIM117 (the order in which the managers end is what is tested)
from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unetsep.audio.stem_files
from tests.signals import RATE, music
from unetsep.audio.decoder import AudioInfo
from unetsep.audio.formats import OutputFormat
from unetsep.audio.staging import Staging, remove_leftovers
from unetsep.audio.stem_files import StemFiles
from unetsep.audio.targets import REMEDIES, check_targets
from unetsep.audio.writers import WavWriter, quantize
from unetsep.errors import AudioError

INFO = AudioInfo(RATE, 2, None, "16")
FORMATS = [("wav", "32f"), ("wav", "16"), ("flac", "24"), ("ogg", None), ("mp3", None)]


def stems(seconds: float = 0.5, gain: float = 1.0) -> np.ndarray:
    return gain * np.stack([music(seconds, seed=seed) for seed in (1, 2)])


def targets(folder: Path, ext: str = "wav") -> list[Path]:
    return [folder / f"song/{name}.{ext}" for name in ("one", "two")]


def everything(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


@pytest.mark.parametrize(("container", "depth"), FORMATS)
def test_targets_appear_together_at_the_commit(tmp_path, container, depth):
    paths = targets(tmp_path, container)
    with StemFiles(paths, OutputFormat(container, depth), INFO) as files:
        for at in range(0, RATE // 2, 5000):
            files.write(stems()[..., at : at + 5000])
        assert not any(path.exists() for path in paths)
        assert files.commit() == 1.0
        assert all(path.exists() for path in paths)
    assert everything(tmp_path) == ["song", f"song/one.{container}", f"song/two.{container}"]
    for path, stem in zip(paths, stems(), strict=True):
        error = soundfile.read(path)[0].T - stem
        assert np.sqrt(np.mean(error**2)) < (0.02 if depth is None else 1e-4)


def test_an_empty_folder_that_another_run_removes_is_created_again(tmp_path, monkeypatch):
    (one, two), removals = targets(tmp_path), [False, True, True]

    def removing(folders):
        if removals.pop():
            one.parent.rmdir()
        return Staging(folders)

    monkeypatch.setattr(unetsep.audio.stem_files, "Staging", removing)
    with StemFiles([one, two], OutputFormat("wav", "16"), INFO) as files:
        files.write(stems())
        files.commit()
    assert not removals
    assert everything(tmp_path) == ["song", "song/one.wav", "song/two.wav"]


@pytest.mark.parametrize(("container", "depth"), FORMATS)
def test_an_exception_leaves_nothing_not_even_folders(tmp_path, container, depth):
    with pytest.raises(KeyboardInterrupt):
        with StemFiles(targets(tmp_path / "a/b"), OutputFormat(container, depth), INFO) as files:
            files.write(stems())
            raise KeyboardInterrupt
    assert everything(tmp_path) == []


def test_an_exit_without_a_commit_leaves_nothing(tmp_path):
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO) as files:
        files.write(stems())
    assert everything(tmp_path) == []


@pytest.mark.parametrize("depth", ["16", "24"])
def test_one_gain_for_all_stems_only_if_one_would_clip(tmp_path, depth):
    loud = stems(gain=3.0)
    with StemFiles(targets(tmp_path), OutputFormat("wav", depth), INFO) as files:
        files.write(loud)
        gain = files.commit()
    assert gain == pytest.approx(1 / np.abs(loud).max(), rel=1e-4)
    for path, stem in zip(targets(tmp_path), loud, strict=True):
        found = soundfile.read(path)[0].T
        np.testing.assert_allclose(found, gain * stem, atol=1e-4)
        assert np.abs(found).max() < 1


def test_float_output_keeps_what_exceeds_full_scale(tmp_path):
    with StemFiles(targets(tmp_path), OutputFormat("wav", "32f"), INFO) as files:
        files.write(stems(gain=30))
        assert files.commit() == 1.0
    np.testing.assert_array_equal(
        soundfile.read(targets(tmp_path)[0], dtype="float32")[0].T, stems(gain=30)[0]
    )


@pytest.mark.parametrize("links", [True, False])
def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "")))
    with pytest.raises(AudioError, match=r"two\.wav appeared while its song was being separated"):
        with StemFiles(
            targets(tmp_path), OutputFormat("wav", "16"), INFO, overwrite=False
        ) as files:
            files.write(stems())
            targets(tmp_path)[1].write_bytes(b"precious")
            files.commit()
    assert everything(tmp_path) == ["song", "song/two.wav"]
    assert targets(tmp_path)[1].read_bytes() == b"precious"


@pytest.mark.parametrize("links", [True, False])
def test_without_overwriting_new_files_get_their_names(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "")))
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO, overwrite=False) as files:
        files.write(stems())
        files.commit()
    assert everything(tmp_path) == ["song", "song/one.wav", "song/two.wav"]


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOENT])
def test_a_rename_that_succeeded_despite_an_error_counts(tmp_path, monkeypatch, number):
    """As over NFS, where a second try finds nothing to rename."""
    replace = Path.replace

    def lose_the_answer(part: Path, target: Path) -> None:
        replace(part, target)
        if target in targets(tmp_path):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", lose_the_answer)
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO) as files:
        files.write(stems())
        files.commit()
    assert everything(tmp_path) == ["song", "song/one.wav", "song/two.wav"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EEXIST])
def test_a_link_that_succeeded_despite_an_error_counts(tmp_path, monkeypatch, number):
    """As over NFS, whose server made it, and whose answer was lost."""
    link = os.link

    def lose_the_answer(part: Path, target: Path) -> None:
        link(part, target)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", lose_the_answer)
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO, overwrite=False) as files:
        files.write(stems())
        files.commit()
    assert everything(tmp_path) == ["song", "song/one.wav", "song/two.wav"]


def test_without_file_numbers_a_file_of_another_program_is_not_a_stem(tmp_path, monkeypatch):
    stat, link = Path.stat, os.link

    def without_number(path: Path, **options: bool) -> os.stat_result:
        status = stat(path, **options)
        return os.stat_result([status[0], 0, *status[2:10]])

    def after_another(part: Path, target: Path) -> None:
        target.write_bytes(b"another's")
        link(part, target)

    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO, overwrite=False) as files:
        files.write(stems())
        monkeypatch.setattr(Path, "stat", without_number)
        monkeypatch.setattr(os, "link", after_another)
        with pytest.raises(AudioError, match="appeared while its song was being separated"):
            files.commit()
    assert targets(tmp_path)[0].read_bytes() == b"another's"


def failing_once(monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Let the first removal of a file with some suffix fail."""
    unlink, failed = Path.unlink, []

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == suffix and not failed:
            failed.append(path)
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)


def test_a_second_name_that_cannot_be_removed_at_once_loses_no_stem(tmp_path, monkeypatch):
    failing_once(monkeypatch, ".part")
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO, overwrite=False) as files:
        files.write(stems())
        files.commit()
    assert everything(tmp_path) == ["song", "song/one.wav", "song/two.wav"]


def test_a_temporary_file_that_cannot_be_removed_is_removed_by_the_next_run(tmp_path, monkeypatch):
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO) as files:
        files.write(stems())
        failing_once(monkeypatch, ".spool")
    assert [Path(name).suffix for name in everything(tmp_path / "song")] == [".spool", ".lock"]
    remove_leftovers(tmp_path / "song")
    assert everything(tmp_path / "song") == []


def test_stems_that_cannot_be_removed_are_reported_as_replaced(tmp_path, monkeypatch):
    def fail(path: Path, *_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    link = os.link

    def link_the_first(part: Path, target: Path) -> None:
        link(part, target)
        monkeypatch.setattr(os, "link", fail)
        monkeypatch.setattr(Path, "rename", fail)
        monkeypatch.setattr(Path, "unlink", fail)

    monkeypatch.setattr(os, "link", link_the_first)
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO, overwrite=False) as files:
        files.write(stems())
        with pytest.raises(AudioError, match="Read-only file system"):
            files.commit()
        assert files.has_replaced
    monkeypatch.undo()
    remove_leftovers(tmp_path / "song")
    assert everything(tmp_path) == ["song", "song/one.wav"]


def test_overwriting_replaces(tmp_path):
    targets(tmp_path)[0].parent.mkdir()
    targets(tmp_path)[0].write_bytes(b"old")
    with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO) as files:
        files.write(stems())
        files.commit()
    assert soundfile.info(targets(tmp_path)[0]).frames == RATE // 2


def test_a_folder_with_the_name_of_a_stem_leaves_all_stems_unchanged(tmp_path):
    one, two = targets(tmp_path)
    one.parent.mkdir()
    one.write_bytes(b"old")
    with pytest.raises(AudioError, match=r"two\.wav is a folder: move it away"):
        with StemFiles([one, two], OutputFormat("wav", "16"), INFO) as files:
            files.write(stems())
            two.mkdir()
            files.commit()
    assert one.read_bytes() == b"old"
    assert everything(tmp_path) == ["song", "song/one.wav", "song/two.wav"]


def test_names_that_stems_cannot_have_are_found_before_any_work(tmp_path):
    one, two = targets(tmp_path)
    long = one.with_name("x" * 300)
    two.mkdir(parents=True)
    for path, message in ((two, "is a folder: move it away"), (long, "shorter names")):
        with pytest.raises(AudioError, match=message):
            StemFiles([one, path], OutputFormat("wav", "16"), INFO).__enter__()
    assert everything(tmp_path) == ["song", "song/two.wav"]


def test_a_file_where_a_folder_is_needed_is_one_sentence(tmp_path):
    (tmp_path / "song").write_text("a file")
    with pytest.raises(AudioError, match=r"writing to .*song failed"):
        with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO):
            pass
    assert everything(tmp_path) == ["song"]


@pytest.mark.parametrize(("container", "depth"), FORMATS)
def test_an_output_folder_that_is_removed_is_an_error(tmp_path, container, depth):
    if os.name == "nt":
        pytest.skip("folders with open files cannot be removed here")
    with pytest.raises(AudioError, match=r"writing to .*song failed"):
        with StemFiles(targets(tmp_path), OutputFormat(container, depth), INFO) as files:
            files.write(stems())
            shutil.rmtree(tmp_path / "song")
            files.commit()
    assert everything(tmp_path) == []


def as_if_open(monkeypatch: pytest.MonkeyPatch, held: Path) -> None:
    """Let a file have no other name and no other content, as one that is open on Windows."""
    monkeypatch.setattr(sys, "platform", "win32")

    def refuse(name: str) -> None:
        really = getattr(Path, name)

        def move(path: Path, target: Path) -> Path:
            if held in (path, target):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return really(path, target)

        monkeypatch.setattr(Path, name, move)

    for name in ("rename", "replace"):
        refuse(name)


def test_no_stem_is_replaced_if_a_player_has_one_of_them_open_on_windows(tmp_path, monkeypatch):
    paths = targets(tmp_path)
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(b"as it was")
    with pytest.raises(AudioError, match=r"two\.wav cannot be replaced while another program"):
        with StemFiles(paths, OutputFormat("wav", "16"), INFO) as files:
            files.write(stems())
            as_if_open(monkeypatch, paths[1])
            files.commit()
    assert [path.read_bytes() for path in paths] == [b"as it was"] * 2
    with pytest.raises(AudioError, match=r"close it there"):  # before any work
        check_targets(paths)
    assert everything(tmp_path) == ["song", "song/one.wav", "song/two.wav"]


def test_a_read_only_stem_on_windows_is_refused_before_any_work(tmp_path, monkeypatch):
    path = tmp_path / "vocals.wav"
    path.touch()
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda name, mode: name != path or mode != os.W_OK)
        if sys.platform != "win32":
            check_targets([path])  # elsewhere the folder decides
        patch.setattr(sys, "platform", "win32")
        with pytest.raises(AudioError, match=r"vocals\.wav is read-only: make it writable"):
            check_targets([path])


@pytest.mark.parametrize(("code", "remedy"), sorted(REMEDIES.items()))
def test_errors_of_the_system_come_with_a_remedy(tmp_path, monkeypatch, code, remedy):
    files = StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO)

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_open", fail)
    with pytest.raises(AudioError) as caught, files:
        pass
    if os.name == "nt" and code == errno.EACCES:
        remedy += ", or close the program that has a file there open"
    assert str(caught.value).endswith(remedy)
    assert os.strerror(code) in str(caught.value)


class OnlyForwards(io.FileIO):
    """A file on a drive that takes it from front to back only."""

    end = 0

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.tell() < self.end:
            raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))
        self.end += super().write(data)
        return len(data)


@pytest.mark.parametrize(("container", "depth"), FORMATS)
def test_a_drive_that_cannot_seek_is_refused_before_any_work(
    tmp_path, monkeypatch, container, depth
):
    opened, real = [], Path.open

    def open_forwards(path: Path, mode: str = "r", **options: str | None) -> object:
        if "w" not in mode:
            return real(path, mode, **options)
        opened.append(io.BufferedWriter(OnlyForwards(path, mode)))
        return opened[-1]

    monkeypatch.setattr(Path, "open", open_forwards)
    files = StemFiles(targets(tmp_path), OutputFormat(container, depth), INFO)
    with pytest.raises(AudioError, match="front to back only: mount it with a cache"):
        files.__enter__()
    assert [file.closed for file in opened] == [True]
    assert everything(tmp_path) == []


@pytest.mark.parametrize("loud", [False, True])
@pytest.mark.parametrize(("container", "depth"), FORMATS)
def test_an_interrupt_at_the_commit_leaves_nothing(tmp_path, monkeypatch, container, depth, loud):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    files = StemFiles(targets(tmp_path), OutputFormat(container, depth), INFO)
    monkeypatch.setattr(files, "before_naming", interrupt)
    with pytest.raises(KeyboardInterrupt):
        with files:
            files.write(stems())
            files.write(stems(gain=3 if loud else 1))
            files.commit()
    assert everything(tmp_path) == []


@pytest.mark.parametrize("overwrite", [True, False])
def test_an_interrupt_while_stems_are_renamed_waits_for_all(tmp_path, monkeypatch, overwrite):
    name = "replace" if overwrite else "unlink"
    real = getattr(Path, name)

    def interrupt(path: Path, *words: object) -> None:
        real(path, *words)
        monkeypatch.setattr(Path, name, real)  # but once
        signal.raise_signal(signal.SIGINT)

    files = StemFiles(targets(tmp_path), OutputFormat("wav", "32f"), INFO, overwrite=overwrite)
    with pytest.raises(KeyboardInterrupt):
        with files:
            files.write(stems())
            monkeypatch.setattr(Path, name, interrupt)
            files.commit()
    assert files.has_replaced == overwrite
    assert everything(tmp_path) == (["song", "song/one.wav", "song/two.wav"] if overwrite else [])


def test_an_interrupt_does_not_wait_for_long_conversions(tmp_path, monkeypatch):
    blocks = []

    def quantize(block: np.ndarray, _: object) -> np.ndarray:
        blocks.append(len(block))
        raise KeyboardInterrupt

    monkeypatch.setattr(unetsep.audio.stem_files, "CONVERT_FRAMES", 100)
    with pytest.raises(KeyboardInterrupt):
        with StemFiles(targets(tmp_path), OutputFormat("wav", "16"), INFO) as files:
            files.write(stems(gain=3))
            monkeypatch.setattr(unetsep.audio.stem_files, "quantize", quantize)
            files.commit()
    assert 1 <= len(blocks) <= 4
    assert everything(tmp_path) == []


def names_of_calls(thread: int) -> list[str]:
    return [call.name for call in traceback.extract_stack(sys._current_frames()[thread])]


def test_ctrl_c_interrupts_conversions_where_waiting_cannot_be_interrupted(tmp_path, monkeypatch):
    """As on Windows; here another thread gets the signal, which wakes none that waits."""
    told, main = [], threading.get_ident()

    def convert(files: StemFiles, _spools: object, part: Path, *, gain: float) -> None:
        if part == files._parts[0]:
            while "submit" in (calls := names_of_calls(main)) or calls[-1] != "wait":
                time.sleep(0.001)
            signal.raise_signal(signal.SIGINT)
            told.append(files._failed.wait(20))

    monkeypatch.setattr(StemFiles, "_convert", convert)
    with pytest.raises(KeyboardInterrupt):
        with StemFiles(targets(tmp_path, "mp3"), OutputFormat("mp3", None), INFO) as files:
            files.write(stems())
            files.commit()
    assert told == [True]
    assert everything(tmp_path) == []


@pytest.mark.parametrize("depth", ["16", "24", "32"])
def test_wav_files_that_need_no_gain_are_written_once(tmp_path, monkeypatch, depth):
    written = []
    write = WavWriter.write

    def counted(writer: WavWriter, block: np.ndarray) -> None:
        written.append(block.size)
        write(writer, block)

    monkeypatch.setattr(WavWriter, "write", counted)
    with StemFiles(targets(tmp_path), OutputFormat("wav", depth), INFO) as files:
        files.write(stems())
        assert files.commit() == 1
    assert sum(written) == stems().size
    for path, stem in zip(targets(tmp_path), stems(), strict=True):
        found = soundfile.read(path, dtype="float64")[0].T
        assert np.abs(found - stem).max() <= 2.0 ** -int(depth)


def separated(folder: Path, song: np.ndarray, size: int, output: OutputFormat, *, whole: bool):
    """Bytes of a song's stems that come in blocks; integers of those within full scale."""
    paths = targets(folder, output.container)
    with StemFiles(paths, output, INFO) as files:
        for at in range(0, song.shape[-1], size):
            block = song[..., at : at + size]
            if whole or np.abs(block).max() > 1:
                files.write(block)
            else:
                assert files.write_integers is not None
                files.write_integers(np.stack([quantize(stem.T, "16") for stem in block]))
        files.commit()
    return [path.read_bytes() for path in paths]


@pytest.mark.parametrize("container", ["wav", "flac"])
@pytest.mark.parametrize("loud", [False, True])
def test_bytes_do_not_depend_on_blocks_or_on_where_samples_are_rounded(tmp_path, container, loud):
    song = stems()
    if loud:
        song[1, 0, 15_000:15_100] += 2
    output = OutputFormat(container, "16")
    expected = separated(tmp_path, song, song.shape[-1], output, whole=True)
    for size in (22_050, 7000, 1234):
        for whole in (True, False):
            assert separated(tmp_path, song, size, output, whole=whole) == expected


@pytest.mark.parametrize("depth", ["8", "16", "24"])
def test_a_gain_costs_at_most_one_more_rounding(tmp_path, depth):
    song = stems()
    song[1, 0, 15_000:15_100] += 2
    with StemFiles(targets(tmp_path), OutputFormat("wav", depth), INFO) as files:
        for at in range(0, RATE // 2, 1000):
            files.write(song[..., at : at + 1000])
        gain = files.commit()
    assert 0.3 < gain < 1
    step = 2.0 ** (1 - int(depth))
    roundings = (1 if depth == "8" else 1 + gain) / 2
    for path, stem in zip(targets(tmp_path), song, strict=True):
        expected = np.clip(gain * stem.astype(np.float64), -1, 1 - step)
        error = soundfile.read(path)[0].T - expected
        assert np.abs(error).max() <= roundings * step * 1.001 + 2.0**-24
