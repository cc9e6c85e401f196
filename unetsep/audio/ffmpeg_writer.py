"""Writers of what ``ffmpeg`` encodes: m4a, and .stem.mp4 with a mix and four stems.

A .stem.mp4 is an mp4 file with five sound tracks: the mix, which ordinary players play, and the
stems. A box ``stem`` within ``moov/udta`` holds their names and colours as JSON, as Native
Instruments describes; ffmpeg cannot write that box, so this module inserts it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile

from ..errors import AudioError, CancelledError, WritingError
from .chunks import mp4_boxes
from .decoder import AudioInfo, Block
from .ffmpeg_program import NO_CONSOLE, find_ffmpeg
from .libsndfile import native_name
from .writers import WavWriter

# The order of the stems in the format's own tools, and colours that colour-blind people can
# distinguish (Okabe and Ito).
ORDER = ("Drums", "Bass", "Other", "Vocals")
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7")
# Effects of decks on the sum of the stems: none.
MASTERING = {
    "compressor": {
        "enabled": False,
        "input_gain": 0.0,
        "output_gain": 0.0,
        "threshold": 0.0,
        "ratio": 1.0,
        "attack": 0.003,
        "release": 0.3,
        "hp_cutoff": 20.0,
        "dry_wet": 50.0,
    },
    "limiter": {"enabled": False, "threshold": 0.0, "ceiling": 0.0, "release": 0.05},
}
MIX_FRAMES = 1 << 18
# Default bits per second and channel.
AAC_BITRATE = 128_000
# No version, date or seed of the encoder: the same input gives the same bytes.
EXACT = ["-fflags", "+bitexact", "-flags:a", "+bitexact", "-map_metadata", "-1"]


class Encoding:
    """A running ffmpeg that encodes, and a file of its messages.

    Parameters
    ----------
    arguments
        Arguments of the program.
    path
        The file that it writes.
    """

    def __init__(self, arguments: Sequence[str], path: Path) -> None:
        ffmpeg = find_ffmpeg()
        if ffmpeg is None:
            raise AudioError(f"writing {path.name} needs ffmpeg, which is no longer installed")
        self._path = path
        # Not a pipe: one that is never read would block ffmpeg after 64 KiB of messages.
        self._messages: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        # Without xerror, versions up to 5 end with 0 although they could not write the end.
        options = ["-v", "error", "-xerror", "-nostdin", "-y"]
        command = [ffmpeg, *options, *arguments, *EXACT, "-f", "mp4"]
        self.process = subprocess.Popen(
            [*command, f"file:{path}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._messages,
            creationflags=NO_CONSOLE,
        )

    def end(self, stop: threading.Event | None = None) -> None:
        """Wait for ffmpeg to complete the file.

        Raises
        ------
        OSError
            If the disk is full.
        AudioError
            If it failed for another reason.
        CancelledError
            If ``stop`` was set.
        """
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already; `failure` has the reason
            self.process.stdin.close()
        try:
            while True:
                try:
                    self.process.wait(0.1)
                    break
                except subprocess.TimeoutExpired:
                    if stop is not None and stop.is_set():
                        self._messages.close()
                        raise CancelledError("encoding was cancelled") from None
        finally:
            self.process.kill()
            self.process.wait()
        if self.process.returncode != 0 or not is_complete(self._path):
            raise self.failure()
        self._messages.close()

    def failure(self) -> Exception:
        """The error to raise, from ffmpeg's messages."""
        self.process.wait()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self._messages.seek(0)
        text = self._messages.read(1 << 16).decode(errors="replace").strip()
        self._messages.close()
        if os.strerror(errno.ENOSPC) in text:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        # The first line is the cause; since version 6 of ffmpeg others follow it.
        cause = text.splitlines()[0] if text else f"it ended with {self.process.returncode}"
        return WritingError.to(self._path.parent, f"ffmpeg says {cause!r}")


class FfmpegWriter:
    """An m4a file: AAC in mp4.

    Parameters
    ----------
    path
        The file.
    info
        Sample rate and channels.
    bitrate
        Bits per second, of all channels; None for the default.
    """

    def __init__(self, path: Path, info: AudioInfo, bitrate: int | None) -> None:
        raw = ["-f", "f32le", "-ar", str(info.sample_rate), "-ac", str(info.channels)]
        self._encoding = Encoding([*raw, "-i", "pipe:0", *_aac(bitrate, info)], path)
        self._closed = False

    def write(self, block: Block | np.ndarray[Any, Any]) -> None:
        """Append ``(samples, channels)``."""
        pipe = self._encoding.process.stdin
        assert pipe is not None
        try:
            pipe.write(np.ascontiguousarray(block, "<f4").data)
        except OSError:  # the pipe is broken, which Windows calls an invalid argument
            self._closed = True
            raise self._encoding.failure() from None

    def close(self) -> None:
        """Complete the file."""
        if not self._closed:
            self._closed = True
            self._encoding.end()


