"""Signals that ask a run to end: all its processes end after the same step, and save."""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
import torch.distributed
from lightning import Trainer
from torch import Tensor

from ..unfinished import ENDING
from .config import TrainingError


class InterruptedRunError(TrainingError):
    """A signal that asks to end, after the checkpoint was saved.

    Parameters
    ----------
    message
        What was saved, and how to go on.
    number
        Of the signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class EndSignals:
    """Ctrl-C, a polite kill and a closed terminal, which wait for the end of a step.

    A scheduler or a user may send one to any process of a run, or to all. Processes can only end
    after the same step. So each tells the others of its signal at the end of a step, and reads
    what they told at the end of the next, and none waits for another.

    Parameters
    ----------
    look_every
        Steps from one end to the next on an accelerator, where each look waits for it.
    """

    def __init__(self, look_every: int) -> None:
        self.look_every = look_every
        # The first one that came here, and one that all processes know of.
        self.number: int | None = None
        self.known: int | None = None
        # Whether a second one came here, after which nothing is waited for.
        self.at_once = False
        # Set once all is saved, and nothing left to be ended.
        self.heeded = False
        # Whose they are: Lightning takes a polite kill during a run, and gives it back before any
        # callback ends, which would hand it to Lightning again, for ever and with all of the run.
        self._before = {number: signal.getsignal(number) for number in ENDING}
        self._listening: list[int] = []
        self._sent: tuple[Tensor, Any] | None = None

    def listen(self) -> None:
        """Begin to note them, in the main thread; others get none."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in ENDING:
            # Who starts it with nohup wants it to outlive the terminal.
            asked = number in (signal.SIGINT, signal.SIGTERM)
            if asked or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._note)
                self._listening.append(number)

    def give_back(self) -> None:
        """Leave them to those who had them when this was made."""
        for number in self._listening:
            signal.signal(number, self._before[number])
        self._listening = []

    def _note(self, number: int, _: Any) -> None:
        if self.number is not None and not self.heeded:  # the second time at once
            self.at_once = True
            raise KeyboardInterrupt
        self.number = number

    def after_step(self, trainer: Trainer) -> int | None:
        """The signal that all processes know of, or None; the same in each.

        To be asked by all of them, at the end of each step.
        """
        if trainer.world_size == 1:
            self.known = self.number
        elif trainer.global_step % self._steps(trainer) == 0:
            self._read()
            self._tell(trainer)
        return self.known

    def now(self, trainer: Trainer) -> int | None:
        """As `after_step`, but waiting for the others."""
        if trainer.world_size == 1:
            return self.number
        self._read()
        self._tell(trainer)
        self._read()
        return self.known

    def _steps(self, trainer: Trainer) -> int:
        return 1 if trainer.strategy.root_device.type == "cpu" else self.look_every

    def _tell(self, trainer: Trainer) -> None:
        device = trainer.strategy.root_device
        number = torch.tensor(self.known or self.number or 0, dtype=torch.int32, device=device)
        maximum = torch.distributed.ReduceOp.MAX
        self._sent = number, torch.distributed.all_reduce(number, maximum, async_op=True)

    def _read(self) -> None:
        if self._sent is not None:
            number, work = self._sent
            work.wait()
            self.known = int(number) or None
