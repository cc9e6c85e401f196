"""A model as a module: the stems of `Separator`, with gradients, exported and compiled."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from tests.releases import needs
from tests.signals import RATE, music
from unetsep.config import ModelConfig
from unetsep.errors import WeightsError
from unetsep.network.build import build
from unetsep.network.guided import Guided, state_channels
from unetsep.network.masks import MaskNetwork
from unetsep.network.presets import spleeter_config
from unetsep.separator import Separator
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import load_network
from unetsep.weights.model import Model

JOINT = ModelConfig(n_fft=512, hop_length=128, bins=192, filters=(4, 6), segment_frames=512)
SPLEETER = dataclasses.replace(
    spleeter_config(4, (4, 6)), n_fft=512, hop_length=128, bins=192, segment_frames=64
)


def seed_network(config: ModelConfig) -> MaskNetwork:
    torch.manual_seed(5)
    network = build(config)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(0, 0.5)
    return network.eval().requires_grad_(False)


def guided_network(**parts: Any) -> Guided:
    guide = dataclasses.replace(
        SPLEETER, stems=("vocals",), networks="joint", mask_exponent=0.0, segment_frames=512
    )
    network = seed_network(dataclasses.replace(JOINT, networks="guided", guide="0" * 64, **parts))
    assert isinstance(network, Guided)
    for lateral in network.laterals:
        torch.nn.init.normal_(lateral.weight, 0, 0.1)  # type: ignore[arg-type]
    network.attach(seed_network(guide))
    return network


# Of the guide's decoder.
STATES = state_channels(SPLEETER)
KINDS: dict[str, Any] = {
    "softmax": lambda: seed_network(JOINT),
    "sigmoid": lambda: seed_network(dataclasses.replace(JOINT, mask="sigmoid")),
    "vocals alone": lambda: seed_network(
        dataclasses.replace(JOINT, stems=("vocals",), mask="sigmoid")
    ),
    "spleeter": lambda: seed_network(SPLEETER),
    "guided": guided_network,
    "low band": lambda: guided_network(low_bins=16, low_filters=8),
    "states": lambda: guided_network(guide_states=STATES),
}


@pytest.fixture(params=KINDS)
def network(request: pytest.FixtureRequest) -> MaskNetwork:
    made: MaskNetwork = KINDS[request.param]()
    return made


def clips(samples: int, *, batch: int = 1, channels: int = 2) -> Tensor:
    songs = [music(samples / RATE, RATE, channels, seed)[:, :samples] for seed in range(batch)]
    return torch.from_numpy(np.stack(songs).astype(np.float32))


@pytest.mark.parametrize("samples", [1, 700, 5000])
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_stems_equal_those_of_the_separator(
    network: MaskNetwork, samples: int, channels: int
) -> None:
    waveform = clips(samples, channels=channels)
    stems = Model(network)(waveform)
    expected = Separator(network, precision="fp32").separate(waveform[0].numpy(), RATE)
    assert stems.shape == (1, len(expected), channels, samples)
    for found, wanted in zip(stems[0].numpy(), expected.values(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_the_spectrum_of_a_waveform_turns_back_into_it(network: MaskNetwork) -> None:
    model, waveform = Model(network), clips(9000, batch=2)
    again = model.waveform(model.spectrum(waveform), 9000)
    torch.testing.assert_close(again, waveform, atol=2e-6, rtol=0)


def test_stems_add_up_to_the_waveform(network: MaskNetwork) -> None:
    waveform = clips(9000, batch=2)
    total = Model(network)(waveform).sum(dim=1)
    if network.config.complete:
        torch.testing.assert_close(total, waveform, atol=2e-7, rtol=0)
    else:
        assert (total - waveform).abs().max() > 1e-3


def test_a_batch_gives_the_stems_of_its_clips_alone(network: MaskNetwork) -> None:
    model, waveform = Model(network), clips(6000, batch=3)
    waveform[1] *= 0.01
    for index, stems in enumerate(model(waveform)):
        torch.testing.assert_close(stems, model(waveform[index : index + 1])[0], atol=1e-5, rtol=0)


def test_gradients_equal_finite_differences(network: MaskNetwork) -> None:
    """In double precision, along a random direction."""
    model = Model(network).double()
    waveform = clips(4000).double()
    random = torch.Generator().manual_seed(1)
    direction = torch.randn(waveform.shape, generator=random).double()
    weights = torch.randn(1, len(model.stems), *waveform.shape[1:], generator=random).double()
    waveform.requires_grad_()
    (model(waveform) * weights).sum().backward()
    assert waveform.grad is not None
    step = 1e-7
    with torch.no_grad():
        ends = [model(waveform + sign * step * direction) for sign in (1, -1)]
    expected = float(((ends[0] - ends[1]) * weights).sum() / (2 * step))
    assert float((waveform.grad * direction).sum()) == pytest.approx(expected, rel=1e-4)


def test_gradients_are_finite_in_silence_and_reach_the_weights(network: MaskNetwork) -> None:
    model = Model(network).train()
    model.network.requires_grad_()
    waveform = clips(4000, batch=2)
    waveform[0] = 0
    waveform[1, :, :2000] = 0
    waveform.requires_grad_()
    model(waveform)[:, 0].square().sum().backward()
    assert waveform.grad is not None
    assert waveform.grad.isfinite().all()
    grads = [p.grad for p in model.network.parameters() if p.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in grads) > 0
    assert all(grad.isfinite().all() for grad in grads)


def test_a_guide_is_stored_with_its_model_and_not_trained() -> None:
    model = Model(guided_network())
    assert model.guide is not None
    assert not model.train().guide.training  # type: ignore[union-attr]
    assert any(name.startswith("guide.") for name in model.state_dict())
    twin = Model(guided_network())
    twin.load_state_dict(model.state_dict())
    waveform = clips(3000)
    torch.testing.assert_close(twin(waveform), model.eval()(waveform))


@needs("torch", "2.11")
@pytest.mark.parametrize("kind", ["softmax", "spleeter", "low band"])
def test_an_exported_program_takes_clips_of_any_length(kind: str) -> None:
    model = Model(KINDS[kind]())
    # More than one unit of frames: what has length 1 is a constant to torch.export.
    unit = model.config.segment_frames if kind == "spleeter" else model.config.frame_multiple
    shortest = (unit - 3) * model.config.hop_length + 1
    samples = torch.export.Dim("samples", min=shortest, max=1_000_000)
    batch = torch.export.Dim("batch", min=1, max=64)
    shapes = {"waveform": {0: batch, 2: samples}}
    program = torch.export.export(model, (clips(20_000, batch=2),), dynamic_shapes=shapes)
    for length, count in ((shortest, 3), (12_345, 1)):
        waveform = clips(length, batch=count)
        torch.testing.assert_close(program.module()(waveform), model(waveform))


@needs("torch", "2.8")
@pytest.mark.parametrize("kind", ["softmax", "low band"])
def test_the_whole_model_compiles_as_one_graph(kind: str) -> None:
    model = Model(KINDS[kind]())
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    waveform = clips(4000)
    torch.testing.assert_close(compiled(waveform), model(waveform), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("shape", [(2, 1000), (0, 2, 1000), (1, 0, 1000), (1, 2, 0)], ids=str)
def test_a_waveform_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected waveforms \(batch, channels, samples\).*, got"):
        Model(seed_network(JOINT))(torch.zeros(shape))


@pytest.mark.parametrize(
    ("waveform", "advice"),
    [(np.zeros((1, 2, 9)), "torch.from_numpy"), (torch.zeros(1, 2, 9).double(), "torch.float32")],
)
def test_a_waveform_of_another_type_is_refused_with_advice(waveform: Any, advice: str) -> None:
    with pytest.raises(ValueError, match=rf"expected .*, got .*: use .*{advice}"):
        Model(seed_network(JOINT))(waveform)
    with pytest.raises(ValueError, match=r"expected a network, got 'fast': use Model.from_pretr"):
        Model("fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["fast", "default"])
def test_published_models_are_loaded_by_name(name: str) -> None:
    model = Model.from_pretrained(name)
    assert model.config == load_network(name).config
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    waveform = clips(30_000)
    separator = Separator(name, precision="fp32", gate=False, wiener=0)
    expected = separator.separate(waveform[0].numpy(), RATE)
    for found, wanted in zip(model(waveform)[0], expected.values(), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_torch_hub_loads_the_models(tiny_model: Path) -> None:
    root = str(Path(__file__).parents[2])
    model = torch.hub.load(root, "unetsep", str(tiny_model), source="local")
    torch.testing.assert_close(
        model(clips(3000)), Model.from_pretrained(tiny_model)(clips(3000)), atol=1e-6, rtol=0
    )


def trained(model: Model) -> Model:
    """The model after a step of a user's own loop."""
    model.train().network.requires_grad_()
    optimizer = torch.optim.SGD(model.network.parameters(), lr=0.1)
    model(clips(9000, batch=2))[:, 0].abs().mean().backward()
    optimizer.step()
    return model.eval()


