from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from unetsep.config import ModelConfig
from unetsep.errors import WeightsError
from unetsep.network.unet import UNet
from unetsep.weights import load as weights

SMALL = ModelConfig(filters=(4, 4), segment_frames=64)


@pytest.fixture
def network() -> UNet:
    torch.manual_seed(0)
    return UNet(SMALL).eval()


@pytest.fixture
def file(network: UNet, tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    path.write_bytes(weights.serialize(network))
    return path


def altered(file: Path, **changes: torch.Tensor | None) -> bytes:
    """The content of a checkpoint with tensors replaced, added or (None) removed."""
    tensors = load(file.read_bytes()) | {n.replace("__", "."): t for n, t in changes.items()}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return save(kept, metadata={"config": SMALL.to_json()})


def test_published_checkpoints_are_what_the_manifest_says() -> None:
    entries = weights.list_models()
    assert weights.manifest().default in {entry.name for entry in entries}
    for entry in entries:
        content = (weights.BUNDLED / entry.file).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.sha256
        assert len(content) == entry.bytes
        network = weights.load_network(entry.name)
        assert network.config == ModelConfig.from_dict(entry.config)
        assert entry.licence
        assert entry.training
        assert set(entry.scores["sdr"]) >= set(network.config.stems)


def test_bundled_checkpoints_stay_small_and_nothing_else_is_bundled() -> None:
    files = {path.name: path.stat().st_size for path in weights.BUNDLED.glob("*.safetensors")}
    assert set(files) == {entry.file for entry in weights.list_models()}
    assert sum(files.values()) <= 40e6


def test_no_checkpoint_was_trained_on_a_test_song() -> None:
    for entry in weights.list_models():
        assert entry.training["splits"] == ["train"]
        assert not any("test/" in song for song in entry.training.get("songs", []))


@torch.no_grad()
def test_a_checkpoint_gives_the_network_back(network: UNet, file: Path) -> None:
    loaded = weights.load_network(file)
    x = torch.rand(1, 2, 1024, 64)
    assert (loaded(x) - network(x)).abs().max() < 2e-3  # half precision
    assert loaded.config == SMALL
    assert not loaded.training


def test_batch_norm_and_statistics_are_stored_in_fp32(file: Path) -> None:
    for name, tensor in load(file.read_bytes()).items():
        expected = torch.float16 if tensor.dim() == 4 else (torch.float32, torch.int64)
        assert tensor.dtype == expected or tensor.dtype in expected, name


def test_large_running_variances_survive(network: UNet, tmp_path: Path) -> None:
    network.state_dict()["encoder.0.1.running_var"].fill_(1e6)
    file = tmp_path / "x.safetensors"
    file.write_bytes(weights.serialize(network))
    assert (weights.load_network(file).state_dict()["encoder.0.1.running_var"] == 1e6).all()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=f"no model 'x'.*{weights.manifest().default}"):
        weights.load_network("x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.safetensors does not exist"):
        weights.load_network(tmp_path / "nothing.safetensors")


def test_a_folder_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        weights.load_network(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"\xff" * 100, b"\x02" + b"\x00" * 7 + b"{}", b"PK\x03\x04 a pickle, perhaps"],
)
def test_files_that_are_no_checkpoints_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a unetsep checkpoint"):
        weights.load_network(path)


def test_a_truncated_checkpoint_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        weights.load_network(file)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"head__weight": torch.zeros(1)}, "head.weight"),
        ({"head__weight": None}, "head.weight"),
        ({"surprise": torch.zeros(1)}, "surprise"),
    ],
    ids=["wrong shape", "missing", "extra"],
)
def test_tensors_that_do_not_fit_the_config_are_refused(
    file: Path, changes: dict[str, torch.Tensor | None], named: str
) -> None:
    with pytest.raises(WeightsError, match=f"does not fit its own config.*'{named}'"):
        weights.build_network(altered(file, **changes), "x")


def test_an_absurd_config_costs_no_memory(file: Path) -> None:
    absurd = dataclasses.replace(SMALL, filters=(4096, 4096)).to_json()
    content = save(load(file.read_bytes()), metadata={"config": absurd})
    with pytest.raises(WeightsError, match="does not fit"):
        weights.build_network(content, "x")


def test_a_file_too_large_for_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(50 * 10**9)  # takes no space on disk
    with pytest.raises(WeightsError, match=r"has 50\.0 GB: expected .* at most 2 GB"):
        weights.load_network(path)


def test_a_header_that_claims_to_be_huge_is_refused(file: Path) -> None:
    content = (2**62).to_bytes(8, "little") + file.read_bytes()[8:]
    with pytest.raises(WeightsError, match=r"not a unetsep checkpoint|damaged"):
        weights.build_network(content, "x")


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
        weights.build_network(content, "x")


@pytest.mark.parametrize("config", ['{"nonsense": 1}', '{"bins": -5}', '{"filters": "a"}', "[]"])
def test_a_config_that_makes_no_sense_is_refused(file: Path, config: str) -> None:
    content = save(load(file.read_bytes()), metadata={"config": config})
    with pytest.raises(WeightsError):
        weights.build_network(content, "x")


def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **fields: object) -> None:
    """Make a manifest of one checkpoint, and a folder for it, the installed ones."""
    entry = {
        "name": "small", "loss": "mse", "description": "", "file": "small.safetensors",
        "repo_id": "some/where", "revision": "main", "sha256": "0" * 64, "bytes": 1,
        "config": {}, "licence": "x",
    } | fields  # fmt: skip
    path = tmp_path / "weights_manifest.json"
    path.write_text(json.dumps({"default": "small", "checkpoints": [entry]}))
    monkeypatch.setattr(weights, "MANIFESTS", (path,))
    monkeypatch.setattr(weights, "BUNDLED", tmp_path)
    weights.manifest.cache_clear()


@pytest.fixture(autouse=True)
def _fresh_manifest() -> object:
    yield
    weights.manifest.cache_clear()


@pytest.mark.usefixtures("file")
def test_a_bundled_file_with_another_hash_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path, monkeypatch)
    with pytest.raises(WeightsError, match="damaged: its SHA-256"):
        weights.load_network("small")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/x.safetensors", "a/b.safetensors", "x.pt"]
)
def test_manifest_file_names_that_lead_elsewhere_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(tmp_path, monkeypatch, file=name)
    with pytest.raises(WeightsError, match="not a plain file name"):
        weights.load_network("small")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"default": 1, "checkpoints": [{"a": 1}]}'])
def test_a_damaged_manifest_says_so(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights_manifest.json"
    path.write_text(text)
    monkeypatch.setattr(weights, "MANIFESTS", (path,))
    weights.manifest.cache_clear()
    with pytest.raises(WeightsError, match="damaged"):
        weights.manifest()


def test_a_missing_manifest_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "MANIFESTS", (tmp_path / "x",))
    weights.manifest.cache_clear()
    with pytest.raises(WeightsError, match="missing from this installation"):
        weights.manifest()


def test_nothing_in_the_package_unpickles() -> None:
    package = Path(weights.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text, path
        assert "weights_only=False" not in text, path
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, f"{path}: {line}"
