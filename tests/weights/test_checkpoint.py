from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from tests.releases import needs
from tests.weights.conftest import SMALL
from unetsep.errors import WeightsError
from unetsep.network.unet import UNet
from unetsep.weights.checkpoint import build_network, serialize
from unetsep.weights.load import load_network


def alter(file: Path, **changes: torch.Tensor | None) -> bytes:
    """The content of a checkpoint with tensors replaced, added or (None) removed."""
    tensors = load(file.read_bytes()) | {n.replace("__", "."): t for n, t in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return save(kept, metadata={"config": SMALL.to_json()})


@torch.no_grad()
def test_a_checkpoint_restores_the_network(network: UNet, file: Path) -> None:
    loaded = load_network(file)
    x = torch.rand(1, 2, 1024, 64)
    assert (loaded(x) - network(x)).abs().max() < 2e-3  # half precision
    assert loaded.config == SMALL
    assert not loaded.training


def test_only_convolutions_are_stored_in_half_precision(file: Path) -> None:
    stored: dict[torch.dtype, set[str]] = {}
    for name, tensor in load(file.read_bytes()).items():
        stored.setdefault(tensor.dtype, set()).add(name)
    expected = UNet(SMALL).state_dict()
    convolutions = {name for name, value in expected.items() if value.dim() == 4}
    counts = {name for name in expected if name.endswith("num_batches_tracked")}
    assert len(convolutions) == 4
    assert stored == {
        torch.float16: convolutions,
        torch.int64: counts,
        torch.float32: set(expected) - convolutions - counts,
    }


def test_large_running_variances_are_stored_exactly(network: UNet, tmp_path: Path) -> None:
    network.state_dict()["encoder.0.1.running_var"].fill_(1e6)
    file = tmp_path / "x.safetensors"
    file.write_bytes(serialize(network))
    assert (load_network(file).state_dict()["encoder.0.1.running_var"] == 1e6).all()


def test_the_same_network_and_notes_give_the_same_bytes(network: UNet) -> None:
    notes = {str(number): f'"\x01é/{number}' for number in range(6)}
    content = serialize(network, notes=notes)
    assert {serialize(network, notes=notes) for _ in range(3)} == {content}
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    assert len(header) % 8 == 0
    assert json.loads(header)["__metadata__"] == notes | {"config": SMALL.to_json()}
    state = build_network(content, "one").state_dict()
    for name, value in load(serialize(network)).items():
        assert torch.equal(state[name], value.to(state[name].dtype)), name


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"head__weight": torch.zeros(1)}, "head.weight"),
        ({"head__weight": None}, "head.weight"),
        ({"surprise": torch.zeros(1)}, "surprise"),
        (
            {"encoder__0__0__weight": torch.zeros(4, 2, 5, 5, dtype=torch.int32)},
            "encoder.0.0.weight",
        ),
        (
            {"encoder__0__0__weight": torch.zeros(4, 2, 5, 5, dtype=torch.bool)},
            "encoder.0.0.weight",
        ),
        pytest.param(
            {"encoder__0__0__weight": torch.zeros(4, 2, 5, 5, dtype=torch.complex64)},
            "encoder.0.0.weight",
            marks=needs("safetensors", "0.7"),
        ),
    ],
    ids=["wrong shape", "missing", "extra", "integers", "booleans", "complex"],
)
def test_tensors_that_do_not_fit_the_config_are_refused(
    file: Path, changes: dict[str, torch.Tensor | None], named: str
) -> None:
    with pytest.raises(WeightsError, match=f"does not fit its own config.*'{named}'"):
        build_network(alter(file, **changes), "x")


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float64,
        pytest.param(torch.float8_e4m3fn, marks=needs("safetensors", "0.4.3")),
    ],
)
def test_floats_of_any_width_are_accepted(file: Path, dtype: torch.dtype) -> None:
    weight = torch.full((4, 2, 5, 5), 0.5)
    network = build_network(alter(file, encoder__0__0__weight=weight.to(dtype)), "x")
    torch.testing.assert_close(network.state_dict()["encoder.0.0.weight"], weight)