def guided_file(folder: Path) -> Path:
    """A guided model whose guide, which is not published, lies beside it."""
    network = guided_network()
    guide = serialize(network.guide, half=False)
    config = dataclasses.replace(network.config, guide=hashlib.sha256(guide).hexdigest())
    network.config = config
    folder.mkdir()
    (folder / "guide.safetensors").write_bytes(guide)
    path = folder / "guided.safetensors"
    path.write_bytes(serialize(network, half=False))
    return path


@pytest.mark.parametrize("guided", [False, True])
def test_a_model_that_was_trained_is_saved_as_a_checkpoint(tmp_path: Path, guided: bool) -> None:
    source = guided_file(tmp_path / "source") if guided else tmp_path / "joint.safetensors"
    if not guided:
        Model(seed_network(JOINT)).save(source)
    model = trained(Model.from_pretrained(source))
    waveform, path = clips(9000), tmp_path / "mine.safetensors"
    assert model.save(str(path)) == path
    again = Model.from_pretrained(path)
    assert again.config == model.config
    assert torch.equal(again(waveform), model(waveform))
    assert not torch.equal(again(waveform), Model.from_pretrained(source)(waveform))
    model.save(path)  # as after each epoch
    expected = Separator(path, precision="fp32").separate(waveform[0], RATE)
    stems = Separator(model, precision="fp32").separate(waveform[0], RATE)
    assert all(np.array_equal(stems[name], expected[name]) for name in model.stems)


