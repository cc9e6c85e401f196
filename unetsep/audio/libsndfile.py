"""Decoder of the common formats: libsndfile, without its chatter, with verified lengths."""

from __future__ import annotations

import contextlib
import os
import re
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from .channels import read_speakers
from .chunks import RIFF_FORMATS, byte_order, read_chunk
from .core_audio import is_ambiguous
from .decoder import SKIP_FRAMES, AudioInfo, Block, skip
from .lengths import LengthClaim, claim_length
from .mp3 import MP3_FORMATS
from .sections import Section, count_bytes, open_bytes

# libmpg123 estimates the length of an uncounted stream: its size over the bytes of its first
# frame. Frames differ by a factor of at most 40 (8 to 320 kbit/s).
ENDLESS_FACTOR = 64
ID3V1_BYTES = 128
# Its offset in the chunk of broadcast wav files, after texts of fixed lengths.
TIME_REFERENCE = 338
# Samples per read before a fault: small, and a divisor of the frames of mp3 and FLAC.
FAULT_FRAMES = 64
# By encoding; for all others 24 bits hold the decoded samples.
BIT_DEPTHS = {
    **dict.fromkeys(("PCM_S8", "PCM_U8"), "8"),
    **dict.fromkeys(("PCM_16", "ULAW", "ALAW", "ALAC_16", "DPCM_8", "DPCM_16"), "16"),
    **dict.fromkeys(("PCM_32", "ALAC_32"), "32"),
    "FLOAT": "32f",
    "DOUBLE": "64f",
}
CHATTER = re.compile(rb"\s*$|\[[^]]*mpg123[^]]*\]|Note: |Warning: ")


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from front to back.

    soundfile seeks after every read, to the current position. In mp3 streams of low bit rate
    libmpg123 then loses some frames, so that each block would begin with a gap.
    """

    def seekable(self) -> bool:
        """Always false: soundfile then does not seek after reads."""
        return False


class LibsndfileDecoder:
    """A file that libsndfile decodes."""

    def __init__(self, path: Path | Section) -> None:
        self._path = path
        self._view: FileView | None = None
        self._file: ForwardFile | None = None
        self._position = 0
        self._fault: soundfile.LibsndfileError | None = None
        self.length = LengthClaim(None)
        try:
            file = self._open()
            self.file_format, self.subtype = str(file.format), str(file.subtype)
            # libsndfile reports a stream of unknown length as 2^63 - 1 frames.
            frames = file.frames if 0 <= file.frames < 2**62 else None
            self.length = claim_length(
                path, self.file_format, frames, file.samplerate, self.subtype
            )
            if self.length.endless is not None or self.length.patch is not None:
                file = self._open()
            if self.length.patch is not None and self.file_format != "W64":
                frames = max(0, file.frames - self.length.skip)
                self.length = replace(self.length, frames=frames, available=frames)
            self._order, mask = read_speakers(path, self.file_format, self.subtype, file.channels)
            broadcast, place = _broadcast(path, self.file_format)
            self.info = AudioInfo(
                file.samplerate,
                file.channels,
                self.length.frames,
                BIT_DEPTHS.get(file.subtype, "24"),
                mask,
                broadcast=broadcast,
                time_reference=place,
            )
            self.warnings = list(self.length.warnings)
            if self.file_format == "AIFF" and is_ambiguous(path):
                self.warnings.append(
                    f"{path} says that the order of its channels 5 to 8 is not that of wav, and "
                    "they were reordered; if ffmpeg wrote it, that is wrong: use a wav or caf file"
                )
        except BaseException:
            self.close()
            raise

    def _open(self) -> ForwardFile:
        """Open the file at its beginning, with the view that its length claim needs."""
        self.close()
        endless, patch = self.length.endless, self.length.patch
        source: FileView | str | bytes
        if endless is not None:
            source = self._view = FileView(endless, endless=True)
        elif patch or isinstance(self._path, Section) or self._path.suffix.lower() == ".raw":
            source = self._view = FileView(self._path, patch)  # soundfile must not see .raw
        else:
            source = native_name(self._path)
        with no_decoder_chatter():
            self._file = ForwardFile(source)
        if self.length.skip:
            self._file.read(self.length.skip, dtype="float32", always_2d=True)
        self._position = 0
        return self._file

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``."""
        if self._fault is not None:
            raise self._fault
        try:
            return self._read(frames)
        except soundfile.LibsndfileError:
            return self._read_to_the_fault(frames)

    def _read(self, frames: int) -> Block:
        assert self._file is not None
        with no_decoder_chatter(self._file.format in MP3_FORMATS):
            block: Block = self._file.read(frames, dtype="float32", always_2d=True)
        self._position += len(block)
        return block if self._order is None else block[:, list(self._order)]

    def _read_to_the_fault(self, frames: int) -> Block:
        """Samples before a fault: libsndfile returns none of a read that ends in one."""
        position = self._position
        self._open()
        self._skip_to(position, FAULT_FRAMES)
        parts: list[Block] = []
        try:
            while frames > 0 and len(part := self._read(min(frames, FAULT_FRAMES))):
                parts.append(part)
                frames -= len(part)
        except soundfile.LibsndfileError as error:
            self._fault = error
            if not parts:
                raise
        return np.concatenate(parts) if parts else np.empty((0, self.info.channels), np.float32)

    def seek(self, frame: int) -> None:
        """Move to a sample, before the first read.

        Decoders need a run-up to return the same samples as when decoding from the beginning.
        """
        self._skip_to(frame)

    def _skip_to(self, frame: int, step: int = SKIP_FRAMES) -> None:
        if self.length.endless is None:
            self._jump(max(0, frame - self.info.sample_rate))
        skip(self._read, frame - self._position, step)

    def _jump(self, frame: int) -> None:
        """Move to a sample without decoding; to the first if the file is damaged."""
        assert self._file is not None
        try:
            with no_decoder_chatter(self._file.format in MP3_FORMATS):
                self._position = self._file.seek(frame + self.length.skip) - self.length.skip
        except soundfile.LibsndfileError:
            self._open()

    def at_end(self) -> bool:
        """Whether the decoder reached the end of the file, and did not stop before it."""
        if self._view is not None and self.length.endless is not None:
            return self._view.is_near_end()
        frames, slack = self.length.frames, self.length.slack
        if frames is None or slack is None:
            return self._fault is None
        # At damage libmpg123 may also end as it does at the end of the file.
        may_stop = self._fault is not None or self.file_format in MP3_FORMATS
        return not may_stop or self._position + slack >= frames

    def close(self) -> None:
        """Release the file."""
        for file in (self._file, self._view):
            if file is not None:
                # All samples were read already; a disconnected drive may fail even to close.
                with contextlib.suppress(OSError, soundfile.LibsndfileError):
                    file.close()


