"""What ends up in the wheel, and that it works from there."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_is_pure_python_and_holds_checkpoints_manifest_and_types(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for path in (ROOT / "unetsep").rglob("*"):
        if path.suffix in (".py", ".safetensors") or path.name == "py.typed":
            assert path.relative_to(ROOT).as_posix() in names
    assert "unetsep/weights_manifest.json" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_separating_needs_only_the_core_packages(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    lines = archive.read(metadata).decode().splitlines()
    needs = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Requires-Dist")]
    core = {need.split(">=")[0] for need in needs if "extra ==" not in need}
    assert core == {
        "click", "huggingface-hub", "numpy", "rich", "safetensors", "soundfile", "soxr", "torch"
    }  # fmt: skip
    assert "Requires-Python: >=3.10" in lines


def test_the_installed_wheel_finds_and_checks_its_models(wheel: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    code = (
        "import unetsep, numpy as np; print(unetsep.__file__);"
        "stems = unetsep.Separator().separate(np.zeros((2, 5000)), 44100);"
        "print(*stems)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    where, stems = run.stdout.split("\n")[:2]
    assert Path(where).is_relative_to(tmp_path)
    assert stems == "vocals drums bass other"


def test_version_is_the_same_everywhere(wheel: Path) -> None:
    import unetsep

    assert wheel.name.startswith(f"unetsep-{unetsep.__version__}-")
    assert f"## {unetsep.__version__}" in (ROOT / "CHANGELOG.md").read_text()
