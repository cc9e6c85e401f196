from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.audio.test_reader import read
from tests.programs import execute
from unetsep.audio.channels import MASK_COMMENT, MASKS, VORBIS_PLACES, write_order
from unetsep.audio.decoder import AudioInfo
from unetsep.audio.formats import OutputFormat, open_writer, speaker_warnings
from unetsep.audio.reader import AudioReader
from unetsep.audio.writers import quantize

RATE = 48_000
# One tone for each speaker in the order of wav; that of the LFE is low.
TONES = {
    1: (300,),
    2: (300, 500),
    3: (300, 500, 700),
    4: (300, 500, 1100, 1300),
    5: (300, 500, 700, 1100, 1300),
    6: (300, 500, 700, 60, 1100, 1300),
    7: (300, 500, 700, 60, 900, 1100, 1300),
    8: (300, 500, 700, 60, 900, 1100, 1300, 1500),
}
ENCODERS = {
    "a.ogg": ["-c:a", "libvorbis", "-q:a", "8"],
    "a.opus": [],
    "a.flac": [],
    "a.w64": [],
    "a.mka": ["-c:a", "flac"],
}


def tones(channels: int) -> np.ndarray:
    time = np.arange(2 * RATE) / RATE
    waves = [0.3 * np.sin(2 * np.pi * tone * time) for tone in TONES[channels]]
    return np.stack(waves).astype(np.float32)


