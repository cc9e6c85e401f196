"""What a decoder of audio files is, and which files there are decoders for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .lengths import LengthClaim

Block = npt.NDArray[np.float32]


# Containers that libsndfile knows: a file so named that it cannot read is damaged or misnamed.
SOUNDFILE_SUFFIXES = frozenset(
    ".wav .flac .ogg .oga .opus .mp3 .aif .aiff .aifc .caf .au .snd .w64 .rf64 .bwf".split()  # noqa: SIM905
)


# What a folder is searched for; single files may have any name.
OTHER_SUFFIXES = (
    ".m4a .mp4 .m4b .aac .ac3 .alac .wma .webm .mkv .mka .mov .ape .wv .mpc .amr .dsf .tta .avi .ts"
)


AUDIO_SUFFIXES = SOUNDFILE_SUFFIXES | frozenset(OTHER_SUFFIXES.split())


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
