"""The speakers of the channels in CAF and AIFF, which name them in the terms of Core Audio.

A layout is a tag, whose upper 16 bits stand for speakers in a given order, or a mask, or a
label for each channel (Apple, *Core Audio Types*: ``AudioChannelLayout``).
"""

from __future__ import annotations

import struct
from pathlib import Path

from .chunks import read_chunk
from .sections import Section

BY_LABELS, BY_MASK = 0, 1
# Speakers by their bits in a mask of wav. Surround is at the sides, rear surround at the back.
NAMES = ["L", "R", "C", "LFE", "Rls", "Rrs", "Lc", "Rc", "Cs", "Ls", "Rs"]
# The order of the channels of a tag.
LAYOUTS = {
    100: "C",
    101: "L R",
    108: "L R Rls Rrs",
    109: "L R Rls Rrs C",
    110: "L R Rls Rrs C Cs",
    111: "L R Rls Rrs C Cs Ls Rs",
    113: "L R C",
    114: "C L R",
    115: "L R C Cs",
    116: "C L R Cs",
    117: "L R C Ls Rs",
    118: "L R Ls Rs C",
    119: "L C R Ls Rs",
    120: "C L R Ls Rs",
    121: "L R C LFE Ls Rs",
    122: "L R Ls Rs C LFE",
    123: "L C R Ls Rs LFE",
    124: "C L R Ls Rs LFE",
    125: "L R C LFE Ls Rs Cs",
    126: "L R C LFE Ls Rs Lc Rc",
    127: "C Lc Rc L R Ls Rs LFE",
    128: "L R C LFE Ls Rs Rls Rrs",
    129: "L R Ls Rs C LFE Lc Rc",
    131: "L R Cs",
    132: "L R Ls Rs",
    133: "L R LFE",
    134: "L R LFE Cs",
    135: "L R LFE Ls Rs",
    136: "L R C LFE",
    137: "L R C LFE Cs",
    138: "L R Ls Rs LFE",
    139: "L R Ls Rs C Cs",
    140: "L R Ls Rs C Rls Rrs",
    141: "C L R Ls Rs Cs",
    142: "C L R Ls Rs Cs LFE",
    143: "C L R Ls Rs Rls Rrs",
    144: "C L R Ls Rs Rls Rrs Cs",
    148: "L R Ls Rs C Lc Rc",
    183: "C L R Ls Rs Rls Rrs LFE",
    185: "L R Rls Rrs",
    186: "L R C Rls Rrs",
    187: "L R C LFE Rls Rrs",
    188: "L R C LFE Cs Ls Rs",
    189: "L R C LFE Rls Rrs Ls Rs",
    198: "L R Ls Rs Cs C",
    199: "L R Ls Rs Cs C LFE",
    200: "L C R Ls Cs Rs LFE",
    201: "L R Ls Rs Rls Rrs C LFE",
}
# Tags that ffmpeg (up to 9.0 at least) writes although it leaves the channels in wav's order.
MISTAKEN = (126, 128)
# Labels up to this one are bits of a mask, counted from 1. But surround is at the sides, unless
# the file has others there (direct surround).
LAST_BIT_LABEL = 18
DIRECT_SURROUND = {10, 11}
LABELS = {5: "Ls", 6: "Rs", 33: "Rls", 34: "Rrs"}


def core_audio_speakers(source: Path | Section, channels: int) -> tuple[int, ...]:
    """Bits of a mask of wav, one for each channel of a CAF or AIFF file, in the file's order.

    Empty if the file names no speakers, or some that wav lacks.
    """
    layout = read_chunk(source, b"chan") or read_chunk(source, b"CHAN")
    if len(layout) < 12:
        return ()
    tag, mask, labels = struct.unpack_from(">III", layout)
    if tag >> 16 == BY_MASK:
        bits = [bit for bit in range(LAST_BIT_LABEL) if mask >> bit & 1]
    elif tag >> 16 == BY_LABELS:
        bits = _bits_of_labels(layout, min(labels, channels))
    else:
        bits = [NAMES.index(name) for name in LAYOUTS.get(tag >> 16, "").split()]
        if tag >> 16 in MISTAKEN and _is_by_ffmpeg(source):
            bits.sort()
    return tuple(bits) if len(set(bits)) == channels else ()


def is_ambiguous(source: Path | Section) -> bool:
    """Whether the tag of an AIFF file may be ffmpeg's, and its order of channels therefore wrong.

    CAF files name the program that wrote them.
    """
    layout = read_chunk(source, b"CHAN")
    return len(layout) >= 12 and struct.unpack_from(">H", layout)[0] in MISTAKEN


def _bits_of_labels(layout: bytes, count: int) -> list[int]:
    labels = [label for label, *_ in struct.iter_unpack(">I16x", layout[12 : 12 + 20 * count])]
    bits = []
    for label in labels:
        if label in LABELS and not DIRECT_SURROUND & set(labels):
            bits.append(NAMES.index(LABELS[label]))
        elif 1 <= label <= LAST_BIT_LABEL:
            bits.append(label - 1)
    return bits


def _is_by_ffmpeg(source: Path | Section) -> bool:
    return b"encoder\0Lavf" in read_chunk(source, b"info")
