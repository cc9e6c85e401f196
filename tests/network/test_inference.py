from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unetsep.config import ModelConfig
from unetsep.network.build import build, for_inference
from unetsep.network.doubling import Doubling
from unetsep.network.guided import Guided
from unetsep.network.inference import InferenceUNet
from unetsep.network.low_band import network_inputs
from unetsep.network.masks import MaskNetwork
from unetsep.network.presets import spleeter_config
from unetsep.weights.load import load_network

SMALL = ModelConfig(bins=128, filters=(4, 6, 8), segment_frames=64)
SPLEETER = dataclasses.replace(
    SMALL,
    networks="per_stem",
    mask="sigmoid",
    input="linear",
    padding="same",
    activation="elu",
    skips="raw",
    head="dilated",
)
CONFIGS = {
    "small": SMALL,
    "mixing": dataclasses.replace(SMALL, bin_units=8),
    "raw mixing": dataclasses.replace(SMALL, bin_units=8, skips="raw"),
    "dilated mixing": dataclasses.replace(SMALL, bin_units=8, head="dilated"),
    "elu": dataclasses.replace(SMALL, activation="elu"),
    "kernel 3": dataclasses.replace(SMALL, kernel_size=3),
    "kernel 7": dataclasses.replace(SMALL, kernel_size=7),
    "same": dataclasses.replace(SMALL, padding="same"),
    "16 filters": dataclasses.replace(SMALL, filters=(16, 16, 32)),
    "one level": dataclasses.replace(SMALL, filters=(4,)),
    "one channel": dataclasses.replace(SMALL, filters=(4, 1, 8)),
    "mono": dataclasses.replace(SMALL, channels=1),
    "sigmoid": dataclasses.replace(SMALL, mask="sigmoid"),
    "per stem": dataclasses.replace(SMALL, networks="per_stem"),
    "gated per stem": dataclasses.replace(
        SMALL, networks="per_stem", mask="sigmoid", gate_db=-20.0
    ),
    "spleeter": SPLEETER,
}


def network(config: ModelConfig) -> MaskNetwork:
    """A network whose weights and BatchNorm statistics are far from their defaults."""
    torch.manual_seed(0)
    net = build(config)
    for name, value in net.state_dict().items():
        if "running_var" in name or "1.weight" in name:
            value.uniform_(0.5, 2)
        elif "running_mean" in name or "bias" in name:
            value.normal_()
        elif "expand" in name:
            value.normal_(std=0.1)
    return net.eval()


def magnitude(config: ModelConfig, frames: int = 64, batch: int = 2) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(batch, config.channels, frames, config.bins, generator=random).mT


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_masks_are_those_of_the_trained_network(name: str) -> None:
    net, x = network(CONFIGS[name]), magnitude(CONFIGS[name])
    masks = for_inference(net)(x)
    assert masks.shape == net(x).shape
    assert torch.allclose(masks, net(x), atol=1e-5)
    assert masks.mT.is_contiguous()  # as the spectrum that they multiply


@pytest.mark.parametrize("name", [*CONFIGS, "default", "open"])
def test_preparing_a_network_for_inference_draws_no_random_numbers(name: str) -> None:
    net = load_network(name) if name in ("default", "open") else network(CONFIGS[name])
    before = torch.random.get_rng_state()
    for_inference(net)
    assert torch.equal(torch.random.get_rng_state(), before)


@torch.no_grad()
@pytest.mark.parametrize("name", [*CONFIGS, "default"])
def test_a_network_trained_on_several_gpus_is_prepared_alike(name: str) -> None:
    net = load_network(name) if name == "default" else network(CONFIGS[name])
    inputs = network_inputs(torch.randn(1, net.config.channels, 64, 1024).mT + 0j, net.config)
    masks = for_inference(net)(*inputs)
    synced = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))
    assert torch.equal(for_inference(synced)(*inputs), masks)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_bf16_gives_fp32_masks_within_a_hundredth(name: str) -> None:
    net, x = network(CONFIGS[name]), magnitude(CONFIGS[name])
    masks, true = for_inference(net, torch.bfloat16)(x), net(x)
    assert masks.dtype == torch.float32
    assert (masks - true).square().mean().sqrt() < 0.01
    if CONFIGS[name].mask == "softmax":
        assert (masks.sum(dim=1) - 1).abs().max() < 1e-6


