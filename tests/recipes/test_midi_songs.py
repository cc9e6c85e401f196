"""``recipes/midi_songs.py``: parts that play together, at their levels, as training wants them."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import midi_pools
import midi_songs
import numpy as np
import pytest
import soundfile
from midi_parts import Note, Part, Performance, read, vary, write

from unetsep.config import STEMS
from unetsep.train.data.recording import recording_from_arrays
from unetsep.train.data.song_folders import SongFolders as Songs

BASS, PIANO = 33, 0


def line(channel: int, program: int, pitch: int, every: float = 0.5) -> tuple[Note, ...]:
    """Forty notes of equal pitch, one after the other."""
    return tuple(Note(i * every, (i + 0.9) * every, channel, program, pitch, 80) for i in range(40))


def song(*lines: tuple[Note, ...]) -> Part:
    return Part(tuple(sorted(sum(lines, ()), key=lambda note: note.start)), ())


def clicks(part: Part) -> np.ndarray:
    """A sound in which each note of a part is one click."""
    frames = int((part.notes[-1].end + 1) * 20)
    audio = np.zeros((frames * midi_pools.FRAME, 2))
    for note in part.notes:
        audio[int(note.start * midi_pools.RATE)] = 0.5
    return audio


@pytest.fixture
def songs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the command on a trio, a duo and a soloist; clicks stand for synthesizer and samples."""
    bass, piano, drums = line(0, BASS, 36), line(1, PIANO, 60), line(9, 0, 36)
    music = {
        "a/trio": song(bass, piano, drums),
        "a/duo-one": song(bass, piano),
        "b/solo": song(piano),
    }
    for name, part in music.items():
        path = tmp_path / "midi" / f"{name}.mid"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part, path, random.Random(0))
    (tmp_path / "a.sf2").touch()
    monkeypatch.setattr(midi_songs, "sample_sets", lambda _: [SimpleNamespace(stem="")])
    monkeypatch.setattr(midi_pools.shutil, "which", lambda name: name)
    monkeypatch.setattr(midi_pools, "render", lambda midi, *_: clicks(read(midi)))
    monkeypatch.setattr(midi_pools, "colour", lambda audio, *_: audio)

    def run(name: str, seed: int = 0) -> Path:
        words = [
            str(tmp_path / "midi"),
            str(tmp_path / name),
            "--soundfont",
            str(tmp_path / "a.sf2"),
        ]
        words += ["--sampler", str(tmp_path / "sets"), "--seconds", "12", "--takes", "2"]
        monkeypatch.setattr(sys, "argv", ["midi_songs.py", *words, "--seed", str(seed)])
        midi_songs.main()
        return tmp_path / name

    return run


def test_parts_of_a_song_share_place_tempo_and_length(songs) -> None:
    folder = songs("songs") / "train" / "a-trio_0"
    audio = {
        stem: soundfile.read(folder / f"{stem}.flac")[0][:, 0]
        for stem in ("drums", "bass", "other")
    }
    assert len({len(sound) for sound in audio.values()}) == 1
    assert len(audio["drums"]) == pytest.approx(12 * midi_pools.RATE, rel=0.11)
    onsets = {stem: np.flatnonzero(sound > 0.02) / midi_pools.RATE for stem, sound in audio.items()}
    assert len(onsets["drums"]) >= 20
    np.testing.assert_allclose(onsets["drums"], onsets["bass"], atol=2e-3)
    np.testing.assert_allclose(onsets["drums"], onsets["other"], atol=2e-3)


def test_training_finds_the_songs_and_knows_what_is_silent(songs) -> None:
    folder = songs("songs")
    found = {source.name: source for source in Songs().find(folder, STEMS)}
    assert set(found) == {"a-trio_0", "a-trio_1", "a-duo_one_0", "a-duo_one_1"}, "no soloist"
    assert set(found["a-trio_0"].silent) == {"vocals"}
    assert set(found["a-duo_one_0"].silent) == {"vocals", "drums"}
    rows = (folder / "sources.csv").read_text().splitlines()[1:]
    assert {row.split(",")[0] for row in rows} == set(found)


def test_all_songs_of_a_collection_are_one_artist_s() -> None:
    name = midi_songs.song_name(Path("games/music/map-01.mid"), 1)
    silence = np.zeros((10, 2), np.int16)
    assert name == "games-music_map_01_1"
    assert recording_from_arrays(name, {"bass": silence}).artist == "games"


def test_the_same_seed_makes_the_same_songs(songs) -> None:
    def sounds(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.flac")}

    first = sounds(songs("first"))
    assert first == sounds(songs("second"))
    assert first != sounds(songs("third", seed=1))


def test_parts_of_one_performance_move_by_the_same_interval() -> None:
    up = Performance(key=2, tempo=1.1)
    bass = vary(song(line(0, BASS, 36)), "bass", random.Random(0), up)
    piano = vary(song(line(1, PIANO, 60)), "other", random.Random(1), up)
    drums = vary(song(line(9, 0, 38)), "drums", random.Random(2), up)
    assert {note.pitch for note in bass.notes} == {38}
    assert {note.pitch for note in piano.notes} == {62}
    assert {note.pitch for note in drums.notes} == {38}
    assert [n.start for n in bass.notes] == [n.start for n in drums.notes]


def test_a_stem_is_brought_to_its_level_and_never_clips() -> None:
    times = np.arange(4 * midi_pools.RATE) / midi_pools.RATE
    tone = np.repeat(np.sin(2 * np.pi * 80 * times)[:, None], 2, axis=1)
    for seed in range(20):
        made = midi_songs.level(0.01 * tone, "bass", random.Random(seed))
        difference = 20 * np.log10(np.sqrt((made**2).mean()) / midi_songs.LEVEL)
        assert abs(difference) <= midi_songs.SPREAD["bass"] + 0.1
    spike = np.zeros_like(tone)
    spike[:: midi_pools.FRAME] = 1e-3
    assert np.abs(midi_songs.level(spike, "bass", random.Random(0))).max() <= 0.95
    assert not midi_songs.level(0 * tone, "bass", random.Random(0)).any()


def test_recorded_notes_play_every_bass_that_they_know(tmp_path: Path) -> None:
    options = type(
        "Options",
        (),
        {"sample_sets": [type("Set", (), {"stem": "bass", "programs": range(32, 40)})]},
    )
    bass, piano = song(line(0, BASS, 36)), song(line(1, PIANO, 60))
    assert all(midi_songs.by_samples(bass, "bass", options, random.Random(s)) for s in range(9))
    assert not any(
        midi_songs.by_samples(piano, "other", options, random.Random(s)) for s in range(9)
    )


def test_a_song_that_is_rendered_again_has_no_stem_of_before(tmp_path: Path) -> None:
    sound = midi_pools.Recording(np.zeros((midi_pools.RATE, 2)), Path("a.sf2"))
    midi_songs.write_song(tmp_path, {"drums": sound, "bass": sound})
    midi_songs.write_song(tmp_path, {"bass": sound, "other": sound})
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["bass.flac", "other.flac", "song.json"]


def test_midi_files_that_would_be_one_song_are_told_beforehand(
    songs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(tmp_path / "midi" / "a" / "duo-one.mid", tmp_path / "midi" / "a" / "duo_one.mid")
    with pytest.raises(SystemExit):
        songs("songs")
    assert "would have one name: rename one of them" in capsys.readouterr().err
    assert not (tmp_path / "songs").exists()


def test_without_fluidsynth_the_command_says_what_to_install(songs, monkeypatch) -> None:
    monkeypatch.setattr(midi_pools.shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install fluidsynth"):
        songs("songs")
