"""Decoder of everything else: an ``ffmpeg`` program, read through a pipe."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from ..errors import AudioError
from .decoder import AudioInfo, Block
from .lengths import LengthClaim

# Seconds without a single block of audio after which ffmpeg is given up; seeking decodes
# everything before the place, at far more than this many times real time.
PATIENCE = 60.0
SEEK_SPEED = 20.0
LOSSLESS = r"alac|flac|ape|wavpack|tta|mlp|truehd|shorten|wmalossless|pcm_\w+"


def find_ffmpeg() -> str | None:
    """The ffmpeg program on PATH, or the one of the ``imageio-ffmpeg`` package, or None."""
    program = shutil.which("ffmpeg")
    if program:
        return program
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


class FfmpegDecoder:
    """A file that ffmpeg decodes to a pipe, as float AU: a header of known size, no length.

    Parameters
    ----------
    path
        The file.
    ffmpeg
        The program.
    reason
        Why libsndfile would not read it, for messages.
    """

    HEADER = struct.Struct(">4s5I")

    def __init__(self, path: Path, ffmpeg: str, reason: str) -> None:
        self._path, self._ffmpeg, self._reason = path, ffmpeg, reason
        self._process: subprocess.Popen[bytes] | None = None
        # A pipe that nobody empties would stop ffmpeg after 64 KiB of complaints.
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self._rate, self._channels, self._gave_up = 0, 0, False
        self.warnings: list[str] = []
        try:
            duration, bit_depth = self._probe()
            self._begin(0)
        except BaseException:
            self.close()
            raise
        frames = None if duration is None else round(duration * self._rate)
        self.length = LengthClaim(frames)
        self.info = AudioInfo(self._rate, self._channels, frames, bit_depth)

    def _command(self, *options: str) -> list[str]:
        # Playlists must not make ffmpeg fetch what they name.
        source = ["-protocol_whitelist", "file,pipe", "-i", f"file:{self._path}"]
        return [self._ffmpeg, "-hide_banner", "-nostdin", *options[:2], *source, *options[2:]]

    def _probe(self) -> tuple[float | None, str]:
        """Duration in seconds as the container states it, and the bits that hold its samples."""
        try:
            probe = subprocess.run(
                self._command(), capture_output=True, check=False, timeout=PATIENCE
            )
        except subprocess.TimeoutExpired as error:
            raise self._stalled() from error
        except OSError as error:
            raise AudioError(f"{self._ffmpeg} cannot be started: {error.strerror}") from error
        text = probe.stderr.decode(errors="replace")
        depth = "24"
        if codec := re.search(rf"Audio: (?:{LOSSLESS})\b([^\n]*)", text):
            if re.search(r"\b(flt|dbl)p?\b", codec[1]):
                depth = "32f"
            elif re.search(r"\b(s16|u8)p?\b", codec[1]):
                depth = "16"
        match = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
        if match is None:
            return None, depth
        hours, minutes, seconds = match.groups()
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds), depth

    def _begin(self, frame: int) -> None:
        # After the input, -ss decodes and drops: exact, where a container's index is not.
        excerpt = ["-ss", f"{frame / self._rate:.9f}"] if frame else []
        output = [*excerpt, "-map", "0:a:0", "-f", "au", "-c:a", "pcm_f32be", "pipe:1"]
        self._process = subprocess.Popen(
            self._command("-v", "error", *output),
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            bufsize=1 << 20,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        patience = PATIENCE + frame / max(self._rate, 1) / SEEK_SPEED
        header = self._take(self.HEADER.size, patience)
        if len(header) < self.HEADER.size:
            self._fail()
        magic, offset, _, encoding, rate, channels = self.HEADER.unpack(header)
        if (magic, encoding) != (b".snd", 6):
            raise AudioError(f"{self._ffmpeg} gave no AU stream for {self._path}: is it ffmpeg?")
        self._take(offset - self.HEADER.size, PATIENCE)
        self._rate, self._channels, self._patience = rate, channels, patience

    def _take(self, size: int, patience: float) -> bytes:
        """Bytes from ffmpeg; fewer at the end of its output."""
        process = self._process
        assert process is not None
        assert process.stdout is not None

        def give_up() -> None:
            self._gave_up = True
            process.kill()

        watch = threading.Timer(patience, give_up)
        watch.daemon = True
        watch.start()
        try:
            data = process.stdout.read(size)
        finally:
            watch.cancel()
        if self._gave_up:
            raise self._stalled()
        return data

    def _stalled(self) -> AudioError:
        return AudioError(
            f"{self._path}: ffmpeg ({self._ffmpeg}) gave no audio within {PATIENCE:g} s and was "
            "stopped; convert the file to wav or flac with another program"
        )

    def _said(self) -> str:
        self._complaints.seek(0)
        return self._complaints.read(1 << 16).decode(errors="replace").strip()

    def _fail(self) -> NoReturn:
        assert self._process is not None
        self._process.wait()
        lines = self._said().splitlines()
        said = lines[-1].replace(f"file:{self._path}", "").strip(": ") if lines else "no message"
        if any("matches no streams" in line for line in lines):
            said = "it has no audio track"
        raise AudioError(
            f"{self._path} is not audio that can be read (libsndfile: {self._reason}; "
            f"ffmpeg: {said})"
        )

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``."""
        assert self._process is not None
        size = 4 * self._channels
        data = self._take(frames * size, self._patience)
        data = data[: len(data) // size * size]
        if not data:
            if self._process.wait() != 0:
                self._fail()
            if said := self._said():
                self.warnings.append(
                    f"{self._path} is damaged in places; ffmpeg says: {said.splitlines()[0]}"
                )
        return np.frombuffer(data, dtype=">f4").astype(np.float32).reshape(-1, self._channels)

    def seek(self, frame: int) -> None:
        """Decode again from a sample on."""
        self._stop()
        self._begin(frame)

    def at_end(self) -> bool:
        """Ffmpeg's complaints are passed on, so there is nothing to add."""
        return True

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            assert process.stdout is not None
            process.stdout.close()
            process.wait()

    def close(self) -> None:
        """Stop ffmpeg."""
        self._stop()
        self._complaints.close()
