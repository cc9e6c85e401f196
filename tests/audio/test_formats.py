from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import unetsep
from tests.signals import music
from unetsep.audio.decoder import AudioInfo
from unetsep.audio.formats import (
    ALTERNATIVES,
    BIT_DEPTHS,
    CONTAINERS,
    MP3_RATES,
    Container,
    OutputFormat,
    by_libsndfile,
    choose_format,
    open_writer,
)
from unetsep.audio.writers import quantize
from unetsep.errors import AudioError
from unetsep.file_options import FileOptions

RATES = (1000, 8000, 11_025, 16_000, 24_000, 44_100, 48_000, 65_535, 65_537, 88_200, 96_000)
HIGH_RATES = (192_000, 199_999, 200_000, 200_001, 655_350, 655_360, 1_000_000)


def either(names: Iterable[str]) -> str:
    """A pattern of names as messages list them."""
    *some, last = map(re.escape, names)
    return f"{', '.join(some)} or {last}" if some else last


def holding(depth: str) -> str:
    """Containers that can store a bit depth."""
    return either(name for name, row in CONTAINERS.items() if depth in row.bit_depths)


LOSSY = [name for name, row in CONTAINERS.items() if row.lossy]
# tests/audio/test_ffmpeg_writer.py has the others.
OURS = [name for name, row in CONTAINERS.items() if not row.by_ffmpeg]


@pytest.mark.parametrize("container", OURS)
@pytest.mark.parametrize("rate", RATES + HIGH_RATES)
@pytest.mark.parametrize("channels", [1, 2, 6, 8, 9])
def test_allowed_formats_can_be_written_and_refusals_name_an_alternative(
    tmp_path, container, rate, channels
):
    info = AudioInfo(rate, channels, None, "16")
    try:
        output = choose_format(container, "auto", info)
    except AudioError as error:
        other = str(error).rsplit("format ", 1)[1]
        output = choose_format(other, "auto", info)
    audio = music(0.01, rate, channels).T
    path = tmp_path / "a"
    writer = open_writer(path, output, info)
    writer.write(quantize(audio, output.bit_depth))
    writer.close()
    found = soundfile.info(path)
    frames = len(audio)
    if output.container == "opus":
        rate, frames = 48_000, round(frames * 48_000 / rate)
    assert (found.samplerate, found.channels, found.frames) == (rate, channels, frames)


@pytest.mark.parametrize(
    ("container", "rate", "channels", "message"),
    [
        (
            *("mp3", 96_000, 2),
            r"mp3 cannot hold 2 channels at 96000 Hz .*: give --sample-rate 48000, or "
            "choose the format flac",
        ),
        ("mp3", 44_100, 6, r"mp3 cannot hold 6 channels at 44100 Hz .*\): choose the format flac"),
        ("mp3", 44_100, 9, "choose the format wav"),
        ("flac", 199_999, 2, r"in steps of 10 Hz .* choose the format wav"),
        ("flac", 44_100, 9, r"at most 8 channels .* choose the format wav"),
        ("ogg", 384_000, 2, r"at most 8 channels and 200000 Hz.* choose the format flac"),
    ],
)
def test_a_refusal_names_the_limits_and_an_alternative(container, rate, channels, message):
    with pytest.raises(AudioError, match=message):
        choose_format(container, "auto", AudioInfo(rate, channels, None, "24"))


@pytest.mark.parametrize("depth", ["8", "16", "24", "32", "32f", "64f"])
def test_auto_keeps_the_bit_depth_where_the_container_can(depth):
    info = AudioInfo(44_100, 2, None, depth)
    least_16 = "16" if depth == "8" else depth
    assert choose_format("wav", "auto", info).bit_depth == least_16
    assert choose_format("flac", "auto", info).bit_depth == (
        least_16 if least_16 in ("16", "24") else "24"
    )
    assert choose_format("wav", depth, info).bit_depth == depth
    assert choose_format("ogg", "auto", info).bit_depth is None


