"""The output formats and their limits; light, so that ``--help`` can list them.

A new format is a row of `CONTAINERS`, a writer of tags and, unless libsndfile encodes it, of audio.
"""

from __future__ import annotations

import numbers
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import MAX_CHANNELS
from ..errors import AudioError
from .channels import MASKS, is_usual, layout_name

if TYPE_CHECKING:
    from .decoder import AudioInfo
    from .writers import Writer

# In rising order, integers first.
BIT_DEPTHS = ("auto", "8", "16", "24", "32", "32f", "64f")
MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
# From a sample rate on: the bits per second at compression levels 1 and 0 of libsndfile, and the
# least whose frames, mono or stereo, have room for the count of frames.
MP3_BITRATES = (
    (32_000, 32_000, 320_000, 64_000),
    (16_000, 8000, 160_000, 64_000),
    (0, 8000, 64_000, 32_000),
)
# Default bits per second and channel.
OPUS_BITRATE = 96_000
# Range of bits per second; formats take the nearest that they have.
BITRATES = (8000, 512_000)
# Above this rate libvorbis has no settings, and libsndfile crashes instead of raising an error.
OGG_RATE = 200_000
FLAC_RATE = 655_350
# Higher FLAC rates are stored in units of 10 Hz.
FLAC_FINE_RATE = 65_535
# Containers to propose if another cannot hold the input; the last holds everything.
ALTERNATIVES = ("flac", "wav")
# The rates in AAC's table.
AAC_RATES = (
    *(8000, 11_025, 12_000, 16_000, 22_050, 24_000),
    *(32_000, 44_100, 48_000, 64_000, 88_200, 96_000),
)

# From path, format and input to the writer of an open file.
OpenFile = Callable[[Path, "OutputFormat", "AudioInfo"], "Writer"]


@dataclass(frozen=True)
class OutputFormat:
    """Container and sample format of the stems.

    Parameters
    ----------
    container
        A name in `CONTAINERS`.
    bit_depth
        One of `BIT_DEPTHS` but ``auto``; None for the lossy containers.
    bitrate
        Bits per second of a lossy container; None for its default.
    """

    container: str
    bit_depth: str | None
    bitrate: int | None = None

    @property
    def is_float(self) -> bool:
        """Whether it keeps samples beyond full scale."""
        return self.bit_depth in ("32f", "64f")


@dataclass(frozen=True, kw_only=True)
class Container:
    """One output format: its limits and its writer.

    Parameters
    ----------
    suffix
        Suffix of its files, without a dot.
    help
        A few words for ``--help``.
    open
        Creates the writer of one stem; None if all stems of a song are in one file.
    bit_depths
        The bit depths that it can store, rising; empty for lossy containers.
    max_channels
        The highest number of channels.
    holds_rate
        Whether it can hold a sample rate in Hz.
    limits
        The last two in words, for messages.
    by_ffmpeg
        Whether an ``ffmpeg`` program encodes it.
    names_speakers
        Whether it names the speakers of its channels in a way that programs read.
    check_bitrate
        Raises if it does not have a bit rate for an input.
    other_suffixes
        Further suffixes that such files usually have, which a template may write out.
    """

    suffix: str
    help: str
    open: OpenFile | None
    bit_depths: tuple[str, ...] = ()
    max_channels: int = MAX_CHANNELS
    holds_rate: Callable[[int], bool] = lambda _: True
    limits: str = "any number of channels at any rate"
    by_ffmpeg: bool = False
    names_speakers: bool = False
    check_bitrate: Callable[[int, AudioInfo], object] = lambda *_: None
    other_suffixes: tuple[str, ...] = ()

    @property
    def suffixes(self) -> tuple[str, ...]:
        """All suffixes that its files may have."""
        return (self.suffix, *self.other_suffixes)

    @property
    def together(self) -> bool:
        """Whether all stems of a song are in one file."""
        return self.open is None

    @property
    def lossy(self) -> bool:
        """Whether its compression is lossy: it then has no bit depth to choose."""
        return not self.bit_depths

    def holds(self, info: AudioInfo) -> bool:
        """Whether it can hold the channels and the sample rate of an input."""
        return info.channels <= self.max_channels and self.holds_rate(info.sample_rate)


