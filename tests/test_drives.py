from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import unetsep.drives
from tests.files import take_for_one, touch
from unetsep.drives import FileMap, Listings, NameRules, path_problem


def test_a_path_has_the_names_that_folders_list(tmp_path, monkeypatch):
    touch(tmp_path / "Music/Song.wav", tmp_path / "Music/other.wav")
    take_for_one(monkeypatch, str.casefold)
    listings = Listings()
    names = ("Music/Song.wav", "music/SONG.WAV", "MUSIC/gone.wav", "gone/Song.wav", "a\0/b.wav")
    found = [listings.path(tmp_path / name) for name in names]
    expected = ("Music/Song.wav", "Music/Song.wav", "Music/gone.wav", "gone/Song.wav", "a\0/b.wav")
    assert found == [tmp_path / name for name in expected]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="their drives have one name")
def test_names_that_a_folder_lists_both_are_different(tmp_path):
    touch(tmp_path / "Song.wav", tmp_path / "song.wav")
    found = [Listings().name(tmp_path, name) for name in ("song.wav", "Song.wav", "SONG.wav")]
    assert found == ["song.wav", "Song.wav", "SONG.wav"]


@pytest.mark.parametrize(("platform", "same"), [("linux", False), ("darwin", True)])
def test_names_are_compared_by_platform_if_no_drive_is_probed(
    tmp_path, monkeypatch, platform, same
):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(unetsep.drives, "_rules_of_names", None)
    files = FileMap[str](NameRules(probe=False).same)
    assert files.setdefault(tmp_path / "Song", "first") == "first"
    assert tmp_path / "Song" in files
    assert tmp_path / "Songs" not in files
    assert (tmp_path / "song" in files) == same
    assert files.setdefault(tmp_path / "song", "second") == ("first" if same else "second")


def test_a_folder_is_probed_once_and_no_file_remains(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os.path, "lexists", lambda path: str(path).endswith(".PART"))
    asked, rules = [], unetsep.drives._rules_of_names
    monkeypatch.setattr(
        unetsep.drives, "_rules_of_names", lambda folder: asked.append(folder) or rules(folder)
    )
    name_rules = NameRules()
    pairs = {("a", "A"): True, ("\u00e9", "e\u0301"): False, ("b", "B"): True, ("a", "b"): False}
    found = {pair: name_rules.same(*(tmp_path / name for name in pair)) for pair in pairs}
    assert found == pairs
    assert asked == [tmp_path]
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_with_a_long_path_gets_a_hint_on_windows(tmp_path, monkeypatch):
    short, long = tmp_path / "song.wav", Path("/music" + "/song" * 60)
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        told = [path_problem(path) for path in (short, long)]
    assert told[0] == f"{short} does not exist"
    assert told[1] == f"{long} does not exist, or its path is too long: move it to a shorter one"


def test_a_link_to_nothing_is_called_one(tmp_path):
    try:
        (tmp_path / "song.mp3").symlink_to(tmp_path / "gone.mp3")
    except OSError:
        pytest.skip("no links here")
    target = (tmp_path / "song.mp3").readlink()
    told = path_problem(tmp_path / "song.mp3")
    assert told == f"{tmp_path / 'song.mp3'} is a link to {target}, which does not exist"
    inner = tmp_path / "song.mp3" / "inner.mp3"
    assert path_problem(inner) == f"{inner} does not exist"


def test_a_backslash_before_a_closing_quote_gets_a_hint_on_windows(monkeypatch):
    path = Path('C:\\My Music" -o out')
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        told = path_problem(path)
    assert told == (
        f"{path} holds a quote, as no name does: leave out the backslash before a closing quote"
    )
