"""The direction of imports, and what importing costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "unetsep"
# Each module imports only from those of earlier lines.
LAYERS = [
    {"errors", "config", "lengths", "staging", "crc32c", "folders", "startup", "threads"},
    {
        "allocator",
        "decoders",
        "devices",
        "hub",
        "resample",
        "spectrogram",
        "layers",
        "unet",
        "overlap",
        "tensor_bundle",
        "wiener",
    },
    {"ffmpeg", "formats", "bundle_files", "inference"},
    {"audio", "encoders", "output", "plan", "weights", "stream"},
    {"separator", "manage", "spleeter"},
    {"files"},
    {"api", "console"},
    {"cli"},
    {"__main__", "__init__"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def relative_imports(path: Path) -> set[str]:
    """Names of sibling modules imported at the top of a module, not only for type checkers."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("name", sorted(LEVEL))
def test_modules_import_only_from_earlier_ones(name: str) -> None:
    for imported in relative_imports(PACKAGE / f"{name}.py"):
        assert LEVEL[imported] < LEVEL[name] or (LEVEL[imported] == LEVEL[name] and imported < name)


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(LEVEL)


def test_the_core_imports_training_only_inside_functions_of_the_command_line() -> None:
    for path in PACKAGE.glob("*.py"):
        tree = ast.parse(path.read_text())
        imports = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("train")
        ]
        assert not imports or path.name == "cli.py", path
        assert not any(node in tree.body for node in imports), path


def imported_by(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in run.stdout.splitlines()[-1].split()}


HEAVY = {"torch", "numpy", "soundfile", "soxr", "librosa", "musdb", "museval", "lightning", "rich"}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported_by("import unetsep; dir(unetsep); unetsep.__version__") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["separate", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"from unetsep.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert not imported_by(code) & HEAVY


def test_separating_imports_no_training_package() -> None:
    code = "import unetsep.cli.separate, unetsep.files"
    training = {"librosa", "musdb", "museval", "lightning", "torchaudio", "matplotlib", "pandas"}
    assert not imported_by(code) & training


def test_the_command_line_postpones_parts_of_torch_which_still_work_when_used() -> None:
    code = (
        "import sys; from unetsep.cli.startup import POSTPONED, import_torch; import_torch()\n"
        "parts = [type(sys.modules[name]).__name__ for name in POSTPONED]\n"
        "assert set(parts) == {'_Postponed'}, parts\n"
        "import unetsep.cli.separate\n"
        "parts = [type(sys.modules[name]).__name__ for name in POSTPONED]\n"
        "assert set(parts) == {'_Postponed'}, parts\n"
        "import torch\n"
        "assert torch.distributions.Normal(0.0, 1.0).mean == 0\n"
        "assert type(sys.modules['torch.distributions']).__name__ == 'module'\n"
        "assert callable(torch.export.export)"
    )
    imported_by(code)


def test_public_names_are_all_there() -> None:
    import unetsep

    for name in unetsep.__all__:
        assert getattr(unetsep, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unetsep.nothing  # type: ignore[attr-defined]
