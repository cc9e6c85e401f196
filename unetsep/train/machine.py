"""The machine of a run: its accelerator and its processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..network.devices import cuda_problem, usable_device
from .config import TrainConfig, TrainingError
from .distributed import detect_launcher
from .logs import is_main_process
from .losses.functions import LOSSES


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
