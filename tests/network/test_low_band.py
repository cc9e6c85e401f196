"""A branch of fine resolution for the lowest bins."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from unetsep.config import ModelConfig
from unetsep.dsp.spectrogram import stft
from unetsep.network.build import build, for_inference
from unetsep.network.guided import Guided, with_parts
from unetsep.network.low_band import (
    SIDE,
    LowBand,
    fine_bins,
    fine_magnitudes,
    low_slice,
    network_inputs,
)
from unetsep.network.unet import UNet
from unetsep.network.voting import corrected, guided_logits

SMALL = {"filters": (16, 8), "n_fft": 512, "hop_length": 128, "bins": 128, "segment_frames": 64}
GUIDED = ModelConfig(**SMALL, networks="guided", guide="0" * 64)
LOW = {"low_bins": 32, "low_first": 4, "low_filters": 8}


def network(**low: int) -> Guided:
    torch.manual_seed(0)
    guided = build(dataclasses.replace(GUIDED, **low))
    assert isinstance(guided, Guided)
    guide = ModelConfig(**SMALL, stems=("vocals",), mask="sigmoid", input="linear")
    guided.attach(build(guide).eval())
    with torch.no_grad():
        assert isinstance(guided.rest, UNet)
        guided.rest.head.weight.mul_(20)
    return guided.eval()


def spectrum(frames: int = 64) -> torch.Tensor:
    return torch.randn(1, 2, 257, frames, dtype=torch.complex64)


@pytest.mark.parametrize(("first", "count"), [(0, 128), (128, 256)])
def test_the_fine_spectrum_is_that_of_longer_windows(first: int, count: int) -> None:
    config = ModelConfig(networks="guided", guide="0" * 64, low_bins=count, low_first=first)
    sound = torch.randn(2, 8192 + 1024 * 40)
    fine = fine_magnitudes(stft(sound, 4096, 1024)[None], config)[0]
    assert fine.shape == (2, fine_bins(config), 45)
    expected = stft(sound, 8192, 1024).abs()  # its first frame has the centre of the third
    lowest = 2 * first - SIDE
    expected = expected[:, max(0, lowest) : lowest + fine_bins(config)]
    inner = fine[:, max(0, -lowest) :, 2:-2]
    # The first and last three hops of the samples are incomplete.
    error = (inner - expected)[..., 4:-4]
    assert error.square().mean() < 1e-5 * expected.square().mean()


def test_the_fine_spectrum_needs_no_bins_but_the_networks() -> None:
    config = dataclasses.replace(GUIDED, bins=124, low_bins=60)
    mixture = spectrum()
    _, fine = network_inputs(mixture, config)
    _, of_network = network_inputs(mixture[..., : config.bins, :], config)
    assert torch.equal(of_network, fine)


def test_a_correction_leaves_the_vote_on_the_vocals_alone() -> None:
    own, change, guide = torch.randn(2, 4, 2, 5, 6), torch.randn(2, 3, 2, 5, 6), torch.zeros(1)
    for vocals in range(4):
        better = corrected(own, change, vocals)
        before, after = (
            guided_logits(each, guide, 0.0, vocals).softmax(dim=1) for each in (own, better)
        )
        torch.testing.assert_close(before[:, vocals], after[:, vocals])
        rest = [stem for stem in range(4) if stem != vocals]
        shares = after[:, rest] / after[:, rest].sum(dim=1, keepdim=True)
        torch.testing.assert_close(shares, (own[:, rest] + change).softmax(dim=1))


def test_a_branch_is_trained_in_half_precision_as_in_full() -> None:
    torch.manual_seed(0)
    branch = LowBand(dataclasses.replace(GUIDED, low_bins=32)).to(memory_format=torch.channels_last)
    torch.nn.init.normal_(branch.head.weight)
    fine, level = torch.rand(2, 2, fine_bins(branch.config), 64), torch.ones(2, 1, 1, 1)
    own, guide = torch.randn(2, 4, 2, 32, 64), torch.randn(2, 1, 2, 32, 64)
    found = []
    for half in (False, True):
        branch.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            branch(fine, level, own, guide).square().mean().backward()
        found.append({name: each.grad.clone() for name, each in branch.named_parameters()})
    full, half_precision = found
    for name, gradient in full.items():
        if gradient.dim() > 1:  # before a norm biases have none
            assert (half_precision[name] - gradient).norm() <= 0.1 * gradient.norm(), name


def test_a_new_branch_changes_nothing_and_its_twin_agrees_once_it_does() -> None:
    plain, mixture = network(), spectrum()
    branched = with_parts(plain, dataclasses.replace(GUIDED, **LOW))
    assert branched.low is not None
    seen, fine = network_inputs(mixture, branched.config)
    assert network_inputs(mixture, plain.config)[0].equal(seen)
    torch.testing.assert_close(branched(seen, fine), plain(seen))
    assert plain(seen, fine).equal(plain(seen))
    torch.nn.init.normal_(branched.low.head.weight)
    masks, low = branched(seen, fine), low_slice(branched.config)
    changed = (masks - plain(seen)).abs().amax(dim=(0, 1, 2, 4)) > 1e-3
    assert changed[low].all()
    assert not changed[: low.start].any()
    assert not changed[low.stop :].any()
    torch.testing.assert_close(masks.sum(dim=1), torch.ones_like(masks[:, 0]))
    torch.testing.assert_close(masks[:, 0], plain(seen)[:, 0])
    twin = for_inference(branched)
    torch.testing.assert_close(twin(seen, fine), masks, atol=1e-4, rtol=1e-4)
    half = for_inference(branched, torch.bfloat16)(seen, fine)
    assert (half - masks).abs().mean() < 0.02


def test_a_branch_without_its_input_is_an_error() -> None:
    branched = with_parts(network(), dataclasses.replace(GUIDED, **LOW))
    for form in (branched, for_inference(branched)):
        with pytest.raises(ValueError, match="needs fine, see unetsep"):
            form(torch.rand(1, 2, GUIDED.bins, 64))


def test_level_does_not_matter_and_silence_is_finite() -> None:
    branched = network(**LOW)
    assert branched.low is not None
    torch.nn.init.normal_(branched.low.head.weight)
    mixture = spectrum()
    masks = branched(*network_inputs(mixture, branched.config))
    soft = branched(*network_inputs(mixture * 1e-4, branched.config))
    torch.testing.assert_close(soft, masks, atol=1e-3, rtol=1e-3)
    silent = branched(*network_inputs(0 * mixture, branched.config))
    assert bool(silent.isfinite().all())


@pytest.mark.parametrize(
    "low",
    [
        {"low_bins": 3},
        {"low_bins": 32, "low_first": 1},
        {"low_bins": 64, "low_first": 4},
        {"low_bins": 32, "networks": "joint", "guide": ""},
    ],
)
def test_an_impossible_branch_is_refused(low: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="low_"):
        dataclasses.replace(GUIDED, **low)  # type: ignore[arg-type]
