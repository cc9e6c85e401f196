"""Runs: resuming, ending, several losses at once, averages, export and fine-tuning."""

from __future__ import annotations

import dataclasses
import errno
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer

from tests.train.synthetic import MODEL, songs, tiny
from unetsep.dsp.spectrogram import stft
from unetsep.network.build import build
from unetsep.network.per_stem import PerStem
from unetsep.network.presets import NETWORKS, build_model, spleeter_config
from unetsep.separator import Separator
from unetsep.train.calibration import gradient_norm, set_input_statistics
from unetsep.train.config import TrainConfig, TrainingError
from unetsep.train.fit import Machine, fit
from unetsep.train.logs import draw_curves, read_log
from unetsep.train.losses import functions as losses
from unetsep.train.losses.spectra import spectra
from unetsep.train.module import SeparationModule
from unetsep.train.release.export import export_run, sdr_change
from unetsep.train.schedule import Clock, Schedule
from unetsep.weights.load import load_network
from unetsep.weights.manifest import read_manifest

CPU = Machine("cpu", workers=0)


def run(path: Path, config: TrainConfig, **options: Any) -> list[dict[str, Any]]:
    """Train, and return the log without times."""
    fit(config, *songs(), path, **{"machine": CPU} | options)
    return log(path)


def log(path: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k != "minutes"} for line in read_log(path / "log.jsonl")
    ]


class At(Callback):
    """Does something when a step begins."""

    def __init__(self, step: int, action: Any) -> None:
        self.step, self.action = step, action

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.action(pl_module)


