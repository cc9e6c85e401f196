"""Sources are found, decoded once, and told from what is broken."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.train.synthetic import pcm, write, write_musdb
from unetsep.config import STEMS
from unetsep.errors import AudioError
from unetsep.storage import FULL
from unetsep.train.data import cache, decode
from unetsep.train.data.musdb import VALID_SONGS, Musdb, musdb_root
from unetsep.train.data.pools import Pools
from unetsep.train.data.run_data import find_data, load_recordings
from unetsep.train.data.song_folders import SongFolders
from unetsep.train.data.sources import Source, refuse_test


def test_musdb_in_wav_layout_has_validation_songs_and_no_test_songs(tmp_path: Path) -> None:
    write_musdb(tmp_path, ("A - B", "Leaf - Summerghost"))
    write(tmp_path / "test" / "C - D" / "vocals", 0)
    found = Musdb().find(tmp_path, STEMS)
    assert [(s.name, s.split) for s in found] == [
        ("A - B", "train"),
        ("Leaf - Summerghost", "valid"),
    ]
    assert len(VALID_SONGS) == 14
    loaded = cache.load(found, tmp_path / "cache")
    assert np.array_equal(loaded[0].stem("mixture"), pcm(0, 22_050))
    assert np.array_equal(loaded[0].stem("drums"), pcm(2, 22_050))


MANY = """
import resource, sys
from pathlib import Path
from unetsep.errors import AudioError
from unetsep.train.data import cache
from unetsep.train.data.sources import Source

resource.setrlimit(resource.RLIMIT_NOFILE, (64, int(sys.argv[2])))
song = {"drums": Path(sys.argv[1], "drums.wav")}
songs = [Source(str(number), "pool", "train", song) for number in range(80)]
try:
    print(len(cache.load(songs, Path(sys.argv[1], "cache"), jobs=1)))
except AudioError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such limit")
@pytest.mark.parametrize(
    ("hard", "outcome"), [(4096, "80\n"), (64, "the system lets this process open no more rec")]
)
def test_the_limit_of_open_files_is_raised_for_many_recordings(
    tmp_path: Path, hard: int, outcome: str
) -> None:
    """As on macOS, where that is 256 files."""
    soundfile.write(tmp_path / "drums.wav", np.full((4410, 2), 0.1), 44_100)
    command = [sys.executable, "-c", MANY, str(tmp_path), str(hard)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.startswith(outcome)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the writer's pipes
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_musdb_stem_files_are_decoded_in_their_order(tmp_path: Path) -> None:
    stempeg = pytest.importorskip("stempeg")
    time = np.arange(44_100) / 44_100
    tones = [0.3 * np.sin(2 * np.pi * hertz * time) for hertz in (200, 400, 600, 800)]
    audio = np.stack([np.stack([x, x], axis=-1) for x in (sum(tones), *tones)])
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "A - B.stem.mp4"
    stempeg.write_stems(str(path), audio, sample_rate=44_100, writer=stempeg.StreamsWriter())
    (loaded,) = cache.load(Musdb().find(tmp_path, STEMS), tmp_path / "cache")
    for stem, hertz in zip(("drums", "bass", "other", "vocals"), (200, 400, 600, 800), strict=True):
        spectrum = np.abs(np.fft.rfft(loaded.stem(stem)[:44_100, 0]))
        assert int(spectrum.argmax()) == pytest.approx(hertz, abs=2)


def test_musdb_root_is_given_or_read_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSDB_PATH", "/somewhere")
    assert musdb_root(None) == Path("/somewhere")
    assert musdb_root(tmp_path) == tmp_path
    monkeypatch.delenv("MUSDB_PATH")
    with pytest.raises(AudioError, match=r"MUSDB_PATH; get MUSDB18 from .* 7-second excerpts"):
        musdb_root(None)


def test_folders_without_music_get_a_message(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"there is no MUSDB18 in .*: expected .*train"):
        Musdb().find(tmp_path, STEMS)
    with pytest.raises(AudioError, match=r"there are no songs in .*: expected .*vocals"):
        SongFolders().find(tmp_path, STEMS)
    with pytest.raises(AudioError, match="there are no recordings in"):
        Pools().find(tmp_path, STEMS)
    write(tmp_path / "train" / "A - B" / "vocals", 0)
    with pytest.raises(
        AudioError, match=r"A - B is not a MUSDB18 song: it lacks mixture.wav, drums"
    ):
        Musdb().find(tmp_path, STEMS)


def test_a_stem_without_a_file_is_unknown_unless_declared_silent(tmp_path: Path) -> None:
    write(tmp_path / "train" / "one" / "drums", 0, suffix=".flac")
    write(tmp_path / "train" / "one" / "bass", 1)
    (tmp_path / "train" / "one" / "song.json").write_text('{"silent": ["vocals"]}')
    (loaded,) = cache.load(SongFolders().find(tmp_path, STEMS), tmp_path / "cache")
    assert set(loaded.names) == {"drums", "bass"}
    assert loaded.knows(("vocals", "drums", "bass"))
    assert not loaded.knows(STEMS)


def test_audio_of_no_stem_in_a_song_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train = tmp_path / "train"
    for name in ("voice", "drum", "BASS", "Mixture", "takes/bass 2"):
        write(train / "odd" / name, 0)
    (train / "odd" / "cover.jpg").touch()
    write(train / "good" / "bass", 1)
    hidden = (".git/x.wav", ".Trash/song/old.wav", "good/.bass.wav", "good/.peaks/a.wav")
    for name in (*hidden, "good/mixture.stem.mp4"):
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        (train / name).touch()
    assert len(SongFolders().find(tmp_path, STEMS)) == 2
    (warning,) = caplog.messages
    assert warning == (
        "odd: no stem is called drum.wav (drums?), voice.wav; it is used for bass alone"
    )
    caplog.clear()
    for number in range(4):
        write(train / f"{number}" / "song (vocals)", 2)
    assert len(SongFolders().find(tmp_path, STEMS)) == 2
    assert caplog.messages == [
        *(f"{i}: no stem is called song (vocals).wav (vocals?); it is not used" for i in range(3)),
        f"so it is with 2 more of the songs in {train}",
    ]


def test_songs_of_unknown_files_alone_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "train" / "one" / "song (vocals)", 0)
    with pytest.raises(AudioError, match=r"there are no songs in .*\(one: no stem is called song"):
        SongFolders().find(tmp_path, STEMS)


