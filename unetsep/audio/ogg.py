"""Pages of Ogg files, and the head of an Opus stream in them (RFC 3533, RFC 7845)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .sections import Section, open_bytes

if TYPE_CHECKING:
    from mutagen.ogg import OggPage

PAGE_HEAD = 27
LAST_PAGE_BYTES = 1 << 17


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


def _read_page(file: BinaryIO) -> OggPage | None:
    """The page at the position of a file; None if no complete one begins there."""
    from mutagen.ogg import OggPage, error

    try:
        return OggPage(file)
    except (error, EOFError):
        return None


def set_serial(path: Path, serial: int) -> None:
    """Give an Ogg stream a fixed serial number instead of the random one of libsndfile.

    Every page holds the number and a checksum.
    """
    with path.open("r+b") as file:
        while page := _read_page(file):
            page.serial = serial & 0x7FFF_FFFF
            file.seek(-page.size, os.SEEK_CUR)
            file.write(page.write())


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
    if not page or not page.packets:
        return None
    head = page.packets[0]
    if head[:8] != b"OpusHead" or len(head) < 19:
        return None
    page.packets[0] = head[:10] + bytes(2) + head[12:]
    return int.from_bytes(head[10:12], "little"), page.write()
