from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unetsep.audio.reader
from tests.audio.test_reader import read
from tests.files import cut, damage
from tests.programs import execute
from tests.signals import RATE, music
from unetsep.audio.chunks import chunks
from unetsep.audio.lengths import (
    MP3_SLACK,
    LengthClaim,
    claim_length,
    missing_share,
    sample_data,
)
from unetsep.audio.mp3 import mp3_frame, mp3_missing_share
from unetsep.audio.ogg import ogg_is_open
from unetsep.audio.reader import AudioReader
from unetsep.audio.sections import Section
from unetsep.errors import AudioError

COUNTED = [
    ("a.wav", "WAV", "PCM_16"),
    ("f.wav", "WAV", "FLOAT"),
    ("x.wav", "WAVEX", "PCM_24"),
    ("a.rf64", "RF64", "PCM_16"),
    ("a.w64", "W64", "PCM_16"),
    ("a.aiff", "AIFF", "PCM_24"),
    ("a.au", "AU", "PCM_16"),
    ("a.flac", "FLAC", "PCM_16"),
    ("a.mp3", "MP3", "MPEG_LAYER_III"),
]


OPEN_HEADERS = [
    ("w.wav", None, "<I"),
    ("x.wav", None, "<I"),
    ("r.wav", 28, "<Q"),
    ("a.au", 8, ">I"),
]


@pytest.mark.parametrize(("name", "container", "subtype"), COUNTED)
@pytest.mark.parametrize("share", [0.95, 0.6])
def test_a_counted_file_that_is_cut_is_refused(song, name, container, subtype, share):
    path = cut(song(name, seconds=3, container=container, subtype=subtype), share)
    with pytest.raises(AudioError, match=r"cut short|damaged|cannot be read"):
        read(path)


@pytest.mark.parametrize(("name", "container", "subtype"), COUNTED)
def test_the_intact_part_of_a_cut_file_can_be_read(song, name, container, subtype):
    path = song(name, seconds=3, container=container, subtype=subtype)
    whole = read(path, duration=1)
    assert np.array_equal(read(cut(path, 0.95), duration=1), whole)


def missing(path: Path, container: str) -> float:
    return missing_share(path, container, sample_data(path, container))


@pytest.mark.parametrize(("name", "container", "subtype"), COUNTED)
def test_a_complete_file_misses_nothing(song, name, container, subtype):
    path = song(name, container=container, subtype=subtype)
    assert missing(path, container) == 0


@pytest.mark.parametrize(("name", "container", "subtype"), COUNTED[:-2])
def test_bytes_after_the_samples_are_not_decoded(song, name, container, subtype):
    path = song(name, container=container, subtype=subtype)
    path.write_bytes(path.read_bytes() + b"anything " * 100)
    assert read(path).shape[1] >= RATE


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_F000, 0])
def test_a_wav_file_from_a_pipe_has_no_length_to_break(song, size):
    path = song("a.wav", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", size)
    path.write_bytes(content)
    assert read(path).shape[1] == RATE
    assert missing(path, "WAV") == 0


def with_size(path: Path, at: int, layout: str, size: int) -> Path:
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, at, size)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "at", "layout"), OPEN_HEADERS)
def test_a_size_of_zero_means_all_that_follows(song, name, at, layout):
    container = {"w": "WAV", "r": "RF64", "a": "AU", "x": "WAVEX"}[name[0]]
    path = song(name, subtype="PCM_16", container=container)
    whole = read(path)
    with_size(path, path.read_bytes().index(b"data") + 4 if at is None else at, layout, 0)
    np.testing.assert_array_equal(read(path), whole)
    np.testing.assert_array_equal(read(path, start=0.5), whole[:, RATE // 2 :])
    with AudioReader(path) as reader:
        assert reader.frames == RATE


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0, None, 0x7FFF_F000, 1_000_000_000])
def test_a_wav_file_of_an_unknown_size_is_read_beyond_it(song, size):
    path = song("a.wav", channels=1, subtype="PCM_24")
    whole, content, silence = read(path), path.read_bytes(), 4_600_000_002
    begin = content.index(b"data") + 8
    size = (len(content) - begin + silence) % 2**32 if size is None else size
    with path.open("wb") as file:
        file.write(content[: begin - 4] + struct.pack("<I", size))
        file.seek(begin + silence)
        file.write(content[begin:])
    np.testing.assert_array_equal(read(path, start=silence / 3 / RATE), whole)


