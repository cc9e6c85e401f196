"""Writers of wav and RF64, and of libsndfile's formats; `ffmpeg_writer` has all others.

This module writes wav itself. libsndfile does not cope well with a length unknown beforehand,
more than 4 GiB or a full disk, and it writes the time of day into float files: two runs must
give the same bytes.
"""

from __future__ import annotations

import contextlib
import functools
import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from ..errors import AudioError, WritingError
from .channels import is_ordinary, mask_comment, write_order
from .decoder import AudioInfo, Block
from .libsndfile import native_name, no_decoder_chatter
from .mp3 import MP3_FORMATS
from .ogg import set_serial
from .tag_writers import write_channel_mask

Integers = npt.NDArray[np.integer]

# RIFF counts bytes in 32 bits; larger files become RF64 (EBU Tech 3306).
RIFF_BYTES = 2**32 - 1
# Tag of wav files that name the speakers of their channels (WAVE_FORMAT_EXTENSIBLE).
EXTENSIBLE = 0xFFFE
SUBFORMAT = bytes.fromhex("000000001000800000aa00389b71")
# Types of samples as `quantize` gives them, by bit depth.
STORED: dict[str, np.dtype[Any]] = {
    **dict.fromkeys(("8", "16"), np.dtype("<i2")),
    **dict.fromkeys(("24", "32"), np.dtype("<i4")),
    "32f": np.dtype("<f4"),
    "64f": np.dtype("<f8"),
}
# libvorbis uses the stack in proportion to a block, and threads have small stacks.
ENCODE_FRAMES = 8192


class Writer(Protocol):
    """An audio file that is being written."""

    def write(self, block: Block | Integers) -> None:
        """Append ``(samples, channels)``, as `quantize` gives them."""

    def close(self) -> None:
        """Complete the file; calling it again does nothing."""


def quantize(block: Block, bit_depth: str | None) -> Block | Integers:
    """Samples in the type in which a file stores them, without further scaling.

    Full scale is 2^7, 2^15, 2^23 and 2^31, as in reading. So integer input comes back exactly;
    of 32 bits only the upper 24, which float32 holds. libsndfile's own conversion multiplies by
    2^15 - 1. 8 bits fill the upper byte of 16, 24 the upper three of 32.
    """
    if bit_depth in (None, "32f", "64f"):
        return block
    bits, stored = int(bit_depth), STORED[bit_depth]
    full = 2.0 ** (bits - 1)
    # float32 holds all integers of up to 24 bits, but not the largest of 32.
    scaled = np.multiply(block, full, dtype=np.float64 if bits == 32 else np.float32)
    np.clip(np.rint(scaled, out=scaled), -full, full - 1, out=scaled)
    integers: Integers = scaled.astype(stored)
    if spare := 8 * stored.itemsize - bits:
        integers <<= spare
    return integers


def round_to(block: Block, bit_depth: str | None) -> Block:
    """Samples rounded as by `quantize`, but as floats, and without clipping."""
    if bit_depth in (None, "32f", "64f"):
        return block
    full = np.float32(2.0 ** (int(bit_depth) - 1))
    rounded = block * full
    np.rint(rounded, out=rounded)
    rounded /= full
    return rounded


