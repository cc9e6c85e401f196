"""Runs: resuming, starting again, several devices, fine-tuning."""

from __future__ import annotations

import dataclasses
import errno
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

from tests.train.runs import At, interrupt, log, run
from tests.train.synthetic import MODEL, tiny
from unetsep.network import devices
from unetsep.storage import shell_word
from unetsep.train import fit as fitting
from unetsep.train import machine as machines
from unetsep.train import run_folder
from unetsep.train.callbacks import best_weights
from unetsep.train.config import TrainConfig, TrainingError
from unetsep.train.data.cache import load
from unetsep.train.interruption import InterruptedRunError
from unetsep.train.logs import draw_curves
from unetsep.train.machine import Machine, check_trainable
from unetsep.train.module import SeparationModule
from unetsep.train.release.export import export_run
from unetsep.train.release.publish import publish
from unetsep.train.run_folder import resumable_step
from unetsep.weights.load import load_network


def test_a_run_without_a_checkpoint_can_be_restarted(tmp_path: Path, whole: Path) -> None:
    def crash(_: Any) -> None:
        raise RuntimeError("power cut")

    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, config, callbacks=[At(2, crash)])
    assert [line["step"] for line in log(tmp_path)] == [1, 2]
    assert run(tmp_path, config) == log(whole)


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError()],
)
def test_a_run_out_of_memory_gets_advice(tmp_path: Path, error: Exception) -> None:
    def fill(_: Any) -> None:
        raise error

    with pytest.raises(TrainingError, match=r"out of memory: .*--batch-size.* none was saved yet"):
        run(tmp_path, tiny(), callbacks=[At(2, fill)])


def test_fp16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="do not train in fp16: choose --precision bf16"):
        run(tmp_path, tiny(precision="fp16"))


def test_a_killed_run_resumes_from_its_last_validation(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: Any) -> None:
        raise RuntimeError("power cut")

    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    monkeypatch.setattr("sys.argv", ["unetsep", "train", "--losses", "l1,mel_mse"])
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path, config, callbacks=[At(5, crash)])
    assert log(tmp_path)[-1]["step"] == 5
    monkeypatch.setattr("sys.argv", ["unetsep", "train", "--resume"])
    assert run(tmp_path, config, resume=True) == log(whole)
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert versions["command"] == "unetsep train --losses l1,mel_mse"


def test_a_run_folder_holds_config_versions_log_curves_and_checkpoints(whole: Path) -> None:
    assert TrainConfig.from_json((whole / "config.json").read_text()).losses == ("l1", "mel_mse")
    assert {"unetsep", "torch", "lightning", "python"} <= set(
        json.loads((whole / "versions.json").read_text())
    )
    assert (whole / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert list((whole / "tensorboard").glob("events.*"))
    lines = log(whole)
    assert [line["step"] for line in lines if "train/l1" in line] == list(range(1, 9))
    assert [line["step"] for line in lines if "valid/l1/mean" in line] == [3, 6, 8]
    assert lines[-2]["lr/l1"] < 0.05 * 1e-3


def test_the_command_of_a_run_is_stored_with_quotes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["unetsep", "train", "--songs", "my songs"])
    assert run_folder.versions()["command"] == f"unetsep train --songs {shell_word('my songs')}"


def test_curves_that_cannot_be_drawn_only_give_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "draw_curves", draw_curves)
    (tmp_path / "curves.png").mkdir()  # stands for a disk that is full
    assert run(tmp_path, tiny())[-1]["step"] == 6
    assert re.search(r"curves\.png could not be drawn: \w", caplog.text)
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(TrainingError, match="interrupted after step 7"):
        run(tmp_path, tiny(max_steps=9), resume=True, callbacks=[At(6, interrupt)])


