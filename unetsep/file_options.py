"""Which part of a file to separate and how to write its stems; importing this loads no torch."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .audio.formats import CONTAINERS, as_bits, check_choices, check_stems
from .audio.reader import as_excerpt, check_track
from .dsp.arrays import as_rate
from .paths import TEMPLATE, check_template

if TYPE_CHECKING:
    from .dsp.song_stream import Selection
    from .separator import Separator


@dataclass(frozen=True)
class FileOptions:
    """Which part of an audio file to separate and how to write its stems.

    Parameters
    ----------
    stems, two_stems
        See `Separator.select`.
    container, bit_depth
        See `unetsep.audio.formats.choose_format`.
    filename
        Template for the paths of stems; see `unetsep.paths.target_path`.
    start, duration
        Excerpt in seconds, or as ``"1:30"``.
    track
        Of a file with several sound tracks; see `AudioReader`.
    overwrite
        Replace existing files once the stems are complete; otherwise they are an error.
    without
        Write one file: all stems but this one.
    bitrate
        Bits per second of lossy formats, or ``"192k"``; None for the format's own.
    tags
        Copy the song's tags and cover.
    sample_rate
        Of the stems, in Hz; None for the song's.

    Raises
    ------
    ValueError
        If the container or bit depth is unknown, the template has unknown fields, a value has
        the wrong type, or the excerpt is impossible. If stems are chosen in two ways.
    AudioError
        If the container cannot hold the bit depth.
    """

    stems: Sequence[str] | None = None
    two_stems: str | None = None
    container: str = "wav"
    bit_depth: str = "auto"
    filename: str = TEMPLATE
    start: float | str = 0.0
    duration: float | str | None = None
    track: int | None = None
    overwrite: bool = False
    without: str | None = None
    bitrate: int | str | None = None
    tags: bool = True
    sample_rate: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.bit_depth, numbers.Integral):
            object.__setattr__(self, "bit_depth", str(self.bit_depth))
        if isinstance(self.container, str):  # MP3 as with --format
            object.__setattr__(self, "container", self.container.lower())
        bitrate = as_bits(self.bitrate) if isinstance(self.bitrate, str) else self.bitrate
        check_choices(self.container, self.bit_depth, bitrate)
        if bitrate is not None:  # JSON does not take numpy's numbers
            object.__setattr__(self, "bitrate", int(bitrate))
        object.__setattr__(self, "tags", bool(self.tags))
        if self.sample_rate is not None:
            object.__setattr__(self, "sample_rate", as_rate(self.sample_rate))
        check_template(self.filename, self.suffix)
        choices = [each is not None for each in (self.without, self.stems, self.two_stems)]
        if sum(choices) > 1:
            raise ValueError("choose either without, stems or two_stems")
        if self.together and any(choices):
            raise ValueError(f"{self.container} holds all stems: choose none of them")
        check_track(self.track)
        if self.track is not None:
            object.__setattr__(self, "track", int(self.track))
        start, duration = as_excerpt(self.start, self.duration)
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "duration", duration)

    @property
    def suffix(self) -> str:
        """Suffix of the names of stems, without a dot."""
        return CONTAINERS[self.container].suffix

    @property
    def together(self) -> bool:
        """Whether all stems of a song are in one file."""
        return CONTAINERS[self.container].together

    def select(self, separator: Separator) -> Selection:
        """The selected stems of a model; an `AudioError` if the container cannot hold them."""
        check_stems(self.container, separator.stems)
        if self.without is None:
            return separator.select(self.stems, self.two_stems)
        pair = separator.select(two_stems=self.without)
        return replace(pair, names=pair.names[1:], indices=pair.indices[1:])
