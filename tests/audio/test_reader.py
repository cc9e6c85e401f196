from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

import unetsep.audio.reader
from tests.programs import execute
from tests.signals import RATE, music
from unetsep.audio.libsndfile import FileView
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError


def read(path: Path, **options: float) -> np.ndarray:
    with AudioReader(path, **options) as reader:
        return np.concatenate(list(reader.blocks(1000)), axis=1)


@pytest.mark.parametrize(
    ("name", "subtype", "bit_depth"),
    [
        ("a.wav", "PCM_16", "16"),
        ("a.wav", "PCM_24", "24"),
        ("a.wav", "PCM_U8", "8"),
        ("a.aiff", "PCM_S8", "8"),
        ("a.wav", "PCM_32", "32"),
        ("a.wav", "FLOAT", "32f"),
        ("a.wav", "DOUBLE", "64f"),
        ("a.wav", "ULAW", "16"),
        ("a.flac", "PCM_16", "16"),
        ("a.flac", "PCM_24", "24"),
        ("a.ogg", "VORBIS", "24"),
        ("a.aiff", "PCM_24", "24"),
        ("a.caf", "FLOAT", "32f"),
        ("a.w64", "PCM_16", "16"),
        ("a.au", "PCM_16", "16"),
        ("a.mp3", "MPEG_LAYER_III", "24"),
    ],
)
def test_format_is_read_to_the_sample_with_the_bits_it_needs(song, name, subtype, bit_depth):
    path = song(name, subtype=subtype)
    with AudioReader(path) as reader:
        assert reader.info.bit_depth == bit_depth
        assert reader.frames == RATE
        assert reader.warnings == []
    assert read(path).shape == (2, RATE)


def test_opus_is_read_at_48_khz(tmp_path):
    soundfile.write(tmp_path / "a.opus", music(1, 48_000).T, 48_000, format="OGG", subtype="OPUS")
    assert read(tmp_path / "a.opus").shape == (2, 48_000)


def test_blocks_are_contiguous_and_concatenate_to_the_file(song):
    path = song("a.wav", subtype="FLOAT")
    with AudioReader(path) as reader:
        blocks = list(reader.blocks(1000))
    assert [b.shape[1] for b in blocks] == [1000] * 44 + [100]
    assert all(block.flags.c_contiguous for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1).T, soundfile.read(path)[0])


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3", "a.ogg"])
def test_excerpt_is_the_same_samples_as_the_whole(song, name):
    path = song(name, seconds=3)
    part = read(path, start=0.7, duration=1.1)
    whole = read(path)[:, round(0.7 * RATE) :][:, : round(1.1 * RATE)]
    assert part.shape == whole.shape
    # mp3 decoders start afresh, a few frames earlier: equal to rounding, not to the bit.
    np.testing.assert_allclose(part, whole, atol=1e-4)


def test_excerpt_may_run_over_the_end(song):
    assert read(song(), start=0.75, duration=9).shape == (2, RATE - round(0.75 * RATE))


def test_shortest_duration_is_one_sample(song):
    assert read(song(), duration=1e-9).shape == (2, 1)


@pytest.mark.parametrize(
    "options",
    [
        {"start": -1},
        {"start": float("nan")},
        {"start": float("inf")},
        {"duration": 0},
        {"duration": -1},
        {"duration": float("nan")},
        {"duration": float("inf")},
    ],
)
def test_impossible_excerpts_are_value_errors(song, options):
    with pytest.raises(ValueError, match="must be"):
        AudioReader(song(), **options)


def test_an_excerpt_may_be_given_as_clock_times(song):
    path = song(seconds=3)
    np.testing.assert_array_equal(
        read(path, start="0:01", duration="0:01.5"), read(path, start=1, duration=1.5)
    )


def test_excerpts_of_any_size_are_no_crash(song):
    path = song()
    np.testing.assert_array_equal(read(path, duration=1e305), read(path))
    with pytest.raises(AudioError, match=r"lasts 1\.00 s: an excerpt cannot start at"):
        AudioReader(path, start=1e305)


def test_start_beyond_the_end_says_how_long_the_file_is(song):
    with pytest.raises(AudioError, match=r"lasts 1\.00 s: an excerpt cannot start at 7\.00 s"):
        AudioReader(song(), start=7)


def no_file(folder: Path) -> Path:
    return folder / "none.wav"