def open_wav(path: Path, output: OutputFormat, info: AudioInfo) -> Writer:
    """A new wav file; see `unetsep.audio.writers.WavWriter`."""
    from .writers import WavWriter

    assert output.bit_depth is not None
    return WavWriter(path, output.bit_depth, info)


def open_opus(path: Path, output: OutputFormat, info: AudioInfo) -> Writer:
    """A new Opus file; see `unetsep.audio.writers.OpusWriter`."""
    from .writers import OpusWriter

    return OpusWriter(path, info, output.bitrate or OPUS_BITRATE * info.channels)


def open_m4a(path: Path, output: OutputFormat, info: AudioInfo) -> Writer:
    """A new m4a file; see `unetsep.audio.ffmpeg_writer.FfmpegWriter`."""
    from .ffmpeg_writer import FfmpegWriter

    return FfmpegWriter(path, info, output.bitrate)


def by_libsndfile(
    form: str,
    subtype: str | None = None,
    level: Callable[[int, AudioInfo], float] | None = None,
    **encoding: Any,
) -> OpenFile:
    """A function that opens new files which libsndfile encodes.

    Parameters
    ----------
    form, subtype
        Format and encoding as libsndfile calls them; the default is PCM of the bit depth.
    level
        From a bit rate to the level of compression, if the format has bit rates.
    encoding
        Further keywords of `soundfile.SoundFile`.
    """

    def open_file(path: Path, output: OutputFormat, info: AudioInfo) -> Writer:
        from .writers import LibsndfileWriter

        pcm = "PCM_S8" if output.bit_depth == "8" else f"PCM_{output.bit_depth}"
        options = dict(encoding)
        if level and output.bitrate:
            options["compression_level"] = level(output.bitrate, info)
        return LibsndfileWriter(path, info, form, subtype or pcm, **options)

    return open_file


def mp3_level(bitrate: int, info: AudioInfo) -> float:
    """The level of compression that libsndfile turns into a constant bit rate of mp3."""
    low, high, least = next(row for rate, *row in MP3_BITRATES if info.sample_rate >= rate)
    return (high - min(high, max(least, bitrate))) / (high - low)


def vorbis_level(bitrate: int, info: AudioInfo) -> float:
    """The level of compression whose nominal bit rate is nearest; see `vorbis_bitrates`."""
    from .writers import vorbis_bitrates

    rates = vorbis_bitrates(info.sample_rate, info.channels)
    return min(rates, key=lambda level: abs(rates[level] - bitrate))