def test_a_song_can_have_its_own_weight(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / "train" / name / "drums", 0)
    (tmp_path / "train" / "two" / "song.json").write_text('{"weight": 0.1}')
    one, two = cache.load(SongFolders().find(tmp_path, STEMS), tmp_path / "cache")
    assert (one.weight, two.weight) == (1.0, 0.1)
    for part in (two.part(0, 1), two.without(["drums"])):
        assert part.weight == 0.1


@pytest.mark.parametrize(
    "text",
    [
        '{"silent": ["singing"]}',
        "{",
        "[1]",
        '{"weight": 0}',
        '{"weight": "x"}',
        '{"weight": 1e999}',
    ],
)
def test_an_invalid_song_json_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path / "train" / "one" / "drums", 0)
    (tmp_path / "train" / "one" / "song.json").write_text(text)
    with pytest.raises(AudioError, match=r"one[/\\]song.json"):
        SongFolders().find(tmp_path, STEMS)


def test_nothing_under_a_test_folder_is_found(tmp_path: Path) -> None:
    for place in ("vocals/a", "vocals/test/b", "drums/Test/deep/c"):
        write(tmp_path / place, 0)
    assert [source.name for source in Pools().find(tmp_path, STEMS)] == ["vocals/a"]
    write(tmp_path / "test" / "song" / "vocals", 0)
    with pytest.raises(AudioError, match="there are no songs"):
        SongFolders().find(tmp_path, STEMS)
    with pytest.raises(AudioError, match="is of a test set"):
        refuse_test(tmp_path / "test")