def test_a_missing_gpu_is_refused(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(TrainingError, match="cannot train on 1 gpu"):
        run(tmp_path, tiny(), machine=Machine("gpu"))


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        (Machine("mps"), "cannot train on 1 mps: torch finds none here; choose --accelerator cpu"),
        (Machine("gpu", 3), "cannot train on 3 gpu: torch finds 2 here; choose fewer --devices"),
        (Machine(devices=3, nodes=2), "cannot train on 3 gpu: torch finds 2 here"),
    ],
)
def test_what_a_machine_with_two_gpus_lacks_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, machine: Machine, sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for module in (devices, machines):
        monkeypatch.setattr(module, "cuda_problem", lambda _: "")  # there they compute
    with pytest.raises(TrainingError, match=re.escape(sentence)):
        check_trainable(tiny(), machine)
    for each in (Machine(), Machine("gpu", 2), Machine("cpu", 3)):
        check_trainable(tiny(), each)
    monkeypatch.setattr(machines, "detect_launcher", lambda: ("torchrun", 3, 1))
    check_trainable(tiny(), Machine("gpu", 3))


def test_a_gpu_without_code_in_torch_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def ones(*_: object, device: torch.device) -> None:
        assert device.type == "cuda"
        raise RuntimeError("CUDA error: no kernel image is available\nCompile with")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "ones", ones)
    devices._warn_once.cache_clear()
    machine = Machine()
    assert machine.kind == "cpu"
    check_trainable(tiny(), machine)
    assert [record.getMessage().endswith(": the CPU is used") for record in caplog.records] == [
        True
    ]
    for asked in (Machine("gpu"), Machine(devices=2)):
        why = r"cannot train on \d gpu: torch .* no kernel image is available\); choose --acc"
        with pytest.raises(TrainingError, match=why):
            check_trainable(tiny(), asked)
    monkeypatch.setattr(machines, "is_main_process", lambda: False)  # which has a GPU of its own
    check_trainable(tiny(), Machine(devices=2))


def test_a_run_on_a_gpu_restores_the_precision_of_products() -> None:
    before = torch.get_float32_matmul_precision()
    for machine, inside in ((Machine("gpu"), "high"), (Machine("cpu"), before)):
        with fitting._tf32_products(machine):
            assert torch.get_float32_matmul_precision() == inside
        assert torch.get_float32_matmul_precision() == before == "highest"


def test_an_error_of_a_single_process_is_not_blamed_on_another(
    tmp_path: Path,
) -> None:
    def hang(_: Any) -> None:  # as a GPU that has a screen, too
        raise RuntimeError("CUDA error: the launch timed out and was terminated")

    with pytest.raises(RuntimeError, match="the launch timed out"):
        run(tmp_path, tiny(), callbacks=[At(2, hang)])


def test_a_branch_for_low_bins_refuses_losses_that_need_all_bins(tmp_path: Path) -> None:
    low = dataclasses.replace(MODEL.guided("0" * 64, ()), low_bins=16)
    config = tiny(model=low, part="low", losses=("mse", "mel_mse"))
    with pytest.raises(TrainingError, match="the loss mel_mse needs all: choose mse, mag_mse, l1"):
        run(tmp_path / "run", config, machine=Machine("cpu"))
    assert not (tmp_path / "run").exists()
    check_trainable(dataclasses.replace(config, losses=("mse",)), Machine("cpu"))


def test_checkpoints_that_do_not_fit_are_refused_and_not_changed(
    tmp_path: Path, whole: Path
) -> None:
    with pytest.raises(TrainingError, match=r"no .*last.ckpt to resume from"):
        run(tmp_path / "none", tiny(), resume=True)
    with pytest.raises(TrainingError, match=r"its seed is 0, this run's 5"):
        run(whole, tiny(losses=("l1", "mel_mse"), max_steps=8, seed=5), resume=True)
    with pytest.raises(TrainingError, match="holds a run already: choose another --run"):
        run(whole, tiny())
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "last.ckpt").write_bytes(b"nonsense")
    with pytest.raises(TrainingError, match=r"broken/last.ckpt cannot be resumed from"):
        run(broken, tiny(), resume=True)
    assert (broken / "last.ckpt").read_bytes() == b"nonsense"


def test_a_damaged_checkpoint_is_refused_with_a_message(tmp_path: Path, whole: Path) -> None:
    good = (whole / "last.ckpt").read_bytes()
    half = len(good) // 2
    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    for content in (
        b"",
        b"nonsense",
        good[:half],
        good[:-200],
        good[:half] + bytes(3000) + good[half + 3000 :],
        good[:half] + bytes(byte ^ 1 for byte in good[half : half + 8]) + good[half + 8 :],
    ):
        (tmp_path / "last.ckpt").write_bytes(content)
        with pytest.raises(TrainingError, match="resumed from: it is damaged or incomplete; re"):
            resumable_step(tmp_path / "last.ckpt", config)
    (tmp_path / "last.ckpt").write_bytes(good)
    assert resumable_step(tmp_path / "last.ckpt", config) == 8
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w") as archive:
        archive.writestr("song.wav", b"music")
    with pytest.raises(TrainingError, match=r"cannot be resumed from: (?!it is damaged)"):
        resumable_step(tmp_path / "last.ckpt", config)


