"""The songs of a folder: models side by side, other tools' layouts."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from unetsep.errors import UnetsepError
from unetsep.listen.songs import find_songs, order_stems

RATE = 8000


def stems_of(seed: int, share: float, seconds: float = 2.0) -> dict[str, np.ndarray]:
    """Two stems with the same sum for every share."""
    rng = np.random.default_rng(seed)
    one, other = 0.1 * rng.standard_normal((2, round(seconds * RATE)))
    return {"vocals": one + share * other, "rest": (1 - share) * other}


def write(folder: Path, stems: dict[str, np.ndarray], suffix: str = "wav") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, wave in stems.items():
        soundfile.write(folder / f"{name}.{suffix}", wave, RATE)


@pytest.mark.parametrize("layout", ["{model}/{song}", "{song}/{model}", "x/{model}/{song}"])
def test_models_of_one_song_are_grouped_at_any_depth(tmp_path: Path, layout: str) -> None:
    # Songs of one length, as the excerpts of MUSDB18 are.
    for seed, song in enumerate(("one", "two")):
        for model, share in (("mse", 0.1), ("l1", 0.3)):
            write(tmp_path / layout.format(model=model, song=song), stems_of(seed, share))
    songs = find_songs(tmp_path)
    assert [song.name.split("/")[-1] for song in songs] == ["one", "two"]
    assert [sorted(song.models) for song in songs] == [["l1", "mse"]] * 2
    folder = tmp_path / layout.format(model="mse", song="two")
    assert songs[1].models["mse"]["vocals"] == folder / "vocals.wav"


@pytest.mark.parametrize("samples", [1, 100, 700])
def test_models_of_one_song_may_differ_a_little_in_length(tmp_path: Path, samples: int) -> None:
    write(tmp_path / "mse" / "song", stems_of(0, 0.1, 8.0))
    shorter = {name: wave[:-samples] for name, wave in stems_of(0, 0.3, 8.0).items()}
    write(tmp_path / "l1" / "song", shorter)
    (song,) = find_songs(tmp_path)
    assert sorted(song.models) == ["l1", "mse"]


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_models_of_one_song_may_differ_in_sample_rate(tmp_path: Path, rate: int) -> None:
    # Demucs writes 44.1 kHz, whatever the song's rate.
    write(tmp_path / "mse" / "song", stems_of(0, 0.1, 8.0))
    folder = tmp_path / "demucs" / "song"
    folder.mkdir(parents=True)
    for name, wave in stems_of(0, 0.3, 8.0).items():
        soundfile.write(folder / f"{name}.wav", soxr.resample(wave, RATE, rate), rate)
    write(tmp_path / "l1" / "another", stems_of(1, 0.1, 8.0))
    another, song = find_songs(tmp_path)
    assert (another.name, sorted(song.models)) == ("l1/another", ["demucs", "mse"])


def test_a_folder_of_stems_is_one_song_that_has_its_name(tmp_path: Path) -> None:
    write(tmp_path / "My song", stems_of(0, 0.0))
    (song,) = find_songs(tmp_path / "My song")
    assert (song.name, list(song.models)) == ("My song", [""])
    assert list(song.models[""]) == ["vocals", "rest"]


def test_names_of_audio_separator_tell_song_stem_and_model(tmp_path: Path) -> None:
    for name, wave in stems_of(0, 0.2).items():
        soundfile.write(tmp_path / f"A song_({name.title()})_UVR-MDX.wav", wave, RATE)
    (song,) = find_songs(tmp_path)
    assert song.name.endswith("A song")
    assert list(song.models[""]) == ["vocals", "rest"]


@pytest.mark.parametrize("name", ["{track} ({stem}).flac", "x/{track} ({stem}).wav"])
@pytest.mark.parametrize("stems", [("vocals", "drums"), ("vocals", "no_vocals"), ("No Drums",)])
def test_files_beside_each_other_are_songs_by_their_names(
    tmp_path: Path, name: str, stems: tuple[str, ...]
) -> None:
    (tmp_path / "x").mkdir()
    tracks = ("A song (Live)", "B")
    waves = 0.1 * np.random.default_rng(0).standard_normal((2, len(stems), RATE))
    for track, song in zip(tracks, waves, strict=True):
        for stem, wave in zip(stems, song, strict=True):
            soundfile.write(tmp_path / name.format(track=track, stem=stem), wave, RATE)
    songs = find_songs(tmp_path)
    assert [song.name.split("/")[-1] for song in songs] == list(tracks)
    assert [sorted(song.models[""]) for song in songs] == 2 * [sorted(s.lower() for s in stems)]


@pytest.mark.skipif(os.name == "nt", reason="names hold no line breaks")
@pytest.mark.parametrize("name", ["{} ({}).wav", "{}_({})_a model.wav"])
def test_names_of_songs_may_hold_line_breaks(tmp_path: Path, name: str) -> None:
    for stem, wave in stems_of(0, 0.1).items():
        soundfile.write(tmp_path / name.format("two\nlines", stem), wave, RATE)
    (song,) = find_songs(tmp_path)
    assert song.name.endswith("two\nlines")
    assert list(song.models[""]) == ["vocals", "rest"]


def test_an_instrumental_and_the_song_beside_it_are_one_stem(tmp_path: Path) -> None:
    for name in ("song", "song (Instrumental)", "other (Instrumental)"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(100), RATE)
    songs = find_songs(tmp_path)
    assert [(song.name, list(song.models[""])) for song in songs] == [
        ("other", ["instrumental"]),
        ("song", ["instrumental"]),
    ]


def test_other_words_in_brackets_are_tracks_of_one_song(tmp_path: Path) -> None:
    names = ["Bass", "Guitar (left)", "Guitar (right)"]
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(100), RATE)
    (song,) = find_songs(tmp_path)
    assert sorted(song.models[""]) == names


def test_usual_stems_in_brackets_beside_usual_files_are_tracks_of_one_song(tmp_path: Path) -> None:
    names = ["Backing (vocals)", "Lead (vocals)", "bass", "drums"]
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(100), RATE)
    (song,) = find_songs(tmp_path)
    assert sorted(song.models[""]) == names


def test_songs_called_like_stems_are_songs_beside_their_stems(tmp_path: Path) -> None:
    for name in ("Bass", "Bass (Instrumental)", "Song", "Song (Instrumental)"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(100), RATE)
    songs = find_songs(tmp_path)
    assert [(song.name, list(song.models[""])) for song in songs] == [
        ("Bass", ["instrumental"]),
        ("Song", ["instrumental"]),
    ]


@pytest.mark.parametrize("beside", [[], ["drums"]])
def test_stems_of_other_names_belong_to_their_song_if_one_name_is_usual(
    tmp_path: Path, beside: list[str]
) -> None:
    for name in ("a", "a (vocals)", "a (Lead Strings)", *beside):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(100), RATE)
    songs = {song.name: list(song.models[""]) for song in find_songs(tmp_path)}
    assert songs.pop("a") == ["vocals", "lead strings"]
    assert list(songs.values()) == ([beside] if beside else [])


def test_another_version_beside_the_stems_of_a_song_is_not_a_stem(tmp_path: Path) -> None:
    names = ["a", "a (vocals)", "a (drums)", "a (Live)", "a (Live) (vocals)", "a (Live) (drums)"]
    for name in names:
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(RATE), RATE)
    stems = ["vocals", "drums"]
    songs = find_songs(tmp_path)
    assert [(s.name, list(s.models[""])) for s in songs] == [("a", stems), ("a (Live)", stems)]
    soundfile.write(tmp_path / "a (Remix).wav", np.zeros(2 * RATE), RATE)
    songs = {song.name: list(song.models[""]) for song in find_songs(tmp_path)}
    assert songs["a"] == songs["a (Live)"] == stems


@pytest.mark.parametrize("model", ["", "{model}/"])
def test_a_folder_of_stems_and_files_beside_each_other_are_one_song(
    tmp_path: Path, model: str
) -> None:
    write(tmp_path / model.format(model="l1") / "Track", stems_of(0, 0.0))
    folder = tmp_path / model.format(model="mse")
    folder.mkdir(exist_ok=True)
    for name, share in (("vocals", 0.2), ("drums", 0.2)):
        wave = stems_of(0, share)["vocals" if name == "vocals" else "rest"]
        soundfile.write(folder / f"Track ({name}).wav", wave, RATE)
    (song,) = find_songs(tmp_path)
    assert song.name == "Track"
    assert len(song.models) == 2
    assert all(not name.startswith("/") for name in song.models)


@pytest.mark.parametrize("beside", [["one/vocals"], ["one/vocals", "one #2/vocals"]])
def test_each_of_several_models_of_one_name_is_listed(tmp_path: Path, beside: list[str]) -> None:
    names = ["one (vocals)", "two/vocals", *beside]
    for name in names:
        folder, _, stem = name.rpartition("/")
        write(tmp_path / folder, {stem: stems_of(0, 0.1)["vocals"]})
    (song,) = find_songs(tmp_path)
    assert song.name == tmp_path.name
    assert len(song.models) == len(song.files) == len(names)


def test_stem_mp4_files_are_no_songs(tmp_path: Path) -> None:
    (tmp_path / "crate").mkdir()
    (tmp_path / "crate" / "A.Stem.MP4").write_bytes(b"")
    with pytest.raises(UnetsepError, match=r"holds no stems but \.stem\.mp4 files.*-f flac"):
        find_songs(tmp_path)
    write(tmp_path / "crate" / "B", stems_of(0, 0.0))
    (song,) = find_songs(tmp_path)
    assert song.name == "crate/B"


def test_models_of_one_song_by_file_names_have_the_songs_name(tmp_path: Path) -> None:
    for model, share in (("mse", 0.1), ("l1", 0.3)):
        (tmp_path / model).mkdir()
        for name, wave in stems_of(0, share).items():
            soundfile.write(tmp_path / model / f"A song_({name.title()}).wav", wave, RATE)
    (song,) = find_songs(tmp_path)
    assert (song.name, sorted(song.models)) == ("A song", ["l1", "mse"])


def test_the_song_beside_its_stems_and_the_players_data_are_no_stems(tmp_path: Path) -> None:
    write(tmp_path / "song", stems_of(0, 0.0))
    write(tmp_path, {"song": np.zeros(100)})
    write(tmp_path / "player-data", {"other": np.zeros(100)})
    (song,) = find_songs(tmp_path)
    assert [path.parent.name for path in song.files] == ["song", "song"]


def test_one_stem_in_two_formats_has_two_names(tmp_path: Path) -> None:
    write(tmp_path, {"vocals": np.zeros(100)})
    write(tmp_path, {"vocals": np.zeros(100)}, "flac")
    (song,) = find_songs(tmp_path)
    assert sorted(song.models[""]) == ["vocals", "vocals.wav"]


def test_one_stem_of_audio_separator_in_two_formats_has_two_names(tmp_path: Path) -> None:
    names = ["s_(Vocals)_m.flac", "s_(Vocals)_m.wav", "s_(vocals)_m.wav", "s_(Instrumental)_m.wav"]
    for name in names:
        soundfile.write(tmp_path / name, np.zeros(100), RATE)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) >= 3  # Windows and macOS take two of the names for one
    (song,) = find_songs(tmp_path)
    assert sorted(path.name for path in song.files) == written
    assert next(iter(song.models[""])) == "vocals"


def test_the_usual_stems_come_first() -> None:
    names = ("piano", "other", "Bass", "vocals", "Guitar", "drums")
    stems = {name: Path(name) for name in names}
    assert list(order_stems(stems)) == ["vocals", "drums", "Bass", "other", "Guitar", "piano"]


def test_a_folder_without_stems_and_a_missing_one_are_refused_with_a_message(
    tmp_path: Path,
) -> None:
    with pytest.raises(UnetsepError, match="holds no stems"):
        find_songs(tmp_path)
    with pytest.raises(UnetsepError, match="is not a folder"):
        find_songs(tmp_path / "missing")


@pytest.mark.parametrize(("number", "found"), [(errno.EIO, False), (errno.EACCES, True)])
def test_an_unreadable_folder_is_an_error_and_one_without_permission_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, found: bool
) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, stems_of(1, 0.1))
    scandir = os.scandir

    def refuse(path: Path) -> Any:
        if Path(path).name == "two":
            raise OSError(number, os.strerror(number), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    if found:
        assert len(find_songs(tmp_path)) == 1
    else:
        with pytest.raises(UnetsepError, match=r"two cannot be read: Input/output error"):
            find_songs(tmp_path)
