from __future__ import annotations

import errno
import os
import unicodedata
from pathlib import Path

import pytest

import unetsep.playlists
from tests.files import touch
from unetsep.inputs import find_inputs


def test_paths_in_a_playlist_are_relative_to_its_folder(tmp_path):
    touch(tmp_path / "music/a.mp3", tmp_path / "music/sub/Bela\u0301.flac", tmp_path / "c.wav")
    lines = ["#EXTM3U", "#EXTINF:1,A", "a.mp3", "", "sub/Bela\u0301.flac", str(tmp_path / "c.wav")]
    playlist = tmp_path / "music/list.m3u8"
    playlist.write_text(
        "\ufeff" + "\r\n".join([*lines, "gone.mp3", "http://x.org//y.mp3"]), "utf-8"
    )
    found = find_inputs([playlist], tmp_path / "out")
    assert [song.track for song in found] == ["a", "Bela\u0301", "c", "gone", "y"]
    assert [song.path for song in found[:2]] == [
        tmp_path / "music/a.mp3",
        tmp_path / "music/sub/Bela\u0301.flac",
    ]
    assert [bool(song.error) for song in found] == [False, False, False, True, True]
    assert found[3].error == f"{tmp_path / 'music/gone.mp3'} does not exist"
    assert found[4].error == (
        f"{playlist} names a URL, http://x.org//y.mp3: name it on the command line, or download it"
    )


@pytest.mark.parametrize("start", ["file://", "FILE://localhost"])
def test_file_urls_in_playlists_are_read_as_paths(tmp_path, start):
    name = "caf\u00e9 100% #1?.wav"
    try:
        touch(tmp_path / name)
    except OSError:
        pytest.skip("no such names here")
    url = (tmp_path / name).as_uri().replace("file://", start)
    (tmp_path / "list.m3u").write_text(f"{url}\nfile:///%00/%FF.wav\nfile://server/a.wav")
    found = find_inputs([tmp_path / "list.m3u"], tmp_path / "out")
    assert (found[0].path, found[0].error) == (tmp_path / name, None)
    assert found[1].path == Path("/\ufffd/\udcff.wav")
    assert "names a URL, file://server/a.wav" in found[2].error


def test_names_in_the_encoding_of_terminals_are_read_on_windows(tmp_path, monkeypatch):
    monkeypatch.setattr(unetsep.playlists, "OLD_ENCODINGS", ("cp1252", "cp850"))
    touch(tmp_path / "caf\u00e9.mp3", tmp_path / "B\u00e9la.mp3")
    lines = ["B\u00e9la.mp3".encode("cp850"), "caf\u00e9.mp3".encode("cp1252"), b"gon\xe9.mp3"]
    (tmp_path / "list.m3u").write_bytes(b"\r\n".join(lines))
    found = find_inputs([tmp_path / "list.m3u"], tmp_path / "out")
    assert [song.path.name for song in found] == ["B\u00e9la.mp3", "caf\u00e9.mp3", "gon\u00e9.mp3"]
    assert [bool(song.error) for song in found] == [False, False, True]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-32"])
def test_playlists_of_windows_are_read(tmp_path, encoding):
    touch(tmp_path / "B\u00e9la.mp3", tmp_path / "sub/d.mp3")
    (tmp_path / "list.M3U").write_bytes("B\u00e9la.mp3\nsub\\d.mp3\n".encode(encoding))
    found = find_inputs([tmp_path / "list.M3U"], tmp_path / "out")
    assert [(song.path, song.error) for song in found] == [
        (tmp_path / "B\u00e9la.mp3", None),
        (tmp_path / "sub/d.mp3", None),
    ]


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_a_playlist_may_mix_encodings(tmp_path):
    raw = os.fsdecode(b"caf\xe9.mp3")
    try:
        touch(tmp_path / "B\u00e9la.mp3", tmp_path / raw, tmp_path / "\u00fc.mp3")
    except OSError:
        pytest.skip("no such names here")
    lines = ["B\u00e9la.mp3".encode(), b"caf\xe9.mp3", b"\xfc.mp3"]
    (tmp_path / "list.m3u").write_bytes(b"\n".join(lines))
    found = find_inputs([tmp_path / "list.m3u"], tmp_path / "out")
    assert [song.error for song in found] == [None] * 3
    assert [song.path.name for song in found] == ["B\u00e9la.mp3", raw, "\u00fc.mp3"]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c", "\u3000"])
def test_lines_of_playlists_end_only_at_line_breaks(tmp_path, character):
    names = [f"x{character}y.wav", f"{character}z.wav"]
    try:
        touch(*(tmp_path / name for name in names))
    except OSError:
        pytest.skip("no such names here")
    (tmp_path / "list.m3u").write_bytes("\r".join(f" {name}\t" for name in names).encode())
    found = find_inputs([tmp_path / "list.m3u"], tmp_path / "out")
    assert [(song.path.name, song.error) for song in found] == [(name, None) for name in names]


def test_a_playlist_without_songs_is_an_error(tmp_path):
    (tmp_path / "list.m3u").write_text("#EXTM3U\n")
    (song,) = find_inputs([tmp_path / "list.m3u"], tmp_path / "out")
    assert song.error == f"{tmp_path / 'list.m3u'} is a playlist without songs"


def test_an_unreadable_playlist_is_an_error_and_others_are_read(tmp_path, monkeypatch):
    touch(tmp_path / "list.m3u", tmp_path / "a.wav")
    read_bytes = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "list.m3u":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    found = find_inputs([tmp_path / "list.m3u", tmp_path / "a.wav"], tmp_path / "out")
    assert [(song.track, song.error) for song in found] == [
        ("list", f"{tmp_path / 'list.m3u'} cannot be read: Permission denied"),
        ("a", None),
    ]


@pytest.mark.parametrize(
    "name",
    ["b\0c.wav", "http://b\0/c.wav", "b" * 300, "sub\\" + "b" * 300],
    ids=["zero", "url", "long", "windows"],
)
def test_an_impossible_name_in_a_playlist_does_not_stop_others(tmp_path, name):
    touch(tmp_path / "a.wav", tmp_path / "sub/c.wav")
    (tmp_path / "list.m3u").write_text(f"{name}\na.wav\n")
    bad, good = find_inputs([tmp_path / "list.m3u"], tmp_path / "out")
    assert name[-9:].replace("\0", "\ufffd") in bad.error
    assert (good.track, good.error) == ("a", None)


@pytest.mark.parametrize("written", ["NFC", "NFD"])
@pytest.mark.parametrize("listed", ["NFC", "NFD"])
def test_a_playlist_finds_songs_however_their_accents_are_coded(tmp_path, written, listed):
    folder = tmp_path / "\u00e9ly\u0301"  # which stays as it is
    name = unicodedata.normalize(written, "M\u00e9lanie/Caf\u00e9.wav")
    touch(folder / unicodedata.normalize(listed, name))
    text = "\n".join([name, name.replace("/", "\\"), "gone.wav"])
    (folder / "list.m3u8").write_text(text, encoding="utf-8")
    *songs, missing = find_inputs([folder / "list.m3u8"], tmp_path / "out")
    assert missing.error == f"{folder / 'gone.wav'} does not exist"
    assert [song.error for song in songs] == [None]
    assert songs[0].path.samefile(next(folder.rglob("*.wav")))
