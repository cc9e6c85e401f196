from __future__ import annotations

import dataclasses

import pytest
import torch

from unetsep.config import ModelConfig
from unetsep.network.layers import BinMixing
from unetsep.network.unet import UNet, compress

SMALL = ModelConfig(bins=128, filters=(4, 6, 8), segment_frames=64)


def network(config: ModelConfig = SMALL, seed: int = 0) -> UNet:
    """A network whose BatchNorm statistics are far from their defaults."""
    torch.manual_seed(seed)
    net = UNet(config)
    for name, value in net.state_dict().items():
        if "running_var" in name or "1.weight" in name:
            value.uniform_(0.5, 2)
        elif "running_mean" in name or "1.bias" in name:
            value.normal_()
    return net.eval()


def magnitude(frames: int = 64, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 2, SMALL.bins, frames, generator=torch.Generator().manual_seed(1))


def test_default_network_has_2_6_million_parameters() -> None:
    assert sum(p.numel() for p in UNet(ModelConfig()).parameters()) == 1_973_480


@torch.no_grad()
def test_masks_have_the_stated_shape_and_sum_to_one() -> None:
    masks = network()(magnitude())
    assert masks.shape == (2, 4, 2, 128, 64)
    assert torch.allclose(masks.sum(dim=1), torch.ones(2, 2, 128, 64), atol=1e-6)


@torch.no_grad()
def test_sigmoid_masks_are_independent() -> None:
    masks = network(ModelConfig(bins=128, filters=(4, 6, 8), segment_frames=64, mask="sigmoid"))(
        magnitude()
    )
    assert ((masks > 0) & (masks < 1)).all()
    assert (masks.sum(dim=1) - 1).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("gain", [1e-4, 0.1, 10.0, 1e4])
def test_the_level_does_not_matter(gain: float) -> None:
    net, x = network(), magnitude()
    assert torch.allclose(net(x), net(x * gain), atol=2e-5)


@torch.no_grad()
def test_digital_silence_around_music_does_not_change_its_level() -> None:
    net, x = network(), magnitude()
    padded = torch.nn.functional.pad(x, (0, 32))
    assert torch.allclose(
        compress(padded, net.config)[..., :64], compress(x, net.config), atol=1e-6
    )


@torch.no_grad()
@pytest.mark.parametrize("value", [0.0, 1e-38, 1e30])
def test_silence_denormals_and_huge_levels_give_finite_masks(value: float) -> None:
    masks = network()(torch.full((1, 2, 128, 64), value))
    assert torch.isfinite(masks).all()


@torch.no_grad()
def test_time_shift_by_the_frame_multiple_shifts_the_masks() -> None:
    config = ModelConfig(bins=64, filters=(4, 4), segment_frames=64)
    net = network(config)
    x = torch.rand(1, 2, 64, 256)
    moved = torch.roll(x, config.frame_multiple * 4, dims=-1)
    there = net(x)[..., 100:140]
    assert torch.allclose(net(moved)[..., 116:156], there, atol=1e-5)


MIXING = dataclasses.replace(SMALL, bin_units=8)


def test_mixing_bins_starts_as_the_identity() -> None:
    plain, mixed = network(), network(MIXING)
    mixed.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(mixed(magnitude()), plain(magnitude()))


@torch.no_grad()
def test_mixing_bins_carries_the_lowest_bin_to_the_highest_in_the_same_frame() -> None:
    block = BinMixing(bins=32, channels=3, units=4)
    block.expand.normal_()
    hidden = torch.rand(1, 3, 5, 32)
    changed = hidden.clone()
    changed[0, 1, 2, 0] += 1
    difference = (block(changed) - block(hidden)).abs()
    assert difference[0, 1, 2, -1] > 1e-3
    difference[0, 1, 2] = 0
    assert difference.max() == 0


def test_mixing_of_bins_stays_in_half_precision_under_autocast() -> None:
    torch.manual_seed(0)
    block = BinMixing(16, 3, 8)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.normal_(std=0.2)
    hidden = torch.randn(2, 3, 5, 16).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = block(hidden.bfloat16())
    assert mixed.dtype == torch.bfloat16
    assert (mixed - block(hidden)).abs().max() < 0.1
