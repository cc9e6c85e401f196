"""Torch's number of threads, set in a thread of ours while other threads start."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
import torch

from unetsep.dsp.arrays import as_signal
from unetsep.dsp.segments import segment_pool
from unetsep.dsp.threads import OwnThread, thread_count
from unetsep.separator import Separator

HOST = 3
TENSOR = torch.zeros(2, 100_000, dtype=torch.float64)  # large enough for all threads
ROOT = Path(__file__).parents[2]


class Moment:
    """Prolongs the moment in which new threads would start with our number."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()
        self._set = torch.set_num_threads

    def set_num_threads(self, count: int) -> None:
        self._set(count)
        if count != HOST:
            self.begun.set()
            assert self.over.wait(60)


@pytest.fixture
def moment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Moment]:
    before = torch.get_num_threads()
    torch.set_num_threads(HOST)
    with monkeypatch.context() as patch:
        made = Moment()
        patch.setattr(torch, "set_num_threads", made.set_num_threads)
        try:
            yield made
        finally:
            made.over.set()
    torch.set_num_threads(before)


def _pool_size(_: Separator) -> None:
    with segment_pool(torch.device("cpu")) as pool:
        assert pool is not None
        assert pool.size == HOST


def _tensor(_: Separator) -> None:
    as_signal(TENSOR)


def _song(separator: Separator) -> None:
    separator.separate(np.zeros((2, 44_100), np.float32), 44_100)


@pytest.mark.parametrize("call", [lambda _: thread_count(), _pool_size, _tensor, _song])
def test_a_new_thread_that_calls_us_keeps_the_hosts_number(
    moment: Moment, tiny_separator: Separator, call: Callable[[Separator], object]
) -> None:
    def visit() -> int:
        call(tiny_separator)
        return torch.get_num_threads()

    with OwnThread(1, "ours") as ours, ThreadPoolExecutor(1) as host:
        changed = ours.submit(torch.get_num_threads)
        assert moment.begun.wait(60)
        visitor = host.submit(visit)
        assert wait([visitor], 0.3).not_done
        moment.over.set()
        assert visitor.result(60) == HOST
        assert changed.result(60) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_fork_waits_until_the_number_is_restored() -> None:
    """In a separate process, since the fork would have the threads of these tests."""
    script = """
import os, threading, time, torch
from unetsep.dsp.threads import OwnThread, thread_count

torch.set_num_threads(3)
real, begun = torch.set_num_threads, threading.Event()

def slow(count):
    real(count)
    if count == 1:
        begun.set()
        time.sleep(0.5)

torch.set_num_threads = slow
ours = OwnThread(1, "ours")
ours.submit(int)
begun.wait()
child = os.fork()
numbers = []
thread = threading.Thread(target=lambda: numbers.append(thread_count()))
thread.start()
thread.join(10)
with OwnThread(2, "another") as another:
    numbers.append(another.call(thread_count))
if child == 0:
    os._exit(0 if numbers == [3, 2] else 1)
assert numbers == [3, 2], numbers
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
