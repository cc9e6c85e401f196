from __future__ import annotations

import contextlib
import errno
import inspect
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest
import soundfile

import unetsep.inputs
from tests.files import take_for_one, touch
from unetsep.audio.decoder import AUDIO_SUFFIXES, SOUNDFILE_SUFFIXES
from unetsep.audio.reader import AudioReader
from unetsep.drives import folded
from unetsep.inputs import count_kinds, find_inputs
from unetsep.paths import TEMPLATE, ModelNames, distinct_targets


def test_folders_are_searched_in_order_without_hidden_files_and_output(tmp_path):
    names = ["b.wav", "a.mp3", "sub/c.FLAC", "sub/deep/d.m4a"]
    passed_over = [".h.wav", ".git/x.wav", "notes.txt", "out/a/vocals.wav", "cover.jpg"]
    touch(*(tmp_path / name for name in names + passed_over))
    songs = find_inputs([tmp_path], tmp_path / "out")
    assert [song.track for song in songs] == ["a", "b", "sub/c", "sub/deep/d"]
    assert not any(song.error for song in songs)


@pytest.mark.skipif(os.name == "nt", reason="paths are shorter there")
def test_folders_may_be_deeper_than_the_recursion_limit(tmp_path):
    deep = "d/" * 200
    touch(tmp_path / deep / "b.wav", tmp_path / "d/a.wav", tmp_path / "e/c.wav")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 120)
    try:
        songs = find_inputs([tmp_path], tmp_path / "out")
    finally:
        sys.setrecursionlimit(limit)
    assert [song.track for song in songs] == ["d/a", f"{deep}b", "e/c"]


class CountedEntry:
    """What a folder holds; counts how often one is compared with another."""

    comparisons = 0

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self.name, self.path = entry.name, entry.path
        self.is_dir, self.is_symlink = entry.is_dir, entry.is_symlink

    def __fspath__(self) -> str:
        return self.path

    def __eq__(self, other: object) -> bool:
        type(self).comparisons += 1
        return self is other

    def __hash__(self) -> int:
        return hash(self.path)


def test_files_of_a_large_folder_are_not_compared_with_each_other(tmp_path, monkeypatch):
    touch(*(tmp_path / f"{index}.wav" for index in range(100)), tmp_path / "sub/a.wav")
    scandir = os.scandir

    @contextlib.contextmanager
    def counted(path):
        with scandir(path) as listing:
            yield [CountedEntry(entry) for entry in listing]

    monkeypatch.setattr(unetsep.inputs.os, "scandir", counted)
    assert len(find_inputs([tmp_path], tmp_path / "out")) == 101
    assert CountedEntry.comparisons <= 101


def test_a_file_that_is_named_twice_is_separated_once(tmp_path):
    touch(tmp_path / "a.wav")
    assert len(find_inputs([tmp_path / "a.wav", tmp_path, tmp_path / "a.wav"], tmp_path / "o")) == 1


def test_named_files_beside_songs_of_their_names_are_skipped(tmp_path):
    touch(*(tmp_path / name for name in ("B.jpg", "b.cue", "b.wav", "c", "c.flac", "d.dat", "e")))
    skipped = []
    songs = find_inputs(sorted(tmp_path.iterdir()), tmp_path / "out", skipped.append)
    assert [song.path.name for song in songs] == ["b.wav", "c.flac", "d.dat", "e"]
    assert [path.name for path in skipped] == ["B.jpg", "b.cue", "c"]


def test_named_pictures_and_texts_are_skipped_among_songs(tmp_path):
    touch(*(tmp_path / name for name in ("a.cue", "b/c.dat", "d/c.wav", "e.TXT", "cover.jpg")))
    paths = [tmp_path / name for name in ("a.cue", "a.wav", "b/c.dat", "d", "e.TXT", "cover.jpg")]
    skipped = []
    songs = find_inputs(paths, tmp_path / "out", skipped.append)
    assert [song.path.name for song in songs] == ["a.wav", "c.dat", "c.wav"]
    assert [bool(song.error) for song in songs] == [True, False, False]
    assert [path.name for path in skipped] == ["a.cue", "e.TXT", "cover.jpg"]


