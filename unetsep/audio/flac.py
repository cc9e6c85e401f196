"""The header of a FLAC stream, and the header of its last frame.

Decoders trust the stream's header: they stop at its count of samples, and do not report frames
of another rate.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from .sections import Section, count_bytes, open_bytes

HEADER_BYTES = 1 << 20
# Holds at least two FLAC frames of any usual encoder.
TAIL_BYTES = 1 << 19
FLAC_MARK = re.compile(rb"fLaC[\0\x80]\0\0\x22")
FLAC_SYNC = re.compile(rb"\xff[\xf8\xf9]")
FLAC_RATES = (
    *(0, 88_200, 176_400, 192_000, 8000, 16_000, 22_050, 24_000, 32_000, 44_100),
    *(48_000, 96_000),
)
FLAC_BITS = (0, 8, 12, 0, 16, 20, 24, 32)


@dataclass(frozen=True)
class FlacForm:
    """The format in the header of a FLAC stream, or of one of its frames; 0 if not stated.

    Parameters
    ----------
    sample_rate
        In Hz.
    channels, bits
        Number of channels, bits of a sample.
    frames
        Samples per channel, up to the end of this frame.
    """

    sample_rate: int
    channels: int
    bits: int
    frames: int

    def differs(self, other: FlacForm) -> bool:
        """Whether rate, channels or bits differ, if both headers state them."""
        return any(
            a and b and a != b
            for a, b in (
                (self.sample_rate, other.sample_rate),
                (self.channels, other.channels),
                (self.bits, other.bits),
            )
        )

    def __str__(self) -> str:
        return f"{self.channels} channels of {self.bits} bits at {self.sample_rate} Hz"


def flac_forms(section: Path | Section) -> tuple[int, FlacForm, FlacForm] | None:
    """Place and format of the header, and format of the last frame.

    None if one of them was not found.
    """
    with open_bytes(section) as file:
        match = FLAC_MARK.search(file.read(HEADER_BYTES))
        if match is None:
            return None
        file.seek(match.end())
        info = file.read(34)
        if len(info) < 34:
            return None
        (bits,) = struct.unpack(">Q", info[10:18])
        header = FlacForm(
            bits >> 44, (bits >> 41 & 7) + 1, (bits >> 36 & 31) + 1, bits & (1 << 36) - 1
        )
        size = count_bytes(section)
        file.seek(max(match.end() + 34, size - TAIL_BYTES))
        last = _last_flac_frame(file.read(), struct.unpack(">H", info[2:4])[0])
    return None if last is None else (match.start(), header, last)


def flac_total(source: Path | Section, begin: int, frames: int) -> tuple[int, bytes]:
    """Place and corrected bytes of a header's count of samples.

    Parameters
    ----------
    source
        The file.
    begin
        Place of the header, as `flac_forms` gives it.
    frames
        The correct count.
    """
    place = begin + 8 + 13  # mark, block header; the count is the last 36 bits of 18 bytes
    with open_bytes(source) as file:
        file.seek(place)
        (bits,) = struct.unpack(">Q", b"\0\0\0" + file.read(5))
    return place, struct.pack(">Q", bits >> 36 << 36 | frames)[3:]


def _last_flac_frame(data: bytes, block: int) -> FlacForm | None:
    """The last frame header that directly follows a frame with a valid checksum."""
    places = [
        match.start()
        for match in FLAC_SYNC.finditer(data)
        if _flac_frame(data[match.start() : match.start() + 16], block) is not None
    ]
    for index in range(len(places) - 1, 0, -1):
        end = places[index]
        if any(_crc16(data[begin:end]) == 0 for begin in places[max(0, index - 3) : index]):
            return _flac_frame(data[end : end + 16], block)
    return None


def _flac_frame(head: bytes, block: int) -> FlacForm | None:
    """The format of a frame header; None if it is not one.

    ``block`` is the number of samples in a block, if that is fixed.
    """
    if len(head) < 16 or head[3] & 1:
        return None
    size_code, rate_code, channel_code = head[2] >> 4, head[2] & 15, head[3] >> 4
    if not size_code or rate_code == 15 or channel_code > 10:
        return None
    leading_ones = f"{head[4]:08b}".find("0")
    if leading_ones in (-1, 1):
        return None
    at = 5 + max(0, leading_ones - 1)
    number = head[4] & 0x7F >> leading_ones if leading_ones else head[4]
    for byte in head[5:at]:
        number = number << 6 | byte & 63
    extra = {6: 1, 7: 2}.get(size_code, 0)
    size = 192 if size_code == 1 else 576 << (size_code - 2) if size_code < 6 else 1 << size_code
    size = int.from_bytes(head[at : at + extra], "big") + 1 if extra else size
    at += extra
    extra = {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    rate = int.from_bytes(head[at : at + extra], "big") * {12: 1000, 14: 10}.get(rate_code, 1)
    rate = rate if extra else FLAC_RATES[rate_code]
    at += extra
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    start = number if head[1] & 1 else number * block
    channels = channel_code + 1 if channel_code < 8 else 2
    return FlacForm(rate, channels, FLAC_BITS[head[3] >> 1 & 7], start + size)


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc


def _table_entry(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1 ^ (0x8005 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


CRC16 = tuple(map(_table_entry, range(256)))


def _crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ CRC16[crc >> 8 ^ byte]
    return crc