def test_links_to_folders_of_pools_are_followed_without_circles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "real" / "deep" / "take", 0)
    write(tmp_path / "pools" / "bass" / "own" / "take", 1)
    write(tmp_path / "pools" / "drums" / "take", 2)
    write(tmp_path / "test" / "song", 3)
    # Names that sort before and after what they lead to: that keeps its own name.
    for name, target in (
        ("set", "real"),
        ("up", "pools"),
        ("a", "pools/bass/own"),
        ("test", "pools/bass/own"),
        ("gone", "nowhere"),
    ):
        (tmp_path / "pools" / "bass" / name).symlink_to(tmp_path / target)
    (tmp_path / "pools" / "bass" / "own" / "again").symlink_to(tmp_path / "pools" / "bass")
    found = Pools().find(tmp_path / "pools", STEMS)
    assert [each.name for each in found] == ["drums/take", "bass/own/take", "bass/set/deep/take"]
    for place in ("one", "two"):  # the same folder by two links: the first one names it
        write(tmp_path / "pools" / "other" / place / "take", 4 + len(place))
        (tmp_path / "pools" / "other" / place / "link").symlink_to(tmp_path / "real")
    names = [each.name for each in Pools().find(tmp_path / "pools", ("other",))]
    assert names == ["other/one/link/deep/take", "other/one/take", "other/two/take"]
    (tmp_path / "pools" / "bass" / "more").symlink_to(tmp_path / "test")
    data = find_data({"pools": [tmp_path / "pools"]}, tmp_path / "cache")
    with pytest.raises(AudioError, match="of a test set"):
        load_recordings(data)
    assert not caplog.messages


def test_links_inside_a_song_add_no_stems_of_another(tmp_path: Path) -> None:
    for song, stem in (("a", "drums"), ("b", "vocals")):
        write(tmp_path / "train" / song / stem, 0)
    (tmp_path / "train" / "a" / "see also").symlink_to(tmp_path / "train" / "b")
    (tmp_path / "train" / "c").symlink_to(tmp_path / "train" / "b")  # a song itself may be one
    found = SongFolders().find(tmp_path, STEMS)
    assert [(each.name, list(each.files)) for each in found] == [
        ("a", ["drums"]), ("b", ["vocals"]), ("c", ["vocals"])
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="folders that nobody may read")
def test_an_unreadable_folder_is_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "bass" / "take", 0)
    (tmp_path / "bass" / "lost+found").mkdir()
    real = Path.iterdir

    def refuse(path: Path) -> Iterator[Path]:  # root may read everything
        if path.name == "lost+found":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    def refuse_inside(path: Path) -> bool:  # a folder that may be listed, and not entered
        if path.parent.name == "lost+found":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_dir(path)

    (tmp_path / "bass" / "lost+found" / "inner").mkdir()
    is_dir = Path.is_dir
    for name, refusal in (("iterdir", refuse), ("is_dir", refuse_inside)):
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Path, name, refusal)
            assert [each.name for each in Pools().find(tmp_path, STEMS)] == ["bass/take"]
        (message,) = caplog.messages
        assert message.endswith("lost+found is skipped: Permission denied")


def test_a_folder_beside_one_called_test_is_no_test_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("songs", "test"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "test")
    refuse_test(Path("../songs"))
    with pytest.raises(AudioError, match="is of a test set"):
        refuse_test(Path("../test/songs"))


@pytest.mark.parametrize("linked", [False, True])
def test_a_home_folder_called_test_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    home = tmp_path / "test"
    if linked:
        (tmp_path / "disk" / "test").mkdir(parents=True)
        home.symlink_to(tmp_path / "disk" / "test")
    monkeypatch.setattr(Path, "home", lambda: home)
    refuse_test(home / "music")
    with pytest.raises(AudioError, match="is of a test set"):
        refuse_test(home / "music/test/songs")


def test_a_stem_is_found_in_any_case_and_two_files_are_refused(tmp_path: Path) -> None:
    song = tmp_path / "train" / "one"
    write(song / "Vocals", 0, suffix=".WAV")
    write(song / "._drums", 0)
    (source,) = SongFolders().find(tmp_path, STEMS)
    assert source.files == {"vocals": song / "Vocals.WAV"}
    for folder in ("dry", "wet"):
        write(song / folder / "vocals", 1)
    assert SongFolders().find(tmp_path, STEMS) == [source]
    (song / "Vocals.WAV").unlink()
    message = r"has two files of vocals, dry[/\\]vocals\.wav and wet[/\\]vocals\.wav: keep one"
    with pytest.raises(AudioError, match=message):
        SongFolders().find(tmp_path, STEMS)


def test_companion_files_of_macos_are_skipped(tmp_path: Path) -> None:
    write(tmp_path / "bass" / "a", 0)
    (tmp_path / "bass" / "._a.wav").write_bytes(b"attributes")
    assert [source.name for source in Pools().find(tmp_path, STEMS)] == ["bass/a"]


