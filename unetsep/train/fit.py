"""A training run from recordings to checkpoints, on one CPU or many GPUs."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import platform
import sys
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning
import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from ..config import ModelConfig
from ..errors import first_line, is_out_of_memory
from ..locks import HeldError, held
from ..network.devices import cuda_problem, keep_freed_memory, products, usable_device
from ..network.guided import Guided, with_guide, with_parts
from ..network.masks import MaskNetwork
from ..storage import quoted, write_atomically
from ..version import __version__
from ..weights.load import carry_guide, load_guide, load_network
from ..weights.manifest import is_path
from .callbacks import BEST, Ema, Keeper, best_weights
from .config import TrainConfig, TrainingError
from .data.clips import ClipDataset
from .data.recording import Recording
from .datamodule import ClipModule
from .distributed import ChildWatch, detect_launcher, is_lost_process
from .interruption import LAST, InterruptedRunError
from .logs import JsonLinesLogger, draw_curves, is_main_process
from .losses.functions import LOSSES
from .module import SeparationModule, fresh_network
from .validation import check_defined, scorable

logger = logging.getLogger(__name__)

LIGHTNING_PRECISION: dict[str, Any] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
# How long a process waits for the others before it gives up the run.
GROUP_TIMEOUT = timedelta(seconds=60)
# How long a run waits for another one in its folder. The workers of a killed run notice its end
# within 5 seconds, and hold its lock until then.
LOCK_SECONDS = 10.0
# How to need less memory in a training step, or leave it more.
NO_ROOM = (
    "out of memory: choose a smaller --batch-size or fewer --clip-frames, leave out --resident, or "
    "close other programs"
)
VERSIONS = "versions.json"
# What may differ between a run and its resumption without changing what is trained.
RESUMABLE = ("max_steps", "max_minutes", "valid_every", "log_every", "watched", "early_stop")


@dataclass(frozen=True)
class Machine:
    """What a run trains on.

    Parameters
    ----------
    accelerator
        ``auto``, ``cpu``, ``gpu`` or ``mps``.
    devices, nodes
        Processes of each machine, and number of machines.
    workers
        Processes that cut clips for each of them; None chooses.
    resident
        Keep all training audio in the accelerator's memory.
    graph
        On one GPU: record a step as a CUDA graph; see `unetsep.train.graph`.
    """

    accelerator: str = "auto"
    devices: int = 1
    nodes: int = 1
    workers: int | None = None
    resident: bool = False
    graph: bool = True

    @property
    def world_size(self) -> int:
        """Processes of all machines."""
        return self.devices * self.nodes

    @property
    def kind(self) -> str:
        """The accelerator, with ``auto`` resolved for this machine."""
        if self.accelerator != "auto":
            return self.accelerator
        if self.world_size > 1:  # all of which would ask the first GPU
            return "gpu" if torch.cuda.is_available() else "cpu"
        return "gpu" if usable_device("auto").type == "cuda" else "cpu"


def check_trainable(config: TrainConfig, machine: Machine) -> None:
    """Check before any work that a machine can train with a config.

    Raises
    ------
    TrainingError
        If it lacks the accelerator, has too few, or cannot compute there, or not in the precision.
        Also if a loss needs all bins where only a branch for a few is trained.
    """
    needing_all = [name for name in config.losses if name in LOSSES and LOSSES[name].arrays]
    if config.part == "low" and needing_all:
        fitting = ", ".join(name for name, entry in LOSSES.items() if not entry.arrays)
        raise TrainingError(
            f"--low-band trains a few bins, and the loss {needing_all[0]} needs all: choose "
            f"{fitting}"
        )
    if machine.kind == "cpu":
        if config.precision == "fp16":
            raise TrainingError("CPUs do not train in fp16: choose --precision bf16 or fp32")
        return
    apple = torch.backends.mps.is_available()  # for Lightning a gpu, too
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = int(apple) if apple or machine.kind == "mps" else count
    # Lightning checks what a launcher's processes see, which may be one device each.
    if not count or (count < machine.devices and not detect_launcher()):
        cure = "fewer --devices" if count else "--accelerator cpu, or leave it out"
        raise TrainingError(
            f"cannot train on {machine.devices} {machine.kind}: torch finds {count or 'none'} "
            f"here; choose {cure}"
        )
    why = "" if apple or not is_main_process() else cuda_problem(torch.device("cuda"))
    if why:
        raise TrainingError(
            f"cannot train on {machine.devices} {machine.kind}: torch {torch.__version__} {why}; "
            "choose --accelerator cpu, or install a torch build for it"
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
        What to train.
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
    """
    run, machine = Path(run), machine or Machine()
    check_trainable(config, machine)
    keep_freed_memory()
    valid = scorable(valid, config.stems)
    if not (config.all_songs and valid):  # all_songs selects nothing by scores
        check_defined(valid, config.model.stems)
    with _locked(run):
        first_step = check_resumable(run / LAST, config, machine) if resume else 0
        if is_main_process():
            _describe(run, config, resume, notes)
        data = ClipModule(config, train, valid, workers=machine.workers, resident=machine.resident)
        first = _first_network(config, init_from, _guide(config, run, guide, init_from))
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
                with _explaining(run, machine), keeper.ending():
                    trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
            finally:
                # After an error in a validation Lightning ends only that. Workers that cut clips
                # ignore signals: the process would wait for them forever.
                trainer.fit_loop.teardown()
                if trainer.is_global_zero and (run / "log.jsonl").exists():
                    _draw(run, config.batch_size * machine.world_size)
    return module.scores


