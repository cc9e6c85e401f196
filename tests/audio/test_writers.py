from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unetsep.audio.writers
from tests.signals import RATE, music
from unetsep.audio.decoder import AudioInfo
from unetsep.audio.formats import OutputFormat, open_writer
from unetsep.audio.ogg import set_serial
from unetsep.audio.reader import AudioReader
from unetsep.audio.writers import quantize
from unetsep.errors import AudioError

INFO = AudioInfo(RATE, 2, None, "24")


def write(path: Path, audio: np.ndarray, container: str = "wav", depth: str | None = "32f") -> None:
    output = OutputFormat(container, depth)
    info = AudioInfo(RATE, audio.shape[1], None, "24")
    writer = open_writer(path, output, info)
    for at in range(0, len(audio), 777):
        writer.write(quantize(audio[at : at + 777], depth))
    writer.close()
    writer.close()


@pytest.mark.parametrize("depth", ["8", "16", "24", "32", "32f", "64f"])
@pytest.mark.parametrize("channels", [1, 2, 3, 6])
@pytest.mark.parametrize("samples", [1, 2, 1001])
def test_wav_comes_back_as_it_went_in(tmp_path, depth, channels, samples):
    audio = music(samples / RATE, channels=channels).T
    write(tmp_path / "a.wav", audio, depth=depth)
    found, rate = soundfile.read(tmp_path / "a.wav", dtype="float32", always_2d=True)
    step = {"8": 2.0**-8, "16": 2.0**-16, "24": 2.0**-24, "32": 2.0**-32}.get(depth, 0)
    np.testing.assert_allclose(found, audio, atol=step, rtol=0)
    assert rate == RATE
    assert (tmp_path / "a.wav").stat().st_size % 2 == 0


def test_wav_beyond_the_riff_limit_is_rf64(tmp_path, monkeypatch):
    audio = music(1).T
    write(tmp_path / "a.wav", audio)
    assert soundfile.info(tmp_path / "a.wav").format == "WAV"
    monkeypatch.setattr(
        unetsep.audio.writers, "RIFF_BYTES", (tmp_path / "a.wav").stat().st_size - 8
    )
    write(tmp_path / "b.wav", audio)
    assert soundfile.info(tmp_path / "b.wav").format == "WAV"
    write(tmp_path / "c.wav", np.vstack([audio, audio[:1]]))
    assert (tmp_path / "c.wav").read_bytes()[:4] == b"RF64"


def test_rf64_header_states_64_bit_sizes(tmp_path, monkeypatch):
    # The limit also stands in the header as the mark "see ds64".
    writer = open_writer(tmp_path / "a.wav", OutputFormat("wav", "16"), INFO)
    writer.write(np.zeros((10, 2), np.int16))
    writer._bytes = 5 * 2**32
    header = writer._header()
    writer.close()
    assert header[:4] == b"RF64"
    assert int.from_bytes(header[4:8], "little") == 0xFFFF_FFFF
    assert header[12:16] == b"ds64"
    assert int.from_bytes(header[20:28], "little") == 5 * 2**32 + len(header) - 8
    assert int.from_bytes(header[28:36], "little") == 5 * 2**32
    assert int.from_bytes(header[36:44], "little") == 5 * 2**30
    assert header[-8:] == b"data" + b"\xff" * 4


@pytest.mark.skipif(os.name == "nt", reason="holes take room there")
def test_rf64_is_read_back(tmp_path):
    writer = open_writer(tmp_path / "a.wav", OutputFormat("wav", "16"), INFO)
    sparse = 2**32
    writer.write(np.full((10, 2), 7, np.int16))
    writer._file.seek(sparse, 1)  # a hole: no disk is used
    writer._bytes += sparse
    writer.write(np.full((10, 2), 9, np.int16))
    writer.close()
    if (tmp_path / "a.wav").stat().st_blocks * 512 > 2**20:
        (tmp_path / "a.wav").unlink()
        pytest.skip("no sparse files here")
    with AudioReader(tmp_path / "a.wav", start=sparse / 4 / RATE) as reader:
        assert reader.info.frames == sparse // 4 + 20
        tail = np.concatenate(list(reader.blocks()), axis=1)
    assert tail[0, -10:].tolist() == [9 / 32768] * 10


