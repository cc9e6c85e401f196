"""A clear word when a process of a distributed run dies."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

logger = logging.getLogger(__name__)

# What gloo, NCCL and torch's store say when the other side is gone.
LOST = ("closed by peer", "connection reset", "timed out", "timeout", "broken pipe", "nccl")

# Seconds between looks at the other processes.
EVERY = 0.05


def is_lost_process(error: BaseException) -> bool:
    """Whether an error means that another process of the run does not answer."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error).lower()
    return bool(kinds & {"DistBackendError", "DistNetworkError", "DistStoreError"}) or any(
        words in text for words in LOST
    )


class ChildWatch(Callback):
    """Says which process ended; Lightning ends the others, but without a word.

    Lightning looks every few seconds for dead ones among the processes that it started, and
    then kills the whole run. This looks so often that it writes why to the log first.

    Parameters
    ----------
    run
        Folder of the run.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self._over = threading.Event()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to watch, in the process that started the others."""
        children: list[Any] = list(getattr(trainer.strategy.launcher, "procs", None) or [])
        if children:
            threading.Thread(target=self._watch, args=(children,), daemon=True).start()

    def _watch(self, children: list[Any]) -> None:
        while not self._over.wait(EVERY):
            for rank, child in enumerate(children, start=1):
                if child.poll():
                    logger.error(
                        "process %d of this run ended with code %d; the run stops, go on with "
                        "unetsep train --run %s --resume",
                        rank,
                        child.returncode,
                        self.run,
                    )
                    return

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Stop watching."""
        self._over.set()
