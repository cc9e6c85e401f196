"""Options of ``listen``."""

from __future__ import annotations

from typing import Any

import click

from .shared import PATH, quiet, tracebacks


@click.command()
@click.argument("folder", type=PATH)
@click.option("--plots", is_flag=True, help="Also draw spectrograms, masks and levels.")
@quiet
@tracebacks
def listen(**options: Any) -> None:
    """Write a page that plays the stems in FOLDER.

    FOLDER holds the stems of a song or an album, made by any tool. FOLDER/index.html needs no
    server or network. You can switch between several models' stems of one song while they
    play.
    """
    from ..listen import run_listen

    if not run_listen(**options):
        raise SystemExit(1)
