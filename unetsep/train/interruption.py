"""Signals that ask a run to end: all its processes end after the same step, and save."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from lightning import Trainer

from ..storage import shell_word
from ..unfinished import ENDING
from .config import TrainingError

# Everything from which a run can be resumed, in its folder.
LAST = "last.ckpt"
# Exists while the first best weights wait for the first of these.
PENDING = ".pending"


def how_to_resume(run: Path) -> str:
    """What can be done with a run that ends early, for messages."""
    if not (run / LAST).exists():
        return "nothing was saved yet: the same command starts it again"
    return f"resume with unetsep train --run {shell_word(run)} --resume"


class InterruptedRunError(TrainingError):
    """A run that a signal ended, after its checkpoint was saved.

    Parameters
    ----------
    message
        What was saved, and how to resume.
    number
        Of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class EndSignals:
    """Ctrl-C, SIGTERM and a closed terminal, which wait for the end of a step.

    A scheduler or a user may send one to any process of a run, or to all. Processes can only end
    after the same step, so they exchange their signals at the end of a step.

    Parameters
    ----------
    exchange_every
        Steps between two exchanges on an accelerator, where each exchange waits for it.
    """

    def __init__(self, exchange_every: int) -> None:
        self.exchange_every = exchange_every
        # The first signal of this process, and one that all processes have received.
        self.number: int | None = None
        self.common_number: int | None = None
        # Whether this process got a second one, after which it ends without waiting.
        self.immediate = False
        # Set once everything is saved and the run ends.
        self.handled = False
        # The handlers from before the run. During it Lightning handles SIGTERM, and restores the
        # old handler before callbacks end. Restoring Lightning's then would keep it, and with it
        # the whole run, forever.
        self._handlers = {number: signal.getsignal(number) for number in ENDING}
        self._listening: list[int] = []

    def listen(self) -> None:
        """Start handling them, in the main thread; other threads get none."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING:
            # A run that was started with nohup outlives the terminal.
            is_request = number in (signal.SIGINT, signal.SIGTERM)
            if is_request or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)
                self._listening.append(number)

    def restore(self, *further: int) -> None:
        """Restore the handlers that they, and further signals, had when this was created."""
        for number in (*self._listening, *further):
            signal.signal(number, self._handlers[number])
        self._listening = []

    def _note(self, number: int, _: Any) -> None:
        if self.number is not None and not self.handled:  # the second signal ends at once
            self.immediate = True
            raise KeyboardInterrupt
        self.number = number

    def after_step(self, trainer: Trainer) -> int | None:
        """The signal that all processes have received, or None; the same in each.

        All of them must call it at the end of each step.
        """
        if trainer.world_size == 1:
            return self.number
        on_cpu = trainer.strategy.root_device.type == "cpu"
        if on_cpu or trainer.global_step % self.exchange_every == 0:
            self.now(trainer)
        return self.common_number

    def now(self, trainer: Trainer) -> int | None:
        """As `after_step`, but never later."""
        if trainer.world_size == 1:
            return self.number
        number = torch.tensor(self.number or 0, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX)
        self.common_number = int(number) or None
        return self.common_number
