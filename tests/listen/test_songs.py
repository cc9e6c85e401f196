"""The songs of a folder: models side by side, other tools' layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

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
def test_models_of_one_song_belong_together_wherever_they_lie(tmp_path: Path, layout: str) -> None:
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
    (song,) = find_songs(tmp_path)
    assert sorted(path.name for path in song.files) == sorted(names)
    assert next(iter(song.models[""])) == "vocals"


def test_the_usual_stems_come_first() -> None:
    names = ("piano", "other", "Bass", "vocals", "Guitar", "drums")
    stems = {name: Path(name) for name in names}
    assert list(order_stems(stems)) == ["vocals", "drums", "Bass", "other", "Guitar", "piano"]


def test_a_folder_without_stems_and_none_at_all_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnetsepError, match="holds no stems"):
        find_songs(tmp_path)
    with pytest.raises(UnetsepError, match="is no folder"):
        find_songs(tmp_path / "missing")
