"""The audio in a file without its tags: what stays when a program writes tags, cues or ratings."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from ..storage import READ_BYTES
from .chunks import chunks, mp4_boxes
from .mp3 import after_tags, before_end_tags
from .ogg import PAGE_HEAD, page_bytes

# First byte of a part of a file, and the one after its last.
Span = tuple[int, int]
# Bytes that `audio_mark` hashes at each of three places.
SAMPLE_BYTES = 1 << 16
CHUNK_FORMS = (b"RIFF", b"RIFX", b"FORM", b"caff")
# Chunks of tags, cues and padding in wav, AIFF and CAF. bext stays: its time goes to the stems.
TAG_CHUNKS = {
    *(b"id3 ", b"ID3 ", b"LIST", b"cue ", b"iXML", b"_PMX", b"JUNK", b"junk", b"PAD ", b"FLLR"),
    *(b"NAME", b"AUTH", b"ANNO", b"(c) ", b"MARK", b"COMT", b"APPL"),
    *(b"info", b"strg", b"mark", b"uuid", b"free"),
}
# Files with more chunks are damaged.
MOST_CHUNKS = 1000


def file_and_audio_sha256(path: Path) -> tuple[str, str]:
    """SHA-256 of a file and of its audio, in one reading."""
    whole, audio = hashlib.sha256(), hashlib.sha256()
    with path.open("rb") as file:
        spans, at = _audio_spans(file), 0
        for begin, end in spans:
            _feed(file, (at, begin), whole)
            _feed(file, (begin, end), whole, audio)
            at = max(begin, end)
        _feed(file, (at, file.seek(0, os.SEEK_END)), whole)
    return whole.hexdigest(), audio.hexdigest()


def audio_mark(path: Path) -> str:
    """Size of a file's audio, and SHA-256 of its beginning, middle and end.

    It takes no time. Other audio of the same size and equal in all three places has the same mark:
    a song could be so, but a stem with the mark of its record is left alone in any case.
    """
    with path.open("rb") as file:
        spans = _audio_spans(file)
        size = sum(end - begin for begin, end in spans)
        places = (0, max(0, size - SAMPLE_BYTES) // 2, max(0, size - SAMPLE_BYTES))
        return f"{size} {_sha256(file, itertools.chain(*(_part(spans, at) for at in places)))}"


def _part(spans: Iterable[Span], at: int) -> Iterator[Span]:
    """`SAMPLE_BYTES` of the audio from a place in it on."""
    end = at + SAMPLE_BYTES
    for begin, size in ((begin, end - begin) for begin, end in spans):
        if at < size and end > 0:
            yield begin + max(0, at), begin + min(size, end)
        at, end = at - size, end - size


def _sha256(file: BinaryIO, spans: Iterable[Span]) -> str:
    digest = hashlib.sha256()
    for span in spans:
        _feed(file, span, digest)
    return digest.hexdigest()


def _feed(file: BinaryIO, span: Span, *digests: hashlib._Hash) -> None:
    begin, end = span
    file.seek(begin)
    while begin < end and (block := file.read(min(READ_BYTES, end - begin))):
        for digest in digests:
            digest.update(block)
        begin += len(block)


def _audio_spans(file: BinaryIO) -> list[Span]:
    """The parts of a file that hold audio; of unknown formats all but ID3 and APE tags."""
    begin, length = after_tags(file), file.seek(0, os.SEEK_END)
    end = max(begin, before_end_tags(file, length))
    file.seek(begin)
    head = file.read(8)
    spans: list[Span] = []
    if head[:4] == b"fLaC":
        spans = _flac_spans(file, begin + 4, end)
    elif head[:4] == b"OggS":
        spans = _ogg_spans(file, begin, end)
    elif head[:4] in CHUNK_FORMS:
        spans = _chunk_spans(file, length)
    elif head[4:] == b"ftyp":
        spans = _mp4_spans(file, length)
    # Damaged tags may claim all: then they count, too.
    return spans or ([(begin, end)] if begin < end else [(0, length)])


def _flac_spans(file: BinaryIO, at: int, end: int) -> list[Span]:
    """The block with the format, and all frames."""
    spans: list[Span] = []
    while at < end:
        file.seek(at)
        kind, *size = file.read(4).ljust(4, b"\0")
        if (kind & 127 == 0) == bool(spans):  # it is not the first block, or not the only one
            return []
        at += 4
        after = at + int.from_bytes(size, "big")
        spans = spans or [(at, after)]
        at = after
        if kind & 128:
            return [*spans, (at, end)] if at < end else []
    return []


def _ogg_spans(file: BinaryIO, at: int, end: int) -> list[Span]:
    """The packets in the pages, but the second of each stream, which has the tags."""
    spans: list[Span] = []
    in_tags: set[bytes] = set()  # serial numbers of streams
    while at < end:
        file.seek(at)
        head = file.read(PAGE_HEAD)
        if len(head) < PAGE_HEAD or head[:4] != b"OggS":
            return [*spans, (at, end)]
        head += file.read(head[-1])
        begin, after = at + len(head), min(end, at + page_bytes(head))
        serial, is_first = head[14:18], bool(head[5] & 2)
        if serial in in_tags and not is_first:
            for size in head[PAGE_HEAD:]:
                begin += size
                if size < 255:  # the end of a packet
                    in_tags.remove(serial)
                    break
        if is_first:
            in_tags.add(serial)
        spans.append((begin, after))
        at = max(after, at + PAGE_HEAD)
    return spans


def _chunk_spans(file: BinaryIO, length: int) -> list[Span]:
    """The contents of all chunks but those of tags; empty if none holds audio."""
    places = list(itertools.islice(chunks(file), MOST_CHUNKS))
    names = {name for name, _, _ in places}
    if len(places) == MOST_CHUNKS or not names & {b"data", b"SSND"}:
        return []
    return [
        (at, at + size if 0 <= size <= length - at else length)
        for name, at, size in places
        if name not in TAG_CHUNKS
    ]


def _mp4_spans(file: BinaryIO, length: int) -> list[Span]:
    """The boxes of audio; empty if the file has parts that are no boxes."""
    boxes = list(mp4_boxes(file))
    if sum(size for _, _, size in boxes) != length:
        return []
    return [(at, at + size) for name, at, size in boxes if name == b"mdat"]
