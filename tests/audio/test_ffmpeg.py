from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

import unetsep.audio.ffmpeg
import unetsep.audio.ffmpeg_writer
import unetsep.audio.reader
from tests.audio.test_reader import read
from tests.files import cut
from tests.programs import script
from tests.signals import RATE, music
from unetsep.audio import ffmpeg_program
from unetsep.audio.decoder import AudioInfo
from unetsep.audio.ffmpeg import FfmpegDecoder, bit_depth, channel_speakers
from unetsep.audio.ffmpeg_program import find_ffmpeg
from unetsep.audio.ffmpeg_writer import FfmpegWriter
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError
from unetsep.unfinished import undo_all


def convert(ffmpeg: str, source: Path, name: str, *options: str) -> Path:
    path = source.with_name(name)
    command = [ffmpeg, "-v", "error", "-y", "-i", str(source), *options, str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(autouse=True)
def _need(need_ffmpeg):
    pass


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.mka", "a.webm"])
def test_other_containers_are_read_with_ffmpeg(song, need_ffmpeg, name):
    codec = [] if name != "a.webm" else ["-c:a", "libopus"]
    source = song("a.wav", seconds=2)
    path = convert(need_ffmpeg, source, name, *codec)
    with AudioReader(path) as reader:
        assert reader.info.bit_depth == "24"
        rate = reader.info.sample_rate
        audio = np.concatenate(list(reader.blocks()), axis=1)
        assert reader.warnings == []
    assert audio.shape[0] == 2
    assert audio.shape[1] == pytest.approx(2 * rate, abs=4096)


def test_ffmpeg_has_no_console_on_windows(song, need_ffmpeg, tmp_path, monkeypatch):
    """Ctrl-C would end it there, before we can, and each start of it show a window."""
    path = convert(need_ffmpeg, song("a.wav", seconds=2), "a.mkv")
    flags, really_start = [], subprocess.Popen

    def start(*arguments, creationflags=0, **options):
        flags.append(creationflags)
        return really_start(*arguments, **options)

    monkeypatch.setattr(subprocess, "Popen", start)
    for module in (unetsep.audio.ffmpeg, ffmpeg_program, unetsep.audio.ffmpeg_writer):
        monkeypatch.setattr(module, "NO_CONSOLE", 8)
    read(path)
    writer = FfmpegWriter(tmp_path / "b.m4a", AudioInfo(RATE, 2, None, "16"), None)
    writer.write(np.zeros((RATE, 2), np.float32))
    writer.close()
    assert len(flags) >= 3
    assert set(flags) == {8}


def test_a_length_that_ffmpeg_guesses_from_the_bit_rate_is_none(song, need_ffmpeg):
    source = song("a.wav", seconds=2)
    # Loud in front and silent behind: the first frames are many times as long as the others.
    options = ["-af", "apad=pad_dur=30", "-c:a", "aac", "-b:a", "320k"]
    path = convert(need_ffmpeg, source, "a.aac", *options)
    with AudioReader(path, start=30, duration=1) as reader:
        assert reader.info.frames is None
        assert sum(block.shape[1] for block in reader.blocks()) == RATE
        assert reader.warnings == []


def test_a_tag_is_not_taken_for_the_length(song, need_ffmpeg):
    source = song("a.wav", seconds=2)
    tag = "comment=Mix\nDuration: 0:00:01, start: 7\nEstimating duration from bitrate, or so"
    path = convert(need_ffmpeg, source, "a.m4a", "-metadata", tag)
    with AudioReader(path, start=1.5) as reader:
        assert reader.info.frames == pytest.approx(2 * RATE, abs=4096)
        assert sum(block.shape[1] for block in reader.blocks()) > 0.4 * RATE
        assert reader.warnings == []


@pytest.mark.parametrize(
    ("codec", "depth"), [("alac", "16"), ("pcm_s32be", "32"), ("pcm_f64le", "64f")]
)
def test_lossless_codecs_keep_their_bit_depth(song, need_ffmpeg, codec, depth):
    source = song("a.wav", subtype="PCM_16")
    path = convert(need_ffmpeg, source, "a.mov", "-c:a", codec)
    with AudioReader(path) as reader:
        assert reader.info.bit_depth == depth
    np.testing.assert_allclose(read(path), read(source), atol=1e-6)


@pytest.mark.parametrize(
    ("text", "depth"),
    [
        *(("pcm_u8, 44100 Hz, stereo, u8", "8"), ("wavpack, 44100 Hz, stereo, s16p (8 bit)", "8")),
        *(("flac, 44100 Hz, stereo, s32 (20 bit)", "24"), ("wavpack, 8000 Hz, mono, s32p", "24")),
        *(("pcm_f32le, 8000 Hz, mono, flt", "32f"), ("tta, 8000 Hz, mono, s32 (24 bit)", "24")),
        *(("aac (LC), 44100 Hz, stereo, fltp", "24"), ("pcm_alaw, 8000 Hz, mono, s16", "16")),
    ],
)
def test_bits_are_those_that_ffmpeg_tells(text, depth):
    assert bit_depth(text) == depth


def test_excerpt_by_ffmpeg_is_exact(song, need_ffmpeg):
    path = convert(need_ffmpeg, song("a.wav", seconds=3), "a.m4a")
    whole = read(path)
    part = read(path, start=1.2345, duration=0.5)
    begin = round(1.2345 * RATE)
    np.testing.assert_array_equal(part, whole[:, begin : begin + RATE // 2])


def test_without_ffmpeg_the_message_names_file_format_and_remedy(song, need_ffmpeg, monkeypatch):
    path = convert(need_ffmpeg, song("a.wav"), "a.m4a")
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    with pytest.raises(AudioError, match=r"a\.m4a.*\.m4a needs ffmpeg.*pip install imageio-ffmpeg"):
        AudioReader(path)


def test_without_ffmpeg_a_damaged_wav_is_called_damaged(tmp_path, monkeypatch):
    (tmp_path / "a.wav").write_bytes(b"RIFFoops")
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    with pytest.raises(AudioError, match=r"cannot be read as wav audio .* damaged"):
        AudioReader(tmp_path / "a.wav")


def test_the_ffmpeg_of_a_wheel_serves_where_none_is_on_path(song, need_ffmpeg, monkeypatch):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    path = convert(need_ffmpeg, song("a.wav"), "a.m4a")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert find_ffmpeg() == imageio_ffmpeg.get_ffmpeg_exe()
    assert read(path).shape[0] == 2


def test_no_ffmpeg_anywhere_is_none(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    assert find_ffmpeg() is None


def test_a_video_without_sound_is_an_error(tmp_path, need_ffmpeg):
    path = tmp_path / "silent.mp4"
    command = [need_ffmpeg, "-v", "error", "-f", "lavfi", "-i", "color=s=16x16:d=0.2", str(path)]
    subprocess.run(command, check=True)
    with pytest.raises(AudioError, match="it has no audio track"):
        AudioReader(path)


def test_misnamed_file_is_read_with_a_warning(song, need_ffmpeg):
    path = convert(need_ffmpeg, song("b.wav"), "a.m4a").rename(song("b.wav").with_name("a.wav"))
    with AudioReader(path) as reader:
        assert "may be damaged or misnamed" in reader.warnings[0]


def test_playlists_fetch_nothing(tmp_path):
    (tmp_path / "a.m3u8").write_text(
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
    )
    begun = time.monotonic()
    with pytest.raises(AudioError):
        AudioReader(tmp_path / "a.m3u8")
    assert time.monotonic() - begun < 20


@pytest.mark.parametrize("name", ["list.wav", "list.m3u8", "list.mp3"])
@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_no_file_makes_ffmpeg_read_others(song, need_ffmpeg, name, kind):
    """Else whoever may upload a song may have any song of the machine."""
    secret = convert(need_ffmpeg, song("a.wav"), "secret.mp3")
    text = {
        "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n"
        f"file:{secret.as_posix()}\n#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {secret.name}\n",
    }
    path = secret.with_name(name)
    path.write_text(text[kind])
    refused = rf"list of other files \({kind}\), not audio"
    if kind == "hls" and path.suffix != ".m3u8":  # from version 7.1 on ffmpeg knows it by its name
        refused += "|list.* is not audio that can be read"
    with pytest.raises(AudioError, match=refused):
        AudioReader(path)


def test_a_file_without_its_end_is_read_with_a_warning(song, need_ffmpeg):
    path = convert(need_ffmpeg, song("a.wav", seconds=4), "a.m4a", "-movflags", "+faststart")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with AudioReader(path) as reader:
        samples = sum(block.shape[1] for block in reader.blocks())
        assert any("may be cut short" in text for text in reader.warnings)
    assert 0 < samples < 3 * RATE


@pytest.mark.parametrize(
    ("name", "options", "track"),
    [
        ("a.oga", ["-c:a", "flac"], None),
        ("a.spx", ["-c:a", "libspeex", "-ar", "32000"], None),
        ("a.ogg", ["-map", "0", "-map", "0", "-c:a", "libvorbis"], 2),
    ],
    ids=["FLAC", "Speex", "second track"],
)
def test_an_ogg_stream_without_an_end_that_ffmpeg_reads_is_read_with_a_warning(
    song, need_ffmpeg, monkeypatch, name, options, track
):
    refuse = soundfile.LibsndfileError(1)
    if track is None:  # some builds of libsndfile read these
        monkeypatch.setattr(unetsep.audio.reader, "open_streams", Mock(side_effect=refuse))
    source = song("a.wav", seconds=4)
    try:
        path = convert(need_ffmpeg, source, name, *options)
    except subprocess.CalledProcessError:
        pytest.skip("this ffmpeg has no such encoder")
    for share, marked in ((1, True), (0.7, False)):
        with AudioReader(cut(path, share), track=track) as reader:
            assert sum(block.shape[1] for block in reader.blocks()) > 0
            marks = [text for text in reader.warnings if "has no end mark" in text]
        assert bool(marks) != marked


@pytest.mark.parametrize("samples", [1, 100, 200, 500])
def test_the_length_of_a_few_milliseconds_is_unknown(tmp_path, need_ffmpeg, samples):
    soundfile.write(tmp_path / "a.wav", np.full((samples, 2), 0.1), RATE)
    path = convert(need_ffmpeg, tmp_path / "a.wav", "a.m4a", "-c:a", "alac")
    assert read(path).shape == (2, samples)


@pytest.mark.parametrize("text", ["exec sleep 60", 'case "$*" in *pipe:1*) exec sleep 60;; esac'])
def test_an_ffmpeg_that_hangs_times_out(tmp_path, monkeypatch, text):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: script(tmp_path, text))
    monkeypatch.setattr(unetsep.audio.ffmpeg, "PATIENCE", 0.3)
    (tmp_path / "a.m4a").write_bytes(bytes(100))
    with pytest.raises(AudioError, match=r"gave no audio within 0\.3 s"):
        AudioReader(tmp_path / "a.m4a")


@pytest.mark.parametrize("text", ["exec sleep 60", 'case "$*" in *pipe:1*) exec sleep 60;; esac'])
def test_an_ffmpeg_that_hangs_ends_with_the_command(tmp_path, monkeypatch, text):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: script(tmp_path, text))
    (tmp_path / "a.m4a").write_bytes(bytes(100))

    def read_abandoned() -> None:
        with contextlib.suppress(AudioError):
            AudioReader(tmp_path / "a.m4a")

    thread = threading.Thread(target=read_abandoned, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < deadline:
        undo_all()  # as a command does at its end
        thread.join(0.05)
    assert not thread.is_alive()


def test_a_pause_does_not_count_against_the_limit_of_ffmpeg(tmp_path, monkeypatch):
    """As after Ctrl-Z and fg, where the clock has moved on and this process has not run."""
    monkeypatch.setattr(ffmpeg_program, "Stopwatch", lambda: Mock(look=lambda: 0.0))
    program = script(tmp_path, "echo begun; sleep 0.6; echo done")
    assert ffmpeg_program.run_ffmpeg(program, tmp_path, 0.2).stdout == b"begun\ndone\n"


def test_another_program_called_ffmpeg_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: script(tmp_path, "seq 1000"))
    (tmp_path / "a.m4a").write_bytes(bytes(100))
    with pytest.raises(AudioError, match="is it ffmpeg"):
        AudioReader(tmp_path / "a.m4a")


def test_an_ffmpeg_that_cannot_start_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: str(tmp_path / "nothing"))
    (tmp_path / "a.m4a").write_bytes(bytes(100))
    with pytest.raises(AudioError, match="nothing cannot be started"):
        AudioReader(tmp_path / "a.m4a")


def test_many_messages_do_not_block_ffmpeg(song, tmp_path, need_ffmpeg, monkeypatch):
    path = convert(need_ffmpeg, song("a.wav"), "a.m4a")
    noisy = script(tmp_path, f'seq 100000 >&2\nexec {need_ffmpeg} "$@"')
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: noisy)
    with AudioReader(path) as reader:
        assert sum(block.shape[1] for block in reader.blocks()) >= RATE
        assert "damaged in places; ffmpeg says: 1" in reader.warnings[0]


