"""Progress bars of ``train``: decoding of recordings, and the run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..train.data.cache import DecodingProgress
from ..train.module import SeparationModule
from .terminal import can_draw, duration

# Seconds between updates; reading a loss makes an accelerator wait.
UPDATE_EVERY = 1.0
# Steps between which speed is measured, to predict the run's length; the first steps are slower.
FIRST_MEASURED, LAST_MEASURED = 3, 13


class ProgressBar(Callback):
    """Shows clips per second, losses, validation SDR and remaining time.

    Parameters
    ----------
    console
        Where to draw; without a terminal only a line for each validation is printed.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        text = TextColumn("{task.description}")
        self.bar = Progress(BarColumn(bar_width=24), text, console=console, transient=True)
        self.task = self.bar.add_task("starting", total=1.0)
        self._update_time = 0.0
        self._start: tuple[float, int] | None = None  # time and step
        self._measurement_start = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar on a terminal."""
        self._start = (time.monotonic(), trainer.global_step)
        if trainer.is_global_zero and can_draw(self.console):
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *arguments: Any
    ) -> None:
        """Update the bar at most once a second; once, print how long the run will take."""
        now = time.monotonic()
        self._predict_length(trainer, pl_module, now)
        if not self.bar.live.is_started or now - self._update_time < UPDATE_EVERY:
            return
        assert isinstance(pl_module, SeparationModule)
        assert self._start is not None
        self._update_time = now
        config, step, share = pl_module.config, trainer.global_step, pl_module.progress
        start_time, start_step = self._start
        clips = (step - start_step) * config.batch_size * trainer.world_size
        rate = clips / max(1e-9, now - start_time)
        remaining = pl_module.clock.seconds() * (1 - share) / share if share else 0.0
        parts = [f"step {step}", f"{rate:.1f} clips/s", f"loss {float(outputs['loss']):.4f}"]
        best = pl_module.schedule.best
        parts += [f"{name} {value:.2f} dB" for name, value in best.items() if value > -1e9]
        parts.append(f"{duration(remaining)} left")
        self.bar.update(self.task, completed=share, description=", ".join(parts))

    def _predict_length(self, trainer: Trainer, pl_module: LightningModule, now: float) -> None:
        assert self._start is not None
        step, start_step = trainer.global_step, self._start[1]
        if step == start_step + FIRST_MEASURED:
            self._measurement_start = now
        if step != start_step + LAST_MEASURED or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SeparationModule)
        config = pl_module.config
        step_seconds = (now - self._measurement_start) / (LAST_MEASURED - FIRST_MEASURED)
        seconds = step_seconds * (config.max_steps - step)
        limit = 60 * config.max_minutes
        if limit and limit - pl_module.clock.seconds() < seconds:  # of a resumed run less is left
            length = f"--max-minutes ends the run after {duration(limit)}"
        else:
            length = (
                f"the {config.max_steps} steps take about {duration(seconds)}, plus validations; "
                "--max-minutes limits the time"
            )
        speed = config.batch_size * trainer.world_size / max(step_seconds, 1e-9)
        self.console.print(f"{speed:.1f} clips/s: {length}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores as a permanent line."""
        assert isinstance(pl_module, SeparationModule)
        if not trainer.is_global_zero:
            return
        for name, scores in pl_module.scores.items():
            values = ", ".join(f"{stem} {value:.2f}" for stem, value in scores.items())
            star = " (best)" if name in pl_module.improvements else ""
            self.console.print(f"step {trainer.global_step} {name}: SDR in dB {values}{star}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remove the bar."""
        _stop(self.bar)


@contextmanager
def decoding(console: Console) -> Iterator[DecodingProgress]:
    """A bar for decoding, shown only if there is something to decode."""
    bar = Progress(
        TextColumn("Decoding"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    )
    task = bar.add_task("decoding", total=None)

    def advance(completed: int, total: int) -> None:
        if completed < total and can_draw(console) and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=completed, total=total)

    try:
        yield advance
    finally:
        _stop(bar)


def _stop(bar: Progress) -> None:
    """Stop a bar that may never have started; rich would print an empty line for it."""
    if bar.live.is_started:
        bar.stop()
