"""Training with a guide: the loss and its gradient."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.train.synthetic import GUIDE, MODEL
from unetsep.network.guided import Guided, with_guide
from unetsep.network.unet import UNet
from unetsep.network.voting import guided_logits
from unetsep.train.losses.functions import build_loss
from unetsep.train.losses.guidance import Guidance, GuidedEstimates, trained_logits
from unetsep.train.losses.spectra import Batch, blockwise_loss

FRAMES = 40


def network(vocals: int = 0) -> Guided:
    stems = ["drums", "bass", "other"]
    stems.insert(vocals, "vocals")
    torch.manual_seed(0)
    plain = UNet(dataclasses.replace(MODEL, stems=tuple(stems)))
    return with_guide(plain, UNet(GUIDE).eval(), "0" * 64)


def batch(dtype: torch.dtype = torch.float32) -> tuple[Batch, Tensor, Tensor]:
    """Spectra, logits of a network that need a gradient, and those of its guide."""
    generator = torch.Generator().manual_seed(1)

    def frames_first(*shape: int) -> Tensor:
        return torch.randn(*shape, FRAMES, 64, generator=generator, dtype=dtype).mT

    mixture, true, aside = frames_first(2, 2).abs(), frames_first(2, 4, 2), frames_first(2, 4, 2)
    own, guide = 2 * frames_first(2, 4, 2), 2 * frames_first(2, 1, 2)
    scale = torch.ones(2, 1, 1, 1, 1, dtype=dtype)
    return Batch(mixture, true, aside, scale), own.requires_grad_(), guide


@pytest.mark.parametrize("vocals", [0, 2])
@pytest.mark.parametrize("share", [0.0, 0.25])
def test_the_vote_is_constant_and_vocals_learn_from_their_own_mask(
    vocals: int, share: float
) -> None:
    guided, (spectra, own, guide) = network(vocals), batch(torch.float64)
    loss = build_loss("mse", MODEL)
    value = blockwise_loss(own, guided, spectra, loss, 3.0, Guidance(guide, share))
    (found,) = torch.autograd.grad(value, own)

    rest = [stem for stem in range(4) if stem != vocals]
    plain = own.softmax(dim=1)
    vote = guided_logits(own, guide, 0.7, vocals).softmax(dim=1)[:, vocals, None].detach()
    masks = torch.empty_like(own)
    masks[:, vocals] = plain[:, vocals]
    masks[:, rest] = (1 - vote) * own[:, rest].softmax(dim=1)
    errors = (masks * spectra.mixture[:, None] - spectra.in_phase).square()
    errors = errors + spectra.quadrature.square()
    weights = torch.ones(4, 1, 1, 1, dtype=torch.float64)
    weights[vocals] = share
    expected = 3 * (errors * weights).mean()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(found, torch.autograd.grad(expected, own)[0])


def test_the_explicit_gradient_agrees_with_finite_differences() -> None:
    _, own, guide = batch(torch.float64)
    own, guide = (each.detach()[:, :, :1, :2, :3].contiguous() for each in (own, guide))
    mixture = torch.rand(2, 1, 1, 2, 3, dtype=torch.float64)
    vote = torch.sigmoid(
        0.7 * guide + 0.3 * (own[:, :1] - own[:, 1:].logsumexp(dim=1, keepdim=True))
    )

    def value(logits: Tensor) -> Tensor:
        voice = torch.sigmoid(logits[:, :1] - logits[:, 1:].logsumexp(dim=1, keepdim=True))
        played = (1 - vote) * logits[:, 1:].softmax(dim=1) * mixture
        return (voice * mixture).pow(3).sum() + played.pow(3).sum()

    guided = GuidedEstimates(own, guide, mixture, 0.7, 0)
    (sung, _), (played, _) = guided.estimates(1.0)
    with torch.enable_grad():
        found = guided.gradient(sung.pow(3).sum() + played.pow(3).sum())
    for place in range(own.numel()):
        step = torch.zeros_like(own)
        step.view(-1)[place] = 1e-6
        slope = (value(own + step) - value(own - step)) / 2e-6
        assert float(found.reshape(-1)[place]) == pytest.approx(float(slope), abs=1e-7)


@pytest.mark.parametrize("name", ["l1", "mel_mse"])
def test_any_loss_is_equal_in_small_and_large_blocks(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guided, (spectra, own, guide) = network(), batch()
    loss, found = build_loss(name, MODEL), []
    for frames in (16, FRAMES):
        monkeypatch.setattr("unetsep.train.losses.blocks.BLOCK_FRAMES", frames)
        value = blockwise_loss(own, guided, spectra, loss, 1.0, Guidance(guide, 0.25))
        found.append((value, *torch.autograd.grad(value, own)))
    torch.testing.assert_close(found[0], found[1])


def test_large_logits_and_silence_have_finite_losses_and_gradients() -> None:
    guided, (spectra, own, guide) = network(), batch()
    far = (own.detach() * 1e4).requires_grad_()
    silent = dataclasses.replace(spectra, mixture=torch.zeros_like(spectra.mixture))
    for each in (spectra, silent):
        loss = build_loss("mse", MODEL)
        value = blockwise_loss(far, guided, each, loss, 1.0, Guidance(guide * 1e4, 0.25))
        (gradient,) = torch.autograd.grad(value, far)
        assert value.isfinite()
        assert bool(gradient.isfinite().all())


def test_training_uses_the_logits_of_the_network_itself() -> None:
    guided, seen = network().eval(), torch.rand(1, 2, 64, 32)
    guidance = Guidance.of(guided, seen, 0.25)
    assert guidance is not None
    own = trained_logits(guided, (seen,), guidance)
    assert not guidance.guide.requires_grad
    low = guidance.low(slice(4, 8))
    assert low.guide.equal(guidance.guide[..., 4:8, :])
    assert low.own_share == 0
    whole = guided_logits(own, guidance.guide, 0.7, 0)
    torch.testing.assert_close(whole, guided.logits(seen))
    plain = UNet(MODEL).eval()
    assert Guidance.of(plain, seen, 0.25) is None
    torch.testing.assert_close(trained_logits(plain, (seen,), None), plain.logits(seen))