class FileView:
    """What libsndfile sees of a file: other bytes at some place, or an end far beyond its own.

    It ends at the first read error, since an exception in a callback would be printed and lost;
    `AudioReader` finds the reason later.

    Parameters
    ----------
    source
        The file, or a part of one.
    patch
        Place of the first replaced byte, and the new bytes.
    endless
        Claim to be much longer, for decoders that stop at a guess.
    """

    def __init__(
        self,
        source: Path | Section,
        patch: tuple[int, bytes] | None = None,
        *,
        endless: bool = False,
    ) -> None:
        self._source, self._file, self._patch = source, open_bytes(source), patch
        self._size = count_bytes(source)
        self._claimed_size = self._size * ENDLESS_FACTOR if endless else self._size
        self._furthest = 0

    def __repr__(self) -> str:  # in libsndfile's messages
        return repr(str(self._source))

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; zeros at a claimed end, where decoders look for a tag."""
        begin = self._file.tell()
        if self._size < self._claimed_size <= begin + ID3V1_BYTES:
            return bytes(max(size, 0))
        try:
            data = self._file.read(size)
        except OSError:
            return b""
        if data:
            self._furthest = max(self._furthest, begin + len(data))
        return data if self._patch is None else _patched(data, begin, *self._patch)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; `os.SEEK_END` refers to the claimed end."""
        start = {
            os.SEEK_SET: 0,
            os.SEEK_CUR: self._file.tell(),
            os.SEEK_END: self._claimed_size,
        }[whence]
        return self._file.seek(max(0, start + offset))

    def tell(self) -> int:
        """Position."""
        return self._file.tell()

    def is_near_end(self) -> bool:
        """Whether reading came within a buffer's length of the actual end."""
        return self._furthest >= self._size - (1 << 16)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _patched(data: bytes, begin: int, at: int, patch: bytes) -> bytes:
    """Bytes from ``begin`` on of a file in which others are at some place."""
    first, last = max(at, begin), min(at + len(patch), begin + len(data))
    if first >= last:
        return data
    return data[: first - begin] + patch[first - at : last - at] + data[last - begin :]


def native_name(path: Path) -> str | bytes:
    """A file name for soundfile, which takes names of invalid Unicode only as bytes."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _broadcast(source: Path | Section, file_format: str) -> tuple[bytes, int]:
    """The texts and the time of a broadcast wav file, as in `AudioInfo`."""
    chunk = read_chunk(source, b"bext") if file_format in RIFF_FORMATS else b""
    if len(chunk) < TIME_REFERENCE + 8:
        return b"", 0
    # Two numbers, the lower half first in either byte order.
    low, high = struct.unpack_from(byte_order(source) + "II", chunk, TIME_REFERENCE)
    place = int(low) + (int(high) << 32)
    # More is no time.
    return (chunk[:TIME_REFERENCE], place) if place < 2**62 else (b"", 0)


_stderr_lock = threading.RLock()
# Timeout in seconds for another thread, whose decoder may hang on a disconnected drive.
LOCK_PATIENCE = 5.0
_hiding = False


def hide_decoder_chatter() -> None:
    """Keep libmpg123's messages off the terminal from now on; for commands, not for libraries.

    libmpg123 writes them to file descriptor 2 of the process, and has no setting against it. A
    command owns its process. A program that imports unetsep may itself write there, or start
    processes that inherit the descriptor.
    """
    global _hiding
    _hiding = True


@contextlib.contextmanager
def no_decoder_chatter(active: bool = True) -> Iterator[None]:
    """Keep libmpg123's messages off the terminal, after `hide_decoder_chatter`.

    Its errors become exceptions. Output of other threads to file descriptor 2 is captured, too,
    and written afterwards. The lock keeps two threads from restoring each other's descriptor.
    """
    if not (active and _hiding):
        yield
        return
    if not _stderr_lock.acquire(timeout=LOCK_PATIENCE):
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.callback(_stderr_lock.release)
        try:
            capture = stack.enter_context(tempfile.TemporaryFile())
            terminal = os.dup(2)
        except OSError:  # no standard error, or no room for a file: hide nothing
            yield
            return
        os.dup2(capture.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            capture.seek(0)
            output = b"".join(line for line in capture if not CHATTER.match(line))
            if output:
                os.write(2, output)
