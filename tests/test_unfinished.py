from __future__ import annotations

import signal
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from unetsep.unfinished import as_they_end, register_undo, undo_all, uninterrupted, unregister_undo


def test_ctrl_c_does_not_interrupt_a_block():
    done, before = [], signal.getsignal(signal.SIGINT)

    def work() -> None:
        with uninterrupted():
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["whole"]
    assert signal.getsignal(signal.SIGINT) is before


def test_unfinished_work_is_undone_once(tmp_path):
    files = [tmp_path / name for name in ("begun", "finished")]
    for file in files:
        file.touch()
        register_undo(file.unlink)
    unregister_undo(files[1].unlink)
    undo_all()
    undo_all()
    assert list(tmp_path.iterdir()) == [files[1]]


def test_the_latest_work_is_undone_first(tmp_path):
    begun = [tmp_path, *(tmp_path / "/".join("abcdefgh"[:depth]) for depth in range(1, 9))][1:]
    for folder in begun:
        folder.mkdir()
        register_undo(folder.rmdir)  # which fails as long as there is another one in it
    undo_all()
    assert list(tmp_path.iterdir()) == []


def test_each_future_is_yielded_once_also_one_that_failed_or_was_cancelled():
    with ThreadPoolExecutor(1) as pool:
        running = [pool.submit(divmod, 7, by) for by in (2, 0)]
    cancelled = Future()
    cancelled.cancel()
    ended = list(as_they_end(iter([*running, cancelled])))
    assert len(ended) == 3
    assert set(ended) == {*running, cancelled}
    assert list(as_they_end([])) == []


def test_futures_are_yielded_in_the_order_of_their_end():
    futures = [Future() for _ in range(3)]
    ended = as_they_end(futures)
    for number in (1, 2, 0):
        futures[number].set_result(number)
        assert next(ended).result() == number