def test_a_song_on_a_drive_that_fails_under_ffmpeg_is_an_error(song, need_ffmpeg, monkeypatch):
    path = convert(need_ffmpeg, song("a.wav", seconds=4), "a.m4a", "-movflags", "faststart")
    with AudioReader(cut(path, 0.5)) as reader:
        assert 0 < sum(block.shape[1] for block in reader.blocks()) < 3 * RATE
    with AudioReader(path) as reader:
        refuse = Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO)))
        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(AudioError, match="m4a cannot be read: "):
            list(reader.blocks())


def test_no_process_outlives_its_reader(song, need_ffmpeg):
    path = convert(need_ffmpeg, song("a.wav", seconds=12), "a.m4a")
    with AudioReader(path) as reader:
        next(reader.blocks(1000))
        process = reader._decoder._process
    assert process.returncode is not None


@pytest.fixture(
    scope="module",
    params=[
        ("a.wma", ["-c:a", "wmav2"]),
        ("a.webm", ["-c:a", "libopus"]),
        ("a.mkv", ["-c:a", "aac"]),
        ("a.flv", ["-c:a", "aac"]),
        ("a.mka", ["-c:a", "libvorbis"]),
        ("a.ts", ["-c:a", "aac"]),
        ("a.m4a", ["-c:a", "aac"]),
    ],
    ids=lambda param: param[0],
)
def three_seconds(request, need_ffmpeg, tmp_path_factory):
    """A file of three seconds, all its samples, and their rate in Hz."""
    name, codec = request.param
    source = tmp_path_factory.mktemp("three") / "a.wav"
    soundfile.write(source, music(3, RATE).T, RATE)
    path = convert(need_ffmpeg, source, name, *codec)
    with AudioReader(path) as reader:
        return path, np.concatenate(list(reader.blocks()), axis=1), reader.info.sample_rate


