from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
from click.testing import CliRunner

from unetsep import cli
from unetsep.cli import interrupts
from unetsep.cli.errors import Group
from unetsep.cli.interrupts import KILLED, deliver_again
from unetsep.cli.options import shared
from unetsep.errors import NO_THREADS


class Thing:
    pass


def forget(things: list[Thing]) -> None:
    things.clear()
    time.sleep(10)


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGINT, KeyboardInterrupt), *((number, SystemExit) for number in KILLED.values())],
)
def test_a_signal_within_a_callback_is_raised_again_outside_it(number, error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", deliver_again)
    # Who starts the tests in the background of a shell has them ignore Ctrl-C.
    raising = {each: lambda number, _: sys.exit(128 + number) for each in KILLED.values()}
    raising[signal.SIGINT] = signal.default_int_handler
    before = {each: signal.signal(each, handler) for each, handler in raising.items()}
    try:
        things = [Thing()]
        reference = weakref.ref(things[0], lambda _: signal.raise_signal(number))
        with pytest.raises(error):
            forget(things)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert reference() is None
    assert capsys.readouterr().err == ""


CTRL_BREAK = """
import signal
signal.SIGBREAK = signal.SIGUSR1  # as if this system had it
from unetsep.cli.interrupts import obey_signals
from unetsep.unfinished import uninterrupted
obey_signals()
with uninterrupted():
    signal.raise_signal(signal.SIGBREAK)
    print("taken back")
"""


@pytest.mark.skipif(os.name == "nt", reason="there it needs a console")
def test_ctrl_break_cleans_up_as_ctrl_c_does():
    command = [sys.executable, "-c", CTRL_BREAK]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (128 + signal.SIGUSR1, b"taken back\n")


def test_other_exceptions_in_callbacks_are_shown_as_python_does(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", deliver_again)
    thing = Thing()
    reference = weakref.ref(thing, lambda _: 1 / 0)
    del thing
    assert reference() is None
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ended", "code"), [(KeyboardInterrupt(), 130), (SystemExit(143), 143), (ValueError(), 1)]
)
def test_an_error_of_a_lock_does_not_hide_a_signal(ended, code):
    group = Group("unetsep")

    @group.command()
    def wait() -> None:
        try:
            raise ended
        finally:  # as `threading.Condition` where a signal comes while it lets its lock go
            threading.Lock().release()

    result = CliRunner().invoke(group, ["wait"])
    assert result.exit_code == code
    assert ("Interrupted" in result.stderr) == (code == 130)
    assert isinstance(result.exception, RuntimeError if code == 1 else SystemExit)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to"),
        RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
    ],
)
def test_a_command_without_memory_gets_a_message_of_one_sentence(error: Exception) -> None:
    group = Group("unetsep")

    @group.command()
    @shared.device
    def load(device: str) -> None:
        raise error

    @group.command()
    def train() -> None:
        raise error

    for name, cure in {"load": " or use --device cpu", "train": ""}.items():
        result = CliRunner().invoke(group, [name])
        assert result.exit_code == 1
        assert result.stderr == f"Error: out of memory; close other programs{cure}\n"


def test_a_command_without_threads_gets_a_message_of_one_sentence() -> None:
    group = Group("unetsep")

    @group.command()
    def load() -> None:
        raise RuntimeError("can't start new thread")

    result = CliRunner().invoke(group, ["load"])
    assert result.exit_code == 1
    assert result.stderr == f"Error: {NO_THREADS}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, *KILLED.values()])
def test_a_signal_keeps_its_exit_code_even_if_a_library_hides_it(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def main(_: list[str]) -> None:
        try:
            handle = interrupts._interrupt if number == signal.SIGINT else interrupts._end
            handle(number, None)
        except BaseException:
            sys.exit(1)

    monkeypatch.setattr(interrupts, "_number", 0)
    monkeypatch.setattr(cli, "main", main)
    steps = ("obey_signals", "reopen_closed", "silence_matplotlib", "ignore_signals", "undo_all")
    for name in steps:
        monkeypatch.setattr(cli, name, lambda: None)
    with pytest.raises(SystemExit) as ended:
        cli.run()
    assert ended.value.code == 128 + number


def test_an_interrupt_during_imports_exits_with_130_and_no_message(tmp_path: Path) -> None:
    interrupt = "import signal\nsignal.raise_signal(signal.SIGINT)\n"
    (tmp_path / "click.py").write_text(interrupt, "utf-8")
    # Who starts the tests in the background of a shell has them ignore Ctrl-C.
    listen = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command = f"{listen}from unetsep.__main__ import run\nrun()"
    here = str(Path(cli.__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), here])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stderr) == (130, "")
