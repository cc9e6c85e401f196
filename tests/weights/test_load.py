from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import unetsep
from tests.weights.conftest import SMALL
from unetsep.errors import WeightsError
from unetsep.network.guided import Guided, with_guide
from unetsep.network.presets import spleeter_config
from unetsep.network.unet import UNet
from unetsep.weights import hub, load
from unetsep.weights import manifest as manifests
from unetsep.weights.checkpoint import build_network, serialize
from unetsep.weights.load import fetch_model, load_network
from unetsep.weights.manifest import Checkpoint, find_checkpoint

VOCALS = dataclasses.replace(
    spleeter_config(2, SMALL.filters),
    stems=("vocals",),
    networks="joint",
    mask_exponent=0.0,
    segment_frames=SMALL.segment_frames,
)


def test_an_unknown_name_gets_a_list_of_known_ones() -> None:
    with pytest.raises(WeightsError, match=f"no model 'x'.*{manifests.manifest().default}"):
        load_network("x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.safetensors does not exist"):
        load_network(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("name", [300 * "x", "a\0b"])
def test_an_impossible_path_is_refused_with_a_message(name: str) -> None:
    with pytest.raises(WeightsError, match=r"^model file "):
        load_network(f"{name}.safetensors")


@pytest.mark.parametrize(
    ("files", "named"),
    [
        (["best-l1.safetensors", "export/l1.safetensors"], "run/export/l1.safetensors"),
        (["best-l1.safetensors", "a.safetensors"], "run/a.safetensors"),
        (["last.ckpt"], None),
    ],
)
@pytest.mark.parametrize("as_name", [True, False])
def test_a_folder_instead_of_a_file_is_an_error_that_names_a_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: list[str],
    named: str | None,
    as_name: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in files:
        (tmp_path / "run" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / file).touch()
    with pytest.raises(WeightsError) as caught:
        load_network("run" if as_name else Path("run"))
    if named:
        advice = f"name a .safetensors file in it, such as {Path(named)}"
        assert str(caught.value) == f"run is a folder: {advice}"
    else:
        assert str(caught.value).startswith("run is a folder without .safetensors")


@pytest.mark.parametrize(
    "content",
    [b"", b"abc", b"\xff" * 100, b"\x02" + b"\x00" * 7 + b"{}", b"PK\x03\x04 a pickle, perhaps"],
)
def test_files_that_are_no_checkpoints_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a unetsep checkpoint"):
        load_network(path)


def test_a_truncated_checkpoint_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="damaged"):
        load_network(file)


def test_a_file_too_large_for_a_checkpoint_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.truncate(50 * 10**9)  # takes no space on disk
    with pytest.raises(WeightsError, match=r"has 50\.0 GB: expected .* at most 2 GB"):
        load_network(path)


def test_a_damaged_user_manifest_does_not_stop_published_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    (tmp_path / "models.json").write_text("{")
    assert load_network("default").config.guide
    with pytest.raises(WeightsError, match=r"models\.json is damaged"):
        load_network("mine")


@pytest.mark.usefixtures("file")
def test_a_bundled_file_with_another_hash_is_not_used(publish: Callable[..., None]) -> None:
    publish()
    with pytest.raises(WeightsError, match="damaged: its SHA-256"):
        load_network("small")


@pytest.fixture
def guided_files(publish: Callable[..., None], tmp_path: Path) -> tuple[Path, Path]:
    """A published model, and its guide, which is no model of the manifest; both bundled."""
    torch.manual_seed(0)
    guide = serialize(UNet(VOCALS).eval(), half=False)
    sha256 = hashlib.sha256(guide).hexdigest()
    content = serialize(with_guide(UNet(SMALL).eval(), build_network(guide, "guide"), sha256))
    files = tmp_path / "small.safetensors", tmp_path / f"guide-{sha256[:12]}.safetensors"
    for path, written in zip(files, (content, guide), strict=True):
        path.write_bytes(written)
    publish(sha256=hashlib.sha256(content).hexdigest(), config={"guide": sha256})
    return files


