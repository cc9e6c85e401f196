"""Damaged files of every format: samples or one of our errors, never anything else.

``benchmarks/stress/fuzz_audio.py`` is the long version of the first test; the inputs of the others
are of the kinds that showed something while the reader was written.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unetsep.audio.reader
from tests.signals import music
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError

FORMATS = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "FLOAT"),
    ("wav", "WAV", "IMA_ADPCM"),
    ("wav", "RF64", "PCM_24"),
    ("w64", "W64", "PCM_16"),
    ("aiff", "AIFF", "PCM_24"),
    ("au", "AU", "PCM_16"),
    ("caf", "CAF", "ALAC_16"),
    ("flac", "FLAC", "PCM_16"),
    ("ogg", "OGG", "VORBIS"),
    ("opus", "OGG", "OPUS"),
    ("mp3", "MP3", "MPEG_LAYER_III"),
]


def encode(container: str, subtype: str, seconds: float = 0.05, channels: int = 2) -> bytes:
    file = io.BytesIO()
    audio = music(seconds, 48_000, channels).T
    soundfile.write(file, audio, 48_000, subtype=subtype, format=container)
    return file.getvalue()


SEEDS = [(suffix, encode(container, subtype)) for suffix, container, subtype in FORMATS]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "word", "cut", "remove", "insert", "repeat"]),
        st.floats(0, 1),
        st.sampled_from([0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)


def damage(content: bytes, edits: list[tuple[str, float, int, bool]]) -> bytes:
    data = bytearray(content)
    for kind, place, value, in_header in edits:
        at = int(place * (min(len(data), 100) if in_header else len(data)))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << value % 8
        elif kind == "word":
            data[at : at + 4] = struct.pack("<I" if value % 2 else ">I", value)
        elif kind == "cut":
            del data[at:]
        elif kind == "remove":
            del data[at : at + 1 + value % 300]
        elif kind == "insert":
            data[at:at] = bytes((value * i) % 251 for i in range(1 + value % 300))
        elif kind == "repeat":
            data[at:at] = data[at : at + 1 + value % 2000]
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.sampled_from(SEEDS), edits=EDITS)
def test_damage_gives_samples_or_an_audio_error(folder: Path, monkeypatch, seed, edits):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    suffix, content = seed
    path = folder / f"a.{suffix}"
    path.write_bytes(damage(content, edits))
    try:
        with AudioReader(path) as reader:
            samples = 0
            for block in reader.blocks(4096):
                assert block.dtype == np.float32
                assert block.shape[0] == reader.info.channels
                assert np.isfinite(block).all()
                samples += block.shape[1]
            assert 0 < samples < 1_000_000
    except AudioError as error:
        assert "\n" not in str(error)  # noqa: PT017 (or no error at all)


def test_infinities_of_both_signs_in_one_block_are_found(tmp_path):
    audio = np.zeros((100, 2))
    audio[10], audio[20] = np.inf, -np.inf
    soundfile.write(tmp_path / "a.wav", audio, 48_000, subtype="FLOAT")
    with AudioReader(tmp_path / "a.wav") as reader, pytest.raises(AudioError, match="infinite"):
        list(reader.blocks())


@pytest.mark.parametrize("frames", [2**31, 2**35 - 1, 2**36 - 1])
def test_a_flac_header_that_promises_years_is_refused_without_the_memory(tmp_path, frames):
    content = bytearray(encode("FLAC", "PCM_16"))
    # STREAMINFO: the lower 36 bits of the eight bytes from 18 on are the number of samples.
    (bits,) = struct.unpack_from(">Q", content, 18)
    struct.pack_into(">Q", content, 18, bits >> 36 << 36 | frames)
    (tmp_path / "a.flac").write_bytes(content)
    with (
        pytest.raises(AudioError, match=r"cut short|damaged"),
        AudioReader(tmp_path / "a.flac") as reader,
    ):
        list(reader.blocks())


@pytest.mark.parametrize("claim", [0x7F7F7F7F, 0x01000000])
def test_a_tag_that_claims_more_than_the_file_is_no_crash(tmp_path, claim):
    tag = b"ID3\x03\0\0" + struct.pack(">I", claim)
    (tmp_path / "a.mp3").write_bytes(tag + encode("MP3", "MPEG_LAYER_III"))
    try:
        with AudioReader(tmp_path / "a.mp3") as reader:
            list(reader.blocks())
    except AudioError as error:
        assert "a.mp3" in str(error)  # noqa: PT017 (or no error at all)


def test_a_wav_whose_block_size_lies_is_no_crash(tmp_path, monkeypatch):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    content = encode("WAV", "PCM_16")
    for offset in range(20, 36, 2):
        for value in (0, 1, 3, 0xFFFF):
            changed = content[:offset] + struct.pack("<H", value) + content[offset + 2 :]
            (tmp_path / "a.wav").write_bytes(changed)
            try:
                with AudioReader(tmp_path / "a.wav") as reader:
                    assert sum(block.shape[1] for block in reader.blocks()) < 100_000
            except AudioError as error:
                assert "a.wav" in str(error)  # noqa: PT017 (or no error at all)
