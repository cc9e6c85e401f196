"""What ends up in the wheel, and that it works from there."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import unetsep
from unetsep.audio.decoder import AUDIO_SUFFIXES
from unetsep.weights.manifest import list_models

ROOT = Path(__file__).parent.parent
PAPER = "Comparing Different Spectral Losses of a U-Net Based Audio Source Separation System"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", tmp_path_factory.mktemp("dist"))


def build(kind: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", "-o", str(folder)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = folder.iterdir()
    return path


def sources(*folders: str) -> set[str]:
    """Files of folders, from the root on, without what running Python leaves behind."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def metadata(wheel: Path) -> list[str]:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    return archive.read(name).decode().splitlines()


def test_the_wheel_is_pure_python_and_holds_checkpoints_manifest_and_types(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = sources("unetsep")
    assert len(ours) >= 105
    assert "unetsep/py.typed" in ours
    assert ours <= names
    assert "unetsep/weights_manifest.json" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"unetsep"}
    assert not [name for name in names if name.endswith(tuple(AUDIO_SUFFIXES))]


def test_the_metadata_name_the_licences_of_code_weights_and_libraries(wheel: Path) -> None:
    lines = metadata(wheel)
    expression = "MIT AND BSD-3-Clause AND CC-BY-NC-SA-4.0 AND CC-BY-SA-4.0"
    assert f"License-Expression: {expression}" in lines
    files = [line.partition(": ")[2] for line in lines if line.startswith("License-File: ")]
    assert len(files) == 7
    names = zipfile.ZipFile(wheel).namelist()
    assert all(
        any(name.endswith(f".dist-info/licenses/{file}") for name in names) for file in files
    )
    weights = (ROOT / "unetsep/checkpoints/LICENSE.txt").read_text(encoding="utf-8")
    bundled = [entry for entry in list_models() if entry.bundled]
    for entry in bundled:
        licence = re.search(rf"^(?:{entry.name}.safetensors|all others): (.*?)[,;]", weights, re.M)
        assert licence
        assert entry.licence.startswith(licence[1])
        assert licence[1].replace(" ", "-") in expression.split(" AND ")
    assert len(bundled) == 11


def test_the_libraries_of_the_player_are_those_of_their_npm_packages() -> None:
    folder = ROOT / "unetsep/listen/web/vendor"
    rows = re.findall(r"^\| `(\S+)` \|.* (\w{64}) \|$", (folder / "README.md").read_text(), re.M)
    assert sorted(name for name, _ in rows) == sorted(path.name for path in folder.glob("*.js"))
    for name, digest in rows:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_the_source_archive_holds_all_of_the_repository_but_audio(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    ours = sources("unetsep", "tests", "docs", "benchmarks", "recipes", "examples")
    assert len(ours) >= 240
    assert ours <= names
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff"} <= names
    assert {"Makefile", "Dockerfile", "zensical.toml"} <= names
    assert {"eslint.config.mjs", ".prettierrc.json"} <= names
    assert {"pyproject.toml", "constraints.txt", "weights_manifest.json", "hubconf.py"} <= names
    assert not [name for name in names if name.lower().endswith(tuple(AUDIO_SUFFIXES))]
    assert not [name for name in names if name.startswith((".venv", "runs", "demo"))]
    assert [name for name in names if name.startswith(".ci/")] == [".ci/run"]


def test_separating_needs_only_the_core_packages(wheel: Path) -> None:
    lines = metadata(wheel)
    needs = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Requires-Dist")]
    core = {need.split(">=")[0] for need in needs if "extra ==" not in need}
    assert core == {
        "click", "huggingface-hub", "mutagen", "numpy", "rich", "safetensors", "soundfile", "soxr",
        "torch",
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


def test_the_metadata_name_pythons_and_where_to_find_more(wheel: Path) -> None:
    lines = metadata(wheel)
    for minor in range(10, 15):
        assert f"Classifier: Programming Language :: Python :: 3.{minor}" in lines
    urls = [line for line in lines if line.startswith("Project-URL: ")]
    assert {url.split(": ")[1].split(",")[0] for url in urls} == {
        "Homepage", "Documentation", "Changelog", "Issues"
    }  # fmt: skip
    assert all("https://github.com/unetsep/unetsep" in url for url in urls)


def test_version_is_the_same_everywhere(wheel: Path) -> None:
    assert wheel.name.startswith(f"unetsep-{unetsep.__version__}-")
    changelog = (ROOT / "CHANGELOG.md").read_text()
    (released,) = re.findall(rf"^## {unetsep.__version__} \((.+)\)$", changelog, re.MULTILINE)
    assert citation()["version"] == unetsep.__version__
    assert str(citation().get("date-released", "unreleased")) == released
    analysis = (ROOT / "docs/how-to/analysis.md").read_text()
    assert f"version = {{{unetsep.__version__}}}," in analysis


def citation() -> dict[str, Any]:
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def test_the_citation_follows_the_citation_file_format() -> None:
    found = citation()
    assert found["cff-version"] == "1.2.0"
    assert found["type"] == "software"
    # What the format's schema demands, and of what it allows only what is used here.
    assert {"cff-version", "message", "title", "authors"} <= set(found)
    assert set(found) <= {
        "cff-version", "message", "type", "title", "version", "authors", "license",
        "date-released", "repository-code", "abstract", "keywords", "references",
    }  # fmt: skip
    assert all(isinstance(found[key], str) for key in ("message", "title", "version", "abstract"))
    (reference,) = found["references"]
    assert {"type", "title", "authors"} <= set(reference)
    assert reference["title"] == PAPER
    assert reference["authors"] == [{"family-names": "Tang", "given-names": "Y."}]


@pytest.mark.parametrize(
    "file",
    [
        "README.md",
        "docs/research/evaluation.md",
        "docs/research/losses.md",
        "docs/understand/method.md",
        "unetsep/train/losses/functions.py",
        "unetsep/train/evaluation/published.py",
    ],
)
def test_files_about_the_paper_name_its_title_and_author(file: str) -> None:
    text = " ".join((ROOT / file).read_text(encoding="utf-8").split())
    assert PAPER in text
    assert "Tang" in text