AAC = Container(
    suffix="m4a",
    help="AAC, 256 kbit/s, by ffmpeg",
    open=open_m4a,
    max_channels=2,
    holds_rate=lambda rate: rate in AAC_RATES,
    limits=f"1 or 2 channels at {', '.join(map(str, AAC_RATES))} Hz",
    by_ffmpeg=True,
    other_suffixes=("mp4",),
)
CONTAINERS = {
    "wav": Container(
        suffix="wav",
        help="lossless, any length",
        open=open_wav,
        names_speakers=True,
        bit_depths=("8", "16", "24", "32", "32f", "64f"),
        other_suffixes=("wave",),
    ),
    # Lossless at any level of compression.
    "flac": Container(
        suffix="flac",
        help="lossless, up to 24 bits",
        open=by_libsndfile("FLAC"),
        names_speakers=True,
        bit_depths=("8", "16", "24"),
        max_channels=8,
        holds_rate=lambda rate: rate <= FLAC_RATE and (rate <= FLAC_FINE_RATE or rate % 10 == 0),
        limits=f"at most 8 channels and {FLAC_RATE} Hz, in steps of 10 Hz from 65540 Hz on",
    ),
    # Vorbis at quality 8 of 10.
    "ogg": Container(
        suffix="ogg",
        help="about 256 kbit/s, surround only in the usual layouts",
        open=by_libsndfile("OGG", "VORBIS", vorbis_level, compression_level=0.2),
        max_channels=8,
        holds_rate=lambda rate: rate <= OGG_RATE,
        limits=f"at most 8 channels and {OGG_RATE} Hz",
        check_bitrate=vorbis_level,
        other_suffixes=("oga",),
    ),
    # The best quality: at most 320 kbit/s from 32 kHz on, 160 from 16 kHz on, 64 below.
    "mp3": Container(
        suffix="mp3",
        help="320 kbit/s",
        open=by_libsndfile(
            "MP3", "MPEG_LAYER_III", mp3_level, compression_level=0.0, bitrate_mode="CONSTANT"
        ),
        max_channels=2,
        holds_rate=lambda rate: rate in MP3_RATES,
        limits=f"1 or 2 channels at {', '.join(map(str, MP3_RATES))} Hz",
    ),
    # Players expect 48 kHz, the only rate of Opus for music.
    "opus": Container(
        suffix="opus",
        help="about 192 kbit/s, resampled to 48 kHz",
        open=open_opus,
        max_channels=2,
        limits="1 or 2 channels",
        other_suffixes=("ogg", "oga"),
    ),
    "m4a": AAC,
    "stem.mp4": replace(
        AAC,
        suffix="stem.mp4",
        help="mix and four stems in one file for Traktor and Mixxx, AAC, by ffmpeg",
        open=None,
        other_suffixes=(),
    ),
}


def open_writer(path: Path, output: OutputFormat, info: AudioInfo) -> Writer:
    """A new file of a format that `choose_format` returned."""
    open_file = CONTAINERS[output.container].open
    assert open_file is not None, f"{output.container} is written by `write_stem_mp4`"
    return open_file(path, output, info)


def _require_ffmpeg(container: str) -> None:
    from .ffmpeg_program import find_ffmpeg

    if find_ffmpeg() is None:
        raise AudioError(
            f"writing {container} needs ffmpeg, which is not installed: install ffmpeg "
            "or run 'pip install imageio-ffmpeg', or choose the format mp3"
        )


def check_stems(container: str, stems: Sequence[str]) -> None:
    """Refuse stems that a container does not hold.

    Raises
    ------
    AudioError
        If one file holds all of them, and their number is not the one that it holds.
    """
    if CONTAINERS[container].together:
        from .ffmpeg_writer import order_labels

        order_labels(stems)  # raises for a wrong number


def as_bits(text: str) -> int:
    """Bits per second from ``192k`` or ``192000``; the range is not checked.

    Raises
    ------
    ValueError
        If it is something else.
    """
    match = re.fullmatch(r"([0-9]+)(k?)", text.lower())
    if match is None:
        raise ValueError(f"{text!r} is not a bit rate: expected 192k or 192000")
    return int(match[1]) * (1000 if match[2] else 1)


def check_choices(container: str, bit_depth: str, bitrate: int | None = None) -> None:
    """Refuse a wrong container, bit depth or bit rate before an input is known.

    Raises
    ------
    ValueError
        If one of them is unknown, or the container is lossless and has no bit rate.
    AudioError
        If the container cannot hold the bit depth.
    """
    if not isinstance(container, str) or container not in CONTAINERS:
        raise ValueError(f"container must be {either([*CONTAINERS])}, got {container!r}")
    if bit_depth not in BIT_DEPTHS:
        raise ValueError(f"bit_depth must be {either(BIT_DEPTHS)}, got {bit_depth!r}")
    if bit_depth not in ("auto", *CONTAINERS[container].bit_depths):
        raise _wrong_bit_depth(container, bit_depth)
    if bitrate is None:
        return
    least, most = BITRATES
    is_number = isinstance(bitrate, numbers.Real)
    if not is_number or not least <= bitrate <= most or not float(bitrate).is_integer():
        in_kbit = is_number and 8 <= bitrate <= most / 1000
        hint = f"; {bitrate:g} kbit/s are {bitrate * 1000:g}" if in_kbit else ""
        raise ValueError(
            f"bitrate must be {least} to {most} bits per second, got {bitrate!r}{hint}"
        )
    if not CONTAINERS[container].lossy:
        lossy = [name for name, row in CONTAINERS.items() if row.lossy]
        raise ValueError(f"{container} has no bit rate: choose the format {either(lossy)}")


