from __future__ import annotations

import pytest
import torch

from unetsep.network.voting import guided_logits, write_guided_masks


def test_masks_are_the_vote_and_shares_of_the_rest() -> None:
    torch.manual_seed(0)
    own, guide = torch.randn(2, 4, 2, 5, 6), torch.randn(2, 1, 2, 5, 6)
    masks = guided_logits(own, guide, 0.7, 0).softmax(dim=1)
    rest = own[:, 1:]
    alone = (own[:, :1] - rest.logsumexp(dim=1, keepdim=True)).sigmoid()
    vote = (0.7 * guide + 0.3 * alone.logit()).sigmoid()
    expected = torch.cat([vote, (1 - vote) * rest.softmax(dim=1)], dim=1)
    assert (masks - expected).abs().max() < 1e-6


@pytest.mark.parametrize("vocals", range(4))
def test_the_vocals_may_have_any_place_among_the_stems(vocals: int) -> None:
    own, guide = torch.randn(1, 4, 3), torch.randn(1, 1, 3)
    order = [1, 2, 3]
    order.insert(vocals, 0)
    moved = guided_logits(own[:, order], guide, 0.5, vocals)
    assert torch.allclose(moved, guided_logits(own, guide, 0.5, 0)[:, order])


@pytest.mark.parametrize("vocals", [0, 1, 3])
def test_masks_are_the_softmax_of_logits_of_any_size(vocals: int) -> None:
    torch.manual_seed(1)
    own, guide = torch.randn(2, 4, 2, 5, 6), torch.randn(2, 1, 2, 5, 6)
    for scale in (1, 30, 1e4):
        masks = torch.empty_like(own)
        write_guided_masks(scale * own, scale * guide, 0.7, vocals, masks)
        expected = guided_logits(scale * own, scale * guide, 0.7, vocals).softmax(dim=1)
        torch.testing.assert_close(masks, expected, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(masks.sum(dim=1), torch.ones(2, 2, 5, 6))


def test_without_weight_the_guide_changes_nothing() -> None:
    own = torch.randn(2, 4, 2, 5, 6)
    masks = guided_logits(own, torch.randn(2, 1, 2, 5, 6), 0.0, 0).softmax(dim=1)
    assert (masks - own.softmax(dim=1)).abs().max() < 1e-6