def test_a_wav_file_of_more_bytes_than_it_can_state_is_read_with_a_warning(song):
    path = song("a.wav", subtype="PCM_16")
    with path.open("r+b") as file:
        file.truncate(2**32 + 100_000)
    with AudioReader(path) as reader:
        assert reader.frames == RATE
        assert "only its first 1.00 s are read" in str(reader.warnings)


def test_names_of_chunks_need_not_be_letters(song):
    path = song("a.w64", seconds=0.2)
    content = path.read_bytes()
    at = content.index(b"data\xf3\xac\xd3\x11")
    marker = bytes.fromhex("5662f7ab2d39d21186c700c04f8edb8a") + struct.pack("<QQ", 32, 0)
    path.write_bytes(content[:at] + marker + content[at:] + marker)
    with path.open("rb") as file:
        assert [name for name, _, _ in chunks(file)].count(marker[:4]) == 2
    assert read(path).shape[1] == round(0.2 * RATE)


def test_zeros_after_the_last_chunk_are_no_chunks(song):
    path = song("a.wav", subtype="PCM_16")
    with path.open("r+b") as file:
        names = [name for name, _, _ in chunks(file)]
        file.write(bytes(1000))
        assert [name for name, _, _ in chunks(file)] == [*names, b""]


@pytest.mark.parametrize("size", [1_000_000_000, 2_000_000_000])
def test_a_round_size_of_a_wav_file_is_no_promise(song, size):
    path = song("a.wav", subtype="PCM_16")
    with_size(path, path.read_bytes().index(b"data") + 4, "<I", size)
    assert read(path).shape[1] == RATE


def test_an_empty_wav_file_with_a_further_chunk_is_empty(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros((0, 2)), RATE, subtype="PCM_16")
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(AudioError, match="holds no audio samples"):
        read(tmp_path / "a.wav")


@pytest.mark.parametrize("lost", [1, 150, 400])
def test_an_uncounted_mp3_that_lacks_the_end_of_its_last_frame_is_read_to_it(song, lost):
    wav = song("a.wav", seconds=3, subtype="PCM_16")
    path = wav.with_name("b.mp3")
    execute("lame", "-S", "-t", wav, path)
    whole = read(path)
    assert whole.shape[1] == 116 * 1152
    path.write_bytes(path.read_bytes()[:-lost])
    with AudioReader(path) as reader:
        samples = np.concatenate(list(reader.blocks()), axis=1)
        assert reader.warnings == [
            f"{path} breaks off within its last frame; 3.00 s could be decoded"
        ]
    np.testing.assert_array_equal(samples, whole[:, : 115 * 1152])


@pytest.mark.parametrize("seconds", [1, 3.2])
@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), b"APETAGEX" + bytes(200), b"\0" * 70_000])
def test_bytes_after_a_flac_stream_are_no_damage(song, seconds, tail):
    path = song("a.flac", seconds=seconds)
    whole = read(path)
    execute("flac", "-s", "-d", "-f", path, "-o", path.with_name("b.wav"))
    np.testing.assert_array_equal(whole, read(path.with_name("b.wav")))
    path.write_bytes(path.read_bytes() + tail)
    np.testing.assert_array_equal(read(path), whole)
    with AudioReader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == whole.shape[1]
        assert reader.warnings == []


