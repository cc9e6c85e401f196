"""The one description of a model: it travels inside every checkpoint."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

STEMS = ("vocals", "drums", "bass", "other")
MAX_STEMS = 64
# Channels of a song; more mean transposed axes, or a damaged header.
MAX_CHANNELS = 64
# In Hz; a lower rate is in kHz by mistake, or from a damaged header.
MIN_RATE = 1000
# Samples beyond this are damage, not audio: sums of squares in the signal path would overflow.
LOUDEST = 1e12
# Limits far beyond useful values: the config of a file from elsewhere must not make a program
# allocate huge networks or buffers.
MAX_LEVELS, MAX_FILTERS, MAX_SEGMENT, MAX_N_FFT, MAX_RATE = 10, 4096, 8192, 65_536, 1_000_000
MAX_ITERATIONS = 100
# Of numbers that are added in single precision: others would become 0 or infinity there.
MIN_ADDED, MAX_ADDED = 1e-30, 1e30
# The highest gate that costs no more than 0.01 dB of SDR on musdb's validation songs.
GATE_DB = -20.0

# Choices of each field, the default first.
CHOICES = {
    "mask": ("softmax", "sigmoid"),
    "networks": ("joint", "per_stem", "guided"),
    "input": ("log", "linear"),
    "padding": ("torch", "same"),
    "activation": ("relu", "elu"),
    "skips": ("activated", "raw"),
    "head": ("transposed", "dilated"),
}

# Expected values, for messages about fields that users set by options.
STEM_NAMES = "different names of letters, digits and underscores, none with a digit first"
EXPECTED = {
    "stems": f"1 to {MAX_STEMS} {STEM_NAMES}",
    "guide": "a network of several stems, vocals among them, whose masks sum to one",
    "low_bins": "a network with a guide, and a multiple of 4 bins",
    "low_first": "an even number, and all bins of the branch in the lower half",
}

# Fields that must be equal in models whose masks are averaged.
SIGNAL_PATH = (
    *("stems", "sample_rate", "channels", "n_fft", "hop_length", "bins"),
    *("frame_multiple", "lead_frames", "pad_segments"),
)


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
        them the mask is extended, see `unetsep.dsp.spectrogram.extension_weights`.
    filters
        Output channels of the encoder's levels; each level halves bins and frames. CPUs are
        fastest with multiples of 16, as many numbers as a vector unit takes at once.
    kernel_size
        Side of the square convolution kernels.
    bin_units
        Size of the fully connected layer along frequency that follows each level, see
        `unetsep.network.layers.BinMixing`; 0 for none.
    mask
        ``"softmax"``: the stems of one network share each bin and their masks sum to
        one. ``"sigmoid"``: each stem has a mask of its own.
    log_floor
        Magnitudes are compressed as ``log(m + log_floor)`` before the network, ``m``
        relative to the segment's RMS; 1e-4 is -80 dB.
    segment_frames, overlap
        Frames the network sees at once when separating (512 frames are 11.9 s), and the
        share that neighbouring segments have in common, at most 0.5. At 0.5 every frame is the
        mean of two segments.
    lead_frames, pad_segments
        Silent frames before the song that the first segment begins with, and whether the
        last segment is filled up with silence instead of being moved back. Spleeter's
        blocks begin one frame early and are filled up.
    networks
        ``"joint"``: one network for all stems. ``"per_stem"``: a network for each stem.
        ``"guided"``: one network for all stems and a guide, see `unetsep.network.guided`.
    guide
        SHA-256 of the checkpoint of the guide, a network that several models may share; empty
        for other kinds of networks.
    guide_weight
        Share of the guide in the vote on the vocals, 0 to 1.
    guide_states
        Channels of the guide's decoder at its upper levels, from the first on, if the encoder of
        a guided network sees them. See `unetsep.network.guided`; by default it does not.
    low_bins, low_first, low_filters
        Bins in which a branch of a guided network corrects how the rest is divided, the first of
        them, and the branch's channels. See `unetsep.network.low_band`. 0 bins: no branch.
    input
        ``"log"``: compressed magnitudes relative to the segment's level, normalised per
        bin. ``"linear"``: magnitudes as they are.
    padding
        Of the strided convolutions: ``"torch"`` pads both sides by half a kernel,
        ``"same"`` one element less before, as TensorFlow does.
    activation
        ``"relu"``: LeakyReLU with slope 0.2 in the encoder, ReLU in the decoder; ``"elu"``.
    skips
        ``"activated"``: skips carry what the next level sees, and the decoder normalises
        before the activation. ``"raw"``: skips and the decoder's input are convolutions'
        outputs before BatchNorm, and the decoder normalises after the activation.
    head
        ``"transposed"``: the last transposed convolution gives the masks. ``"dilated"``: it
        gives one channel, from which a 4x4 convolution with dilation 2 makes the masks.
    norm_epsilon
        Added to BatchNorm's variances.
    mask_exponent, mask_epsilon
        Masks become ``(e^p + epsilon / stems) / (sum of e^p + epsilon)`` with exponent
        ``p``, so that they sum to one; ``e`` is the mask, for linear input the mask times
        the magnitude. 0 leaves masks as they are. None means 2 for several sigmoid masks
        and otherwise 0.
    gate_db
        A stem whose share of the power stays below this many dB for a while is attenuated
        further, see `unetsep.network.masks.gate_`; None leaves masks as they are. Only for
        masks that sum to one.
    wiener
        Iterations of the Wiener filter that refines the stems by default, see
        `unetsep.dsp.wiener`; 0 for none.

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
    filters: tuple[int, ...] = (16, 32, 64, 80, 112, 128)
    kernel_size: int = 5
    bin_units: int = 0
    mask: str = "softmax"
    log_floor: float = 1e-4
    segment_frames: int = 512
    overlap: float = 0.25
    lead_frames: int = 0
    pad_segments: bool = False
    networks: str = "joint"
    input: str = "log"
    padding: str = "torch"
    activation: str = "relu"
    skips: str = "activated"
    head: str = "transposed"
    norm_epsilon: float = 1e-5
    mask_exponent: float | None = None
    mask_epsilon: float = 1e-10
    guide: str = ""
    guide_weight: float = 0.7
    guide_states: tuple[int, ...] = ()
    low_bins: int = 0
    low_first: int = 0
    low_filters: int = 24
    gate_db: float | None = None
    wiener: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):  # from JSON
                value = tuple(value)
                object.__setattr__(self, field.name, value)
            self._check(field.name, holds=_is_of_type(value, str(field.type)))
        stride = self.frame_multiple
        checks = {
            "stems": 0 < len(set(self.stems)) == len(self.stems) <= MAX_STEMS
            and all(stem.isidentifier() for stem in self.stems),
            "sample_rate": 0 < self.sample_rate <= MAX_RATE,
            "channels": self.channels in (1, 2),
            "n_fft": 0 < self.n_fft <= MAX_N_FFT,
            "hop_length": self.hop_length * 4 == self.n_fft,
            "filters": 0 < len(self.filters) <= MAX_LEVELS
            and 0 < min(self.filters) <= max(self.filters) <= MAX_FILTERS,
            "bins": 0 < self.bins <= self.n_fft // 2 + 1 and self.bins % stride == 0,
            "kernel_size": self.kernel_size % 2 == 1 and 3 <= self.kernel_size <= 31,
            "bin_units": 0 <= self.bin_units <= MAX_FILTERS,
            "log_floor": MIN_ADDED <= self.log_floor <= MAX_ADDED,
            "segment_frames": 0 < self.segment_frames <= MAX_SEGMENT
            and self.segment_frames % stride == 0,
            "overlap": 0 <= self.overlap <= 0.5,
            "lead_frames": 0 <= 2 * self.lead_frames <= self.segment_frames,
            "norm_epsilon": MIN_ADDED <= self.norm_epsilon <= MAX_ADDED,
            "mask_exponent": self.mask_exponent is None or self.mask_exponent >= 0,
            "mask_epsilon": MIN_ADDED <= self.mask_epsilon <= MAX_ADDED,
            "guide": bool(re.fullmatch("[0-9a-f]{64}", self.guide)) and self._guidable
            if self.networks == "guided"
            else not self.guide,
            "guide_weight": 0 <= self.guide_weight <= 1,
            "guide_states": not self.guide_states
            or (
                self.networks == "guided"
                and len(self.guide_states) < len(self.filters)
                and 0 < min(self.guide_states) <= max(self.guide_states) <= 2 * MAX_FILTERS
            ),
            "low_bins": self.low_bins == 0
            or (self.networks == "guided" and self.low_bins > 0 and self.low_bins % 4 == 0),
            "low_first": self.low_first % 2 == 0
            and 0 <= self.low_first <= self.bins // 2 - self.low_bins,
            "low_filters": 0 < self.low_filters <= MAX_FILTERS,
            "gate_db": self.gate_db is None or (self.complete and -100 <= self.gate_db < 0),
            "wiener": 0 <= self.wiener <= MAX_ITERATIONS,
        } | {name: getattr(self, name) in choices for name, choices in CHOICES.items()}
        for name, holds in checks.items():
            self._check(name, holds=holds)

    def _check(self, name: str, *, holds: bool) -> None:
        """Refuse the value of a field unless its check holds."""
        if not holds:
            expected = f": expected {EXPECTED[name]}" if name in EXPECTED else ""
            raise ValueError(
                f"model config: {name}={repr(getattr(self, name))[:60]} is not usable{expected}"
            )

    @property
    def frame_multiple(self) -> int:
        """Bins and frames given to the network must be multiples of this."""
        return int(2 ** len(self.filters))

    @property
    def _guidable(self) -> bool:
        """Whether a guide can be combined with these masks and this input."""
        softmax = self.mask == "softmax" and self.ratio_exponent == 0
        return softmax and self.input == "log" and "vocals" in self.stems and len(self.stems) > 1

    @property
    def ratio_exponent(self) -> float:
        """The exponent of the ratio masks, 0 for masks that stay as they are."""
        if self.mask_exponent is not None:
            return self.mask_exponent
        return 2.0 if self.mask == "sigmoid" and len(self.stems) > 1 else 0.0

    @property
    def independent(self) -> bool:
        """Whether a stem can be computed without the others."""
        independent_masks = self.mask == "sigmoid" and self.ratio_exponent == 0
        return independent_masks and self.networks == "per_stem"

    @property
    def complete(self) -> bool:
        """Whether the masks of all stems sum to one."""
        softmax = self.mask == "softmax" and self.networks != "per_stem"
        return self.ratio_exponent != 0 or (softmax and len(self.stems) > 1)

    @property
    def as_trained(self) -> ModelConfig:
        """The config without fields that training ignores: segments, gate and Wiener filter.

        Networks can take each other's weights if these are equal.
        """
        # The longest segment is valid for any number of levels.
        return dataclasses.replace(
            self, segment_frames=MAX_SEGMENT, overlap=0.0, gate_db=None, wiener=0
        )

    def guided(self, guide: str, states: Sequence[int] = ()) -> ModelConfig:
        """The config of the same network with a guide; its stems are gated and filtered.

        Parameters
        ----------
        guide, states
            See ``guide`` and ``guide_states``.
        """
        return dataclasses.replace(
            self,
            networks="guided",
            guide=guide,
            guide_states=tuple(states),
            gate_db=GATE_DB,
            wiener=1,
        )

    def to_json(self) -> str:
        """The config as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Build a config from a mapping, refusing keys this version does not know."""
        names = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise ValueError(f"model config: unknown keys {unknown}; a newer unetsep wrote it")
        return cls(**values)


def _is_of_type(value: object, annotation: str) -> bool:
    """Whether a field of a type such as ``tuple[int, ...]`` may hold a value; floats are finite."""
    if annotation.startswith("tuple["):
        item = annotation.removeprefix("tuple[").removesuffix(", ...]")
        return isinstance(value, tuple) and all(_is_of_type(each, item) for each in value)
    if annotation.endswith(" | None"):
        return value is None or _is_of_type(value, annotation.removesuffix(" | None"))
    if annotation == "float":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
    kind = {"int": int, "str": str, "bool": bool}[annotation]
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def common_config(configs: Sequence[ModelConfig], name: str) -> ModelConfig:
    """The config of the mean of several models' masks.

    It is the first model's, but stems are gated and filtered if any model's config says so,
    independent of the order; gated only if the masks of all models sum to one.

    Parameters
    ----------
    configs
        Of one or more models.
    name
        Their name in messages.

    Raises
    ------
    ValueError
        If they differ in a field of `SIGNAL_PATH`.
    """
    first = configs[0]
    for other in configs[1:]:
        for field in SIGNAL_PATH:
            value, other_value = getattr(first, field), getattr(other, field)
            if value != other_value:
                raise ValueError(
                    f"the masks of {name} cannot be averaged: their {field} differ: {value} "
                    f"and {other_value}"
                )
    gates = [config.gate_db for config in configs if config.gate_db is not None]
    return dataclasses.replace(
        first,
        gate_db=min(gates) if gates and all(config.complete for config in configs) else None,
        wiener=max(config.wiener for config in configs),
    )
