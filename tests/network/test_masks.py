"""Ratios between masks, and the gate: stems that do not play are attenuated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unetsep.config import ModelConfig
from unetsep.network.masks import GATE_FRAMES, gate_, ratio_masks

THRESHOLD = -22.0


def random_masks(frames: int, *, stems: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Masks ``(stems, 2, 64, frames)`` that sum to one, and a spectrum."""
    random = torch.Generator().manual_seed(seed)
    masks = torch.rand(stems, 2, 64, frames, generator=random).softmax(dim=0)
    spectrum = torch.complex(*torch.randn(2, 2, 64, frames, generator=random))
    return masks, spectrum


def with_quiet_stem(share: float, frames: int = 256) -> tuple[Tensor, Tensor]:
    """The same for two stems, the first of which has the same mask everywhere."""
    _, spectrum = random_masks(frames)
    masks = torch.full((2, 2, 64, frames), share)
    masks[1] = 1 - share
    return masks, spectrum


def gated(masks: Tensor, spectrum: Tensor) -> Tensor:
    """The masks after the gate."""
    after = masks.clone()
    gate_(after, spectrum, THRESHOLD)
    return after


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("seen", ["log", "linear"])
def test_ratio_masks_have_the_values_of_the_equation(exponent: float, seen: str) -> None:
    config = ModelConfig(mask="sigmoid", mask_exponent=exponent, mask_epsilon=0.1, input=seen)
    masks, mixture = torch.rand(2, 4, 2, 5, 6), 3 * torch.randn(2, 2, 5, 6, dtype=torch.complex64)
    mixture[..., 0] = 0
    power = (masks * mixture.abs()[:, None] if seen == "linear" else masks) ** exponent
    expected = (power + 0.1 / 4) / (power.sum(dim=1, keepdim=True) + 0.1) if exponent else masks
    torch.testing.assert_close(ratio_masks(masks, mixture, config), expected)


@pytest.mark.parametrize("share_db", [-50.0, -30.0, -22.0, -14.0, -8.0])
def test_a_stem_is_attenuated_by_the_gain_of_the_equation(share_db: float) -> None:
    share = 10 ** (share_db / 20)
    masks, spectrum = with_quiet_stem(share)
    found = gated(masks, spectrum)
    gains = [
        0.01 + 0.99 / (1 + (10 ** (THRESHOLD / 10) / power) ** 3)
        for power in (share**2, (1 - share) ** 2)
    ]
    expected = gains[0] * share / (gains[0] * share + gains[1] * (1 - share))
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)
    np.testing.assert_allclose(found.sum(dim=0), 1, rtol=1e-6)


def test_a_quiet_stem_keeps_bins_that_are_clearly_its_own() -> None:
    masks, spectrum = with_quiet_stem(0.01)
    masks[0, :, 3], masks[1, :, 3] = 0.999, 0.001
    spectrum[:, 3] *= 0.1  # too little for the stem to count as playing
    found = gated(masks, spectrum)
    assert found[0, :, 3].min() > 0.5
    assert found[0, :, :3].max() < 0.002


def test_a_stem_that_enters_is_whole_from_its_first_frame() -> None:
    masks, spectrum = with_quiet_stem(0.01, frames=512)
    masks[0, ..., 256:], masks[1, ..., 256:] = 0.5, 0.5
    found = gated(masks, spectrum)
    assert found[0, ..., 256:].min() > 0.49
    assert found[0, ..., : 256 - GATE_FRAMES - 8].max() < 0.0002
    assert found[0, ..., 256 - GATE_FRAMES + 2 :].min() > 0.009  # the mean sees the stem ahead


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 30, 64, 65])
def test_any_number_of_frames_is_gated_and_masks_still_sum_to_one(frames: int) -> None:
    masks, spectrum = random_masks(frames)
    found = gated(masks, spectrum)
    assert found.shape == (3, 2, 64, frames)
    np.testing.assert_allclose(found.sum(dim=0), 1, rtol=1e-5)


@pytest.mark.parametrize("level", [1e-12, 1e-3, 1e15])
def test_the_level_does_not_matter(level: float) -> None:
    masks, spectrum = random_masks(64)
    expected = gated(masks, spectrum)
    np.testing.assert_allclose(gated(masks, spectrum * level), expected, rtol=1e-4)


def test_masks_of_silence_do_not_change() -> None:
    masks, spectrum = random_masks(64)
    np.testing.assert_allclose(gated(masks, 0 * spectrum), masks, rtol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"gate_db": 0.0},
        {"gate_db": -200.0},
        {"gate_db": float("nan")},
        {"gate_db": -20.0, "mask": "sigmoid", "mask_exponent": 0.0},
        {"wiener": -1},
    ],
)
def test_impossible_settings_are_refused(values: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        ModelConfig(**values)  # type: ignore[arg-type]
