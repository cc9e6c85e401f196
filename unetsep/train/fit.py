"""A training run from recordings to checkpoints, on one CPU or many GPUs."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from ..errors import is_out_of_memory
from ..locations import as_path
from ..network.devices import keep_freed_memory, products
from .callbacks import Ema, Keeper
from .config import TrainConfig, TrainingError
from .data.clips import ClipDataset
from .data.recording import Recording
from .datamodule import ClipModule
from .distributed import ChildWatch, is_lost_process
from .interruption import LAST, InterruptedRunError, how_to_resume
from .logs import JsonLinesLogger, draw_curves, is_main_process
from .losses.own import with_own_losses
from .machine import Machine, check_trainable
from .module import SeparationModule
from .run_folder import describe, locked, resumable_step
from .start import first_network, load_run_guide
from .validation import check_defined, scorable

logger = logging.getLogger(__name__)

LIGHTNING_PRECISION: dict[str, Any] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
# How long a process waits for the others before it gives up the run.
GROUP_TIMEOUT = timedelta(seconds=60)
# How to need less memory in a training step, or leave it more.
NO_ROOM = (
    "out of memory: choose a smaller --batch-size or fewer --clip-frames, leave out --resident, or "
    "close other programs"
)


def fit(
    config: TrainConfig,
    train: Sequence[Recording],
    valid: Sequence[Recording],
    run: str | Path,
    *,
    machine: Machine | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    guide: str | Path | None = None,
    notes: Mapping[str, str] = MappingProxyType({}),
    callbacks: Sequence[Callback] = (),
) -> dict[str, dict[str, float]]:
    """Train a network for each loss of the config.

    Writes into ``run``: ``config.json``, ``versions.json``, ``log.jsonl``, ``curves.png``,
    TensorBoard's files, ``best-<loss>.safetensors`` and ``last.ckpt``.

    Parameters
    ----------
    config
        What to train. Its losses may be your own, named as for ``unetsep train --loss``.
    train, valid
        Recordings; see `unetsep.train.data.cache` and `unetsep.train.data.recording.hold_out`.
    run
        Folder of the run; an existing one only with ``resume``.
    machine
        Where to train; default: one process on the best device there is.
    resume
        Continue from ``last.ckpt``.
    init_from
        Name or path of a checkpoint whose weights are the start. One without a guide is given
        that of the model, if the model has one.
    guide
        Name or path of the guide of the config's model, if that has one. The guide is also looked
        for among the published models, in the folder of ``init_from`` and in the run's own. One
        that was not published is copied into the run.
    notes
        Further files of the run, name to text, written once the run can start.
    callbacks
        More of Lightning's callbacks.

    Returns
    -------
    dict
        Loss to the last validation SDR in dB, by stem, with their ``mean``.

    Raises
    ------
    TrainingError
        If the run cannot start or continue; what is saved by then stays.
    ValueError
        If there is no such loss, or it fails `unetsep.train.losses.check`.
    """
    run, machine = as_path(run, "run"), machine or Machine()
    config = with_own_losses(config)
    check_trainable(config, machine)
    keep_freed_memory()
    valid = scorable(valid, config.stems)
    if not (config.all_songs and valid):  # all_songs selects nothing by scores
        check_defined(valid, config.model.stems)
    with locked(run):
        first_step = resumable_step(run / LAST, config, machine) if resume else 0
        if is_main_process():
            describe(run, config, resume, notes)
        with _preparing(run):
            data = ClipModule(
                config, train, valid, workers=machine.workers, resident=machine.resident
            )
            first = first_network(config, init_from, load_run_guide(config, run, guide, init_from))
            module = SeparationModule(config, first, may_record=machine.graph)
            if not resume:
                module.calibrate(ClipDataset(data.planner), statistics=init_from is None)
        ema = Ema(config.ema_decay)
        keeper = Keeper(run, ema)
        all_callbacks = [ema, keeper, ChildWatch(run, keeper.signals), *callbacks]
        with _quiet(), _without_denormals(), _tf32_products(machine):
            trainer = build_trainer(config, run, machine, all_callbacks, first_step)
            try:
                path = run / LAST if resume else None
                with _explain_run(run, machine), keeper.ending():
                    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
            finally:
                # After an error in a validation Lightning ends only that. Workers that cut clips
                # ignore signals: the process would wait for them forever.
                trainer.fit_loop.teardown()
                if trainer.is_global_zero and (run / "log.jsonl").exists():
                    _draw(run, config.batch_size * machine.world_size)
    return module.scores


@contextlib.contextmanager
def _preparing(run: Path) -> Iterator[None]:
    """Report Ctrl-C like one after a step."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedRunError(
            f"interrupted before the first step; {how_to_resume(run)}", signal.SIGINT
        ) from error


