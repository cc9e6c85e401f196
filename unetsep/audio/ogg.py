"""Pages of Ogg files, and the head of an Opus stream in them (RFC 3533, RFC 7845)."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from .sections import Section, open_bytes

PAGE_HEAD = 27
LAST_PAGE_BYTES = 1 << 17
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_is_open(path: Path | Section) -> bool:
    """Whether the last page of an Ogg stream is cut off, or lacks the end mark."""
    with open_bytes(path) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LAST_PAGE_BYTES))
        tail = file.read()
    at = tail.rfind(b"OggS\0")
    page = tail[at:] if at >= 0 else b""
    if len(page) < PAGE_HEAD or not page[5] & 4:
        return True
    return len(page) < page_bytes(page)


def page_bytes(head: bytes) -> int:
    """Length of a page, from its head and the table of sizes that follows."""
    begin = PAGE_HEAD + head[PAGE_HEAD - 1]
    return begin + sum(head[PAGE_HEAD:begin])


def with_checksum(page: bytes) -> bytes:
    """A page with the correct checksum.

    It is the CRC-32 of zlib, but starting from zero, and with the bits of each byte in the
    opposite order.
    """
    blank = page[:22] + bytes(4) + page[26:]
    raw = zlib.crc32(blank.translate(REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return page[:22] + struct.pack("<I", int(f"{raw:032b}"[::-1], 2)) + page[26:]


def _read_page(file: BinaryIO) -> bytes:
    """The page at the position of a file, maybe cut off; empty if no page begins there."""
    head = file.read(PAGE_HEAD)
    if len(head) < PAGE_HEAD or head[:4] != b"OggS":
        return b""
    head += file.read(head[PAGE_HEAD - 1])
    return head + file.read(sum(head[PAGE_HEAD:]))


def set_serial(path: Path, serial: int) -> None:
    """Give an Ogg stream a fixed serial number instead of the random one of libsndfile.

    Every page holds the number and a checksum.
    """
    with path.open("r+b") as file:
        while page := _read_page(file):
            end = file.tell()
            page = page[:14] + struct.pack("<I", serial & 0x7FFF_FFFF) + page[18:]
            file.seek(end - len(page))
            file.write(with_checksum(page)[:PAGE_HEAD])
            file.seek(end)


def without_pre_skip(source: Path | Section) -> tuple[int, bytes] | None:
    """The pre-skip of an Opus stream, and its first page with a pre-skip of zero.

    libsndfile skips too little if the position of the first sample is not zero, as in streams
    that were recorded from their middle on.

    Parameters
    ----------
    source
        An Ogg file.

    Returns
    -------
    int, bytes
        Samples at 48 kHz, and the page; None if the file does not begin with an Opus head.
    """
    with open_bytes(source) as file:
        page = _read_page(file)
    if not page:
        return None
    at = PAGE_HEAD + page[PAGE_HEAD - 1]
    if page[at : at + 8] != b"OpusHead" or len(page) < at + 19:
        return None
    at += 10
    (skip,) = struct.unpack_from("<H", page, at)
    return skip, with_checksum(page[:at] + bytes(2) + page[at + 2 :])