@torch.no_grad()
@pytest.mark.parametrize("name", ["small", "spleeter"])
def test_the_first_level_of_a_bf16_network_rounds_its_output_alone(name: str) -> None:
    trained = network(CONFIGS[name])
    net = trained.networks[0] if name == "spleeter" else trained
    seen = torch.rand(1, 2, 64, 128).contiguous(memory_format=torch.channels_last)
    half, exact = (
        InferenceUNet(net, dtype).encoder[0] for dtype in (torch.bfloat16, torch.float32)
    )
    assert torch.equal(half.convolution(seen), exact.convolution(seen))
    assert half(seen)[1].dtype == torch.bfloat16


@torch.no_grad()
def test_a_level_of_one_channel_compensates_the_rounding_of_its_weights() -> None:
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(32, 1, 5, 2, 2, 1, bias=False)
    x = torch.randn(1, 32, 16, 16).bfloat16().contiguous(memory_format=torch.channels_last)
    exact = Doubling(copy.deepcopy(layer), torch.float32)(x.float())
    found = Doubling(copy.deepcopy(layer), torch.bfloat16)(x)
    plain = copy.deepcopy(layer)
    plain.weight.data = plain.weight.data.bfloat16().float()
    by_weights = (Doubling(plain, torch.float32)(x.float()) - exact).square().mean()
    assert found.dtype == torch.float32
    # The remaining error is the rounding of the output, at most 2 ** -9 of it.
    assert ((found - exact).abs() <= 2**-8 * exact.abs() + 1e-4).all()
    assert (found - exact).square().mean() < by_weights


@torch.no_grad()
@pytest.mark.parametrize("frames", [8, 24, 104])
def test_frames_of_an_incomplete_piece_are_masked_too(frames: int) -> None:
    net, x = network(SMALL), magnitude(SMALL, frames)
    assert torch.allclose(for_inference(net)(x), net(x), atol=1e-5)


@torch.no_grad()
def test_stems_that_do_not_matter_are_not_computed() -> None:
    net, x = network(dataclasses.replace(SPLEETER, mask_exponent=0.0)), magnitude(SPLEETER)
    masks = for_inference(net)(x, wanted=[1])
    assert torch.allclose(masks[:, 1], net(x)[:, 1], atol=1e-5)
    assert not masks[:, [0, 2, 3]].any()


@torch.no_grad()
def test_the_trained_network_is_not_changed() -> None:
    net, x = network(SMALL), magnitude(SMALL)
    before = net(x)
    for_inference(net, torch.bfloat16)
    assert torch.equal(net(x), before)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_twin_for_inference_does_not_follow_further_training(
    name: str, dtype: torch.dtype
) -> None:
    net, x = network(CONFIGS[name]), magnitude(CONFIGS[name])
    ready = for_inference(net, dtype)
    before = ready(x)
    for value in net.state_dict().values():
        value.mul_(3)
    assert torch.equal(ready(x), before)


class CountedBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts bytes of operations while it is active; each subclass defines which."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self, func: Any, types: object, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += self.bytes_of(func, (args, kwargs), out)
        return out

    def bytes_of(self, func: Any, given: object, out: Any) -> int:
        raise NotImplementedError


class AllocatedBytes(CountedBytes):
    """Bytes of all tensors that operations create."""

    def bytes_of(self, func: Any, given: object, out: Any) -> int:
        there = {place(each) for each in tensors(given)}
        made = [each for each in tensors(out) if not each.is_meta and place(each) not in there]
        return sum(each.untyped_storage().nbytes() for each in made)


class CopiedBytes(CountedBytes):
    """Bytes written by operations that only move numbers or change their type."""

    MOVES = frozenset({"aten::copy_", "aten::_to_copy", "aten::clone", "aten::cat", "aten::stack"})

    def bytes_of(self, func: Any, given: object, out: Any) -> int:
        return int(out.nbytes) if func.name().partition(".")[0] in self.MOVES else 0


