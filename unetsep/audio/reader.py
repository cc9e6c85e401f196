"""Reading audio as a stream of blocks.

soundfile reads wav, flac, ogg, opus, mp3, aiff and caf without further programs; all other
formats (m4a, mp4, webm, ...) are decoded by an ``ffmpeg`` program to a pipe.

A file that ends before the length its header promises is refused if that length is counted
(wav, aiff, au, caf, w64, flac, and mp3 with a count of frames). It is read with a warning if the
length is an estimate (ogg, opus, other mp3, all that ffmpeg decodes), or if an mp3 lacks only a
few frames.

Where libsndfile stops at damage within an mp3, FLAC or Ogg file, ffmpeg decodes the rest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile

from ..config import LOUDEST, MAX_CHANNELS, MAX_RATE, MIN_RATE
from ..drives import path_problem
from ..errors import AudioError
from ..storage import READ_BYTES
from .chunks import read_chunk
from .decoder import SOUNDFILE_SUFFIXES, AudioInfo, Block, Decoder
from .ffmpeg import FfmpegDecoder
from .ffmpeg_program import find_ffmpeg
from .joined import open_streams
from .mp3 import MP3_FORMATS
from .ogg import PAGE_HEAD, ogg_is_open, page_bytes
from .remainder import open_remainder
from .times import as_seconds

READ_FRAMES = 65_536
# More samples than any file has; beyond, the product may be infinite.
ENDLESS = 2.0**62
# Formats of frames or pages, after a damaged one of which others can be decoded.
FRAMED_FORMATS = ("FLAC", "OGG", *MP3_FORMATS)
# Tags of the encodings that libsndfile reads in wav and w64; it calls files of others malformed.
WAV_ENCODINGS = (0x1, 0x2, 0x3, 0x6, 0x7, 0x11, 0x31, 0x38, 0x40, 0x55, 0xFFFE)


class AudioReader:
    """An audio file, or an excerpt of it, as blocks of float32.

    Parameters
    ----------
    path
        Any file that libsndfile or, if installed, ffmpeg can decode.
    start, duration
        Excerpt in seconds, or as ``"1:30"``; the default is the whole file.
    track
        Number of the sound track to read, from 1; by default the one that the file marks as
        default, or else the first.
    past_damage
        Whether to read what follows damage within a compressed file, with a warning: less than
        was there, so all after it is early. Otherwise such a file is refused, unless ffmpeg
        decodes all of it.

    Raises
    ------
    AudioError
        If the file is missing, empty or not audio, if its header is implausible, or if it has
        no such sound track.
    ValueError
        If ``start`` is negative, ``duration`` is not positive, one of them is not a time, or
        ``track`` is not a whole number from 1 on.

    Examples
    --------
    >>> with AudioReader("song.flac") as reader:  # doctest: +SKIP
    ...     for block in reader.blocks(): print(block.shape)  # (channels, samples)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        start: float | str = 0.0,
        duration: float | str | None = None,
        track: int | None = None,
        past_damage: bool = True,
    ) -> None:
        start, duration = as_excerpt(start, duration)
        check_track(track)
        self.path = Path(path)
        self._decoder = _open(self.path, track)
        self._warnings = self._decoder.warnings
        self._past_damage = past_damage and self._decoder.file_format in FRAMED_FORMATS
        try:
            self.info = self._decoder.info
            _check_header(self.path, self.info)
            rate = self.info.sample_rate
            self._start = round(min(start * rate, ENDLESS))
            self._limit = None if duration is None else max(1, round(min(duration * rate, ENDLESS)))
            self._check_start(start)
            self._check_available()
            if self._start:
                self._seek()
        except BaseException:
            self._decoder.close()
            raise

    def _check_start(self, start: float) -> None:
        if self.info.frames is not None and self._start >= self.info.frames:
            raise AudioError(
                f"{self.path} lasts {self.info.frames / self.info.sample_rate:.2f} s: "
                f"an excerpt cannot start at {start:.2f} s"
            )

    def _seek(self) -> None:
        try:
            self._decoder.seek(self._start)
        except (soundfile.LibsndfileError, OSError) as error:
            _check_readable(self.path)
            if self._open_remainder(self._start):
                return
            raise AudioError(
                f"{self.path} is damaged before {self._start / self.info.sample_rate:.2f} s, where "
                f"the excerpt starts: {str(error).rstrip('.')}{self._remedy()}"
            ) from error

    def _open_remainder(self, frame: int) -> bool:
        """Whether ffmpeg decodes what follows a sample at which libsndfile stopped."""
        ffmpeg = find_ffmpeg() if self._past_damage else None
        remainder = open_remainder(self.path, ffmpeg, frame, self.info) if ffmpeg else None
        if remainder is None:
            return False
        self._decoder.close()
        self._decoder, self._past_damage = remainder, False
        self._warnings.append(
            f"{self.path} is damaged in places; from {frame / self.info.sample_rate:.2f} s on "
            "ffmpeg decoded it, since libsndfile could not; what is lost is left out, so what "
            "follows comes earlier, mostly by 0.1 s a place"
        )
        return True

    def _remedy(self) -> str:
        if self._past_damage and find_ffmpeg() is None:
            return "; install ffmpeg or run 'pip install imageio-ffmpeg' to read what may follow"
        return "; get another copy, or separate the part before it with --duration"

    def _check_available(self) -> None:
        length, frames = self._decoder.length, self.frames
        if length.available is None or frames is None or length.slack is None:
            return
        if length.available + length.slack < self._start + frames:
            raise self._cut_short(length.available)

    def _cut_short(self, available: int) -> AudioError:
        assert self.info.frames is not None
        rate = self.info.sample_rate
        return AudioError(
            f"{self.path} is cut short: its header promises {self.info.frames / rate:.2f} s, "
            f"{available / rate:.2f} s could be decoded; get a complete copy, or separate the "
            "intact part with --start and --duration"
        )

    @property
    def warnings(self) -> list[str]:
        """Sentences about what may be wrong with the file, complete after reading it."""
        return list(self._warnings)

    @property
    def frames(self) -> int | None:
        """Samples per channel that will be read; None if unknown, approximate for ffmpeg."""
        if self.info.frames is None:
            return self._limit
        remaining = self.info.frames - self._start
        return remaining if self._limit is None else min(remaining, self._limit)

    @property
    def time_reference(self) -> int:
        """Place in a session of the first sample that is read, as in `AudioInfo`; 0 if unknown."""
        return self.info.time_reference + self._start if self.info.broadcast else 0

    def blocks(self, block_frames: int = READ_FRAMES) -> Iterator[Block]:
        """Yield contiguous blocks ``(channels, samples)`` of ``block_frames`` samples.

        The last block may be shorter, and so may the last one of each of several joined files,
        and those at damage.

        Raises
        ------
        AudioError
            If samples are NaN, infinite or huge, nothing could be decoded, the system cannot
            read the file, or it ends before the length its header promises.
        """
        position, warnings = 0, len(self._warnings)
        # After a counted length follows no audio, but a tag or a byte of padding.
        limit = self.frames if self._decoder.length.slack == 0 else self._limit
        while limit is None or position < limit:
            frames = block_frames if limit is None else min(block_frames, limit - position)
            block = self._read(frames, position)
            if len(block) == 0:
                break
            self._check_finite(block, position)
            position += len(block)
            yield np.ascontiguousarray(block.T)
        try:
            self._check_complete(position)
        except AudioError:
            _check_readable(self.path)
            raise
        if len(self._warnings) > warnings:
            _check_readable(self.path)

    def _read(self, frames: int, position: int) -> Block:
        """The next block; empty at the end, and at a fault in the last frame of an mp3."""
        frame = self._start + position
        try:
            block = self._decoder.read(frames)
            if len(block) or self._decoder.at_end():
                return block
            _check_readable(self.path)
            return self._decoder.read(frames) if self._open_remainder(frame) else block
        except (soundfile.LibsndfileError, OSError) as error:
            _check_readable(self.path)
            if self._open_remainder(frame):
                return self._decoder.read(frames)
            seconds = frame / self.info.sample_rate
            if position == 0 or not self._decoder.at_end():
                raise AudioError(
                    f"{self.path} is damaged at {seconds:.2f} s: {str(error).rstrip('.')}"
                    f"{self._remedy()}"
                ) from error
            self._warnings.append(
                f"{self.path} breaks off within its last frame; {seconds:.2f} s could be decoded"
            )
            return np.empty((0, self.info.channels), np.float32)

    def _check_finite(self, block: Block, position: int) -> None:
        # Both are NaN if any sample is, and cheaper than a test of all samples.
        if block.max() <= LOUDEST and block.min() >= -LOUDEST:
            return
        first = int(np.flatnonzero(~(np.abs(block) <= LOUDEST).all(axis=1))[0])
        seconds = (self._start + position + first) / self.info.sample_rate
        finite = np.isfinite(block[first]).all()
        fault = f"samples beyond {LOUDEST:g}" if finite else "NaN or infinite samples"
        raise AudioError(
            f"{self.path} holds {fault}, the first at {seconds:.3f} s: "
            "export it again from the program that wrote it"
        )

    def _check_complete(self, position: int) -> None:
        if position == 0:
            raise AudioError(
                f"{self.path} holds no audio samples from second "
                f"{self._start / self.info.sample_rate:g} on"
            )
        rate, expected, slack = self.info.sample_rate, self.frames, self._decoder.length.slack
        if expected is not None and slack is not None and position + slack < expected:
            # The length is that of the last page, so the end is there: pages within are lost.
            if not (self._past_damage and self._decoder.file_format == "OGG"):
                raise self._cut_short(self._start + position)
            self._warnings.append(
                f"{self.path} is damaged in places: {position / rate:.2f} s could be decoded where "
                f"{expected / rate:.2f} s were expected, so what follows comes earlier"
            )
            return
        if not self._decoder.at_end() and (self._limit is None or position < self._limit):
            raise AudioError(
                f"{self.path} is damaged at {(self._start + position) / rate:.2f} s: nothing after "
                f"that could be decoded{self._remedy()}"
            )
        if expected is None or self.info.frames is None or position >= expected:
            return
        # A container's duration may be off by the padding of its codec. A count of mp3 frames
        # is exact: of 756 complete files by lame, ffmpeg and libsndfile none fell short of it.
        if slack or (slack is None and position < 0.98 * expected - 0.2 * rate):
            self._warnings.append(
                f"{self.path} may be cut short: {position / rate:.2f} s could be decoded where "
                f"about {expected / rate:.2f} s were expected"
            )

    def close(self) -> None:
        """Release the file."""
        self._decoder.close()

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def as_excerpt(start: float | str, duration: float | str | None) -> tuple[float, float | None]:
    """Start and length of an excerpt in seconds; a length of None reaches to the end.

    Raises
    ------
    ValueError
        If one of them is not a time, ``start`` is negative, or ``duration`` is not positive.
    """
    start = as_seconds(start)
    duration = None if duration is None else as_seconds(duration)
    if not 0 <= start < math.inf:
        raise ValueError(f"start must be 0 or more seconds, got {start}")
    if duration is not None and not 0 < duration < math.inf:
        raise ValueError(f"duration must be more than 0 seconds, got {duration}")
    return start, duration