def empty_file(folder: Path) -> Path:
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def text_file(folder: Path) -> Path:
    (folder / "text.wav").write_text("These are not samples.\n" * 100)
    return folder / "text.wav"


def raw_samples(folder: Path) -> Path:
    (folder / "a.raw").write_bytes(bytes(range(256)) * 4)
    return folder / "a.raw"


def fifo(folder: Path) -> Path:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes with names here")
    os.mkfifo(folder / "pipe.wav")
    return folder / "pipe.wav"


def no_samples(folder: Path) -> Path:
    soundfile.write(folder / "zero.wav", np.zeros((0, 2)), RATE)
    return folder / "zero.wav"


def many_channels(folder: Path) -> Path:
    soundfile.write(folder / "many.wav", np.zeros((5, 1000)), RATE)
    return folder / "many.wav"


def wild_rate(folder: Path) -> Path:
    soundfile.write(folder / "rate.wav", np.zeros((5, 2)), 1_000_000_000)
    return folder / "rate.wav"


def zero_rate(folder: Path) -> Path:
    soundfile.write(folder / "rate.wav", np.zeros((5, 2)), RATE)
    content = bytearray((folder / "rate.wav").read_bytes())
    content[24:28] = bytes(4)
    (folder / "rate.wav").write_bytes(content)
    return folder / "rate.wav"


# Windows does not tell it from what is not there.
TOO_LONG = "its path is too long" if os.name == "nt" else "cannot be opened: File name too long"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_file, "does not exist"),
        (lambda folder: folder, "is a folder where an audio file was expected"),
        (lambda folder: folder / ("x" * 300), TOO_LONG),
        (empty_file, r"is empty \(0 bytes\)"),
        (text_file, "text.wav"),
        (raw_samples, "a.raw"),
        (fifo, "is not a regular file"),
        (no_samples, r"no audio samples"),
        (many_channels, "claims 1000 channels: expected 1 to 64"),
        (wild_rate, "claims a sample rate of 1000000000 Hz: expected 1000 to 1000000"),
        (zero_rate, "rate.wav"),
    ],
)
def test_what_is_no_usable_audio_is_refused_in_one_sentence(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(AudioError, match=message) as caught:
        AudioReader(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_wav_file_that_is_called_raw_is_read(tmp_path, song):
    path = song("a.wav")
    expected = read(path)
    np.testing.assert_array_equal(read(path.rename(tmp_path / "a.RAW")), expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused_with_their_place(tmp_path, bad):
    audio = music(1).T
    audio[22_050, 1] = bad
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"NaN or infinite samples, the first at 0\.500 s"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("level", [1.1e12, -3e38])
def test_samples_beyond_any_level_are_refused_with_their_place(tmp_path, level):
    audio = np.full((RATE, 2), 9e11, np.float32)
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read(tmp_path / "a.wav"), audio.T)
    audio[22_050, 1] = level
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"samples beyond 1e\+12, the first at 0\.500 s"):
        read(tmp_path / "a.wav")


def test_file_that_shrinks_while_being_read_is_an_error(song):
    path = song("a.wav", seconds=4)
    with AudioReader(path) as reader:
        blocks = reader.blocks(1000)
        next(blocks)
        os.truncate(path, 1000)
        with pytest.raises(AudioError, match=r"is cut short: its header promises 4\.00 s"):
            list(blocks)


def test_file_that_vanishes_while_being_read_is_read_to_the_end_or_an_error(song):
    path: Path = song("a.wav", seconds=2)
    with AudioReader(path) as reader:
        blocks = reader.blocks(1000)
        next(blocks)
        try:
            path.unlink()
        except PermissionError:
            pytest.skip("open files cannot be removed here")
        assert sum(block.shape[1] for block in blocks) == 2 * RATE - 1000


def test_no_file_stays_open(song: Callable[..., Path]):
    if not Path("/proc/self/fd").exists():
        pytest.skip("counts open files in /proc")
    paths = [song("a.wav"), song("a.mp3"), song("a.flac")]
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in paths * 5:
        read(path)
        with pytest.raises(AudioError):
            AudioReader(path, start=99)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.fixture
def unsupported(song, tmp_path):
    """Files of which libsndfile knows the container but not the encoding."""
    wav = song("a.wav", seconds=0.5, subtype="PCM_32")
    execute("flac", "-s", "-o", tmp_path / "a.flac", wav)
    for name, codec in (("a.ogg", "flac"), ("a.caf", "alac"), ("g722.wav", "adpcm_g722")):
        execute("ffmpeg", "-v", "error", "-i", wav, "-c:a", codec, tmp_path / name)
    long = tmp_path / "bw64.wav"
    execute("ffmpeg", "-v", "error", "-i", wav, "-rf64", "always", long)
    long.write_bytes(long.read_bytes().replace(b"RF64", b"BW64", 1))
    return tmp_path


@pytest.mark.parametrize(
    ("codec", "subtype", "depth"),
    [("pcm_f32le", "FLOAT", "32f"), ("pcm_f64le", "DOUBLE", "64f"), ("pcm_s32le", "PCM_32", "32")],
)
def test_floats_of_w64_are_not_read_as_integers(song, tmp_path, codec, subtype, depth):
    wav, path = song("a.wav", seconds=0.5, subtype=subtype), tmp_path / "a.w64"
    execute("ffmpeg", "-v", "error", "-i", wav, "-c:a", codec, path)
    with AudioReader(path) as reader:
        assert (reader.info.bit_depth, reader.warnings) == (depth, [])
    np.testing.assert_array_equal(read(path), read(wav))


def told(path: Path) -> str:
    """The error of a file, or its warnings, which must be all there is of half a second."""
    try:
        with AudioReader(path) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) == RATE // 2
            return " ".join(reader.warnings)
    except AudioError as error:
        return str(error)


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.caf", "g722.wav", "bw64.wav"])
def test_what_is_not_supported_is_not_called_damaged(unsupported, name, monkeypatch):
    path = unsupported / name
    # Not every ffmpeg reads FLAC of 32 bits; a newer libsndfile may.
    assert told(path) == "" or (name == "a.flac" and "flac of at most 24 bits" in told(path))
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    assert told(path) == "" or "of a kind that is not supported without ffmpeg" in told(path)


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
@pytest.mark.parametrize("size", [4, 20, 40])
def test_what_ends_within_its_header_is_cut_short_and_not_unsupported(
    song, suffix, size, monkeypatch
):
    path = song(f"a.{suffix}", seconds=0.5)
    path.write_bytes(path.read_bytes()[:size])
    assert "is cut short: it ends within its header" in told(path)
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    assert "is cut short: it ends within its header" in told(path)


