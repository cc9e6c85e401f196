"""Streams whose first position is not zero, as they are when recorded from their middle on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutagen.ogg import OggPage

from tests.audio.test_reader import read
from tests.programs import execute
from tests.signals import music
from unetsep.audio.ogg import without_pre_skip

RATE = 48_000
SAMPLES = 3 * RATE + 777


def pages(data: bytes) -> list[OggPage]:
    file, parts = io.BytesIO(data), []
    while file.tell() < len(data):
        parts.append(OggPage(file))
    return parts


@pytest.fixture
def stream(tmp_path):
    """Encode a song; its positions shifted, the first pages of its sound left out."""

    def make(suffix: str, samples: int = 0, left_out: int = 0) -> Path:
        wav, path = tmp_path / "source.wav", tmp_path / f"a.{suffix}"
        soundfile.write(wav, music(SAMPLES / RATE, RATE).T, RATE, subtype="PCM_16")
        if suffix == "opus":
            execute("opusenc", "--quiet", wav, path)
        else:
            execute("oggenc", "-Q", wav, "-o", path)
        parts = pages(path.read_bytes())
        heads = [page for page in parts if page.position == 0]
        sound = parts[len(heads) + left_out :]
        for page in sound:
            page.position += samples
        path.write_bytes(b"".join(page.write() for page in [*heads, *sound]))
        return path

    return make


def by_xiph(path: Path) -> np.ndarray:
    wav = path.with_name("decoded.wav")
    if path.suffix == ".opus":
        execute("opusdec", "--quiet", "--float", path, wav)
    else:
        execute("oggdec", "-Q", "-o", wav, path)
    return soundfile.read(wav, dtype="float32", always_2d=True)[0].T


CASES: Sequence[tuple[int, int]] = [
    (0, 0),
    (48, 0),
    (312, 0),
    (1000, 0),
    (10**9, 0),
    (0, 1),
    (5, 2),
]


@pytest.mark.parametrize("suffix", ["opus", "ogg"])
@pytest.mark.parametrize(("samples", "left_out"), CASES)
def test_a_stream_may_begin_at_any_position(stream, suffix, samples, left_out):
    path = stream(suffix, samples, left_out)
    expected, audio = by_xiph(path), read(path)
    assert audio.shape == expected.shape
    assert left_out or audio.shape[1] == SAMPLES
    np.testing.assert_allclose(audio, expected, atol=1e-3)  # they write 16 bits
    raw = np.frombuffer(execute("ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "-"), "<f4")
    # ffmpeg's own decoder of Opus differs a little; a shift by a sample would by 0.01.
    assert np.square(audio - raw.reshape(-1, 2).T).mean() ** 0.5 < 2e-4


@pytest.mark.parametrize(("samples", "left_out"), CASES)
@pytest.mark.parametrize("start", [0.01, 0.7])
def test_an_excerpt_of_such_a_stream_is_exact(stream, samples, left_out, start):
    path = stream("opus", samples, left_out)
    begin = round(start * RATE)
    part = read(path, start=start, duration=0.2)
    np.testing.assert_array_equal(part, read(path)[:, begin : begin + round(0.2 * RATE)])


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000])
def test_what_is_skipped_counts_at_the_rate_of_the_song(tmp_path, rate):
    wav, path = tmp_path / "source.wav", tmp_path / "a.opus"
    soundfile.write(wav, music(2.01, rate).T, rate, subtype="PCM_16")
    execute("opusenc", "--quiet", wav, path)
    assert read(path).shape[1] == soundfile.info(wav).frames == by_xiph(path).shape[1]


@pytest.mark.parametrize("data", [b"", b"OggS", b"RIFF" + bytes(40), b"OggS" + bytes(60)])
def test_what_is_no_opus_stream_skips_nothing(tmp_path, data):
    path = tmp_path / "a.opus"
    path.write_bytes(data)
    assert without_pre_skip(path) is None
