from __future__ import annotations

import errno
import json
import struct
import threading
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile

from tests.programs import execute, script
from tests.signals import RATE, music
from unetsep.audio import ffmpeg_writer
from unetsep.audio.decoder import AudioInfo
from unetsep.audio.ffmpeg_writer import Encoding, order_labels, write_stem_mp4
from unetsep.audio.formats import OutputFormat, choose_format, open_writer
from unetsep.audio.staging import remove_leftovers
from unetsep.audio.stem_files import StemFiles
from unetsep.audio.tags import Tags, read_tags
from unetsep.config import STEMS
from unetsep.errors import AudioError, CancelledError

pytestmark = pytest.mark.usefixtures("need_ffmpeg")


def box(content: bytes, *names: bytes) -> bytes:
    """The content of a box within boxes, found by walking from the first byte."""
    for name in names:
        at = 0
        while True:
            size, found = struct.unpack_from(">I4s", content, at)
            if found == name:
                content = content[at + 8 : at + size]
                break
            at += size
    return content


def decoded(path: Path, track: int = 0) -> np.ndarray:
    raw = execute("ffmpeg", "-v", "error", "-i", path, "-map", f"0:a:{track}", "-f", "f32le", "-")
    return np.frombuffer(raw, "<f4").reshape(-1, 2)