class WavWriter:
    """A wav file, which becomes RF64 beyond 4 GiB.

    Parameters
    ----------
    path
        The file.
    bit_depth
        ``8``, ``16``, ``24``, ``32``, ``32f`` or ``64f``.
    info
        Sample rate and channels.
    """

    # Header: RIFF, room for a ds64 chunk. Then fmt. Tail: fact (samples), data.
    HEADER, TAIL = struct.Struct("<4sI4s 4sI28s"), struct.Struct("<4sII 4sI")
    # Description, originator, its reference with date and time, samples from midnight, version,
    # reserved.
    BROADCAST = struct.Struct("<4sI 256s32s50sQH254s")

    def __init__(self, path: Path, bit_depth: str, info: AudioInfo) -> None:
        self._stored, self._info = STORED[bit_depth], info
        self._is_float = self._stored.kind == "f"
        self._width = int(bit_depth.removesuffix("f")) // 8
        self._bytes = 0
        self._file = path.open("wb")
        try:
            # Twice: on drives that write files only from front to back, as some cloud drives do,
            # seeking back to the header fails now, not when the song is complete.
            self._put_header()
            self._put_header()
        except BaseException:
            with contextlib.suppress(OSError):
                self._file.close()
            raise

    def _put_header(self) -> None:
        self._file.seek(0)
        self._file.write(self._header())
        self._file.flush()

    def _header(self) -> bytes:
        samples = self._bytes // (self._info.channels * self._width)
        form = self._broadcast() + self._format()
        ends = self.HEADER.size + len(form) + self.TAIL.size
        riff = ends - 8 + self._bytes + self._bytes % 2
        is_long = riff > RIFF_BYTES
        sizes = struct.pack("<QQQI", riff, self._bytes, samples, 0) if is_long else b""
        header = self.HEADER.pack(
            b"RF64" if is_long else b"RIFF",
            RIFF_BYTES if is_long else riff,
            b"WAVE",
            b"ds64" if is_long else b"JUNK",
            28,
            sizes,
        )
        data = RIFF_BYTES if is_long else self._bytes
        fact = self.TAIL.pack(b"fact", 4, min(samples, RIFF_BYTES), b"data", data)
        return header + form + fact

    def _broadcast(self) -> bytes:
        """The chunk with the first sample's place in a session; empty if that is unknown."""
        if not (texts := self._info.broadcast):
            return b""
        size, place = self.BROADCAST.size - 8, self._info.time_reference
        originator = texts[256:288].strip(b"\0 ") or b"unetsep"
        return self.BROADCAST.pack(
            b"bext", size, texts[:256], originator, texts[288:], place, 1, b""
        )

    def _format(self) -> bytes:
        """The chunk that describes the samples, with a mask of speakers if it is needed."""
        channels, rate, width = self._info.channels, self._info.sample_rate, self._width
        tag, mask = 3 if self._is_float else 1, self._info.channel_mask
        frame = channels * width
        plain = struct.pack("<HIIHH", channels, rate, rate * frame, frame, 8 * width)
        if is_ordinary(channels, mask):
            return struct.pack("<4sIH", b"fmt ", 16, tag) + plain
        more = struct.pack("<HHIH", 22, 8 * width, mask, tag) + SUBFORMAT
        return struct.pack("<4sIH", b"fmt ", 18 + 22, EXTENSIBLE) + plain + more

    def write(self, block: Block | Integers) -> None:
        """Append ``(samples, channels)``."""
        packed = block.astype(self._stored, copy=False)
        if self._width == 3:
            packed = packed.reshape(-1, 1).view(np.uint8)[:, 1:]
        elif self._width == 1:  # unsigned: its zero is 128
            packed = ((packed >> 8) + 128).astype(np.uint8)
        data = interleaved(packed).data
        self._file.write(data)
        self._bytes += data.nbytes

    def close(self) -> None:
        """Pad the file, and write the sizes into its header."""
        if self._file.closed:
            return
        try:
            self._file.write(b"\0" * (self._bytes % 2))
            self._put_header()
        finally:
            self._file.close()


class LibsndfileWriter:
    """A file that libsndfile encodes.

    Parameters
    ----------
    path
        The file.
    info
        Sample rate, channels and their speakers.
    form, subtype
        Format and encoding, as libsndfile calls them.
    encoding
        Further keywords of `soundfile.SoundFile`.
    """

    def __init__(
        self, path: Path, info: AudioInfo, form: str, subtype: str, **encoding: Any
    ) -> None:
        self._path, self._format, self._frames = path, form, 0
        rate, channels = info.sample_rate, info.channels
        self._order = write_order(channels) if form == "OGG" else None
        has_comments = form == "FLAC" or subtype == "VORBIS"
        self._mask = mask_comment(channels, info.channel_mask) if has_comments else ""
        self._file = soundfile.SoundFile(
            native_name(path), "w", rate, channels, subtype, format=form, **encoding
        )

    def write(self, block: Block | Integers) -> None:
        """Append ``(samples, channels)``."""
        for at in range(0, len(block), ENCODE_FRAMES):
            part = block[at : at + ENCODE_FRAMES]
            if self._order is not None:
                part = part[:, list(self._order)]
            try:
                self._file.write(part)
            except AssertionError as error:  # soundfile's error for an incomplete write
                raise self._incomplete() from error
            self._frames += len(part)

    def close(self) -> None:
        """Complete the file, and read back its end: encoders do not report a full disk."""
        if self._file.closed:
            return
        self._file.close()
        if self._format == "OGG":
            set_serial(self._path, zlib.crc32(b"unetsep"))
        if self._mask:
            write_channel_mask(self._path, self._format.lower(), self._mask)
        self._verify()

    def _verify(self) -> None:
        try:
            with (
                no_decoder_chatter(self._format in MP3_FORMATS),
                soundfile.SoundFile(native_name(self._path)) as file,
            ):
                file.seek(max(0, self._frames - ENCODE_FRAMES))
                complete = file.frames == self._frames and (
                    len(file.read()) == min(self._frames, ENCODE_FRAMES)
                )
        except (soundfile.LibsndfileError, OSError) as error:
            raise self._incomplete() from error
        if not complete:
            raise self._incomplete()

    def _incomplete(self) -> WritingError:
        return WritingError.to(
            self._path.parent,
            f"libsndfile could not write the whole {self._format.lower()} file, most likely "
            "because the disk is full",
            "make room or choose another folder with -o",
        )


