"""What happens around the steps of a run: averages, checkpoints, interruptions."""

from __future__ import annotations

import dataclasses
import errno
import gc
import itertools
import multiprocessing
import os
import pickletools
import re
import signal
import threading
import time
import weakref
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.optim.swa_utils import AveragedModel

from tests.train.runs import At, interrupt, log, run
from tests.train.synthetic import tiny
from unetsep.train.callbacks import Ema
from unetsep.train.config import TrainingError
from unetsep.train.interruption import InterruptedRunError
from unetsep.train.logs import JsonLinesLogger
from unetsep.train.machine import Machine
from unetsep.train.module import SeparationModule
from unetsep.unfinished import ENDING
from unetsep.weights.load import load_network


@pytest.mark.parametrize("step", [3, 4], ids=["after validation", "between validations"])
def test_an_interrupted_run_resumes_exactly(tmp_path: Path, whole: Path, step: int) -> None:
    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    before = signal.getsignal(signal.SIGINT)
    folder = tmp_path / "my run"
    with pytest.raises(TrainingError) as caught:
        run(folder, config, callbacks=[At(step - 1, interrupt)])
    how = f"unetsep train --run '{folder}' --resume"
    assert str(caught.value) == f"interrupted after step {step}; resume with {how}"
    assert signal.getsignal(signal.SIGINT) is before
    assert run(folder, config, resume=True) == log(whole)
    for name in ("best-l1", "best-mel_mse"):
        ours = load_network(folder / f"{name}.safetensors").state_dict()
        for key, value in load_network(whole / f"{name}.safetensors").state_dict().items():
            assert torch.equal(ours[key], value), key


@pytest.mark.parametrize("number", ENDING)
def test_signals_to_all_processes_save_a_checkpoint(tmp_path: Path, number: int) -> None:
    def stop(_: Any) -> None:
        children = multiprocessing.active_children()
        assert children
        for process in children:
            assert process.pid is not None
            os.kill(process.pid, number)
        time.sleep(0.5)
        assert all(process.is_alive() for process in children)
        os.kill(os.getpid(), number)

    with pytest.raises(TrainingError, match="interrupted after step 2"):
        run(tmp_path, tiny(), callbacks=[At(1, stop)], machine=Machine("cpu", workers=1))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


class InValidation(Callback):
    """Does something when a validation begins."""

    def __init__(self, action: Any) -> None:
        self.action = action

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        self.action(pl_module)


def fail(_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("action", "message"),
    [(interrupt, "interrupted after step 3"), (fail, "No space left")],
    ids=["Ctrl-C", "full disk"],
)
def test_a_run_that_ends_in_a_validation_leaves_no_worker(
    tmp_path: Path, action: Any, message: str
) -> None:
    before = set(multiprocessing.active_children())
    workers: list[Any] = []

    def end(module: Any) -> None:
        workers.extend(set(multiprocessing.active_children()) - before)
        action(module)

    with pytest.raises(TrainingError, match=message):
        run(tmp_path, tiny(), callbacks=[InValidation(end)], machine=Machine("cpu", workers=1))
    assert workers
    assert set(multiprocessing.active_children()) <= before


def test_a_run_restores_signal_handlers_and_frees_its_memory(tmp_path: Path) -> None:
    modules: list[weakref.ref[Any]] = []
    before = [signal.getsignal(number) for number in ENDING]
    run(tmp_path, tiny(), callbacks=[At(0, lambda module: modules.append(weakref.ref(module)))])
    assert [signal.getsignal(number) for number in ENDING] == before
    gc.collect()
    assert [module() for module in modules] == [None]


@pytest.mark.parametrize(("step", "message"), [(3, "nothing was"), (6, "resume with .*--resume")])
def test_a_second_signal_stops_a_run_at_once_without_partial_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, message: str
) -> None:
    real = Trainer.save_checkpoint

    def save(self: Trainer, path: Path) -> None:
        real(self, path)
        if self.global_step == step:
            interrupt(None)
            interrupt(None)

    monkeypatch.setattr(Trainer, "save_checkpoint", save)
    before = signal.getsignal(signal.SIGINT)
    folder = tmp_path / "my run"
    with pytest.raises(InterruptedRunError, match=f"interrupted at once; {message}") as caught:
        run(folder, tiny())
    assert step == 3 or f"unetsep train --run '{folder}' --resume" in str(caught.value)
    assert caught.value.number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(folder.glob("*.part"))
    assert (folder / "last.ckpt").exists() == (step == 6)