@pytest.mark.parametrize(
    ("container", "depth", "choices"),
    [
        ("aac", "auto", either(CONTAINERS)),
        ("wav", "12", "auto, 8, 16, 24, 32, 32f or 64f"),
    ],
)
def test_unknown_choices_are_value_errors(container, depth, choices):
    with pytest.raises(ValueError, match=f"must be {choices}, got"):
        choose_format(container, depth, AudioInfo(44_100, 2, None, "16"))


def frames_of_mp3(content: bytes) -> list[tuple[int, int]]:
    """Bit rate in kbit/s and length in bytes of each layer III frame."""
    fast = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    slow = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    found, at = [], 0
    while at + 4 <= len(content):
        bits = int.from_bytes(content[at : at + 4], "big")
        assert bits >> 21 == 0x7FF
        version = bits >> 19 & 3
        rate = (44_100, 48_000, 32_000)[bits >> 10 & 3] >> {3: 0, 2: 1, 0: 2}[version]
        kbits = (fast if version == 3 else slow)[bits >> 12 & 15]
        size = (144_000 if version == 3 else 72_000) * kbits // rate + (bits >> 9 & 1)
        found.append((kbits, size))
        at += size
    assert at == len(content)
    return found


@pytest.mark.parametrize("rate", MP3_RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_mp3_has_the_highest_constant_bit_rate_of_its_sample_rate(tmp_path, rate, channels):
    info = AudioInfo(rate, channels, None, "16")
    for name, audio in {
        "music": music(1, rate, channels).T,
        "silence": np.zeros((rate, channels)),
    }.items():
        writer = open_writer(tmp_path / name, OutputFormat("mp3", None), info)
        writer.write(audio.astype(np.float32))
        writer.close()
        kbits = {kbits for kbits, _ in frames_of_mp3((tmp_path / name).read_bytes())}
        assert kbits == {320 if rate >= 32_000 else 160 if rate >= 16_000 else 64}


@pytest.mark.parametrize(("depth", "bits"), [("8", 8), ("16", 16), ("24", 24)])
def test_integer_samples_come_back_exactly(depth, bits):
    full = 2.0 ** (bits - 1)
    codes = np.array([-full, -full + 1, -1, 0, 1, full - 2, full - 1])
    stored = quantize((codes / full).astype(np.float32), depth)
    assert (stored.astype(np.int64) == codes * (1 if bits == 16 else 256)).all()


def test_samples_beyond_full_scale_are_clipped_not_wrapped():
    wild = np.array([-9.0, -1.0001, 1.0, 9.0], np.float32)
    assert quantize(wild, "16").tolist() == [-32768, -32768, 32767, 32767]
    assert quantize(wild, "8").tolist() == [-32768, -32768, 32512, 32512]
    assert quantize(wild, "32").tolist() == [-(2**31), -(2**31), 2**31 - 1, 2**31 - 1]
    assert quantize(wild, "32f") is wild


def test_the_table_holds_bit_depths_that_can_be_asked_for():
    lossy = ["ogg", "mp3", "opus", "m4a", "stem.mp4"]
    names = ["wav", "flac", *lossy]
    assert [name for name in CONTAINERS if name in names] == names
    assert {depth for row in CONTAINERS.values() for depth in row.bit_depths} < {*BIT_DEPTHS}
    assert [name for name in names if CONTAINERS[name].lossy] == lossy
    assert all(not row.lossy for row in map(CONTAINERS.get, ALTERNATIVES))


def test_a_missing_bit_depth_becomes_the_next_higher(monkeypatch):
    row = Container(suffix="x", help="", open=by_libsndfile("AIFF"), bit_depths=("16", "32"))
    monkeypatch.setitem(CONTAINERS, "x", row)
    found = [
        choose_format("x", "auto", AudioInfo(44_100, 2, None, depth)).bit_depth
        for depth in BIT_DEPTHS[1:]
    ]
    assert found == ["16", "16", "32", "32", "32", "32"]


@pytest.mark.parametrize(
    ("container", "suffix", "subtypes"),
    [("wav", "wav", ["PCM_U8", "PCM_32", "DOUBLE"]), ("flac", "flac", ["PCM_S8", "PCM_24"])],
)
def test_stems_have_the_bit_depth_of_the_song(
    song, tmp_path, tiny_separator, container, suffix, subtypes
):
    for subtype in subtypes:
        path = song(f"{subtype}.{suffix}", subtype=subtype)
        report = unetsep.separate_to_files(
            path, tmp_path / "out", model=tiny_separator, container=container
        )
        total = np.zeros((44_100, 2))
        for stem in report.stems.values():
            audio, _ = soundfile.read(stem)
            is_8_bit = subtype.endswith("8")
            assert soundfile.info(stem).subtype == ("PCM_16" if is_8_bit else subtype)
            total += audio
        step = 2.0**-15 if is_8_bit else 2.0**-23
        np.testing.assert_allclose(total, soundfile.read(path)[0], atol=4 * step + 1e-6)


def test_a_new_format_is_one_row(song, tmp_path, tiny_separator, monkeypatch):
    row = Container(
        suffix="aif",
        help="lossless",
        open=by_libsndfile("AIFF"),
        bit_depths=("16", "24"),
        max_channels=2,
        limits="1 or 2 channels",
    )
    monkeypatch.setitem(CONTAINERS, "aiff", row)
    options = {"model": tiny_separator, "container": "aiff"}
    report = unetsep.separate_to_files(song(subtype="PCM_24"), tmp_path / "out", **options)
    for stem, path in report.stems.items():
        assert path == tmp_path / "out/song" / f"{stem}.aif"
        written = soundfile.info(path)
        assert (written.format, written.subtype, written.frames) == ("AIFF", "PCM_24", 44_100)
    with pytest.raises(AudioError, match="holds 16 or 24 bits, not 32f: choose the format wav"):
        unetsep.separate_to_files(song("b.wav"), tmp_path / "out", bit_depth="32f", **options)
    with pytest.raises(AudioError, match=r"aiff cannot hold 6 .*\(1 or 2 channels\): choose the"):
        unetsep.separate_to_files(song("6.wav", channels=6), tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("container", "depth", "message"),
    [
        ("ogg", "24", "ogg has no bit depth: leave .* or choose the format"),
        ("mp3", "32f", "mp3 has no bit depth: leave .* or choose the format"),
        ("flac", "32f", "flac holds 8, 16 or 24 bits, not 32f: choose the format"),
    ],
)
def test_a_bit_depth_that_a_container_lacks_is_refused(container, depth, message):
    with pytest.raises(AudioError, match=f"{message} {holding(depth)}$"):
        choose_format(container, depth, AudioInfo(44_100, 2, None, "16"))


def kilobits(path: Path, seconds: float) -> float:
    return path.stat().st_size * 8 / seconds / 1000


@pytest.mark.parametrize(
    ("container", "rate", "channels", "bitrate", "expected"),
    [
        ("mp3", 44_100, 2, 192_000, 192),
        ("mp3", 44_100, 2, 500_000, 320),  # the most there is
        ("mp3", 22_050, 1, 64_000, 64),
        ("opus", 44_100, 2, 96_000, 96),
        ("opus", 48_000, 1, 32_000, 32),
        ("opus", 44_100, 2, None, 192),
    ],
)
def test_a_bit_rate_is_kept(tmp_path, container, rate, channels, bitrate, expected):
    info = AudioInfo(rate, channels, None, "16")
    output = choose_format(container, "auto", info, bitrate)
    writer = open_writer(tmp_path / "a", output, info)
    writer.write(quantize(music(6.0, rate, channels).T, None))
    writer.close()
    found = kilobits(tmp_path / "a", 6.0)
    # Constant in mp3; in Opus it depends on the music.
    tolerance = 0.02 if container == "mp3" else 0.25
    assert found == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", MP3_RATES)
@pytest.mark.parametrize("bitrate", [8000, 32_000, 33_000, 48_000, 56_000])
def test_low_bit_rates_of_mp3_become_the_lowest_that_has_a_count(tmp_path, rate, channels, bitrate):
    info = AudioInfo(rate, channels, None, "16")
    writer = open_writer(tmp_path / "a", choose_format("mp3", "auto", info, bitrate), info)
    writer.write(music(2.0, rate, channels).T)
    writer.close()
    assert soundfile.info(tmp_path / "a").frames == 2 * rate
    least = 64 if rate >= 16_000 else 32
    expected = max(least, min(bitrate / 1000, 64))
    # The rates of mp3 are 8 apart, and frames of silence stand in front and behind.
    assert kilobits(tmp_path / "a", 2.0) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize(
    ("rate", "channels", "bitrate"),
    [(44_100, 2, 192_000), (48_000, 1, 96_000), (32_000, 2, 90_000)],
)
def test_ogg_takes_the_quality_whose_nominal_bit_rate_is_nearest(tmp_path, rate, channels, bitrate):
    info = AudioInfo(rate, channels, None, "16")
    writer = open_writer(tmp_path / "a", choose_format("ogg", "auto", info, bitrate), info)
    writer.write(music(0.5, rate, channels).T)
    writer.close()
    header = (tmp_path / "a").read_bytes()
    (nominal,) = struct.unpack_from("<i", header, header.index(b"\x01vorbis") + 20)
    assert nominal == pytest.approx(bitrate, rel=0.06)


def test_ogg_without_bit_rates_says_so_before_any_work():
    info = AudioInfo(96_000, 6, None, "16")
    with pytest.raises(AudioError, match="ogg has no bit rates for 6 channels at 96000 Hz"):
        choose_format("ogg", "auto", info, 192_000)


@pytest.mark.parametrize(
    ("container", "bitrate", "message"),
    [
        (
            "flac",
            192_000,
            f"has no bit rate: choose the format {either(LOSSY)}$",
        ),
        ("mp3", 192, "bitrate must be 8000 to 512000 bits per second, got 192"),
        pytest.param("mp3", 10**400, "bitrate must be 8000 to .*, got 1000", id="mp3-huge"),
    ],
)
def test_impossible_bit_rates_are_refused(container, bitrate, message):
    with pytest.raises(ValueError, match=message):
        FileOptions(container=container, bitrate=bitrate)


@pytest.mark.parametrize("rate", [8000, 96_000, 192_000, 1_000_000])
def test_a_single_sample_becomes_one_in_opus_at_any_rate(tmp_path, rate):
    info = AudioInfo(rate, 2, 1, "16")
    writer = open_writer(tmp_path / "a.opus", choose_format("opus", "auto", info), info)
    writer.write(np.full((1, 2), 0.5, np.float32))
    writer.close()
    assert soundfile.info(tmp_path / "a.opus").frames == max(1, 48_000 // rate)


@pytest.mark.parametrize("rate", [44_100, 96_000])
def test_a_tone_keeps_its_place_and_pitch_in_opus(tmp_path, rate):
    time = np.arange(rate) / rate
    tone = (0.3 * np.sin(2 * np.pi * 1000 * time) * (time > 0.5)).astype(np.float32)[:, None]
    info = AudioInfo(rate, 1, None, "16")
    writer = open_writer(tmp_path / "a.opus", choose_format("opus", "auto", info), info)
    for at in range(0, rate, 10_000):
        writer.write(tone[at : at + 10_000])
    writer.close()
    found, _ = soundfile.read(tmp_path / "a.opus")
    assert len(found) == 48_000
    assert np.abs(found[:23_500]).max() < 0.02
    spectrum = np.abs(np.fft.rfft(found[26_000:46_000] * np.hanning(20_000)))
    assert spectrum.argmax() * 48_000 / 20_000 == pytest.approx(1000, abs=3)
    expected = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 48_000)
    assert np.sqrt(np.mean((found - expected)[26_000:46_000] ** 2)) < 0.02
