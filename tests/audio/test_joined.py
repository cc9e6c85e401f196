from __future__ import annotations

import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio.test_reader import read
from tests.programs import execute
from tests.signals import RATE, music
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError

ENCODERS = {
    "ogg": ["oggenc", "-Q", "-o", "{to}", "{wav}"],
    "opus": ["opusenc", "--quiet", "{wav}", "{to}"],
    "mp3": ["lame", "-S", "{wav}", "{to}"],
    "id3.mp3": ["lame", "-S", "--tt", "a", "--add-id3v2", "{wav}", "{to}"],
    "bare.mp3": ["lame", "-S", "-t", "{wav}", "{to}"],
    "flac": ["flac", "-s", "-f", "-o", "{to}", "{wav}"],
    "piped.wav": ["cp", "{wav}", "{to}"],
}


def encode(
    folder: Path, suffix: str, seed: int, seconds: float, rate: int = RATE, channels: int = 2
) -> Path:
    wav, path = folder / f"source-{seed}.wav", folder / f"part-{seed}.{suffix}"
    soundfile.write(wav, music(seconds, rate, channels, seed).T, rate, subtype="PCM_16")
    if suffix in ("wav", "aiff", "au", "caf", "w64", "rf64"):
        form = {"format": suffix.upper(), "subtype": "PCM_16"}
        soundfile.write(path, soundfile.read(wav)[0], rate, **form)
    else:
        name, *options = ENCODERS[suffix]
        execute(name, *(option.format(wav=wav, to=path) for option in options))
    return path


def join(parts: list[Path], between: bytes = b"") -> Path:
    path = parts[0].with_name(f"joined{parts[0].suffix}")
    path.write_bytes(between.join(part.read_bytes() for part in parts))
    return path


def read_with_warnings(path: Path) -> tuple[np.ndarray, list[str]]:
    with AudioReader(path) as reader:
        audio = np.concatenate(list(reader.blocks(5000)), axis=1)
        return audio, reader.warnings


@pytest.mark.parametrize(
    ("suffix", "count"),
    [
        *itertools.product(["ogg", "opus", "mp3", "id3.mp3", "flac", "wav", "aiff"], [2, 3]),
        *(("au", 2), ("caf", 2), ("w64", 3), ("rf64", 2)),
    ],
)
def test_joined_files_are_read_in_sequence_as_each_alone(tmp_path, suffix, count):
    parts = [encode(tmp_path, suffix, seed, 2.1 - 0.3 * seed) for seed in range(count)]
    expected = np.concatenate([read(part) for part in parts], axis=1)
    path = join(parts)
    audio, warnings = read_with_warnings(path)
    np.testing.assert_array_equal(audio, expected)
    assert len(warnings) == 1
    assert "files joined into one, which are read one after the other" in warnings[0]


@pytest.mark.parametrize("suffix", ["ogg", "opus", "id3.mp3", "flac", "wav"])
@pytest.mark.parametrize("start", [0.5, 1.95, 2.5])
def test_an_excerpt_of_joined_files_is_counted_from_the_front(tmp_path, suffix, start):
    path = join([encode(tmp_path, suffix, seed, 2) for seed in range(2)])
    whole = read(path)
    rate = 48_000 if suffix == "opus" else RATE
    begin = round(start * rate)
    part = read(path, start=start, duration=0.7)
    np.testing.assert_allclose(part, whole[:, begin : begin + round(0.7 * rate)], atol=1e-4)


def test_chained_ogg_has_the_length_that_oggdec_and_opusdec_find(tmp_path):
    for suffix, decoder, options in (("ogg", "oggdec", ["-Q"]), ("opus", "opusdec", ["--quiet"])):
        path = join([encode(tmp_path, suffix, seed, 1.5, 48_000) for seed in range(2)])
        target = ["-o", tmp_path / "out.wav", path] if decoder == "oggdec" else [path, "out.wav"]
        target = [tmp_path / "out.wav" if name == "out.wav" else name for name in target]
        execute(decoder, *options, *target)
        assert read(path).shape[1] == 2 * 72_000
        # oggdec 1.4.3 leaves the end of a block that the file's last page cuts off.
        assert soundfile.info(tmp_path / "out.wav").frames - 2 * 72_000 in (0, 128)


def test_opus_after_vorbis_is_one_song_if_the_rates_agree(tmp_path):
    parts = [encode(tmp_path, "ogg", 0, 1, 48_000), encode(tmp_path, "opus", 1, 1, 48_000)]
    expected = np.concatenate([read(part) for part in parts], axis=1)
    np.testing.assert_array_equal(read(join(parts)), expected)


