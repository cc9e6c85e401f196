"""Chunks of wav, w64, AIFF and CAF files, where such files end, blocks of voc, boxes of mp4."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from .sections import Section, open_bytes

# Kinds of wav files that state sizes in 32 bits, all kinds, and these with w64, as libsndfile calls
# them.
SHORT_FORMATS = ("WAV", "WAVEX")
RIFF_FORMATS = (*SHORT_FORMATS, "RF64")
WAVE_FORMATS = (*RIFF_FORMATS, "W64")
# At most so much is read of a chunk: the relevant ones are small.
CHUNK_BYTES = 1 << 16
# In RF64: the size of the samples is in the chunk ds64, in 64 bits.
SIZE_IN_DS64 = 0xFFFF_FFFF
# Kinds of blocks in voc files: sound, more of it, silence, repetition, sound of another header.
VOC_SOUND = (1, 2, 3, 6, 9)


class _Form(NamedTuple):
    """The layout of chunks in a file: start of the first, header, padding, what sizes count."""

    begin: int
    header: struct.Struct
    padding: int = 2
    counts_header: bool = False


_FORMS = {
    b"RIFF": _Form(12, struct.Struct("<4sI")),
    b"RF64": _Form(12, struct.Struct("<4sI")),
    b"RIFX": _Form(12, struct.Struct(">4sI")),
    b"FORM": _Form(12, struct.Struct(">4sI")),
    b"riff": _Form(40, struct.Struct("<16sq"), 8, counts_header=True),
    b"caff": _Form(8, struct.Struct(">4sq"), 1),
}


def byte_order(source: Path | Section) -> str:
    """Byte order of the numbers in a wav or w64 file, as `struct` writes it."""
    with open_bytes(source) as file:
        return ">" if file.read(4) == b"RIFX" else "<"


def chunks(file: IO[bytes], at: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Name of each chunk, place and size of its content, up to one that exceeds the file.

    Zeros count as a last one, whose name is empty. Names have four bytes; in w64 they are the first
    four of sixteen. Files of other kinds have no chunks.

    Parameters
    ----------
    file
        The file.
    at
        First byte of a file that is embedded in it.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(at)
    form = _FORMS.get(file.read(4))
    if form is None:
        return
    at, long_size = at + form.begin, SIZE_IN_DS64
    while True:
        file.seek(at)
        header = file.read(form.header.size)
        if len(header) < form.header.size:
            return
        name, size = form.header.unpack(header)
        if name[:4] == b"\0\0\0\0":
            yield b"", at, length
            return
        at += form.header.size
        size -= form.header.size if form.counts_header else 0
        if name == b"ds64" and size >= 16:
            (stated,) = struct.unpack("<8xQ", file.read(16).ljust(16, b"\0"))
            long_size = stated if stated < 2**62 else long_size
        elif name == b"data" and size == SIZE_IN_DS64:
            size = long_size
        yield name[:4], at, size
        # In CAF: up to the end of the file. Else damaged: no seek can go there.
        if not 0 <= size <= length:
            return
        at += size + -size % form.padding


def find_chunk(source: Path | Section, name: bytes) -> tuple[int, int] | None:
    """Place and size of the content of the first chunk of a name; None if there is none."""
    with open_bytes(source) as file:
        return next(
            ((at, size) for other, at, size in chunks(file) if other == name and size >= 0), None
        )


def read_chunk(source: Path | Section, name: bytes) -> bytes:
    """The first `CHUNK_BYTES` of the content that `find_chunk` finds; empty if there is none."""
    place = find_chunk(source, name)
    if place is None:
        return b""
    with open_bytes(source) as file:
        file.seek(place[0])
        return file.read(min(place[1], CHUNK_BYTES))


def end_by_header(file: BinaryIO, at: int, length: int) -> int | None:
    """The end of an embedded file as its own header states it; None if it states none.

    Parameters
    ----------
    file
        The outer file.
    at
        First byte of the embedded file.
    length
        Length of the outer file.
    """
    file.seek(at)
    head = file.read(28).ljust(28, b"\0")
    magic = head[:4]
    if magic in (b"RIFF", b"RIFX", b"FORM"):
        (size,) = struct.unpack_from("<I" if magic == b"RIFF" else ">I", head, 4)
        end = at + 8 + size + size % 2 if size else None
    elif magic == b"RF64":
        (size,) = struct.unpack_from("<Q", head, 20)
        end = at + 8 + size + size % 2
    elif magic == b"riff":
        (size,) = struct.unpack_from("<Q", head, 16)
        end = at + size
    elif magic in (b".snd", b"dns."):
        begin, size = struct.unpack_from(">II" if magic == b".snd" else "<II", head, 4)
        end = at + begin + size if size else None
    elif magic == b"caff":
        end = _end_of_caf(file, at, length)
    else:
        end = None
    return end if end is not None and at < end <= length else None


def sound_blocks(path: Path) -> int:
    """The number of blocks of a voc file that hold sound or silence, or repeat some."""
    count = 0
    with path.open("rb") as file:
        file.seek(20)
        at = int.from_bytes(file.read(2), "little")
        while True:
            file.seek(at)
            head = file.read(4)
            if len(head) < 4 or head[0] == 0:
                return count
            count += head[0] in VOC_SOUND
            at += 4 + int.from_bytes(head[1:], "little")


def mp4_boxes(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of the top-level boxes, up to one that does not state its size."""
    at, length = 0, file.seek(0, os.SEEK_END)
    while at + 8 <= length:
        file.seek(at)
        size, name = struct.unpack(">I4s", file.read(8))
        if size == 1:
            size = int.from_bytes(file.read(8), "big")
        if size < 8:
            return
        yield name, at, size
        at += size


def is_joined_mp4(path: Path) -> bool:
    """Whether a file holds an mp4 file after another one."""
    with path.open("rb") as file:
        for name, at, _ in mp4_boxes(file):
            if (name == b"ftyp") != (at == 0):  # not mp4, or a second one
                return at > 0
    return False


def _end_of_caf(file: BinaryIO, begin: int, length: int) -> int | None:
    """The end of a CAF file, which states no total: where another one begins, or its last chunk."""
    end = begin
    for name, at, size in chunks(file, begin):
        if name == b"caff":
            break
        if not 0 <= size <= length:
            return None
        end = at + size
    return end
