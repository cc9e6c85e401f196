from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_named_in_the_documentation_exists():
    text = (ROOT / "docs/develop/pains.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)::(test_\w+)`", text)
    assert len(named) > 40
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


def test_the_page_of_pains_has_25_numbered_rows():
    text = (ROOT / "docs/develop/pains.md").read_text(encoding="utf-8")
    assert re.findall(r"^(\d+)\. \*\*", text, flags=re.MULTILINE) == [str(i) for i in range(1, 26)]


def test_the_core_starts_no_processes_but_ffmpeg():
    # The app is a program and no library: its worker is a process that nobody has to guard.
    others = {"train", "app"}
    package = ROOT / "unetsep"
    files = list(package.rglob("*.py"))
    core = [path for path in files if not others & {*path.relative_to(package).parts}]
    assert len(core) > 45
    programs = ("ffmpeg.py", "ffmpeg_program.py", "ffmpeg_writer.py")
    for path in core:
        text = path.read_text(encoding="utf-8")
        assert "multiprocessing" not in text, path
        assert "ProcessPool" not in text, path
        assert ("subprocess" in text) <= (path.name in programs), path


def test_messages_in_the_troubleshooting_page_exist_in_the_program():
    files = list((ROOT / "unetsep").rglob("*.py"))
    assert len(files) >= 95
    sources = "".join(path.read_text(encoding="utf-8") for path in files)
    flat = re.sub(r'"\s*\n\s*f?"', "", sources)
    page = (ROOT / "docs/reference/errors.md").read_text(encoding="utf-8")
    for message in (
        "does not exist",
        "is a folder where an audio file was expected",
        "is not a regular file",
        "is not audio that can be read",
        "it has no audio track",
        "holds no audio samples",
        "is cut short: its header promises",
        "NaN or infinite samples",
        "samples beyond",
        "and was stopped",
        "has no end mark, as if it was cut off",
        "may be cut short",
        "is damaged in places; ffmpeg says",
        "may be damaged or misnamed: libsndfile could not read it",
        "files joined into one, which are",
        "already exists: use --overwrite or --skip-existing",
        "appeared while its song was being separated",
        "no record says what made",
        "was changed after it was made",
        "another run is working on it",
        "stdout took no more reports",
        "Not audio by name, skipped",
        "would both be written to",
        "would be written over an input",
        "All stems were lowered by",
        "was asked for but torch",
        "could not be downloaded from",
        "was damaged or replaced: its SHA-256 is",
        "does not fit its own config",
        "out of memory; close other programs or use --device cpu",
    ):
        assert message in page, message
        assert message in flat, message


def test_no_two_classes_have_one_name():
    classes = [
        (node.name, path.relative_to(ROOT).as_posix())
        for path in sorted((ROOT / "unetsep").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    ]
    assert len(classes) > 90
    names = [name for name, _ in classes]
    assert not [(name, file) for name, file in classes if names.count(name) > 1]


def exists(dotted: str) -> bool:
    """Whether a dotted name leads to a module, or something in one."""
    module, *rest = dotted.split(".")
    found = importlib.import_module(module)
    for part in rest:
        module = f"{module}.{part}"
        if not hasattr(found, part):
            try:
                importlib.import_module(module)
            except ImportError:
                return False
        found = getattr(found, part)
    return True


def test_names_of_the_package_in_comments_and_docstrings_exist():
    named = {
        (name, path.relative_to(ROOT).as_posix())
        for folder in ("unetsep", "recipes", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"`(unetsep(?:\.\w+)+)`", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 40
    groups = {"unetsep.losses"}  # of entry points
    assert not sorted((n, file) for n, file in named if n not in groups and not exists(n))
