"""Muon's steps: orthogonal for convolutions, AdamW's for the rest."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from unetsep.train.muon import Muon, orthogonalise


def parameter(*shape: int, seed: int = 0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


def gradients(like: Tensor, count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(like.shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("shape", [(24, 75), (75, 24), (32, 32), (1, 50)])
def test_singular_vectors_stay_and_singular_values_come_close_to_one(
    shape: tuple[int, int],
) -> None:
    matrix = 1e-3 * parameter(*shape).detach()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = left.T @ orthogonalise(matrix) @ right.T
    grown = values > 0.02 * values.norm()  # five iterations cannot lift what is nearly zero
    assert found.diagonal()[grown].min() > 0.5
    assert found.diagonal().max() < 1.3
    assert (found - torch.diag(found.diagonal())).abs().max() < 1e-4


def test_a_gradient_of_zeros_gives_zeros() -> None:
    assert not orthogonalise(torch.zeros(3, 5)).any()


@pytest.mark.parametrize("size", [0.2, 0.8])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_the_length_of_a_step_does_not_depend_on_the_gradient(scale: float, size: float) -> None:
    weights = parameter(16, 8, 5, 5)
    before = weights.detach().clone()
    weights.grad = scale * gradients(weights, 1)[0]
    Muon([weights], 0.01, size=size).step()
    step = (weights.detach() - before).square().mean().sqrt()
    assert step == pytest.approx(size * 0.01, rel=0.2)


def test_norms_and_biases_are_updated_as_by_adamw() -> None:
    ours, theirs = parameter(64), parameter(64)
    muon = Muon([ours], 1e-2, weight_decay=0.1)
    adamw = torch.optim.AdamW([theirs], 1e-2, weight_decay=0.1)
    for gradient in gradients(ours, 20):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        adamw.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 and later have Muon")
def test_matrices_are_updated_as_by_torchs_muon_but_for_its_rounding() -> None:
    ours, theirs = parameter(48, 200), parameter(48, 200)
    muon = Muon([ours], 1e-2, weight_decay=0.1)
    other = torch.optim.Muon([theirs], 1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient in gradients(ours, 5):
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        muon.step()
        other.step()
    moved = torch.stack([ours.detach(), theirs.detach()]) - parameter(48, 200).detach()
    assert (moved[0] - moved[1]).norm() < 0.02 * moved[1].norm()


def test_a_saved_optimizer_resumes_exactly() -> None:
    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4))

    def steps(muon: Muon, net: nn.Module, first: int) -> None:
        for step in range(first, first + 3):
            for weights in net.parameters():
                weights.grad = gradients(weights, 6)[step]
            muon.step()

    whole, parted = network(), network()
    steps(straight := Muon(whole.parameters(), 1e-2), whole, 0)
    steps(straight, whole, 3)
    steps(first := Muon(parted.parameters(), 1e-2), parted, 0)
    second = Muon(parted.parameters(), 1e-2)
    second.load_state_dict(first.state_dict())
    steps(second, parted, 3)
    for ours, theirs in zip(parted.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_muon_beats_adamw_on_a_badly_scaled_problem() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(512, 32) * torch.logspace(0, -2, 32)
    wanted = inputs @ torch.randn(32, 16)

    def left(optimizer: Callable[[nn.Linear], torch.optim.Optimizer]) -> float:
        torch.manual_seed(1)
        net = nn.Linear(32, 16, bias=False)
        stepping = optimizer(net)
        for _ in range(200):
            loss = (net(inputs) - wanted).square().mean()
            stepping.zero_grad()
            loss.backward()
            stepping.step()
        return loss.item()

    muon = left(lambda net: Muon(net.parameters(), 0.01, size=0.8))
    assert muon < left(lambda net: torch.optim.AdamW(net.parameters(), 0.01)) / 2


def test_parameters_with_their_own_rates_are_updated_as_if_alone() -> None:
    def parameters() -> list[nn.Parameter]:
        return [parameter(8, 3, 5, 5, seed=seed) for seed in (0, 1)] + [parameter(8), parameter(4)]

    together, alone = parameters(), parameters()
    rates = (1e-2, 3e-3, 1e-2, 3e-3)
    groups = [{"params": [each], "lr": rate} for each, rate in zip(together, rates, strict=True)]
    muons = [Muon(groups, 1.0, weight_decay=0.1)]
    muons += [Muon([each], rate, weight_decay=0.1) for each, rate in zip(alone, rates, strict=True)]
    for step in range(3):
        for index, pair in enumerate(zip(together, alone, strict=True)):
            for each in pair:
                each.grad = gradients(each, 3)[step] * 10.0**index
        for muon in muons:
            muon.step()
    for ours, theirs in zip(together, alone, strict=True):
        torch.testing.assert_close(ours, theirs)
