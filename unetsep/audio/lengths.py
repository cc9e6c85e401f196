"""How long a file claims to be: what libsndfile does not tell.

libsndfile takes the length of wav, aiff, au, w64 and caf files from what is there, so a
download that broke off looks like a short song; here the header's claim is compared with
the size of the file. For mp3 files without a table of contents it guesses the length from
the first frame and stops there, which can lose half of a song of variable bit rate.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from ..errors import AudioError
from .chunks import RIFF_FORMATS, WAVE_FORMATS, find_chunk, read_chunk
from .flac import flac_forms, flac_total
from .mp3 import MP3_FORMATS, mp3_claim
from .ogg import ogg_is_open, without_pre_skip
from .sections import Section, count_bytes, open_bytes

# Programs that write to a pipe cannot know the size: they leave it at zero, at a little less
# than 2^31 or 2^32, or at a round number.
OPEN_ENDED = 0x7FFF_0000
ROUND_SIZE = 10**9
# In wav and w64: what says that the encoding stands elsewhere; floats, A-law and mu-law.
EXTENSIBLE, NO_INTEGERS = 0xFFFE, (3, 6, 7)
# GSM 06.10 is stored in wav and w64 in blocks of so many bytes, for so many samples.
GSM_BYTES, GSM_FRAMES = 65, 320
# The chunk that holds the samples.
SAMPLE_CHUNKS = {
    **dict.fromkeys((*WAVE_FORMATS, "CAF"), b"data"),
    "AIFF": b"SSND",
}
OPUS_RATE = 48_000  # in which Opus counts, whatever rate it is decoded at
# Decoders may swallow a few frames of 1152 samples at the ends of an mp3 stream.
MP3_SLACK = 4 * 1152


@dataclass(frozen=True)
class LengthClaim:
    """How long a file says it is, and how much of that it holds.

    Parameters
    ----------
    frames
        Samples per channel that it promises; None where only decoding would tell.
    available
        How many of these it holds; None where that is not known beforehand.
    slack
        How many samples fewer than ``frames`` may come without the file being cut short;
        None where ``frames`` is an estimate.
    read_from
        Byte from which to decode all there is, whatever length the decoder has in mind;
        None where the decoder knows the end.
    read_to
        Byte at which that ends; None for the end of the file.
    patch
        Byte in the header, and what the decoder shall see there instead: a size that was
        left at zero, for instance.
    skip
        Samples at the front that the decoder then gives and that are no part of the song.
    warnings
        Sentences for the user.
    """

    frames: int | None
    available: int | None = None
    slack: int | None = None
    read_from: int | None = None
    read_to: int | None = None
    patch: tuple[int, bytes] | None = None
    skip: int = 0
    warnings: tuple[str, ...] = ()


def claim_length(
    path: Path | Section, container: str, frames: int | None, sample_rate: int, subtype: str = ""
) -> LengthClaim:
    """What a file that libsndfile decodes claims of its length.

    Parameters
    ----------
    path
        A file that libsndfile could open.
    container
        Its format, as libsndfile calls it.
    frames
        Its length as libsndfile sees it, None where it sees none.
    sample_rate
        In Hz, for messages.
    subtype
        The encoding of its samples, as libsndfile calls it.
    """
    if container in MP3_FORMATS:
        return _claim_mp3(path, frames)
    if frames is None:
        return LengthClaim(None, slack=0)
    if frames == 0 and (patch := _size_of_the_rest(path, container)):
        return LengthClaim(None, slack=0, patch=patch)
    if subtype == "MPEG_LAYER_III" and (data := _sample_data(path, container)):
        return _claim_mp3_within(path, data, frames)
    if subtype == "GSM610" and container in WAVE_FORMATS:
        frames = min(frames, _gsm_frames(path, container, frames))
    if container == "W64" and subtype.startswith(("PCM", "FLOAT", "DOUBLE", "ULAW", "ALAW")):
        frames = min(frames, _w64_frames(path, frames))
    if container == "FLAC":
        return _claim_flac(path, frames, sample_rate)
    promised = round(frames / (1 - min(missing_share(path, container), 0.999)))
    warnings: tuple[str, ...] = ()
    if container == "OGG" and ogg_is_open(path):
        warnings = (
            f"{path} has no end mark, as if it was cut off; {frames / sample_rate:.2f} s are there",
        )
    claim = LengthClaim(promised, available=frames, slack=0, warnings=warnings)
    if container == "W64":
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
        f"{path} is longer than its header says: {last.frames / sample_rate:.2f} s in place of "
        f"{header.frames / sample_rate:.2f} s"
    )
    return LengthClaim(
        None, slack=0, patch=flac_total(path, begin, last.frames), warnings=(warning,)
    )


def _claim_mp3(path: Path | Section, frames: int | None) -> LengthClaim:
    first = mp3_claim(path)
    if first.counts_all:
        available = None if frames is None else frames - int(frames * first.missing)
        return LengthClaim(frames, available=available, slack=MP3_SLACK)
    if first.goes_on_at is None:
        return LengthClaim(None, read_from=0)
    warning = (
        f"{path} is several mp3 files joined into one: its own count of frames leaves out the end"
    )
    return LengthClaim(None, read_from=first.goes_on_at, warnings=(warning,))


def _claim_mp3_within(path: Path | Section, data: tuple[int, int], frames: int) -> LengthClaim:
    """An mp3 stream in another container, of which libsndfile guesses the length."""
    begin, size = data
    held = count_bytes(path) - begin
    if is_open_ended("WAV", size):
        return LengthClaim(None, read_from=begin)
    if held < size:
        promised = frames * size // held
        return LengthClaim(promised, available=frames, slack=MP3_SLACK, read_from=begin)
    return LengthClaim(None, read_from=begin, read_to=begin + size)


def _gsm_frames(path: Path | Section, container: str, frames: int) -> int:
    """Samples in whole blocks: libsndfile takes the byte that pads a chunk for a block."""
    data = _sample_data(path, container)
    if data is None:
        return frames
    begin, claimed = data
    held = count_bytes(path) - begin
    size = held if is_open_ended(container, claimed) else min(held, claimed)
    return size // GSM_BYTES * GSM_FRAMES


def _w64_frames(path: Path | Section, frames: int) -> int:
    """Samples in the data chunk of a w64 file: libsndfile takes what follows it for samples."""
    data, form = _sample_data(path, "W64"), read_chunk(path, b"fmt ")
    if data is None or len(form) < 14:
        return frames
    (block_bytes,) = struct.unpack_from("<H", form, 12)
    return data[1] // block_bytes if block_bytes else frames


def _w64_format(path: Path | Section) -> tuple[int, bytes] | None:
    """Place and bytes of the encoding of a w64 file, where libsndfile takes it for integers.

    It passes over what the extensible form of a header says of the encoding.
    """
    place, form = find_chunk(path, b"fmt "), read_chunk(path, b"fmt ")
    if place is None or len(form) < 26:
        return None
    tag, encoding = struct.unpack_from("<H22xH", form)
    return (place[0], form[24:26]) if tag == EXTENSIBLE and encoding in NO_INTEGERS else None


def is_open_ended(container: str, size: int) -> bool:
    """Whether a size is what programs leave that could not go back to state it.

    Parameters
    ----------
    container
        Its format, as libsndfile calls it.
    size
        Of the sample data in bytes, as the header states it.
    """
    if size <= 0 or (container == "AIFF" and size == 8):
        return True
    if container in ("WAV", "WAVEX"):
        near = size >= 0xFFFF_0000 or 0 <= 2**31 - size < 2**16
        return near or size % ROUND_SIZE == 0
    return container in ("AIFF", "AU") and size >= OPEN_ENDED


def _size_of_the_rest(path: Path | Section, container: str) -> tuple[int, bytes] | None:
    """Place and bytes of the size of all that follows a header of size zero.

    None where nothing follows, or nothing but other chunks.
    """
    data = _sample_data(path, container)
    if data is None or data[1] != 0 or container not in (*RIFF_FORMATS, "AU"):
        return None
    begin, length = data[0], count_bytes(path)
    with open_bytes(path) as file:
        head = file.read(16)
        file.seek(begin)
        big = head[:4] in (b"RIFX", b".snd")
        if begin >= length or (container != "AU" and _chunks_only(file, length, big)):
            return None
    if head[12:16] == b"ds64":
        return 28, struct.pack("<Q", length - begin)
    size = struct.pack(">I" if big else "<I", min(length - begin, 0xFFFF_FFFF))
    return (8 if container == "AU" else begin - 4), size


def _chunks_only(file: BinaryIO, length: int, big: bool) -> bool:
    """Whether a RIFF file goes on in chunks, which end where it ends."""
    while (at := file.tell()) < length:
        name, size = file.read(4), file.read(4)
        if len(size) < 4 or not (name.isascii() and name.decode("ascii").isprintable()):
            return False
        (long,) = struct.unpack(">I" if big else "<I", size)
        file.seek(at + 8 + long + long % 2)
    return file.tell() - length in (0, 1)


def missing_share(path: Path | Section, container: str) -> float:
    """Share of the sample data that a header promises and the file does not hold.

    Parameters
    ----------
    path
        A file that libsndfile could open.
    container
        Its format, as libsndfile calls it.

    Returns
    -------
    float
        0 if nothing is missing or the container says nothing; 0.5 if half is missing.
    """
    data = _sample_data(path, container)
    if data is None or is_open_ended(container, data[1]):
        return 0.0
    begin, claimed = data
    return min(1.0, max(0.0, 1 - (count_bytes(path) - begin) / claimed))


def _sample_data(path: Path | Section, container: str) -> tuple[int, int] | None:
    """Position of the sample data and its size as the header states it, both in bytes."""
    if container == "AU":
        return _au_data(path)
    data = find_chunk(path, SAMPLE_CHUNKS[container]) if container in SAMPLE_CHUNKS else None
    if data is None:
        return None
    begin, size = data
    if size == 0xFFFF_FFFF and len(sizes := read_chunk(path, b"ds64")) >= 16:  # as in RF64
        (long,) = struct.unpack_from("<8xQ", sizes)
        return begin, long if long < 2**62 else size
    # Damaged: zero is no size in w64, and caf counts in 64 bits what no disk holds.
    damaged = size == 0 if container == "W64" else container == "CAF" and size >= 2**40
    return None if damaged else (begin, size)


def _au_data(path: Path | Section) -> tuple[int, int] | None:
    with open_bytes(path) as file:
        head = file.read(12)
    if len(head) < 12:  # the header itself is cut: libsndfile's business
        return None
    begin, size = struct.unpack_from(">4xII" if head[:4] == b".snd" else "<4xII", head)
    return begin, size
