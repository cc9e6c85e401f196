from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable

import pytest
import torch

from unetsep.config import ModelConfig
from unetsep.network.build import for_inference
from unetsep.network.guided import (
    LEVEL,
    Guided,
    scaled_for_guide,
    state_channels,
    with_guide,
    with_parts,
)
from unetsep.network.presets import spleeter_config
from unetsep.network.unet import UNet, rms_level

SMALL = ModelConfig(n_fft=512, hop_length=128, bins=64, filters=(4, 6), segment_frames=64)
VOCALS = dataclasses.replace(
    spleeter_config(2, (4, 6)),
    stems=("vocals",),
    networks="joint",
    mask_exponent=0.0,
    n_fft=512,
    hop_length=128,
    bins=64,
    segment_frames=64,
)


def network() -> Guided:
    """A guided network with weights other than zero for its second spectrum."""
    torch.manual_seed(1)
    guided = with_guide(UNet(SMALL).eval(), UNet(VOCALS).eval(), "0" * 64)
    with torch.no_grad():
        weight = guided.rest.encoder[0][0].weight  # type: ignore[index]
        weight[:, 2:] = weight[:, :2].flip(0)
    return guided


def laterally_connected(**changed: object) -> Guided:
    """The same with weights for the states of the guide's decoder, and norms other than one."""
    states = state_channels(VOCALS)
    config = dataclasses.replace(network().config, guide_states=states, **changed)  # type: ignore[arg-type]
    guided = with_parts(network(), config).eval()
    with torch.no_grad():
        for lateral in guided.laterals:
            lateral.weight.normal_(std=0.3)  # type: ignore[operator]
        for name, value in guided.rest.state_dict().items():
            if name.endswith(("1.weight", "running_var")):
                value.uniform_(0.5, 2)
    return guided


def magnitude(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 2, 64, 32, generator=generator) ** 4 * 30


def test_a_network_with_a_new_guide_divides_the_rest_as_before() -> None:
    torch.manual_seed(0)
    plain, guide = UNet(SMALL).eval(), UNet(VOCALS).eval()
    guided = with_guide(plain, guide, "0" * 64)
    seen = magnitude()
    with torch.no_grad():
        expected, found = plain(seen)[:, 1:], guided(seen)[:, 1:]
        shares = expected / expected.sum(dim=1, keepdim=True)
        assert (found / found.sum(dim=1, keepdim=True) - shares).abs().max() < 1e-5
        # The guide sees the mixture at its own level.
        vote = guide.logits(seen * LEVEL / rms_level(seen))
        assert (guided.guide_output(seen)[0] - vote).abs().max() < 1e-4