@pytest.mark.parametrize("rate", [8000, 44_100, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_m4a_states_its_length_to_the_sample(tmp_path, rate, channels):
    info = AudioInfo(rate, channels, None, "16")
    writer = open_writer(tmp_path / "a.m4a", choose_format("m4a", "auto", info), info)
    audio = music(0.5, rate, channels).T
    for part in np.array_split(audio, 3):
        writer.write(part)
    writer.close()
    writer.close()
    moov = box((tmp_path / "a.m4a").read_bytes(), b"moov")
    edits = box(moov, b"trak", b"edts", b"elst")
    count, duration, begin = struct.unpack_from(">xxxxIIi", edits)
    assert (count, duration, begin) == (1, len(audio), 1024)
    assert struct.unpack_from(">I", box(moov, b"mvhd"), 12) == (rate,)


def test_m4a_sounds_like_its_input(tmp_path):
    info = AudioInfo(RATE, 2, None, "16")
    audio = music(2.0).T
    for bitrate in (None, 64_000):
        path = tmp_path / f"{bitrate}.m4a"
        writer = open_writer(path, choose_format("m4a", "auto", info, bitrate), info)
        writer.write(audio)
        writer.close()
    error = decoded(tmp_path / "None.m4a")[: len(audio)] - audio
    assert np.sqrt(np.mean(error**2)) < 0.02 < np.sqrt(np.mean(audio**2))
    sizes = [(tmp_path / f"{b}.m4a").stat().st_size for b in (None, 64_000)]
    assert 2 * sizes[1] < sizes[0]


def test_input_that_aac_cannot_hold_is_refused_before_any_work():
    with pytest.raises(AudioError, match=r"m4a cannot hold 2 channels at 192000 Hz .* format flac"):
        choose_format("m4a", "auto", AudioInfo(192_000, 2, None, "16"))
    with pytest.raises(AudioError, match=r"m4a cannot hold 6 channels"):
        choose_format("m4a", "auto", AudioInfo(44_100, 6, None, "16"))


@pytest.mark.parametrize("container", ["m4a", "stem.mp4"])
def test_without_ffmpeg_the_message_comes_before_any_work(monkeypatch, container):
    monkeypatch.setattr("unetsep.audio.ffmpeg_program.find_ffmpeg", lambda: None)
    with pytest.raises(
        AudioError,
        match=r"needs ffmpeg, which is not installed: install ffmpeg or run 'pip install",
    ):
        choose_format(container, "auto", AudioInfo(44_100, 2, None, "16"))


def test_messages_of_ffmpeg_are_passed_on(tmp_path):
    with pytest.raises(AudioError, match=r"writing to .* failed: ffmpeg says .*nonsense"):
        Encoding(["-f", "f32le", "-i", "pipe:0", "-c:a", "nonsense"], tmp_path / "a").end()
    writer = ffmpeg_writer.FfmpegWriter(tmp_path / "gone" / "a", AudioInfo(RATE, 2, None, "16"), 9)
    blocks = [np.zeros((1 << 16, 2), np.float32)] * 100
    with pytest.raises(AudioError, match="No such file or directory"):
        list(map(writer.write, blocks))
    writer.close()


def test_messages_of_ffmpeg_are_passed_on_if_a_broken_pipe_is_an_invalid_argument(tmp_path):
    """As on Windows."""
    writer = ffmpeg_writer.FfmpegWriter(tmp_path / "gone" / "a", AudioInfo(RATE, 2, None, "16"), 9)
    pipe = writer._encoding.process.stdin
    pipe.close()
    refuse = Mock(side_effect=OSError(errno.EINVAL, "Invalid argument"))
    writer._encoding.process.stdin = Mock(write=refuse, close=refuse)
    with pytest.raises(AudioError, match="No such file or directory"):
        writer.write(np.zeros((8, 2), np.float32))
    writer.close()


# What version 5 does where the disk is full by the end, without -xerror.
CUT_SHORT = r"""cat > /dev/null
for path; do :; done
{
  printf '\000\000\000\020ftypM4A \000\000\000\000\000\000\000\010free'
  printf '\000\000\000\000mdatsound'
} > "${path#file:}"
"""


@pytest.mark.parametrize(
    ("complaint", "message"),
    [("No space left on device", "No space left on device; make room"), ("", "it ended with 0")],
)
@pytest.mark.parametrize("container", ["m4a", "stem.mp4"])
def test_a_file_that_ffmpeg_cut_short_is_an_error_despite_exit_code_0(
    tmp_path, monkeypatch, four_stems, container, complaint, message
):
    fake = script(tmp_path, CUT_SHORT + f'echo "{complaint}" >&2')
    monkeypatch.setattr(ffmpeg_writer, "find_ffmpeg", lambda: fake)
    info, out = AudioInfo(RATE, 2, None, "16"), tmp_path / "out"
    paths = [out / ("a" if container == "stem.mp4" else name) for name in STEMS]
    with StemFiles(paths, OutputFormat(container, None), info, names=STEMS) as files:
        files.write(four_stems)
        with pytest.raises(AudioError, match=message):
            files.commit()
    assert not out.exists()


def test_a_box_of_unknown_size_is_the_last(tmp_path):
    (tmp_path / "a.mp4").write_bytes(struct.pack(">I4sI4s", 8, b"moov", 0, b"mdat") + bytes(100))
    assert not ffmpeg_writer.is_complete(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(struct.pack(">I4sI4s", 8, b"mdat", 8, b"moov"))
    assert ffmpeg_writer.is_complete(tmp_path / "a.mp4")


def write_stems(path: Path, stems: np.ndarray, tags: Tags | None = None) -> float:
    info = AudioInfo(RATE, stems.shape[1], None, "16", tags=tags or Tags())
    output = OutputFormat("stem.mp4", None)
    with StemFiles([path] * 4, output, info, names=STEMS) as files:
        for at in range(0, stems.shape[-1], 10_000):
            files.write(stems[..., at : at + 10_000])
        return files.commit()


@pytest.fixture(scope="module")
def four_stems():
    """Tones that can be told apart, ``(stems, channels, samples)``."""
    time = np.arange(2 * RATE) / RATE
    tones = [0.2 * np.sin(2 * np.pi * pitch * time) for pitch in (440, 660, 110, 1760)]
    return np.stack([np.stack([tone, tone]) for tone in tones]).astype(np.float32)


def test_a_stem_file_is_read_back_by_stempeg(tmp_path, four_stems):
    stempeg = pytest.importorskip("stempeg")
    path = tmp_path / "song.stem.mp4"
    assert write_stems(path, four_stems, Tags({"title": ("Halo",)})) == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["song.stem.mp4"]
    audio, rate = stempeg.read_stems(str(path))
    assert (audio.shape[0], audio.shape[2], rate) == (5, 2, RATE)
    length = four_stems.shape[-1]
    vocals, drums, bass, other = four_stems
    for found, expected in zip(
        audio, (four_stems.sum(axis=0), drums, bass, other, vocals), strict=True
    ):
        error = found[:length].T - expected
        assert np.sqrt(np.mean(error**2)) < 0.01
    assert stempeg.Info(str(path)).title_streams == ["Mix", "Drums", "Bass", "Other", "Vocals"]
    assert read_tags(path).values == {"title": ("Halo",)}


def test_a_mix_that_cannot_be_removed_at_once_loses_no_stems(tmp_path, four_stems, monkeypatch):
    unlink, failed = Path.unlink, []

    def fail_once(path: Path, missing_ok: bool = False) -> None:
        if "-mix" in path.name and not failed:
            failed.append(path)
            raise OSError(errno.EIO, "the drive fails", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail_once)
    write_stems(tmp_path / "song.stem.mp4", four_stems)
    assert failed[0].exists()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["song.stem.mp4"]


def test_the_stem_box_names_and_colours_the_stems(tmp_path, four_stems):
    path = tmp_path / "song.stem.mp4"
    write_stems(path, four_stems, Tags({"artist": ("Ana",)}))
    content = json.loads(box(path.read_bytes(), b"moov", b"udta", b"stem"))
    assert content["version"] == 1
    assert [stem["name"] for stem in content["stems"]] == ["Drums", "Bass", "Other", "Vocals"]
    colours = {stem["color"] for stem in content["stems"]}
    assert len(colours) == 4
    assert all(len(bytes.fromhex(colour.removeprefix("#"))) == 3 for colour in colours)
    assert not content["mastering_dsp"]["compressor"]["enabled"]
    assert not content["mastering_dsp"]["limiter"]["enabled"]


@pytest.mark.parametrize("channels", [1, 2])
def test_players_play_the_mix_and_ignore_the_stems(tmp_path, four_stems, channels):
    path = tmp_path / "song.stem.mp4"
    write_stems(path, four_stems[:, :channels])
    text = execute("ffprobe", "-v", "error", "-show_streams", "-of", "json", path)
    streams = json.loads(text)["streams"]
    assert [stream["codec_name"] for stream in streams] == ["aac"] * 5
    assert [stream["channels"] for stream in streams] == [2] * 5  # decks refuse mono
    assert [stream["disposition"]["default"] for stream in streams] == [1, 0, 0, 0, 0]


def test_the_same_stems_give_the_same_file(tmp_path, four_stems):
    for name in ("a", "b"):
        write_stems(tmp_path / name, four_stems, Tags({"title": ("Halo",)}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("channels", [1, 2])
def test_a_mix_that_would_clip_lowers_all_alike(tmp_path, four_stems, channels):
    loud = 3 * four_stems[:, :channels]  # each below full scale, their sum above
    peak = np.abs(loud.sum(axis=0)).max()
    assert np.abs(loud).max() < 1 < peak
    gain = write_stems(tmp_path / "a", loud)
    assert gain == pytest.approx(1 / peak, rel=1e-3)
    for track, expected in ((0, loud.sum(axis=0)), (4, loud[0])):
        error = decoded(tmp_path / "a", track)[: loud.shape[-1]].T - gain * expected
        assert np.sqrt(np.mean(error**2)) < 0.1 * np.sqrt(np.mean(expected**2))


def test_other_stems_keep_their_order_and_four_are_needed():
    assert order_labels(["Vocals", "Strings", "Bass", "Brass"]) == [
        *("Bass", "Vocals", "Strings", "Brass")
    ]
    with pytest.raises(AudioError, match=r"a \.stem\.mp4 holds 4 stems, not 2"):
        order_labels(["Vocals", "Instrumental"])


def test_two_stems_are_refused_before_any_work(tmp_path):
    output, info = OutputFormat("stem.mp4", None), AudioInfo(RATE, 2, None, "16")
    with (
        pytest.raises(AudioError, match="holds 4 stems, not 2"),
        StemFiles([tmp_path / "o/a"] * 2, output, info, names=("vocals", "no_vocals")),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_encoding_can_be_stopped(tmp_path, four_stems):
    stop = threading.Event()
    info, output = AudioInfo(RATE, 2, None, "16"), OutputFormat("stem.mp4", None)
    with StemFiles([tmp_path / "a"] * 4, output, info, names=STEMS, stop=stop) as files:
        for _ in range(20):
            files.write(four_stems)
        stop.set()
        with pytest.raises(CancelledError):
            files.commit()
    assert not list(tmp_path.iterdir())


def test_spools_of_a_mix_are_added_up(tmp_path):
    parts = [music(0.1, seed=seed) for seed in range(3)]
    for index, part in enumerate(parts):
        soundfile.write(tmp_path / f"{index}.wav", part.T, RATE, subtype="FLOAT")
    paths = [tmp_path / f"{index}.wav" for index in range(3)]
    ffmpeg_writer._write_mix(tmp_path / "mix.wav", paths)
    np.testing.assert_allclose(soundfile.read(tmp_path / "mix.wav")[0].T, sum(parts), atol=1e-6)


def test_a_mix_that_cannot_be_created_leaves_no_spool_open(tmp_path, monkeypatch):
    spools = {name: tmp_path / f"{name}.wav" for name in STEMS}
    for path in spools.values():
        soundfile.write(path, music(0.1).T, RATE, subtype="FLOAT")
    opened, really_open = [], soundfile.SoundFile
    monkeypatch.setattr(
        soundfile, "SoundFile", lambda name: opened.append(really_open(name)) or opened[-1]
    )
    with pytest.raises(FileNotFoundError):
        write_stem_mp4(
            tmp_path / "a.stem.mp4", tmp_path / "gone/mix", spools, None, 1, threading.Event()
        )
    assert [file.closed for file in opened] == [True] * 4
