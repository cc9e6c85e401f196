"""The networks of a run and one training step, as Lightning expects them.

One network is trained for each loss, all on the same batches. They share no weights, so the
sum of the losses has each network's own gradient, and a single optimiser steps them all. Only
clipping and learning rates are each network's own.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from ..dsp.threads import without_autocast
from ..network.build import build
from ..network.guided import Guided
from ..network.low_band import LowBand
from ..network.masks import MaskNetwork
from .calibration import (
    audible_batches,
    loss_scale,
    set_fine_statistics,
    set_input_statistics,
)
from .config import TrainConfig, TrainingError
from .data.clips import ClipDataset, clip_indices
from .data.loaders import NO_NUMBER
from .data.recording import Recording
from .graph import RecordedStep
from .losses.functions import Loss, build_loss
from .losses.guidance import Guidance
from .losses.spectra import spectra, training_loss
from .muon import Muon
from .schedule import Clock, Schedule
from .validation import RecordingScorer, combine

LAYOUT = torch.channels_last
# Steps between checks of the losses on an accelerator, where each check waits for it.
CHECK_EVERY = 20


class SeparationModule(lightning.LightningModule):
    """Networks, losses and optimiser of a run.

    Parameters
    ----------
    config
        Losses, model, optimiser.
    first
        The network all losses start from; a fresh one by default. One that has a guide comes
        with it: the guide stays as it is, and is neither averaged nor saved.
    may_record
        Whether steps may be recorded; see `records_steps`.
    """

    scales: Tensor

    def __init__(
        self, config: TrainConfig, first: MaskNetwork | None = None, *, may_record: bool = True
    ) -> None:
        super().__init__()
        self.config, self.may_record = config, may_record
        first = fresh_network(config) if first is None else first
        if isinstance(first, Guided):
            half = config.precision != "fp32"
            first.attach(first.guide, torch.bfloat16 if half else torch.float32)
        for part in (first, *first.modules()):
            part.requires_grad_(config.part == "all")
        if config.part == "low":
            branch_of(first).requires_grad_(True)
        first.train()
        first.to(memory_format=LAYOUT)  # type: ignore[call-overload]
        self.networks = nn.ModuleDict({name: copy.deepcopy(first) for name in config.losses})
        for part in self.networks.modules():
            if isinstance(part, nn.ReLU | nn.LeakyReLU):
                part.inplace = True  # BatchNorm's backward pass needs only its input
            if isinstance(part, nn.ReLU):
                part.register_forward_hook(_dense_gradient)
        # Factors that give every loss a gradient of norm 1 at the start.
        self.register_buffer("scales", torch.ones(len(config.losses)))
        self.clock = Clock(config, time.monotonic)
        self.schedule = Schedule(config, config.losses)
        self.rates: dict[str, float] = {}
        self.progress = 0.0  # share of the run
        self.scores: dict[str, dict[str, float]] = {}
        self.improvements: list[str] = []
        self._scorer: RecordingScorer | None = None
        self._recent: list[tuple[int, Tensor]] = []
        self._recorded_step: RecordedStep | None = None

    def network(self, name: str) -> MaskNetwork:
        """The network of a loss."""
        network = self.networks[name]
        assert isinstance(network, MaskNetwork)
        return network

    @functools.cached_property
    def losses(self) -> dict[str, Loss]:
        """The losses on the device that the module has in its first step."""
        return {n: build_loss(n, self.config.model, self.device) for n in self.config.losses}

    @functools.cached_property
    def _scale_values(self) -> list[float]:
        """The scales as numbers, as each reading would wait for an accelerator."""
        values: list[float] = self.scales.tolist()
        return values

    def calibrate(self, clips: ClipDataset, *, statistics: bool = True, count: int = 64) -> None:
        """Set the input statistics and rescale the losses, before the first step.

        See `unetsep.train.calibration`.

        Parameters
        ----------
        clips
            Training clips.
        statistics
            Whether to set the networks' input statistics too; those of a checkpoint stay.
        count
            Number of clips to check.

        Raises
        ------
        TrainingError
            If all of them are silent.
        """
        batches = audible_batches(clips, count)
        if statistics:
            set_input_statistics(self.networks, [batch.mixture for batch in batches])
        set_fine_statistics(self.networks, batches)
        config = self.config
        for index, name in enumerate(config.losses):
            probe = copy.deepcopy(self.network(name))
            self._mode(probe)
            loss = build_loss(name, config.model, self.device)
            self.scales[index] = loss_scale(probe, loss, batches, config.own_share, config.part)

    def _mode(self, network: nn.Module) -> None:
        if self.config.part == "low":
            network.eval()
            network = branch_of(network)
        network.train()
        if self.config.freeze_norm:
            for part in network.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.eval()

    def on_train_start(self) -> None:
        """Start the clock; with a limit in minutes measure how long a validation takes."""
        self.clock.start()
        if self.records_steps():
            parameters = (each for each in self.networks.parameters() if each.requires_grad)
            self._recorded_step = RecordedStep(self.scaled_losses, parameters)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        songs = [*data.valid, *data.watched]
        if self.config.max_minutes and not self.clock.validation and songs:
            RecordingScorer(self.networks.values(), self.device).score(0, songs[0])
            seconds = self.clock.now() - self.clock.start_time
            self.clock.validation = seconds * math.ceil(len(songs) / self.trainer.world_size)
        self.update_progress()
        has_ended = self.progress >= 1 or self.schedule.exhausted()
        if has_ended and self.global_step:  # and is resumed
            self.trainer.should_stop = True

    def update_progress(self) -> None:
        """Update the share of the run that is over, the same in every process."""
        progress = self.clock.progress(self.global_step)
        if self.config.max_minutes and self.trainer.world_size > 1:
            progress = self.trainer.strategy.broadcast(progress)
        self.progress = max(self.progress, progress)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set modes and learning rates."""
        step, progress = self.global_step, self.progress
        for group, (name, network) in zip(
            self.trainer.optimizers[0].param_groups, self.networks.items(), strict=True
        ):
            self._mode(network)
            self.rates[name] = group["lr"] = self.schedule.rate(name, step, progress)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Sum of the scaled losses of a batch of clips ``(batch, stems, 2, samples)``."""
        losses = (self._recorded_step or self.scaled_losses)(batch)
        values = losses.detach() / self.scales
        self._recent.append((self.global_step, values))
        if self.device.type == "cpu" or len(self._recent) >= CHECK_EVERY:
            self.check_losses()
        if self.global_step == 0 or (self.global_step + 1) % self.config.log_every == 0:
            self._log_step(values)
        return losses.sum()

    def scaled_losses(self, clips: Tensor) -> Tensor:
        """The scaled loss of each network, ``(losses,)``.

        Nothing here depends on values or asks for one, so that a GPU's work can be recorded: see
        `unetsep.train.graph`.

        Parameters
        ----------
        clips
            ``(batch, stems, 2, samples)``.
        """
        with torch.no_grad(), without_autocast(self.device):
            sound = spectra(clips, self.config.model, self.config.targets)
            # All networks have the same guide.
            any_network = self.network(self.config.losses[0])
            magnitude = sound.magnitude(self.config.model)
            guidance = Guidance.of(any_network, magnitude, self.config.own_share)
        values = []
        for scale, (name, loss) in zip(self._scale_values, self.losses.items(), strict=True):
            network, part = self.network(name), self.config.part
            values.append(training_loss(network, sound, loss, guidance, scale=scale, part=part))
        return torch.stack(values)

    def records_steps(self) -> bool:
        """Whether steps are recorded: on one GPU, without the scale of fp16, which changes."""
        is_one_gpu = self.trainer.world_size == 1 and self.device.type == "cuda"
        return self.may_record and is_one_gpu and self.config.precision != "fp16"

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """Clear the gradients, except those of a `RecordedStep`, which are new by then."""
        if self._recorded_step is None:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def backward(self, loss: Tensor, *arguments: Any, **options: Any) -> None:
        """Compute the gradients, unless a `RecordedStep` has done so."""
        if self._recorded_step is None:
            super().backward(loss, *arguments, **options)

    def check_losses(self) -> None:
        """Stop at the first loss that is not finite.

        Raises
        ------
        TrainingError
            With the step and the clips.
        """
        recent, self._recent = self._recent, []
        for step, values in recent:
            for name, value in zip(self.config.losses, values.tolist(), strict=True):
                if not math.isfinite(value):
                    trainer = self.trainer
                    ranks = trainer.global_rank, trainer.world_size
                    clips = clip_indices(step, self.config.batch_size, *ranks)
                    raise TrainingError(
                        f"the loss {name} became {value} at step {step}, clips {clips[0]} to "
                        f"{clips[-1]} with seed {self.config.seed}"
                    )

    def _log_step(self, values: Tensor) -> None:
        values = self.trainer.strategy.reduce(values, reduce_op="mean")
        content: dict[str, float] = {"minutes": self.clock.seconds() / 60}
        for name, value in zip(self.config.losses, values.tolist(), strict=True):
            content |= {f"train/{name}": value, f"lr/{name}": self.rates[name]}
        for logger in self.loggers:
            logger.log_metrics(content, self.global_step + 1)

    def on_train_end(self) -> None:
        """Free the memory of a recorded step."""
        self._recorded_step = None

    def on_validation_epoch_start(self) -> None:
        """Prepare to separate with the averaged weights, which are in place by now."""
        self.check_losses()
        if self.trainer.world_size > 1:
            # Without synchronised BatchNorm each process has statistics of its own.
            for buffer in self.buffers():
                torch.distributed.broadcast(buffer, 0)
        self._scorer = RecordingScorer(self.networks.values(), self.device)

    def validation_step(self, batch: tuple[int, Recording], batch_idx: int) -> None:
        """SDR of one recording."""
        assert self._scorer is not None
        number, recording = batch
        if number != NO_NUMBER:
            self._scorer.score(number, recording)

    def on_validation_epoch_end(self) -> None:
        """Mean SDR over all recordings of all processes."""
        assert self._scorer is not None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        count = len(data.valid)
        table = self._scorer.table(count + len(data.watched))
        total = self.trainer.strategy.reduce(table.to(self.device), reduce_op="sum")
        self._scorer = None
        rows, names = total.cpu().numpy(), (self.config.losses, self.config.model.stems)
        self.scores = combine(rows[:count], *names)
        watched_scores = combine(rows[count:], *names) if data.watched else {}
        self.improvements = [
            name
            for name, scores in self.scores.items()
            # Songs that are trained on tell neither which weights are best, nor when to slow down.
            if self.config.all_songs or self.schedule.record(name, scores["mean"])
        ]
        content = {"minutes": self.clock.seconds() / 60}
        for kind, by_loss in (("valid", self.scores), ("seen", watched_scores)):
            for name, scores in by_loss.items():
                content |= {f"{kind}/{name}/{stem}": value for stem, value in scores.items()}
        for logger in self.loggers:
            logger.log_metrics(content, self.global_step)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """One optimiser with a group for each network."""
        groups = [
            {"params": [each for each in network.parameters() if each.requires_grad]}
            for network in self.networks.values()
        ]
        rate, decay = self.config.learning_rate, self.config.weight_decay
        if self.config.optimizer == "muon":
            return Muon(groups, rate, size=self.config.muon_size, weight_decay=decay)
        # On a CPU the default steps parameter by parameter; a GPU's default is as fast.
        fused = True if self.device.type == "cpu" else None
        return torch.optim.AdamW(groups, rate, weight_decay=decay, fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip each network's gradient by itself."""
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.config.clip_norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs, as plain values only."""
        checkpoint["unetsep"] = {
            "config": self.config.to_json(),
            "schedule": self.schedule.state_dict(),
            "seconds": self.clock.seconds(),
            "validation": self.clock.validation,
            "processes": self.trainer.world_size,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what a resumed run needs."""
        state = checkpoint["unetsep"]
        self.schedule.load_state_dict(state["schedule"])
        self.clock.earlier_seconds, self.clock.validation = state["seconds"], state["validation"]


def branch_of(network: nn.Module) -> LowBand:
    """The branch for low bins of a network that has one."""
    assert isinstance(network, Guided)
    assert network.low is not None
    return network.low


def fresh_network(config: TrainConfig) -> MaskNetwork:
    """The network of a config with random weights of its seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(config.model)


def _dense_gradient(_: nn.Module, __: object, output: Tensor) -> None:
    """Make a layer's gradient contiguous.

    A skip's concatenation returns every other half of its gradient's rows. On those the backward
    pass of ReLU takes twenty times as long as a copy and ReLU together.
    """
    if output.requires_grad:
        output.register_hook(lambda gradient: gradient.contiguous(memory_format=LAYOUT))  # type: ignore[no-untyped-call]
