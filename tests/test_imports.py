"""The direction of imports and what importing costs; processes and names of classes."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.signals import RATE, music
from unetsep.cli.startup import is_tried

PACKAGE = Path(__file__).parent.parent / "unetsep"
# Rooms of the package, folders and files at its top; each imports only from earlier lines.
FLOORS = [
    {"errors", "config", "version"},
    {"storage", "locks", "unfinished", "stopwatch"},
    {"drives", "locations"},
    {"audio", "dsp", "playlists"},
    {"network"},
    {"weights"},
    {"ensemble"},
    {"separator", "spleeter", "inputs", "listen"},
    {"paths"},
    {"file_options"},
    {"files"},
    {"library"},
    {"app"},
    {"train"},
    {"api", "cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# Rooms of training, in the same way.
TRAIN_FLOORS = [
    {"config", "graph", "muon", "logs", "children", "librosa_modules"},
    {"data", "losses", "schedule", "interruption"},
    {"evaluation", "calibration", "distributed"},
    {"validation", "machine"},
    {"module", "datamodule"},
    {"callbacks", "start"},
    {"run_folder", "release"},
    {"fit"},
    {"__init__"},
]
TRAIN_FLOOR = {room: floor for floor, rooms in enumerate(TRAIN_FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    """``unetsep.audio.reader`` for its file, ``unetsep.audio`` for the folder's."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


@functools.cache
def imports(name: str) -> set[str]:
    """Modules that relative imports of a module lead to, wherever they stand."""
    path, found = MODULES[name], set()
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = ".".join([*base, node.module] if node.module else base)
            inner = {f"{target}.{alias.name}" for alias in node.names}
            found |= {each if each in MODULES else target for each in inner}
    return found


def room(name: str, depth: int = 1) -> str:
    """The folder or file at the top of the package that a module is, or lies in."""
    parts = name.split(".")
    return parts[depth] if len(parts) > depth else "__init__"


def test_every_file_is_checked_and_every_folder_has_a_level() -> None:
    assert len(MODULES) >= 95
    assert {room(name) for name in MODULES} == set(FLOOR)
    assert {room(n, 2) for n in MODULES if n.startswith("unetsep.train")} == set(TRAIN_FLOOR)


def goes_down(name: str, target: str) -> bool:
    """Whether a module may import another: of its own room, or of one that is further down."""
    if room(name) != room(target):
        return FLOOR[room(target)] < FLOOR[room(name)]
    if name.startswith("unetsep.train") and room(name, 2) != room(target, 2):
        return TRAIN_FLOOR[room(target, 2)] < TRAIN_FLOOR[room(name, 2)]
    return True


def test_imports_go_one_way() -> None:
    arrows = [(name, target) for name in MODULES for target in imports(name)]
    assert len(arrows) >= 700
    assert not [arrow for arrow in arrows if not goes_down(*arrow)]


def test_no_files_import_each_other_in_a_circle() -> None:
    arrows = {name: imports(name) - {name} for name in MODULES}
    while free := {name for name, targets in arrows.items() if not targets & set(arrows)}:
        for name in free:
            del arrows[name]
    assert not arrows


def test_imports_within_the_package_name_files_not_folders() -> None:
    folders = {module for module, path in MODULES.items() if path.name == "__init__.py"}
    wrong = {name: imports(name) & folders for name in MODULES if imports(name) & folders}
    assert set(wrong) == {"unetsep.__main__"}  # which runs the command


def test_only_commands_import_training() -> None:
    rooms = {room(name) for name in MODULES for target in imports(name) if room(target) == "train"}
    assert rooms == {"cli", "train"}


def test_each_folder_has_a_map_of_its_files() -> None:
    folders = sorted(path.parent for path in PACKAGE.glob("*/**/__init__.py"))
    assert len(folders) >= 11
    for folder in folders:
        text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
        assert text, folder
        rooms = {line.split()[0].rstrip("/") for line in text.splitlines()[2:] if line}
        files = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        inner = {path.parent.name for path in folder.glob("*/__init__.py")}
        assert rooms == files | inner, folder


