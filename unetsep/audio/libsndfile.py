"""Decoder of the common formats: libsndfile, kept quiet and kept honest about lengths."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import soundfile

from .decoder import AudioInfo, Block
from .lengths import MP3_FORMATS, claim_length

# libmpg123 takes the length of an uncounted stream to be its size over the bytes of its
# first frame; frames differ by a factor of 40 (8 to 320 kbit/s) at most.
ENDLESS_FACTOR = 64
ID3V1_BYTES = 128
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

    def __init__(self, path: Path) -> None:
        self._endless: EndlessFile | None = None
        with no_decoder_chatter():
            self._file = ForwardFile(native_name(path))
        try:
            file = self._file
            # libsndfile reports a stream of unknown length as 2^63 - 1 frames.
            frames = file.frames if 0 <= file.frames < 2**62 else None
            self.length = claim_length(path, file.format, frames, file.samplerate)
            if self.length.read_from is not None:
                file = self._reopen(path, self.length.read_from)
            depth = _bit_depth(file.subtype)
            self.info = AudioInfo(file.samplerate, file.channels, self.length.frames, depth)
            self.warnings = list(self.length.warnings)
        except BaseException:
            self.close()
            raise

    def _reopen(self, path: Path, begin: int) -> ForwardFile:
        """The same file in a way that needs no length."""
        self._file.close()
        self._endless = EndlessFile(path, begin)
        with no_decoder_chatter():
            self._file = ForwardFile(self._endless)
        return self._file

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``."""
        with no_decoder_chatter(self._file.format in MP3_FORMATS):
            block: Block = self._file.read(frames, dtype="float32", always_2d=True)
        return block

    def seek(self, frame: int) -> None:
        """Move to a sample, before anything was read.

        Decoders need a run-up to give the samples they give when they come from the front.
        """
        run_up = frame
        if self._endless is None:
            with no_decoder_chatter(self._file.format in MP3_FORMATS):
                self._file.seek(max(0, frame - self.info.sample_rate))
            run_up = min(frame, self.info.sample_rate)
        while run_up > 0 and (got := len(self.read(min(run_up, 1 << 16)))):
            run_up -= got

    def at_end(self) -> bool:
        """Whether the decoder came to the end of the file, not just to a halt."""
        return self._endless is None or self._endless.is_near_end()

    def close(self) -> None:
        """Release the file."""
        self._file.close()
        if self._endless is not None:
            self._endless.close()


class EndlessFile:
    """A file that claims to be much longer than it is, for decoders that trust a guess.

    Parameters
    ----------
    path
        The file.
    begin
        Bytes at its front to leave out.
    """

    def __init__(self, path: Path, begin: int) -> None:
        self._file, self._begin = path.open("rb"), begin
        self._size = os.fstat(self._file.fileno()).st_size
        self._read_to = 0
        self._file.seek(begin)

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes; zeros at the claimed end, where a tag is looked for."""
        if self._file.tell() >= self._begin + self._size * ENDLESS_FACTOR - ID3V1_BYTES:
            return bytes(max(size, 0))
        data = self._file.read(size)
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


def native_name(path: Path) -> str | bytes:
    """A file name for soundfile, which refuses those that are no valid unicode as text."""
    return str(path) if os.name == "nt" else os.fsencode(path)


def _bit_depth(subtype: str) -> str:
    if subtype in ("FLOAT", "DOUBLE"):
        return "32f"
    narrow = ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW", "ALAC_16", "DPCM_8", "DPCM_16")
    return "16" if subtype in narrow else "24"


_stderr_lock = threading.RLock()


@contextlib.contextmanager
def no_decoder_chatter(active: bool = True) -> Iterator[None]:
    """Keep libmpg123's remarks off the terminal; its errors reach us as exceptions.

    The library writes to file descriptor 2, which belongs to the whole process, so what
    other threads write there meanwhile is caught too: it is passed on afterwards. The lock
    keeps two threads from restoring each other's descriptor.
    """
    if not active:
        yield
        return
    with _stderr_lock, contextlib.ExitStack() as stack:
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
