"""The command within the process of the tests."""

from __future__ import annotations

from click.testing import CliRunner, Result

from unetsep.cli import main


def call(*arguments: object) -> Result:
    """What becomes of ``unetsep`` with some arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])
