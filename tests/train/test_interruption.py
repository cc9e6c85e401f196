"""How the processes of a run agree on the step after which they end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from unetsep.train.interruption import EndSignals


@pytest.fixture
def signals() -> Iterator[EndSignals]:
    """Of this process, noted."""
    found = EndSignals(exchange_every=3)
    found.listen()
    yield found
    found.restore()


def test_a_signal_to_one_process_reaches_all_after_the_same_step(
    signals: EndSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = 0

    def all_reduce(number: torch.Tensor, *_: Any) -> None:
        number.clamp_(min=elsewhere)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(world_size=2, strategy=strategy, global_step=1)
    assert signals.after_step(trainer) is None
    trainer.global_step, elsewhere = 2, signal.SIGTERM
    assert signals.after_step(trainer) == signal.SIGTERM
    # The scheduler's signal to this process comes late. It is no second one.
    signal.raise_signal(signal.SIGTERM)
    assert not signals.immediate
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert signals.immediate


def test_signals_after_the_last_checkpoint_are_not_immediate(signals: EndSignals) -> None:
    signal.raise_signal(signal.SIGINT)
    signals.handled = True
    signal.raise_signal(signal.SIGINT)
    assert signals.number == signal.SIGINT
    assert not signals.immediate


def test_accelerators_exchange_signals_only_every_few_steps(
    signals: EndSignals, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []

    def all_reduce(*_: Any) -> None:
        told.append(trainer.global_step)

    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(torch, "tensor", lambda number, **_: number)
    strategy = SimpleNamespace(root_device=torch.device("cuda"))
    trainer: Any = SimpleNamespace(world_size=2, strategy=strategy, global_step=0)
    signal.raise_signal(signal.SIGINT)
    known = []
    for trainer.global_step in range(1, 8):
        known.append(signals.after_step(trainer))
    assert told == [3, 6]
    assert known == [None] * 2 + [signal.SIGINT] * 5
    trainer.global_step = 8
    assert signals.now(trainer) == signal.SIGINT
    assert told == [3, 6, 8]