@pytest.mark.parametrize("block", [1000, 65_536, 1 << 20])
def test_damage_is_reported_at_its_place_not_at_the_start_of_the_block(song, block, monkeypatch):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    path = song("a.flac", seconds=8)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20_000] = bytes(20_000)
    path.write_bytes(content)
    message = r"is damaged at (3\.[89]|4\.[01])\d s"
    with AudioReader(path) as reader, pytest.raises(AudioError, match=message):
        list(reader.blocks(block))


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("options", [["-b:a", "128k"], ["-q:a", "2"]])
def test_an_mp3_stream_within_a_wav_file_is_read_completely(tmp_path, order, options):
    loud = music(3)
    audio = np.concatenate([loud, 0 * loud], axis=1)[:, ::order]
    soundfile.write(tmp_path / "a.wav", audio.T, RATE)
    source, path = tmp_path / "a.wav", tmp_path / "b.wav"
    execute("ffmpeg", "-y", "-i", source, "-c:a", "libmp3lame", *options, path)
    execute("ffmpeg", "-y", "-i", path, "-c:a", "pcm_f32le", tmp_path / "c.wav")
    expected = read(tmp_path / "c.wav")
    np.testing.assert_allclose(read(path), expected, atol=1e-4)
    with pytest.raises(AudioError, match="is cut short"):
        read(cut(path, 0.5))


@pytest.mark.parametrize("frames", [23_900, 24_000, 24_001, 320])
@pytest.mark.parametrize("container", ["WAV", "W64"])
def test_gsm_ends_with_its_last_block(tmp_path, frames, container):
    audio = music(4, 8000, channels=1).T[:frames]
    path = tmp_path / "a.wav"
    soundfile.write(path, audio, 8000, subtype="GSM610", format=container)
    raw = execute("ffmpeg", "-v", "error", "-i", path, "-f", "s16le", "-")
    assert read(path).shape[1] == len(raw) // 2 == -(-frames // 320) * 320


def test_a_cut_caf_file_is_refused_or_read_with_a_warning(song):
    path = song("a.caf", seconds=3)
    assert missing(path, "CAF") == 0
    assert missing(cut(path, 0.6), "CAF") == pytest.approx(0.4, abs=0.01)
    try:
        with AudioReader(path) as reader:
            assert reader.warnings
    except AudioError as error:
        assert "damaged" in str(error)  # noqa: PT017 (or no error at all)


def test_an_ogg_stream_without_an_end_is_read_with_a_warning(song):
    path = song("a.ogg", seconds=4)
    assert not ogg_is_open(path)
    with AudioReader(cut(path, 0.7)) as reader:
        samples = sum(block.shape[1] for block in reader.blocks())
        assert reader.warnings == [
            f"{path} has no end mark, as if it was cut off; it holds {samples / RATE:.2f} s"
        ]
    assert RATE < samples < 4 * RATE


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_an_ogg_stream_that_is_cut_in_its_last_page_is_read_with_a_warning(song, subtype):
    path = song("a.ogg", rate=48_000, seconds=4, subtype=subtype)
    whole = path.read_bytes()
    assert not ogg_is_open(path)
    for left_out in (1, 20, 60):
        path.write_bytes(whole[:-left_out])
        assert ogg_is_open(path)
        with AudioReader(path) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) > RATE
            assert "no end mark" in reader.warnings[0]


@pytest.mark.parametrize("options", [["-b:a", "32k"], ["-b:a", "320k"], ["-q:a", "9"]])
def test_an_mp3_is_the_same_in_small_and_large_blocks(song, need_ffmpeg, options):
    # Low bit rates borrow bits from up to nine earlier frames, which a seek would miss.
    path = encode(need_ffmpeg, song("a.wav", seconds=4), "b.mp3", *options)
    whole = soundfile.read(path, dtype="float32")[0].T
    assert np.array_equal(read(path), whole)
    excerpt = read(path, start=2, duration=1)
    np.testing.assert_allclose(excerpt, whole[:, 2 * RATE : 3 * RATE], atol=1e-6)


