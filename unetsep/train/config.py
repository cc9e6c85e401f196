"""The one description of a training run; saved with every run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import STEM_NAMES, STEMS, ModelConfig
from ..errors import UnetsepError
from ..network.presets import DEFAULT, NETWORKS

PRECISIONS = ("fp32", "bf16", "fp16")
SCHEDULES = ("cosine", "plateau")
OPTIMIZERS = ("muon", "adamw")

# Share of a stem that is drawn from ``songs`` and ``pools`` instead of MUSDB18. Extra bass
# lowers the validation SDR: the extra recordings hold little of it, all synthetic.
EXTRA_SHARE, EXTRA_BASS = 0.4, 0.15
# One stem this much louder and another this much softer: the other is silence beside it.
MAX_GAIN_DB = 60.0
# Names that recordings use for something other than a stem.
RESERVED = ("mixture", "unknown", "mean")


def extra_shares(stems: Sequence[str]) -> dict[str, float]:
    """Those of a config whose ``extra_share`` is None."""
    return {stem: EXTRA_BASS if stem == "bass" else EXTRA_SHARE for stem in stems}


class TrainingError(UnetsepError):
    """A training run that cannot start or continue."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    losses
        Names from `unetsep.train.losses.functions.LOSSES`; one network is trained for each, all on
        the same batches and from the same initial weights. `unetsep.train.fit.fit` also takes your
        own, ``losses.py:mine``.
    own_losses
        Of those that are not unetsep's: where each is from, and the SHA-256 of its file; see
        `unetsep.train.losses.own.add_loss`.
    stems
        What songs are made of: the sum of a clip's stems is its mixture.
    model
        Network and signal path; it estimates all stems or some.
    max_steps, max_minutes
        The run ends at whichever comes first, with the learning rate annealed. The minutes
        count from the first step and include validation; 0 means no limit.
    batch_size, clip_frames
        Clips in a batch of one process, and STFT frames in a clip: 256 uncentred frames
        are 265 216 samples, six seconds.
    learning_rate, warmup_steps, weight_decay, clip_norm
        Linear warm-up and gradient clipping, each network by itself.
    optimizer
        ``muon``, see `unetsep.train.muon`, or ``adamw``.
    muon_size
        Length of Muon's steps; 0.2 is that of AdamW's. From random weights 0.8 gets further
        in the first 400 steps, and 2.0 no further; trained weights need less.
    schedule
        ``cosine`` falls to zero at the end of the run. ``plateau`` is multiplied by
        ``plateau_factor`` after ``plateau_patience`` validations without a better SDR, and
        falls linearly to zero over the last tenth of the run.
    ema_decay
        Exponential moving average of the weights, which is what is evaluated and exported.
    precision
        ``bf16`` and ``fp16`` run the convolutions in half precision (autocast).
    freeze_norm
        Use BatchNorm's running statistics without updating them, for fine-tuning.
    coherent_share
        Share of clips whose stems all come from one place in one song.
    extra_share
        For each stem, the probability that a random mix takes it from ``songs``/``pools``;
        None, to which equal shares are set, means those of `extra_shares`.
    second_share
        For each stem, the probability that a random mix has two recordings of it at once.
    gain_db
        Each stem's gain is drawn uniformly from plus or minus this many decibels,
        at most 60.
    coherent_gain_db
        The same for coherent clips; None: as for the others.
    drop_share
        Probability with which a stem of a clip is silenced; one always remains.
    varispeed
        Each stem is played faster or slower, pitch and tempo together, by a factor drawn
        from 1 plus or minus this. 0: off.
    coherent_varispeed
        The same for coherent clips, all stems of which have one speed.
    eq_db
        Each stem gets a smooth random equaliser: a tilt of up to plus or minus this many
        decibels at the ends of the spectrum, with lesser waves on top. 0: off.
    reverb_share
        Probability with which a stem gets artificial reverb. 0: off.
    part
        Train ``all`` of the network, or only its branch for ``low`` bins, with the loss in these
        bins alone.
    own_share
        With a guide: weight of the loss of the network's own mask of the vocals, relative to
        that of another stem; see `unetsep.train.losses.guidance`.
    stereo_share
        Probability with which a stem is turned and widened or narrowed, by a random 2x2 matrix.
        0: off.
    drive_share
        Probability with which a stem is saturated, by tanh. 0: off.
    artist_weights
        Draw artists, of whom there may be many recordings, instead of recordings; see
        `unetsep.train.data.clip_plans.draw_weights`.
    all_songs
        Train on the validation songs, too (`unetsep.train.data.run_data.load_data` adds them),
        and keep the last weights instead of the best. It is for the last phase of a model, in
        which nothing remains to be selected.
    seed
        Of the initial weights and of every clip, below 2^63.
    valid_every, log_every
        Steps between validations (and saved checkpoints), and between lines of the log, the
        first of which is that of step 1.
    watched
        Number of training recordings that each validation scores, too, for comparison.
    early_stop
        End after this many validations without a better SDR in any network; 0: never.

    Raises
    ------
    ValueError
        If a number is out of range; the message names the field.
    """

    losses: tuple[str, ...] = ("l1",)
    own_losses: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    stems: tuple[str, ...] = STEMS
    model: ModelConfig = field(default_factory=lambda: NETWORKS[DEFAULT])
    max_steps: int = 20_000
    max_minutes: float = 0.0
    batch_size: int = 4
    clip_frames: int = 256
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    optimizer: str = "muon"
    muon_size: float = 0.8
    schedule: str = "cosine"
    plateau_patience: int = 10
    plateau_factor: float = 0.3
    ema_decay: float = 0.995
    precision: str = "fp32"
    freeze_norm: bool = False
    coherent_share: float = 0.3
    extra_share: Mapping[str, float] | None = None
    second_share: Mapping[str, float] = field(default_factory=dict)
    gain_db: float = 6.0
    coherent_gain_db: float | None = None
    drop_share: float = 0.05
    varispeed: float = 0.0
    coherent_varispeed: float | None = None
    eq_db: float = 0.0
    reverb_share: float = 0.0
    own_share: float = 0.25
    part: str = "all"
    stereo_share: float = 0.0
    drive_share: float = 0.0
    artist_weights: bool = False
    all_songs: bool = False
    seed: int = 0
    valid_every: int = 200
    log_every: int = 20
    watched: int = 0
    early_stop: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "losses", tuple(self.losses))
        object.__setattr__(self, "stems", tuple(self.stems))
        if self.extra_share == extra_shares(self.stems):  # as saved runs have them
            object.__setattr__(self, "extra_share", None)
        divisible = self.clip_frames % self.model.frame_multiple == 0
        checks = {
            "losses": bool(self.losses) and len(set(self.losses)) == len(self.losses),
            "own_losses": set(self.own_losses) <= set(self.losses),
            "stems": 2 <= len(set(self.stems)) == len(self.stems)
            and all(stem.isidentifier() and stem not in RESERVED for stem in self.stems),
            "max_steps": self.max_steps > 0,
            "max_minutes": self.max_minutes >= 0,
            "batch_size": self.batch_size > 0,
            "clip_frames": self.clip_frames > 0 and divisible,
            "learning_rate": 0 < self.learning_rate < math.inf,
            "warmup_steps": self.warmup_steps >= 0,
            "weight_decay": 0 <= self.weight_decay < math.inf,
            "clip_norm": self.clip_norm > 0,
            "optimizer": self.optimizer in OPTIMIZERS,
            "muon_size": 0 < self.muon_size < math.inf,
            "schedule": self.schedule in SCHEDULES,
            "plateau_patience": self.plateau_patience > 0,
            "plateau_factor": 0 < self.plateau_factor < 1,
            "ema_decay": 0 <= self.ema_decay < 1,
            "precision": self.precision in PRECISIONS,
            "coherent_share": 0 <= self.coherent_share <= 1,
            "extra_share": self._are_shares(self.extra_shares),
            "second_share": self._are_shares(self.second_share),
            "drop_share": 0 <= self.drop_share < 1,
            "gain_db": 0 <= self.gain_db <= MAX_GAIN_DB,
            "coherent_gain_db": 0 <= (self.coherent_gain_db or 0) <= MAX_GAIN_DB,
            "varispeed": 0 <= self.varispeed <= 0.3,
            "coherent_varispeed": 0 <= (self.coherent_varispeed or 0) <= 0.3,
            "eq_db": 0 <= self.eq_db <= 24,
            "reverb_share": 0 <= self.reverb_share <= 1,
            "stereo_share": 0 <= self.stereo_share <= 1,
            "drive_share": 0 <= self.drive_share <= 1,
            "own_share": 0 <= self.own_share < math.inf,
            "part": self.part == "all" or (self.part == "low" and self.model.low_bins > 0),
            "seed": 0 <= self.seed < 2**63,
            "valid_every": self.valid_every > 0,
            "log_every": self.log_every > 0,
            "watched": self.watched >= 0,
            "early_stop": self.early_stop >= 0,
        }
        hints = {
            "stems": f": expected two or more {STEM_NAMES}, other than {', '.join(RESERVED)}",
            "clip_frames": f": expected a multiple of {self.model.frame_multiple}",
        }
        for name, is_valid in checks.items():
            if not is_valid:
                why = hints.get(name, "")
                raise ValueError(
                    f"training config: {name}={getattr(self, name)!r} is not usable{why}"
                )
        for stem in self.model.stems:
            if stem not in self.stems:
                raise ValueError(f"there is no target {stem!r}: expected {', '.join(self.stems)}")

    def _are_shares(self, shares: Mapping[str, float]) -> bool:
        return set(shares) <= set(self.stems) and all(0 <= s <= 1 for s in shares.values())

    @property
    def extra_shares(self) -> Mapping[str, float]:
        """``extra_share``, or the shares that its None stands for."""
        return extra_shares(self.stems) if self.extra_share is None else self.extra_share

    @property
    def targets(self) -> list[int]:
        """Places in ``stems`` of those that the model estimates, in its order."""
        return [self.stems.index(stem) for stem in self.model.stems]

    @property
    def clip_samples(self) -> int:
        """Samples of a clip: exactly ``clip_frames`` uncentred frames."""
        return self.model.n_fft + (self.clip_frames - 1) * self.model.hop_length

    def to_json(self) -> str:
        """The config as indented JSON, with the extra shares in numbers."""
        values = dataclasses.asdict(self) | {"extra_share": dict(self.extra_shares)}
        return json.dumps(values, indent=1)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what `to_json` wrote, refusing keys this version does not know."""
        values: dict[str, Any] = json.loads(text)
        unknown = sorted(set(values) - {each.name for each in dataclasses.fields(cls)})
        if unknown:
            raise ValueError(f"training config: unknown keys {unknown}; another version wrote it")
        return cls(**values | {"model": ModelConfig.from_dict(values["model"])})
