"""The length that a file claims, which libsndfile does not report.

libsndfile takes the length of wav, aiff, au, w64 and caf files from the size of the file, so a
download that broke off looks like a short song; this module compares the header's claim with
the size. For mp3 files without a table of contents libsndfile guesses the length from the
first frame and stops there, which can lose half of a song of variable bit rate.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ..errors import AudioError
from .chunks import (
    RIFF_FORMATS,
    SHORT_FORMATS,
    WAVE_FORMATS,
    byte_order,
    chunks,
    find_chunk,
    read_chunk,
)
from .flac import flac_forms, flac_total
from .mp3 import MP3_FORMATS, mp3_missing_share
from .ogg import ogg_is_open, without_pre_skip
from .sections import Section, count_bytes, open_bytes, part_of

# Programs that write to a pipe do not know the size: they write zero, a little less than 2^31
# or 2^32, or a round number.
OPEN_ENDED = 0x7FFF_0000
ROUND_SIZE = 10**9
# Tags of wav and w64: the encoding follows in an extension; floats, A-law and mu-law.
EXTENSIBLE, NO_INTEGERS = 0xFFFE, (3, 6, 7)
# Bytes and samples of a block of GSM 06.10 in wav and w64.
GSM_BYTES, GSM_FRAMES = 65, 320
# Encodings of au files.
AU_ENCODINGS = {
    "ULAW": 1,
    "PCM_16": 3,
    "PCM_24": 4,
    "PCM_32": 5,
    "FLOAT": 6,
    "DOUBLE": 7,
    "ALAW": 27,
}
# The chunk that holds the samples.
SAMPLE_CHUNKS = {
    **dict.fromkeys((*WAVE_FORMATS, "CAF"), b"data"),
    "AIFF": b"SSND",
}
OPUS_RATE = 48_000  # in which Opus counts samples, at any decoded rate
# Decoders may drop a few frames of 1152 samples at the ends of an mp3 stream.
MP3_SLACK = 4 * 1152


@dataclass(frozen=True)
class LengthClaim:
    """The length that a file claims, and how much of it the file holds.

    Parameters
    ----------
    frames
        Samples per channel that the file promises; None if only decoding would tell.
    available
        Samples of these that it holds; None if unknown before decoding.
    slack
        Samples that may be missing from ``frames`` before the file counts as cut short;
        None if ``frames`` is an estimate.
    endless
        The bytes to decode to their end, whatever length the decoder assumes; None if it knows
        the end.
    patch
        Place in the header, and the bytes that the decoder sees there instead: for a size of
        zero, for instance.
    skip
        Samples at the front that the decoder then returns and that do not belong to the song.
    warnings
        Sentences for the user.
    """

    frames: int | None
    available: int | None = None
    slack: int | None = None
    endless: Section | None = None
    patch: tuple[int, bytes] | None = None
    skip: int = 0
    warnings: tuple[str, ...] = ()


def claim_length(
    path: Path | Section, file_format: str, frames: int | None, sample_rate: int, subtype: str = ""
) -> LengthClaim:
    """The length claimed by a file that libsndfile decodes.

    Parameters
    ----------
    path
        A file that libsndfile could open.
    file_format
        Its format, as libsndfile calls it.
    frames
        Its length as libsndfile reports it; None if it reports none.
    sample_rate
        In Hz, for messages.
    subtype
        The encoding of its samples, as libsndfile calls it.
    """
    if file_format in MP3_FORMATS:
        return _claim_mp3(path, frames)
    if frames is None:
        return LengthClaim(None, slack=0)
    data = sample_data(path, file_format)
    if data:
        if file_format in SHORT_FORMATS and (
            patch := _open_header(path, data, sample_rate, subtype)
        ):
            return LengthClaim(None, slack=0, patch=patch)
        if frames == 0 and (patch := _missing_size(path, file_format, data)):
            return LengthClaim(None, slack=0, patch=patch)
        if subtype == "MPEG_LAYER_III":
            return _claim_mp3_within(path, data, frames)
        if subtype == "GSM610" and file_format in WAVE_FORMATS:
            frames = min(frames, _gsm_frames(path, file_format, data))
        if file_format == "W64" and subtype.startswith(("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")):
            frames = min(frames, _w64_frames(path, data, frames))
    if file_format == "FLAC":
        return _claim_flac(path, frames, sample_rate)
    promised = round(frames / (1 - min(missing_share(path, file_format, data), 0.999)))
    warnings: tuple[str, ...] = ()
    if file_format == "OGG" and ogg_is_open(path):
        warnings = (
            f"{path} has no end mark, as if it was cut off; it holds {frames / sample_rate:.2f} s",
        )
    if file_format in SHORT_FORMATS and data and count_bytes(path) - data[0] > 2**32:
        warnings = (
            f"{path} is larger than the 4 GiB that its header can state; only its first "
            f"{frames / sample_rate:.2f} s are read: save it as rf64 or w64",
        )
    claim = LengthClaim(promised, available=frames, slack=0, warnings=warnings)
    if file_format == "W64":
        return replace(claim, patch=_w64_format(path))
    if subtype == "OPUS" and (head := without_pre_skip(path)):
        skip, page = head
        return replace(claim, patch=(0, page), skip=skip * sample_rate // OPUS_RATE)
    return claim


def _claim_flac(path: Path | Section, frames: int, sample_rate: int) -> LengthClaim:
    forms = flac_forms(path)
    if forms is None:
        return LengthClaim(frames, available=frames, slack=0)
    begin, header, last = forms
    if last.differs(header):
        raise AudioError(
            f"{path} changes midway: it begins with {header} and ends with {last}; cut it there "
            "with another program"
        )
    if not header.frames or last.frames <= header.frames:
        return LengthClaim(frames, available=frames, slack=0)
    warning = (
        f"{path} is longer than its header says: {last.frames / sample_rate:.2f} s instead of "
        f"{header.frames / sample_rate:.2f} s"
    )
    return LengthClaim(
        None, slack=0, patch=flac_total(path, begin, last.frames), warnings=(warning,)
    )


def _claim_mp3(path: Path | Section, frames: int | None) -> LengthClaim:
    missing = mp3_missing_share(path)
    if missing is None:
        return LengthClaim(None, endless=part_of(path))
    available = None if frames is None else frames - int(frames * missing)
    return LengthClaim(frames, available=available, slack=MP3_SLACK)


def _claim_mp3_within(path: Path | Section, data: tuple[int, int], frames: int) -> LengthClaim:
    """The claim of an mp3 stream in another container, whose length libsndfile guesses."""
    begin, size = data
    available = count_bytes(path) - begin
    if is_open_ended("WAV", size):
        return LengthClaim(None, endless=part_of(path, begin))
    stream = part_of(path, begin, begin + min(size, available))
    if available < size:
        promised = frames * size // available
        return LengthClaim(promised, available=frames, slack=MP3_SLACK, endless=stream)
    return LengthClaim(None, endless=stream)


def _gsm_frames(path: Path | Section, file_format: str, data: tuple[int, int]) -> int:
    """Samples in whole blocks: libsndfile counts the byte that pads a chunk as a block."""
    begin, promised = data
    available = count_bytes(path) - begin
    size = available if is_open_ended(file_format, promised) else min(available, promised)
    return size // GSM_BYTES * GSM_FRAMES


def _w64_frames(path: Path | Section, data: tuple[int, int], frames: int) -> int:
    """Samples in the data chunk of a w64 file: libsndfile decodes the chunks after it, too."""
    form = read_chunk(path, b"fmt ")
    block_bytes = int.from_bytes(form[12:14], "little")
    return data[1] // block_bytes if block_bytes else frames


def _w64_format(path: Path | Section) -> tuple[int, bytes] | None:
    """Place and bytes of the encoding of a w64 file that libsndfile would decode as integers.

    libsndfile ignores the encoding in an extensible header.
    """
    place, form = find_chunk(path, b"fmt "), read_chunk(path, b"fmt ")
    if place is None or len(form) < 26:
        return None
    tag, encoding = struct.unpack_from("<H22xH", form)
    return (place[0], form[24:26]) if tag == EXTENSIBLE and encoding in NO_INTEGERS else None


def is_open_ended(file_format: str, size: int) -> bool:
    """Whether a size stands for an unknown one, from a program that could not seek back.

    Parameters
    ----------
    file_format
        Format of the file, as libsndfile calls it.
    size
        Size of the sample data in bytes, as the header states it.
    """
    if size <= 0 or (file_format == "AIFF" and size == 8):
        return True
    if file_format in SHORT_FORMATS:
        near_limit = size >= 0xFFFF_0000 or 0 <= 2**31 - size < 2**16
        return near_limit or size % ROUND_SIZE == 0
    return file_format in ("AIFF", "AU") and size >= OPEN_ENDED


def _open_header(
    path: Path | Section, data: tuple[int, int], sample_rate: int, subtype: str
) -> tuple[int, bytes] | None:
    """Place and bytes of a header for a wav file that continues beyond an unknown size.

    It is that of an au file: it fits into the 44 bytes of the shortest header of wav, and alone
    of all it can leave the size open. None if the samples end where the header of wav says.
    """
    begin, size = data
    length = count_bytes(path)
    rest = length - begin - size
    overflown = rest >= 2**32 and rest % 2**32 == 0
    if rest <= 1 or subtype not in AU_ENCODINGS or not (is_open_ended("WAV", size) or overflown):
        return None
    with open_bytes(path) as file:
        if _chunks_only(file, length):
            return None
    order = byte_order(path)
    channels = struct.unpack_from(f"{order}2xH", read_chunk(path, b"fmt "))[0]
    numbers = begin, 0xFFFF_FFFF, AU_ENCODINGS[subtype], sample_rate, channels
    magic = b"dns." if order == "<" else b".snd"
    return 0, magic + struct.pack(f"{order}5I", *numbers)


def _missing_size(
    path: Path | Section, file_format: str, data: tuple[int, int]
) -> tuple[int, bytes] | None:
    """Place of a size of zero in a header, and the bytes of the actual size.

    None if no samples follow: nothing, or only other chunks.
    """
    if data[1] != 0 or file_format not in (*RIFF_FORMATS, "AU"):
        return None
    begin, length = data[0], count_bytes(path)
    with open_bytes(path) as file:
        head = file.read(16)
        if begin >= length or (file_format != "AU" and _chunks_only(file, length)):
            return None
    if head[12:16] == b"ds64":
        return 28, struct.pack("<Q", length - begin)
    order = ">" if head[:4] in (b"RIFX", b".snd") else "<"
    size = struct.pack(f"{order}I", min(length - begin, 0xFFFF_FFFF))
    return (8 if file_format == "AU" else begin - 4), size


def _chunks_only(file: BinaryIO, length: int) -> bool:
    """Whether a RIFF file consists of chunks up to its end."""
    end = 0
    for name, at, size in chunks(file):
        if not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        end = at + size + size % 2
    return end - length in (0, 1)


def missing_share(path: Path | Section, file_format: str, data: tuple[int, int] | None) -> float:
    """Share of the sample data that a header promises and the file does not hold.

    Parameters
    ----------
    path
        A file that libsndfile could open.
    file_format
        Its format, as libsndfile calls it.
    data
        Its `sample_data`.

    Returns
    -------
    float
        0 if nothing is missing or the container states no size; 0.5 if half is missing.
    """
    if data is None or is_open_ended(file_format, data[1]):
        return 0.0
    begin, promised = data
    return min(1.0, max(0.0, 1 - (count_bytes(path) - begin) / promised))


def sample_data(path: Path | Section, file_format: str) -> tuple[int, int] | None:
    """Position of the sample data and its size as the header states it, both in bytes."""
    if file_format == "AU":
        return _au_data(path)
    data = find_chunk(path, SAMPLE_CHUNKS[file_format]) if file_format in SAMPLE_CHUNKS else None
    if data is None:
        return None
    begin, size = data
    # Damaged: a size of zero in w64, or one beyond any disk in the 64 bits of caf.
    damaged = size == 0 if file_format == "W64" else file_format == "CAF" and size >= 2**40
    return None if damaged else (begin, size)


def _au_data(path: Path | Section) -> tuple[int, int] | None:
    with open_bytes(path) as file:
        head = file.read(12)
    if len(head) < 12:  # libsndfile reports a header that is cut
        return None
    begin, size = struct.unpack_from(">4xII" if head[:4] == b".snd" else "<4xII", head)
    return begin, size