@contextlib.contextmanager
def _explaining(run: Path, machine: Machine) -> Iterator[None]:
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


def _guide(config: TrainConfig, run: Path, *models: str | Path | None) -> MaskNetwork | None:
    """The guide of the config's model; an unpublished one may lie beside one of ``models``."""
    sha256 = config.model.guide
    if not sha256:
        return None
    folders = [Path(model).parent for model in models if model is not None and is_path(model)]
    for folder in (run, *folders):
        carry_guide(sha256, folder, run)
    return load_guide(sha256, run, "the network")


def _first_network(
    config: TrainConfig, init_from: str | Path | None, guide: MaskNetwork | None
) -> MaskNetwork | None:
    if init_from is None:
        return None if guide is None else _attach(fresh_network(config), guide)
    start = load_network(init_from)
    if guide is not None and start.config.networks == "joint":
        start = with_guide(start, guide, config.model.guide)
    if isinstance(start, Guided):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            start = with_parts(start, config.model)
    check_fits(start.config, config.model, init_from)
    if start.config.bin_units == config.model.bin_units:
        return start
    network = fresh_network(config)
    network.load_state_dict(start.state_dict(), strict=False)
    return network if guide is None else _attach(network, guide)


def check_fits(start: ModelConfig, target: ModelConfig, init_from: str | Path) -> None:
    """Make sure that a network can start from the weights of another.

    Parameters
    ----------
    start, target
        Configs of the other, which may lack layers that mix bins, and of the network.
    init_from
        Name or path of the other, for the message.

    Raises
    ------
    TrainingError
        With the first field that differs.
    """
    start, target = start.as_trained, target.as_trained
    # Layers that mix bins start as the identity: a network without them can be given some.
    if start.bin_units == 0:
        start = replace(start, bin_units=target.bin_units)
    for name in (field.name for field in fields(target)):
        if getattr(start, name) != getattr(target, name):
            raise TrainingError(
                f"{init_from} does not fit this run: its {name} is "
                f"{getattr(start, name)!r}, the run's {getattr(target, name)!r}"
            )


def _attach(network: MaskNetwork, guide: MaskNetwork) -> MaskNetwork:
    assert isinstance(network, Guided)
    network.attach(guide)
    return network