@pytest.mark.parametrize("start", [0.0321, 1.2345, 2.5])
def test_a_start_is_counted_in_samples_whatever_the_time_stamps(three_seconds, start):
    path, whole, rate = three_seconds
    begin = round(start * rate)
    part = read(path, start=start, duration=0.3)
    np.testing.assert_array_equal(part, whole[:, begin : begin + round(0.3 * rate)])


def video(ffmpeg: str, path: Path, *sounds: tuple[int, float, float], options: tuple = ()) -> Path:
    """Pictures for 4 s and sounds, each of a pitch in Hz, a start and a duration in seconds."""
    command = [ffmpeg, "-v", "error", "-f", "lavfi", "-i", "color=s=32x32:r=5:d=4"]
    for pitch, start, duration in sounds:
        source = f"sine={pitch}:d={duration}:r=48000"
        command += ["-itsoffset", str(start), "-f", "lavfi", "-i", source]
    for index in range(len(sounds) + 1):
        command += ["-map", str(index)]
    subprocess.run([*command, "-c:a", "aac", *options, str(path)], check=True)
    return path


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.mov", "a.ts"])
@pytest.mark.parametrize(("late", "duration"), [(0.75, 3), (0, 2), (0.75, 1)])
def test_the_length_is_that_of_the_sound_and_a_late_start_gives_a_warning(
    tmp_path, need_ffmpeg, name, late, duration
):
    path = video(need_ffmpeg, tmp_path / name, (440, late, duration))
    with AudioReader(path) as reader:
        whole = np.concatenate(list(reader.blocks()), axis=1)
        expected = reader.info.frames
        warnings = reader.warnings
    samples = whole.shape[1]
    assert abs(samples - duration * 48_000) <= 3 * 1024
    assert abs(expected - samples) <= 3 * 1024
    assert len(warnings) == (late > 0)
    if late:
        assert f"the sound of {path} starts at 0.7" in warnings[0]
    part = read(path, start=0.5)
    np.testing.assert_array_equal(part, whole[:, 24_000:])


