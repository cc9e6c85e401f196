"""Losses: values by hand, scale laws, gradients, and evaluation in blocks."""

from __future__ import annotations

import dataclasses
import functools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.train.synthetic import MODEL
from unetsep.config import ModelConfig
from unetsep.dsp.spectrogram import magnitudes, stft
from unetsep.network.unet import UNet
from unetsep.train.losses.functions import LOSSES, build_loss, mel_filters, perceptual
from unetsep.train.losses.hearing import bark, hearing_model, spreading, threshold_in_quiet
from unetsep.train.losses.spectra import Batch, blockwise_loss, spectra

SHAPE = (2, 1, MODEL.bins, 5)


def stems(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor, Tensor]:
    """A random estimate and true spectrum."""
    generator = torch.Generator().manual_seed(seed)
    estimate, real, imag = (torch.randn(shape, generator=generator) for _ in range(3))
    return estimate.abs(), real, imag


# One bin: the estimate 1, the truth 3 + 4i of magnitude 5, so |Y - Y^| = sqrt(4 + 16).
BY_HAND = {
    "mse": 20.0,
    "mag_mse": 16.0,
    "l1": math.sqrt(20.0),
    "mag_l1": 4.0,
    "log_mse": math.log(5.01 / 1.01) ** 2,
    "log_mse_120": math.log(5) ** 2,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_losses_have_the_values_computed_by_hand(name: str) -> None:
    arrays = (torch.tensor([[value]]) for value in (1.0, 3.0, 4.0))
    loss = build_loss(name, MODEL)(*arrays)
    assert float(loss) == pytest.approx(BY_HAND[name], rel=1e-5)


def test_mse_has_the_gradient_of_autograd() -> None:
    estimate, real, imag = (each.double() for each in stems())
    estimate.requires_grad_()
    value = build_loss("mse", MODEL)(estimate, real, imag)
    expected = ((real - estimate).square() + imag.square()).mean()
    torch.testing.assert_close(value, expected)
    (found,) = torch.autograd.grad(3 * value, estimate)
    torch.testing.assert_close(found, torch.autograd.grad(3 * expected, estimate)[0])


def test_mel_loss_is_the_squared_difference_of_mel_magnitudes() -> None:
    estimate, real, imag = stems()
    filters = mel_filters(MODEL, torch.device("cpu"))
    truth = torch.hypot(real, imag)
    expected = ((filters @ truth) - (filters @ estimate)).square().mean()
    assert float(build_loss("mel_mse", MODEL)(estimate, real, imag)) == pytest.approx(
        float(expected), rel=1e-5
    )
    assert filters.shape == (MODEL.bins // 8, MODEL.bins)
    for name, mels in (("mel_mse", 128), ("mel_mse_32", 32)):
        loss = build_loss(name, ModelConfig())
        assert isinstance(loss, functools.partial)
        assert loss.keywords["filters"].shape == (mels, 1024)


@pytest.mark.parametrize("n_fft", [128, 512, 4096, 8192])
def test_no_mel_filter_falls_between_two_bins(n_fft: int) -> None:
    config = ModelConfig(n_fft=n_fft, hop_length=n_fft // 4, bins=n_fft // 2, filters=(4,))
    assert mel_filters(config, torch.device("cpu")).any(dim=1).all()


def test_mel_filters_are_triangles_between_frequencies_at_equal_steps_of_mel() -> None:
    filters = mel_filters(MODEL, torch.device("cpu")).double().numpy()
    hertz = np.arange(MODEL.bins) * MODEL.sample_rate / MODEL.n_fft
    top = 2595 * np.log10(1 + MODEL.bins * MODEL.sample_rate / MODEL.n_fft / 700)
    corners = 700 * (10 ** (np.linspace(0, top, len(filters) + 2) / 2595) - 1)
    for left, peak, right, found in zip(corners, corners[1:], corners[2:], filters, strict=False):
        rising, falling = (hertz - left) / (peak - left), (right - hertz) / (right - peak)
        expected = np.minimum(rising, falling).clip(min=0)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_perceptual_loss_is_the_difference_of_specific_loudness() -> None:
    bands, spread = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0]])
    estimate, real, imag = (torch.tensor([[v], [w]]) for v, w in ((1.0, 0.0), (3.0, 1.0), (0, 0)))
    arrays = {"bands": bands, "spread": spread, "quiet": torch.tensor([0.5])}
    # Excitations: twice the powers 9 + 1 and 1, over twice the threshold.
    loss = perceptual(estimate, real, imag, **arrays)
    assert float(loss) == pytest.approx(0.5**0.23 * (20.5**0.23 - 2.5**0.23), rel=1e-5)