def tensors(values: object) -> list[torch.Tensor]:
    return [each for each in tree_leaves(values) if isinstance(each, torch.Tensor)]


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# Of its bytes: the convolutions mirrored, scaled and laid out; in bf16 in that type, too.
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2.4), (torch.bfloat16, 2.8)])
def test_preparing_the_default_copies_its_weights_few_times(
    dtype: torch.dtype, limit: float
) -> None:
    with AllocatedBytes() as loading:
        net = load_network("default")
    assert isinstance(net, Guided)
    weights = [*net.state_dict().values(), *net.guide.state_dict().values()]
    size = sum(value.nbytes for value in weights)
    with AllocatedBytes() as preparing:
        for_inference(net, dtype)
    assert 0.9 < loading.count / size < 1.1
    assert 0.9 < preparing.count / size < limit


@torch.no_grad()
@pytest.mark.parametrize(
    ("found", "transposed"),
    [
        ({}, False),
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": True, "amx_bf16": True}, False),
    ],
    ids=str,
)
def test_bf16_levels_stay_transposed_convolutions_where_those_are_fast(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], transposed: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    layer = nn.ConvTranspose2d(32, 16, 5, 2, 2, output_padding=1).bfloat16().float()
    x = torch.randn(1, 32, 16, 16).bfloat16().contiguous(memory_format=torch.channels_last)
    doubling = Doubling(copy.deepcopy(layer), torch.bfloat16)
    assert isinstance(doubling.form, nn.ConvTranspose2d) == transposed
    room = torch.empty(1, 32, 32, 16, dtype=torch.bfloat16)
    doubling(x, room)
    expected = layer(x.float()).relu().permute(0, 2, 3, 1)
    torch.testing.assert_close(room.float(), expected, rtol=0.01, atol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_a_doubling_sees_no_more_inputs_than_its_kernel_reaches(kernel: int) -> None:
    layer = nn.ConvTranspose2d(3, 5, kernel, 2, kernel // 2, output_padding=1)
    doubling = Doubling(layer, torch.float32)
    x = torch.randn(2, 3, 6, 8).contiguous(memory_format=torch.channels_last)
    assert doubling.form.weight.shape[-1] == (kernel + 1) // 2
    assert torch.allclose(doubling(x).permute(0, 3, 1, 2), layer(x), atol=1e-5)


# Times the bytes of the masks: input (in bf16 twice) and skips in the order and type of the
# convolutions, and the head's output in the order of the spectrum; nothing else is moved.
@pytest.mark.parametrize(
    ("name", "dtype", "limit"),
    [
        ("default", torch.float32, 3.6),
        ("default", torch.bfloat16, 2.9),
        ("fast", torch.float32, 2.9),
        ("fast", torch.bfloat16, 2.3),
    ],
)
def test_inference_moves_no_more_memory_than_necessary(
    name: str, dtype: torch.dtype, limit: float
) -> None:
    net = for_inference(load_network(name), dtype)
    spectrum = torch.randn(1, 2, 128, 1024, dtype=torch.complex64).mT
    with torch.inference_mode():
        inputs = network_inputs(spectrum, net.config)
        with CopiedBytes() as copied:
            masks = net(*inputs)
    assert copied.count / masks.nbytes < limit


# A norm with a negative factor cannot be folded across a ReLU.
@pytest.mark.parametrize("least", [0.5, -1.5])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_network_that_pads_like_tensorflow_is_computed_mirrored(
    dtype: torch.dtype, error: float, least: float
) -> None:
    torch.manual_seed(0)
    config = spleeter_config(2, (4, 16, 8), bins=128)
    net = build(dataclasses.replace(config, networks="joint", activation="relu")).eval()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, least, 1.5)
            nn.init.normal_(norm.bias)
    fast = for_inference(net, dtype)
    assert isinstance(fast, InferenceUNet)
    assert fast.mirrored
    magnitude = torch.rand(2, 2, 64, 128).mT
    with torch.inference_mode():
        assert (fast(magnitude) - net(magnitude)).abs().max() < error
