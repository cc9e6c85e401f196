"""Types and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..errors import note_verbose
from ..parsing import DeviceName, PathName
from .completion import complete_model

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH = PathName(path_type=Path)
PATH_TEXT = PathName()
COUNT = click.IntRange(min=1)


def group(*options: Decorator) -> Decorator:
    """Options that several commands share, as one decorator."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


model_choice = group(
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        metavar="NAME|PATH",
        shell_complete=complete_model,
        help="Model to use; separate several by commas, or repeat the option. See "
        "'unetsep models'.  [default: guided]",
    ),
    click.option("--average", is_flag=True, help="Average the models' masks into one result."),
    click.option(
        "--all-losses", is_flag=True, help="Use every bundled model except spleeter-vocals."
    ),
)
device = click.option(
    "-d",
    "--device",
    default="auto",
    type=DeviceName(["auto", "cpu", "cuda", "mps"]),
    help="Device to compute on; auto uses a GPU if there is one, and cuda:1 is the second GPU.",
)
passes = click.option(
    "--passes",
    type=click.IntRange(1, 4),
    default=1,
    metavar="N",
    help="Separate this many times at different pitches, and average: better, but almost that "
    "many times slower.",
)
threads = click.option(
    "--threads", type=click.IntRange(1, 512), metavar="N", help="CPU threads.  [default: all cores]"
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Show only errors.")
tracebacks = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    callback=note_verbose,
    expose_value=False,  # only `separate` prints more
    help="Show tracebacks.",
)


def output(default: str, text: str, kind: Any = PATH, metavar: str = "FOLDER") -> Decorator:
    """The option ``-o``, a folder."""
    return click.option("-o", "--output", default=default, type=kind, metavar=metavar, help=text)
