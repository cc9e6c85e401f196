"""Two processes on one machine are one run; when one dies, the run ends and says so."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.fabric.strategies.launchers.subprocess_script import _ChildProcessObserver

from tests.forks import Forks
from tests.train.ddp_run import Notes
from tests.train.runs import log
from tests.train.synthetic import songs, tiny, write_musdb
from unetsep.train import distributed
from unetsep.train.distributed import is_lost_process
from unetsep.train.fit import fit
from unetsep.train.interruption import EndSignals
from unetsep.train.machine import Machine
from unetsep.train.run_folder import resumable_step


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    """Programs in processes of their own; those that they start themselves are new ones."""
    with Forks("lightning", "tests.train.synthetic", "unetsep.train.fit") as running:
        yield running


def job(folder: Path, module: str, *words: object) -> dict[str, Any]:
    """A module of the tests as a program that tells what it has to say in ``folder/stderr``."""
    streams = {"stdout": os.devnull, "stderr": folder / "stderr"}
    return {"module": f"tests.train.{module}", "arguments": words, **streams}


def run_in_two(forks: Forks, folder: Path, *words: str) -> tuple[str, float]:
    """Messages and seconds of a run in two processes, one of which was killed."""
    ran = forks.run(**job(folder, "ddp_run", folder, *words))
    assert ran["code"] != 0
    return (folder / "stderr").read_text(), ran["seconds"]


@pytest.fixture(scope="module")
def lost_run(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    """Folder, messages and seconds of such a run."""
    folder = tmp_path_factory.mktemp("two")
    return folder, *run_in_two(forks, folder)


def test_two_processes_have_the_gradients_of_one_with_twice_the_batch(
    lost_run: tuple[Path, str, float], tmp_path: Path
) -> None:
    notes = Notes(tmp_path)
    config = tiny(freeze_norm=True, batch_size=4, max_steps=1, losses=("l1", "mse"))
    fit(config, *songs(), tmp_path / "run", machine=Machine("cpu", workers=0), callbacks=[notes])
    one = torch.load(tmp_path / "rank0.pt", weights_only=True)
    two = [torch.load(lost_run[0] / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert two[0]["clips"] + two[1]["clips"] == one["clips"]
    assert len(set(one["clips"])) == 4
    for name, gradient in one["gradients"].items():
        for each in two:
            torch.testing.assert_close(each["gradients"][name], gradient, rtol=1e-4, atol=1e-7)


def test_a_run_that_loses_a_process_ends_with_a_message_and_a_good_checkpoint(
    lost_run: tuple[Path, str, float],
) -> None:
    folder, messages, seconds = lost_run
    assert seconds < 60 + 60  # the group's timeout, and starting on a busy machine
    assert messages.count("process 1 of this run ended with code -9; the run stops") == 1
    config = tiny(freeze_norm=True, max_steps=100, losses=("l1", "mse"))
    assert resumable_step(folder / "run" / "last.ckpt", config) == 3


def test_a_run_that_lightning_kills_reports_the_reason(forks: Forks, tmp_path: Path) -> None:
    messages, seconds = run_in_two(forks, tmp_path, "observed")
    assert seconds < 60 + 60
    assert messages.count("process 1 of this run ended with code -9; the run stops") == 1


def test_the_end_of_a_process_is_logged_before_it_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, error = [], distributed.logger.error
    (tmp_path / "last.ckpt").touch()

    def slow_error(*words: object) -> None:
        time.sleep(0.5)
        error(*words)
        said.append(True)

    monkeypatch.setattr(distributed.logger, "error", slow_error)
    words = [sys.executable, "-c", "import sys; sys.exit(int(sys.stdin.read()))"]
    with contextlib.ExitStack() as stack:
        well, ill, later = (
            stack.enter_context(subprocess.Popen(words, stdin=subprocess.PIPE)) for _ in range(3)
        )
        launcher = SimpleNamespace(procs=[well, ill, later])
        trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
        watch: Any = distributed.ChildWatch(tmp_path, EndSignals(1))
        watch.setup(trainer, None, "fit")

        def learns_of(child: subprocess.Popen[bytes]) -> bool:
            while child.poll() is None:
                time.sleep(0.01)
            return bool(said)

        for child, end in ((well, b"0"), (ill, b"3"), (later, b"4")):
            assert child.poll() is None
            assert child.stdin is not None
            child.stdin.write(end)
            child.stdin.close()
            with ThreadPoolExecutor(4) as threads:
                told = set(threads.map(learns_of, [child] * 4))
            assert told == {child is not well}
            assert child.returncode == int(end)
    assert caplog.messages == [
        "process 2 of this run ended with code 3; the run stops, resume with "
        f"unetsep train --run {tmp_path} --resume"
    ]


@pytest.mark.parametrize("saved", [False, True])
def test_an_interrupted_run_blames_no_process_and_names_its_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, saved: bool
) -> None:
    if saved:
        (tmp_path / "last.ckpt").touch()
    ends: list[tuple[Any, ...]] = [
        (KeyboardInterrupt(), "import time; time.sleep(600)"),  # Lightning kills the others
        (None, "import sys; sys.exit(130)"),  # another process got Ctrl-C first
    ]
    for error, code in ends:
        caplog.clear()
        with subprocess.Popen([sys.executable, "-c", code]) as child:
            trainer: Any = SimpleNamespace(
                strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[child]))
            )
            watch: Any = distributed.ChildWatch(tmp_path, EndSignals(1))
            watch.setup(trainer, None, "fit")
            if error is not None:
                watch.on_exception(trainer, None, error)
                child.kill()
            child.wait()
            child.poll()
        resume = f"resume with unetsep train --run {tmp_path} --resume"
        what = resume if saved else "nothing was saved yet: the same command starts it again"
        assert caplog.messages == [f"the run was interrupted, {what}"]


def test_of_several_machines_no_process_is_blamed_for_the_loss_of_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(1)"]) as child:
        trainer: Any = SimpleNamespace(
            strategy=SimpleNamespace(launcher=SimpleNamespace(procs=[child])), num_nodes=2
        )
        watch: Any = distributed.ChildWatch(tmp_path, EndSignals(1))
        watch.setup(trainer, None, "fit")
        watch.on_exception(trainer, None, RuntimeError("Connection closed by peer"))
    assert caplog.messages == []


@pytest.mark.parametrize("code", [1, 130])
def test_a_process_that_stops_with_the_others_is_not_lost(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
) -> None:
    signals, killed = EndSignals(1), []
    with subprocess.Popen([sys.executable, "-c", f"import sys; sys.exit({code})"]) as child:
        launcher = SimpleNamespace(procs=[child])
        trainer: Any = SimpleNamespace(strategy=SimpleNamespace(launcher=launcher))
        signals.common_number = signal.SIGTERM
        watch: Any = distributed.ChildWatch(tmp_path, signals)
        watch.setup(trainer, None, "fit")
        observer = _ChildProcessObserver(os.getpid(), [child], sleep_period=0)
        monkeypatch.setattr(observer, "_terminate_all", lambda: killed.append(child))
        observer.run()
        assert not killed
        assert (child.poll(), child.returncode) == (0, 0)
    assert not caplog.messages


def test_a_signal_to_any_process_stops_all_with_a_checkpoint(forks: Forks, tmp_path: Path) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))

    def train(number: int, *more: object) -> tuple[float, str]:
        where = ("--cache", tmp_path / "cache", "--run", tmp_path / "run", "--workers", 0)
        words = (number, "train", *where, "--accelerator", "cpu", "--devices", 2, *more)
        ran = forks.run(**job(tmp_path, "ddp_command", *words))
        return ran["code"], (tmp_path / "stderr").read_text()

    settings = ("--loss", "l1", "--batch-size", 1, "--precision", "fp32")
    code, told = train(int(signal.SIGTERM), "--musdb-root", tmp_path / "musdb", *settings)
    assert code == 128 + signal.SIGTERM, told
    step = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"]
    assert 3 <= step <= 5
    said = f"interrupted after step {step}; resume with unetsep train --run"
    assert told.count("interrupted") == told.count(said) == 1
    assert "Traceback" not in told
    assert not list((tmp_path / "run").glob("*.part"))
    code, told = train(0, "--resume", "--max-steps", step + 1)
    assert code == 0, told
    steps = [line["step"] for line in log(tmp_path / "run") if "train/l1" in line]
    assert steps == list(range(1, step + 2))


def test_errors_of_lost_processes_are_recognised() -> None:
    assert is_lost_process(RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:1234"))
    assert is_lost_process(RuntimeError("Timed out waiting 60000ms for recv operation"))
    assert not is_lost_process(RuntimeError("The size of tensor a must match"))