def interrupt(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two losses."""
    path = tmp_path_factory.mktemp("whole")
    run(path, tiny(losses=("l1", "mel_mse"), max_steps=8))
    return path


@pytest.mark.parametrize("step", [3, 4], ids=["after validation", "between validations"])
def test_an_interrupted_run_goes_on_exactly(tmp_path: Path, whole: Path, step: int) -> None:
    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingError, match=f"interrupted after step {step}.*--resume"):
        run(tmp_path, config, callbacks=[At(step - 1, interrupt)])
    assert signal.getsignal(signal.SIGINT) is before
    assert run(tmp_path, config, resume=True) == log(whole)
    for name in ("best-l1", "best-mel_mse"):
        ours = load_network(tmp_path / f"{name}.safetensors").state_dict()
        for key, value in load_network(whole / f"{name}.safetensors").state_dict().items():
            assert torch.equal(ours[key], value), key


def test_a_run_without_a_checkpoint_can_be_started_again(tmp_path: Path, whole: Path) -> None:
    def crash(_: Any) -> None:
        raise OSError("power cut")

    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path, config, callbacks=[At(2, crash)])
    assert [line["step"] for line in log(tmp_path)] == [1, 2]
    assert run(tmp_path, config) == log(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_leave_a_checkpoint(tmp_path: Path, number: int) -> None:
    def stop(_: Any) -> None:
        children = multiprocessing.active_children()
        assert children
        for process in children:
            assert process.pid is not None
            os.kill(process.pid, number)
        time.sleep(0.5)
        os.kill(os.getpid(), number)

    with pytest.raises(TrainingError, match="interrupted after step 2"):
        run(tmp_path, tiny(), callbacks=[At(1, stop)], machine=Machine("cpu", workers=1))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_fp16_on_a_cpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="do not train in fp16: choose --precision bf16"):
        run(tmp_path, tiny(precision="fp16"))


def test_a_killed_run_goes_on_from_its_last_validation(tmp_path: Path, whole: Path) -> None:
    def crash(_: Any) -> None:
        raise OSError("power cut")

    config = tiny(losses=("l1", "mel_mse"), max_steps=8)
    with pytest.raises(OSError, match="power cut"):
        run(tmp_path, config, callbacks=[At(5, crash)])
    assert log(tmp_path)[-1]["step"] == 5
    assert run(tmp_path, config, resume=True) == log(whole)


def test_losses_trained_together_equal_each_trained_alone(tmp_path: Path, whole: Path) -> None:
    alone = run(tmp_path, tiny(losses=("mel_mse",), max_steps=8))
    together = [{k: v for k, v in line.items() if "l1" not in k} for line in log(whole)]
    assert alone == together


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


def test_a_checkpoint_holds_averaged_and_current_weights_and_loads_safely(whole: Path) -> None:
    content = torch.load(whole / "last.ckpt", weights_only=True)
    averaged, current = content["state_dict"], content["current_model_state"]
    key = "networks.l1.head.weight"
    assert not torch.equal(averaged[key], current[key])
    best = load_network(whole / "best-l1.safetensors").state_dict()
    scores = [line["valid/l1/mean"] for line in log(whole) if "valid/l1/mean" in line]
    if max(scores) == scores[-1]:  # the best is the last: it must be the averaged one
        assert torch.equal(best["head.weight"], averaged[key])
    moved = "networks.l1.encoder.0.1.running_mean"
    assert not torch.equal(averaged[moved], current[moved])


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


def test_a_limit_in_minutes_ends_on_time_with_the_rate_annealed(tmp_path: Path) -> None:
    limit = 5.0
    begun: list[float] = []
    config = tiny(max_steps=10**6, max_minutes=limit / 60, valid_every=10**5, warmup_steps=0)
    lines = run(tmp_path, config, callbacks=[At(0, lambda _: begun.append(time.monotonic()))])
    spent = read_log(tmp_path / "log.jsonl")[-1]["minutes"] * 60
    assert 0.5 * limit < spent < 1.2 * limit
    assert "valid/l1/mean" in lines[-1]
    rates = [line["lr/l1"] for line in lines if "lr/l1" in line]
    assert rates[-1] < 0.03 * rates[0]
    assert rates == sorted(rates, reverse=True)


def test_the_clock_counts_steps_minutes_and_earlier_parts() -> None:
    now = [100.0]
    clock = Clock(tiny(max_steps=10, max_minutes=1.0), lambda: now[0])
    clock.earlier, clock.validation = 20.0, 10.0
    assert clock.done(1) == pytest.approx(20 / 50)
    now[0] += 15
    assert clock.done(1) == pytest.approx(35 / 50)
    assert clock.done(9) == pytest.approx(0.9)
    assert Clock(tiny(max_steps=10), lambda: now[0]).done(20) == 1.0


def test_plateau_and_early_stopping_count_validations_without_progress() -> None:
    config = tiny(schedule="plateau", plateau_patience=2, early_stop=4, learning_rate=1.0)
    schedule = Schedule(config, ["l1"])
    assert [schedule.scored("l1", s) for s in (1.0, 2.0, 1.5, float("nan"))] == [True, True, 0, 0]
    assert schedule.rate("l1", 100, 0.5) == pytest.approx(config.plateau_factor)
    assert schedule.rate("l1", 100, 1.0) == 0.0
    assert schedule.rate("l1", 0, 0.0) == pytest.approx(0.5 * config.plateau_factor)
    assert not schedule.exhausted()
    other = Schedule(config, ["l1"])
    other.load_state_dict(schedule.state_dict())
    for _ in range(2):
        other.scored("l1", 0.0)
    assert other.exhausted()


def test_early_stopping_ends_a_run(tmp_path: Path) -> None:
    config = tiny(max_steps=100, valid_every=1, early_stop=1, learning_rate=1e-12, ema_decay=0.0)
    assert run(tmp_path, config)[-1]["step"] < 100


def test_losses_start_with_equal_gradient_norms() -> None:
    from unetsep.train.data.clip_plans import ClipPlanner
    from unetsep.train.data.clips import ClipDataset
    from unetsep.train.losses.spectra import blockwise_loss

    config = tiny(losses=tuple(losses.LOSSES))
    module = SeparationModule(config)
    clips = ClipDataset(ClipPlanner(songs()[0], config))
    module.calibrate(clips, count=8)
    batch = module._spectra(torch.stack([clips[10**12 + i] for i in range(4)]))
    for (name, loss), scale in zip(module.losses().items(), module.scales, strict=True):
        network = module.network(name)
        value = blockwise_loss(network.logits(batch.mixture), network, batch, loss) * scale
        value.backward()
        assert gradient_norm(list(network.parameters())) == pytest.approx(1.0, rel=1e-3), name


def test_each_network_is_clipped_by_itself() -> None:
    module = SeparationModule(tiny(losses=("l1", "mse"), clip_norm=0.5))
    for name, size in (("l1", 100.0), ("mse", 1e-6)):
        for parameter in module.network(name).parameters():
            parameter.grad = torch.full_like(parameter, size)
    small = gradient_norm(list(module.network("mse").parameters()))
    module.configure_gradient_clipping(module.configure_optimizers())
    assert gradient_norm(list(module.network("l1").parameters())) == pytest.approx(0.5, rel=1e-3)
    assert gradient_norm(list(module.network("mse").parameters())) == pytest.approx(small)


def test_a_loss_that_is_not_finite_stops_with_step_clips_and_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(pl_module: Any) -> None:
        for parameter in pl_module.network("l1").parameters():
            parameter.data.fill_(float("nan"))

    with pytest.raises(
        TrainingError,
        match=r"loss l1 became nan at step 4, clips 8 to 9 with seed 0.*last.ckpt",
    ):
        run(tmp_path, tiny(), callbacks=[At(4, broken)])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(bool(value.isfinite().all()) for value in saved["state_dict"].values())


def test_a_full_disk_leaves_the_checkpoint_before(
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


def test_a_device_that_is_not_there_is_explained(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(TrainingError, match="cannot train on 1 gpu"):
        run(tmp_path, tiny(), machine=Machine("gpu"))


def test_checkpoints_that_do_not_fit_are_refused_and_left_alone(
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


def test_export_halves_the_file_and_keeps_the_sdr(tmp_path: Path, whole: Path) -> None:
    manifest = tmp_path / "manifest.json"
    valid = songs()[1]
    written = export_run(whole, valid=valid, manifest=manifest)
    assert [path.name for path in written] == ["l1.safetensors", "mel_mse.safetensors"]
    network = load_network(written[0])
    assert network.config == MODEL
    assert sdr_change(load_network(whole / "best-l1.safetensors"), network, valid) < 0.01
    found = read_manifest(manifest)
    entries = list(found.checkpoints.values())
    assert found.default == "l1"
    assert entries[0].bytes == written[0].stat().st_size
    assert entries[0].scores["sdr"].keys() == {*MODEL.stems, "mean"}
    assert entries[0].training["settings"]["seed"] == 0
    export_run(whole, loss="l1", name="renamed", manifest=manifest)
    assert list(read_manifest(manifest).checkpoints) == ["l1", "mel_mse", "renamed"]
    with pytest.raises(TrainingError, match=r"holds no best-mse.safetensors"):
        export_run(whole, loss="mse")


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


def test_a_single_target_gets_a_sigmoid_network(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, stems=("bass",), mask="sigmoid")
    lines = run(tmp_path, tiny(model=model, losses=("mag_l1",)))
    assert "valid/mag_l1/bass" in lines[-1]
    assert "valid/mag_l1/vocals" not in lines[-1]
    stems = Separator(tmp_path / "best-mag_l1.safetensors").separate(
        np.ones((2, 5000), np.float32), 44_100
    )
    assert stems["bass"].shape == (2, 5000)


def test_bf16_and_resident_clips_train_too(tmp_path: Path) -> None:
    resident = Machine("cpu", workers=0, resident=True)
    lines = run(tmp_path / "a", tiny(max_steps=2, precision="bf16"), machine=resident)
    plain = run(tmp_path / "b", tiny(max_steps=2, precision="bf16"))
    for ours, theirs in zip(lines, plain, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_trains_on_resident_clips_and_validates(tmp_path: Path, precision: str) -> None:
    gpu = Machine("gpu", workers=0, resident=True)
    config = tiny(max_steps=4, valid_every=2, precision=precision, losses=("mse", "perceptual"))
    lines = run(tmp_path / "run", config, machine=gpu)
    assert [line["step"] for line in lines if "valid/mse/mean" in line] == [2, 4]
    assert (tmp_path / "run" / "best-mse.safetensors").exists()


COUNTS = {
    "small": 1_973_480,
    "mixing": 2_169_912,
    "large": 5_116_648,
    "wide": 9_827_816,
    # Of each of Spleeter's networks TensorFlow counts 1024 more: it normalises the deepest
    # level's output too, which nobody uses.
    "spleeter": 4 * 9_822_725,
    "spleeter-relu": 4 * 9_822_725,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_have_their_counts_and_shapes(name: str) -> None:
    model = NETWORKS[name]
    with torch.device("meta"):
        network = build(model)
        masks = network(torch.zeros(1, model.channels, 1024, 64))
    assert sum(p.numel() for p in network.parameters()) == COUNTS[name]
    assert masks.shape == (1, 4, 2, 1024, 64)


def test_targets_choose_the_mask() -> None:
    assert build_model("small") == build_model("small", ["other", "bass", "drums", "vocals"])
    assert build_model("wide", ["vocals"]).mask == "sigmoid"
    with torch.device("meta"):
        network = build(build_model("wide", ["vocals"]))
    assert network(torch.zeros(1, 2, 1024, 64, device="meta")).shape == (1, 1, 2, 1024, 64)
    with pytest.raises(ValueError, match="no network 'huge': expected small, mixing, large"):
        build_model("huge")


@pytest.mark.parametrize("name", NETWORKS)
def test_some_targets_do_not_share_out_the_whole_mixture_between_them(name: str) -> None:
    model = build_model(name, ["vocals", "bass"])
    assert model.stems == ("vocals", "bass")
    assert model.ratio_exponent == 0
    if name.startswith("spleeter"):
        with torch.device("meta"):
            network = build(model)
        assert sum(p.numel() for p in network.parameters()) == 2 * 9_822_725


def test_the_spleeter_preset_is_what_the_importer_builds() -> None:
    assert NETWORKS["spleeter"] == spleeter_config(4, (16, 32, 64, 128, 256, 512))
    ours, other = (vars(NETWORKS[name]) for name in ("spleeter", "spleeter-relu"))
    assert [field for field, value in ours.items() if other[field] != value] == ["activation"]


SPLEETER = dataclasses.replace(
    spleeter_config(4, (4, 6), 64), n_fft=512, hop_length=128, segment_frames=64
)


def test_a_network_like_spleeter_learns_and_sees_the_level_it_separates(tmp_path: Path) -> None:
    lines = run(tmp_path, tiny(model=SPLEETER, losses=("mag_l1",), max_steps=30, valid_every=30))
    losses = [line["train/mag_l1"] for line in lines if "train/mag_l1" in line]
    assert sum(losses[-5:]) < sum(losses[:5])
    clip = torch.randn(1, 4, 2, 512 + 127 * 128) / 10
    magnitude = stft(clip.sum(dim=1), 512, 128)[..., :64, :].abs()
    torch.testing.assert_close(spectra(clip, SPLEETER).seen(SPLEETER), magnitude)
    scaled = spectra(clip, MODEL).seen(MODEL)
    assert float(scaled.square().mean()) == pytest.approx(1.0, rel=1e-4)


def test_each_member_of_a_bag_gets_the_input_statistics() -> None:
    network = PerStem(dataclasses.replace(MODEL, networks="per_stem", mask="sigmoid"))
    set_input_statistics(network, [torch.rand(1, 2, 64, 32)])
    means = [part.input_mean for part in network.networks]
    assert len(means) == 4
    assert all(bool(mean.any()) and torch.equal(mean, means[0]) for mean in means)


def test_settings_out_of_range_are_named() -> None:
    for field, value in (("batch_size", 0), ("ema_decay", 1.0), ("clip_frames", 33)):
        with pytest.raises(ValueError, match=field):
            tiny(**{field: value})
    with pytest.raises(ValueError, match="no target 'piano': expected vocals"):
        tiny(model=dataclasses.replace(MODEL, stems=("piano",)))
    config = tiny(losses=("l1", "mse"), gain_db=3.0)
    assert TrainConfig.from_json(config.to_json()) == config
    with pytest.raises(ValueError, match="unknown keys"):
        TrainConfig.from_json('{"flavour": 1}')


def test_curves_have_a_panel_for_losses_and_one_for_each_stem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    stems = (*MODEL.stems, "mean")
    lines = [
        {"step": step, "minutes": 1.0}
        | {f"train/{loss}": 3.0 / step for loss in losses.LOSSES}
        | {
            f"valid/{loss}/{stem}": None if step == 1 else 1.0
            for loss in losses.LOSSES
            for stem in stems
        }
        for step in (1, 2, 3)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert [title.rpartition(" ")[2] for title in titles] == ["first", "mean", *MODEL.stems]
    assert all(len(axes.lines) == len(losses.LOSSES) for axes in drawn[0].axes)
    assert drawn[0].axes[0].lines[0].get_ydata()[0] == 1.0
    (tmp_path / "log.jsonl").write_text("")
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert len(drawn[1].axes) == 1
