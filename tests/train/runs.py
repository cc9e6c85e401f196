"""Small runs, and what is done to them."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from lightning import Callback

from tests.train.synthetic import MODEL, songs
from unetsep.cli import train as train_commands
from unetsep.network import presets
from unetsep.train.config import TrainConfig
from unetsep.train.fit import fit
from unetsep.train.logs import read_log
from unetsep.train.machine import Machine

CPU = Machine("cpu", workers=0)


def run(path: Path, config: TrainConfig, **options: Any) -> list[dict[str, Any]]:
    """Train, and return the log without times."""
    fit(config, *songs(), path, **{"machine": CPU} | options)
    return log(path)


@dataclasses.dataclass(frozen=True)
class ShortClips(TrainConfig):
    """Clips of a size for tests."""

    clip_frames: int = 64


def make_command_small(patch: pytest.MonkeyPatch) -> None:
    """Let ``unetsep train`` take networks and clips of a size for tests."""
    patch.setitem(presets.NETWORKS, "mixing", MODEL)
    patch.setattr(train_commands, "TrainConfig", ShortClips)


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