@pytest.mark.parametrize(("default", "pitch"), [(0, 440), (1, 880), (2, 1320)])
def test_the_default_sound_track_is_read_and_named(tmp_path, need_ffmpeg, default, pitch):
    flags = []
    for index in range(3):
        flags += [f"-disposition:a:{index}", "default" if index == default else "0"]
        flags += [f"-metadata:s:a:{index}", f"language={('eng', 'deu', 'fra')[index]}"]
    sounds = [(440, 0, 3), (880, 0, 3), (1320, 0, 3)]
    path = video(need_ffmpeg, tmp_path / "a.mkv", *sounds, options=tuple(flags))
    with AudioReader(path) as reader:
        audio = np.concatenate(list(reader.blocks()), axis=1)
        assert reader.warnings == [
            f"{path} has 3 sound tracks (1 eng, 2 deu, 3 fra): number {default + 1} was read, "
            "the default; choose another with --track"
        ]
    assert loudest(audio) == pitch


def loudest(audio: np.ndarray) -> int:
    """The pitch of a second of sound in Hz."""
    return int(np.abs(np.fft.rfft(audio[0, 24_000:72_000])).argmax())


THREE_TRACKS = [(440, 0, 3), (880, 0, 2), (1320, 0, 3)]


@pytest.fixture(scope="module", params=["a.mkv", "a.mp4", "a.ts"])
def three_tracks(request, need_ffmpeg, tmp_path_factory):
    return video(need_ffmpeg, tmp_path_factory.mktemp("tracks") / request.param, *THREE_TRACKS)