def check_resumable(checkpoint: Path, config: TrainConfig, machine: Machine | None = None) -> int:
    """Step of a checkpoint from which a run with this config can be resumed on this machine.

    Raises
    ------
    TrainingError
        If it is missing, damaged, or of another run; the file is not changed.
    """
    if not checkpoint.exists():
        refuse_used(checkpoint.parent)
        raise TrainingError(f"there is no {checkpoint} to resume from: start without --resume")
    if not _is_intact(checkpoint):
        raise TrainingError(
            f"{checkpoint} cannot be resumed from: it is damaged or incomplete; restore a copy of "
            f"it, or start another run, with --init-from if there is a {BEST.format('*')} beside it"
        )
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
        saved_config = TrainConfig.from_json(content["unetsep"]["config"])
        step = int(content["global_step"])
        processes = content["unetsep"].get("processes")  # missing in older runs
        del content  # Windows replaces no mapped file, and an error below may keep it mapped
    except Exception as error:  # torch.load raises many kinds for foreign files
        raise TrainingError(f"{checkpoint} cannot be resumed from: {first_line(error)}") from error
    for field in fields(config):
        old, new = getattr(saved_config, field.name), getattr(config, field.name)
        if old != new and field.name not in RESUMABLE:
            raise TrainingError(
                f"{checkpoint} is of another run: its {field.name} is {old!r}, this run's {new!r}"
            )
    if machine and processes not in (None, machine.world_size):
        raise TrainingError(
            f"{checkpoint} is of a run of {processes} processes, this one has "
            f"{machine.world_size}: its steps would take other clips; resume it on as many devices"
        )
    if config.max_steps < step:
        raise TrainingError(
            f"{checkpoint} is of step {step}: name at least as many --max-steps, got "
            f"{config.max_steps}"
        )
    return step


def _is_intact(checkpoint: Path) -> bool:
    """Whether a checkpoint is as it was written, by checksums that torch does not verify."""
    try:
        with zipfile.ZipFile(checkpoint) as archive:
            return archive.testzip() is None
    except OSError as error:
        raise TrainingError(
            f"{checkpoint} cannot be resumed from: {error.strerror or error}"
        ) from error
    except Exception:  # zipfile raises many kinds for foreign files
        return False


def refuse_used(run: Path) -> None:
    """Make sure that a new run would not replace a usable checkpoint.

    Raises
    ------
    TrainingError
        If the folder holds a checkpoint, or is a file.
    """
    if run.exists() and not run.is_dir():
        raise TrainingError(f"--run {run} is a file: expected a folder, or a new name")
    if (run / LAST).exists():
        raise TrainingError(f"{run} holds a run already: choose another --run, or --resume it")
    if best := next(iter(best_weights(run).values()), None):
        raise TrainingError(
            f"{run} holds a run already, without {LAST} to resume from: choose another --run, or "
            f"remove {best} first"
        )


@contextlib.contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Lock a run's folder against other runs; its first process does so for all."""
    if not is_main_process():
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            run.mkdir(parents=True, exist_ok=True)
            stack.enter_context(held(run / ".lock", patience=LOCK_SECONDS))
        except HeldError as error:
            raise TrainingError(
                f"another process trains in {run}: choose another --run, or wait for its end"
            ) from error
        except OSError as error:
            reason = error.strerror
            raise TrainingError(f"cannot write to the run folder {run}: {reason}") from error
        yield


def _describe(run: Path, config: TrainConfig, resume: bool, notes: Mapping[str, str]) -> None:
    """Write the files that describe the run, before its first step."""
    about = versions()
    if resume:  # by a command that says neither data nor settings
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            about["command"] = json.loads((run / VERSIONS).read_text("utf-8"))["command"]
    else:
        refuse_used(run)
    files = {"config.json": config.to_json() + "\n", VERSIONS: json.dumps(about, indent=1) + "\n"}
    try:
        for name, text in {**files, **notes}.items():
            write_atomically(run / name, text)
    except OSError as error:
        raise TrainingError(f"cannot write to the run folder {run}: {error.strerror}") from error


def versions() -> dict[str, str]:
    """Versions of the software that computes the results, and the command."""
    packages = {"unetsep": __version__, "python": platform.python_version()}
    for name in ("torch", "lightning", "numpy", "torchaudio"):
        with contextlib.suppress(PackageNotFoundError):
            packages[name] = version(name)
    return packages | {"platform": platform.platform(), "command": quoted(*sys.argv)}


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
