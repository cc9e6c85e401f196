"""Many processes in a run: how many, as torchrun, srun or the user says, and which one ended."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ..storage import shell_word
from ..unfinished import ENDING
from .config import TrainingError
from .interruption import EndSignals

logger = logging.getLogger(__name__)

# What gloo, NCCL and torch's store say when the other side is gone.
LOST = ("closed by peer", "connection reset", "timed out", "timeout", "broken pipe", "nccl")
# Codes with which the command ends when a signal asks it to: all processes may get it.
INTERRUPTED = tuple(128 + number for number in ENDING)
# Seconds between looks at the other processes.
EVERY = 0.05


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


def is_lost_process(error: BaseException) -> bool:
    """Whether an error means that another process of the run does not answer."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    return bool(kinds & {"DistBackendError", "DistNetworkError", "DistStoreError"}) or any(
        words in text for words in LOST
    )


class ChildWatch(Callback):
    """Says which process ended; Lightning ends the others, but without a word.

    Lightning asks the processes that it started every few seconds whether they still run, and
    kills the whole run once one does not. Whoever asks, the log has the reason before the answer
    is given. This asks by itself, too, and more often.

    Parameters
    ----------
    checkpoint
        From which the run can be resumed, in its folder, once it is there.
    signals
        Those that ask this process to end.
    """

    def __init__(self, checkpoint: Path, signals: EndSignals) -> None:
        self.checkpoint, self.signals = checkpoint, signals
        self._over = threading.Event()
        # Reentrant: a signal may come while the main thread asks, and its handler asks again.
        self._lock = threading.RLock()
        self._explained = self._watching = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to watch, in the process that started the others."""
        procs = getattr(trainer.strategy.launcher, "procs", None) or []
        children = [child for child in procs if isinstance(child, subprocess.Popen)]
        for rank, child in enumerate(children, start=1):
            child.poll = self._telling(rank, child)  # type: ignore[method-assign]
        self._watching = bool(children)
        if children:
            threading.Thread(target=self._watch, args=(children,), daemon=True).start()

    def _telling(self, rank: int, child: subprocess.Popen[bytes]) -> Callable[[], int | None]:
        """`poll` of a process, which does not say that it ended before the log does."""
        poll = child.poll

        def ask() -> int | None:
            with self._lock:
                code = poll()
                if code and self.signals.known is not None:
                    # It saved and stopped with the others, which Lightning would kill for it.
                    child.returncode = code = 0
                if code in INTERRUPTED:
                    self._tell_of_signal()
                elif code:
                    self._tell(f"process {rank} of this run ended with code {code}; the run stops")
            return code

        return ask

    def _tell(self, what: str) -> None:
        """Say why the run ends; the first reason is why the others end."""
        with self._lock:
            if self._explained:
                return
            self._explained = True
            cure = f"go on with unetsep train --run {shell_word(self.checkpoint.parent)} --resume"
            saved = self.checkpoint.exists()
            logger.error("%s, %s", what, cure if saved else "nothing was saved yet")

    def _tell_of_signal(self) -> None:
        if self.signals.number is None:
            self._tell("the run was interrupted")
        else:  # This process had one, and tells of it as it ends.
            self._explained = True

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say so when a signal ends the first process, before Lightning kills the others."""
        if self._watching and isinstance(exception, KeyboardInterrupt | SystemExit):
            self._tell_of_signal()

    def _watch(self, children: list[subprocess.Popen[bytes]]) -> None:
        while not self._over.wait(EVERY):
            if any(child.poll() for child in children):
                return

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching."""
        self._over.set()
