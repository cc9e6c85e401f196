"""What the shell is told when somebody presses the tab key."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.commands import call


def complete(words: str) -> list[str]:
    """What bash offers for the last of some words."""
    environment = {
        "_UNETSEP_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    result = call(prog_name="unetsep", env=environment, complete_var="_UNETSEP_COMPLETE")
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("unetsep sep", ["plain,separate"]),
        ("unetsep separate --instr", ["plain,--instrumental"]),
        ("unetsep separate --model gui", ["plain,guided"]),
        ("unetsep separate --format stem", ["plain,stem.mp4"]),
        ("unetsep separate song", ["file,song"]),
        ("unetsep separate --model ./runs/x", ["file,./runs/x"]),
        ("unetsep export-onnx gui", ["plain,guided"]),
        ("unetsep average fast ./runs/x", ["file,./runs/x"]),
    ],
)
def test_commands_options_and_values_are_offered(words, expected):
    assert complete(words) == expected


def test_a_damaged_list_of_the_users_models_hides_no_published_model(tmp_path, monkeypatch):
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    (tmp_path / "models.json").write_text("{")
    assert complete("unetsep separate --model gui") == ["plain,guided"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_a_script_that_it_understands(shell):
    result = call("completion", shell)
    assert result.exit_code == 0
    assert f"_UNETSEP_COMPLETE={shell}_complete" in result.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=result.stdout, text=True, check=False)
        assert checked.returncode == 0


def test_an_unknown_shell_is_refused_with_the_choices():
    result = call("completion", "tcsh")
    assert result.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in result.stderr
