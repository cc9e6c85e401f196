from __future__ import annotations

import sys
from pathlib import Path

import pytest

import unetsep.paths
from unetsep.errors import AudioError, UnetsepError
from unetsep.paths import (
    TEMPLATE,
    Input,
    check_template,
    find_inputs,
    plan,
    refuse_existing,
    target_path,
)

STEMS = ("vocals", "drums")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def one(songs, folder, template=TEMPLATE, models=(("mse", STEMS),)):
    return plan(songs, models, folder, template, "wav")


def test_folders_are_searched_in_order_without_hidden_files_and_output(tmp_path):
    names = ["b.wav", "a.mp3", "sub/c.FLAC", "sub/deep/d.m4a"]
    passed_over = [".h.wav", ".git/x.wav", "notes.txt", "out/a/vocals.wav", "cover.jpg"]
    touch(*(tmp_path / name for name in names + passed_over))
    songs = find_inputs([tmp_path], tmp_path / "out")
    assert [song.track for song in songs] == ["a", "b", "sub/c", "sub/deep/d"]
    assert not any(song.error for song in songs)


def test_a_file_that_is_named_twice_is_separated_once(tmp_path):
    touch(tmp_path / "a.wav")
    assert len(find_inputs([tmp_path / "a.wav", tmp_path, tmp_path / "a.wav"], tmp_path / "o")) == 1


def test_what_is_not_there_becomes_a_song_with_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    songs = find_inputs([tmp_path / "gone.wav", tmp_path / "empty"], tmp_path / "out")
    assert "does not exist" in songs[0].error
    assert "is a folder without audio files" in songs[1].error


def test_folders_that_link_to_themselves_end(tmp_path):
    touch(tmp_path / "in/a.wav")
    try:
        (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    except OSError:
        pytest.skip("no links here")
    assert len(find_inputs([tmp_path / "in"], tmp_path / "out")) == 1


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        ("a.b.c", "a.b.c"),
        ("ends in dot.", "ends in dot"),
        ("ends in blank ", "ends in blank"),
        (" begins in blank", " begins in blank"),
        ("...", "_"),
        ("dir. /song .", "dir/song"),
        ("tab\there", "tab_here"),
        ("naïve 歌", "naïve 歌"),
        ("{stem}", "{stem}"),
    ],
)
def test_names_suit_every_file_system(track, expected):
    path = target_path(TEMPLATE, track, "vocals", "wav", "mse")
    assert path == Path(expected) / "vocals.wav"


def test_reserved_names_of_windows_are_avoided_there(monkeypatch):
    monkeypatch.setattr(unetsep.paths.os, "name", "nt")
    portable = unetsep.paths._portable
    assert [portable(n) for n in ("CON", "nul.wav", "com1", "song?", "console")] == [
        "CON_",
        "nul.wav_",
        "com1_",
        "song_",
        "console",
    ]


def test_every_field_of_a_template_is_filled():
    template = "{model}/{track} ({suffix})/{stem}.{ext}"
    assert target_path(template, "s", "bass", "flac", "l1", "mp3") == Path("l1/s (mp3)/bass.flac")


@pytest.mark.parametrize(
    "template",
    [
        "{}",
        "{0}",
        "{song}",
        "{track.x}",
        "{track",
        "{track:>9}",
        "{track!r}",
        "/a/{stem}",
        "../{stem}",
        "a/../../{stem}",
    ],
)
def test_templates_that_cannot_work_are_value_errors(template):
    with pytest.raises(ValueError, match="filename template"):
        check_template(template)


def test_songs_of_one_name_collide_before_any_work(tmp_path):
    songs = [Input(tmp_path / "a/x.wav", "x"), Input(tmp_path / "b/x.flac", "x")]
    with pytest.raises(UnetsepError, match=r"x\.wav and .*x\.flac would both be written"):
        one(songs, tmp_path / "out")
    assert len(one(songs, tmp_path / "out", "{track}-{suffix}/{stem}.{ext}")) == 2


@pytest.mark.parametrize(("platform", "collide"), [("linux", False), ("darwin", True)])
def test_names_that_differ_in_case_collide_where_the_file_system_thinks_so(
    tmp_path, monkeypatch, platform, collide
):
    monkeypatch.setattr(sys, "platform", platform)
    songs = [Input(tmp_path / "a/Été.wav", "Été"), Input(tmp_path / "b/e.wav", "e\u0301te\u0301")]
    if collide:
        with pytest.raises(UnetsepError, match="would both be written"):
            one(songs, tmp_path / "out")
    else:
        assert len(one(songs, tmp_path / "out")) == 2


def test_a_song_with_an_error_collides_with_nothing(tmp_path):
    songs = [Input(tmp_path / "x.wav", "x"), Input(tmp_path / "b/x.wav", "x", "does not exist")]
    assert len(one(songs, tmp_path / "out")) == 2


def test_stems_must_have_different_names(tmp_path):
    with pytest.raises(UnetsepError, match=r"several stems .* name \{stem\} in --filename"):
        one([Input(tmp_path / "x.wav", "x")], tmp_path / "out", "{track}.{ext}")


def test_an_input_is_never_an_output(tmp_path):
    touch(tmp_path / "x.wav")
    with pytest.raises(UnetsepError, match="would be written over an input"):
        one(
            [Input(tmp_path / "x.wav", "x")],
            tmp_path / "sub" / "..",
            "{track}.{ext}",
            (("mse", ("vocals",)),),
        )


def test_several_models_get_folders_unless_the_template_names_them(tmp_path):
    songs, models = [Input(tmp_path / "x.wav", "x")], [("mse", ["bass"]), ("l1", ["bass"])]
    out = tmp_path / "out"
    assert plan(songs, models, out, TEMPLATE, "wav") == [
        [[out / "mse/x/bass.wav"], [out / "l1/x/bass.wav"]]
    ]
    assert plan(songs, models, out, "{track}/{stem}-{model}.{ext}", "wav")[0][1] == [
        out / "x/bass-l1.wav"
    ]


def test_output_that_is_a_file_is_refused(tmp_path):
    touch(tmp_path / "out")
    with pytest.raises(UnetsepError, match="is a file: name a folder with -o"):
        one([], tmp_path / "out")


def test_existing_files_are_counted(tmp_path):
    refuse_existing([tmp_path / "a", tmp_path / "b"])
    touch(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AudioError, match=r"a \(and 1 more\) exists already"):
        refuse_existing([tmp_path / "a", tmp_path / "b"])
