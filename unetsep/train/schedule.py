"""Learning rate over a run that may be limited by steps, by minutes, or by both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from .config import TrainConfig

# Share of a run with the plateau schedule over which the rate falls to zero at the end.
FINAL_SHARE = 0.1


class Clock:
    """How much of a run is over, and when to stop.

    With a limit in minutes the time that the next validation will take is set aside, so that
    the run ends on time, final validation included.

    Parameters
    ----------
    config
        Gives both limits.
    now
        Monotonic time in seconds.
    """

    def __init__(self, config: TrainConfig, now: Callable[[], float]) -> None:
        self.config, self.now = config, now
        self.earlier_seconds = 0.0  # seconds that interrupted parts of the run took
        self.validation = 0.0  # seconds of the longest validation so far
        self.start_time = now()

    def start(self) -> None:
        """Start the clock at the first step."""
        self.start_time = self.now()

    def seconds(self) -> float:
        """Seconds of the run so far, interrupted parts included."""
        return self.earlier_seconds + self.now() - self.start_time

    def progress(self, step: int) -> float:
        """Share of the run that is over before step ``step`` (from 0), 0 to 1."""
        share = step / self.config.max_steps
        if self.config.max_minutes:
            budget = 60 * self.config.max_minutes
            share = max(share, self.seconds() / max(1e-9, budget - self.validation))
        return min(1.0, share)


class Schedule:
    """Linear warm-up, then cosine or plateau, one factor for each network.

    Parameters
    ----------
    config
        Rates and patience.
    names
        Of the networks.
    """

    def __init__(self, config: TrainConfig, names: Sequence[str]) -> None:
        self.config = config
        self.factor = dict.fromkeys(names, 1.0)
        self.best = dict.fromkeys(names, -math.inf)
        self.stale = dict.fromkeys(names, 0)

    def rate(self, name: str, step: int, progress: float) -> float:
        """Learning rate of a network at a step (from 0), with the progress of `Clock.progress`."""
        config = self.config
        rate = config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))
        if config.schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * progress))
        return rate * self.factor[name] * min(1.0, (1 - progress) / FINAL_SHARE)

    def record(self, name: str, score: float) -> bool:
        """Record a validation SDR in dB; return whether it is the network's best."""
        better = score > self.best[name]
        self.best[name] = max(self.best[name], score)
        self.stale[name] = 0 if better else self.stale[name] + 1
        if self.stale[name] and self.stale[name] % self.config.plateau_patience == 0:
            self.factor[name] *= self.config.plateau_factor
        return better

    def exhausted(self) -> bool:
        """Whether no network has improved for ``early_stop`` validations."""
        patience = self.config.early_stop
        return patience > 0 and all(stale >= patience for stale in self.stale.values())

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"factor": dict(self.factor), "best": dict(self.best), "stale": dict(self.stale)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a `state_dict`."""
        self.factor, self.best = dict(state["factor"]), dict(state["best"])
        self.stale = dict(state["stale"])
