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
    code: int
    stdout: str
    stderr: str


def run_script(path: Path, *arguments: object, folder: Path = Path()) -> ProcessResult:
    """What becomes of a script with some arguments, in a folder."""
    code = 0
    out, error = io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        # Several scripts have siblings of their own, by their bare names.
        patch.syspath_prepend(path.parent)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
            try:
                runpy.run_path(str(path), run_name="__main__")
            except SystemExit as end:
                if isinstance(end.code, str):  # which Python prints, and exits with 1
                    error.write(end.code + "\n")
                code = int(end.code) if isinstance(end.code, int) else int(end.code is not None)
            finally:
                torch.set_num_threads(threads)
    return ProcessResult(code, out.getvalue(), error.getvalue())
