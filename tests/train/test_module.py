"""The networks of a run and one training step."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback

from tests.train.runs import At, log, run
from tests.train.synthetic import MODEL, tiny
from unetsep.dsp.spectrogram import stft
from unetsep.network.presets import spleeter_config
from unetsep.separator import Separator
from unetsep.train.calibration import gradient_norm
from unetsep.train.config import TrainingError
from unetsep.train.losses.spectra import spectra
from unetsep.train.module import SeparationModule


def test_losses_trained_together_equal_each_trained_alone(tmp_path: Path, whole: Path) -> None:
    alone = run(tmp_path, tiny(losses=("mel_mse",), max_steps=8))
    together = [{k: v for k, v in line.items() if "l1" not in k} for line in log(whole)]
    assert alone == together


def test_gradients_of_each_network_are_clipped_separately() -> None:
    module = SeparationModule(tiny(losses=("l1", "mse"), clip_norm=0.5))
    for name, size in (("l1", 100.0), ("mse", 1e-6)):
        for parameter in module.network(name).parameters():
            parameter.grad = torch.full_like(parameter, size)
    small = gradient_norm(list(module.network("mse").parameters()))
    module.configure_gradient_clipping(module.configure_optimizers())
    assert gradient_norm(list(module.network("l1").parameters())) == pytest.approx(0.5, rel=1e-3)
    assert gradient_norm(list(module.network("mse").parameters())) == pytest.approx(small)


def test_a_loss_that_is_not_finite_is_reported_with_step_clips_and_checkpoint(
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


class Overflow(Callback):
    """A gradient that is infinite though the loss was not."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == 5:
            for parameter in pl_module.network("l1").parameters():
                parameter.grad.fill_(float("inf"))


def test_weights_that_are_not_finite_never_replace_the_last_good_checkpoint(
    tmp_path: Path,
) -> None:
    with pytest.raises(TrainingError, match=r"NaN or infinite by step 6; .*last.ckpt"):
        run(tmp_path, tiny(), callbacks=[Overflow()])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert all(bool(value.isfinite().all()) for value in saved["state_dict"].values())


def test_a_single_target_gets_a_sigmoid_network(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, stems=("bass",), mask="sigmoid")
    lines = run(tmp_path, tiny(model=model, losses=("mag_l1",)))
    assert "valid/mag_l1/bass" in lines[-1]
    assert "valid/mag_l1/vocals" not in lines[-1]
    stems = Separator(tmp_path / "best-mag_l1.safetensors").separate(
        np.ones((2, 5000), np.float32), 44_100
    )
    assert stems["bass"].shape == (2, 5000)


SPLEETER = dataclasses.replace(
    spleeter_config(4, (4, 6), 64), n_fft=512, hop_length=128, segment_frames=64
)


def test_a_network_like_spleeter_learns_at_the_level_of_the_song(tmp_path: Path) -> None:
    lines = run(tmp_path, tiny(model=SPLEETER, losses=("mag_l1",), max_steps=30, valid_every=30))
    losses = [line["train/mag_l1"] for line in lines if "train/mag_l1" in line]
    assert sum(losses[-5:]) < sum(losses[:5])
    clip = torch.randn(1, 4, 2, 512 + 127 * 128) / 10
    magnitude = stft(clip.sum(dim=1), 512, 128)[..., :64, :].abs()
    torch.testing.assert_close(spectra(clip, SPLEETER).magnitude(SPLEETER), magnitude)
    scaled = spectra(clip, MODEL).magnitude(MODEL)
    assert float(scaled.square().mean()) == pytest.approx(1.0, rel=1e-4)
