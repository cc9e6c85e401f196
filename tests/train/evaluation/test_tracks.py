from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from tests.signals import RATE, noise
from unetsep.config import STEMS
from unetsep.errors import AudioError, UnetsepError
from unetsep.train.data.musdb import VALID_SONGS, Musdb
from unetsep.train.evaluation.tracks import (
    Track,
    TrackAudio,
    choose_tracks,
    find_tracks,
    read_track,
)


def test_wav_tracks_are_found_by_subset(root: Path) -> None:
    names = [track.name for track in find_tracks(root, "test")]
    assert names == ["Ana - One", "Béla & Co. - Two's", "Cy - Instrumental"]
    assert [track.name for track in find_tracks(root, "train")] == ["Dee - Train"]
    valid = find_tracks(root, "valid")
    assert [track.name for track in valid] == ["Actions - One Minute Smile"]
    assert valid[0].folder == "train"


def test_validation_songs_are_those_of_musdb_without_importing_it() -> None:
    sys.modules.pop("musdb", None)
    found = importlib.util.find_spec("musdb")
    assert found is not None
    assert found.submodule_search_locations
    listed = Path(found.submodule_search_locations[0]) / "configs" / "mus.yaml"
    assert len(VALID_SONGS) == 14
    assert set(VALID_SONGS) == set(yaml.safe_load(listed.read_text())["validation_tracks"])
    assert "musdb" not in sys.modules


def test_tracks_are_chosen_by_name_or_number(root: Path) -> None:
    tracks = find_tracks(root, "test")
    assert choose_tracks(tracks, ["2"]) == tracks[:2]
    assert [t.name for t in choose_tracks(tracks, ["béla"])] == ["Béla & Co. - Two's"]
    assert len(choose_tracks(tracks, ["Cy", "One"])) == 2
    with pytest.raises(AudioError, match="no track is called 'Zoe'"):
        choose_tracks(tracks, ["Zoe"])


def test_a_root_without_tracks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no folder test"):
        find_tracks(tmp_path, "test")
    (tmp_path / "test" / "notes").mkdir(parents=True)
    with pytest.raises(AudioError, match="holds no test tracks"):
        find_tracks(tmp_path, "test")


def test_companion_files_of_macos_are_no_tracks_and_no_stems(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    before = find_tracks(tmp_path / "copy", "test")
    files = before[0].files
    for name in ("._bass.wav", "._vocals.wav"):
        (before[0].path / name).write_bytes(b"\0\5\x16\7")
    (tmp_path / "copy" / "test" / "._Ana - One.stem.mp4").write_bytes(b"\0\5\x16\7")
    assert find_tracks(tmp_path / "copy", "test") == before
    assert before[0].files == files
    assert before[0].sample_rate() == RATE


def test_only_the_mixture_and_its_stems_are_files_of_a_track(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    (track, *_) = find_tracks(tmp_path / "copy", "test")
    shutil.copyfile(track.path / "mixture.wav", track.path / "linear_mixture.wav")
    shutil.copyfile(track.path / "bass.wav", track.path / "bass.flac")
    names = ["bass.wav", "drums.wav", "mixture.wav", "other.wav", "vocals.wav"]
    assert [file.name for file in track.files] == names


def test_an_unknown_subset_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match="subset must be one of"):
        find_tracks(root, "dev")


def test_wav_tracks_are_read_exactly_and_cut(root: Path) -> None:
    track = find_tracks(root, "test")[0]
    whole, part = read_track(track), read_track(track, 1.5)
    assert whole.mixture.shape == (2, 3 * RATE)
    assert whole.sample_rate == RATE
    assert tuple(whole.references) == STEMS
    expected, _ = soundfile.read(track.path / "bass.wav", dtype="float64")
    np.testing.assert_array_equal(whole.references["bass"], expected.T)
    assert part.mixture.shape == (2, round(1.5 * RATE))
    np.testing.assert_array_equal(part.references["bass"], expected[: part.mixture.shape[1]].T)


def test_suffixes_may_be_in_capitals(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    expected = read_track(find_tracks(root, "test")[0]).references["bass"]
    for path in list((tmp_path / "copy").rglob("*.wav")):
        path.rename(path.with_suffix(".WAV"))
    tracks = find_tracks(tmp_path / "copy", "test")
    assert [track.name for track in tracks] == [track.name for track in find_tracks(root, "test")]
    np.testing.assert_array_equal(read_track(tracks[0]).references["bass"], expected)
    (song,) = (s for s in Musdb().find(tmp_path / "copy", STEMS) if s.split == "train")
    assert song.files
    assert all(path.samefile(path.with_suffix(".WAV")) for path in song.files.values())


def test_a_track_that_lacks_its_mixture_is_an_error(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "copy")
    (tmp_path / "copy" / "test" / "Ana - One" / "mixture.wav").unlink()
    track = find_tracks(tmp_path / "copy", "test")[0]
    assert track.name == "Ana - One"
    with pytest.raises(AudioError, match="lacks mixture"):
        read_track(track)


def test_a_track_that_lacks_a_stem_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "Half"
    folder.mkdir(parents=True)
    soundfile.write(folder / "mixture.wav", noise(0, 100).T, RATE)
    (track,) = find_tracks(tmp_path, "test")
    with pytest.raises(AudioError, match="lacks vocals, drums, bass, other"):
        read_track(track)


def test_files_of_different_rates_are_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "Odd"
    folder.mkdir(parents=True)
    for name in ("mixture", *STEMS):
        rate = 48_000 if name == "bass" else RATE
        soundfile.write(folder / f"{name}.wav", noise(0, 100).T, rate)
    (track,) = find_tracks(tmp_path, "test")
    with pytest.raises(AudioError, match="differ in sample rate"):
        read_track(track)


def test_a_stem_file_is_decoded_as_musdb_does(real_song: TrackAudio, tmp_path: Path) -> None:
    stempeg = pytest.importorskip("stempeg")
    musdb = pytest.importorskip("musdb")
    (tmp_path / "test").mkdir()
    shutil.copy(stempeg.example_stem_path(), tmp_path / "test")
    (track,) = find_tracks(tmp_path, "test")
    (expected,) = musdb.DB(root=str(tmp_path), subsets="test").tracks
    assert track.name == expected.name
    found = read_track(track, 2.0)
    expected.chunk_duration = 2.0
    np.testing.assert_array_equal(found.mixture, expected.audio.T)
    np.testing.assert_array_equal(found.references["drums"], expected.targets["drums"].audio.T)
    np.testing.assert_array_equal(found.mixture, real_song.mixture[:, : found.mixture.shape[1]])


def test_a_damaged_stem_file_is_named(real_song: TrackAudio, tmp_path: Path) -> None:
    path = tmp_path / "Bad.stem.mp4"
    path.write_bytes(b"no audio" * 100)
    with pytest.raises(AudioError, match=r"Bad\.stem\.mp4"):
        read_track(Track("Bad", "test", path))


def test_without_ffmpeg_a_stem_file_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Song.stem.mp4"
    path.write_bytes(b"x")
    for name in [name for name in sys.modules if name.split(".")[0] == "stempeg"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnetsepError, match="needs ffmpeg and ffprobe"):
        read_track(Track("Song", "test", path))
