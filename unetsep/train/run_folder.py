"""The folder of a run: its lock, what describes the run, and whether a run can use it."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..errors import first_line
from ..locks import HeldError, held
from ..storage import quoted, write_atomically
from ..version import __version__
from .callbacks import BEST, best_weights
from .config import TrainConfig, TrainingError
from .interruption import LAST, PENDING
from .logs import is_main_process
from .machine import Machine

# How long a run waits for another one in its folder. The workers of a killed run notice its end
# within 5 seconds, and hold its lock until then.
LOCK_SECONDS = 10.0
VERSIONS = "versions.json"
# What may differ between a run and its resumption without changing what is trained.
RESUMABLE = ("max_steps", "max_minutes", "valid_every", "log_every", "watched", "early_stop")


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
    best = next(iter(best_weights(run).values()), None)
    if best and not (run / PENDING).exists():
        raise TrainingError(
            f"{run} holds a run already, without {LAST} to resume from: choose another --run, or "
            f"remove {best} first"
        )


def resumable_step(checkpoint: Path, config: TrainConfig, machine: Machine | None = None) -> int:
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


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Lock a run's folder against other runs; its first process does so for all.

    Raises
    ------
    TrainingError
        If another run has it, or it cannot be written to.
    """
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


def describe(run: Path, config: TrainConfig, resume: bool, notes: Mapping[str, str]) -> None:
    """Write the files that describe the run, before its first step.

    Raises
    ------
    TrainingError
        If the folder is one of another run, or cannot be written to.
    """
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