class OpusWriter:
    """An Opus file, at 48 kHz whatever the input's rate.

    Parameters
    ----------
    path
        The file.
    info
        Sample rate and channels.
    bitrate
        Bits per second, of all channels.
    """

    RATE = 48_000
    # Bits per second and channel at the levels of compression 1 and 0 of libsndfile.
    LEAST, MOST = 6000, 256_000

    def __init__(self, path: Path, info: AudioInfo, bitrate: int) -> None:
        channel_bitrate = min(self.MOST, max(self.LEAST, bitrate // info.channels))
        level = (self.MOST - channel_bitrate) / (self.MOST - self.LEAST)
        self._resampler = None
        if info.sample_rate != self.RATE:
            self._resampler = soxr.ResampleStream(
                info.sample_rate, self.RATE, info.channels, dtype="float32", quality="VHQ"
            )
        self._channels, self._closed, self._empty = info.channels, False, True
        self._file = LibsndfileWriter(
            path, replace(info, sample_rate=self.RATE), "OGG", "OPUS", compression_level=level
        )

    def write(self, block: Block | Integers) -> None:
        """Append ``(samples, channels)``."""
        self._put(block.astype(np.float32, copy=False), last=False)

    def _put(self, block: Block, *, last: bool) -> None:
        if self._resampler is not None:
            block = self._resampler.resample_chunk(np.ascontiguousarray(block), last=last)
        if last and self._empty and not len(block):  # the input had a sample or two at a high rate
            block = np.zeros((1, self._channels), np.float32)
        self._empty = self._empty and not len(block)
        self._file.write(block)

    def close(self) -> None:
        """Complete the file."""
        if self._closed:
            return
        self._closed = True
        try:
            self._put(np.empty((0, self._channels), np.float32), last=True)
        finally:
            self._file.close()


@functools.lru_cache(maxsize=64)
def vorbis_bitrates(sample_rate: int, channels: int) -> dict[float, int]:
    """The nominal bit rate at each level of compression, as libvorbis states it in its header.

    Raises
    ------
    AudioError
        If it states none, as for many channels.
    """
    rates = {}
    for percent in range(0, 101, 2):
        buffer, level = io.BytesIO(), percent / 100
        with soundfile.SoundFile(
            buffer, "w", sample_rate, channels, "VORBIS", format="OGG", compression_level=level
        ):
            pass
        header = buffer.getvalue()
        (nominal,) = struct.unpack_from("<i", header, header.index(b"\x01vorbis") + 20)
        if nominal > 0:
            rates[level] = nominal
    if not rates:
        raise AudioError(
            f"ogg has no bit rates for {channels} channels at {sample_rate} Hz: leave --bitrate out"
        )
    return rates


def interleaved(block: np.ndarray) -> np.ndarray:
    """The same array, contiguous: copying channel by channel is four times as fast in numpy."""
    if block.flags.c_contiguous:
        return block
    out = np.empty(block.shape, block.dtype)
    for channel in range(block.shape[1]):
        out[:, channel] = block[:, channel]
    return out