@pytest.mark.parametrize("method", ["calibrate", "configure_optimizers"])
def test_ctrl_c_before_the_first_step_says_how_to_start_again(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(SeparationModule, method, lambda *_, **__: interrupt(None))
        with pytest.raises(InterruptedRunError) as caught:
            run(tmp_path, tiny())
    assert caught.value.number == signal.SIGINT
    assert str(caught.value) == (
        "interrupted before the first step; nothing was saved yet: the same command starts it again"
    )
    assert signal.getsignal(signal.SIGINT) is before
    assert not (tmp_path / "last.ckpt").exists()
    assert run(tmp_path, tiny())[-1]["step"] == 6


def test_ctrl_c_after_the_last_step_is_not_reported_as_before_the_first(tmp_path: Path) -> None:
    class Teardown(Callback):
        def teardown(self, *_: Any, **__: Any) -> None:
            interrupt(None)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InterruptedRunError, match=r"^interrupted as the run ended; resume with "):
        run(tmp_path, tiny(), callbacks=[Teardown()])
    assert signal.getsignal(signal.SIGINT) is before
    assert run(tmp_path, tiny(), resume=True)[-1]["step"] == 6


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no closed terminals")
def test_a_run_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        close = At(1, lambda _: os.kill(os.getpid(), signal.SIGHUP))
        assert run(tmp_path, tiny(), callbacks=[close])[-1]["step"] == 6
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_average_is_on_the_networks_device_and_needs_no_synchronisation() -> None:
    # The trainer moves networks to their device after it has set up callbacks. Of "meta" nothing
    # can be read back.
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("meta")), global_step=1
    )
    module, ema = SeparationModule(tiny()), Ema(0.9)
    ema.setup(trainer, module, "fit")
    assert {each.device.type for each in ema.network("l1").parameters()} == {"meta"}
    module.to("meta")
    for trainer.global_step in (1, 2):
        ema.on_train_batch_end(trainer, module, None, None, 0)
    assert int(ema._average_model.n_averaged) == 2  # type: ignore[union-attr, arg-type]


def test_the_average_equals_that_of_torch_at_each_step() -> None:
    trainer: Any = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")), global_step=0
    )
    module, ema = SeparationModule(tiny()), Ema(0.3)

    def average(averaged: Any, current: Any, count: Any) -> None:
        if averaged[0].is_floating_point():
            decay = min(0.3, (1 + int(count)) / (10 + int(count)))
            torch._foreach_lerp_(list(averaged), list(current), 1 - decay)
        else:
            torch._foreach_copy_(list(averaged), list(current))

    theirs = AveragedModel(module, multi_avg_fn=average, use_buffers=True)
    ema.setup(trainer, module, "fit")
    for step in range(1, 6):
        with torch.no_grad():
            for each in itertools.chain(module.parameters(), module.buffers()):
                each += step if each.dtype == torch.int64 else torch.randn_like(each)
        trainer.global_step = step
        for _ in range(2):  # the second time is no step
            ema.on_train_batch_end(trainer, module, None, None, 0)
        theirs.update_parameters(module)
    assert ema._average_model is not None
    ours = ema._average_model.state_dict()
    assert list(ours) == list(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours[name], value), name


def test_a_checkpoint_holds_averaged_and_current_weights(whole: Path) -> None:
    content = torch.load(whole / "last.ckpt", weights_only=True)
    averaged, current = content["state_dict"], content["current_model_state"]
    for key in ("networks.l1.head.weight", "networks.l1.encoder.0.1.running_mean"):
        assert not torch.equal(averaged[key], current[key])


def test_the_best_checkpoint_holds_averaged_weights(tmp_path: Path) -> None:
    run(tmp_path, tiny(max_steps=4, valid_every=4))  # one validation: the best is the last
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    best = load_network(tmp_path / "best-l1.safetensors").state_dict()
    assert len(best) >= 10
    for key, value in best.items():
        assert torch.equal(value, content["state_dict"][f"networks.l1.{key}"]), key


