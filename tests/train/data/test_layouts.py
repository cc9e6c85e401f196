"""MoisesDB and indexes as mirdata's: made folders are found, decoded and scored by their sums."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.commands import call
from tests.signals import RATE, noise
from unetsep.errors import AudioError
from unetsep.train.data.cache import load
from unetsep.train.data.datasets import DATASETS
from unetsep.train.data.run_data import find_data, load_recordings
from unetsep.train.evaluation.compare import compare
from unetsep.train.evaluation.estimates import baseline_methods
from unetsep.train.evaluation.evaluate import Settings, evaluate
from unetsep.train.evaluation.own_songs import find_in_index, find_moisesdb, find_songs
from unetsep.train.evaluation.tracks import read_track

FOUR = ("vocals", "drums", "bass", "other")
SAMPLES = RATE
MD5 = "0" * 32


def write(path: Path, seed: int, *, samples: int = SAMPLES) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = (noise(seed, samples) / 16).astype(np.float32)
    soundfile.write(path, signal.T, RATE, subtype="FLOAT")
    padded = np.zeros((2, SAMPLES), np.float32)
    padded[:, :samples] = signal
    return padded


def add_song(root: Path, name: str, recordings: dict[str, int], seed: int) -> dict[str, np.ndarray]:
    """A song of MoisesDB with so many recordings of each stem; the sum of each."""
    stems, sums = [], {}
    for stem, count in recordings.items():
        tracks, signals = [], []
        for number in range(count):
            identity = f"{name}-{stem}-{number}"
            samples = SAMPLES - 100 * number
            signals.append(write(root / name / stem / f"{identity}.wav", seed, samples=samples))
            tracks.append({"id": identity, "trackType": "any", "extension": "wav"})
            seed += 1
        stems.append({"stemName": stem, "tracks": tracks})
        sums[stem] = np.sum(signals, axis=0)
    described = {"song": name, "artist": "nobody", "stems": stems}
    (root / name / "data.json").write_text(json.dumps(described))
    return sums


@pytest.fixture
def moisesdb(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    root = tmp_path / "moisesdb"
    found = add_song(
        root / "moisesdb_v0.1",
        "a",
        {"vocals": 3, "drums": 1, "guitar": 2, "piano": 1, "percussion": 1},
        seed=1,
    )
    add_song(root / "test", "b", {"vocals": 1, "bass": 1}, seed=90)
    return root, found


def stem_of(recording: Any, stem: str) -> np.ndarray:
    """A decoded stem as ``(channels, samples)``."""
    found: np.ndarray = recording.pcm[recording.names.index(stem)].T / 32768
    return found


def test_moisesdb_stems_are_sums_of_recordings_when_training(
    moisesdb: tuple[Path, dict[str, np.ndarray]], tmp_path: Path
) -> None:
    root, sums = moisesdb
    data = find_data({"moisesdb": [root]}, tmp_path / "cache")
    (recording,) = load_recordings(data)
    assert (recording.name, recording.origin, recording.silent) == ("a", "moisesdb", ("bass",))
    expected = {
        "vocals": sums["vocals"],
        "drums": sums["drums"],
        "other": sums["guitar"] + sums["piano"] + sums["percussion"],
    }
    assert set(recording.names) == set(expected)
    for stem, signal in expected.items():
        np.testing.assert_allclose(stem_of(recording, stem), signal, atol=1 / 32768)
    (six,) = DATASETS["moisesdb"].find(root, (*FOUR, "guitar", "piano"))
    (alone,) = DATASETS["moisesdb"].find(root, ("guitar", "piano"))
    assert [name for name, _ in six.parts].count("other") == 1  # percussion
    assert [name for name, _ in alone.parts] == ["guitar", "guitar", "piano"]


def test_moisesdb_is_scored_in_the_stems_of_a_model(
    moisesdb: tuple[Path, dict[str, np.ndarray]],
) -> None:
    root, sums = moisesdb
    tracks = find_moisesdb(root)
    assert [track.name for track in tracks] == ["a", "b"]
    audio = read_track(tracks[0])
    assert tuple(audio.references) == FOUR
    np.testing.assert_allclose(audio.references["vocals"], sums["vocals"], atol=1e-6)
    assert not audio.references["bass"].any()
    np.testing.assert_allclose(audio.mixture, sum(sums.values()), atol=1e-6)
    with pytest.raises(ValueError, match="MoisesDB has no subset train"):
        find_moisesdb(root, "train")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_descriptions_that_windows_wrote_are_read(tmp_path: Path, encoding: str) -> None:
    add_song(tmp_path / "moisesdb", "B\u00e9la", {"vocals": 1}, seed=1)
    song = tmp_path / "songs" / "train" / "one"
    write(song / "drums.wav", 2)
    write(song / "mixture.wav", 3)
    described = {
        tmp_path / "moisesdb" / "B\u00e9la" / "data.json": None,
        tmp_path / "index.json": {"tracks": {"B\u00e9la": {"bass": "songs/train/one/drums.wav"}}},
        song / "song.json": {"silent": ["vocals"], "weight": 2},
    }
    for path, content in described.items():
        text = path.read_text() if content is None else json.dumps(content, ensure_ascii=False)
        path.write_bytes(text.encode(encoding))
    (source,) = DATASETS["moisesdb"].find(tmp_path / "moisesdb", FOUR)
    assert (source.name, list(source.files)) == ("B\u00e9la", ["vocals"])
    (source,) = DATASETS["index"].find(tmp_path / "index.json", FOUR)
    assert (source.name, list(source.files)) == ("B\u00e9la", ["bass"])
    (source,) = DATASETS["songs"].find(tmp_path / "songs", FOUR)
    assert (source.silent, source.weight) == (("vocals",), 2)
    (track,) = find_songs(tmp_path / "songs", "train")
    assert track.stems == ("vocals", "drums")


def test_problems_of_moisesdb_are_reported(tmp_path: Path) -> None:
    kind = DATASETS["moisesdb"]
    with pytest.raises(AudioError, match="there is no MoisesDB in"):
        kind.find(tmp_path, FOUR)
    add_song(tmp_path, "a", {"vocals": 1, "drums": 2}, seed=1)
    with pytest.raises(AudioError, match="MoisesDB has no stem 'strings': expected some of vocals"):
        kind.find(tmp_path, ("vocals", "strings"))
    (tmp_path / "a" / "drums" / "a-drums-1.wav").unlink()
    with pytest.raises(AudioError, match=r"names a file that does not exist: .*a-drums-1\.wav"):
        kind.find(tmp_path, FOUR)
    (tmp_path / "a" / "data.json").write_text("{}")
    with pytest.raises(AudioError, match=r"data\.json cannot be understood"):
        kind.find(tmp_path, FOUR)


@pytest.fixture
def index(tmp_path: Path) -> tuple[Path, list[np.ndarray]]:
    """Two songs: every way to name files, and one of the test split with a mixture."""
    signals = [write(tmp_path / "audio" / f"{n}.wav", n) for n in range(6)]
    first = {
        "vocals": ["audio/0.wav", MD5],
        "drums_path": "audio/1.wav",
        "other": [["audio/2.wav", MD5], ["audio/3.wav", None]],
        "silent": ["bass"],
        "f0": ["annotations/f0.csv", MD5],
    }
    second = {"vocals_audio": "audio/4.wav", "mixture": ["audio/5.wav", MD5], "split": "test"}
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"version": "1.0", "tracks": {"one": first, "two": second}}))
    return path, signals


def test_an_index_is_trained_on_without_its_test_split(
    index: tuple[Path, list[np.ndarray]], tmp_path: Path
) -> None:
    path, signals = index
    (source,) = DATASETS["index"].find(path, FOUR)
    assert (source.name, source.split, source.silent) == ("one", "train", ("bass",))
    (recording,) = load([source], tmp_path / "cache")
    expected = {"vocals": signals[0], "drums": signals[1], "other": signals[2] + signals[3]}
    assert set(recording.names) == set(expected)
    for stem, signal in expected.items():
        np.testing.assert_allclose(stem_of(recording, stem), signal, atol=1 / 32768)


def test_an_index_is_scored_by_split(index: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    path, signals = index
    (track,) = find_in_index(path)
    audio = read_track(track)
    assert track.stems == ("vocals", "accompaniment")
    (other,) = find_in_index(path, "train", stems=("vocals", "drums"))  # not its silent bass
    assert other.stems == ("vocals", "drums")
    np.testing.assert_array_equal(audio.mixture, signals[5])
    np.testing.assert_allclose(audio.references["accompaniment"], signals[5] - signals[4])
    (track,) = find_in_index(path, "train")
    assert track.stems == FOUR
    command = ["eval", "--index", str(path), "--subset", "train", "--no-figures", "--json"]
    command += ["--estimates", str(tmp_path / "none"), "--baselines", "oracle-1"]
    estimates = tmp_path / "none" / "one"
    for stem, signal in zip(("vocals", "drums"), signals, strict=False):
        estimates.mkdir(parents=True, exist_ok=True)
        soundfile.write(estimates / f"{stem}.wav", (signal + signals[5] / 4).T, RATE, "FLOAT")
    result = call(*command, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    scores = json.loads(result.stdout)["methods"]
    found = {each["name"]: each["scores"]["SDR"]["vocals"]["value"] for each in scores}
    assert found["none"] == pytest.approx(20 * np.log10(4), abs=1)
    assert found["oracle-1"] > 0


def test_names_of_songs_cannot_lead_out_of_the_output(tmp_path: Path) -> None:
    entry = {"split": "test"}
    for number, stem in enumerate(("vocals", "drums")):
        write(tmp_path / "audio" / f"{stem}.wav", number)
        entry[stem] = f"audio/{stem}.wav"
    path, out = tmp_path / "index.json", tmp_path / "deep" / "out"
    names = ("../../../escaped", "a/b", "..\\c", "plain. name")
    path.write_text(json.dumps({"tracks": dict.fromkeys(names, entry)}))
    settings = Settings(out)
    found = evaluate(find_in_index(path), baseline_methods("mixture"), settings)
    assert [each.track for each in found] == list(names)
    assert sorted(tmp_path.rglob("*.json")) == sorted(
        [path, *(out / "mixture" / "test" / f"{name}.json" for name in (
            ".._.._.._escaped", "a_b", ".._c", "plain. name"
        ))]
    )  # fmt: skip
    assert len(compare(out / "mixture", out / "mixture").differences) == 2
    path.write_text(json.dumps({"tracks": dict.fromkeys(("a/b", "a_b"), entry)}))
    with pytest.raises(ValueError, match="two tracks are called 'a_b'"):
        evaluate(find_in_index(path), baseline_methods("mixture"), settings)


def test_keys_and_missing_files_of_mirdata_are_understood(tmp_path: Path) -> None:
    """As in Saraga: recordings of a concert, some of which there are no files of."""
    write(tmp_path / "a.vocal.wav", 0)
    write(tmp_path / "a.left.wav", 1)
    entry = {
        "audio-mix": ["a.wav", MD5],
        "audio-vocal": ["a.vocal.wav", MD5],
        "audio-mridangam-left": ["a.left.wav", MD5],
        "audio-violin": [None, None],
        "audio-ghatam": None,
        "pitch-vocal": ["a.pitch.txt", MD5],
    }
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"version": "1.5", "tracks": {"1_a": entry}}))
    stems = ("vocal", "mridangam_left", "violin", "ghatam")
    (source,) = DATASETS["index"].find(path, stems)
    assert (list(source.files), source.silent) == (["vocal", "mridangam_left"], ())
    with pytest.raises(AudioError, match=r"names a file that does not exist: .*a\.wav"):
        find_in_index(path, "train", stems=stems)  # which wants the mixture


def test_multitracks_of_mirdata_become_songs(tmp_path: Path) -> None:
    """As in the Jazz Trio Database, where a track is a stem, and in PHENICX with its desks."""
    signals = {
        name: write(tmp_path / "audio" / f"{name}.wav", seed)
        for seed, name in enumerate(("bass", "drums", "piano", "horn1", "horn2", "mix"))
    }
    tracks = {
        f"one-1990_{name}": {"audio": [f"audio/{name}.wav", MD5], "midi": None}
        for name in ("bass", "drums", "piano")
    }
    tracks["one-1990-horn"] = {
        f"audio_horn{desk}": [f"audio/horn{desk}.wav", MD5] for desk in (1, 2)
    }
    song = {"tracks": list(tracks), "audio": ["audio/mix.wav", MD5], "audio-lchan": None}
    path = tmp_path / "index.json"
    path.write_text(json.dumps({"tracks": tracks, "multitracks": {"one-1990": song}}))
    (track,) = find_in_index(path, "train")
    audio = read_track(track)
    np.testing.assert_allclose(audio.mixture, signals["mix"])
    np.testing.assert_allclose(audio.references["bass"], signals["bass"])
    rest = sum(signals[name] for name in ("piano", "horn1", "horn2"))
    np.testing.assert_allclose(audio.references["other"], rest, atol=1e-6)
    assert not audio.references["vocals"].any()
    (source,) = DATASETS["index"].find(path, ("piano", "horn"))
    assert [(stem, file.stem) for stem, file in source.parts] == [
        ("piano", "piano"), ("horn", "horn1"), ("horn", "horn2")
    ]  # fmt: skip
    # Slakh's tracks have numbers: nothing says which is the bass.
    numbered = {f"one-1990-S{n:02}": entry for n, entry in enumerate(tracks.values())}
    content = {"tracks": numbered, "multitracks": {"one-1990": song | {"tracks": list(numbered)}}}
    path.write_text(json.dumps(content))
    with pytest.raises(AudioError, match="names no songs with any of vocals, drums"):
        DATASETS["index"].find(path, FOUR)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "is not an index, expected"),
        ('{"tracks": {"a": {"vocals": "none.wav"}}}', "names a file that does not exist"),
        ('{"tracks": {"a": {"vocals": 3}}}', "3 is neither a path nor a list of paths"),
        ('{"tracks": {"a": {"split": "dev"}}}', "a: the split is 'dev', expected one of train"),
        (
            '{"tracks": {"a": {"silent": ["basss"]}}}',
            "a: silent 'basss' is not a stem: expected voc",
        ),
        ('{"tracks": {"a": {"voice": "x.wav"}}}', "names no songs with any of vocals"),
    ],
)
def test_problems_of_an_index_are_reported(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(AudioError, match=message):
        DATASETS["index"].find(tmp_path / "index.json", FOUR)


def test_eval_refuses_two_sets_of_songs(index: tuple[Path, list[np.ndarray]]) -> None:
    for options, message in (
        (["--index", str(index[0]), "--moisesdb", "x"], "choose one of --musdb-root, --songs"),
        (["--songs", "x", "--stems", "vocals"], "--stems is for --moisesdb and --index"),
    ):
        result = call("eval", *options)
        assert message in result.output
        assert result.exit_code != 0


def test_audio_of_a_test_folder_is_never_trained_on(tmp_path: Path) -> None:
    """However it is reached: by any kind of data set, from above, from within, or by a link."""
    songs, pools = tmp_path / "a" / "test" / "songs", tmp_path / "a" / "Test" / "pools"
    for root, place in (
        (songs, "train/t0/vocals.wav"),
        (pools, "vocals/take.wav"),
        (tmp_path / "b", "train/test/vocals.wav"),
        (tmp_path / "c", "test/t0/vocals.wav"),
        (tmp_path / "d", "test/t0/vocals.wav"),
    ):
        write(root / place, 1)
    add_song(tmp_path / "a" / "test" / "moisesdb", "m", {"vocals": 1, "bass": 1}, seed=1)
    (tmp_path / "c" / "train").symlink_to("test")
    (tmp_path / "d" / "train").mkdir()
    (tmp_path / "d" / "train" / "t0").symlink_to("../test/t0")
    index, within = tmp_path / "index.json", tmp_path / "a" / "test" / "index.json"
    index.write_text(json.dumps({"tracks": {"t0": {"vocals": "c/test/t0/vocals.wav"}}}))
    within.write_text(json.dumps({"tracks": {"t0": {"vocals": "songs/train/t0/vocals.wav"}}}))
    cases = [("songs", songs), ("pools", pools), ("index", index), ("index", within)]
    cases += [("moisesdb", tmp_path / "a" / "test" / "moisesdb")]
    cases += [("songs", tmp_path / letter) for letter in "bcd"]
    for kind, root in cases:
        with pytest.raises(AudioError, match=r"is of a test set, .* if it merely lies there, move"):
            load_recordings(find_data({kind: [root]}, tmp_path / "cache"))
    assert find_moisesdb(tmp_path / "a" / "test" / "moisesdb")[0].files


def test_a_song_called_test_is_refused_with_the_advice_to_rename(tmp_path: Path) -> None:
    for song in ("One", "Test"):
        for stem in ("vocals", "drums", "bass", "other"):
            write(tmp_path / "train" / song / f"{stem}.wav", 1)
    first = tmp_path / "train" / "Test" / "bass.wav"
    with pytest.raises(
        AudioError, match=rf"{re.escape(str(first))} is of .* move it or rename the folder"
    ):
        load_recordings(find_data({"songs": [tmp_path]}, tmp_path / "cache"))