def check_track(track: int | None) -> None:
    """Refuse an invalid number of a sound track.

    Raises
    ------
    ValueError
        If it is neither a whole number from 1 on nor None.
    """
    is_whole = isinstance(track, (int, np.integer)) and not isinstance(track, bool)
    if track is not None and not (is_whole and track >= 1):
        raise ValueError(f"track must be a whole number from 1 on, got {track!r}")


def _open(path: Path, track: int | None) -> Decoder:
    if reason := path_problem(path):
        raise AudioError(reason)
    if path.is_dir():
        raise AudioError(f"{path} is a folder where an audio file was expected")
    if not path.is_file():
        raise AudioError(f"{path} is not a regular file (a pipe or device?): copy it to a file")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is empty (0 bytes)")
    try:
        decoder = open_streams(path)
        return decoder if track in (None, 1) else _open_track(path, decoder, track)
    except OSError as error:
        raise AudioError(f"{path} cannot be opened: {error.strerror or error}") from error
    except soundfile.LibsndfileError as error:
        if not os.access(path, os.R_OK):
            raise AudioError(f"{path} cannot be opened: permission denied") from error
        reason = str(error.error_string).rstrip(".")
        if reason.startswith("File does not exist"):  # for files that are not mp3; it does exist
            reason = "Format not recognised"
        if _ends_in_header(path):  # libsndfile calls such files unsupported
            raise AudioError(
                f"{path} is cut short: it ends within its header; get a complete copy"
            ) from error
        if (ffmpeg := find_ffmpeg()) is not None:
            decoder = _open_by_ffmpeg(path, ffmpeg, reason, track)
            if path.suffix.lower() in SOUNDFILE_SUFFIXES and not _is_unsupported(path, reason):
                decoder.warnings.append(
                    f"{path} may be damaged or misnamed: libsndfile could not read it ({reason}), "
                    "ffmpeg could"
                )
            return decoder
        raise AudioError(_unreadable(path, reason)) from error


