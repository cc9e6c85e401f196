"""A run in two processes, of which the second one dies; started by ``test_many_processes.py``.

With ``observed`` behind the folder only Lightning notices it: the first process waits for ever
before it needs the second one.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import torch
from lightning import Callback

from tests.train.synthetic import songs, tiny
from unetsep.train.config import TrainingError
from unetsep.train.fit import fit
from unetsep.train.machine import Machine

DIES_AT = 4


class Notes(Callback):
    """Saves the first step's gradients and a fingerprint of each batch."""

    def __init__(self, folder: Path, *, observed: bool = False) -> None:
        self.folder, self.observed, self.seen = folder, observed, []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, *_: Any) -> None:
        self.seen += [float(clip.abs().sum()) for clip in batch]
        if trainer.global_step == DIES_AT and trainer.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if trainer.global_step == DIES_AT and self.observed:
            threading.Event().wait()

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == 0:
            gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters()}
            content = {"gradients": gradients, "clips": self.seen}
            torch.save(content, self.folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    logging.basicConfig()
    torch.set_num_threads(1)
    target, only_observed = Path(sys.argv[1]), sys.argv[2:] == ["observed"]
    settings = tiny(freeze_norm=True, max_steps=100, losses=("l1", "mse"))
    try:
        fit(
            settings,
            *songs(),
            target / "run",
            machine=Machine("cpu", devices=2, workers=0),
            callbacks=[Notes(target, observed=only_observed)],
        )
    except TrainingError as error:
        sys.exit(f"stopped: {error}")
