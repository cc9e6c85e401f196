from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import unetsep
from unetsep.files import FileOptions
from unetsep.separator import Separator


@pytest.fixture
def song(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.4, 0.4, (100_000, 2)), 44_100, subtype="PCM_16")
    return path


def test_files_hold_the_same_stems_as_arrays(
    song: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    report = unetsep.separate_to_files(
        song, tmp_path / "out", model=tiny_separator, options=FileOptions(bit_depth="32f")
    )
    stems = unetsep.separate(song, model=tiny_separator)
    assert stems.sample_rate == 44_100
    assert set(report.stems) == set(stems) == set(tiny_separator.stems)
    for name, path in report.stems.items():
        assert Path(path) == tmp_path / "out" / "song" / f"{name}.wav"
        written, _ = soundfile.read(path, dtype="float32")
        assert np.array_equal(written.T, stems[name])


def test_existing_files_are_replaced_only_when_asked(
    song: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    unetsep.separate_to_files(song, tmp_path, model=tiny_separator)
    with pytest.raises(unetsep.AudioError, match="exists already"):
        unetsep.separate_to_files(song, tmp_path, model=tiny_separator)
    options = FileOptions(overwrite=True)
    assert (
        unetsep.separate_to_files(song, tmp_path, model=tiny_separator, options=options).status
        == "ok"
    )


def test_files_are_not_left_behind_by_a_cancelled_run(
    song: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    with pytest.raises(unetsep.CancelledError):
        unetsep.separate_to_files(
            song, tmp_path / "out", model=tiny_separator, progress=lambda *_: False
        )
    assert not (tmp_path / "out").exists()


def test_arrays_and_streams_report_progress_and_can_be_cancelled(tiny_separator: Separator) -> None:
    mixture = np.random.default_rng(1).standard_normal((2, 300_000)).astype(np.float32)
    seen: list[tuple[float, float | None]] = []
    tiny_separator.separate(mixture, 44_100, progress=lambda *now: seen.append(now))
    seconds = 300_000 / 44_100
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (seconds, seconds)
    with pytest.raises(unetsep.CancelledError):
        tiny_separator.separate(mixture, 44_100, progress=lambda *_: False)
    blocks = np.split(mixture, 10, axis=1)
    seen.clear()
    list(tiny_separator.stream(blocks, 44_100, progress=lambda *now: seen.append(now)))
    assert len(seen) == 10
    assert seen[-1] == (seconds, None)
    with pytest.raises(unetsep.CancelledError):
        list(tiny_separator.stream(blocks, 44_100, progress=lambda *_: False))
