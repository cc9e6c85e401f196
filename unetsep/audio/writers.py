"""Writers: wav and RF64 by hand, the other formats by libsndfile.

Wav is written here because a length that is unknown beforehand, more than 4 GiB and a full
disk all need care that libsndfile does not take, and because it stamps float files with the
time of day: two runs shall give the same bytes.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Protocol

import numpy as np
import soundfile

from ..errors import AudioError
from .decoder import AudioInfo, Block
from .formats import Integers, OutputFormat
from .libsndfile import native_name, no_decoder_chatter

# RIFF counts bytes in 32 bits; larger files become RF64 (EBU Tech 3306).
RIFF_BYTES = 2**32 - 1
# libvorbis takes memory on the stack in proportion to a block, and threads have small stacks.
ENCODE_FRAMES = 8192
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Writer(Protocol):
    """An audio file that is being written."""

    def write(self, block: Block | Integers) -> None:
        """Append ``(samples, channels)``, as `unetsep.audio.formats.quantize` gives them."""

    def close(self) -> None:
        """Complete the file; calling it again does nothing."""


def open_writer(path: Path, output: OutputFormat, info: AudioInfo) -> Writer:
    """A new file of a format that `unetsep.audio.formats.choose_format` allowed."""
    if output.container == "wav":
        return WavWriter(path, output, info)
    return SoundFileWriter(path, output, info)


class WavWriter:
    """A wav file, which becomes RF64 when it outgrows 4 GiB."""

    # RIFF header, room for a ds64 chunk, fmt, fact (samples), data.
    HEADER = struct.Struct("<4sI4s 4sI28s 4sIHHIIHH 4sII 4sI")

    def __init__(self, path: Path, output: OutputFormat, info: AudioInfo) -> None:
        self._is_float, self._info = output.is_float, info
        self._width = 4 if output.is_float else int(output.bit_depth or 0) // 8
        self._bytes = 0
        self._file = path.open("wb")
        self._file.write(self._header())

    def _header(self) -> bytes:
        channels, rate, width = self._info.channels, self._info.sample_rate, self._width
        samples = self._bytes // (channels * width)
        riff = self.HEADER.size - 8 + self._bytes + self._bytes % 2
        long = riff > RIFF_BYTES
        sizes = struct.pack("<QQQI", riff, self._bytes, samples, 0) if long else b""
        return self.HEADER.pack(
            b"RF64" if long else b"RIFF",
            RIFF_BYTES if long else riff,
            b"WAVE",
            b"ds64" if long else b"JUNK",
            28,
            sizes,
            b"fmt ",
            16,
            3 if self._is_float else 1,
            channels,
            rate,
            rate * channels * width,
            channels * width,
            8 * width,
            b"fact",
            4,
            min(samples, RIFF_BYTES),
            b"data",
            RIFF_BYTES if long else self._bytes,
        )

    def write(self, block: Block | Integers) -> None:
        """Append ``(samples, channels)``."""
        if self._width == 3:
            packed = block.astype("<i4").reshape(-1, 1).view(np.uint8)[:, 1:]
        else:
            packed = block.astype("<f4" if self._is_float else "<i2", copy=False)
        data = interleaved(packed).data
        self._file.write(data)
        self._bytes += data.nbytes

    def close(self) -> None:
        """Pad, and state the sizes."""
        if self._file.closed:
            return
        try:
            self._file.write(b"\0" * (self._bytes % 2))
            self._file.seek(0)
            self._file.write(self._header())
        finally:
            self._file.close()


class SoundFileWriter:
    """A flac, ogg or mp3 file."""

    def __init__(self, path: Path, output: OutputFormat, info: AudioInfo) -> None:
        self._path, self._container, self._written = path, output.container, 0
        subtype = {"ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}.get(output.container)
        # The best quality for mp3, 8 of 10 for Vorbis; FLAC is lossless at any level.
        level = {"ogg": 0.2, "mp3": 0.0}.get(output.container)
        self._file = soundfile.SoundFile(
            native_name(path),
            "w",
            info.sample_rate,
            info.channels,
            subtype or f"PCM_{output.bit_depth}",
            format=output.container.upper(),
            compression_level=level,
            bitrate_mode="CONSTANT" if output.container == "mp3" else None,
        )

    def write(self, block: Block | Integers) -> None:
        """Append ``(samples, channels)``."""
        for at in range(0, len(block), ENCODE_FRAMES):
            part = block[at : at + ENCODE_FRAMES]
            try:
                self._file.write(part)
            except AssertionError as error:  # how soundfile says that less was written
                raise self._incomplete() from error
            self._written += len(part)

    def close(self) -> None:
        """Complete the file, and read back its end: encoders keep silent about a full disk."""
        if self._file.closed:
            return
        self._file.close()
        if self._container == "ogg":
            set_ogg_serial(self._path, zlib.crc32(b"unetsep"))
        self._verify()

    def _verify(self) -> None:
        try:
            with (
                no_decoder_chatter(self._container == "mp3"),
                soundfile.SoundFile(native_name(self._path)) as file,
            ):
                file.seek(max(0, self._written - ENCODE_FRAMES))
                complete = file.frames == self._written and (
                    len(file.read()) == min(self._written, ENCODE_FRAMES)
                )
        except (soundfile.LibsndfileError, OSError) as error:
            raise self._incomplete() from error
        if not complete:
            raise self._incomplete()

    def _incomplete(self) -> AudioError:
        return AudioError(
            f"writing to {self._path.parent} failed: libsndfile could not write the whole "
            f"{self._container} file, most likely because the disk is full; make room or choose "
            "another folder with -o"
        )


def set_ogg_serial(path: Path, serial: int) -> None:
    """Give an Ogg stream a fixed serial number instead of the random one of libsndfile.

    The number stands in every page, and so does a checksum of the page: the same CRC-32 as
    zlib's, but starting from zero, and with the bits of each byte in the opposite order.
    """
    with path.open("r+b") as file:
        while True:
            begin = file.tell()
            head = file.read(27)
            if len(head) < 27 or head[:4] != b"OggS":
                return
            lengths = file.read(head[26])
            body = lengths + file.read(sum(lengths))
            head = head[:14] + struct.pack("<I", serial & 0x7FFF_FFFF) + head[18:22]
            head += bytes(4) + bytes([len(lengths)])
            raw = zlib.crc32((head + body).translate(REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
            checksum = int(f"{raw:032b}"[::-1], 2)
            file.seek(begin)
            file.write(head[:22] + struct.pack("<I", checksum) + head[26:])
            file.seek(len(body), os.SEEK_CUR)


def interleaved(block: np.ndarray) -> np.ndarray:
    """The same array, contiguous: channel by channel numpy copies four times as fast."""
    if block.flags.c_contiguous:
        return block
    out = np.empty(block.shape, block.dtype)
    for channel in range(block.shape[1]):
        out[:, channel] = block[:, channel]
    return out
