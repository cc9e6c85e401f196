"""The command, and scripts, within the process of the tests, which has imported torch."""

from __future__ import annotations

import contextlib
import io
import runpy
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from click.testing import CliRunner, Result

from unetsep.cli import main


def call(*arguments: object, **options: Any) -> Result:
    """What becomes of ``unetsep`` with some arguments; options are those of click's runner.

    What the command does not turn into a message is raised here.
    """
    words = [str(argument) for argument in arguments]
    return CliRunner().invoke(main, words, **{"catch_exceptions": False} | options)


class ProcessResult(NamedTuple):
    code: object
    stdout: str
    stderr: str


def run_script(path: Path, *arguments: object) -> ProcessResult:
    """What becomes of a script with some arguments."""
    code: object = 0
    out, error = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        # Several scripts have siblings of their own, by their bare names.
        patch.syspath_prepend(path.parent)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                code = end.code
            finally:
                torch.set_num_threads(threads)
    return ProcessResult(code, out.getvalue(), error.getvalue())
