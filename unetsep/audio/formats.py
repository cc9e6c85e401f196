"""What each output format can hold, and samples in the type that it stores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import AudioError
from .decoder import AudioInfo, Block

Integers = npt.NDArray[np.integer]

FORMATS = ("wav", "flac", "ogg", "mp3")
BIT_DEPTHS = ("auto", "16", "24", "32f")
MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
# Above this rate libvorbis has no settings, and libsndfile crashes instead of saying so.
OGG_RATE = 200_000
FLAC_RATE = 655_350
# Higher FLAC rates are stored in units of 10 Hz.
FLAC_FINE_RATE = 65_535


@dataclass(frozen=True)
class OutputFormat:
    """Container and sample format of the stems.

    Parameters
    ----------
    container
        ``wav``, ``flac``, ``ogg`` (Vorbis at quality 8, about 256 kbit/s for stereo) or
        ``mp3`` (constant, the most that the rate allows: 320 kbit/s from 32 kHz on, 160
        from 16 kHz on, 64 below).
    bit_depth
        ``16``, ``24`` or ``32f``; None for the lossy containers.
    """

    container: str
    bit_depth: str | None

    @property
    def is_float(self) -> bool:
        """Whether samples beyond full scale survive."""
        return self.bit_depth == "32f"


def check_choices(container: str, bit_depth: str) -> None:
    """Refuse what is no container or bit depth, whatever the input may be."""
    if container not in FORMATS or bit_depth not in BIT_DEPTHS:
        raise ValueError(
            f"unknown format {container!r} or bit depth {bit_depth!r}: "
            f"expected {', '.join(FORMATS)} and {', '.join(BIT_DEPTHS)}"
        )


def choose_format(container: str, bit_depth: str, info: AudioInfo) -> OutputFormat:
    """The output format for an input, or a refusal before any work starts.

    Parameters
    ----------
    container
        One of `FORMATS`.
    bit_depth
        One of `BIT_DEPTHS`; ``auto`` takes what the input has (24 bits for lossy input).
    info
        The input.

    Raises
    ------
    AudioError
        If the container cannot hold this bit depth, rate or number of channels; the
        message names one that can.
    """
    check_choices(container, bit_depth)
    if container in ("ogg", "mp3") and bit_depth != "auto":
        raise AudioError(
            f"{container} has no bit depth: leave --bit-depth at auto, or use --format wav or flac"
        )
    if container == "flac" and bit_depth == "32f":
        raise AudioError("flac holds 16 or 24 bits, not 32f: use --format wav")
    if not _holds(container, info):
        other = next(name for name in ("flac", "wav") if _holds(name, info))
        raise AudioError(
            f"{container} cannot hold {info.channels} channels at {info.sample_rate} Hz "
            f"({_limits(container)}): use --format {other}"
        )
    if container in ("ogg", "mp3"):
        return OutputFormat(container, None)
    depth = info.bit_depth if bit_depth == "auto" else bit_depth
    return OutputFormat(container, "24" if container == "flac" and depth == "32f" else depth)


def _holds(container: str, info: AudioInfo) -> bool:
    rate, channels = info.sample_rate, info.channels
    if container == "mp3":
        return channels <= 2 and rate in MP3_RATES
    if container == "ogg":
        return channels <= 8 and rate <= OGG_RATE
    if container == "flac":
        whole = rate <= FLAC_FINE_RATE or rate % 10 == 0
        return channels <= 8 and rate <= FLAC_RATE and whole
    return True


def _limits(container: str) -> str:
    return {
        "mp3": f"1 or 2 channels at {', '.join(map(str, MP3_RATES))} Hz",
        "ogg": f"at most 8 channels and {OGG_RATE} Hz",
        "flac": f"at most 8 channels and {FLAC_RATE} Hz, in steps of 10 Hz from 65540 Hz on",
    }[container]


def quantize(block: Block, output: OutputFormat) -> Block | Integers:
    """Samples in the type that is stored without scaling them again.

    Full scale is 2^15 and 2^23, as in reading, so that integer input comes back exactly;
    libsndfile's own conversion multiplies by 2^15 - 1. 24 bits fill the upper three bytes
    of 32.
    """
    if output.bit_depth == "16":
        scaled = block * np.float32(32768)
        np.clip(np.rint(scaled, out=scaled), -32768, 32767, out=scaled)
        narrow: Integers = scaled.astype(np.int16)
        return narrow
    if output.bit_depth == "24":
        full = 2.0**23
        wide: Integers = np.clip(np.rint(block * full), -full, full - 1).astype(np.int32) << 8
        return wide
    return block
