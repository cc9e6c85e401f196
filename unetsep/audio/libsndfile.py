"""Decoder of the common formats: libsndfile, kept quiet and kept honest about lengths."""

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
from typing import BinaryIO

import numpy as np
import soundfile

from .channels import read_speakers
from .chunks import RIFF_FORMATS, byte_order, read_chunk
from .core_audio import is_ambiguous
from .decoder import SKIP_FRAMES, AudioInfo, Block, skip
from .lengths import LengthClaim, claim_length
from .mp3 import MP3_FORMATS
from .sections import Section, count_bytes, open_bytes

# libmpg123 takes the length of an uncounted stream to be its size over the bytes of its
# first frame; frames differ by a factor of 40 (8 to 320 kbit/s) at most.
ENDLESS_FACTOR = 64
ID3V1_BYTES = 128
# Where it lies in the chunk of broadcast wav files, behind texts of fixed lengths.
TIME_REFERENCE = 338
# A step of reading towards a fault: small, and a divisor of the frames of mp3 and FLAC.
FAULT_FRAMES = 64
# By encoding; of others 24 bits hold what is decoded.
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

    soundfile seeks after every read, to where the file stands already. Of mp3 streams of
    low bit rate libmpg123 loses some frames then, so that each block would begin with a gap.
    """

    def seekable(self) -> bool:
        """No, so far as reading is concerned."""
        return False


class LibsndfileDecoder:
    """A file that libsndfile decodes."""

    def __init__(self, path: Path | Section) -> None:
        self._path = path
        self._endless: EndlessFile | None = None
        self._view: PatchedFile | BinaryIO | None = None
        self._file: ForwardFile | None = None
        self._position = 0
        self._fault: soundfile.LibsndfileError | None = None
        self.length = LengthClaim(None)
        file = self._open()
        try:
            self.container, self.subtype = str(file.format), str(file.subtype)
            # libsndfile reports a stream of unknown length as 2^63 - 1 frames.
            frames = file.frames if 0 <= file.frames < 2**62 else None
            self.length = claim_length(path, self.container, frames, file.samplerate, self.subtype)
            if self.length.read_from is not None or self.length.patch is not None:
                file = self._open()
            if self.length.patch is not None and self.container != "W64":
                frames = max(0, file.frames - self.length.skip)
                self.length = replace(self.length, frames=frames, available=frames)
            self._order, mask = read_speakers(path, self.container, self.subtype, file.channels)
            self.info = AudioInfo(
                file.samplerate,
                file.channels,
                self.length.frames,
                BIT_DEPTHS.get(file.subtype, "24"),
                mask,
                time_reference=_time_reference(path, self.container),
            )
            self.warnings = list(self.length.warnings)
            if self.container == "AIFF" and is_ambiguous(path):
                self.warnings.append(
                    f"{path} says that its channels 5 to 8 stand otherwise than in wav, and they "
                    "are put so; if ffmpeg wrote it, that is wrong: give the song as wav or caf"
                )
        except BaseException:
            self.close()
            raise

    def _open(self) -> ForwardFile:
        """The file from the front, in the way that its length asks for."""
        self.close()
        source: EndlessFile | PatchedFile | QuietFile | BinaryIO | str | bytes
        if self.length.read_from is not None:
            source = EndlessFile(self._path, self.length.read_from, self.length.read_to)
            self._endless = source
        elif self.length.patch is not None:
            source = self._view = PatchedFile(self._path, *self.length.patch)
        elif isinstance(self._path, Section):
            source = self._view = open_bytes(self._path)
        elif self._path.suffix.lower() == ".raw":  # without the name, which soundfile believes
            source = self._view = open_bytes(Section(self._path, 0, count_bytes(self._path)))
        else:
            source = native_name(self._path)
        if not isinstance(source, (str, bytes)):
            source = QuietFile(source)
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
        """Samples before a fault: libsndfile fails as a whole where it fails in the end."""
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
        """Move to a sample, before anything was read.

        Decoders need a run-up to give the samples they give when they come from the front.
        """
        self._skip_to(frame)

    def _skip_to(self, frame: int, step: int = SKIP_FRAMES) -> None:
        if self._endless is None:
            self._jump(max(0, frame - self.info.sample_rate))
        skip(self._read, frame - self._position, step)

    def _jump(self, frame: int) -> None:
        """Move to a sample without decoding; to the first where damage does not let it."""
        assert self._file is not None
        try:
            with no_decoder_chatter(self._file.format in MP3_FORMATS):
                self._position = self._file.seek(frame + self.length.skip) - self.length.skip
        except soundfile.LibsndfileError:
            self._open()

    def at_end(self) -> bool:
        """Whether the decoder came to the end of the file, not just to a halt."""
        if self._endless is not None:
            return self._endless.is_near_end()
        frames, slack = self.length.frames, self.length.slack
        if self._fault is None:
            return True
        return frames is not None and slack is not None and self._position + slack >= frames

    def close(self) -> None:
        """Release the file."""
        for view in (self._file, self._endless, self._view):
            if view is not None:
                # What was read is as good as before: a drive that is gone may refuse even that.
                with contextlib.suppress(OSError, soundfile.LibsndfileError):
                    view.close()


class QuietFile:
    """A file for libsndfile's callbacks, which ends where it cannot be read.

    What they raise would be printed as a traceback, and lost; `AudioReader` finds the reason.

    Parameters
    ----------
    file
        An open file.
    """

    def __init__(self, file: EndlessFile | PatchedFile | BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes."""
        try:
            return self._file.read(size)
        except OSError:
            return b""