def test_a_run_is_resumed_only_on_its_number_of_processes(whole: Path) -> None:
    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    assert resumable_step(whole / "last.ckpt", config, Machine("cpu")) == 8
    for machine in (Machine("cpu", devices=2), Machine("cpu", nodes=3)):
        with pytest.raises(TrainingError, match=r"of a run of 1 processes, this one has [23]: "):
            resumable_step(whole / "last.ckpt", config, machine)


def test_weights_without_a_checkpoint_are_neither_resumed_nor_replaced(tmp_path: Path) -> None:
    """As a user leaves them who removes last.ckpt."""
    best = tmp_path / "best-l1.safetensors"
    best.write_bytes(b"weights")
    for resume in (False, True):
        with pytest.raises(TrainingError, match=f"choose another --run, or remove {best} first"):
            run(tmp_path, tiny(), resume=resume)
    assert best.read_bytes() == b"weights"
    best.unlink()
    assert len(run(tmp_path, tiny(max_steps=1))) > 0


def test_a_run_that_ends_between_its_first_weights_and_last_ckpt_can_be_restarted(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise RuntimeError("power cut")

    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", crash)
        for losses in (("mse",), ("l1",)):
            with pytest.raises(RuntimeError, match="power cut"):
                run(tmp_path, tiny(losses=losses))
            assert tuple(best_weights(tmp_path)) == losses
    with pytest.raises(TrainingError, match=r"last.ckpt to resume from: start without --resume"):
        run(tmp_path, config, resume=True)
    assert run(tmp_path, config) == log(whole)
    assert set(best_weights(tmp_path)) == {"l1", "mel_mse"}
    assert not (tmp_path / ".pending").exists()


@pytest.mark.parametrize("ending", ["error", "signal"])
def test_the_best_weights_of_a_broken_run_stay_until_the_next_has_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    best, config = tmp_path / "best-mse.safetensors", tiny()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "save_checkpoint", full)
        with pytest.raises(TrainingError, match="No space left on device; the run stops, none"):
            run(tmp_path, tiny(losses=("mse",)))
    weights = best.read_bytes()
    with pytest.raises(TrainingError, match="does not fit this run"):
        run(tmp_path, tiny(model=dataclasses.replace(MODEL, bins=48)), init_from=best)
    assert best.read_bytes() == weights
    if ending == "signal":
        with pytest.raises(InterruptedRunError, match="interrupted after step 1"):
            run(tmp_path, config, init_from=best, callbacks=[At(0, interrupt)])
        assert not best_weights(tmp_path)  # nothing of another run is beside last.ckpt
        run(tmp_path, config, resume=True)
    else:
        run(tmp_path, config, init_from=best)
    assert set(best_weights(tmp_path)) == {"l1"}


def test_weights_of_a_run_stay_though_its_checkpoint_is_removed_meanwhile(tmp_path: Path) -> None:
    def remove(module: Any) -> None:
        (tmp_path / "last.ckpt").unlink()
        module.schedule.best["l1"] = 1e9  # no validation improves on it

    run(tmp_path, tiny(), callbacks=[At(4, remove)])
    assert set(best_weights(tmp_path)) == {"l1"}


def test_an_empty_path_is_not_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for action in (
        lambda: fitting.fit(tiny(), [], [], ""),
        lambda: export_run(""),
        lambda: publish("", "a/b"),
    ):
        with pytest.raises(ValueError, match=r"^run must be a path, got ''"):
            action()
    with pytest.raises(ValueError, match=r"^cache must be a path, got ''"):
        load([], "")
    assert not list(tmp_path.iterdir())


