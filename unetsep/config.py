"""The one description of a model: it travels inside every checkpoint."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

STEMS = ("vocals", "drums", "bass", "other")


@dataclass(frozen=True)
class ModelConfig:
    """Signal path and network of one model.

    Every number that both training and separation need is here, and nowhere else.

    Parameters
    ----------
    stems
        Names of the stems, in the order of the network's output.
    sample_rate
        Rate in Hz at which the network works; other rates are resampled there and back.
    channels
        Channels the network sees at once.
    n_fft, hop_length
        STFT window and hop in samples; ``hop_length`` must be ``n_fft / 4``, for which
        the squared Hann windows add up to the constant 1.5.
    bins
        The lowest STFT bins, which the network sees (1024 bins: 0 to 11 025 Hz). Above
        them the mask is extended, see `unetsep.spectrogram.extend_mask`.
    filters
        Output channels of the encoder's levels; each level halves bins and frames.
    kernel_size
        Side of the square convolution kernels.
    mask
        ``"softmax"``: the stems of one network share each bin and their masks sum to
        one. ``"sigmoid"``: each stem has a mask of its own.
    log_floor
        Magnitudes are compressed as ``log(m + log_floor)`` before the network, ``m``
        relative to the segment's RMS; 1e-4 is -80 dB.
    segment_frames, overlap
        Frames the network sees at once when separating (512 frames are 11.9 s), and the
        share of them that neighbouring segments have in common, at most 0.5. At 0.5 every
        frame is the mean of two segments and errors at borders are no larger than elsewhere.

    Raises
    ------
    ValueError
        If the numbers do not fit together; the message names the field.
    """

    stems: tuple[str, ...] = STEMS
    sample_rate: int = 44_100
    channels: int = 2
    n_fft: int = 4096
    hop_length: int = 1024
    bins: int = 1024
    filters: tuple[int, ...] = (24, 32, 64, 96, 128, 160)
    kernel_size: int = 5
    mask: str = "softmax"
    log_floor: float = 1e-4
    segment_frames: int = 512
    overlap: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "stems", tuple(self.stems))
        object.__setattr__(self, "filters", tuple(self.filters))
        stride = self.frame_multiple
        checks = {
            "stems": bool(self.stems) and len(set(self.stems)) == len(self.stems),
            "sample_rate": self.sample_rate > 0,
            "channels": self.channels in (1, 2),
            "n_fft": self.n_fft > 0,
            "hop_length": self.hop_length * 4 == self.n_fft,
            "filters": bool(self.filters) and min(self.filters) > 0,
            "bins": 0 < self.bins <= self.n_fft // 2 + 1 and self.bins % stride == 0,
            "kernel_size": self.kernel_size % 2 == 1 and self.kernel_size >= 3,
            "mask": self.mask in ("softmax", "sigmoid"),
            "log_floor": self.log_floor > 0,
            "segment_frames": self.segment_frames > 0 and self.segment_frames % stride == 0,
            "overlap": 0 <= self.overlap <= 0.5,
        }
        for name, holds in checks.items():
            if not holds:
                raise ValueError(f"model config: {name}={getattr(self, name)!r} is not usable")

    @property
    def frame_multiple(self) -> int:
        """Bins and frames given to the network must be multiples of this."""
        return int(2 ** len(self.filters))

    def to_json(self) -> str:
        """The config as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build a config from a mapping, refusing keys this version does not know."""
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"model config: unknown keys {unknown}; a newer unetsep wrote it")
        return cls(**values)