@pytest.mark.parametrize("tag", [b"TAG" + bytes(125), b"TAG" + b"\xff" * 125])
@pytest.mark.parametrize("kinds", [("mp3", "id3.mp3"), ("mp3", "bare.mp3")])
def test_tags_between_joined_mp3_files_are_passed_over(tmp_path, tag, kinds):
    parts = [encode(tmp_path, kind, seed, 2) for seed, kind in enumerate(kinds)]
    path = join(parts, tag)
    audio = read(path)
    first, second = (read(part) for part in parts)
    if kinds[1] == "id3.mp3":
        np.testing.assert_array_equal(audio, np.concatenate([first, second], axis=1))
    else:  # no count of its own: one stream with what comes before
        assert 4 * RATE <= audio.shape[1] <= 4 * RATE + 4 * 1152


@pytest.mark.parametrize("suffixes", [("mp3", "bare.mp3"), ("bare.mp3", "mp3"), ("mp3", "id3.mp3")])
def test_mp3_files_with_and_without_a_count_are_joined_to_the_sample(tmp_path, suffixes):
    parts = [encode(tmp_path, suffix, seed, 1.3) for seed, suffix in enumerate(suffixes)]
    audio, warnings = read_with_warnings(join(parts))
    np.testing.assert_array_equal(audio, np.concatenate([read(part) for part in parts], axis=1))
    assert len(warnings) == 1
    raw = execute("ffmpeg", "-v", "quiet", "-i", parts[0], "-f", "f32le", "-")
    first = np.frombuffer(raw, "<f4").reshape(-1, 2).T
    if suffixes[0] == "mp3":  # whose count tells the silence that the encoder put before
        np.testing.assert_allclose(audio[:, : first.shape[1]], first, atol=1e-4)


@pytest.mark.parametrize("suffix", ["ogg", "mp3", "bare.mp3", "flac", "wav"])
@pytest.mark.parametrize(("rate", "channels"), [(RATE, 1), (48_000, 2)])
def test_reading_ends_where_rate_or_channels_change_and_says_so(tmp_path, suffix, rate, channels):
    first = encode(tmp_path, suffix, 0, 3)
    second = encode(tmp_path, suffix, 1, 4, rate, channels)
    audio, warnings = read_with_warnings(join([first, second]))
    np.testing.assert_array_equal(audio, read(first))
    assert any(
        "is only read up to its part 2" in text and f"has {channels} channels at {rate} Hz" in text
        for text in warnings
    )


def test_another_format_is_read_after_the_end_that_a_header_states(tmp_path):
    parts = [encode(tmp_path, suffix, seed, 1) for seed, suffix in enumerate(("wav", "flac"))]
    expected = np.concatenate([read(part) for part in parts], axis=1)
    np.testing.assert_array_equal(read(join(parts)), expected)


def test_a_chunk_after_the_samples_of_w64_is_not_decoded(tmp_path):
    path = encode(tmp_path, "w64", 0, 1)
    content, chunk = path.read_bytes(), b"levl" + bytes(12) + struct.pack("<Q", 424) + b"!" * 400
    size = struct.pack("<Q", len(content) + len(chunk))
    path.write_bytes(content[:16] + size + content[24:] + chunk)
    audio, warnings = read_with_warnings(path)
    assert (audio.shape, warnings) == ((2, RATE), [])


def test_joined_mp4_files_give_a_warning(tmp_path, need_ffmpeg):
    wav = encode(tmp_path, "wav", 0, 1)
    part = tmp_path / "a.m4a"
    execute(need_ffmpeg, "-v", "error", "-i", wav, part)
    _, warnings = read_with_warnings(part)
    assert warnings == []
    _, warnings = read_with_warnings(join([part, part]))
    assert "is several mp4 files joined into one" in warnings[0]


def test_an_ordinary_file_is_no_join(tmp_path):
    for suffix in ("ogg", "opus", "mp3", "id3.mp3", "bare.mp3", "flac", "wav", "aiff"):
        _, warnings = read_with_warnings(encode(tmp_path, suffix, 0, 1))
        assert warnings == []


def test_bytes_like_frames_of_layer_iii_do_not_end_a_file_of_layer_ii(tmp_path, need_ffmpeg):
    wav, path = tmp_path / "a.wav", tmp_path / "a.mp2"
    soundfile.write(wav, music(2).T, RATE, subtype="PCM_16")
    execute(need_ffmpeg, "-v", "error", "-i", wav, "-b:a", "384k", path)
    content = bytearray(path.read_bytes())
    # Headers of frames of 417 and 384 bytes, of 44.1 and 48 kHz, within a frame of 1253.
    at = 20 * len(content) // 77 + 100
    for place, third in ((at, 0x90), (at + 417, 0x94), (at + 417 + 384, 0x94)):
        content[place : place + 4] = bytes((0xFF, 0xFB, third, 0))
    path.write_bytes(content)
    audio, warnings = read_with_warnings(path)
    assert audio.shape[1] == 77 * 1152
    assert warnings == []


def test_a_joined_file_whose_last_part_is_cut_is_refused(tmp_path):
    path = join([encode(tmp_path, "flac", seed, 2) for seed in range(2)])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(AudioError, match=r"damaged|cut short"):
        read(path)