def choose_format(
    container: str,
    bit_depth: str,
    info: AudioInfo,
    bitrate: int | None = None,
    label: str = "",
) -> OutputFormat:
    """The output format for an input, or a refusal before any work starts.

    Parameters
    ----------
    container
        A name in `CONTAINERS`.
    bit_depth
        One of `BIT_DEPTHS`; ``auto`` takes that of the input (at least 16 bits, 24 for lossy
        input), else the next higher that the container can store, else its highest.
    info
        The input.
    bitrate
        Bits per second of a lossy container; None for its default.
    label
        Prefix of messages about the input, but not of those that hold for any input.

    Raises
    ------
    ValueError
        If there is no such container or bit depth.
    AudioError
        If the container needs ffmpeg and it is missing, or cannot hold this bit depth, rate or
        number of channels, or has no bit rates for them; the message names one that can.
    """
    check_choices(container, bit_depth, bitrate)
    row = CONTAINERS[container]
    if row.by_ffmpeg:
        _require_ffmpeg(container)
    if not row.holds(info):
        alternative = next(name for name in ALTERNATIVES if CONTAINERS[name].holds(info))
        at_48_khz = row.holds(replace(info, sample_rate=48_000))  # which all formats have
        remedy = "give --sample-rate 48000, or " if at_48_khz else ""
        raise AudioError(
            f"{label}{container} cannot hold {info.channels} channels at {info.sample_rate} Hz "
            f"({row.limits}): {remedy}choose the format {alternative}"
        )
    if bitrate is not None:
        try:
            row.check_bitrate(bitrate, info)
        except AudioError as error:
            raise AudioError(f"{label}{error}") from error
    if row.lossy:
        return OutputFormat(container, None, bitrate)
    least = BIT_DEPTHS.index(bit_depth)
    if bit_depth == "auto":  # soft stems would be silent in the song's 8 bits
        least = BIT_DEPTHS.index(max("16", info.bit_depth, key=BIT_DEPTHS.index))
    depths = (depth for depth in row.bit_depths if BIT_DEPTHS.index(depth) >= least)
    return OutputFormat(container, next(depths, row.bit_depths[-1]))


def speaker_warnings(path: Path, output: OutputFormat, info: AudioInfo) -> tuple[str, ...]:
    """A sentence if programs will play the stems on other speakers than the input."""
    channels, mask = info.channels, info.channel_mask
    if channels <= 2 or CONTAINERS[output.container].names_speakers or is_usual(channels, mask):
        return ()
    usual = layout_name(MASKS.get(channels, 0))
    alternatives = either([name for name, row in CONTAINERS.items() if row.names_speakers])
    return (
        f"{path}: {output.container} cannot say that its channels are {layout_name(mask)}: most "
        f"programs will play them as {usual}; choose the format {alternatives} to keep them",
    )


def _wrong_bit_depth(container: str, bit_depth: str) -> AudioError:
    depths = CONTAINERS[container].bit_depths
    holders = either([name for name, row in CONTAINERS.items() if bit_depth in row.bit_depths])
    if not depths:
        return AudioError(
            f"{container} has no bit depth: leave it at auto, or choose the format {holders}"
        )
    return AudioError(
        f"{container} holds {either(depths)} bits, not {bit_depth}: choose the format {holders}"
    )


def either(words: Sequence[str]) -> str:
    """A list of alternatives, such as ``wav, flac or ogg``."""
    *head, last = words
    return f"{', '.join(head)} or {last}" if head else last