def assert_order(audio: np.ndarray, channels: int) -> None:
    spectrum = 2 * np.abs(np.fft.rfft(audio[:, RATE // 2 : RATE // 2 + RATE])) / RATE
    assert tuple(spectrum.argmax(axis=1)) == TONES[channels]
    np.testing.assert_allclose(spectrum.max(axis=1), 0.3, rtol=0.25)  # Vorbis is 2 dB off


def write(path: Path, channels: int, mask: int, depth: str | None = "16") -> Path:
    info = AudioInfo(RATE, channels, None, "16", mask)
    writer = open_writer(path, OutputFormat(path.suffix[1:], depth), info)
    writer.write(quantize(tones(channels).T, depth))
    writer.close()
    return path


def by_ffmpeg(path: Path, channels: int) -> np.ndarray:
    raw = execute("ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "-")
    return np.frombuffer(raw, "<f4").reshape(-1, channels).T


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8])
def test_channels_are_read_in_the_order_of_wav_with_their_speakers(tmp_path, name, channels):
    wav, path = write(tmp_path / "tones.wav", channels, MASKS[channels]), tmp_path / name
    if name == "a.opus":  # ffmpeg swaps channels when it encodes five or seven
        execute("opusenc", "--quiet", "--bitrate", str(channels * 96), wav, path)
    else:
        execute("ffmpeg", "-v", "error", "-i", wav, *ENCODERS[name], path)
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == MASKS[channels]
        assert_order(np.concatenate(list(reader.blocks(1000)), axis=1), channels)


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_files_of_the_xiph_encoders_are_read_in_the_order_of_wav(tmp_path, name):
    wav, path = write(tmp_path / "tones.wav", 6, MASKS[6]), tmp_path / name
    if name == "a.ogg":
        execute("oggenc", "-Q", "-q", "8", wav, "-o", path)
    else:
        execute("opusenc", "--quiet", "--bitrate", "500", wav, path)
    assert_order(read(path), 6)


@pytest.mark.parametrize("container", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("channels", range(1, 9))
def test_channels_are_written_as_other_decoders_expect_them(tmp_path, container, channels):
    depth = None if container == "ogg" else "16"
    path = write(tmp_path / f"a.{container}", channels, MASKS[channels], depth)
    assert_order(by_ffmpeg(path, channels), channels)
    assert_order(read(path), channels)


def test_opus_without_speakers_keeps_its_order(tmp_path):
    wav, path = write(tmp_path / "tones.wav", 6, MASKS[6]), tmp_path / "a.opus"
    options = ["-c:a", "libopus", "-mapping_family", "255", "-b:a", "500k"]
    execute("ffmpeg", "-v", "error", "-i", wav, *options, path)
    assert_order(read(path), 6)
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == 0


@pytest.mark.parametrize(
    ("channels", "mask"),
    [(1, 0x4), (2, 0x3), (2, 0x30), (3, 0xB), (3, 0x7), (4, 0x33), (4, 0x107), (6, 0x60F), (6, 0)],
)
@pytest.mark.parametrize("depth", ["16", "24", "32f"])
def test_wav_keeps_its_mask(tmp_path, channels, mask, depth):
    path = write(tmp_path / "a.wav", channels, mask, depth)
    content = path.read_bytes()
    form = struct.unpack_from("<IH", content, content.index(b"fmt ") + 4)
    ordinary = channels <= 2 and mask in (3, 4)
    assert form == ((16, 3 if depth == "32f" else 1) if ordinary else (40, 0xFFFE))
    assert struct.unpack_from("<I", content, 4)[0] == len(content) - 8
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == (0 if ordinary else mask)
    assert soundfile.info(path).frames == 2 * RATE
    assert_order(read(path), channels)


@pytest.mark.parametrize(
    ("mask", "layout"),
    [(0x33, "quad"), (0x107, "4.0"), (0x7, "3.0"), (0xB, "2.1"), (0x60F, "5.1(side)")],
)
def test_ffprobe_knows_the_speakers_of_what_is_written(tmp_path, mask, layout):
    path = write(tmp_path / "a.wav", mask.bit_count(), mask)
    entry = ["-show_entries", "stream=channel_layout", "-of", "csv=p=0"]
    found = execute("ffprobe", "-v", "error", *entry, path).decode().strip().strip('"')
    assert found in (layout, LISTED.get(layout))


@pytest.mark.parametrize(
    ("mask", "layout"),
    [(0xB, "2.1"), (0x107, "4.0"), (0x603, "quad(side)"), (0x10F, "4.1"), (0x60F, "5.1(side)")],
)
@pytest.mark.parametrize("depth", ["16", "24"])
def test_flac_names_speakers_that_differ_from_the_default(tmp_path, mask, layout, depth):
    channels = mask.bit_count()
    path, wav = write(tmp_path / "a.flac", channels, mask, depth), tmp_path / "a.wav"
    entry = ["-show_entries", "stream=channel_layout", "-of", "csv=p=0"]
    found = execute("ffprobe", "-v", "error", *entry, path).decode().strip().strip('"')
    assert found in (layout, LISTED.get(layout))
    execute("flac", "-s", "-d", "-o", wav, path)
    for file in (path, wav):
        with AudioReader(file) as reader:
            assert reader.info.channel_mask == mask
        audio = read(file)
        assert audio.shape[1] == 2 * RATE
        np.testing.assert_allclose(audio, tones(channels)[:, : 2 * RATE], atol=2.0**-15)


@pytest.mark.parametrize("mask", [0xB, 0x7, 0x33, 0x107, 0x60F])
def test_ogg_keeps_its_order_and_a_comment_with_the_speakers(tmp_path, mask):
    channels = mask.bit_count()
    path = write(tmp_path / "a.ogg", channels, mask, None)
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == mask
    audio = read(path)
    assert audio.shape[1] == 2 * RATE
    assert execute("oggdec", "-Q", "-R", "-o", "-", path) != b""
    for channel, tone in enumerate(tones(channels)):
        assert np.corrcoef(audio[channel], tone)[0, 1] > 0.98
    again = write(tmp_path / "b.ogg", channels, mask, None)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("container", ["flac", "ogg"])
@pytest.mark.parametrize("mask", [0x7, 0x33, 0x37, 0x3F, 0x70F, 0x63F])
def test_default_speakers_need_no_comment(tmp_path, container, mask):
    depth = None if container == "ogg" else "16"
    path = write(tmp_path / f"a.{container}", mask.bit_count(), mask, depth)
    assert MASK_COMMENT.encode() not in path.read_bytes()


def test_a_comment_for_another_number_of_channels_is_ignored(tmp_path):
    path = write(tmp_path / "a.flac", 4, 0x107)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"MASK=0x0107", b"mask=0X003F"))
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == MASKS[4]
    path.write_bytes(content.replace(b"MASK=0x0107", b"mask=0X0000"))
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == 0


def test_layouts_that_ogg_cannot_name_give_a_warning():
    def warnings(container: str, channels: int, mask: int) -> tuple[str, ...]:
        info = AudioInfo(RATE, channels, None, "16", mask)
        return speaker_warnings(Path("a.wav"), OutputFormat(container, None), info)

    assert warnings("ogg", 3, 0xB) == (
        "a.wav: ogg cannot say that its channels are 2.1: most programs will play them as 3.0; "
        "choose the format wav or flac to keep them",
    )
    assert "are 4.0: most programs will play them as quad" in warnings("ogg", 4, 0x107)[0]
    for container, channels, mask in [
        *(("wav", 3, 0xB), ("flac", 4, 0x107), ("ogg", 4, 0x33), ("ogg", 4, 0x603)),
        *(("ogg", 6, 0x60F), ("ogg", 3, 0), ("mp3", 2, 0x30), ("ogg", 1, 0x1)),
    ]:
        assert warnings(container, channels, mask) == ()


def test_read_order_and_write_order_are_inverse():
    for channels, places in VORBIS_PLACES.items():
        order = write_order(channels)
        assert [order[at] for at in places] == list(range(channels))
    assert write_order(2) is None


# Since version 7 ffmpeg takes Core Audio's surround speakers for those at the sides, and lists
# them in the order of the file, where there are others at the back or the front, too.
LISTED = {
    "7.1": "8 channels (FL+FR+FC+LFE+SL+SR+BL+BR)",
    "7.1(wide-side)": "8 channels (FL+FR+FC+LFE+SL+SR+FLC+FRC)",
}


@pytest.mark.parametrize("suffix", ["caf", "aiff"])
@pytest.mark.parametrize(
    ("layout", "mask"),
    [
        ("2.1", 0xB),
        ("3.0", 0x7),
        ("3.1", 0xF),
        ("4.0", 0x107),
        ("quad(side)", 0x603),
        ("4.1", 0x10F),
        ("5.0(side)", 0x607),
        ("5.1(side)", 0x60F),
        ("6.1", 0x70F),
        ("7.1", 0x63F),
        ("7.1(wide-side)", 0x6CF),
    ],
)
def test_caf_and_aiff_name_their_speakers(tmp_path, suffix, layout, mask):
    path = tmp_path / f"silence.{suffix}"
    source = f"anullsrc=r=44100:cl={layout}:d=0.1"
    execute("ffmpeg", "-v", "error", "-f", "lavfi", "-i", source, path)
    entry = ("-show_entries", "stream=channel_layout", "-of", "csv=p=0")
    found = execute("ffprobe", "-v", "error", *entry, path).decode().strip().strip('"')
    assert found in (layout, LISTED.get(layout))
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == mask


def test_a_layout_of_caf_for_another_number_of_channels_is_ignored(tmp_path):
    path = write_core_audio(tmp_path / "a.caf", "L R LFE", struct.pack(">III", 1 << 16, 0x107, 0))
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == 0


SPEAKER_TONES = dict(
    zip(
        ["L", "R", "C", "LFE", "Rls", "Rrs", "Lc", "Rc", "Cs", "Ls", "Rs"],
        [300, 500, 700, 60, 900, 1000, 1400, 1500, 1100, 1200, 1300],
        strict=True,
    )
)


def write_core_audio(path: Path, speakers: str, layout: bytes) -> Path:
    """A caf or aiff file with one tone for each speaker, and a chunk with a layout."""
    time = np.arange(2 * RATE) / RATE
    waves = [0.3 * np.sin(2 * np.pi * SPEAKER_TONES[name] * time) for name in speakers.split()]
    soundfile.write(path, np.stack(waves, axis=1), RATE, subtype="PCM_16")
    content = path.read_bytes()
    if path.suffix == ".caf":
        at, chunk = 8, b"chan" + struct.pack(">q", len(layout)) + layout
        at += 12 + 32  # behind the description
    else:
        at, chunk = 12, b"CHAN" + struct.pack(">I", len(layout)) + layout
        size = struct.pack(">I", len(content) + len(chunk) - 8)
        content = content[:4] + size + content[8:]
    path.write_bytes(content[:at] + chunk + content[at:])
    return path


@pytest.mark.parametrize("suffix", ["caf", "aiff"])
@pytest.mark.parametrize(
    ("tag", "speakers", "in_wav", "mask"),
    [
        (122, "L R Ls Rs C LFE", "L R C LFE Ls Rs", 0x60F),
        (124, "C L R Ls Rs LFE", "L R C LFE Ls Rs", 0x60F),
        (127, "C Lc Rc L R Ls Rs LFE", "L R C LFE Lc Rc Ls Rs", 0x6CF),
        (128, "L R C LFE Ls Rs Rls Rrs", "L R C LFE Rls Rrs Ls Rs", 0x63F),
        (189, "L R C LFE Rls Rrs Ls Rs", "L R C LFE Rls Rrs Ls Rs", 0x63F),
        (147, "C L R Ls Rs LFE", "C L R Ls Rs LFE", 0),  # discrete: no speakers
        (0, "C L R Rs Ls Rrs Rls LFE", "L R C LFE Rls Rrs Ls Rs", 0x63F),
    ],
)
def test_channels_of_core_audio_are_read_in_the_order_of_wav(
    tmp_path, suffix, tag, speakers, in_wav, mask
):
    layout = struct.pack(">III", tag << 16 | len(speakers.split()), 0, 0)
    if tag == 0:  # a label for each channel
        labels = {"L": 1, "R": 2, "C": 3, "LFE": 4, "Ls": 5, "Rs": 6, "Rls": 33, "Rrs": 34}
        each = [struct.pack(">I16x", labels[name]) for name in speakers.split()]
        layout = struct.pack(">III", 0, 0, len(each)) + b"".join(each)
    path = write_core_audio(tmp_path / f"a.{suffix}", speakers, layout)
    audio = read(path)
    spectrum = np.abs(np.fft.rfft(audio[:, :RATE]))
    assert spectrum.argmax(axis=1).tolist() == [SPEAKER_TONES[name] for name in in_wav.split()]
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == mask
        wrong_if_by_ffmpeg = tag == 128 and suffix == "aiff"
        assert [("if ffmpeg wrote it" in line) for line in reader.warnings] == (
            [True] if wrong_if_by_ffmpeg else []
        )


def test_a_caf_of_ffmpeg_is_in_the_order_of_wav_despite_its_tag(tmp_path):
    wav, path = write(tmp_path / "a.wav", 8, MASKS[8]), tmp_path / "a.caf"
    execute("ffmpeg", "-v", "error", "-i", wav, path)
    assert struct.pack(">I", 128 << 16 | 8) in path.read_bytes()[:100]
    assert_order(read(path), 8)
    with AudioReader(path) as reader:
        assert (reader.info.channel_mask, reader.warnings) == (MASKS[8], [])


def test_a_mask_is_found_after_a_chunk_that_mentions_its_name(tmp_path):
    path = write(tmp_path / "a.wav", 4, 0x107)
    content = path.read_bytes()
    note = b"LIST" + struct.pack("<I", 70_000) + b"fmt is a chunk".ljust(70_000, b"\0")
    content = content[:12] + note + content[12:]
    path.write_bytes(b"RIFF" + struct.pack("<I", len(content) - 8) + content[8:])
    with AudioReader(path) as reader:
        assert reader.info.channel_mask == 0x107