class EndlessFile:
    """A file that claims to be much longer than it is, for decoders that trust a guess.

    Parameters
    ----------
    path
        The file.
    begin
        Bytes at its front to leave out.
    end
        Byte at which it really ends; the default is the end of the file.
    """

    def __init__(self, path: Path | Section, begin: int, end: int | None = None) -> None:
        self._file, self._begin = open_bytes(path), begin
        self._size = count_bytes(path) if end is None else end
        self._read_to = 0
        self._file.seek(begin)

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; zeros at the claimed end, where a tag is looked for."""
        if self._file.tell() >= self._begin + self._size * ENDLESS_FACTOR - ID3V1_BYTES:
            return bytes(max(size, 0))
        left = max(0, self._size - self._file.tell())
        data = self._file.read(left if size < 0 else min(size, left))
        self._read_to = max(self._read_to, self._file.tell() if data else 0)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is where it is claimed to be."""
        start = {
            os.SEEK_SET: self._begin,
            os.SEEK_CUR: self._file.tell(),
            os.SEEK_END: self._begin + self._size * ENDLESS_FACTOR,
        }[whence]
        self._file.seek(max(self._begin, start + offset))
        return self.tell()

    def tell(self) -> int:
        """Position."""
        return self._file.tell() - self._begin

    def is_near_end(self) -> bool:
        """Whether reading came within a buffer's length of the real end."""
        return self._read_to >= self._size - (1 << 16)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


class PatchedFile:
    """A file of which a few bytes look different.

    Parameters
    ----------
    path
        The file.
    at
        First byte that looks different.
    patch
        What stands there instead.
    """

    def __init__(self, path: Path | Section, at: int, patch: bytes) -> None:
        self._file, self._at, self._patch = open_bytes(path), at, patch
        self.seek, self.tell = self._file.seek, self._file.tell

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes."""
        begin = self._file.tell()
        data = bytearray(self._file.read(size))
        for at, byte in enumerate(self._patch, self._at - begin):
            if 0 <= at < len(data):
                data[at] = byte
        return bytes(data)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def native_name(path: Path) -> str | bytes:
    """A file name for soundfile, which refuses those that are no valid unicode as text."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _time_reference(source: Path | Section, container: str) -> int:
    found = read_chunk(source, b"bext") if container in RIFF_FORMATS else b""
    if len(found) < TIME_REFERENCE + 8:
        return 0
    # Two numbers, the lower half first whatever the order of bytes.
    low, high = struct.unpack_from(byte_order(source) + "II", found, TIME_REFERENCE)
    place = int(low) + (int(high) << 32)
    return place if place < 2**62 else 0  # beyond are no times


_stderr_lock = threading.RLock()
# Seconds to wait for another thread, whose decoder may hang on a drive that is gone.
LOCK_PATIENCE = 5.0
_hiding = False


def hide_decoder_chatter() -> None:
    """From now on keep libmpg123's remarks off the terminal; for commands, not for guests.

    The library writes them to file descriptor 2, has no setting against it, and the descriptor
    belongs to the whole process. A command owns its process; a program that we are a guest of
    may write there meanwhile, or start others that keep it.
    """
    global _hiding
    _hiding = True


@contextlib.contextmanager
def no_decoder_chatter(active: bool = True) -> Iterator[None]:
    """Keep libmpg123's remarks off the terminal, if a command asked for it.

    Its errors reach us as exceptions. What other threads write to file descriptor 2 meanwhile
    is caught too: it is passed on afterwards. The lock keeps two threads from restoring each
    other's descriptor.
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
            caught = stack.enter_context(tempfile.TemporaryFile())
            terminal = os.dup(2)
        except OSError:  # no standard error, or nowhere to catch it: nothing to hide
            yield
            return
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            caught.seek(0)
            others = b"".join(line for line in caught if not CHATTER.match(line))
            if others:
                os.write(2, others)