def _check_readable(path: Path) -> None:
    """Raise if the system cannot read a file to its end: decoders treat read errors as its end.

    A song on a drive that fails or was disconnected would count as cut short, and ffmpeg would
    decode its first part as if that were all.
    """
    try:
        with path.open("rb") as file:
            while file.read(READ_BYTES):
                pass
    except OSError as error:
        raise AudioError(
            f"{path} cannot be read: {error.strerror or error}; check its disk or network drive, "
            "and try again"
        ) from error


def _unreadable(path: Path, reason: str) -> str:
    """The message for a file that libsndfile refuses if there is no ffmpeg."""
    if _is_unsupported(path, reason):
        return (
            f"{path} holds {path.suffix[1:]} audio of a kind that is not supported without "
            "ffmpeg: install ffmpeg or run 'pip install imageio-ffmpeg', or convert the file "
            "to wav or to flac of at most 24 bits"
        )
    if path.suffix.lower() in SOUNDFILE_SUFFIXES:
        return (
            f"{path} cannot be read as {path.suffix[1:]} audio ({reason}): "
            "it is damaged, or not what its suffix says"
        )
    return (
        f"{path}: reading {path.suffix or 'files without a suffix'} needs ffmpeg, which is "
        "not installed: install ffmpeg or run 'pip install imageio-ffmpeg', or convert "
        "the file to wav, flac or mp3"
    )