def test_a_model_finds_its_guide_after_the_working_folder_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    guided_file(tmp_path / "source")
    model = Model.from_pretrained("source/guided.safetensors")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = Model.from_pretrained(model.save("mine.safetensors"))
    assert torch.equal(again(clips(9000)), model(clips(9000)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_model_in_another_precision_is_saved_in_fp32(tmp_path: Path, dtype: torch.dtype) -> None:
    source = guided_file(tmp_path / "source")
    path = Model.from_pretrained(source).to(dtype).save(tmp_path / "a" / "b" / "mine.safetensors")
    tensors = load_file(path)
    kinds = {each.dtype for each in tensors.values() if each.is_floating_point()}
    assert kinds == {torch.float32}
    for name, value in load_file(source).items():
        assert torch.equal(tensors[name], value.to(dtype).to(tensors[name].dtype))
    assert Model.from_pretrained(path).config.guide


def test_a_model_with_other_layers_than_its_config_is_not_saved(tmp_path: Path) -> None:
    path, model = tmp_path / "mine.safetensors", Model(seed_network(JOINT))
    path.write_text("before")
    layer = next(each for each in model.network.modules() if isinstance(each, nn.Conv2d))
    nn.utils.parametrizations.weight_norm(layer)
    with pytest.raises(WeightsError, match="cannot be written: the network does not fit its own"):
        model.save(path)
    assert path.read_text() == "before"


def test_a_model_that_cannot_be_saved_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_text("before")
    with pytest.raises(ValueError, match=r"mine\.pt: expected a name that ends in \.safetensors"):
        Model(seed_network(JOINT)).save(tmp_path / "mine.pt")
    with pytest.raises(WeightsError, match=r"mine\.safetensors cannot be written: \S+"):
        Model(seed_network(JOINT)).save(path / "mine.safetensors")  # in a file
    with pytest.raises(WeightsError, match=r"mine\.safetensors is guided by a model that is not"):
        Model(guided_network()).save(path)
    model = Model.from_pretrained(guided_file(tmp_path / "source"))
    assert model.guide is not None
    with torch.no_grad():
        next(model.guide.parameters()).add_(1)
    with pytest.raises(WeightsError, match="the guide was changed, by training all parameters"):
        model.save(path)
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    with pytest.raises(WeightsError, match="holds NaN or infinity"):
        model.save(path)
    assert path.read_text() == "before"
    assert {each.name for each in tmp_path.iterdir()} == {"mine.safetensors", "source"}
