"""The speakers that the channels of a file are for, and the order of the channels.

Blocks of samples have their channels in the order of wav files, which is that of the bits of a
mask: front left, front right, front centre, LFE, back left, back right, ... Vorbis and Opus use
another order (Vorbis I specification, section 4.3.9; RFC 7845, section 5.1.1.2).
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

from .chunks import WAVE_FORMATS, byte_order, read_chunk
from .core_audio import core_audio_speakers
from .sections import Section, open_bytes

# The places in a Vorbis stream of the channels in the order of wav, by number of channels.
VORBIS_PLACES = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
# The speakers that Vorbis, Opus and FLAC define for a number of channels, as masks of wav.
MASKS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
# Layouts by the names that ffmpeg gives them.
LAYOUTS = {
    "mono": 0x4,
    "stereo": 0x3,
    "2.1": 0xB,
    "3.0": 0x7,
    "3.0(back)": 0x103,
    "4.0": 0x107,
    "quad": 0x33,
    "quad(side)": 0x603,
    "3.1": 0xF,
    "4.1": 0x10F,
    "5.0": 0x37,
    "5.0(side)": 0x607,
    "5.1": 0x3F,
    "5.1(side)": 0x60F,
    "6.0": 0x707,
    "6.0(front)": 0x6C3,
    "hexagonal": 0x137,
    "6.1": 0x70F,
    "6.1(back)": 0x13F,
    "6.1(front)": 0x6CB,
    "7.0": 0x637,
    "7.0(front)": 0x6C7,
    "7.1": 0x63F,
    "7.1(wide)": 0xFF,
    "7.1(wide-side)": 0x6CF,
    "octagonal": 0x737,
}
# Speakers by the names that ffmpeg gives them, in the order of the bits of a mask.
SPEAKERS = [
    "FL", "FR", "FC", "LFE", "BL", "BR", "FLC", "FRC", "BC", "SL", "SR",
    "TC", "TFL", "TFC", "TFR", "TBL", "TBC", "TBR",
]  # fmt: skip
HEAD_BYTES = 1 << 16
# A comment of FLAC (RFC 9639, section 8.6.2); in Ogg files only unetsep reads and writes it.
MASK_COMMENT = "WAVEFORMATEXTENSIBLE_CHANNEL_MASK"
MASK = re.compile(rb"(?i)%s=0x([0-9a-f]{1,8})" % MASK_COMMENT.encode())
# Speakers at the sides, and those at the back that are equivalent if there is only one pair.
SIDE, BACK = 0x600, 0x30


def is_ordinary(channels: int, mask: int) -> bool:
    """Whether the number of channels alone says as much as the mask."""
    return channels <= 2 and mask in (0, MASKS[channels])


def is_usual(channels: int, mask: int) -> bool:
    """Whether Vorbis, Opus and FLAC define these speakers, or nearly, for this many channels.

    Sides count as back if there is no back: all programs play the two alike.
    """
    if mask & SIDE == SIDE and not mask & BACK:
        mask = mask & ~SIDE | BACK
    return mask == 0 or mask == MASKS.get(channels)


def layout_name(mask: int) -> str:
    """The name by ffmpeg for the speakers of a mask; the mask in hexadecimal if it has none."""
    return next((name for name, layout in LAYOUTS.items() if layout == mask), f"{mask:#x}")


def mask_comment(channels: int, mask: int) -> str:
    """The value of `MASK_COMMENT` that a FLAC or Ogg file needs; empty if it needs none."""
    return "" if mask in (0, MASKS.get(channels)) else f"0x{mask:04X}"


def read_speakers(
    source: Path | Section, file_format: str, subtype: str, channels: int
) -> tuple[tuple[int, ...] | None, int]:
    """The order of the channels of a file, and their speakers.

    Parameters
    ----------
    source
        A file that libsndfile could open.
    file_format, subtype
        Its format and encoding, as libsndfile calls them.
    channels
        Number of channels.

    Returns
    -------
    tuple of int or None
        The places in the stream of the channels in the order of wav; None if it is that order.
    int
        The speakers as a mask of wav; 0 if the file does not name them.
    """
    if file_format in ("CAF", "AIFF"):
        speakers = core_audio_speakers(source, channels)
        return places_of(speakers), mask_of(speakers)
    if file_format in WAVE_FORMATS:
        return None, _wav_mask(source, channels)
    if file_format == "FLAC":
        return None, _commented_mask(source, channels)
    if file_format == "OGG" and _has_vorbis_layout(source, subtype):
        return VORBIS_PLACES.get(channels), _commented_mask(source, channels)
    return None, 0


def places_of(speakers: tuple[int, ...]) -> tuple[int, ...] | None:
    """The places of channels in the order of wav; None if they are in that order.

    Parameters
    ----------
    speakers
        The bit of each channel in a mask of wav, in the order of the stream.
    """
    places = sorted(range(len(speakers)), key=speakers.__getitem__)
    return tuple(places) if places != list(range(len(speakers))) else None


def mask_of(speakers: tuple[int, ...]) -> int:
    """A mask of wav from the bits of its speakers."""
    return sum(1 << bit for bit in speakers)


def bits_of(mask: int) -> tuple[int, ...]:
    """The bits of the speakers of a mask of wav, in its order."""
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def named_speakers(text: str) -> tuple[int, ...]:
    """The bits of speakers in a list such as ``FL+FR+LFE``; empty if wav lacks one of them."""
    names = text.split("+")
    return tuple(map(SPEAKERS.index, names)) if set(names) <= set(SPEAKERS) else ()


def write_order(channels: int) -> tuple[int, ...] | None:
    """The channels of wav in the order of Vorbis; None if the two are equal."""
    places = VORBIS_PLACES.get(channels)
    return None if places is None else tuple(places.index(at) for at in range(channels))


def _commented_mask(source: Path | Section, channels: int) -> int:
    with open_bytes(source) as file:
        match = MASK.search(file.read(HEAD_BYTES))
    mask = int(match[1], 16) if match else 0
    is_valid = match is not None and mask.bit_count() in (0, channels)
    return mask if is_valid else MASKS.get(channels, 0)


def _has_vorbis_layout(source: Path | Section, subtype: str) -> bool:
    """Whether the channels of an Ogg stream are speakers, and not ambisonics, for instance."""
    if subtype != "OPUS":
        return subtype == "VORBIS"
    with open_bytes(source) as file:
        head = file.read(HEAD_BYTES)
    at = head.find(b"OpusHead")
    return at >= 0 and head[at + 18 : at + 19] in (b"\0", b"\1")


def _wav_mask(source: Path | Section, channels: int) -> int:
    form, order = read_chunk(source, b"fmt "), byte_order(source)
    if len(form) < 24:
        return 0
    tag, count = struct.unpack_from(order + "HH", form)
    (mask,) = struct.unpack_from(order + "I", form, 20)
    return int(mask) if tag == 0xFFFE and count == channels else 0