def test_a_guide_that_is_not_in_the_manifest_is_loaded_beside_its_model(
    guided_files: tuple[Path, Path], tmp_path: Path
) -> None:
    network = load_network("small")
    assert isinstance(network, Guided)
    assert network.guide.config == VOCALS
    assert fetch_model(manifests.find_checkpoint("small")) == guided_files[0]
    guided_files[1].unlink()
    with pytest.raises(WeightsError, match="is guided by a model that is not here"):
        load_network("small")


def test_a_damaged_user_manifest_does_not_hide_a_guide_beside_its_model(
    guided_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "models.json").write_text("{")
    for model in ("small", guided_files[0]):
        assert isinstance(load_network(model), Guided)
    guided_files[1].unlink()  # it may be a model of that manifest
    for model in ("small", guided_files[0]):
        with pytest.raises(WeightsError, match=r"models\.json is damaged"):
            load_network(model)


@pytest.mark.parametrize("how", [load_network, lambda name: fetch_model(find_checkpoint(name))])
def test_a_guide_is_downloaded_with_the_model_that_it_guides(
    how: Callable[[str], object],
    guided_files: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    for path in guided_files:  # not bundled any more
        path.rename(repository / path.name)
    asked = []

    def cached_file(entry: Checkpoint) -> Path | None:
        asked.append((entry.repo_id, entry.revision, entry.file))
        path = repository / entry.file
        return path if path.is_file() else None

    monkeypatch.setattr(hub, "cached_file", cached_file)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert how("small")
    assert set(asked) == {("some/where", "main", path.name) for path in guided_files}
    (repository / guided_files[1].name).unlink()
    by_hand = rf"download {guided_files[1].name} and the file of small by hand into one folder"
    with pytest.raises(WeightsError, match=by_hand):
        how("small")


def test_a_published_guide_downloaded_by_hand_is_found_beside_its_model(
    guided_files: tuple[Path, Path], tmp_path: Path, publish: Callable[..., None]
) -> None:
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    for path in guided_files:
        path.rename(by_hand / path.name)
    # On the hub, and not in the cache.
    content = (by_hand / guided_files[1].name).read_bytes()
    publish(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    assert isinstance(load_network(by_hand / guided_files[0].name), Guided)


def test_a_guide_is_found_among_other_files(
    guided_files: tuple[Path, Path],
    tmp_path: Path,
    publish: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_hand = tmp_path / "by hand"
    by_hand.mkdir()
    (by_hand / "a folder.safetensors").mkdir()
    (by_hand / "dangling.safetensors").symlink_to(tmp_path / "nowhere")
    with (by_hand / "large.safetensors").open("wb") as file:
        file.truncate(3_000_000_000)
    (by_hand / "other.safetensors").write_bytes(b"of another size")
    guided_files[0].rename(by_hand / "small.safetensors")
    guide = guided_files[1].rename(by_hand / "the guide.safetensors")
    assert isinstance(load_network(by_hand / "small.safetensors"), Guided)
    content = guide.read_bytes()
    publish(sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
    hashed = []

    def counted(path: Path) -> str:
        hashed.append(path)
        return hashlib.sha256(path.read_bytes()).hexdigest()

    monkeypatch.setattr(load, "checkpoint_hash", counted)
    assert isinstance(load_network(by_hand / "small.safetensors"), Guided)
    assert hashed == [guide]


def test_a_download_deleted_by_another_process_gets_a_message(
    publish: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish()
    monkeypatch.setattr(hub, "cached_file", lambda _: tmp_path / "gone.safetensors")
    with pytest.raises(WeightsError, match=r"gone\.safetensors cannot be read: .*; try again, or"):
        load_network("small")


def test_nothing_in_the_package_unpickles() -> None:
    files = list(Path(unetsep.__file__).parent.rglob("*.py"))
    assert len(files) >= 95
    for path in files:
        text = path.read_text()
        assert "import pickle" not in text, path
        assert "weights_only=False" not in text, path
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, f"{path}: {line}"
