"""The beginnings of streams in files that were concatenated into one.

Internet radio in Ogg is such a file ("chained"), and so are mp3 and FLAC files that were joined
by copying their bytes. Decoders stop at the end of the first stream.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..storage import READ_BYTES
from .chunks import WAVE_FORMATS, end_by_header
from .flac import FLAC_MARK
from .mp3 import MP3_FORMATS, after_end_tags, id3_size, mp3_frame, mp3_missing_share
from .ogg import PAGE_HEAD, page_bytes
from .sections import Section, count_bytes

# First bytes of files that may follow another one.
BEGINNINGS = (
    *(b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b".snd", b"dns.", b"caff"),
    *(b"fLaC", b"OggS"),
)
OGG_MARK, MP3_MARK = re.compile(b"OggS"), re.compile(b"\xff")
MARK_BYTES = {OGG_MARK: 4, MP3_MARK: 1, FLAC_MARK: 8}


def find_sections(path: Path, file_format: str, subtype: str = "") -> list[Section]:
    """The consecutive streams of a file; one if it is an ordinary file.

    Parameters
    ----------
    path
        A file that libsndfile could open.
    file_format, subtype
        Its format and the encoding of its samples, as libsndfile calls them.
    """
    if file_format in MP3_FORMATS and subtype != "MPEG_LAYER_III":  # its frames differ
        file_format = ""
    find = {
        "OGG": _ogg_starts,
        "FLAC": _flac_starts,
        **dict.fromkeys(MP3_FORMATS, _mp3_starts),
        **dict.fromkeys((*WAVE_FORMATS, "AIFF", "AU", "CAF"), _container_starts),
    }.get(file_format)
    size = count_bytes(path)
    if find is None or (find is _mp3_starts and mp3_missing_share(path) is not None):
        return [Section(path, 0, size)]
    with path.open("rb") as file:
        starts = [0, *find(file, size)]
    ends = [*starts[1:], size]
    return [Section(path, start, end) for start, end in zip(starts, ends, strict=True)]


def _ogg_starts(file: BinaryIO, size: int) -> Iterator[int]:
    """Places at which pages that begin streams follow pages that do not."""
    at, in_heads = 0, True
    while at + PAGE_HEAD <= size:
        file.seek(at)
        head = file.read(PAGE_HEAD)
        if head[:4] != b"OggS":
            at = next(_places(file, OGG_MARK, at + 1), size)
            continue
        is_head = bool(head[5] & 2)
        if is_head and not in_heads:
            yield at
        in_heads = is_head
        at += page_bytes(head + file.read(head[PAGE_HEAD - 1]))


def _places(file: BinaryIO, mark: re.Pattern[bytes], at: int = 0) -> Iterator[int]:
    """The places of a mark of fixed length from a place on; meanwhile others may read the file."""
    tail = b""
    while True:
        file.seek(at + len(tail))
        data = file.read(READ_BYTES)
        if not data:
            return
        data = tail + data
        for match in mark.finditer(data):
            yield at + match.start()
        tail = data[len(data) - MARK_BYTES[mark] + 1 :]
        at += len(data) - len(tail)


def _flac_starts(file: BinaryIO, _size: int) -> Iterator[int]:
    return itertools.islice(_places(file, FLAC_MARK), 1, None)


def _container_starts(file: BinaryIO, size: int) -> Iterator[int]:
    """Places at which another file follows the end that a header states."""
    at = 0
    while (end := end_by_header(file, at, size)) is not None:
        file.seek(end)
        if file.read(4) not in BEGINNINGS:
            return
        yield end
        at = end


def _mp3_starts(file: BinaryIO, size: int) -> Iterator[int]:
    """Places of frames that hold a new count, differ in format, or exceed the count."""
    form, tag, in_stream = None, None, False
    counted: tuple[int, float] = 0, math.inf
    number = 0
    for at, header, mark in _mp3_frames(file, size):
        if header is None:
            tag = at if tag is None else tag
            continue
        number += 1
        left_out = number > counted[1] and at >= counted[0]
        if in_stream and (mark or header != form or left_out):
            yield at if tag is None else tag
            counted, number = (0, math.inf), 0
        if mark is not None and mark.frames:
            counted, number = (at + mark.size, mark.frames), 0
        form, tag, in_stream = header, None, True


class _Mark(NamedTuple):
    """The number of frames and bytes of an mp3 stream, as its first frame states; 0 if unknown."""

    frames: int
    size: int


def _mp3_mark(head: bytes) -> _Mark | None:
    at = next((at for mark in (b"Xing", b"Info") if (at := head.find(mark, 4, 44)) >= 0), -1)
    if at < 0:
        return _Mark(0, 0) if b"VBRI" in head[4:44] else None
    flags, frames, size = struct.unpack_from(">III", head.ljust(at + 16, b"\0"), at + 4)
    return _Mark(frames, size) if flags & 3 == 3 else _Mark(0, 0)


def _mp3_frames(
    file: BinaryIO, size: int
) -> Iterator[tuple[int, tuple[int, bool] | None, _Mark | None]]:
    """Place, (rate, mono) and mark, if it has one, of each frame; no (rate, mono) for tags."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(64)
        if tag := id3_size(head):
            yield at, None, None
            at += tag
            continue
        if (tags_end := after_end_tags(file, at)) > at:
            at = tags_end
            continue
        frame = mp3_frame(head[:4])
        if frame is None or not _is_followed(file, at + frame.size, size):
            at = _next_frame(file, at + 1, size)
            continue
        yield at, (frame.sample_rate, frame.mono), _mp3_mark(head)
        at += frame.size


def _is_followed(file: BinaryIO, at: int, size: int) -> bool:
    """Whether a frame, a tag or the end of the file follows: else the frame was by chance."""
    if at >= size:
        return True
    file.seek(at)
    head = file.read(4)
    return len(head) < 4 or head[:3] in (b"ID3", b"TAG", b"APE") or mp3_frame(head) is not None


def _next_frame(file: BinaryIO, begin: int, size: int) -> int:
    """The place of a frame from a place on; the end of the file if there is none."""
    for at in _places(file, MP3_MARK, begin):
        file.seek(at)
        frame = mp3_frame(file.read(4))
        if frame is not None and _is_followed(file, at + frame.size, size):
            return at
    return size
