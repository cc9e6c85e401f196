"""Frames of mp3 files, the count of frames that most encoders write into the first, and tags."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .sections import Section, open_bytes

# libsndfile's names of the format.
MP3_FORMATS = ("MP3", "MPEG")
ID3_HEAD = 10


def mp3_missing_share(path: Path | Section) -> float | None:
    """Share of the bytes that an mp3 file promises and does not hold.

    Most encoders write a count of frames and bytes ("Xing" or "Info") into the first frame.

    Returns
    -------
    float or None
        0 if nothing is missing, or the bytes are not counted. None if any length is a guess:
        there is no count, no frame follows its own, or it leaves out what follows, as in files
        that were joined.
    """
    with open_bytes(path) as file:
        begin = after_tags(file)
        file.seek(begin)
        frame = file.read(1 << 16)
        marks = (frame.find(b"Xing"), frame.find(b"Info"))
        mark = min((at for at in marks if at > 0), default=-1)
        sync = frame.rfind(b"\xff", 0, max(mark, 0))
        # Header and side information precede the mark: 13 to 40 bytes.
        if mark < 0 or sync < 0 or not 12 <= mark - sync <= 40 or len(frame) < mark + 16:
            return None
        uncounted = mp3_frame(frame[:4])  # then the mark belongs to a file that follows
        if sync and uncounted and mp3_frame(frame[uncounted.size :][:4]):
            return None
        marked = mp3_frame(frame[sync:][:4])
        if marked is None or mp3_frame(frame[sync + marked.size :][:4]) is None:
            return None  # damaged, and libmpg123 passes over it
        flags, _, size = struct.unpack_from(">III", frame, mark + 4)
        if flags & 3 != 3 or size == 0:
            return 0.0 if flags & 1 else None
        begin += sync
        available = file.seek(0, os.SEEK_END) - begin
        end = after_end_tags(file, begin + size)
        while tag := _id3_at(file, end):
            end = after_end_tags(file, end + tag)
        file.seek(end)
        has_more = mp3_frame(file.read(4)) is not None
    return None if has_more else max(0.0, 1 - available / size)


def after_end_tags(file: BinaryIO, at: int) -> int:
    """Position after the ID3v1 and APE tags that end a stream."""
    while True:
        file.seek(at)
        head = file.read(16)
        if head[:3] == b"TAG":
            at += 128
        elif head[:8] == b"APETAGEX" and len(head) == 16:
            at += 32 + int.from_bytes(head[12:16], "little")
        else:
            return at


def before_end_tags(file: BinaryIO, end: int) -> int:
    """Position before the ID3v1 and APE tags that end a file of a length."""
    while True:
        file.seek(max(0, end - 128))
        tail = file.read(min(128, max(0, end)))
        if len(tail) == 128 and tail[:3] == b"TAG":
            end -= 128
        elif tail[-32:-24] == b"APETAGEX":
            size, _, flags = struct.unpack_from("<III", tail, len(tail) - 20)
            end -= max(32, size) + (32 if flags >> 31 else 0)  # of the header
        else:
            return end


def after_tags(file: BinaryIO) -> int:
    """Position after the ID3 tags at the front, which may hold pictures."""
    at = 0
    while size := _id3_at(file, at):
        at += size
    return at


def _id3_at(file: BinaryIO, at: int) -> int:
    """Bytes of the ID3v2 tag at a place; 0 if there is none."""
    file.seek(at)
    return id3_size(file.read(ID3_HEAD))


def id3_size(head: bytes) -> int:
    """Bytes of an ID3v2 tag, with its footer, from its first ten bytes; 0 if it is no tag."""
    if len(head) < ID3_HEAD or head[:3] != b"ID3":
        return 0
    a, b, c, d = (byte & 127 for byte in head[6:ID3_HEAD])
    return ID3_HEAD + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 16 else 0)


@dataclass(frozen=True)
class Mp3Frame:
    """The header of a layer III frame.

    Parameters
    ----------
    size
        In bytes.
    sample_rate
        In Hz.
    mono
        Whether it has one channel.
    """

    size: int
    sample_rate: int
    mono: bool


def mp3_frame(header: bytes) -> Mp3Frame | None:
    """A layer III frame from the four bytes of its header; None if they are no header."""
    bits = int.from_bytes(header[:4], "big")
    version = bits >> 19 & 3  # 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    if len(header) < 4 or bits >> 21 != 0x7FF or version == 1 or bits >> 17 & 3 != 1:
        return None
    rates = (44_100, 48_000, 32_000, 0)
    rate = rates[bits >> 10 & 3] >> {3: 0, 2: 1}.get(version, 2)
    mpeg2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0)
    mpeg1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0)
    kbits = (mpeg1 if version == 3 else mpeg2)[bits >> 12 & 15]
    if not rate or not kbits:
        return None
    samples = 144_000 if version == 3 else 72_000
    size = samples * kbits // rate + (bits >> 9 & 1)
    return Mp3Frame(size, rate, bits >> 6 & 3 == 3)
