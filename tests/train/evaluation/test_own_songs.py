"""Songs and files of one's own are scored like those of MUSDB18, whatever their stems."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.commands import call
from tests.signals import RATE, noise
from unetsep.config import ModelConfig
from unetsep.errors import AudioError
from unetsep.network.unet import UNet
from unetsep.train.data.song_folders import SongFolders
from unetsep.train.evaluation.estimates import baseline_methods, model_method
from unetsep.train.evaluation.evaluate import Settings, evaluate
from unetsep.train.evaluation.own_songs import find_songs, read_pairs
from unetsep.train.evaluation.sdr import frame_sdr
from unetsep.train.evaluation.tracks import choose_tracks, read_track
from unetsep.weights.checkpoint import serialize


def write(path: Path, seed: int, *, channels: int = 2, samples: int = 2 * RATE) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    signal = (noise(seed, samples) / 8)[:channels]
    soundfile.write(path, signal.T, RATE, subtype="FLOAT")
    return signal.astype(np.float32)


@pytest.fixture
def songs(tmp_path: Path) -> Path:
    """One song of voice and band, one of a voice that is shorter and mono, one without voice."""
    base = tmp_path / "songs"
    for number, name in enumerate(("a", "b", "c")):
        write(base / "test" / name / "band.wav", 10 * number)
    write(base / "test" / "a" / "voice.wav", 1)
    write(base / "test" / "b" / "voice.wav", 2, channels=1, samples=RATE)
    (base / "test" / "c" / "song.json").write_text(json.dumps({"silent": ["voice"]}))
    return base


def test_the_mixture_is_the_sum_of_stems_of_any_names(songs: Path) -> None:
    a, b, c = find_songs(songs, "test")
    assert a.stems == b.stems == c.stems == ("band", "voice")
    audio = read_track(b)
    assert audio.mixture.shape == (2, 2 * RATE)
    np.testing.assert_array_equal(audio.references["voice"][0], audio.references["voice"][1])
    assert not audio.references["voice"][:, RATE:].any()
    np.testing.assert_allclose(audio.mixture, sum(audio.references.values()), atol=1e-7)
    assert not read_track(c).references["voice"].any()


def test_a_mixture_file_is_read_unchanged(songs: Path) -> None:
    mastered = write(songs / "test" / "a" / "mixture.wav", 99)
    (track, *_) = choose_tracks(find_songs(songs, "test"), ["a"])
    np.testing.assert_array_equal(read_track(track).mixture, mastered)
    assert track.stems == ("band", "voice")


def test_a_model_of_the_same_stems_is_scored(songs: Path, tmp_path: Path) -> None:
    config = ModelConfig(stems=("voice", "band"), filters=(2,) * 6, segment_frames=64)
    (tmp_path / "two.safetensors").write_bytes(serialize(UNet(config)))
    method = model_method([str(tmp_path / "two.safetensors")])
    tracks = find_songs(songs, "test")
    outcomes = evaluate(tracks, [method], Settings(tmp_path / "out"))
    audio = read_track(tracks[0])
    found = method.estimate(tracks[0], audio)
    expected = frame_sdr(
        *(np.stack([x[s] for s in tracks[0].stems]) for x in (audio.references, found))
    )
    assert outcomes[0].scores is not None
    np.testing.assert_allclose(outcomes[0].scores.values["SDR"], expected, atol=1e-4)
    assert outcomes[2].scores is not None
    assert outcomes[2].scores.silent == ("voice",)


def test_a_pair_is_a_mixture_and_one_stem(tmp_path: Path) -> None:
    vocals, rest = write(tmp_path / "vox.wav", 1), write(tmp_path / "rest.wav", 2)
    soundfile.write(tmp_path / "song.wav", (vocals + rest).T, RATE, subtype="FLOAT")
    (tmp_path / "pairs.csv").write_text("mixture,vocals\nsong.wav,vox.wav\n")
    (track,) = read_pairs(tmp_path / "pairs.csv")
    assert (track.name, track.stems) == ("song", ("vocals", "accompaniment"))
    np.testing.assert_allclose(read_track(track).references["accompaniment"], rest, atol=1e-6)
    (outcome,) = evaluate([track], baseline_methods("oracle-2"), Settings(tmp_path / "out"))
    assert outcome.scores is not None
    assert outcome.scores.median("vocals") > 0


def test_pairs_with_mixtures_of_one_name_are_named_by_their_folders(tmp_path: Path) -> None:
    rows = ["mixture,vocals,drums"]
    for song, mixture in (("a", "mix"), ("b", "mix"), ("c", "mixture"), ("d", "song")):
        names = [f"{song}/{name}.wav" for name in (mixture, "vocals", "drums")]
        for seed, name in enumerate(names):
            write(tmp_path / name, seed)
        rows.append(",".join(names))
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    assert [track.name for track in read_pairs(tmp_path / "pairs.csv")] == ["a", "b", "c", "song"]
    assert [t.name for t in choose_tracks(read_pairs(tmp_path / "pairs.csv"), ["b"])] == ["b"]


def test_pairs_with_folders_of_one_name_are_named_by_the_parents_too(
    tmp_path: Path,
) -> None:
    rows = ["mixture,vocals"]
    for folder in ("one/live", "two/live", "x/three/cd", "y/three/cd", "four/demo"):
        for stem in ("mixture", "vocals"):
            write(tmp_path / folder / f"{stem}.wav", 1)
        rows.append(f"{folder}/mixture.wav,{folder}/vocals.wav")
    (tmp_path / "pairs.csv").write_text("\n".join([*rows, rows[-1]]))
    assert [track.name for track in read_pairs(tmp_path / "pairs.csv")][:4] == [
        "one - live",
        "two - live",
        "x - three - cd",
        "y - three - cd",
    ]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    assert read_pairs(tmp_path / "pairs.csv")[-1].name == "demo"


def test_a_pair_whose_path_leads_upwards_is_named_by_its_folder(tmp_path: Path) -> None:
    for stem in ("mixture", "vocals"):
        write(tmp_path / "song" / f"{stem}.wav", 1)
    path = tmp_path / "song" / "lists" / "pairs.csv"
    path.parent.mkdir()
    path.write_text("mixture,vocals\n../mixture.wav,../vocals.wav\n")
    assert [track.name for track in read_pairs(path)] == ["song"]


def test_an_empty_cell_of_a_pair_is_a_silent_stem(tmp_path: Path) -> None:
    write(tmp_path / "song.wav", 1)
    write(tmp_path / "vox.wav", 2)
    (tmp_path / "pairs.csv").write_text("mixture,vocals,drums\nsong.wav,vox.wav,\n")
    (track,) = read_pairs(tmp_path / "pairs.csv")
    assert track.stems == ("vocals", "drums")
    assert not read_track(track).references["drums"].any()
    assert read_track(track).references["vocals"].any()
    (tmp_path / "pairs.csv").write_text("mixture,vocals,accompaniment\nsong.wav,vox.wav,\n")
    (track,) = read_pairs(tmp_path / "pairs.csv")
    assert not read_track(track).references["accompaniment"].any()


def test_a_stem_declared_silent_is_not_filled_with_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "test" / "a"
    write(folder / "vocals.wav", 1)
    write(folder / "mixture.wav", 2)
    (folder / "song.json").write_text(json.dumps({"silent": ["drums"]}))
    (track,) = find_songs(tmp_path, "test")
    assert track.stems == ("vocals", "drums")
    assert not read_track(track).references["drums"].any()


def test_other_audio_of_the_same_length_is_scored_again(tmp_path: Path) -> None:
    def score() -> bool:
        tracks = read_pairs(tmp_path / "pairs.csv")
        (outcome,) = evaluate(tracks, baseline_methods("mixture"), Settings(tmp_path / "out"))
        assert outcome.scores is not None
        return outcome.reused

    for number, name in enumerate(("song", "a", "b")):
        write(tmp_path / f"{name}.wav", number)
    (tmp_path / "pairs.csv").write_text("mixture,vocals,drums\nsong.wav,a.wav,b.wav\n")
    assert [score(), score()] == [False, True]
    write(tmp_path / "a.wav", 9)
    assert [score(), score()] == [False, True]
    (tmp_path / "pairs.csv").write_text("mixture,drums,vocals\nsong.wav,a.wav,b.wav\n")
    assert [score(), score()] == [False, True]
    (tmp_path / "pairs.csv").write_text("mixture,drums,bass\nsong.wav,a.wav,b.wav\n")
    assert [score(), score()] == [False, True]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a list of pairs: .* got no rows"),
        ("mixture\nsong.wav\n", "is not a list of pairs: .* got mixture"),
        ("mixture,vocals,drums\nsong.wav,vox.wav\n", "line 2: there is no cell for drums; leave"),
        ("mixture,vocals\nsong.wav,vox.wav\n", "line 2: there is no file .*song.wav"),
        ("mixture,vocals,vocals\na.wav,b.wav,c.wav\n", "has two columns vocals: name each stem"),
        ("mixture,vocals\na, b.wav,c.wav\n", "line 2: there are more cells than columns; put"),
    ],
)
def test_an_invalid_list_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(content)
    with pytest.raises(AudioError, match=message):
        read_pairs(tmp_path / "pairs.csv")


def test_folders_without_usable_songs_are_refused(songs: Path, tmp_path: Path) -> None:
    (songs / "test").rename(songs / "train")
    with pytest.raises(AudioError, match=r"there are no songs in .*; --subset train takes"):
        find_songs(songs, "test")
    assert len(find_songs(songs, "train")) == 3
    with pytest.raises(ValueError, match="has the subsets test and train"):
        find_songs(songs, "valid")
    write(tmp_path / "one" / "test" / "a" / "voice.wav", 0)
    with pytest.raises(AudioError, match="has 1 stems: expected two or more"):
        find_songs(tmp_path / "one", "test")


def test_songs_are_read_as_training_reads_them(songs: Path, tmp_path: Path) -> None:
    """Whose stems are known, unlike here: names in whatever case, one file for each of them."""
    expected = [(track.name, track.stems) for track in find_songs(songs, "test")]
    song = songs / "test" / "b"
    (song / "voice.wav").rename(song / "Voice.WAV")
    (song / "takes").mkdir()
    write(song / "takes" / "kick.wav", 3)
    (songs / "test" / "c" / "song.json").write_text(json.dumps({"silent": ["VOICE"]}))
    assert [(track.name, track.stems) for track in find_songs(songs, "test")] == expected

    def train() -> None:
        SongFolders().find(tmp_path / "copy", ("voice", "band"))

    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "train").symlink_to(songs / "test")
    (songs / "test" / "c" / "song.json").unlink()
    train()
    for name, message in (
        ("voice.flac", r"has two files of voice, Voice.WAV and voice.flac: keep one"),
        ("Band.flac", r"has two files of band, Band.flac and band.wav: keep one"),
    ):
        soundfile.write(song / name, np.zeros((RATE, 2)), RATE)
        for read in (train, lambda: find_songs(songs, "test")):
            with pytest.raises(AudioError, match=message):
                read()
        (song / name).unlink()
    for content in ({"silent": "voice"}, {"silent": [1]}, {"silent": None}, {"weight": 0}, []):
        (song / "song.json").write_text(json.dumps(content))
        for read in (train, lambda: find_songs(songs, "test")):
            with pytest.raises(AudioError, match=r"song.json"):
                read()


def test_stems_may_have_any_format(tmp_path: Path) -> None:
    for folder in ("test", "train"):
        write(tmp_path / folder / "a" / "vocals.aiff", 1)
        write(tmp_path / folder / "a" / "bass.wav", 2)
        (tmp_path / folder / "a" / "drums.m4a").touch()
    stems = ("vocals", "drums", "bass")
    (track,) = find_songs(tmp_path, "test")
    (source,) = SongFolders().find(tmp_path, stems)
    assert track.stems == stems
    assert {*source.files} == {*stems}


def test_usual_stems_have_their_usual_names(tmp_path: Path) -> None:
    for name in ("Vocals", "DRUMS", "Mixture", "Accordion"):
        write(tmp_path / "test" / "a" / f"{name}.wav", 1)
    (track,) = find_songs(tmp_path, "test")
    assert track.stems == ("vocals", "drums", "Accordion")
    assert {name for name, _ in track.named_files} == {"mixture", "vocals", "drums", "Accordion"}


def test_companion_files_of_macos_are_no_stems(songs: Path) -> None:
    before = find_songs(songs, "test")
    (songs / "test" / "a" / "._voice.wav").write_bytes(b"\0\5\x16\7")
    (songs / "test" / "._a").write_bytes(b"\0\5\x16\7")
    assert find_songs(songs, "test") == before


def test_files_of_different_rates_are_refused(songs: Path) -> None:
    soundfile.write(songs / "test" / "a" / "voice.wav", np.zeros((100, 2)), 48_000)
    with pytest.raises(AudioError, match=r"differ in sample rate .band 44100, voice 48000 Hz"):
        read_track(find_songs(songs, "test")[0])


def test_the_command_scores_songs(songs: Path, tmp_path: Path) -> None:
    estimates = tmp_path / "perfect"
    (songs / "test" / "c").rename(tmp_path / "c")
    write(songs / "test" / "b" / "voice.wav", 2)  # estimates have the channels of the song
    estimates.symlink_to(songs / "test")
    words = ["eval", "--songs", songs, "-o", tmp_path / "out", "--estimates", estimates]
    result = call(*words, "--baselines", "mixture-4", "--no-figures", "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["data"].startswith("2 test songs of songs")
    assert [each["stems"] for each in content["methods"]] == [["band", "voice"]] * 2
    one = call(*words, "--baselines", "none", "--tracks", "1", "--no-figures", "--json")
    assert json.loads(one.stdout)["data"] == "1 test song of songs, 2 s scored of each"
    shown = call(*words, "--baselines", "mixture-4", "--no-figures")
    assert "SDR (dB)" in shown.stdout
    assert "Published elsewhere" not in shown.stdout
    both = call(*words, "--pairs", "x.csv")
    assert both.exit_code == 1
    assert "choose one of --musdb-root, --songs, --pairs" in both.output


def test_warnings_of_the_decoder_are_logged(songs: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = songs / "test" / "a" / "voice.ogg"
    soundfile.write(path, noise(3, 2 * RATE).T / 8, RATE)
    path.with_suffix(".wav").unlink()
    path.write_bytes(path.read_bytes()[:-20])
    read_track(choose_tracks(find_songs(songs, "test"), ["a"])[0])
    (message,) = caplog.messages
    assert "voice.ogg has no end mark" in message


def test_folders_within_a_song_are_not_opened(songs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(songs / "test" / "a" / "takes" / "band.wav", 4)
    opened, listed = [], Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: opened.append(path.name) or listed(path))
    find_songs(songs, "test")
    assert sorted(opened) == ["a", "b", "c", "test"]
