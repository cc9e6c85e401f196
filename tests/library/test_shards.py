from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from tests.commands import call
from tests.signals import RATE, music
from unetsep.audio.tag_writers import write_tags
from unetsep.audio.tags import Tags
from unetsep.inputs import Input
from unetsep.library.shards import Shard, parse_shard
from unetsep.paths import TEMPLATE, target_path


def songs(count: int) -> list[Input]:
    return [Input(Path(f"in/{i % 7}/song {i}.flac"), f"{i % 7}/song {i}") for i in range(count)]


@pytest.mark.parametrize("count", [1, 3, 20, 1000])
def test_shards_are_disjoint_and_together_hold_every_song(count):
    everything = songs(500)
    shares = [Shard(k, count).select(everything) for k in range(1, count + 1)]
    tracks = [song.track for share in shares for song in share]
    assert len(tracks) == 500
    assert set(tracks) == {song.track for song in everything}


def test_shards_have_about_the_same_size():
    everything = songs(20_000)
    sizes = [len(Shard(k, 20).select(everything)) for k in range(1, 21)]
    # Binomial: 1000 with a standard deviation of 31.
    assert min(sizes) > 850
    assert max(sizes) < 1150


def test_adding_songs_moves_no_other_song():
    few, many = songs(100), songs(1000)
    for k in range(1, 8):
        before = {song.track for song in Shard(k, 7).select(few)}
        after = {song.track for song in Shard(k, 7).select(many)}
        assert before == after & {song.track for song in few}


def test_a_song_stays_in_its_shard_in_every_version():
    # Written down: a batch that is resumed by a later version must not deal its songs anew.
    assert [k for k in range(1, 21) if Shard(k, 20).holds("album/song")] == [1]
    assert [k for k in range(1, 21) if Shard(k, 20).holds("Bj\xf6rk/J\xf3ga")] == [9]


@pytest.mark.parametrize(
    ("track", "other"),
    [("{}", "{} "), ("album/{}", "album. /{}..."), ("{}_", "{}\t"), ("_/{}", ". /{}")],
)
def test_songs_whose_stems_would_have_the_same_names_are_in_one_shard(track, other):
    for number in range(20):
        tracks = [text.format(number) for text in (track, other)]
        songs = [Input(Path("song.wav"), each) for each in tracks]
        assert len({target_path(TEMPLATE, each, "bass", "wav", "m") for each in songs}) == 1
        assert len({Shard(1, 2).holds(each) for each in tracks}) == 1


def test_every_shard_reports_a_missing_input():
    missing = [Input(Path("nowhere"), "nowhere", "nowhere does not exist")]
    assert all(Shard(k, 5).select(missing) == missing for k in range(1, 6))


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "3", "a/b", "1/2/3", "-1/3", ""])
def test_a_shard_that_does_not_exist_is_refused(text):
    with pytest.raises(ValueError, match=r"such as 3/20|expected 3/20"):
        parse_shard(text)
    result = call("separate", "song.wav", "--shard", text)
    assert result.exit_code == 2
    assert "3/20" in result.stderr


def test_commands_of_all_shards_separate_each_song_once_and_an_empty_one_exits_0(
    tmp_path, tiny_model
):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        soundfile.write(source / f"{name}.wav", music(0.2).T, RATE)
    said = []
    for k in range(1, 6):
        words = ["separate", source, "-o", out, "-m", tiny_model, "-d", "cpu", "--shard", f"{k}/5"]
        result = call(*words)
        assert result.exit_code == 0, result.stderr
        said.append(next(x for x in result.stderr.splitlines() if x.startswith(f"Shard {k}/5")))
    counts = [0 if "none of 3" in line else int(line.split(": ")[1].split()[0]) for line in said]
    # None exists already when its shard comes: that would have been an error.
    assert sum(counts) == 3
    assert 0 in counts
    assert len(list(out.rglob("vocals.wav"))) == 3


def test_no_shard_overwrites_the_song_of_another(tmp_path, tiny_model):
    # a.wav makes a/vocals.wav, which is the song of another shard.
    (tmp_path / "a").mkdir()
    for name in ("a.wav", "a/vocals.wav"):
        soundfile.write(tmp_path / name, music(0.2).T, RATE)
    before = (tmp_path / "a/vocals.wav").read_bytes()
    (k,) = [k for k in range(1, 10) if Shard(k, 9).holds("a")]
    assert not Shard(k, 9).holds("a/vocals")
    words = ["separate", tmp_path, "-o", tmp_path, "-m", tiny_model, "-d", "cpu", "--overwrite"]
    result = call(*words, "--shard", f"{k}/9")
    assert result.exit_code == 1
    assert "would be written over an input" in result.stderr
    assert (tmp_path / "a/vocals.wav").read_bytes() == before


@pytest.mark.parametrize("template", ["{artist}/{title}/{stem}.{ext}", "{suffix}/{stem}.{ext}"])
def test_songs_with_stems_of_one_name_are_refused_in_both_shards(tmp_path, tiny_model, template):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name, title in (("a", "T"), ("b", "T"), ("c", "U")):
        path = source / f"{name}.{'wav' if name == 'c' else 'flac'}"
        soundfile.write(path, music(0.2).T, RATE)
        write_tags(path, path.suffix[1:], Tags({"artist": ("A",), "title": (title,)}))
    numbers = {name: next(k for k in range(1, 22) if Shard(k, 21).holds(name)) for name in "abc"}
    assert len(set(numbers.values())) == 3
    words = ["separate", source, "-o", out, "-m", tiny_model, "-d", "cpu", "--overwrite"]
    for name, k in numbers.items():
        more = ["--filename", template, "--shard", f"{k}/21"]
        result = call(*words, *more)
        assert f"Shard {k}/21: 1 of 3 songs" in result.stderr
        assert result.exit_code == (name != "c"), result.stderr
        assert ("a.flac and" in result.stderr) == (name != "c")
    assert len(list(out.rglob("vocals.wav"))) == 1


def test_songs_with_one_name_of_folder_and_track_are_refused_in_both_shards(tmp_path, tiny_model):
    songs = [tmp_path / name for name in ("a-b/c.wav", "a/b-c.wav")]
    for song in songs:
        song.parent.mkdir()
        soundfile.write(song, music(0.2).T, RATE)
    words = ["separate", *songs, "-o", tmp_path / "out", "-m", tiny_model, "-d", "cpu", "--dry-run"]
    numbers = [next(k for k in range(1, 22) if Shard(k, 21).holds(song.stem)) for song in songs]
    assert len(set(numbers)) == 2
    for k in numbers:
        template = "{folder}-{track}/{stem}.{ext}"
        result = call(*words, "--filename", template, "--shard", f"{k}/21")
        assert result.exit_code == 1
        assert "c.wav would both be written to" in result.stderr
