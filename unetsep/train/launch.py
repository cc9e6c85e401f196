"""How many processes a run has: as many as torchrun or SLURM's srun started, or as asked."""

from __future__ import annotations

import os

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from .config import TrainingError


def launched() -> tuple[str, int, int] | None:
    """Launcher, its processes on each machine, and machines; None if there is no launcher."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return "torchrun", local, int(os.environ["WORLD_SIZE"]) // local
    if SLURMEnvironment.detect():
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        return "srun", int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return None


def processes(devices: int | None, nodes: int | None) -> tuple[int, int]:
    """Processes on each machine, and machines.

    Parameters
    ----------
    devices, nodes
        What the user said; None takes the launcher's numbers, without a launcher 1.

    Raises
    ------
    TrainingError
        If a launcher has started another number of processes. Each of them would otherwise
        train by itself, or wait for some that never come.
    """
    found = launched()
    if found is None:
        return devices or 1, nodes or 1
    launcher, per_node, count = found
    if (devices or per_node, nodes or count) != (per_node, count):
        raise TrainingError(
            f"{launcher} started {per_node} processes on each of {count} machines: leave out "
            f"--devices and --nodes, or have it start {devices or per_node} on {nodes or count}"
        )
    return per_node, count