def test_named_files_without_any_song_are_taken_whatever_their_suffix(tmp_path):
    touch(*(tmp_path / name for name in ("a.cue", "b.dat", "c.jpg")))
    paths = [tmp_path / name for name in ("a.cue", "b.dat", "c.jpg", "gone.wav")]
    skipped = []
    songs = find_inputs(paths, tmp_path / "out", skipped.append)
    assert [song.path for song in songs] == paths
    assert skipped == []


def test_a_missing_input_becomes_a_song_with_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    songs = find_inputs([tmp_path / "gone.wav", tmp_path / "empty"], tmp_path / "out")
    assert "does not exist" in songs[0].error
    assert "is a folder without audio files" in songs[1].error


def test_folders_that_link_to_themselves_are_searched_once(tmp_path):
    touch(tmp_path / "in/a.wav")
    try:
        (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    except OSError:
        pytest.skip("no links here")
    assert len(find_inputs([tmp_path / "in"], tmp_path / "out")) == 1


@pytest.fixture
def make_link(tmp_path):
    """A folder with a song, and one beside it that links to what the test says."""

    def link(name: str, target: Path) -> None:
        try:
            (tmp_path / "in" / name).symlink_to(target)
        except OSError:
            pytest.skip("no links here")

    touch(tmp_path / "in/a.wav", tmp_path / "in/sub/c.wav", tmp_path / "elsewhere/b.wav")
    return link


def test_linked_folders_are_searched_once_under_the_first_name(tmp_path, make_link):
    make_link("1 link", tmp_path / "elsewhere")
    make_link("2 same", tmp_path / "elsewhere")
    make_link("3 inner", tmp_path / "in/sub")
    tracks = [song.track for song in find_inputs([tmp_path / "in"], tmp_path / "out")]
    assert tracks == ["a", "sub/c", "1 link/b"]


def test_a_link_into_the_output_folder_is_skipped(tmp_path, make_link):
    touch(tmp_path / "out/a/vocals.wav")
    make_link("link", tmp_path / "out/a")
    tracks = [song.track for song in find_inputs([tmp_path / "in"], tmp_path / "out")]
    assert tracks == ["a", "sub/c"]


@pytest.mark.parametrize("target", ["in", ".", "in/loop"])
def test_upward_and_circular_links_are_skipped_and_named(tmp_path, make_link, target):
    make_link("loop", tmp_path / target)
    left_out: list[Path] = []
    songs = find_inputs([tmp_path / "in"], tmp_path / "out", left_out.append)
    assert [song.track for song in songs] == ["a", "sub/c"]
    assert left_out == [tmp_path / "in/loop"]
    assert count_kinds(left_out) == ("1 without suffix" if target == "in/loop" else "1 circular")


def test_a_song_that_links_to_itself_does_not_stop_others(tmp_path, make_link):
    make_link("loop.wav", tmp_path / "in/loop.wav")
    songs = find_inputs([tmp_path / "in"], tmp_path / "out")
    assert [song.track for song in songs] == ["a", "loop", "sub/c"]
    models = [ModelNames("mse", ("vocals",))]
    assert len(distinct_targets(songs, models, tmp_path / "out", TEMPLATE, "wav")) == 3


def test_skipped_files_are_counted_even_if_they_are_inaccessible(tmp_path, monkeypatch):
    def refuse(*_: object, **_options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:  # as of a link into a closed folder
        patch.setattr(Path, "stat", refuse)
        patch.setattr(os, "stat", refuse)
        counted = count_kinds([tmp_path / "link", tmp_path / "note.txt"])
    assert counted == "1 without suffix, 1 .txt"


def test_files_that_a_search_skips_are_named(tmp_path):
    touch(*(tmp_path / name for name in ("a.wav", "b.jpg", "c.JPG", "NOTES", "sub/d.txt")))
    touch(tmp_path / ".h.wav", tmp_path / ".git/e.wav", tmp_path / "out/f/vocals.wav")
    left_out: list[Path] = []
    songs = find_inputs([tmp_path], tmp_path / "out", left_out.append)
    assert [song.track for song in songs] == ["a"]
    names = ["out", ".git", ".h.wav", "NOTES", "b.jpg", "c.JPG", "d.txt"]
    assert sorted(path.name for path in left_out) == sorted(names[1:])
    assert count_kinds(left_out) == "2 hidden, 2 .jpg, 1 without suffix, 1 .txt"


def test_an_unreadable_folder_is_an_error_and_others_are_searched(tmp_path, monkeypatch):
    touch(tmp_path / "a.wav", tmp_path / "closed/b.wav", tmp_path / "d/c.wav")
    scandir = unetsep.inputs.os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(unetsep.inputs.os, "scandir", refuse)
    songs = find_inputs([tmp_path], tmp_path / "out")
    assert [song.track for song in songs] == ["a", "closed/", "d/c"]
    assert songs[1].error == f"{tmp_path / 'closed'} cannot be read: Permission denied"
    (song,) = find_inputs([tmp_path / "closed"], tmp_path / "out")
    assert "cannot be read: Permission denied" in song.error


@pytest.mark.parametrize("place", [".", "out"])
def test_the_output_folder_is_searched_if_it_is_named(tmp_path, place):
    touch(tmp_path / "a.wav", tmp_path / "out/b.wav")
    folder = tmp_path / place
    assert find_inputs([folder], folder)[0].path.parent == folder


# Names under which ffmpeg writes something, and how.
WRITTEN = {
    ".mp2": [],
    ".3gp": ["-c:a", "aac"],
    ".m4v": ["-f", "mp4", "-c:a", "aac"],
    ".flv": ["-c:a", "aac"],
    ".eac3": [],
    ".dts": ["-strict", "-2"],
    ".mlp": ["-strict", "-2"],
    ".voc": [],
    ".wma": [],
    ".tta": [],
    ".wv": [],
    ".mka": [],
    ".mpg": [],
    ".m2ts": [],
    ".nut": [],
    ".ogv": ["-c:a", "libvorbis"],
    ".weba": ["-f", "webm", "-c:a", "libopus"],
    ".wtv": ["-c:a", "mp2"],
}


@pytest.mark.parametrize("suffix", WRITTEN)
def test_files_written_by_ffmpeg_are_found_and_read(tmp_path, need_ffmpeg, suffix):
    path = tmp_path / f"a{suffix}"
    tone = ["-f", "lavfi", "-i", "sine=440:d=1:r=48000"]
    command = [need_ffmpeg, "-v", "error", *tone, *WRITTEN[suffix], str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this ffmpeg cannot write it")
    assert [song.path for song in find_inputs([tmp_path], tmp_path / "out")] == [path]
    with AudioReader(path) as reader:
        samples = sum(block.shape[-1] for block in reader.blocks(1 << 16))
    # Codecs pad to whole frames; two seconds' worth would be another rate.
    assert abs(samples - 48_000) < 4000


def test_suffixes_of_libsndfile_and_ffmpeg_count_as_audio():
    formats = {"AIFF", "AU", "AVR", "CAF", "FLAC", "HTK", "MP3", "OGG", "PAF", "PVF", "RF64"}
    formats |= {"SDS", "SVX", "VOC", "W64", "WAV", "WVE", "XI"}
    assert {f".{name.lower()}" for name in formats & {*soundfile.available_formats()}} <= (
        SOUNDFILE_SUFFIXES
    )
    asked = ".3gp .mp2 .m4v .flv .spx .dff .tak .dts .eac3 .voc .adts .3ga .mk3d .isma"
    assert {*asked.split()} <= AUDIO_SUFFIXES


@pytest.mark.parametrize(
    ("name", "number"), [("d", errno.EIO), ("d", errno.EACCES), ("link", errno.ENOTCONN)]
)
def test_a_folder_on_a_lost_drive_is_an_error_and_others_are_searched(
    tmp_path, monkeypatch, make_link, name, number
):
    touch(tmp_path / "in/a.wav", tmp_path / "in/d/b.wav", tmp_path / "in/note.txt")
    make_link("link", tmp_path / "elsewhere")
    scandir = os.scandir

    def listing(path):
        if Path(path) == tmp_path / "in" / name:
            raise refused
        with scandir(path) as entries:
            found = [Mock(wraps=entry, path=entry.path) for entry in entries]
        for entry in found:
            entry.name = Path(entry.path).name
            if entry.is_symlink():
                entry.is_dir.side_effect = refused if entry.name == name else None
        return contextlib.nullcontext(found)

    refused = OSError(number, os.strerror(number))
    monkeypatch.setattr(unetsep.inputs.os, "scandir", listing)
    found = find_inputs([tmp_path / "in"], tmp_path / "out")
    (error,) = [song.error for song in found if song.error]
    assert error == f"{tmp_path / 'in' / name} cannot be read: {os.strerror(number)}"
    assert "a" in [song.track for song in found]


def test_playlists_in_folders_are_skipped(tmp_path):
    touch(tmp_path / "in/a.mp3", tmp_path / "in/list.m3u")
    assert [song.track for song in find_inputs([tmp_path / "in"], tmp_path / "out")] == ["a"]


def test_records_above_several_folders_are_read_once(tmp_path):
    asked: list[Path] = []

    def outputs_in(folder: Path, _: Sequence[str]) -> set[Path]:
        asked.append(folder)
        return {folder / "b/x.wav"} if folder == tmp_path else set()

    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
        (folder / "x.wav").touch()
    found = find_inputs(folders, tmp_path, None, outputs_in)
    assert [song.error is None for song in found] == [True, False, True]
    assert sorted(asked) == [tmp_path, *folders]


@pytest.fixture
def earlier(tmp_path):
    """A folder with a stem, and a function that tells which files are stems."""
    stem = tmp_path / "earlier/song/vocals.wav"
    touch(stem)
    outputs = {stem, tmp_path / "out/a/vocals.wav"}

    def outputs_in(folder: Path, _: Sequence[str]) -> set[Path]:
        return {path for path in outputs if path.parent == folder}

    return stem, outputs_in


@pytest.mark.parametrize("besides", ["", "gone.wav", "empty", "out", "earlier/dead.wav"])
def test_stems_are_songs_if_nothing_else_can_be_separated(tmp_path, earlier, besides):
    stem, outputs_in = earlier
    touch(tmp_path / "out/a/vocals.wav")
    (tmp_path / "empty").mkdir()
    if besides == "earlier/dead.wav":
        try:
            (tmp_path / besides).symlink_to("nowhere.wav")
        except OSError:
            pytest.skip("no links here")
    paths = [tmp_path / "earlier"]
    if besides and not besides.startswith("earlier"):
        paths.append(tmp_path / besides)
    skipped: list[Path] = []
    found = find_inputs(paths, tmp_path / "out", None, outputs_in, skipped.append)
    assert [song.path for song in found if song.path.is_file()] == [stem]
    assert len(found) == (2 if besides else 1)
    assert skipped == []


def test_stems_beside_songs_are_skipped(tmp_path, earlier):
    stem, outputs_in = earlier
    touch(tmp_path / "song.wav")
    skipped: list[Path] = []
    paths = [tmp_path / name for name in ("earlier", "song.wav", "gone.wav")]
    found = find_inputs(paths, tmp_path / "out", None, outputs_in, skipped.append)
    assert [song.path for song in found] == paths[1:]
    elsewhere = find_inputs(
        paths[:1], tmp_path / "out", None, outputs_in, skipped.append, songs_elsewhere=True
    )
    assert elsewhere == []
    assert skipped == [stem, stem]


@pytest.mark.parametrize("path", ["song/vocals.wav", "link/vocals.wav"])
def test_a_stem_that_is_separated_is_not_called_skipped(tmp_path, earlier, path):
    stem, outputs_in = earlier
    try:
        (tmp_path / "earlier/link").symlink_to("song")
    except OSError:
        pytest.skip("no links here")
    named, other = tmp_path / "earlier" / path, stem.with_name("bass.wav")
    touch(other)
    skipped: list[Path] = []

    def stems_in(folder: Path, names: Sequence[str]) -> set[Path]:
        return outputs_in(folder, names) | {folder / other.name}

    paths = [tmp_path / "earlier", named]
    found = find_inputs(paths, tmp_path / "out", None, stems_in, skipped.append)
    assert [song.path for song in found] == [named]
    assert skipped == [other]


@pytest.mark.parametrize("listed", ["bj\u00f6rk/j\u00f3ga.wav", "Bjo\u0308rk/Jo\u0301ga.wav"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_stem_is_recognised_however_its_drive_spells_it(tmp_path, monkeypatch, listed, exists):
    stem = Path("Bj\u00f6rk/J\u00f3ga.wav")  # as its record has it
    touch(tmp_path / "song.wav", tmp_path / listed)
    lexists = os.path.lexists
    there = {folded(tmp_path / listed), folded((tmp_path / listed).parent)}

    def on_drive(path):
        return lexists(path) or (exists and folded(path) in there)

    monkeypatch.setattr(os.path, "lexists", on_drive)
    found = find_inputs([tmp_path], tmp_path, None, lambda folder, _: {folder / stem})
    names = sorted(each.path.relative_to(tmp_path).as_posix() for each in found)[::-1]
    # Else it is another file, on a drive that tells their names apart; no path of Windows does.
    is_stem = exists or Path(listed) == stem
    assert names == (["song.wav"] if is_stem else ["song.wav", listed])


@pytest.mark.parametrize(
    ("songs", "output"),
    [("Music", "Music/stems"), ("Music", "music/Stems"), ("Music/Stems", "music/stems")],
)
def test_the_output_is_recognised_where_case_does_not_count(tmp_path, monkeypatch, songs, output):
    touch(tmp_path / "Music/song.wav", tmp_path / "Music/Stems/song/bass.wav")
    take_for_one(monkeypatch, str.casefold)

    def outputs_in(folder: Path, _: Sequence[str]) -> set[Path]:
        return {folder / "song/bass.wav"} if folder.name == "Stems" else set()

    (found,) = find_inputs([tmp_path / songs], tmp_path / output, None, outputs_in)
    assert found.track == ("song" if songs == "Music" else "Stems")
    assert ("holds only stems" in str(found.error)) == (songs != "Music")


@pytest.mark.parametrize("drive", [str, str.casefold])
def test_a_song_is_found_once_however_it_is_spelled(tmp_path, monkeypatch, drive):
    touch(tmp_path / "Music/Song.wav")
    take_for_one(monkeypatch, drive)
    paths = [tmp_path / name for name in ("Music/Song.wav", "music/SONG.wav", "Music")]
    found = find_inputs(paths, tmp_path / "out")
    tracks = [song.track for song in found]
    once = drive is str.casefold or sys.platform == "win32"  # where paths have no case
    assert tracks == (["Song"] if once else ["Song", "SONG"])


def test_folders_are_listed_once_however_many_names_differ_in_case(tmp_path, monkeypatch):
    for folder in ("a", "A"):  # on most drives of Windows and macOS one
        touch(*(tmp_path / folder / f"{i}.wav" for i in range(20)))
    listed, listdir = [], os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listed.append(folder) or listdir(folder))
    paths = [tmp_path / folder / f"{i}.wav" for i in range(20) for folder in ("a", "A")]
    assert len(find_inputs(paths, tmp_path / "out")) in (20, 40)
    assert listed
    assert len(listed) == len(set(listed))
