"""Decoders: libsndfile for the common formats, an ``ffmpeg`` program for the rest."""

from __future__ import annotations

import contextlib
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import soundfile

from .errors import AudioError

Block = npt.NDArray[np.float32]

# Containers that libsndfile knows: a file so named that it cannot read is damaged or misnamed.
SOUNDFILE_SUFFIXES = frozenset(
    [
        ".wav",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".aif",
        ".aiff",
        ".aifc",
        ".caf",
        ".au",
        ".snd",
        ".w64",
        ".rf64",
        ".bwf",
    ]
)
# What a folder is searched for; single files may have any name.
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | frozenset(
    [
        ".m4a",
        ".mp4",
        ".m4b",
        ".aac",
        ".ac3",
        ".alac",
        ".wma",
        ".webm",
        ".mkv",
        ".mka",
        ".mov",
        ".ape",
        ".wv",
        ".mpc",
        ".amr",
        ".dsf",
        ".tta",
        ".avi",
        ".ts",
    ]
)


@dataclass(frozen=True)
class AudioInfo:
    """What a file says about itself.

    Parameters
    ----------
    sample_rate
        In Hz.
    channels
        Number of channels.
    frames
        Length in samples of one channel; None where only decoding would tell.
    bit_depth
        ``"16"``, ``"24"`` or ``"32f"``: what holds the decoded samples without loss.
    """

    sample_rate: int
    channels: int
    frames: int | None
    bit_depth: str


class Source(Protocol):
    """An open audio file."""

    info: AudioInfo

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``; empty at the end."""

    def seek(self, frame: int) -> None:
        """Move to a sample, before anything was read."""

    def close(self) -> None:
        """Release the file."""


class SoundFileSource:
    """A file that libsndfile decodes."""

    def __init__(self, path: Path) -> None:
        with _no_decoder_chatter():
            self._file = soundfile.SoundFile(str(path))
        file = self._file
        self.counts_frames = file.format not in ("MP3", "MPEG")
        # libsndfile reports a stream of unknown length as 2^63 - 1 frames.
        frames = file.frames if 0 <= file.frames < 2**62 else None
        self.info = AudioInfo(file.samplerate, file.channels, frames, _bit_depth(file.subtype))

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``."""
        with _no_decoder_chatter():
            block: Block = self._file.read(frames, dtype="float32", always_2d=True)
        return block

    def seek(self, frame: int) -> None:
        """Move to a sample."""
        self._file.seek(frame)

    def close(self) -> None:
        """Release the file."""
        self._file.close()


def _bit_depth(subtype: str) -> str:
    if subtype in ("FLOAT", "DOUBLE"):
        return "32f"
    narrow = ("PCM_16", "PCM_S8", "PCM_U8", "ULAW", "ALAW", "ALAC_16", "DPCM_8", "DPCM_16")
    return "16" if subtype in narrow else "24"


@contextlib.contextmanager
def _no_decoder_chatter() -> Iterator[None]:
    """libmpg123 prints warnings on the process's stderr; errors reach us as exceptions."""
    yield


def find_ffmpeg() -> str | None:
    """The ffmpeg program on PATH, or the one of the ``imageio-ffmpeg`` package, or None."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


class FfmpegSource:
    """A file that ffmpeg decodes to a pipe, as float AU: a header of known size, no length."""

    HEADER = struct.Struct(">4s5I")

    def __init__(self, path: Path, ffmpeg: str, reason: str) -> None:
        self._path, self._ffmpeg, self._reason = path, ffmpeg, reason
        self._process: subprocess.Popen[bytes] | None = None
        self._messages, self._rate, self._channels = "", 0, 0
        duration = self._probe()
        self._begin(0)
        frames = None if duration is None else round(duration * self._rate)
        self.info = AudioInfo(self._rate, self._channels, frames, "24")

    def _probe(self) -> float | None:
        """Duration in seconds as the container states it."""
        command = [self._ffmpeg, "-hide_banner", "-nostdin", "-i", f"file:{self._path}"]
        found = subprocess.run(command, capture_output=True, check=False)
        self._messages = found.stderr.decode(errors="replace")
        match = re.search(r"Duration: (\d+):(\d+):([\d.]+)", self._messages)
        if match is None:
            return None
        hours, minutes, seconds = match.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)

    def _begin(self, frame: int) -> None:
        excerpt = ["-ss", f"{frame / self._rate:.9f}"] if frame else []
        command = [self._ffmpeg, "-v", "error", "-nostdin", "-i", f"file:{self._path}", *excerpt]
        command += ["-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=1 << 20
        )
        assert self._process.stdout is not None
        header = self._process.stdout.read(self.HEADER.size)
        if len(header) < self.HEADER.size:
            self._fail()
        magic, offset, _, encoding, rate, channels = self.HEADER.unpack(header)
        assert (magic, encoding) == (b".snd", 6)
        self._process.stdout.read(offset - self.HEADER.size)
        self._rate, self._channels = rate, channels

    def _fail(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        self.close()
        said = lines[-1].replace(f"file:{self._path}", "").strip(": ") if lines else "no message"
        if "matches no streams" in "".join(lines):
            said = "it has no audio track"
        raise AudioError(
            f"{self._path} is not audio that can be read (libsndfile: {self._reason}; "
            f"ffmpeg: {said})"
        )

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``."""
        assert self._process is not None
        assert self._process.stdout is not None
        size = 4 * self._channels
        data = self._process.stdout.read(frames * size)
        data = data[: len(data) // size * size]
        if not data and self._process.wait() != 0:
            self._fail()
        return np.frombuffer(data, dtype=">f4").astype(np.float32).reshape(-1, self._channels)

    def seek(self, frame: int) -> None:
        """Decode again from a sample on."""
        self.close()
        self._begin(frame)

    def close(self) -> None:
        """Stop ffmpeg."""
        process: Any = self._process
        if process is not None:
            process.kill()
            process.stdout.close()
            process.stderr.close()
            process.wait()
            self._process = None