@pytest.mark.parametrize(("name", "subtype"), [("a.ogg", "VORBIS"), ("a.opus", "OPUS")])
def test_ogg_is_the_same_in_small_and_large_blocks(tmp_path, name, subtype):
    path = tmp_path / name
    soundfile.write(path, music(4, 48_000).T, 48_000, format="OGG", subtype=subtype)
    whole = soundfile.read(path, dtype="float32")[0].T
    np.testing.assert_allclose(read(path), whole, atol=1e-6)
    excerpt = read(path, start=2, duration=1)
    np.testing.assert_allclose(excerpt, whole[:, 96_000:144_000], atol=1e-4)


def encode(ffmpeg: str, source: Path, name: str, *options: str) -> Path:
    path = source.with_name(name)
    subprocess.run([ffmpeg, "-v", "error", "-i", str(source), *options, str(path)], check=True)
    return path


def test_an_uncounted_mp3_of_variable_bit_rate_is_read_to_its_end(song, need_ffmpeg):
    # libsndfile alone stops where the bit rate of the first frame would have it end.
    source = song("a.wav", seconds=4)
    loud = encode(
        need_ffmpeg, source, "b.mp3", "-b:a", "320k", "-write_xing", "0", "-id3v2_version", "0"
    )
    soft = encode(
        need_ffmpeg, source, "c.mp3", "-b:a", "32k", "-write_xing", "0", "-id3v2_version", "0"
    )
    joined = source.with_name("joined.mp3")
    joined.write_bytes(loud.read_bytes() + soft.read_bytes())
    assert soundfile.info(joined).frames < 6 * RATE
    assert mp3_missing_share(joined) is None
    assert 8 * RATE <= read(joined).shape[1] <= 8 * RATE + 6 * 1152
    np.testing.assert_allclose(
        read(joined, start=5, duration=1), read(joined)[:, 5 * RATE : 6 * RATE], atol=1e-6
    )


def test_mp3_files_joined_by_copying_are_read_to_the_end_with_a_warning(song):
    path = song("a.mp3", seconds=2)
    path.write_bytes(path.read_bytes() * 2)
    with AudioReader(path) as reader:
        samples = sum(block.shape[1] for block in reader.blocks())
        assert "several mp3 files joined" in reader.warnings[0]
    assert 4 * RATE <= samples <= 4 * RATE + 6 * 1152


@pytest.mark.parametrize("lost", [1, 500, 1000])
def test_a_counted_mp3_that_lacks_its_last_frames_is_read_with_a_warning(song, need_ffmpeg, lost):
    path = encode(need_ffmpeg, song("a.wav", seconds=4), "b.mp3", "-b:a", "128k")
    whole = read(path)
    assert whole.shape[1] == 4 * RATE
    path.write_bytes(path.read_bytes()[:-lost])
    with AudioReader(path) as reader:
        samples = sum(block.shape[1] for block in reader.blocks())
        (warning,) = reader.warnings
    assert 3.9 * RATE < samples < 4 * RATE
    assert "may be cut short" in warning
    with AudioReader(path, duration=3.5) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) == 3.5 * RATE
        assert reader.warnings == []


@pytest.mark.parametrize("seconds", [0.01, 0.5, 3.3])
@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("options", [["-b:a", "64k"], ["-q:a", "4"], None], ids=str)
def test_a_complete_mp3_gives_no_warning(song, need_ffmpeg, seconds, rate, options):
    source = song("a.wav", seconds=seconds)
    path = source.with_name("b.mp3")
    if options is None:
        audio, _ = soundfile.read(source)
        soundfile.write(path, audio, rate, format="MP3", subtype="MPEG_LAYER_III")
    else:
        path = encode(need_ffmpeg, source, "b.mp3", "-ar", str(rate), *options)
    for start in (0, seconds / 2):
        with AudioReader(path, start=start) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) == reader.frames
            assert reader.warnings == []