def pool(root: Path, count: int = 3) -> list[Source]:
    for i in range(count):
        write(root / "bass" / f"take{i}", i, 4000)
    return Pools().find(root, STEMS)


def test_thousands_of_songs_with_a_silent_stem_take_few_comparisons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "content_hash", lambda path, _: path.name)
    comparisons = []

    class Content(frozenset[tuple[str, str]]):
        def __le__(self, other: object) -> bool:
            comparisons.append(other)
            return super().__le__(other)

    monkeypatch.setattr(cache, "frozenset", Content, raising=False)

    def song(name: str, **stems: str) -> Source:
        return Source(name, "songs", "train", {stem: Path(file) for stem, file in stems.items()})

    songs = [
        song(f"{i}", vocals="silence", drums=f"drums {i}", bass="silence", other="silence")
        for i in range(4000)
    ]
    parts = [song("narrow", drums="drums 7", bass="silence"), song("quiet", vocals="silence")]
    kept, twice = cache.distinct([*parts, *songs], tmp_path)
    assert len(comparisons) < len(songs)  # not each with each other
    assert kept == songs
    assert [(one.name, other.name) for one, other in twice] == [("narrow", "7"), ("quiet", "0")]


def test_the_most_informative_of_two_duplicates_is_kept(tmp_path: Path) -> None:
    drums, bass = write(tmp_path / "drums", 0), write(tmp_path / "bass", 1)
    # Each is preferred to those before it.
    ranks = [
        Source("single", "pools", "train", {"drums": drums}, extra=True),
        Source("no extra", "musdb", "train", {"drums": drums}),
        Source("alone", "songs", "train", {"drums": drums}, ("bass", "vocals"), extra=True),
        Source("wider", "songs", "train", {"drums": drums, "bass": bass}, extra=True),
        Source("valid", "index", "valid", {"drums": drums}, extra=True),
    ]
    for one, other in itertools.combinations(ranks, 2):
        for pair in ([one, other], [other, one]):
            assert cache.distinct(pair, tmp_path / "cache") == ([other], [(one, other)])


def test_songs_that_share_only_some_files_are_both_kept(tmp_path: Path) -> None:
    files = {stem: write(tmp_path / stem, i) for i, stem in enumerate(STEMS)}
    vocals = {"vocals": files["vocals"], "other": write(tmp_path / "accompaniment", 9)}
    pair = [Source("four", "songs", "train", files), Source("two", "songs", "valid", vocals)]
    assert cache.distinct(pair, tmp_path / "cache") == (pair, [])


def test_everything_is_decoded_once_and_progress_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pool(tmp_path / "pools")
    steps: list[tuple[int, int]] = []
    first = cache.load(found, tmp_path / "cache", progress=lambda *step: steps.append(step))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    monkeypatch.setattr(decode, "decode", lambda source: pytest.fail("decoded again"))
    again = cache.load(found, tmp_path / "cache")
    assert [s.samples for s in again] == [s.samples for s in first] == [4000] * 3


def test_changed_content_is_decoded_again_and_a_moved_file_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.load(pool(tmp_path / "pools"), tmp_path / "cache")
    write(tmp_path / "pools" / "bass" / "take1", 77, 5000)
    loaded = cache.load(Pools().find(tmp_path / "pools", STEMS), tmp_path / "cache")
    assert [s.samples for s in loaded] == [4000, 5000, 4000]
    (tmp_path / "pools").rename(tmp_path / "moved")
    monkeypatch.setattr(decode, "decode", lambda source: pytest.fail("decoded again"))
    cache.load(Pools().find(tmp_path / "moved", STEMS), tmp_path / "cache")


