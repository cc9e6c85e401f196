from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unetsep.audio.ffmpeg
import unetsep.audio.reader
from tests.audio.test_ffmpeg import convert
from tests.audio.test_reader import read
from tests.files import cut, damage
from tests.programs import script
from tests.signals import RATE, music
from unetsep.audio.ffmpeg import FfmpegDecoder
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError
from unetsep.train.data.decode import read_audio

# Name, and what ffmpeg encodes it with.
SONGS = {
    "counted.mp3": ("-b:a", "128k"),
    "variable.mp3": ("-q:a", "2"),
    "uncounted.mp3": ("-b:a", "128k", "-write_xing", "0"),
    "a.flac": (),
    "a.ogg": ("-c:a", "libvorbis", "-page_duration", "200000"),
    "a.opus": ("-c:a", "libopus", "-page_duration", "200000"),
}
STOPPING = [name for name in SONGS if not name.startswith("a.o")]
SECONDS = 12


@pytest.fixture(scope="module")
def contents(need_ffmpeg, tmp_path_factory):
    """The bytes of a song by its name, encoded once for all tests."""

    @functools.cache
    def encode(name: str) -> bytes:
        source = tmp_path_factory.mktemp("songs") / "s.wav"
        rate = 48_000 if name == "a.opus" else RATE
        soundfile.write(source, music(SECONDS, rate).T, rate)
        return convert(need_ffmpeg, source, name, *SONGS[name]).read_bytes()

    return encode


@pytest.fixture
def encoded(contents, tmp_path):
    def copy(name: str) -> Path:
        path = tmp_path / name
        path.write_bytes(contents(name))
        return path

    return copy


def read_with_warnings(path: Path, **options: object) -> tuple[np.ndarray, list[str]]:
    with AudioReader(path, **options) as reader:
        return np.concatenate(list(reader.blocks(10_000)), axis=1), reader.warnings


def place_of(part: np.ndarray, audio: np.ndarray) -> int:
    """The sample of some audio from which on it resembles a part of it most."""
    size = audio.shape[1]
    product = np.fft.rfft(audio[0]) * np.conj(np.fft.rfft(part[0], size))
    return int(np.argmax(np.fft.irfft(product, size)[: size - part.shape[1] + 1]))


@pytest.mark.parametrize("kind", ["zeros", "noise", "insert"])
@pytest.mark.parametrize("name", SONGS)
def test_a_song_is_read_past_damage_with_a_warning(encoded, name, kind):
    path = encoded(name)
    whole = read(path)
    audio, warnings = read_with_warnings(damage(path, kind, 0.5))
    assert [f"{path} is damaged in places" in warning for warning in warnings] == [True]
    assert audio.shape[1] > (SECONDS - 0.9) * RATE
    before = round(0.45 * whole.shape[1])
    np.testing.assert_array_equal(audio[:, :before], whole[:, :before])
    # What follows is early by what was lost. Of a counted mp3 ffmpeg then keeps the padding.
    end = whole[:, -2 * RATE : -RATE]
    at = place_of(end, audio[:, -4 * RATE :])
    assert 2 * RATE - 1200 <= at <= 2 * RATE
    np.testing.assert_allclose(audio[:, at - 4 * RATE :][:, :RATE], end, atol=1e-3)


@pytest.mark.parametrize("name", STOPPING)
def test_after_damage_samples_are_those_of_ffmpeg_and_at_the_same_time(encoded, name, need_ffmpeg):
    path = damage(encoded(name), "zeros", 0.4)
    audio, (warning,) = read_with_warnings(path)
    assert "s on ffmpeg decoded it, since libsndfile could not" in warning
    decoder = FfmpegDecoder(path, need_ffmpeg, "")
    decoded = decoder.read(audio.shape[1] + 1).T
    decoder.close()
    assert decoded.shape == audio.shape
    np.testing.assert_allclose(audio, decoded, atol=1e-5)
    begin = round((0.3 + float(re.search(r"from (.*) s on", warning)[1])) * RATE)
    excerpt, (warning,) = read_with_warnings(path, start=begin / RATE, duration=1)
    assert "is damaged in places" in warning
    np.testing.assert_array_equal(excerpt, audio[:, begin : begin + RATE])


@pytest.mark.parametrize("name", SONGS)
def test_an_excerpt_before_damage_gives_no_warning(encoded, name):
    path = encoded(name)
    whole = read(path, duration=3)
    audio, warnings = read_with_warnings(damage(path, "zeros", 0.5), duration=3)
    np.testing.assert_array_equal(audio, whole)
    assert warnings == []


def test_damage_near_the_end_of_an_mp3_is_not_its_last_frame(encoded):
    path = damage(encoded("uncounted.mp3"), "zeros", 0.9)
    audio, (warning,) = read_with_warnings(path)
    assert "is damaged in places" in warning
    assert audio.shape[1] > (SECONDS - 0.3) * RATE


def test_several_places_are_passed(encoded):
    path = encoded("counted.mp3")
    for share in (0.2, 0.4, 0.8):
        damage(path, "noise", share)
    audio, warnings = read_with_warnings(path)
    assert "is damaged in places" in warnings[0]
    assert (SECONDS - 0.7) * RATE < audio.shape[1] < SECONDS * RATE


@pytest.mark.parametrize("name", STOPPING)
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_song_that_is_cut_is_treated_as_without_ffmpeg(encoded, name, share, monkeypatch):
    path = cut(encoded(name), share)

    def outcome() -> tuple[object, ...]:
        try:
            audio, warnings = read_with_warnings(path)
        except AudioError as error:
            return (str(error).split(";")[0],)
        return audio.shape, warnings

    by_ffmpeg = outcome()
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    assert by_ffmpeg == outcome()
    expected = "breaks off within its last frame" if name == "uncounted.mp3" else "cut short|damage"
    assert any(word in str(by_ffmpeg) for word in expected.split("|"))


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(AudioError) as told:
        read_with_warnings(path, **options)
    return str(told.value)


@pytest.mark.parametrize("text", ["exit 1", "exec sleep 60", "seq 1000"])
def test_if_ffmpeg_gets_no_further_the_damage_is_an_error(encoded, tmp_path, monkeypatch, text):
    path = damage(encoded("a.flac"), "zeros", 0.5)
    monkeypatch.setattr(unetsep.audio.ffmpeg, "PATIENCE", 0.3)
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: script(tmp_path, text))
    assert "or separate the part before it with --duration" in refusal(path)


def test_without_ffmpeg_the_error_tells_to_install_it(encoded, monkeypatch):
    path = damage(encoded("a.flac"), "zeros", 0.5)
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    for place in ({}, {"start": 6.3}):
        assert "install ffmpeg or run 'pip install imageio-ffmpeg'" in refusal(path, **place)


def test_no_process_outlives_the_reader_of_a_remainder(encoded):
    path = damage(encoded("counted.mp3"), "zeros", 0.2)
    with AudioReader(path, start=3) as reader:
        next(reader.blocks(1000))
        process = reader._decoder._process
        assert process.poll() is None
    assert process.returncode is not None


@pytest.mark.parametrize("name", [*STOPPING, "a.ogg"])
def test_training_and_scoring_refuse_damaged_songs(encoded, name):
    path = damage(encoded(name), "zeros", 0.5)
    with pytest.raises(AudioError, match=r"is damaged at|is cut short"):
        read_audio(path)