def test_what_is_no_mp3_is_not_said_to_be_missing(tmp_path: Path) -> None:
    path = tmp_path / "page.mp3"
    path.write_bytes(b"<!doctype html><p>Not found" * 50)
    with pytest.raises(AudioError) as refused:
        AudioReader(path)
    assert "does not exist" not in str(refused.value)
    assert "ormat not recognised" in str(refused.value)


def lose_drive(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on decoders see a file end in its middle, and the system says why."""
    truly = Path.open

    def refuse(self: Path, *arguments: object, **options: object) -> object:
        if self == path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), self)
        return truly(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("name", "subtype"), [("a.wav", "PCM_16"), ("a.flac", "PCM_16"), ("a.mp3", "MPEG_LAYER_III")]
)
def test_a_drive_that_is_lost_while_a_song_is_read_is_not_taken_for_its_end(
    song, monkeypatch, name, subtype
):
    path = song(name, subtype=subtype, seconds=10)
    with AudioReader(path) as reader:
        blocks = reader.blocks(1000)
        next(blocks)
        lose_drive(path, monkeypatch)
        with pytest.raises(AudioError, match=f"{name} cannot be read: {os.strerror(errno.EIO)}"):
            list(blocks)


def test_a_drive_that_is_lost_under_libsndfiles_callbacks_prints_no_traceback(
    tmp_path, monkeypatch, capfd
):
    path = tmp_path / "a.opus"
    soundfile.write(path, music(10, 48_000).T, 48_000, format="OGG", subtype="OPUS")
    with AudioReader(path) as reader:
        blocks = reader.blocks(1000)
        next(blocks)
        lose_drive(path, monkeypatch)
        refuse = Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
        view = reader._decoder._view
        assert isinstance(view, FileView)
        monkeypatch.setattr(view, "_file", Mock(wraps=view._file, read=refuse))
        with pytest.raises(AudioError, match=f"opus cannot be read: {os.strerror(errno.EIO)}"):
            list(blocks)
    assert refuse.called
    assert capfd.readouterr().err == ""