def test_two_parallel_loaders_share_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pool(tmp_path / "pools", 6)
    real, count, lock = decode.decode, [0], threading.Lock()

    def counted(source: Source) -> Any:
        with lock:
            count[0] += 1
        return real(source)

    monkeypatch.setattr(decode, "decode", counted)
    results: list[int] = []

    def work() -> None:
        results.append(len(cache.load(found, tmp_path / "cache", jobs=2)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [6, 6]
    assert count[0] == 6


def test_ctrl_c_begins_no_other_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, real, count = pool(tmp_path / "pools", 12), decode.decode, [0]
    interrupted = threading.Event()

    def decoded(source: Source) -> Any:
        count[0] += 1
        if count[0] > 1:
            interrupted.wait(60)
        return real(source)

    def interrupt(done: int, _: int) -> None:
        if done:
            interrupted.set()
            raise KeyboardInterrupt

    monkeypatch.setattr(decode, "decode", decoded)
    with pytest.raises(KeyboardInterrupt):
        cache.load(found, tmp_path / "cache", progress=interrupt, jobs=1)
    assert count[0] < 12


def test_a_lock_that_another_process_has_open_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "used by another process", str(path))  # as on Windows

    found = pool(tmp_path / "pools")
    monkeypatch.setattr(Path, "unlink", refuse)
    assert len(cache.load(found, tmp_path / "cache")) == 3
    assert len(list((tmp_path / "cache").glob("*.lock"))) == 3


@pytest.mark.parametrize("number", FULL)
def test_a_full_disk_keeps_decoded_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    found, real, written = pool(tmp_path / "pools"), cache.save_array, []

    def save(file: Any, array: Any) -> None:
        written.append(1)
        if len(written) == 2:
            file.write(b"half")
            raise OSError(number, os.strerror(number))
        real(file, array)

    monkeypatch.setattr(cache, "save_array", save)
    with pytest.raises(AudioError, match=r"is full after 1 of 3 recordings, which remain.*--cache"):
        cache.load(found, tmp_path / "cache", jobs=1)
    for kind in ("*.part", "*.lock"):
        assert not list((tmp_path / "cache").glob(kind))
    monkeypatch.undo()
    monkeypatch.setattr(decode, "decode", counted := _DecodeCounter())
    assert len(cache.load(found, tmp_path / "cache", jobs=1)) == 3
    assert counted.calls < 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_arrays_are_saved_like_numpy_but_report_a_full_disk(tmp_path: Path) -> None:
    array = pcm(1)[None]
    with (tmp_path / "ours.npy").open("wb") as file:
        cache.save_array(file, array)
    np.save(tmp_path / "theirs.npy", array)
    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "theirs.npy").read_bytes()
    with (
        Path("/dev/full").open("wb", buffering=0) as full,
        pytest.raises(OSError, match="space") as told,
    ):
        cache.save_array(full, array)
    assert told.value.errno == errno.ENOSPC


class _DecodeCounter:
    def __init__(self) -> None:
        self.calls, self.real = 0, decode.decode

    def __call__(self, source: Source) -> Any:
        self.calls += 1
        return self.real(source)


def test_corrupt_stems_are_named_after_all_others_are_decoded(tmp_path: Path) -> None:
    found = pool(tmp_path / "pools")
    found[1].files["bass"].write_bytes(b"RIFF nonsense")
    with pytest.raises(AudioError, match=r"1 of 3 recordings cannot be decoded.*take1\.wav"):
        cache.load(found, tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def test_a_stem_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "bass" / "take", 0, 40_000)
    (path,) = (tmp_path / "bass").iterdir()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"is cut short: its header promises 0\.91 s, 0\.4"):
        cache.load(Pools().find(tmp_path, STEMS), tmp_path / "cache")


def test_stems_of_different_lengths_are_padded_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "train" / "one" / "drums", 0, 20_000)
    write(tmp_path / "train" / "one" / "bass", 1, 30_000)
    (loaded,) = cache.load(SongFolders().find(tmp_path, STEMS), tmp_path / "cache")
    assert loaded.samples == 30_000
    assert not loaded.stem("drums")[20_000:].any()
    assert "one: stems differ in length" in caplog.text


def test_stems_above_full_scale_are_scaled_alike_and_not_clipped(tmp_path: Path) -> None:
    time = np.arange(20_000) / 44_100
    song = tmp_path / "train" / "one"
    song.mkdir(parents=True)
    for stem, peak in (("drums", 0.5), ("bass", 1.6)):
        tone = peak * np.sin(2 * np.pi * 441 * time)
        soundfile.write(song / f"{stem}.wav", tone, 44_100, subtype="FLOAT")
    (loaded,) = cache.load(SongFolders().find(tmp_path, STEMS), tmp_path / "cache")
    drums, bass = loaded.stem("drums").astype(float), loaded.stem("bass").astype(float)
    assert np.abs(bass).max() >= 32_766
    np.testing.assert_allclose(bass, drums * 3.2, atol=3)