@pytest.mark.parametrize(("track", "pitch"), [(1, 440), (2, 880), (3, 1320)])
def test_a_sound_track_can_be_chosen_by_its_number(three_tracks, track, pitch):
    path = three_tracks
    with AudioReader(path, track=track) as reader:
        audio = np.concatenate(list(reader.blocks()), axis=1)
        assert reader.warnings == []
        assert abs(reader.info.frames - audio.shape[1]) <= 3 * 1024
    assert abs(audio.shape[1] - THREE_TRACKS[track - 1][2] * 48_000) <= 3 * 1024
    assert loudest(audio) == pitch


def test_tracks_count_whatever_their_languages_are_called(tmp_path, need_ffmpeg):
    languages = ("en-US", "eng,fra", "en (US)")
    flags = []
    for index, language in enumerate(languages):
        flags += [f"-metadata:s:a:{index}", f"language={language}"]
    sounds = [(440, 0, 3), (880, 0, 3), (1320, 0, 3)]
    path = video(need_ffmpeg, tmp_path / "a.mkv", *sounds, options=tuple(flags))
    for track, pitch in enumerate((440, 880, 1320), start=1):
        assert loudest(read(path, track=track)) == pitch
    with pytest.raises(AudioError, match=r"there are 3 \(1 en-US, 2 eng,fra, 3 en \(US\)\)"):
        AudioReader(path, track=4)


def test_an_unrecognised_track_is_read_by_its_number(tmp_path, need_ffmpeg, monkeypatch):
    path = video(need_ffmpeg, tmp_path / "a.mkv", (440, 0, 3), (880, 0, 3))
    monkeypatch.setattr(FfmpegDecoder, "_probe", lambda _: "as a later ffmpeg may write it")
    assert loudest(read(path, track=2)) == 880
    with pytest.raises(AudioError, match="it has no audio track 3"):
        AudioReader(path, track=3)


