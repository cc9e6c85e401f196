from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import unetsep
from unetsep.errors import WeightsError
from unetsep.weights import manifest as manifests
from unetsep.weights.load import load_network


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match=f"no model 'x'.*{manifests.manifest().default}"):
        load_network("x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing\.safetensors does not exist"):
        load_network(tmp_path / "nothing.safetensors")


def test_a_folder_instead_of_a_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        load_network(tmp_path)


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


def test_a_damaged_manifest_of_the_users_stops_no_published_model(
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


def test_nothing_in_the_package_unpickles() -> None:
    files = list(Path(unetsep.__file__).parent.rglob("*.py"))
    assert len(files) >= 95
    for path in files:
        text = path.read_text()
        assert "import pickle" not in text, path
        assert "weights_only=False" not in text, path
        for line in text.splitlines():
            assert "torch.load(" not in line or "weights_only=True" in line, f"{path}: {line}"
