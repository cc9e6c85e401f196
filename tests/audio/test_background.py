from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from unetsep.audio.background import WAITING, BackgroundWriter, ReadAhead
from unetsep.dsp.segments import segment_pool

CPU = torch.device("cpu")


def test_items_come_in_order_and_from_another_thread() -> None:
    threads = set()

    def numbers() -> Iterator[int]:
        for number in range(20):
            threads.add(threading.current_thread())
            yield number

    with ReadAhead(numbers()) as items:
        assert list(items) == list(range(20))
    assert threads.isdisjoint({threading.current_thread()})


def test_an_error_comes_after_the_items_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise KeyError("second")

    with ReadAhead(numbers()) as source:
        items = iter(source)
        assert next(items) == 1
        with pytest.raises(KeyError, match="second"):
            next(items)


def test_reading_ahead_is_bounded_and_stops_on_exit() -> None:
    read = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    with ReadAhead(numbers()) as items:
        assert next(iter(items)) == 0
        time.sleep(0.05)
        assert len(read) <= WAITING + 2
    count = len(read)
    time.sleep(0.05)
    assert len(read) == count
    assert not any(thread.name == "read ahead" for thread in threading.enumerate())


def test_all_calls_are_made_in_order() -> None:
    made: list[int] = []
    with BackgroundWriter() as writer:
        for number in range(50):
            writer.call(made.append, number)
    assert made == list(range(50))


def test_an_error_of_a_call_is_raised_in_the_caller() -> None:
    made: list[int] = []

    def fail() -> None:
        raise OSError("disk full")

    def write() -> None:
        with BackgroundWriter() as writer:
            writer.call(fail)
            for number in range(50):
                writer.call(made.append, number)

    with pytest.raises(OSError, match="disk full"):
        write()
    assert made == []


def test_after_an_error_of_the_caller_waiting_calls_are_dropped() -> None:
    made: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait()

    def write() -> None:
        with BackgroundWriter() as writer:
            writer.call(wait)
            writer.call(made.append, 1)
            begun.wait()
            threading.Timer(0.05, go_on.set).start()
            raise KeyError

    with pytest.raises(KeyError):
        write()
    assert made == []
    assert not any(thread.name == "background writer" for thread in threading.enumerate())


@pytest.mark.parametrize(("threads", "size", "share"), [(2, 2, 1), (3, 3, 1), (16, 4, 4)])
def test_a_pool_divides_the_threads_and_keeps_those_of_the_caller(
    threads: int, size: int, share: int
) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        with segment_pool(CPU) as pool:
            assert pool is not None
            assert pool.size == size
            assert pool.submit(torch.get_num_threads).result() == share
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_one_thread_needs_no_pool() -> None:
    assert torch.get_num_threads() == 1  # as conftest.py sets it
    with segment_pool(CPU) as pool:
        assert pool is None
