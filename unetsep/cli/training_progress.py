"""Bars of ``train``: recordings that are decoded, and the run."""

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
from .terminal import duration

# Seconds between updates; reading a loss makes an accelerator wait.
UPDATE_EVERY = 1.0
# Steps after which the length of the run is told; the first ones are slower than others.
WARM, TOLD = 3, 13


class ProgressBar(Callback):
    """Clips per second, losses, validation SDR and time left.

    Parameters
    ----------
    console
        Where to draw; without a terminal only a line for each validation is written.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        text = TextColumn("{task.description}")
        self.bar = Progress(BarColumn(bar_width=24), text, console=console, transient=True)
        self.task = self.bar.add_task("starting", total=1.0)
        self._shown = 0.0
        self._first: tuple[float, int] | None = None
        self._warm = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar on a terminal."""
        self._first = (time.monotonic(), trainer.global_step)
        if trainer.is_global_zero and self.console.is_terminal:
            self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *arguments: Any
    ) -> None:
        """Move on, at most once a second; once tell how long the run will take."""
        now = time.monotonic()
        self._tell_length(trainer, pl_module, now)
        if not self.bar.live.is_started or now - self._shown < UPDATE_EVERY:
            return
        assert isinstance(pl_module, SeparationModule)
        assert self._first is not None
        self._shown = now
        config, step, done = pl_module.config, trainer.global_step, pl_module.progress
        steps = step - self._first[1]
        rate = steps * config.batch_size * trainer.world_size / max(1e-9, now - self._first[0])
        left = pl_module.clock.seconds() * (1 - done) / done if done else 0.0
        parts = [f"step {step}", f"{rate:.1f} clips/s", f"loss {float(outputs['loss']):.4f}"]
        best = pl_module.schedule.best
        parts += [f"{name} {value:.2f} dB" for name, value in best.items() if value > -1e9]
        parts.append(f"{duration(left)} left")
        self.bar.update(self.task, completed=done, description=", ".join(parts))

    def _tell_length(self, trainer: Trainer, pl_module: LightningModule, now: float) -> None:
        assert self._first is not None
        step = trainer.global_step
        if step == self._first[1] + WARM:
            self._warm = now
        if step != self._first[1] + TOLD or not trainer.is_global_zero:
            return
        assert isinstance(pl_module, SeparationModule)
        config = pl_module.config
        each = (now - self._warm) / (TOLD - WARM)
        seconds = each * (config.max_steps - step)
        limit = 60 * config.max_minutes
        if limit and limit < seconds:
            length = f"--max-minutes ends the run after {duration(limit)}"
        else:
            length = (
                f"the {config.max_steps} steps take about {duration(seconds)}, and validations "
                "more; --max-minutes ends a run on time"
            )
        speed = config.batch_size * trainer.world_size / max(each, 1e-9)
        self.console.print(f"{speed:.1f} clips/s: {length}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the scores as a line that stays."""
        assert isinstance(pl_module, SeparationModule)
        if not trainer.is_global_zero:
            return
        for name, scores in pl_module.scores.items():
            values = ", ".join(f"{stem} {value:.2f}" for stem, value in scores.items())
            star = " (best)" if name in pl_module.improvements else ""
            self.console.print(f"step {trainer.global_step} {name}: SDR in dB {values}{star}")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bar away."""
        _stop(self.bar)


@contextmanager
def decoding(console: Console) -> Iterator[DecodingProgress]:
    """A bar for decoding, shown only if there is something to decode."""
    bar = Progress(
        TextColumn("Decoding"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    )
    task = bar.add_task("decoding", total=None)

    def advance(done: int, total: int) -> None:
        if done < total and console.is_terminal and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield advance
    finally:
        _stop(bar)


def _stop(bar: Progress) -> None:
    """Take a bar away that may never have been shown; rich would print an empty line."""
    if bar.live.is_started:
        bar.stop()
