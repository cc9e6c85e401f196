"""Environments with the tools that unetsep is compared with, and models with random weights.

Speed does not depend on the values of weights, so none are downloaded. Each tool's own network
is built, and saved as its own command expects it, if it has a usable one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from record import ROOT, UNETSEP, checkout

RUNNERS = Path(__file__).parent / "runners"
REFERENCE = ROOT / "tests" / "parity" / "spleeter_reference.py"
# TensorFlow 2.12, which Spleeter 2.4.2 asks for, ends at Python 3.11.
PYTHON = "python3.11"
TORCH = ("torch==2.11.0", "torchaudio==2.11.0")
# Demucs 4.1.0 needs numpy without saying so.
REQUIREMENTS = {
    "spleeter": ("spleeter==2.4.2",),
    "openunmix": (*TORCH, "openunmix==1.3.0"),
    "demucs": (*TORCH, "demucs==4.1.0", "numpy"),
}


def default_cache() -> Path:
    """Folder of environments, which take gigabytes, and minutes to create."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "unetsep-peers"


def environment(name: str, cache: Path, pip_args: Sequence[str]) -> Path:
    """Python of a tool's environment, which is created if it is missing."""
    folder = cache / name
    python, stamp = folder / "bin" / "python", folder / "complete"
    requirements = "\n".join(REQUIREMENTS[name])
    if not (stamp.is_file() and stamp.read_text() == requirements):
        print(f"Installing {', '.join(REQUIREMENTS[name])} in {folder} ...", flush=True)
        subprocess.run([PYTHON, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "-q", *pip_args]
        subprocess.run([*pip, *REQUIREMENTS[name]], check=True)
        stamp.write_text(requirements)
    return python


def versions(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """Versions of packages in an environment."""
    code = f"import importlib.metadata as m; print(*(m.version(p) for p in {list(packages)}))"
    process = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(packages, process.stdout.split(), strict=True))


@dataclass(frozen=True)
class Tool:
    """A program that separates a song into four files.

    Parameters
    ----------
    name
        In tables.
    command
        Its words, from the song and the folder for the stems.
    variables
        Of its environment.
    versions
        Of its packages; of unetsep also the model.
    """

    name: str
    command: Callable[[Path, Path], list[str | Path]]
    variables: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def unetsep(name: str, model: str, options: Sequence[str] = (), home: Path | None = None) -> Tool:
    """The checkout this script is part of, with a bundled model or one imported into ``home``."""
    from unetsep.weights.manifest import model_name

    def command(song: Path, folder: Path) -> list[str | Path]:
        words = [*UNETSEP, "separate", song, "-o", folder, "--quiet"]
        return [*words, "--overwrite", "--model", model, *options]

    variables = checkout()
    if home is not None:
        variables["UNETSEP_HOME"] = str(home)
    packages = versions(Path(sys.executable), ["torch"]) | {"model": model_name(model)}
    return Tool(name, command, variables, packages)


def spleeter(cache: Path, pip_args: Sequence[str]) -> Tool:
    """Spleeter's own command with its 4stems configuration."""
    python = environment("spleeter", cache, pip_args)
    models = spleeter_models(python, cache)

    def command(song: Path, folder: Path) -> list[str | Path]:
        return [python, "-m", "spleeter", "separate", "-p", "spleeter:4stems", "-o", folder, song]

    variables = {"MODEL_PATH": str(models), "TF_CPP_MIN_LOG_LEVEL": "3"}
    return Tool("spleeter", command, variables, versions(python, ["spleeter", "tensorflow"]))


def spleeter_models(python: Path, cache: Path) -> Path:
    """A folder for MODEL_PATH, with a random checkpoint of 4stems and the probe file."""
    models = cache / "models"
    folder = models / "4stems"
    if not (folder / ".probe").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        code = (
            "import importlib.resources as r, spleeter.resources as s; "
            "print(r.read_text(s, '4stems.json'))"
        )
        process = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
        config = models / "4stems.json"
        config.write_text(json.dumps(json.loads(process.stdout) | {"model_dir": str(folder)}))
        subprocess.run([python, REFERENCE, "make", config, folder, "0"], check=True)
    return models


def imported(cache: Path, pip_args: Sequence[str], *, exact: bool = False) -> Tool:
    """Spleeter's weights in unetsep: by our defaults, or computing exactly what Spleeter does."""
    models = spleeter_models(environment("spleeter", cache, pip_args), cache)
    home = cache / "home"
    words = [*UNETSEP, "models", "import-spleeter", models / "4stems"]
    variables = {**os.environ, **checkout(), "UNETSEP_HOME": str(home)}
    subprocess.run([*words, "--overwrite"], env=variables, check=True, stdout=subprocess.DEVNULL)
    options = ["--overlap", "0", "--mask-extension", "zeros", "--precision", "fp32"]
    name = "imported-exact" if exact else "imported"
    return unetsep(name, "spleeter-4stems", options if exact else (), home)


def openunmix(cache: Path, pip_args: Sequence[str]) -> Tool:
    """Open-Unmix's separator, called as its command does."""
    python = environment("openunmix", cache, pip_args)
    runner = RUNNERS / "openunmix_song.py"

    def command(song: Path, folder: Path) -> list[str | Path]:
        return [python, runner, song, folder / song.stem]

    return Tool("openunmix", command, {}, versions(python, ["openunmix", "torch"]))


def demucs(cache: Path, pip_args: Sequence[str], jobs: int = 0) -> Tool:
    """Demucs's own command with Hybrid Transformer Demucs, with ``-j`` if ``jobs`` is given."""
    python = environment("demucs", cache, pip_args)
    models = cache / "demucs-models"
    if not (models / "random.th").is_file():
        subprocess.run([python, RUNNERS / "demucs_model.py", models], check=True)

    def command(song: Path, folder: Path) -> list[str | Path]:
        words = [python, "-m", "demucs", "--repo", models, "-n", "random", "-o", folder, song]
        return [*words, "-j", str(jobs)] if jobs else words

    name = f"demucs -j {jobs}" if jobs else "demucs"
    return Tool(name, command, {}, versions(python, ["demucs", "torch"]))


TOOLS: dict[str, Callable[[Path, Sequence[str]], Tool]] = {
    "unetsep": lambda *_: unetsep("unetsep", "default"),
    "fast": lambda *_: unetsep("unetsep fast", "fast"),
    "spleeter": spleeter,
    "openunmix": openunmix,
    "demucs": demucs,
    "demucs-2": functools.partial(demucs, jobs=2),
    "imported": imported,
    "imported-exact": functools.partial(imported, exact=True),
}