def test_the_same_samples_give_the_same_bytes(tmp_path):
    audio = music(1).T
    formats = [("wav", "32f"), ("wav", "16"), ("flac", "24"), ("ogg", None), ("mp3", None)]
    for run in ("first", "second"):
        if run == "second":
            # From the clock libsndfile has the serial number of Ogg, and a time stamp in float wav.
            time.sleep(1.1)
        for container, depth in formats:
            write(tmp_path / f"{run}.{container}.{depth}", audio, container, depth)
    for container, depth in formats:
        first, second = (tmp_path / f"{run}.{container}.{depth}" for run in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), container


def test_an_ogg_file_with_another_serial_number_is_a_valid_stream(tmp_path, need_ffmpeg):
    import subprocess

    audio = music(3).T
    soundfile.write(tmp_path / "a.ogg", audio, RATE, format="OGG", subtype="VORBIS")
    before = soundfile.read(tmp_path / "a.ogg")[0]
    serial = (tmp_path / "a.ogg").read_bytes()[14:18]
    set_serial(tmp_path / "a.ogg", 0x1234_5678)
    content = (tmp_path / "a.ogg").read_bytes()
    assert content.count(b"\x78\x56\x34\x12") >= content.count(b"OggS") >= 3
    assert content[14:18] != serial
    np.testing.assert_array_equal(soundfile.read(tmp_path / "a.ogg")[0], before)
    command = [need_ffmpeg, "-v", "warning", "-i", str(tmp_path / "a.ogg"), "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert b"CRC" not in done.stderr


def test_ogg_is_encoded_in_threads_with_small_stacks(tmp_path):
    # libvorbis takes memory on the stack in proportion to the block it is given.
    old = threading.stack_size(512 * 1024)
    try:
        audio = music(6, channels=6).T
        output, info = OutputFormat("ogg", None), AudioInfo(RATE, 6, None, "24")

        def encode() -> None:
            writer = open_writer(tmp_path / "a.ogg", output, info)
            writer.write(audio)
            writer.close()

        thread = threading.Thread(target=encode)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(old)
    assert soundfile.info(tmp_path / "a.ogg").frames == len(audio)


@pytest.mark.parametrize("container", ["flac", "ogg", "mp3"])
def test_an_incomplete_file_is_found_out(tmp_path, container):
    writer = open_writer(
        tmp_path / "a", OutputFormat(container, "16" if container == "flac" else None), INFO
    )
    writer.write(quantize(music(2).T, "16") if container == "flac" else music(2).T)
    writer._frames += 5000
    with pytest.raises(AudioError, match="could not write the whole"):
        writer.close()


def test_a_short_write_of_soundfile_is_an_audio_error(tmp_path, monkeypatch):
    writer = open_writer(tmp_path / "a.flac", OutputFormat("flac", "16"), INFO)

    def short(_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(writer._file, "write", short)
    with pytest.raises(AudioError, match="most likely because the disk is full"):
        writer.write(np.zeros((10, 2), np.int16))


def test_wav_without_a_time_reference_has_no_chunk_for_it(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", music(0.1).T)
    assert b"bext" not in (tmp_path / "a.wav").read_bytes()
    # A damaged time is none, and no chunk is too short to be looked into.
    for content in (b"\xff" * 602, b"\1" * 100):
        plain = (tmp_path / "a.wav").read_bytes()
        chunk = struct.pack("<4sI", b"bext", len(content)) + content
        (tmp_path / "b.wav").write_bytes(plain[:12] + chunk + plain[12:])
        with AudioReader(tmp_path / "b.wav", start=0.05) as reader:
            assert reader.time_reference == 0
