"""What follows damage within a compressed file: ffmpeg decodes it where libsndfile stops."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import numpy as np

from ..errors import AudioError
from .decoder import AudioInfo, Block
from .ffmpeg import FfmpegDecoder

# Seconds. Less is no remainder: of a cut mp3 ffmpeg decodes one frame more than libsndfile
# (0.03 s), of noise up to two (0.05 s).
LEAST_REMAINDER = 0.1


class RemainderDecoder(FfmpegDecoder):
    """A file that ffmpeg decodes from some sample on; other parameters as for `FfmpegDecoder`."""

    _head: Block | None = None

    def begin_at(self, frame: int) -> bool:
        """Move to a sample, once; return whether `LEAST_REMAINDER` follows it."""
        self.seek(frame)
        least = math.ceil(LEAST_REMAINDER * self.info.sample_rate)
        head = self.read(least)
        self._head = head
        return len(head) == least

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``."""
        if self._head is None:
            return super().read(frames)
        block, head = np.split(self._head, [frames])
        self._head = head if len(head) else None
        return block


def open_remainder(path: Path, ffmpeg: str, frame: int, info: AudioInfo) -> RemainderDecoder | None:
    """A decoder of what follows a sample at which libsndfile stopped.

    Parameters
    ----------
    path
        The file.
    ffmpeg
        The program.
    frame
        The sample. All before it is decoded again and discarded.
    info
        The file's properties by libsndfile.

    Returns
    -------
    RemainderDecoder or None
        None if ffmpeg cannot decode further than libsndfile, or not to this rate and channels.
    """
    with contextlib.ExitStack() as stack, contextlib.suppress(AudioError):
        decoder = RemainderDecoder(path, ffmpeg, "it is damaged", track=1)
        stack.callback(decoder.close)
        same_form = (decoder.info.sample_rate, decoder.info.channels) == (
            info.sample_rate,
            info.channels,
        )
        if same_form and decoder.begin_at(frame):
            stack.pop_all()
            return decoder
    return None
