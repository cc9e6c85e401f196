from __future__ import annotations

import re
import struct
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen import apev2, id3

from tests.programs import execute
from tests.signals import RATE, music
from unetsep.audio.payload import SAMPLE_BYTES, audio_mark, file_and_audio_sha256
from unetsep.storage import file_sha256

# Longer than a page of Ogg, and than the room that mutagen leaves in mp4.
CUES = "cue" * 30_000


def tag(path: Path) -> None:
    """Write what a deck's analysis writes, and tags at each end of an mp3."""
    file = mutagen.File(path)
    if file.tags is None:
        file.add_tags()
    if isinstance(file.tags, id3.ID3):
        file.tags.add(id3.GEOB(encoding=3, mime="a/b", desc="Serato Markers2", data=CUES.encode()))
    elif path.suffix in (".m4a", ".mp4"):
        file["----:com.serato.dj:markersv2"] = [CUES.encode()]
    else:
        file["Markers"] = CUES
    file.save(v1=2) if path.suffix == ".mp3" else file.save()
    if path.suffix == ".mp3":
        tags = apev2.APEv2()
        tags["Markers"] = CUES
        tags.save(path)


def write(path: Path, *, seed: int) -> Path:
    """Write a song of two seconds."""
    audio = music(2.0, seed=seed).T
    if path.suffix in (".m4a", ".mp4", ".wv", ".opus"):
        soundfile.write(path.with_name("raw.wav"), audio, RATE)
        codec = ["-movflags", "faststart"] if path.suffix == ".mp4" else []
        codec += ["-c:a", "libopus" if path.suffix == ".opus" else "aac"] * (path.suffix != ".wv")
        execute("ffmpeg", "-v", "error", "-i", path.with_name("raw.wav"), *codec, path)
    else:
        soundfile.write(path, audio, RATE)
    return path


@pytest.mark.usefixtures("need_ffmpeg")
@pytest.mark.parametrize(
    "suffix", ["wav", "aiff", "flac", "ogg", "opus", "mp3", "m4a", "mp4", "wv"]
)
def test_tags_do_not_change_the_audio_of_a_file_and_sound_does(tmp_path, suffix):
    path = write(tmp_path / f"song.{suffix}", seed=0)
    before, content = (file_and_audio_sha256(path)[1], audio_mark(path)), path.read_bytes()
    other = write(tmp_path / f"other.{suffix}", seed=1)
    assert file_and_audio_sha256(other)[1] != before[0]
    assert audio_mark(other) != before[1]
    for _ in range(2):
        tag(path)
        assert path.stat().st_size > len(content) + len(CUES)
        assert (file_and_audio_sha256(path)[1], audio_mark(path)) == before
        assert file_and_audio_sha256(path)[0] == file_sha256(path)
    # A byte of the sound, at the place that all marks read.
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert file_and_audio_sha256(path)[1] != before[0]
    path.write_bytes(content[:-1000])
    assert audio_mark(path) != before[1]


def test_a_mark_reads_beginning_middle_and_end(tmp_path):
    path = tmp_path / "a.raw"
    content = bytes(20 * SAMPLE_BYTES)
    path.write_bytes(content)
    mark = audio_mark(path)
    places = {0: True, 5: False, 10: True, 15: False, 20: True}
    for place, is_read in places.items():
        at = min(place * SAMPLE_BYTES, len(content) - 1)
        path.write_bytes(content[:at] + b"1" + content[at + 1 :])
        assert (audio_mark(path) != mark) == is_read, place
        assert file_and_audio_sha256(path)[1] != mark.split()[1]


def test_tags_of_all_streams_in_an_ogg_file_do_not_count(tmp_path):
    paths = [write(tmp_path / f"{seed}.ogg", seed=seed) for seed in range(2)]
    hashes = []
    for _ in range(2):
        (a, *a_pages), (b, *b_pages) = (
            re.split(b"(?=OggS\\0)", path.read_bytes())[1:] for path in paths
        )
        path = tmp_path / "both.ogg"
        path.write_bytes(b"".join([a, b, *a_pages, *b_pages]))
        hashes.append(file_and_audio_sha256(path)[1])
        tag(paths[1])
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"ID3\4\0\0\x7f\x7f\x7f\x7f",
        b"fLaC",
        b"OggS",
        b"OggS" + bytes(22) + b"\xff",
        b"RIFF" + bytes(4) + b"WAVE",
        b"RIFF" + bytes(4) + b"WAVEdata" + struct.pack("<I", 2**32 - 1),
        b"caff" + bytes(4) + b"data" + struct.pack(">q", -1),
        b"\0\0\0\x10ftyp",
        b"ID3\4\0\0\0\0\0\0fLaC\0\0\0\x22",
    ],
)
def test_all_of_a_damaged_file_counts(tmp_path, head):
    path = tmp_path / "a"
    noise = np.random.default_rng(0).bytes(10_000)
    # The last byte of APE tags of 2 GiB is reserved.
    tags = struct.pack("<8sIIII7x", b"APETAGEX", 2000, 2**31 - 1, 1, 0)
    for begin in (noise, bytes(10_000), noise + tags):
        path.write_bytes(head + begin + b"\0")
        before = file_and_audio_sha256(path)[1], audio_mark(path)
        path.write_bytes(head + begin + b"\1")
        assert file_and_audio_sha256(path)[1] != before[0]
        assert audio_mark(path) != before[1]