def test_warnings_of_the_decoder_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "bass").mkdir()
    path = tmp_path / "bass" / "take.ogg"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal((60_000, 2)), 44_100)
    path.write_bytes(path.read_bytes()[:-20])
    cache.load(Pools().find(tmp_path, STEMS), tmp_path / "cache")
    (message,) = caplog.messages
    assert "take.ogg has no end mark" in message


def test_a_stem_of_many_channels_is_refused_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "bass").mkdir()
    soundfile.write(tmp_path / "bass" / "take.wav", np.zeros((4000, 6), np.int16), 44_100)
    with pytest.raises(AudioError, match=r"take\.wav has 6 channels: expected a mono or stereo"):
        cache.load(Pools().find(tmp_path, STEMS), tmp_path / "cache")


@pytest.mark.parametrize("content", ["", "ab", 64 * "x"])
def test_damaged_hashes_of_a_full_disk_make_no_duplicates(tmp_path: Path, content: str) -> None:
    found = pool(tmp_path / "pools")
    first = [each.path for each in cache.load(found, tmp_path / "cache")]
    for note in (tmp_path / "cache" / "hashes").iterdir():
        note.write_text(content)
    assert cache.distinct(found, tmp_path / "cache") == (found, [])
    assert [each.path for each in cache.load(found, tmp_path / "cache")] == first


def test_the_recorded_content_of_audio_does_not_depend_on_the_cache_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pool(tmp_path / "pools", 1)
    (before,) = cache.load(found, tmp_path / "cache")
    monkeypatch.setattr(cache, "CACHE_VERSION", 99)
    (after,) = cache.load(found, tmp_path / "cache")
    assert before.path != after.path
    assert cache.content_of(before) == cache.content_of(after)
    assert len(cache.content_of(before)) == 24


def test_a_cache_that_cannot_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = pool(tmp_path / "pools", 1)
    cache.load(found, tmp_path / "cache")

    def fail(path: Path, **_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(cache.np, "load", fail)
    with pytest.raises(AudioError, match=r"cannot be read: Input/output error \(.*\.npy\)$"):
        cache.load(found, tmp_path / "cache")


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    found = pool(tmp_path / "pools", 1)
    cache.load(found, tmp_path / "cache")
    described = next((tmp_path / "cache").glob("*.json"))
    good = described.read_text()
    for content in ("[]", '{"stems": null, "block": 1, "levels": []}'):
        described.write_text(content)
        with pytest.raises(AudioError, match=r"cache of bass/take0 is damaged: remove"):
            cache.load(found, tmp_path / "cache")
    described.write_text(good)
    next((tmp_path / "cache").glob("*.npy")).write_bytes(b"")
    with pytest.raises(AudioError, match=r"cache of bass/take0 is damaged: remove .* start again"):
        cache.load(found, tmp_path / "cache")


def test_training_from_the_cache_imports_no_decoder(tmp_path: Path) -> None:
    write_musdb(tmp_path, ("A - B",))
    cache.load(Musdb().find(tmp_path, STEMS), tmp_path / "cache")
    code = (
        "import sys\nfrom pathlib import Path\nfrom unetsep.config import STEMS\n"
        "from unetsep.train.data import cache, clips, musdb\n"
        f"sources = musdb.Musdb().find(Path({str(tmp_path)!r}), STEMS)\n"
        f"songs = cache.load(sources, {str(tmp_path / 'cache')!r})\n"
        "assert songs[0].stem('bass').any()\nprint(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"soundfile", "soxr", "musdb", "stempeg", "ffmpeg", "librosa"}


def test_levels_equal_those_of_the_audio(tmp_path: Path) -> None:
    (loaded,) = cache.load(pool(tmp_path / "pools", 1), tmp_path / "cache")
    true = float(np.sqrt(np.mean(np.square(loaded.stem("bass").astype(np.float64)))))
    assert loaded.level("bass", 0, 4000) == pytest.approx(true, rel=1e-3)
    described = json.loads(next((tmp_path / "cache").glob("*.json")).read_text())
    assert described["stems"] == ["bass"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_truncated_stem_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("stempeg")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "A - B.stem.mp4").write_bytes(b"\0\0\0\x20ftypM4A nonsense")
    with pytest.raises(AudioError, match=r"A - B: .*A - B.stem.mp4 cannot be read"):
        cache.load(Musdb().find(tmp_path, STEMS), tmp_path / "cache")
