"""Callbacks around the steps of a run: averages, checkpoints, its end, interruptions."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn

from ..network.masks import MaskNetwork
from ..storage import write_atomically
from ..weights.checkpoint import serialize
from .config import TrainingError
from .interruption import LAST, PENDING, EndSignals, InterruptedRunError, how_to_resume
from .module import CHECK_EVERY, SeparationModule

# The best weights of a loss.
BEST = "best-{}.safetensors"
# Their metadata: their step and scores, which the log may lack after a crash.
VALIDATION = "validation"


def best_weights(run: Path) -> dict[str, Path]:
    """The best weights of a run, by loss."""
    before, after = BEST.split("{}")
    paths = sorted(run.glob(BEST.format("*")))
    return {path.name.removeprefix(before).removesuffix(after): path for path in paths}


class Ema(EMAWeightAveraging):
    """Exponential moving average of weights and BatchNorm statistics.

    Early averages forget faster: the decay is at most ``(1 + n) / (10 + n)`` at step ``n``.
    In a Lightning checkpoint that it writes, ``state_dict`` holds the averaged weights and
    ``current_model_state`` those that training continues from.

    Parameters
    ----------
    decay
        Share of the old average that remains at each step, in [0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Put the average on the networks' device, to which they move only later."""
        self._device = trainer.strategy.root_device
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            # It is read at each step; reading from a GPU waits for all its pending work.
            self._average_model.n_averaged = torch.tensor(0)  # on the CPU

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        """Average all weights and buffers at once, without waiting for a GPU."""
        if trainer.global_step <= self._latest_update_step:
            return
        average = self._average_model
        assert average is not None
        count = int(average.n_averaged)
        decay = min(self.decay, (1 + count) / (10 + count)) if count else 0.0
        (averages, average_counts), (weights, weight_counts) = map(
            _split, (average.module, pl_module)
        )
        torch._foreach_lerp_(averages, weights, 1 - decay)
        if average_counts:
            torch._foreach_copy_(average_counts, weight_counts)
        average.n_averaged += 1
        self._latest_update_step = trainer.global_step

    @property
    def state_key(self) -> str:
        """Name of its state in ``last.ckpt``; it stays even if the class is moved."""
        return "ema"

    def network(self, name: str) -> MaskNetwork:
        """The averaged network of a loss."""
        assert self._average_model is not None
        module = self._average_model.module
        assert isinstance(module, SeparationModule)
        return module.network(name)


def _split(module: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """A module's weights and buffers, and those that count: BatchNorm's batches."""
    tensors = [each.detach() for each in itertools.chain(module.parameters(), module.buffers())]
    return (
        [each for each in tensors if each.is_floating_point()],
        [each for each in tensors if not each.is_floating_point()],
    )


class Keeper(Callback):
    """Saves the best and last checkpoints, and ends the run on time.

    Each validation replaces ``last.ckpt``, from which the run can be resumed. It also replaces
    ``best-<loss>.safetensors`` of each network whose validation SDR is its best so far: its
    averaged weights in fp32, which `unetsep.weights.load.load_network` reads. Their metadata
    holds the step and the scores of that validation.

    Parameters
    ----------
    run
        Folder of the run.
    ema
        Where the averaged weights are.
    """

    def __init__(self, run: Path, ema: Ema) -> None:
        self.run, self.ema = run, ema
        # Of a run that ended before its first last.ckpt. This one may start from them: they stay
        # until it has saved something itself.
        self.stale = {} if (run / LAST).exists() else best_weights(run)
        self.signals = EndSignals(CHECK_EVERY)
        self.started = False  # whether the first step has begun
        self.validation_start = 0.0  # seconds, by the monotonic clock

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let signals that ask to end wait for the end of a step."""
        self.signals.listen()
        self.started = True

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """Report Ctrl-C before the first step, after the last, and the second one, like others.

        Lightning would end silently.

        Raises
        ------
        InterruptedRunError
            Instead of Lightning's `SystemExit`.
        """
        try:
            yield
        except SystemExit as end:
            number = self.signals.number
            if number is None and isinstance(end.__context__, KeyboardInterrupt):
                self.signals.restore(signal.SIGINT)  # Lightning ignores it from here on
                when = "as the run ended" if self.started else "before the first step"
                raise InterruptedRunError(
                    f"interrupted {when}; {how_to_resume(self.run)}", signal.SIGINT
                ) from end
            if not self.signals.immediate or number is None:
                raise
            raise InterruptedRunError(
                f"interrupted at once; {how_to_resume(self.run)}", number
            ) from end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the previous signal handlers."""
        self.signals.restore()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *arguments: Any
    ) -> None:
        """Stop at the end of the run, or when interrupted."""
        assert isinstance(pl_module, SeparationModule)
        pl_module.update_progress()
        if pl_module.progress >= 1:
            trainer.should_stop = True
        # A validation that is due comes first: a resumed run would skip it.
        due = trainer.should_stop or trainer.global_step % pl_module.config.valid_every == 0
        number = self.signals.after_step(trainer)
        if number is not None and not due:
            pl_module.check_losses()
            self.save(trainer)
            self._stop(trainer, number)

    def _stop(self, trainer: Trainer, number: int) -> None:
        self.signals.handled = True
        raise InterruptedRunError(
            f"interrupted after step {trainer.global_step}; {how_to_resume(self.run)}", number
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Time the validation."""
        self.validation_start = time.monotonic()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, and stop if no network has improved for long."""
        assert isinstance(pl_module, SeparationModule)
        if trainer.is_global_zero:
            if not (self.run / LAST).exists():
                with self._explain_saving(trainer):
                    (self.run / PENDING).touch()
            for name in pl_module.improvements:
                validation = {"step": trainer.global_step, "sdr": pl_module.scores[name]}
                notes = {VALIDATION: json.dumps(validation)}
                content = serialize(self.ema.network(name), half=False, notes=notes)
                with self._explain_saving(trainer):
                    write_atomically(self.run / BEST.format(name), content)
                self.stale.pop(name, None)
            if pl_module.improvements:
                with self._explain_saving(trainer):
                    self._remove_stale()
        self.save(trainer)
        clock = pl_module.clock
        clock.validation = max(clock.validation, time.monotonic() - self.validation_start)
        if pl_module.schedule.exhausted():
            trainer.should_stop = True
        number = self.signals.now(trainer)
        if number is not None:
            self._stop(trainer, number)

    def save(self, trainer: Trainer) -> None:
        """Replace ``last.ckpt``.

        Raises
        ------
        TrainingError
            If weights are not finite, or the disk is full or gone; the previous checkpoint stays.
        """
        # A gradient may overflow though its loss did not; no run could resume from that.
        norms = torch._foreach_norm(_split(trainer.lightning_module)[0])
        if not torch.stack(norms).isfinite().all():
            raise TrainingError(f"weights became NaN or infinite by step {trainer.global_step}")
        partial = self.run / f"{LAST}.part"
        with self._explain_saving(trainer):
            try:
                trainer.save_checkpoint(partial)
                if trainer.is_global_zero:
                    self._remove_stale()
                    partial.replace(self.run / LAST)
                    (self.run / PENDING).unlink(missing_ok=True)
            except BaseException:  # also the second Ctrl-C
                partial.unlink(missing_ok=True)
                raise

    def _remove_stale(self) -> None:
        while self.stale:
            self.stale.popitem()[1].unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explain_saving(self, trainer: Trainer) -> Iterator[None]:
        """Report a disk that is full or gone."""
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"cannot save step {trainer.global_step} to {self.run}: {error.strerror}"
            ) from error