def _open_by_ffmpeg(path: Path, ffmpeg: str, reason: str, track: int | None) -> FfmpegDecoder:
    """A decoder by ffmpeg, with a warning for an Ogg stream without its end: ffmpeg has none."""
    with path.open("rb") as file:
        is_ogg = file.read(4) == b"OggS"
    is_cut = is_ogg and ogg_is_open(path)
    decoder = FfmpegDecoder(path, ffmpeg, reason, track)
    if is_cut:
        decoder.warnings.append(f"{path} has no end mark, as if it was cut off")
    return decoder


def _ends_in_header(path: Path) -> bool:
    """Whether a FLAC file ends within its stream info, or an Ogg file within its first page."""
    with path.open("rb") as file:
        head = file.read(PAGE_HEAD + 255)
    if head[:4] == b"fLaC":
        return len(head) < 4 + 4 + 34
    is_ogg = head[:4] == b"OggS"
    return is_ogg and (len(head) < PAGE_HEAD or path.stat().st_size < page_bytes(head))


def _is_unsupported(path: Path, reason: str) -> bool:
    """Whether libsndfile knows the container but not the encoding: 32-bit FLAC, ALAC in caf.

    For some files its message does not tell: FLAC in Ogg, which not every build knows, Speex,
    many encodings in wav, and BW64, which is RF64 by another name.
    """
    if "unsupported" in reason or "unimplemented" in reason:
        return True
    with path.open("rb") as file:
        head = file.read(64)
    if head[:4] == b"OggS":
        return b"\x7fFLAC" in head or b"Speex  " in head
    if head[:4] == b"BW64":
        return True
    form = read_chunk(path, b"fmt ") if head[:4] in (b"RIFF", b"RF64", b"riff") else b""
    return len(form) >= 16 and int.from_bytes(form[:2], "little") not in WAV_ENCODINGS


def _open_track(path: Path, decoder: Decoder, track: int | None) -> Decoder:
    """A decoder of a later sound track of a file that libsndfile reads: Ogg may have several."""
    decoder.close()
    if (ffmpeg := find_ffmpeg()) is not None:
        return _open_by_ffmpeg(path, ffmpeg, "only its first sound track", track)
    raise AudioError(f"{path} has no sound track {track} that can be read without ffmpeg")


def _check_header(path: Path, info: AudioInfo) -> None:
    if not MIN_RATE <= info.sample_rate <= MAX_RATE:
        raise AudioError(
            f"{path} claims a sample rate of {info.sample_rate} Hz: "
            f"expected {MIN_RATE} to {MAX_RATE}"
        )
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise AudioError(f"{path} claims {info.channels} channels: expected 1 to {MAX_CHANNELS}")
    if info.frames == 0:
        raise AudioError(f"{path} holds no audio samples (length zero)")