@pytest.mark.parametrize("kind", ["zeros", "noise", "insert"])
@pytest.mark.parametrize("place", [63, 170, 300])
def test_damage_to_the_frame_that_counts_does_not_shorten_an_mp3(song, kind, place):
    # libmpg123 passes over that frame, and guesses a length of half the song from the next one.
    path = song("a.mp3", seconds=6)
    end = read(path, start=5)
    audio = read(damage(path, kind, place / path.stat().st_size, 300))
    assert audio.shape[1] == pytest.approx(6 * RATE, abs=3 * 1152)
    lag = audio.shape[1] - end.shape[1]
    places = range(lag - 1152, lag + 1)
    assert (
        min(np.abs(audio[:, at : at + RATE // 2] - end[:, : RATE // 2]).max() for at in places)
        < 1e-3
    )


def test_tags_after_an_mp3_are_not_decoded(song):
    path = song("a.mp3")
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert mp3_missing_share(path) == 0
    assert read(path).shape[1] == RATE


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_further_tag_at_the_end_of_an_mp3_is_no_further_song(song, need_ffmpeg, size):
    # It is where a joined file would follow; its count, and the encoder's delay, still hold.
    path = encode(need_ffmpeg, song("a.wav", seconds=2), "b.mp3")
    tag = b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    path.write_bytes(path.read_bytes() + tag + b"TAG" + bytes(125))
    with AudioReader(path) as reader:
        assert reader.frames == 2 * RATE
        assert sum(block.shape[1] for block in reader.blocks()) == 2 * RATE
        assert reader.warnings == []


def test_a_tag_with_a_picture_before_an_mp3_changes_nothing(song):
    path = song("a.mp3")
    whole = read(path)
    picture = b"APIC" + struct.pack(">IH", 300_000, 0) + bytes(range(256)) * 1171 + bytes(224)
    size = len(picture)
    safe = bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + safe + picture + path.read_bytes())
    assert mp3_missing_share(path) == 0
    np.testing.assert_array_equal(read(path), whole)


def test_an_mp3_that_becomes_noise_is_refused(song, need_ffmpeg):
    source = song("a.wav", seconds=4)
    path = encode(need_ffmpeg, source, "b.mp3", "-write_xing", "0")
    content = bytearray(path.read_bytes())
    middle = len(content) // 4
    content[middle:] = np.random.default_rng(0).bytes(10 * len(content))
    path.write_bytes(content)
    with pytest.raises(AudioError, match="is damaged at"):
        read(path)


def test_headers_cut_anywhere_do_not_crash(tmp_path):
    for name, container, subtype in COUNTED:
        soundfile.write(tmp_path / name, music(0.1).T, RATE, subtype=subtype, format=container)
        content = (tmp_path / name).read_bytes()
        for size in range(1, 120, 3):
            (tmp_path / name).write_bytes(content[:size])
            assert 0 <= missing(tmp_path / name, container) <= 1
            mp3_missing_share(tmp_path / name)
            ogg_is_open(tmp_path / name)


def test_a_claim_states_promised_and_available_samples(song):
    path = song("a.wav", seconds=2, subtype="PCM_16")
    whole = claim_length(path, "WAV", 2 * RATE, RATE)
    assert whole == LengthClaim(2 * RATE, available=2 * RATE, slack=0)
    half = claim_length(cut(path, 0.5), "WAV", RATE, RATE)
    assert half.frames == pytest.approx(2 * RATE, rel=0.001)
    assert (half.available, half.slack) == (RATE, 0)
    assert claim_length(path, "WAV", None, RATE).frames is None


def test_the_claim_of_an_mp3_is_its_count_if_nothing_follows(song):
    path = song("a.mp3", seconds=2)
    counted = claim_length(path, "MP3", 2 * RATE, RATE)
    assert counted == LengthClaim(2 * RATE, available=2 * RATE, slack=MP3_SLACK)
    content = path.read_bytes()
    for uncounted in (content * 2, content[mp3_frame(content[:4]).size :]):
        path.write_bytes(uncounted)
        whole = Section(path, 0, len(uncounted))
        assert claim_length(path, "MP3", 2 * RATE, RATE) == LengthClaim(None, endless=whole)
