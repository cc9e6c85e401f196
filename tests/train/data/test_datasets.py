"""A kind of data set is one class: with it a run finds, trains on and names recordings."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import soundfile

from tests.train.runs import CPU
from tests.train.synthetic import RATE, tiny, write, write_musdb
from unetsep.config import STEMS
from unetsep.errors import AudioError
from unetsep.train.config import TrainConfig, TrainingError
from unetsep.train.data.datasets import DATASETS
from unetsep.train.data.musdb import Musdb
from unetsep.train.data.run_data import (
    DataConfig,
    find_data,
    load_data,
    load_recordings,
    move_data,
    read_data,
)
from unetsep.train.data.song_lists import SongLists
from unetsep.train.data.sources import DatasetKind, Source, audio_files
from unetsep.train.fit import fit
from unetsep.train.logs import read_log
from unetsep.train.release.command import train_command


def resume(run: Path, songs: SongLists) -> None:
    """What a resumed run does with its songs."""
    saved = SongLists.read(run)
    assert saved is not None
    saved.check_resumed(run, songs)


class Takes(DatasetKind):
    """Files ``<root>/<song>-<stem>.wav``."""

    name = "takes"
    option = "--takes"
    help = "Songs by the names of their files."
    extra = False
    held_out = True

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        songs: dict[str, dict[str, Path]] = {}
        for path in audio_files(root):
            song, _, stem = path.stem.rpartition("-")
            if stem in stems:
                songs.setdefault(song, {})[stem] = path
        return [Source(song, self.name, "train", files) for song, files in songs.items()]


def test_a_run_trains_on_a_new_kind_of_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATASETS, "takes", Takes())
    for number, song in enumerate(("one", "two", "three")):
        for i, stem in enumerate((*STEMS, "talk")):
            write(tmp_path / "takes" / f"{song}-{stem}", 10 * number + i, 21 * RATE)
    data = find_data({"takes": [tmp_path / "takes"]}, tmp_path / "cache", held_out=1)
    assert data.roots == {"takes": (str(tmp_path / "takes"),)}
    train, valid = load_data(data)
    assert [len(valid), len({each.name for each in train})] == [1, 3]
    assert not any(each.extra for each in (*train, *valid))
    config = tiny(max_steps=10, valid_every=10)
    fit(config, train, valid, tmp_path / "run", machine=CPU)
    assert read_log(tmp_path / "run" / "log.jsonl")[-1]["step"] == 10
    (tmp_path / "run" / "data.json").write_text(json.dumps(dataclasses.asdict(data)))
    assert read_data(tmp_path / "run") == data
    assert "takes/train/one" in SongLists.of(train, valid).songs
    assert "--takes takes " in train_command(config, dataclasses.asdict(data)) + " "
    monkeypatch.undo()
    with pytest.raises(TrainingError, match="data of the kind 'takes': expected musdb, songs"):
        read_data(tmp_path / "run")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"roots": {"songs": "/songs"}}, "songs is '/songs', expected a list of texts"),
        ({"roots": {"songs": [{}]}}, r"songs is \[{}\], expected a list of texts"),
        ({"leave_out": "one"}, "leave_out is 'one', expected a list of texts"),
        ({"stems": [3]}, r"stems is \[3\], expected a list of texts"),
        ({"cache": 1.5}, "cache is 1.5"),
        ({"held_out": "3"}, "held_out is '3'"),
        ({"init_from": []}, r"init_from is \[\]"),
    ],
    ids=str,
)
def test_data_of_wrong_types_is_refused(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    data = dataclasses.asdict(find_data({"songs": [tmp_path]}, tmp_path / "cache"))
    (tmp_path / "data.json").write_text(json.dumps(data | changed))
    with pytest.raises(TrainingError, match=f"does not say where its data is: {message}$"):
        read_data(tmp_path)


def test_musdb_is_refused_for_other_stems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSDB_PATH", str(tmp_path))
    assert find_data({}).roots == {"musdb": (str(tmp_path.resolve()),)}
    with pytest.raises(TrainingError, match="no training data for piano, strings: name --songs"):
        find_data({}, stems=("piano", "strings"))
    with pytest.raises(AudioError, match="whose sum its mixtures are: it cannot be used for piano"):
        Musdb().find(tmp_path, ("piano", "strings"))


def test_decoded_stems_need_no_home_folder_if_a_cache_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)  # no test can take an account away
    roots = {"songs": [tmp_path]}
    assert find_data(roots, tmp_path / "cache").cache == str((tmp_path / "cache").resolve())
    with pytest.raises(TrainingError, match=r"no home folder for ~.*: name a folder .* by --cache"):
        find_data(roots)


def test_shares_must_be_of_stems_of_the_run_and_stems_valid() -> None:
    for wrong in ({"extra_share": {"piano": 0.5}}, {"second_share": {"piano": 0.5}}):
        with pytest.raises(ValueError, match="_share="):
            tiny(**wrong)
    for stems in (("vocals",), ("vocals", "vocals"), ("vocals", "mixture"), ("vocals", "a b")):
        with pytest.raises(ValueError, match="stems="):
            tiny(stems=stems)
    expected = {"vocals": 0.4, "drums": 0.4, "bass": 0.15, "other": 0.4}
    assert TrainConfig().extra_shares == expected


def test_duplicates_are_used_once_and_excerpts_not_trained_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, stem in enumerate(STEMS):
        write(tmp_path / "songs" / "train" / "one" / stem, i, 21 * RATE)
        write(tmp_path / "songs" / "train" / "two" / stem, 10 + i, 21 * RATE)
        write(tmp_path / "again" / "train" / "other name" / stem, i, 21 * RATE)
    write(tmp_path / "pools" / "bass" / "of one", 2, 21 * RATE)
    write(tmp_path / "pools" / "bass" / "another", 99)
    song = {stem: f"songs/train/two/{stem}.wav" for stem in STEMS[:3]} | {"split": "valid"}
    (tmp_path / "index.json").write_text(json.dumps({"tracks": {"part": song}}))
    roots = {
        "songs": [tmp_path / "songs", tmp_path / "again"],
        "index": [tmp_path / "index.json"],
        "pools": [tmp_path / "pools"],
    }
    train, valid = load_data(find_data(roots, tmp_path / "cache"))
    songs = SongLists.of(train, valid)
    assert songs.songs == ["songs/train/one", "pools/train/bass/another"]
    assert songs.valid_songs == ["index/valid/part", "songs/valid/one"]
    (told,) = (record.message for record in caplog.records)
    assert told == (
        "duplicate recordings are used once: songs/train/two is in index/valid/part, "
        "songs/train/other name is in songs/train/one, pools/train/bass/of one is in "
        "songs/train/one"
    )


def test_resuming_a_run_on_other_audio_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    songs = tmp_path / "songs"
    for i, name in enumerate(("a", "b", "c")):
        write(songs / "train" / name / "takes" / "drums", i)
        write(songs / "train" / name / "bass", 10 + i)
    data = find_data({"songs": [songs]}, tmp_path / "cache")
    saved = SongLists.of(load_recordings(data), [])
    lists = {"songs": saved.songs, "valid_songs": saved.valid_songs}
    for text in (json.dumps(lists), saved.to_json()):  # of a version before; of ours
        (tmp_path / "songs.json").write_text(text)
        resume(tmp_path, SongLists.of(load_recordings(data), []))
        assert caplog.messages == []
    write(songs / "train" / "a" / "drums", 99)
    (songs / "train" / "b" / "takes" / "drums.wav").unlink()
    resume(tmp_path, SongLists.of(load_recordings(data), []))
    assert caplog.messages == [
        "the run continues with audio that has changed: songs/train/a has other content, "
        "songs/train/b has bass instead of bass, drums"
    ]
    (tmp_path / "songs.json").write_text(json.dumps(lists | {"recordings": {"songs/train/a": 1}}))
    with pytest.raises(TrainingError, match="cannot be understood"):
        SongLists.read(tmp_path)


def test_a_run_that_began_with_duplicates_is_resumed_with_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for i, stem in enumerate(STEMS):
        write(tmp_path / "songs" / "train" / "one" / stem, i, 21 * RATE)
        write(tmp_path / "songs" / "train" / "two" / stem, i, 21 * RATE)
        write(tmp_path / "more" / "train" / "two" / stem, i, 21 * RATE)
    write(tmp_path / "pools" / "bass" / "of one", 2, 21 * RATE)
    roots = {"songs": [tmp_path / "songs", tmp_path / "more"], "pools": [tmp_path / "pools"]}
    data = find_data(roots, tmp_path / "cache", held_out=1)
    for songs in (
        ["songs/train/one", "songs/train/two", "pools/train/bass/of one"],
        ["songs/train/two", "pools/train/bass/of one"],
    ):
        caplog.clear()
        lists = {"songs": songs, "valid_songs": [songs[-2].replace("train", "valid")]}
        (tmp_path / "songs.json").write_text(json.dumps(lists))
        train, valid = load_data(data, songs=[*songs, *lists["valid_songs"]])
        resume(tmp_path, SongLists.of(train, valid))
        told, leak = (record.message for record in caplog.records)
        assert told.count(" is in ") == 4 - len(songs)
        assert " has the bass of songs/valid/two" in leak  # as it has been from the beginning


def test_the_data_of_a_run_keeps_its_place_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSDB_PATH", str(tmp_path / "musdb"))
    data = DataConfig({"songs": ("/a",), "pools": ("/b", "/c")}, "/cache", leave_out=("x",))
    assert move_data(data, {"musdb": [], "pools": [tmp_path]}, None) == dataclasses.replace(
        data, roots={"songs": ("/a",), "pools": (str(tmp_path),)}
    )
    assert move_data(data, {}, tmp_path) == dataclasses.replace(data, cache=str(tmp_path))


def test_a_run_cannot_be_resumed_on_other_songs(tmp_path: Path) -> None:
    assert SongLists.read(tmp_path) is None  # a run from Python
    lists = {"songs": ["songs/train/a", "songs/train/b"], "valid_songs": ["songs/valid/c"]}
    (tmp_path / "songs.json").write_text(json.dumps(lists))
    resume(tmp_path, SongLists(**lists, recordings={}))
    for name, songs, message in (
        ("songs", ["songs/train/a"], "songs/train/b, there is now no more; name the folders"),
        ("songs", lists["songs"][::-1], "songs/train/a, there is now songs/train/b"),
        ("valid_songs", ["songs/valid/c", "x"], "has no more, there is now x"),
    ):
        with pytest.raises(TrainingError, match=message):
            resume(tmp_path, SongLists(**lists | {name: songs}, recordings={}))
    (tmp_path / "songs.json").write_text("{}")
    with pytest.raises(TrainingError, match="cannot be understood"):
        SongLists.read(tmp_path)


def test_a_stem_shared_with_a_validation_song_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"), 3 * RATE)
    song, other = tmp_path / "songs/train/remix", tmp_path / "songs/train/other"
    known = tmp_path / "musdb/train/Leaf - Summerghost/vocals.wav"
    audio, rate = soundfile.read(known, dtype="int16")
    song.mkdir(parents=True)
    soundfile.write(song / "vocals.flac", audio, rate)  # another file of the same samples
    write(song / "drums", 50, 4 * RATE)
    for stem in ("vocals", "drums"):  # silence is shared by many
        soundfile.write(tmp_path / f"musdb/train/A - B/{stem}.wav", 0 * audio, rate)
    write(other / "vocals", 51, 3 * RATE)
    soundfile.write(other / "drums.wav", 0 * audio, rate)
    roots = {"musdb": [tmp_path / "musdb"], "songs": [tmp_path / "songs"]}
    data = find_data(roots, tmp_path / "cache", held_out=0)
    load_data(data)
    (said,) = (record.message for record in caplog.records if "are trained on" in record.message)
    assert said.endswith(
        "--leave-out names them: songs/train/remix has the vocals of musdb/valid/Leaf - Summerghost"
    )
    caplog.clear()
    load_data(dataclasses.replace(data, leave_out=("remix=vocals",)))
    load_data(data, all_songs=True)
    assert not caplog.records


def test_a_stem_shared_with_the_song_of_a_held_out_excerpt_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    song, remix = tmp_path / "train/song", tmp_path / "train/remix"
    write(song / "vocals", 60, 20 * RATE)
    write(song / "drums", 61, 20 * RATE)
    write(remix / "drums", 62, 3 * RATE)
    audio, rate = soundfile.read(song / "vocals.wav", dtype="int16")
    soundfile.write(remix / "vocals.flac", audio, rate)
    roots, stems = {"songs": [tmp_path]}, ("vocals", "drums")
    data = find_data(roots, tmp_path / "cache", stems=stems, held_out=1)
    _, valid = load_data(data)
    assert [each.name for each in valid] == ["song"]
    (said,) = (record.message for record in caplog.records if "are trained on" in record.message)
    assert said.endswith("songs/train/remix has the vocals of songs/valid/song")
    caplog.clear()
    load_data(dataclasses.replace(data, leave_out=("remix=vocals",)))
    load_data(data, all_songs=True)
    assert not caplog.records


def test_a_stem_that_a_song_and_its_own_held_out_excerpt_share_with_another_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"), 20 * RATE)
    song = tmp_path / "songs/train/song"
    for i, stem in enumerate(("drums", "bass", "other")):
        write(song / stem, 70 + i, 20 * RATE)
    audio, rate = soundfile.read(
        tmp_path / "musdb/train/Leaf - Summerghost/vocals.wav", dtype="int16"
    )
    soundfile.write(song / "vocals.flac", audio, rate)
    roots = {"musdb": [tmp_path / "musdb"], "songs": [tmp_path / "songs"]}
    _, valid = load_data(find_data(roots, tmp_path / "cache", held_out=1))
    assert [each.name for each in valid] == ["Leaf - Summerghost", "song"]
    (said,) = (record.message for record in caplog.records if "are trained on" in record.message)
    assert said.endswith("songs/train/song has the vocals of musdb/valid/Leaf - Summerghost")