def test_two_runs_do_not_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "LOCK_SECONDS", 0)

    def second(_: Any) -> None:
        for resume in (False, True):
            with pytest.raises(TrainingError, match="another process trains in"):
                run(tmp_path, tiny(seed=1), resume=resume)
        raise RuntimeError("power cut")

    for notes in ({}, {"songs.json": "[]"}):
        with pytest.raises(RuntimeError, match="power cut"):
            run(tmp_path, tiny(max_steps=4), callbacks=[At(1, second)], notes=notes)
    assert (tmp_path / "songs.json").read_text() == "[]"
    assert TrainConfig.from_json((tmp_path / "config.json").read_text()).seed == 0
    assert run(tmp_path, tiny(max_steps=1))[-1]["step"] == 1


def test_fine_tuning_starts_from_the_weights_of_a_checkpoint(tmp_path: Path, whole: Path) -> None:
    start = export_run(whole, loss="l1")[0]
    seen: list[torch.Tensor] = []
    look = At(0, lambda module: seen.append(module.network("mse").head.weight.detach().clone()))
    config = tiny(losses=("mse",), max_steps=1, freeze_norm=True)
    run(tmp_path, config, init_from=start, callbacks=[look])
    first, tuned = load_network(start), load_network(tmp_path / "best-mse.safetensors")
    assert torch.equal(seen[0], first.head.weight)
    assert torch.equal(first.input_mean, tuned.input_mean)
    assert torch.equal(first.encoder[0][1].running_mean, tuned.encoder[0][1].running_mean)
    other = dataclasses.replace(MODEL, filters=(8, 8))
    with pytest.raises(TrainingError, match=r"its filters is \(4, 6\), the run's \(8, 8\)"):
        run(tmp_path / "other", tiny(model=other), init_from=start)


def test_a_checkpoint_can_be_given_layers_that_mix_bins(tmp_path: Path, whole: Path) -> None:
    start = export_run(whole, loss="l1")[0]
    changes: list[float] = []
    magnitude = torch.rand(1, 2, MODEL.bins, 64)

    @torch.no_grad()
    def look(module: SeparationModule) -> None:
        network = module.network("mse").eval()
        changes.append((network(magnitude) - load_network(start)(magnitude)).abs().max().item())
        network.train()

    model = dataclasses.replace(MODEL, bin_units=4)
    config = tiny(losses=("mse",), model=model, max_steps=2)
    run(tmp_path, config, init_from=start, callbacks=[At(0, look)])
    assert changes == [0]
    assert load_network(tmp_path / "best-mse.safetensors").encoder[0][3].expand.abs().max() > 0


def test_resident_clips_train_as_others_in_bf16(tmp_path: Path) -> None:
    resident = Machine("cpu", workers=0, resident=True)
    lines = run(tmp_path / "a", tiny(max_steps=2, precision="bf16"), machine=resident)
    plain = run(tmp_path / "b", tiny(max_steps=2, precision="bf16"))
    for ours, theirs in zip(lines, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_denormal_numbers_are_zero_during_a_run(tmp_path: Path) -> None:
    def half() -> float:
        return float(torch.tensor([1e-38]) / 100)

    if not torch.set_flush_denormal(False) or half() == 0:
        pytest.skip("this CPU cannot")
    seen: list[float] = []
    run(tmp_path, tiny(max_steps=1), callbacks=[At(0, lambda _: seen.append(half()))])
    assert seen == [0]
    assert half() > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_on_resident_clips_and_validates(tmp_path: Path, precision: str) -> None:
    gpu = Machine("gpu", workers=0, resident=True)
    config = tiny(max_steps=4, valid_every=2, precision=precision, losses=("mse", "perceptual"))
    lines = run(tmp_path / "run", config, machine=gpu)
    assert [line["step"] for line in lines if "valid/mse/mean" in line] == [2, 4]
    assert (tmp_path / "run" / "best-mse.safetensors").exists()


def test_spawned_workers_cause_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning tells to keep them for the next epoch, but a run has one."""
    monkeypatch.setattr(torch.multiprocessing, "get_start_method", lambda: "spawn")
    assert run(tmp_path, tiny(max_steps=1), machine=Machine("cpu", workers=1))


def test_a_run_uses_single_precision_without_autocast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As torch before 2.5 has none on Apple's GPU.
    monkeypatch.setattr(torch._C, "_is_autocast_available", lambda _: False)
    assert run(tmp_path, tiny())[-1]["step"] == 6