@needs("safetensors", "0.6")  # others call the file damaged
def test_number_types_that_torch_does_not_know_are_refused(file: Path) -> None:
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].replace(b'"I64"', b'"F4" ', 1).replace(b" :", b":")
    header = header.replace(b'"shape":[]', b'"shape":[16]', 1)  # as many bytes as before
    with pytest.raises(WeightsError, match="unknown kind 'F4'"):
        build_network(len(header).to_bytes(8, "little") + header + content[8 + length :], "x")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_weight_that_is_nan_or_infinite_is_refused(
    file: Path, value: float, dtype: torch.dtype
) -> None:
    """It would separate every song to silence or noise, and nothing would say so."""
    weight = torch.zeros(4, 2, 5, 5, dtype=dtype)
    weight[3, 1, 4, 4] = value
    with pytest.raises(WeightsError, match=r"'encoder\.0\.0\.weight' holds NaN or infinity"):
        build_network(alter(file, encoder__0__0__weight=weight), "x")


def test_a_variance_below_zero_is_refused(file: Path) -> None:
    variance = torch.tensor([1.0, 1.0, -1e-3, 1.0])
    with pytest.raises(WeightsError, match=r"'encoder\.0\.1\.running_var' holds variances below"):
        build_network(alter(file, encoder__0__1__running_var=variance), "x")


def test_a_deviation_of_zero_is_refused(file: Path) -> None:
    """Its stems would be NaN."""
    deviations = torch.ones(SMALL.bins)
    deviations[-1] = 0
    with pytest.raises(WeightsError, match="'input_std' holds deviations of zero or less"):
        build_network(alter(file, input_std=deviations), "x")


def test_a_config_too_large_for_its_weights_is_refused(file: Path) -> None:
    absurd = dataclasses.replace(SMALL, filters=(4096, 4096)).to_json()
    content = save(load(file.read_bytes()), metadata={"config": absurd})
    with pytest.raises(WeightsError, match="does not fit"):
        build_network(content, "x")


def test_a_header_that_claims_to_be_huge_is_refused(file: Path) -> None:
    content = (2**62).to_bytes(8, "little") + file.read_bytes()[8:]
    with pytest.raises(WeightsError, match=r"not a unetsep checkpoint|damaged"):
        build_network(content, "x")


@pytest.mark.parametrize("place", ["header", "config"])
def test_deeply_nested_json_is_refused(file: Path, place: str) -> None:
    deep = "[" * 200_000
    if place == "config":
        content = save(load(file.read_bytes()), metadata={"config": deep})
    else:
        content = len(deep).to_bytes(8, "little") + deep.encode()
    with pytest.raises(WeightsError, match=r"not a unetsep checkpoint|cannot be used"):
        build_network(content, "x")


@pytest.mark.parametrize(
    "config",
    [
        {"stems": [f"s{i}" for i in range(10**5)], "networks": "per_stem"},
        {"filters": [4] * 10**5},
        {"filters": [10**9, 4]},
        {"segment_frames": 2**40},
        {"n_fft": 2**40, "hop_length": 2**38},
        {"stems": ["../../evil"]},
    ],
    ids=["stems", "levels", "filters", "segment", "window", "path as a stem"],
)
def test_configs_that_ask_for_absurd_networks_or_buffers_are_refused(
    file: Path, config: dict[str, object]
) -> None:
    text = json.dumps(json.loads(SMALL.to_json()) | config)
    content = save(load(file.read_bytes()), metadata={"config": text})
    with pytest.raises(WeightsError, match="cannot be used: model config"):
        build_network(content, "x")


@pytest.mark.parametrize("config", ['{"nonsense": 1}', '{"bins": -5}', '{"filters": "a"}', "[]"])
def test_an_invalid_config_is_refused(file: Path, config: str) -> None:
    content = save(load(file.read_bytes()), metadata={"config": config})
    with pytest.raises(WeightsError):
        build_network(content, "x")
