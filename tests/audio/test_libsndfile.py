from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import soundfile

import unetsep.audio.libsndfile
from unetsep.audio.decoder import AUDIO_SUFFIXES, SOUNDFILE_SUFFIXES
from unetsep.audio.libsndfile import (
    FileView,
    LibsndfileDecoder,
    hide_decoder_chatter,
    no_decoder_chatter,
)
from unetsep.audio.sections import Section


@pytest.fixture
def hidden(monkeypatch):
    """As commands have it."""
    monkeypatch.setattr(unetsep.audio.libsndfile, "_hiding", False)
    hide_decoder_chatter()


def test_in_a_library_file_descriptor_2_stays_the_hosts(capfd, monkeypatch):
    monkeypatch.setattr(unetsep.audio.libsndfile, "_hiding", False)
    before = os.fstat(2)
    with no_decoder_chatter():
        assert os.fstat(2) == before
        os.write(2, b"Note: of the host\n")
    assert capfd.readouterr().err == "Note: of the host\n"


@pytest.mark.usefixtures("hidden")
def test_chatter_of_the_mp3_decoder_is_dropped_and_all_else_passed_on(capfd):
    with no_decoder_chatter():
        os.write(2, b"Note: Illegal Audio-MPEG-Header 0x40298f91 at offset 2134.\n")
        os.write(2, b"\n[src/libmpg123/layer3.c:INT123_do_layer3():1844] error: oh!\n")
        os.write(2, b"Warning: Xing stream size off by more than 1%\n")
        os.write(2, b"something that matters\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "something that matters\nafter\n"


@pytest.mark.usefixtures("hidden")
def test_terminal_comes_back_after_an_exception(capfd):
    with pytest.raises(KeyError), no_decoder_chatter():
        raise KeyError
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


@pytest.mark.usefixtures("hidden")
def test_threads_do_not_restore_each_others_terminal(capfd):
    def hide() -> None:
        for _ in range(200):
            with no_decoder_chatter():
                os.write(2, b"Note: hidden\n")

    threads = [threading.Thread(target=hide) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"back\n")
    assert capfd.readouterr().err == "back\n"


@pytest.mark.usefixtures("hidden")
def test_hiding_can_be_nested(capfd):
    with no_decoder_chatter(), no_decoder_chatter():
        os.write(2, b"Note: hidden\n")
    assert capfd.readouterr().err == ""


def test_a_process_without_standard_error_reads_too(song):
    code = f"""
import os
os.close(2)
from unetsep.audio.reader import AudioReader
with AudioReader({str(song("a.mp3"))!r}) as reader:
    print(sum(block.shape[1] for block in reader.blocks()))
"""
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True)
    assert done.stdout.split() == [b"44100"]


def test_endless_file_is_a_file_with_a_far_end(tmp_path):
    (tmp_path / "a").write_bytes(bytes(range(100)))
    file = FileView(Section(tmp_path / "a", 10, 100), endless=True)
    assert file.read(5) == bytes(range(10, 15))
    assert file.tell() == 5
    assert file.seek(0, os.SEEK_END) == 90 * 64
    assert file.read(128) == bytes(128)
    assert file.seek(-3, os.SEEK_SET) == 0
    assert file.seek(80) == 80
    assert file.seek(5, os.SEEK_CUR) == 85
    assert file.read(100) == bytes(range(95, 100))
    assert file.read(100) == b""
    file.close()


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 100])
def test_a_patched_file_has_the_new_bytes_in_place_of_the_old(tmp_path, steps):
    (tmp_path / "a").write_bytes(bytes(20))
    file = FileView(tmp_path / "a", (7, b"abcde"))
    parts = iter(lambda: file.read(steps), b"")
    assert b"".join(parts) == bytes(7) + b"abcde" + bytes(8)
    assert file.seek(-10, os.SEEK_END) == 10
    assert file.read(1) == b"d"
    file.close()


def test_suffixes_are_lower_case_and_begin_with_a_dot():
    assert SOUNDFILE_SUFFIXES < AUDIO_SUFFIXES
    assert all(s.startswith(".") and s == s.lower() for s in AUDIO_SUFFIXES)
    assert {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".mp4", ".webm"} <= AUDIO_SUFFIXES


def test_a_drive_that_refuses_to_close_a_song_spoils_nothing_that_was_read(song, monkeypatch):
    def fail(_: soundfile.SoundFile) -> None:
        raise soundfile.LibsndfileError(-1)

    decoder = LibsndfileDecoder(song("song.wav", seconds=1))
    assert len(decoder.read(1000)) == 1000
    with monkeypatch.context() as patch:
        patch.setattr(soundfile.SoundFile, "close", fail)
        decoder.close()
