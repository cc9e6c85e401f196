"""``make demo`` takes the CPU build of torch where that saves gigabytes and is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


class Stubs:
    """Programs in a folder that comes first on PATH; ``python`` writes down what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.program("uname", "echo Linux")
        self.program("nvidia-smi", "exit 9")
        self.program("python3", "exit 0")
        self.program("venv/bin/python", f'echo "$@" >> {self.log}')

    def program(self, name: str, line: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def make(self, target: str) -> list[str]:
        """The arguments of each call of the environment's Python."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("M")}
        env["PATH"] = f"{self.folder}{os.pathsep}{env['PATH']}"
        command = ["make", target, f"VENV={self.folder / 'venv'}", "PIP_ARGS=", "PROBE_SECONDS=1"]
        subprocess.run(command, cwd=ROOT, env=env, check=True, capture_output=True, timeout=60)
        return self.log.read_text().splitlines()


@pytest.fixture
def stubs(tmp_path: Path) -> Stubs:
    return Stubs(tmp_path)


def installs(calls: list[str]) -> list[bool]:
    """Whether each installation asks the index of CPU builds."""
    return [f"--index-url {CPU_INDEX}" in call for call in calls if " install " in call]


def test_the_cpu_build_comes_first_where_there_is_no_gpu(stubs: Stubs) -> None:
    calls = stubs.make("demo")
    assert installs(calls) == [True, False]
    assert calls[0].endswith(f"--index-url {CPU_INDEX} torch")
    assert "-c constraints.txt" in calls[0]
    assert calls[-1] == "recipes/demo.py --output demo"


def test_the_makefile_and_the_readme_name_the_same_index() -> None:
    assert f"--index-url {CPU_INDEX}" in (ROOT / "README.md").read_text()
    assert CPU_INDEX in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("nvidia-smi", "exit 0"),
        ("uname", "echo Darwin"),
        ("python3", "exit 1"),
        ("python3", "exec sleep 60"),
    ],
    ids=["a GPU", "another system", "no way to the index", "an index that never answers"],
)
def test_pip_uses_its_own_index_otherwise(stubs: Stubs, name: str, line: str) -> None:
    stubs.program(name, line)
    assert installs(stubs.make("demo")) == [False]


def test_an_index_without_the_build_does_not_stop_the_installation(stubs: Stubs) -> None:
    refuse = f'echo "$@" >> {stubs.log}; case "$*" in *--index-url*) exit 1;; esac'
    stubs.program("venv/bin/python", refuse)
    assert installs(stubs.make("demo")) == [True, False]


def test_tests_get_torch_and_torchaudio_from_one_index(stubs: Stubs) -> None:
    calls = stubs.make(f"{stubs.folder}/venv/dev.stamp")
    assert calls[0].endswith(f"--index-url {CPU_INDEX} torch torchaudio")
    assert installs(calls) == [True, False]
