"""``unetsep train`` with a small network, whose last process gets a signal at its third step.

Started by ``test_many_processes.py``: with the signal's number, and the command's arguments.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Any

import torch

from tests.train.runs import At
from tests.train.synthetic import MODEL
from unetsep.cli import main
from unetsep.cli import train as command
from unetsep.network import presets
from unetsep.train.config import TrainConfig
from unetsep.train.logs import is_main_process


@dataclasses.dataclass(frozen=True)
class ShortClips(TrainConfig):
    """Clips of a size for tests."""

    clip_frames: int = 32
    log_every: int = 1


if __name__ == "__main__":
    torch.set_num_threads(1)
    number = int(sys.argv[1])

    def ask(_: Any) -> None:
        if number and not is_main_process():
            os.kill(os.getpid(), number)

    presets.NETWORKS["mixing"] = MODEL  # type: ignore[index]
    vars(command).update(TrainConfig=ShortClips, ProgressBar=lambda _: At(2, ask))
    main(sys.argv[2:])
