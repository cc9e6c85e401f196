"""Runs of several processes: how many there are, and which one ended."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ..unfinished import ENDING
from .config import TrainingError
from .interruption import EndSignals, how_to_resume

logger = logging.getLogger(__name__)

# What gloo, NCCL and torch's store report when the other side is gone.
LOST_WORDS = ("closed by peer", "connection reset", "timed out", "timeout", "broken pipe", "nccl")
# Codes with which the command ends when a signal asks it to: all processes may get it.
INTERRUPTED = tuple(128 + number for number in ENDING)
# Seconds to wait for the end of a process that has closed its connections.
ENDING_SECONDS = 5.0


def detect_launcher() -> tuple[str, int, int] | None:
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
        As the user chose; None takes the launcher's numbers, without a launcher 1.

    Raises
    ------
    TrainingError
        If a launcher has started another number of processes. Otherwise each of them would
        train by itself, or wait for some that never come.
    """
    launch = detect_launcher()
    if launch is None:
        return devices or 1, nodes or 1
    launcher, per_node, count = launch
    if (devices or per_node, nodes or count) != (per_node, count):
        raise TrainingError(
            f"{launcher} started {per_node} processes on each of {count} machines: leave out "
            f"--devices and --nodes, or have it start {devices or per_node} on {nodes or count}"
        )
    return per_node, count


def is_lost_process(error: BaseException) -> bool:
    """Whether an error means that another process of the run does not answer."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    return bool(kinds & {"DistBackendError", "DistNetworkError", "DistStoreError"}) or any(
        words in text for words in LOST_WORDS
    )


class ChildWatch(Callback):
    """Reports which process ended; Lightning ends the others silently.

    Every few seconds Lightning polls the processes that it started, and kills the whole run once
    one has ended. Each poll logs the reason before it returns. This callback polls, too, once this
    process misses another one.

    Parameters
    ----------
    run
        Folder of the run.
    signals
        Those that ask this process to end.
    """

    def __init__(self, run: Path, signals: EndSignals) -> None:
        self.run, self.signals = run, signals
        self._children: list[subprocess.Popen[bytes]] = []
        # Reentrant: a signal may come while the main thread polls, and its handler polls, too.
        self._lock = threading.RLock()
        self._reported = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let polls report, in the process that started the others."""
        procs = getattr(trainer.strategy.launcher, "procs", None) or []
        self._children = [child for child in procs if isinstance(child, subprocess.Popen)]
        for rank, child in enumerate(self._children, start=1):
            child.poll = self._reporting_poll(rank, child)  # type: ignore[method-assign]

    def _reporting_poll(
        self, rank: int, child: subprocess.Popen[bytes]
    ) -> Callable[[], int | None]:
        """`poll` of a process, which logs that it ended before it returns."""
        poll = child.poll

        def poll_and_report() -> int | None:
            with self._lock:
                code = poll()
                if code and self.signals.common_number is not None:
                    # It saved and stopped with the others; Lightning would kill them for its code.
                    child.returncode = code = 0
                if code in INTERRUPTED:
                    self._report_signal()
                elif code:
                    self._report(
                        f"process {rank} of this run ended with code {code}; the run stops"
                    )
            return code

        return poll_and_report

    def _report(self, reason: str) -> None:
        """Say why the run ends; the first reason is why the others end."""
        with self._lock:
            if self._reported:
                return
            self._reported = True
            logger.error("%s, %s", reason, how_to_resume(self.run))

    def _report_signal(self) -> None:
        if self.signals.number is None:
            self._report("the run was interrupted")
        else:  # This process got it, too, and reports it as it ends.
            self._reported = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Report a signal, before Lightning kills the others for it, or a lost process."""
        if not self._children:
            return
        if isinstance(exception, KeyboardInterrupt | SystemExit):
            self._report_signal()
        elif is_lost_process(exception) and trainer.num_nodes == 1:
            # With several machines one of the others may be lost, for which these end, too.
            latest = time.monotonic() + ENDING_SECONDS
            while not any(child.poll() for child in self._children) and time.monotonic() < latest:
                time.sleep(0.05)