def test_a_second_track_of_an_ogg_file_is_read_too(tmp_path, need_ffmpeg):
    path = tmp_path / "a.ogg"
    command = [need_ffmpeg, "-v", "error"]
    for pitch in (440, 880):
        command += ["-f", "lavfi", "-i", f"sine={pitch}:d=3:r=48000"]
    command += ["-map", "0", "-map", "1", "-c:a", "libvorbis", str(path)]
    subprocess.run(command, check=True)
    assert loudest(read(path, track=2)) == 880


def test_a_missing_sound_track_is_refused_with_a_list_of_all(
    tmp_path, song, need_ffmpeg, monkeypatch
):
    path = video(need_ffmpeg, tmp_path / "a.mkv", (440, 0, 1), (880, 0, 1))
    with pytest.raises(AudioError, match=r"no sound track 3: there are 2 \(1, 2\)"):
        AudioReader(path, track=3)
    path = song("one.wav", seconds=0.1)
    assert read(path, track=1).shape[1] == round(0.1 * RATE)
    with pytest.raises(AudioError, match="no sound track 2: there is one"):
        AudioReader(path, track=2)
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    with pytest.raises(AudioError, match="no sound track 2 that can be read without ffmpeg"):
        AudioReader(path, track=2)


@pytest.mark.parametrize("track", [0, -1, 1.5, "2", True])
def test_an_invalid_track_number_is_a_value_error(song, track):
    with pytest.raises(ValueError, match="track must be a whole number from 1 on, got"):
        AudioReader(song(seconds=0.1), track=track)


@pytest.mark.parametrize(
    ("layout", "mask"), [("stereo", 0x3), ("quad", 0x33), ("5.1", 0x3F), ("5.1(side)", 0x60F)]
)
def test_speakers_are_those_that_ffmpeg_names(tmp_path, need_ffmpeg, layout, mask):
    path = tmp_path / "a.mov"
    source = f"anoisesrc=d=0.3,aformat=channel_layouts={layout}"
    command = [need_ffmpeg, "-v", "error", "-f", "lavfi", "-i", source, "-c:a", "pcm_s16le"]
    subprocess.run([*command, str(path)], check=True)
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == mask
        assert reader.info.bit_depth == "16"


def test_channels_of_ffmpeg_are_reordered_to_the_order_of_wav(tmp_path, need_ffmpeg, monkeypatch):
    wav, told = tmp_path / "a.wav", FfmpegDecoder._probe
    soundfile.write(wav, np.arange(1, 9) / 10 * np.ones((4_800, 1)), 48_000, subtype="PCM_16")
    path = convert(need_ffmpeg, wav, "a.mov", "-c:a", "pcm_s16be")
    # So do versions from 7 on say it of this tag of Core Audio, and leave the samples alone.
    layout = ", 8 channels (FL+FR+FC+LFE+SL+SR+BL+BR), s16"
    monkeypatch.setattr(
        FfmpegDecoder, "_probe", lambda self: re.sub(", [^,]*, s16", layout, told(self))
    )
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == 0x63F
    assert np.round(10 * read(path)[:, 100]).tolist() == [1, 2, 3, 4, 7, 8, 5, 6]


@pytest.mark.parametrize(
    "text", ["pcm_s16le, 48000 Hz, 3 channels (FL+FR+LFE2), s16", "48000 Hz, 2.1, s16", "pcm"]
)
def test_speakers_that_wav_lacks_are_none(text):
    assert channel_speakers(text, 4) == ()


def test_block_headers_of_a_voc_file_are_not_read_as_samples(song, need_ffmpeg, monkeypatch):
    source = song("a.wav", seconds=0.5, subtype="PCM_16")
    path = convert(need_ffmpeg, source, "a.voc")
    np.testing.assert_array_equal(read(path), read(source))
    one = path.with_name("one.voc")
    soundfile.write(one, read(source).T, RATE, subtype="PCM_16")
    monkeypatch.setattr(unetsep.audio.reader, "find_ffmpeg", lambda: None)
    np.testing.assert_array_equal(read(one), read(source))
    with pytest.raises(AudioError, match="of a kind that is not supported without ffmpeg"):
        AudioReader(path)
