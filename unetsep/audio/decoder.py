"""What a decoder of audio files is, and which files there are decoders for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .lengths import LengthClaim
from .tags import Tags

Block = npt.NDArray[np.float32]


# Containers that libsndfile knows: a file so named that it cannot read is damaged or misnamed.
# Not .raw, whose samples nothing describes, and .mat, which are mostly other data.
SOUNDFILE_SUFFIXES = frozenset(
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .caf .au .snd "  # noqa: SIM905
    ".voc .avr .iff .svx .8svx .paf .fap .pvf .sds .sf .ircam .nist .sph .htk .wve .xi".split()
)
# What ffmpeg reads beside them.
FFMPEG_SUFFIXES = frozenset(
    ".m4a .m4b .m4r .mp4 .m4v .mov .qt .3gp .3gpp .3g2 .f4a .f4v .flv .aac .ac3 .eac3 .ec3 .dts "  # noqa: SIM905
    ".dtshd .thd .mlp .alac .wma .wmv .asf .webm .mkv .mka .avi .divx .ogv .ogm .ogx .spx .ts .mts "
    ".m2ts .mpg .mpeg .vob .mpa .m2a .ape .wv .mpc .mp+ .tak .tta .shn .dsf .dff .amr .awb .gsm "
    ".ra .rm .rmvb .dv .mxf .nut .oma .omg .aa3 .at3 .aea .vqf .weba .3ga .adts .latm .loas .m2t "
    ".mk3d .isma .ismv .wtv .sox .dss .mac".split()
)
# What a folder is searched for; single files may have any name.
AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | FFMPEG_SUFFIXES
# That are decoded at a time to be dropped.
SKIP_FRAMES = 1 << 16


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
        ``"8"``, ``"16"``, ``"24"``, ``"32"``, ``"32f"`` or ``"64f"``: that of its samples, or
        for lossy ones what holds them when they are decoded.
    channel_mask
        Speakers that the channels are for, as in wav files; 0 where nothing is said. The
        channels stand in the order of its bits.
    tags
        What it says of the song, where somebody asked for that.
    time_reference
        The first sample's place in a session, in samples from midnight, of broadcast wav files
        (EBU Tech 3285); 0 where nothing is said.
    """

    sample_rate: int
    channels: int
    frames: int | None
    bit_depth: str
    channel_mask: int = 0
    tags: Tags = field(default_factory=Tags)
    time_reference: int = 0


class Decoder(Protocol):
    """An open audio file.

    ``warnings`` are sentences for the user, those of the claim and what turns up in decoding.
    """

    info: AudioInfo
    length: LengthClaim
    warnings: list[str]

    def read(self, frames: int) -> Block:
        """Up to ``frames`` samples, ``(frames, channels)``; empty at the end."""

    def seek(self, frame: int) -> None:
        """Move to a sample, before anything was read."""

    def at_end(self) -> bool:
        """Whether decoding ended where the file ends, as far as that can be told."""

    def close(self) -> None:
        """Release the file."""


def skip(read: Callable[[int], Block], frames: int, step: int = SKIP_FRAMES) -> None:
    """Decode and drop samples, or all there are.

    Parameters
    ----------
    read
        Of a decoder.
    frames
        How many; none if it is negative.
    step
        How many at a time.
    """
    while frames > 0 and (count := len(read(min(frames, step)))):
        frames -= count
