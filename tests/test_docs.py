"""The documentation says only what is true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from unetsep.cli import main
from unetsep.weights.manifest import list_models

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> Iterator[str]:
    """Lines of shell blocks, continued lines joined."""
    for block in re.findall(r"```(?:bash|sh)\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            yield line.split(" #")[0].strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_unetsep_commands_in_the_documentation_exist(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line)
        if not words or words[0] != "unetsep":
            continue
        command: click.Command = main
        rest = words[1:]
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            found = command.get_command(click.Context(command), rest.pop(0))
            assert found is not None, line
            command = found
        known = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
        known |= {"--help", "-h"}
        for word in rest:
            if word.startswith("-") and not re.fullmatch(r"-[\d.]+|--", word):
                assert word.split("=")[0] in known, f"{page.name}: {line}: {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_and_scripts_in_the_documentation_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for line in commands(page):
        words = shlex.split(line)
        if words[:1] == ["make"]:
            assert words[1] in targets, line
        if words[:1] == ["python"] and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_files_named_in_the_method_exist() -> None:
    for name in re.findall(r"`([a-z_/]+\.py)`", (ROOT / "docs" / "method.md").read_text()):
        assert (ROOT / "unetsep" / name).is_file(), name


def test_every_published_model_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text()
    for entry in list_models():
        assert f"`{entry.name}`" in text
        for score in entry.scores["sdr"].values():
            assert f"{score:.2f}" in text