def test_masked_errors_cost_less_than_the_same_errors_in_silence() -> None:
    model = ModelConfig()
    loss = build_loss("perceptual", model)
    truth = torch.zeros(model.bins, 1)
    truth[100] = 100.0
    nothing = torch.zeros_like(truth)
    error = torch.zeros_like(truth)
    error[104] = 1.0
    far = torch.zeros_like(truth)
    far[700] = 1.0
    assert loss(truth + error, truth, nothing) < 0.1 * loss(truth + far, truth, nothing)


def test_the_model_of_hearing_has_the_published_values() -> None:
    assert float(spreading(torch.tensor(0.0))) == pytest.approx(0.0, abs=0.01)
    assert float(spreading(torch.tensor(1.0))) == pytest.approx(-4.3, abs=0.1)
    hertz = torch.tensor([0.0, 1000.0, 10_000.0])
    assert bark(hertz).tolist() == pytest.approx([-0.53, 8.53, 21.89], abs=0.01)
    # Hearing is most sensitive near 3.3 kHz and needs some 20 dB more at 100 Hz.
    levels = threshold_in_quiet(torch.tensor([100.0, 3300.0]))
    assert levels.tolist() == pytest.approx([22.95, -4.98], abs=0.05)
    bands, spread, quiet = hearing_model(ModelConfig(), torch.device("cpu"))
    assert torch.equal(bands.sum(dim=0), torch.ones(1024))
    assert spread.shape == (len(bands), len(bands))
    assert quiet.shape == (len(bands),)
    # At 75 dB. Below 20 Hz the threshold is that of 20 Hz, 83.2 dB, and nowhere below 15 dB.
    assert float(10 * (quiet.min() / 1024).log10()) == pytest.approx(15 - 75)
    assert float(10 * (quiet[0] / 1024).log10()) == pytest.approx(83.2 - 75, abs=0.1)
    # Bands of a quarter Bark: four of them further, a sound spreads as over a Bark.
    rate = bark(torch.arange(1024) * 44_100 / 4096)
    assert len(bands) == math.ceil(4 * (rate[-1] - rate[0]))
    assert all(np.ptp(rate[band.bool()].numpy()) < 0.25 for band in bands)
    for distance, found in ((1.0, spread[54, 50]), (-1.0, spread[50, 54])):
        level = float(spreading(torch.tensor(distance)))
        assert float(10 * found.log10()) == pytest.approx(level, abs=0.5)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_zero_at_the_target(name: str) -> None:
    truth = stems()[0]
    value = build_loss(name, MODEL)(truth, truth, torch.zeros(SHAPE))
    assert float(value) == pytest.approx(0, abs=2e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("silent", ["both", "truth", "estimate"])
def test_gradients_are_finite_on_digital_silence(name: str, silent: str) -> None:
    estimate, real, imag = stems()
    estimate = torch.zeros(SHAPE) if silent in ("both", "estimate") else estimate
    real = torch.zeros(SHAPE) if silent in ("both", "truth") else real
    imag = torch.zeros(SHAPE) if silent in ("both", "truth") else imag
    estimate.requires_grad_()
    build_loss(name, MODEL)(estimate, real, imag).backward()
    assert estimate.grad is not None
    assert bool(estimate.grad.isfinite().all())


POWERS = {"mse": 2, "mag_mse": 2, "mel_mse": 2, "l1": 1, "mag_l1": 1}


@pytest.mark.parametrize("name", POWERS)
def test_losses_grow_with_the_level_as_documented(name: str) -> None:
    loss = build_loss(name, MODEL)
    one, three = (float(loss(*(factor * each for each in stems()))) for factor in (1.0, 3.0))
    assert three / one == pytest.approx(3.0 ** POWERS[name], rel=1e-4)


@pytest.mark.parametrize(("name", "power"), [("log_mse", 0.0), ("perceptual", 0.46)])
def test_losses_of_loud_sound_hardly_depend_on_its_level(name: str, power: float) -> None:
    loss = build_loss(name, MODEL)
    one, ten = (float(loss(*(factor * each for each in stems()))) for factor in (1e3, 1e4))
    assert ten / one == pytest.approx(10.0**power, rel=1e-2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("mask", ["softmax", "sigmoid"])
def test_evaluation_in_blocks_is_exact(name: str, mask: str) -> None:
    model = ModelConfig(n_fft=512, hop_length=128, bins=64, filters=(4,), mask=mask)
    network = UNet(model)
    generator = torch.Generator().manual_seed(1)
    clips = torch.randn(2, 4, 2, 512 + 151 * 128, generator=generator)
    batch = spectra(clips, model)
    logits = torch.randn(2, 4, 2, 64, 152, generator=generator, requires_grad=True)
    loss = build_loss(name, model)
    blockwise_loss(logits, network, batch, loss).backward()  # 16 frames each but the last
    in_blocks, logits.grad = logits.grad, None
    value = loss(network.masks(logits) * batch.mixture[:, None], *batch.references())
    value.backward()
    assert blockwise_loss(logits, network, batch, loss).item() == pytest.approx(
        value.item(), rel=1e-5
    )
    assert in_blocks is not None
    assert logits.grad is not None
    torch.testing.assert_close(in_blocks, logits.grad, rtol=1e-4, atol=1e-9)


def test_rotating_spectra_back_by_the_mixture_phase_keeps_distances() -> None:
    generator = torch.Generator().manual_seed(2)
    clips = torch.randn(3, 4, 2, 512 + 31 * 128, generator=generator)
    batch = spectra(clips, MODEL)
    frames = clips.unfold(-1, 512, 128) * torch.hann_window(512)
    truth = torch.fft.rfft(frames).transpose(-1, -2)[..., : MODEL.bins, :]
    mixture = truth.sum(dim=1)
    scale = 1 / mixture.abs().square().mean(dim=(1, 2, 3)).sqrt()[:, None, None, None, None]
    mask = torch.rand(truth.shape, generator=generator)
    distance = ((mask * mixture[:, None] - truth) * scale).abs()
    in_phase, quadrature = batch.references()
    turned = torch.hypot(mask * batch.mixture[:, None] - in_phase, quadrature)
    torch.testing.assert_close(turned, distance, rtol=1e-3, atol=1e-4)
    assert float(batch.mixture.square().mean()) == pytest.approx(1.0, rel=1e-4)


def test_spectra_of_one_target_use_the_mixture_of_all_stems() -> None:
    clips = torch.randn(1, 4, 2, 512 + 31 * 128, generator=torch.Generator().manual_seed(3))
    whole, single = spectra(clips, MODEL), spectra(clips, MODEL, [2])
    assert torch.equal(whole.mixture, single.mixture)
    assert torch.equal(whole.in_phase[:, 2:3], single.in_phase)
    for order in ([1, 3], [3, 0, 2, 1]):
        some = spectra(clips, MODEL, order)
        assert torch.equal(whole.mixture, some.mixture)
        assert torch.equal(whole.in_phase[:, order], some.in_phase)
        assert torch.equal(whole.quadrature[:, order], some.quadrature)


def test_a_network_of_one_channel_is_trained_with_the_mean_of_two() -> None:
    mono = dataclasses.replace(MODEL, channels=1)
    clips = torch.randn(2, 4, 2, 512 + 31 * 128, generator=torch.Generator().manual_seed(4))
    batch, mean = (spectra(each, mono) for each in (clips, clips.mean(dim=2, keepdim=True)))
    assert batch.mixture.shape == (2, 1, 64, 32)
    for one, other in zip(batch.references(), mean.references(), strict=True):
        assert one.shape == (2, 4, 1, 64, 32)
        assert torch.equal(one, other)
    network, loss = UNet(mono), build_loss("mse", mono)
    logits = torch.randn(2, 4, 1, 64, 32)
    expected = loss(network.masks(logits) * mean.mixture[:, None], *mean.references())
    torch.testing.assert_close(blockwise_loss(logits, network, batch, loss), expected)


def test_a_silent_clip_has_silent_spectra_and_finite_gradients() -> None:
    stems = (torch.zeros(1, 4, 2, 64, 4) for _ in range(2))
    batch = Batch(torch.zeros(1, 2, 64, 4), *stems, torch.full((1, 1, 1, 1, 1), 1e8))
    assert torch.equal(spectra(torch.zeros(1, 4, 2, 896), MODEL).mixture, batch.mixture)
    logits = torch.zeros(1, 4, 2, 64, 4, requires_grad=True)
    blockwise_loss(logits, UNet(MODEL), batch, build_loss("l1", MODEL)).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_an_unknown_loss_is_refused_with_the_names_of_all_losses() -> None:
    with pytest.raises(ValueError, match="no loss 'sdr': expected mse, mag_mse"):
        build_loss("sdr", MODEL)


def test_training_uses_the_same_magnitudes_as_separation() -> None:
    clips = 0.1 * torch.randn(2, 4, 2, MODEL.n_fft + 40 * MODEL.hop_length)
    seen = spectra(clips, MODEL).mixture
    bins = stft(clips.sum(dim=1), MODEL.n_fft, MODEL.hop_length)[:, :, : MODEL.bins]
    expected = magnitudes(bins)
    level = expected.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(seen, expected / level, rtol=1e-3, atol=1e-4)