def walk(value: Any) -> Iterator[Any]:
    """A value and all that is in it."""
    yield value
    if isinstance(value, dict):
        for pair in value.items():
            yield from walk(pair)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from walk(each)


def test_resume_state_has_only_tensors_and_plain_values_and_names_no_class(whole: Path) -> None:
    content = torch.load(whole / "last.ckpt", weights_only=True)
    plain = {dict, OrderedDict, list, tuple, str, int, float, bool, type(None), torch.Tensor}
    values = list(walk(content))
    assert len(values) > 200
    assert {type(value) for value in values} <= plain
    assert not [v for v in values if isinstance(v, str) and re.match(r"(unetsep|tests)\.", v)]
    assert set(content["callbacks"]) == {"ema"}
    with zipfile.ZipFile(whole / "last.ckpt") as archive:
        (pickled,) = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        operations = list(pickletools.genops(archive.read(pickled)))
    classes = {str(argument) for code, argument, _ in operations if code.name == "GLOBAL"}
    assert classes
    assert {re.split("[. ]", name)[0] for name in classes} <= {"torch", "collections"}


def test_the_average_follows_its_formula(tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            seen.append({k: v.clone() for k, v in pl_module.state_dict().items()})

    run(tmp_path, tiny(max_steps=4, ema_decay=0.3), callbacks=[Watch()])
    averaged = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    expected = seen[0]
    for n, state in enumerate(seen[1:], start=1):
        decay = min(0.3, (1 + n) / (10 + n))
        expected = {
            k: torch.lerp(v, state[k], 1 - decay) if v.is_floating_point() else state[k]
            for k, v in expected.items()
        }
    for key, value in expected.items():
        torch.testing.assert_close(averaged[key], value, rtol=1e-5, atol=1e-7)


def test_a_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Trainer.save_checkpoint

    def save(self: Trainer, path: Path) -> None:
        if self.global_step == 6:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, path)

    monkeypatch.setattr(Trainer, "save_checkpoint", save)
    with pytest.raises(TrainingError, match=r"cannot save step 6 .*: No space left.*last\.ckpt"):
        run(tmp_path, tiny())
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(("step", "saved"), [(2, "none was saved yet"), (5, r"last .*last\.ckpt")])
def test_a_full_disk_for_the_log_stops_a_run_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, saved: str
) -> None:
    real = JsonLinesLogger.log_metrics

    def write(self: JsonLinesLogger, metrics: dict[str, float], number: int) -> None:
        if number == step:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, metrics, number)

    monkeypatch.setattr(JsonLinesLogger, "log_metrics", write)
    with pytest.raises(TrainingError, match=f"^{tmp_path}: No space left .*run stops.*{saved}"):
        run(tmp_path, tiny())


def test_an_error_of_tensorboards_file_stops_a_run_with_only_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    name = os.fsencode(tmp_path / "events")

    def write(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), name)

    monkeypatch.setattr(RecordWriter, "write", write)
    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)  # not that of pytest
    before = threading.excepthook
    with pytest.raises(TrainingError, match=f"^{tmp_path}/events: .*not supported; the run stops"):
        run(tmp_path, tiny())
    assert "Traceback" not in capfd.readouterr().err
    assert threading.excepthook is before


def test_weights_that_cannot_be_written_stop_a_run_with_a_message(tmp_path: Path) -> None:
    best = tmp_path / "best-l1.safetensors"
    # A folder of that name stands for a disk that is full: the file cannot take its place.
    with pytest.raises(TrainingError, match=r"cannot save step 3 to .*; the run stops, none was"):
        run(tmp_path, tiny(), callbacks=[At(0, lambda _: best.mkdir())])
    assert not list(tmp_path.glob("*.part"))


def test_early_stopping_stops_a_run(tmp_path: Path) -> None:
    config = tiny(max_steps=100, valid_every=1, early_stop=1, learning_rate=1e-12, ema_decay=0.0)
    ended = run(tmp_path, config)
    assert ended[-1]["step"] < 100
    assert run(tmp_path, config, resume=True) == ended  # it has ended
    more = run(tmp_path, dataclasses.replace(config, early_stop=2), resume=True)
    assert more[-1]["step"] > ended[-1]["step"]