def test_the_core_starts_no_processes_but_ffmpeg() -> None:
    # The app is a program and no library: its worker is a process that nobody has to guard.
    core = [path for name, path in MODULES.items() if room(name) not in ("train", "app")]
    assert len(core) > 45
    programs = ("ffmpeg.py", "ffmpeg_program.py", "ffmpeg_writer.py")
    for path in core:
        text = path.read_text(encoding="utf-8")
        assert "multiprocessing" not in text, path
        assert "ProcessPool" not in text, path
        assert ("subprocess" in text) <= (path.name in programs), path


def test_no_two_classes_have_one_name() -> None:
    classes = [
        (node.name, module)
        for module, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 90
    names = [name for name, _ in classes]
    assert not [(name, module) for name, module in classes if names.count(name) > 1]


def modules_after(code: str) -> set[str]:
    code += "\nimport sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.splitlines()[-1].split())


def imported_by(code: str) -> set[str]:
    return {name.partition(".")[0] for name in modules_after(code)}


HEAVY = {
    *("torch", "numpy", "soundfile", "soxr", "lightning", "rich", "matplotlib"),
    *("librosa", "musdb", "museval"),
}


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not imported_by("import unetsep; dir(unetsep); unetsep.__version__") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["separate", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"from unetsep.cli import main\ntry: main({arguments})\nexcept SystemExit: pass"
    assert not imported_by(code) & HEAVY


def test_options_import_of_training_only_config_and_data_sets() -> None:
    modules = modules_after("import unetsep.cli.options")
    assert not modules & HEAVY
    training = {name for name in modules if name.startswith("unetsep.train.")}
    assert {name.split(".")[2] for name in training} == {"config", "data"}


def test_listening_imports_no_torch(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for seed, name in enumerate(("vocals", "drums")):
        soundfile.write(tmp_path / f"{name}.wav", music(1, seed=seed).T, RATE)
    words = ["listen", str(tmp_path), "--plots"]
    code = f"from unetsep.cli import main\ntry: main({words})\nexcept SystemExit as end: code = end"
    code += "\nassert not code.code"
    assert not imported_by(code) & {"torch", "lightning", "safetensors"}
    assert (tmp_path / "index.html").exists()


def test_the_process_that_serves_the_app_imports_no_torch() -> None:
    pytest.importorskip("uvicorn")
    modules = modules_after("import unetsep.app.server")
    assert "unetsep.file_options" in modules
    assert "torch" not in modules


def test_separating_imports_no_training_package() -> None:
    code = "import unetsep.cli.separate, unetsep.files"
    training = {"librosa", "musdb", "museval", "lightning", "torchaudio", "matplotlib", "pandas"}
    assert not imported_by(code) & training


def test_the_command_line_postpones_parts_of_torch_until_they_are_used() -> None:
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


def test_torch_is_imported_entirely_if_its_release_was_not_tried() -> None:
    code = (
        "import sys; from unetsep.cli import startup; startup.TRIED = ((2, 0), (2, 1))\n"
        "startup.import_torch()\n"
        "import torch\n"
        "assert not [part for part in sys.modules.values() if type(part).__name__ == '_Postponed']"
    )
    imported_by(code)


@pytest.mark.parametrize(
    ("release", "tried"),
    [
        ("2.3.1", False),
        ("2.4.0", True),
        ("2.11.0+cpu", True),
        ("2.15.1.dev20261101", True),
        ("2.16.0", False),
        ("3.0.0", False),
        ("nightly", False),
    ],
)
def test_tried_releases_of_torch_are_recognised_by_two_numbers(release: str, tried: bool) -> None:
    assert is_tried(release) == tried


def test_all_public_names_exist() -> None:
    import unetsep

    for name in unetsep.__all__:
        assert getattr(unetsep, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unetsep.nothing  # type: ignore[attr-defined]


def test_data_and_evaluation_of_training_import_no_console_and_no_trainer() -> None:
    rooms = ("unetsep.train.data.", "unetsep.train.losses.", "unetsep.train.evaluation.")
    names = [name for name in MODULES if name.startswith(rooms)]
    assert len(names) >= 30
    assert not imported_by(f"import {', '.join(names)}") & {"lightning", "rich", "click"}
    for name in names:
        assert "cli" not in {room(target) for target in imports(name)}
