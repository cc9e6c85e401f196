"""Writing stems: formats, one gain against clipping, and nothing half-written.

Stems are streamed to temporary files beside their targets and get their names only when
all of them are complete. Integer and lossy formats are streamed as float first and
converted in a second pass: only then is it known whether a stem exceeds full scale, and
whether one common gain must be applied to all.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from .decoders import AudioInfo
from .errors import AudioError

Block = npt.NDArray[np.float32]
Integers = npt.NDArray[np.integer]

FORMATS = ("wav", "flac", "ogg", "mp3")
BIT_DEPTHS = ("auto", "16", "24", "32f")
SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT"}
MP3_RATES = (8000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
# A RIFF file counts its bytes in 32 bits; leave room for headers.
RIFF_BYTES = 2**32 - 2**20
CONVERT_FRAMES = 1 << 18


@dataclass(frozen=True)
class OutputFormat:
    """Container and sample format of the stems.

    Parameters
    ----------
    container
        ``wav``, ``flac``, ``ogg`` (Vorbis) or ``mp3`` (320 kbit/s constant, or the most
        that MPEG-2 allows at rates up to 24 kHz).
    bit_depth
        ``16``, ``24`` or ``32f``; None for the lossy containers.
    """

    container: str
    bit_depth: str | None

    @property
    def is_float(self) -> bool:
        """Whether samples beyond full scale survive."""
        return self.bit_depth == "32f"

    @property
    def subtype(self) -> str:
        """Encoding as libsndfile calls it."""
        lossy = {"ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}
        return lossy[self.container] if self.bit_depth is None else SUBTYPES[self.bit_depth]

    def open(self, path: Path, info: AudioInfo, frames: int | None) -> soundfile.SoundFile:
        """Open a file for writing; ``frames`` decides whether a wav file must be RF64."""
        container, options = self.container.upper(), {}
        if self.container == "wav":
            width = 4 if self.is_float else int(self.bit_depth or 0) // 8
            size = (frames or 0) * info.channels * width
            container = "RF64" if size > RIFF_BYTES else "WAV"
        if self.container == "mp3":
            options = {"bitrate_mode": "CONSTANT", "compression_level": 0.0}
        return soundfile.SoundFile(
            str(path),
            "w",
            info.sample_rate,
            info.channels,
            self.subtype,
            format=container,
            **options,
        )


def choose_format(container: str, bit_depth: str, info: AudioInfo) -> OutputFormat:
    """The output format for an input, or a refusal before any work starts.

    Parameters
    ----------
    container
        One of `FORMATS`.
    bit_depth
        One of `BIT_DEPTHS`; ``auto`` takes what the input has (24 bits for lossy input).
    info
        The input.

    Raises
    ------
    AudioError
        If the container cannot hold this bit depth, rate or number of channels; the
        message names one that can.
    """
    if container not in FORMATS or bit_depth not in BIT_DEPTHS:
        raise ValueError(
            f"unknown format {container!r} or bit depth {bit_depth!r}: "
            f"expected {', '.join(FORMATS)} and {', '.join(BIT_DEPTHS)}"
        )
    rate, channels = info.sample_rate, info.channels
    if container in ("ogg", "mp3"):
        if bit_depth != "auto":
            raise AudioError(
                f"{container} has no bit depth: leave --bit-depth at auto, "
                "or use --format wav or flac"
            )
        if container == "mp3" and channels > 2:
            raise AudioError(
                f"mp3 holds 1 or 2 channels, the input has {channels}: "
                f"use --format {'flac' if channels <= 8 else 'wav'}"
            )
        if container == "mp3" and rate not in MP3_RATES:
            raise AudioError(
                f"mp3 cannot hold {rate} Hz (at most 48000, in fixed steps): use --format flac"
            )
        if container == "ogg" and (rate > 200_000 or channels > 8):
            raise AudioError(
                f"ogg cannot hold {channels} channels at {rate} Hz here: use --format wav"
            )
        return OutputFormat(container, None)
    depth = info.bit_depth if bit_depth == "auto" else bit_depth
    if container == "flac":
        if depth == "32f" and bit_depth != "auto":
            raise AudioError("flac holds 16 or 24 bits, not 32f: use --format wav")
        if channels > 8 or rate > 655_350:
            raise AudioError(f"flac cannot hold {channels} channels at {rate} Hz: use --format wav")
        depth = "24" if depth == "32f" else depth
    return OutputFormat(container, depth)


class StemFiles:
    """The output files of one song: written as a stream, named only when all are complete.

    Use as a context manager; leaving it without `commit` removes every trace.

    Parameters
    ----------
    targets
        Where each stem goes, in the order of the stems.
    output
        Format of all of them.
    info
        Sample rate and channels.
    frames
        Length to come, if known.
    """

    def __init__(
        self, targets: Sequence[Path], output: OutputFormat, info: AudioInfo, frames: int | None
    ) -> None:
        self._targets, self._output, self._info = list(targets), output, info
        self._frames, self._peak, self._written = frames, 0.0, 0
        token = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._parts = [t.with_name(f".unetsep-{token}-{i}.part") for i, t in enumerate(targets)]
        self._spools = [part.with_suffix(".spool") for part in self._parts]
        self._made: list[Path] = []
        self._open_files: list[soundfile.SoundFile | BinaryIO] = []

    def __enter__(self) -> StemFiles:
        try:
            with _explain(self._targets[0].parent):
                for target in self._targets:
                    self._make_folder(target.parent)
                if self._output.is_float:
                    for part in self._parts:
                        file = self._output.open(part, self._info, self._frames)
                        self._open_files.append(file)
                else:
                    for spool in self._spools:
                        self._open_files.append(spool.open("wb"))
        except BaseException:
            self._discard()
            raise
        return self

    def _make_folder(self, folder: Path) -> None:
        missing = [folder, *folder.parents]
        missing = [path for path in missing if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        self._made += missing

    def write(self, block: Block) -> None:
        """Append ``(stems, channels, samples)``."""
        with _explain(self._targets[0].parent):
            for file, stem in zip(self._open_files, block, strict=True):
                frames = np.ascontiguousarray(stem.T)
                if isinstance(file, soundfile.SoundFile):
                    file.write(frames)
                else:
                    file.write(frames.data)
        if block.size and not self._output.is_float:
            self._peak = max(self._peak, float(block.max()), -float(block.min()))
        self._written += block.shape[-1]

    def commit(self) -> float:
        """Complete all files and give them their names.

        Returns
        -------
        float
            The gain that was applied to all stems, 1.0 unless one exceeded full scale.
        """
        with _explain(self._targets[0].parent):
            self._close()
            gain = 1.0
            if not self._output.is_float:
                if self._peak > 1.0:
                    gain = (1 - 2.0**-15) / self._peak
                with ThreadPoolExecutor(max_workers=2) as pool:
                    list(pool.map(self._convert, self._spools, self._parts, [gain] * 99))
            for part, target in zip(self._parts, self._targets, strict=True):
                part.replace(target)
        return gain

    def _convert(self, spool: Path, part: Path, gain: float) -> None:
        channels = self._info.channels
        with spool.open("rb") as raw, self._output.open(part, self._info, self._written) as file:
            while data := raw.read(CONVERT_FRAMES * channels * 4):
                block = np.frombuffer(data, np.float32).reshape(-1, channels)
                file.write(quantize(block * np.float32(gain), self._output))
        spool.unlink()

    def _close(self) -> None:
        while self._open_files:
            self._open_files.pop().close()

    def _discard(self) -> None:
        with contextlib.suppress(OSError, soundfile.SoundFileError):
            self._close()
        for path in (*self._parts, *self._spools):
            with contextlib.suppress(OSError):
                path.unlink()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()  # after a commit nothing is left to remove
        if error is not None:
            for folder in sorted(set(self._made), reverse=True):
                with contextlib.suppress(OSError):  # not empty: others write there too
                    folder.rmdir()


def quantize(block: Block, output: OutputFormat) -> Block | Integers:
    """Samples in the type that libsndfile stores without scaling them again.

    Full scale is 2^15 and 2^23, as in reading, so that integer input comes back exactly;
    libsndfile's own conversion multiplies by 2^15 - 1.
    """
    if output.bit_depth == "16":
        narrow: Integers = np.clip(np.rint(block * 32768.0), -32768, 32767).astype(np.int16)
        return narrow
    if output.bit_depth == "24":
        full = 2.0**23
        wide: Integers = np.clip(np.rint(block * full), -full, full - 1).astype(np.int32) << 8
        return wide
    return block


@contextlib.contextmanager
def _explain(folder: Path) -> Iterator[None]:
    """Turn operating-system errors while writing into one clear sentence."""
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"writing to {folder} failed ({str(error.error_string).rstrip('.')}): "
            "is the disk full or read-only?"
        ) from error
    except OSError as error:
        raise AudioError(f"writing to {folder} failed: {error.strerror or error}") from error
