"""The one description of a training run; saved with every run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..config import ModelConfig

# Share of stems drawn from ``songs`` and ``pools`` instead of MUSDB18. Extra bass lowers
# the validation SDR: the extra recordings hold little of it, all synthetic.
EXTRA_SHARE = {"vocals": 0.4, "drums": 0.4, "bass": 0.15, "other": 0.4}


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    losses
        Names from `unetsep.train.losses.LOSSES`; one network is trained for each, all on
        the same batches and from the same initial weights.
    model
        Network and signal path.
    max_steps, max_minutes
        The run ends at whichever comes first, with the learning rate annealed.
    batch_size, clip_frames
        Clips in a batch, and STFT frames in a clip: 256 uncentred frames are 265 216
        samples, six seconds.
    learning_rate, warmup_steps, weight_decay, clip_norm
        AdamW with linear warm-up, cosine decay to zero and gradient clipping.
    ema_decay
        Exponential moving average of the weights, which is what is evaluated and exported.
    coherent_share
        Share of clips whose stems all come from one place in one song.
    extra_share
        For each stem, the probability that a random mix takes it from ``songs``/``pools``.
    gain_db
        Each stem's gain is drawn uniformly from plus or minus this many decibels.
    seed
        Of the initial weights and of every clip.
    """

    losses: tuple[str, ...] = ("mse",)
    model: ModelConfig = field(default_factory=ModelConfig)
    max_steps: int = 2000
    max_minutes: float = 600.0
    batch_size: int = 4
    clip_frames: int = 256
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    weight_decay: float = 1e-2
    clip_norm: float = 1.0
    ema_decay: float = 0.995
    coherent_share: float = 0.3
    extra_share: Mapping[str, float] = field(default_factory=lambda: dict(EXTRA_SHARE))
    gain_db: float = 6.0
    seed: int = 0
    valid_every: int = 200

    @property
    def clip_samples(self) -> int:
        """Samples of a clip: exactly ``clip_frames`` uncentred frames."""
        return self.model.n_fft + (self.clip_frames - 1) * self.model.hop_length
