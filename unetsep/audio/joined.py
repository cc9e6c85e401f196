"""Decoder of files that were concatenated into one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from ..errors import AudioError
from .chunks import sound_blocks
from .decoder import AudioInfo, Block, Decoder, skip
from .formats import BIT_DEPTHS
from .lengths import LengthClaim
from .libsndfile import LibsndfileDecoder
from .sections import Section
from .streams import find_sections

UNSUPPORTED_ENCODING = 4  # libsndfile's number of that error


def open_streams(path: Path) -> Decoder:
    """A decoder of all streams of a file that libsndfile can decode.

    Raises
    ------
    AudioError
        If rate, channels or bits of a FLAC file change midway.
    OSError, soundfile.LibsndfileError
        If the file cannot be opened, or libsndfile does not recognise it.
    """
    try:
        decoder = LibsndfileDecoder(path)
    except (AudioError, soundfile.LibsndfileError) as error:
        # A FLAC file that changes midway, or a wav or aiff file that another one follows.
        sections = find_sections(path, "FLAC" if isinstance(error, AudioError) else "WAV")
        if len(sections) == 1:
            raise
        return JoinedDecoder(path, sections)
    try:
        if decoder.file_format == "VOC" and sound_blocks(path) > 1:
            # libsndfile decodes the headers of all blocks but the first as samples.
            raise soundfile.LibsndfileError(UNSUPPORTED_ENCODING)
        sections = find_sections(path, decoder.file_format, decoder.subtype)
    except BaseException:
        decoder.close()
        raise
    if len(sections) == 1:
        return decoder
    decoder.close()
    return JoinedDecoder(path, sections)


class JoinedDecoder:
    """Consecutive streams of a file, decoded as one.

    Reading ends before the first stream that differs in rate or channels, or that libsndfile
    cannot read; ``warnings`` then say so.

    Parameters
    ----------
    path
        The file.
    sections
        The places of the streams.
    """

    def __init__(self, path: Path, sections: list[Section]) -> None:
        self._path = path
        self._parts: list[tuple[Section, LengthClaim]] = []
        self._current: LibsndfileDecoder | None = None
        self._halted = False
        self.warnings = [
            f"{path} is several {path.suffix[1:] or 'audio'} files joined into one, which are "
            "read one after the other"
        ]
        depths = []
        for section in sections:
            info = self._examine(section)
            if info is None:
                break
            depths.append(info.bit_depth)
        self.length = self._add_lengths()
        self.info = replace(
            self._format, frames=self.length.frames, bit_depth=max(depths, key=BIT_DEPTHS.index)
        )
        self._next = 0
        self._remaining: int | None = 0

    def _examine(self, section: Section) -> AudioInfo | None:
        """Add one stream to the parts; None if reading must end before it."""
        try:
            decoder = LibsndfileDecoder(section)
        except (soundfile.LibsndfileError, AudioError) as error:
            if not self._parts:
                raise
            self._end_before(f"cannot be read ({error})")
            return None
        info, length = decoder.info, decoder.length
        decoder.close()
        if not self._parts:
            self._format, self.file_format = info, decoder.file_format
        rate_and_channels = info.sample_rate, info.channels
        if rate_and_channels != (self._format.sample_rate, self._format.channels):
            self._end_before(f"has {info.channels} channels at {info.sample_rate} Hz")
            return None
        self._parts.append((section, length))
        self.warnings += decoder.warnings
        return info

    def _end_before(self, reason: str) -> None:
        frames, rate = self._add_lengths().frames, self._format.sample_rate
        place = f" after {frames / rate:.2f} s" if frames is not None else ""
        self.warnings.append(
            f"{self._path} is only read up to its part {len(self._parts) + 1}{place}, which "
            f"{reason}; the first has {self._format.channels} channels at {rate} Hz"
        )

    def _add_lengths(self) -> LengthClaim:
        lengths = [length for _, length in self._parts]
        return LengthClaim(
            _total([length.frames for length in lengths]),
            _total([length.available for length in lengths]),
            _total([length.slack for length in lengths]),
        )

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``; they do not cross a join."""
        while not self._halted:
            if self._current is not None and self._remaining != 0:
                remaining = self._remaining
                block = self._current.read(frames if remaining is None else min(frames, remaining))
                if len(block):
                    self._remaining = None if remaining is None else remaining - len(block)
                    return block
                self._halted = not self._current.at_end()
            if self._halted or self._next >= len(self._parts):
                break
            self._open_next()
        return np.empty((0, self.info.channels), np.float32)

    def _open_next(self) -> LibsndfileDecoder:
        section, length = self._parts[self._next]
        self.close()
        self._current = LibsndfileDecoder(section)
        self._remaining = length.frames if length.slack == 0 else None
        self._next += 1
        return self._current

    def seek(self, frame: int) -> None:
        """Move to a sample, before the first read; streams without a count are decoded."""
        while self._next < len(self._parts):
            _, length = self._parts[self._next]
            if length.slack != 0 or length.frames is None:
                break
            if frame < length.frames:
                self._open_next().seek(frame)
                self._remaining = length.frames - frame
                return
            frame -= length.frames
            self._next += 1
        skip(self.read, frame)

    def at_end(self) -> bool:
        """Whether each stream was decoded to its end, as far as that can be told."""
        return not self._halted and (self._current is None or self._current.at_end())

    def close(self) -> None:
        """Release the file."""
        if self._current is not None:
            self._current.close()


def _total(counts: list[int | None]) -> int | None:
    integers = [count for count in counts if count is not None]
    return sum(integers) if len(integers) == len(counts) else None
