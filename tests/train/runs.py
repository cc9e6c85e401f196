"""Small runs, and what is done to them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from lightning import Callback

from tests.train.synthetic import songs
from unetsep.train.config import TrainConfig
from unetsep.train.fit import Machine, fit
from unetsep.train.logs import read_log

CPU = Machine("cpu", workers=0)


def run(path: Path, config: TrainConfig, **options: Any) -> list[dict[str, Any]]:
    """Train, and return the log without times."""
    fit(config, *songs(), path, **{"machine": CPU} | options)
    return log(path)


def log(path: Path) -> list[dict[str, Any]]:
    """The log of a run without times."""
    return [
        {k: v for k, v in line.items() if k != "minutes"} for line in read_log(path / "log.jsonl")
    ]


class At(Callback):
    """Does something when a step begins."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.action(pl_module)


def interrupt(_: Any) -> None:
    """Ctrl-C."""
    os.kill(os.getpid(), signal.SIGINT)