@contextlib.contextmanager
def _explain_run(run: Path, machine: Machine) -> Iterator[None]:
    """Make an error of a run a sentence that names the checkpoint to resume from."""
    try:
        yield
    except TrainingError as error:
        raise _with_last_checkpoint(error, run) from error
    except OSError as error:  # such as a full disk, at a line of the log
        reason = f"{os.fsdecode(error.filename or run)}: {error.strerror or error}"
        raise _with_last_checkpoint(TrainingError(reason), run) from error
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            failure = TrainingError(NO_ROOM)
        elif machine.world_size > 1 and is_lost_process(error):
            failure = TrainingError("another process of this run ended")
        else:
            raise
        raise _with_last_checkpoint(failure, run) from error


def _draw(run: Path, clips: int) -> None:
    """Draw the curves; an error such as a full disk changes nothing in how the run ends."""
    picture = run / "curves.png"
    try:
        draw_curves(run / "log.jsonl", picture, clips=clips)
    except OSError as error:
        logger.warning("%s could not be drawn: %s", picture, error.strerror or error)


def _with_last_checkpoint(error: TrainingError, run: Path) -> TrainingError:
    if isinstance(error, InterruptedRunError):
        return error
    checkpoint = run / LAST
    hint = (
        f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "none was saved yet"
    )
    return TrainingError(f"{error}; the run stops, {hint}")


def build_trainer(
    config: TrainConfig,
    run: Path,
    machine: Machine,
    callbacks: Sequence[Callback],
    first_step: int = 0,
) -> Trainer:
    """Lightning's trainer for a run."""
    distributed = machine.world_size > 1
    on_cpu = machine.kind == "cpu"
    strategy: Any = "auto"
    if distributed:
        backend = "gloo" if on_cpu else "nccl"
        strategy = DDPStrategy(process_group_backend=backend, timeout=GROUP_TIMEOUT)
    loggers: list[Logger] = [JsonLinesLogger(run / "log.jsonl", first_step)]
    with contextlib.suppress(ModuleNotFoundError):
        loggers.append(TensorBoardLogger(run, name="", version="tensorboard"))
    try:
        return Trainer(
            default_root_dir=run,
            accelerator=machine.kind,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy=strategy,
            precision=LIGHTNING_PRECISION[config.precision],
            max_steps=config.max_steps,
            max_epochs=-1,
            val_check_interval=config.valid_every,
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            sync_batchnorm=distributed and not on_cpu,
            use_distributed_sampler=False,
            logger=loggers,
            log_every_n_steps=config.log_every,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except lightning.fabric.utilities.exceptions.MisconfigurationException as error:
        raise TrainingError(f"cannot train on {machine.devices} {machine.kind}: {error}") from error


@contextlib.contextmanager
def _without_denormals() -> Iterator[None]:
    """Round denormal numbers to zero: CPUs are slow with masks and gradients of 1e-40."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _tf32_products(machine: Machine) -> contextlib.AbstractContextManager[None]:
    """Let GPUs multiply fp32 in tf32, with rounded factors: it is several times as fast."""
    return contextlib.nullcontext() if machine.kind == "cpu" else products("high")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's advice that does not apply here, and without repeated messages."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Cutting clips from a memory map is cheap: one worker or none is a choice.
        # Persistent workers, which it advises without fork, are no use: all clips are one epoch.
        for advice in (
            ".*does not have many workers.*",
            ".*persistent_workers=True.*",
            ".*GPU available but not used.*",
        ):
            warnings.filterwarnings("ignore", advice)
        # Lightning's own use of torch.
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated", FutureWarning)
        hook = threading.excepthook
        threading.excepthook = functools.partial(_leave_to_logger, hook)
        try:
            yield
        finally:
            threading.excepthook = hook
            log.setLevel(level)


def _leave_to_logger(
    hook: Callable[[threading.ExceptHookArgs], Any], arguments: threading.ExceptHookArgs
) -> None:
    """Print an error of a thread, unless TensorBoard's logger raises it again in the main one."""
    if not type(arguments.thread).__module__.startswith("tensorboard."):
        hook(arguments)