@pytest.mark.parametrize("made", [network, laterally_connected])
def test_the_twin_for_inference_gives_the_same_masks(made: Callable[[], Guided]) -> None:
    guided, seen = made(), magnitude()
    with torch.inference_mode():
        masks = guided(seen)
        assert (for_inference(guided)(seen) - masks).abs().max() < 1e-5
        rough = for_inference(guided, torch.bfloat16)(seen)
        assert (rough - masks).abs().max() < 0.1
    assert (masks.sum(dim=1) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("factor", [1e-6, 1e3])
@pytest.mark.parametrize("made", [network, laterally_connected])
def test_the_level_does_not_matter(made: Callable[[], Guided], factor: float) -> None:
    guided, seen = made(), magnitude()
    with torch.no_grad():
        assert (guided(seen) - guided(seen * factor)).abs().max() < 1e-4


@pytest.mark.parametrize("made", [network, laterally_connected])
def test_silence_gives_finite_masks(made: Callable[[], Guided]) -> None:
    guided = made()
    with torch.no_grad():
        for seen in (torch.zeros(1, 2, 64, 32), torch.full((1, 2, 64, 32), 1e-30)):
            assert guided(seen).isfinite().all()
            assert for_inference(guided)(seen).isfinite().all()


def test_the_guide_is_frozen_and_not_part_of_the_weights() -> None:
    guided = network().train()
    assert all(name.startswith("rest.") for name in guided.state_dict())
    before = copy.deepcopy(guided.guide.state_dict())
    optimizer = torch.optim.SGD(guided.parameters(), 0.1)
    guided(magnitude()).square().mean().backward()
    optimizer.step()
    assert not guided.guide.training
    for name, value in guided.guide.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_decoder_state_joined_with_its_skip_is_added_to_a_convolution() -> None:
    guided, seen = laterally_connected(), magnitude()
    heard: dict[str, torch.Tensor] = {}
    guide, rest = guided.guide, guided.rest

    def keep(name: str):  # type: ignore[no-untyped-def]
        return lambda module, given, out: heard.__setitem__(name, out)

    hooks = [
        guide.decoder[0].register_forward_hook(keep("decoder")),
        guide.encoder[0][0].register_forward_hook(keep("skip")),  # type: ignore[index]
        rest.encoder[0][0].register_forward_hook(keep("convolution")),  # type: ignore[index]
        rest.encoder[0][1].register_forward_pre_hook(  # type: ignore[index]
            lambda module, given: heard.__setitem__("norm", given[0])
        ),
    ]
    with torch.no_grad():
        guided(seen)
        guide.logits(scaled_for_guide(seen, rms_level(seen)))
        for hook in hooks:
            hook.remove()
        state = torch.cat([heard["decoder"], heard["skip"]], dim=1)
        assert state.shape[1:] == (8, 16, 32)
        compressed = state.sign() * (1 + state.abs()).log()
        weight = guided.laterals[0].weight[:, :, 0, 0]  # type: ignore[index]
        told = torch.einsum("fs,bsij->bfij", weight, compressed)
    assert told.abs().max() > 0.1
    assert (heard["norm"] - heard["convolution"] - told).abs().max() < 1e-4


def test_new_lateral_connections_change_nothing() -> None:
    before = network()
    config = dataclasses.replace(before.config, guide_states=state_channels(VOCALS))
    after, seen = with_parts(before, config), magnitude()
    assert len(after.laterals) == 1
    with torch.no_grad():
        assert torch.equal(after(seen), before(seen))
        assert not torch.equal(laterally_connected()(seen), before(seen))


def test_gradients_reach_the_input_of_the_guide_through_its_states() -> None:
    guided, seen = laterally_connected(), magnitude().requires_grad_()
    scaled = scaled_for_guide(seen, rms_level(seen))
    guide, states = guided.guide.output(scaled, state_count=1)
    guided.own_logits(seen.detach(), guide=guide.detach(), states=states).sum().backward()
    assert seen.grad is not None
    assert seen.grad.isfinite().all()
    assert seen.grad.abs().max() > 0


def test_states_of_another_guide_are_refused() -> None:
    config = dataclasses.replace(network().config, guide_states=(6,))
    with pytest.raises(
        ValueError, match=r"sees guide_states \(6,\) of its guide, which has \(8,\)"
    ):
        Guided(config).attach(UNet(VOCALS))


def test_a_network_without_its_guide_is_an_error() -> None:
    config = dataclasses.replace(SMALL, networks="guided", guide="a" * 64)
    with pytest.raises(ValueError, match=r"aaaaaaaaaaaa\.\.\. was not attached"):
        Guided(config)(magnitude())


@pytest.mark.parametrize(
    "changed", [{"stems": ("bass",)}, {"bins": 32}, {"input": "log", "mask": "sigmoid"}]
)
def test_other_networks_cannot_be_guides(changed: dict[str, object]) -> None:
    other = UNet(dataclasses.replace(VOCALS, **changed))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a guide must be one network for vocals alone"):
        network().attach(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"guide": ""},
        {"guide": "xyz"},
        {"stems": ("drums", "bass")},
        {"mask": "sigmoid"},
        {"input": "linear"},
        {"guide_weight": 1.5},
        {"guide_states": (8, 12)},
        {"guide_states": (0,)},
    ],
)
def test_configs_that_cannot_be_guided_are_refused(changed: dict[str, object]) -> None:
    values = {"networks": "guided", "guide": "a" * 64} | changed
    with pytest.raises(ValueError, match="is not usable"):
        dataclasses.replace(SMALL, **values)  # type: ignore[arg-type]
