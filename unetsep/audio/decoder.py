"""The decoder protocol for audio files, and the suffixes that have decoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .lengths import LengthClaim
from .tags import Tags

Block = npt.NDArray[np.float32]


# Containers of libsndfile: a file with such a name that it cannot read is damaged or misnamed.
# Without .raw, which has no header, and .mat, which mostly holds other data.
SOUNDFILE_SUFFIXES = frozenset(
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .caf .au .snd "  # noqa: SIM905
    ".voc .avr .iff .svx .8svx .paf .fap .pvf .sds .sf .ircam .nist .sph .htk .wve .xi".split()
)
# Further suffixes, which ffmpeg reads.
FFMPEG_SUFFIXES = frozenset(
    ".m4a .m4b .m4r .mp4 .m4v .mov .qt .3gp .3gpp .3g2 .f4a .f4v .flv .aac .ac3 .eac3 .ec3 .dts "  # noqa: SIM905
    ".dtshd .thd .mlp .alac .wma .wmv .asf .webm .mkv .mka .avi .divx .ogv .ogm .ogx .spx .ts .mts "
    ".m2ts .mpg .mpeg .vob .mpa .m2a .ape .wv .mpc .mp+ .tak .tta .shn .dsf .dff .amr .awb .gsm "
    ".ra .rm .rmvb .dv .mxf .nut .oma .omg .aa3 .at3 .aea .vqf .weba .3ga .adts .latm .loas .m2t "
    ".mk3d .isma .ismv .wtv .sox .dss .mac".split()
)
# Folders are searched for these; a file named directly may have any name.
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | FFMPEG_SUFFIXES
# Samples decoded at a time while skipping.
SKIP_FRAMES = 1 << 16


@dataclass(frozen=True)
class AudioInfo:
    """The properties of a file as it states them.

    Parameters
    ----------
    sample_rate
        In Hz.
    channels
        Number of channels.
    frames
        Length in samples of one channel; None if only decoding would tell.
    bit_depth
        ``"8"``, ``"16"``, ``"24"``, ``"32"``, ``"32f"`` or ``"64f"``: that of its samples, or
        for lossy ones the depth that holds the decoded samples.
    channel_mask
        Speakers that the channels are for, as in wav files; 0 if unknown. The channels are in
        the order of its bits.
    tags
        The song's tags, if the caller requested them.
    broadcast
        Description, originator, its reference, date and time of a broadcast wav file (EBU Tech
        3285), 338 bytes; empty if it is none.
    time_reference
        The first sample's place in a session, in samples from midnight; 0 if unknown.
    """

    sample_rate: int
    channels: int
    frames: int | None
    bit_depth: str
    channel_mask: int = 0
    tags: Tags = field(default_factory=Tags)
    broadcast: bytes = b""
    time_reference: int = 0


class Decoder(Protocol):
    """An open audio file.

    ``warnings`` are sentences for the user: those of the claim, and those of decoding so far.
    ``file_format`` is libsndfile's name of the format; empty if ffmpeg decodes it.
    """

    file_format: str
    info: AudioInfo
    length: LengthClaim
    warnings: list[str]

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``; empty at the end."""

    def seek(self, frame: int) -> None:
        """Move to a sample, before the first read."""

    def at_end(self) -> bool:
        """Whether decoding reached the end of the file, as far as that can be told."""

    def close(self) -> None:
        """Release the file."""


def skip(read: Callable[[int], Block], frames: int, step: int = SKIP_FRAMES) -> None:
    """Decode and discard samples, at most up to the end.

    Parameters
    ----------
    read
        The method of a decoder.
    frames
        Samples to discard; none if negative.
    step
        Samples decoded at a time.
    """
    while frames > 0 and (count := len(read(min(frames, step)))):
        frames -= count
