from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import unetsep.audio.reader
from tests.audio.test_reader import read
from tests.programs import execute
from tests.signals import RATE, music, white_noise
from unetsep.audio.flac import flac_forms, flac_total
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError


def encode(folder: Path, name: str, audio: np.ndarray, rate: int, *options: str) -> Path:
    soundfile.write(folder / "source.wav", audio.T, rate, subtype="PCM_16")
    path = folder / name
    execute("flac", "-s", "-f", *options, "-o", path, folder / "source.wav")
    return path


def with_total(path: Path, frames: int) -> Path:
    begin, _, _ = flac_forms(path)
    place, patch = flac_total(path, begin, frames)
    content = bytearray(path.read_bytes())
    content[place : place + len(patch)] = patch
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 96_000, 37_800, 655_350])
@pytest.mark.parametrize("options", [[], ["-b", "576"], ["-0"], ["-8"], ["--no-seektable"]])
def test_the_last_frame_tells_the_length(tmp_path, rate, options):
    audio = music(20_001 / rate, rate)
    path = encode(tmp_path, "a.flac", audio, rate, "--lax", *options)
    _, header, last = flac_forms(path)
    assert (header.sample_rate, header.channels, header.bits) == (rate, 2, 16)
    assert header.frames == last.frames == audio.shape[1]
    assert not last.differs(header)


@pytest.mark.parametrize("promised", [1, 4096, 100_000])
def test_a_count_that_is_too_small_does_not_end_the_stream(tmp_path, promised):
    path = encode(tmp_path, "a.flac", music(3), RATE)
    whole = read(path)
    assert whole.shape[1] == 3 * RATE
    with_total(path, promised)
    with AudioReader(path) as reader:
        assert reader.frames == 3 * RATE
        audio = np.concatenate(list(reader.blocks()), axis=1)
        assert "is longer than its header says: 3.00 s instead of" in reader.warnings[0]
    np.testing.assert_array_equal(audio, whole)
    np.testing.assert_array_equal(read(path, start=2.5), whole[:, round(2.5 * RATE) :])


def test_a_count_that_is_too_large_is_a_file_cut_short(tmp_path):
    path = with_total(encode(tmp_path, "a.flac", music(3), RATE), 4 * RATE)
    with pytest.raises(AudioError, match=r"promises 4\.00 s, 3\.00 s could be decoded"):
        read(path)


@pytest.mark.parametrize(("rate", "channels", "bits"), [(48_000, 2, 16), (RATE, 1, 16)])
def test_a_stream_that_changes_midway_is_refused(tmp_path, rate, channels, bits):
    first = encode(tmp_path, "a.flac", music(2), RATE).read_bytes()
    second = encode(tmp_path, "b.flac", music(2, rate, channels), rate, "--no-padding").read_bytes()
    start = second.index(b"\xff\xf8", 42)
    (tmp_path / "c.flac").write_bytes(first + second[start:])
    message = f"changes midway: .* ends with {channels} channels of {bits} bits at {rate} Hz"
    with pytest.raises(AudioError, match=message):
        AudioReader(tmp_path / "c.flac")


def test_the_last_frame_is_found_before_tags_and_noise(tmp_path):
    path = encode(tmp_path, "a.flac", music(2), RATE)
    path.write_bytes(path.read_bytes() + np.random.default_rng(0).bytes(5000))
    _, header, last = flac_forms(path)
    assert last == header


@pytest.mark.parametrize(("start", "right"), [(0.1, True), (1.0, True), (1.5, False), (2.8, False)])
def test_without_ffmpeg_an_excerpt_may_start_before_damage_but_not_after_it(
    tmp_path, start, right, monkeypatch
):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    path = encode(tmp_path, "a.flac", white_noise(3 * RATE), RATE)
    whole = read(path)
    content = bytearray(path.read_bytes())
    middle = slice(len(content) * 4 // 10, len(content) * 6 // 10)
    content[middle] = bytes(len(content[middle]))
    path.write_bytes(content)
    if right:
        begin = round(start * RATE)
        part = read(path, start=start, duration=0.1)
        np.testing.assert_array_equal(part, whole[:, begin : begin + RATE // 10])
    else:
        with pytest.raises(AudioError, match=rf"damaged before {start:.2f} s"):
            read(path, start=start, duration=0.1)