def write_stem_mp4(
    path: Path,
    mix: Path,
    spools: Mapping[str, Path],
    bitrate: int | None,
    gain: float,
    stop: threading.Event,
) -> None:
    """Encode four stems and their sum into one file, in stereo.

    Parameters
    ----------
    path
        The file.
    mix
        A temporary file for their sum, which the caller removes.
    spools
        Label to a wav file of floats, in any order.
    bitrate
        Bits per second of each track; None for the default.
    gain
        Factor for all of them.
    stop
        Cancels the encoding once it is set.

    Raises
    ------
    AudioError
        If there are not four stems, or ffmpeg fails.
    CancelledError
        If ``stop`` was set.
    """
    labels = order_labels(spools)
    info = _write_mix(mix, list(spools.values()))
    tracks = {"Mix": mix, **{label: spools[label] for label in labels}}
    arguments = [word for track in tracks.values() for word in ("-i", f"file:{track}")]
    for index, label in enumerate(tracks):
        arguments += ["-map", str(index), f"-metadata:s:a:{index}", f"handler_name={label}"]
        arguments += [f"-disposition:a:{index}", "0" if index else "default"]
    # Decks such as Mixxx refuse mono tracks; -ac 2 would lower them by 3 dB.
    filters = ["pan=stereo|c0=c0|c1=c0"] if info.channels == 1 else []
    filters += [f"volume={gain!r}:precision=float"] if gain != 1 else []
    arguments += ["-filter:a", ",".join(filters)] if filters else []
    arguments += _aac(bitrate, replace(info, channels=2))
    Encoding(arguments, path).end(stop)
    add_stem_box(path, labels)


def _aac(bitrate: int | None, info: AudioInfo) -> list[str]:
    """Options of the encoder; the file states its length in samples, not milliseconds."""
    encoder = ["-c:a", "aac", "-b:a", str(bitrate or AAC_BITRATE * info.channels)]
    return [*encoder, "-brand", "M4A ", "-movie_timescale", str(info.sample_rate)]


def order_labels(labels: Mapping[str, object] | Sequence[str]) -> list[str]:
    """Four labels: the usual ones in the usual order, then others in the given order.

    Raises
    ------
    AudioError
        If there are not four.
    """
    if len(labels) != len(ORDER):
        raise AudioError(
            f"a .stem.mp4 holds {len(ORDER)} stems, not {len(labels)}: "
            "choose the format m4a, mp3 or flac"
        )
    usual = [label for label in ORDER if label in labels]
    return usual + [label for label in labels if label not in ORDER]


def _write_mix(path: Path, spools: Sequence[Path]) -> AudioInfo:
    """Write the sum of some stems, in their format."""
    with contextlib.ExitStack() as stack:
        stem, *further_stems = [
            stack.enter_context(soundfile.SoundFile(native_name(spool))) for spool in spools
        ]
        info = AudioInfo(stem.samplerate, stem.channels, None, "32f")
        writer = stack.enter_context(contextlib.closing(WavWriter(path, "32f", info)))
        while len(block := stem.read(MIX_FRAMES, dtype="float32", always_2d=True)):
            for further_stem in further_stems:
                block += further_stem.read(len(block), dtype="float32", always_2d=True)
            writer.write(block)
    return info


def add_stem_box(path: Path, labels: Sequence[str]) -> None:
    """Insert names and colours of the stems into an mp4 file that ffmpeg wrote.

    Parameters
    ----------
    path
        The file, whose ``moov`` box is the last.
    labels
        Names of its tracks after the first.
    """
    stems = [
        {"name": label, "color": colour} for label, colour in zip(labels, COLOURS, strict=True)
    ]
    content = {"mastering_dsp": MASTERING, "version": 1, "stems": stems}
    stem = _box(b"stem", json.dumps(content, separators=(",", ":")).encode("ascii"))
    with path.open("r+b") as file:
        *_, (name, at, size) = mp4_boxes(file)
        assert name == b"moov", "moov must be last: nothing after it may move"
        file.seek(at + 8)
        inner = file.read(size - 8)
        file.seek(at)
        file.write(_box(b"moov", _with_stem(inner, stem)))


def _with_stem(inner: bytes, stem: bytes) -> bytes:
    """The content of ``moov`` with a further box in its ``udta``."""
    at = 0
    while at < len(inner):
        size, name = struct.unpack_from(">I4s", inner, at)
        if name == b"udta":
            content = inner[at + 8 : at + size]
            return inner[:at] + _box(b"udta", content + stem) + inner[at + size :]
        at += size
    return inner + _box(b"udta", stem)


def is_complete(path: Path) -> bool:
    """Whether an mp4 file has all of its sound, and the box that describes the tracks."""
    with path.open("rb") as file:
        boxes = list(mp4_boxes(file))
    end = sum(size for _, _, size in boxes)
    return end == path.stat().st_size and {b"mdat", b"moov"} <= {name for name, _, _ in boxes}


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content
