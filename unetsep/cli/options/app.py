"""Options of ``app``."""

from __future__ import annotations

from typing import Any

import click

from ..errors import ExtraCommand
from ..parsing import build, times
from .shared import COUNT, PATH, device, quiet, threads, tracebacks

AMOUNT = click.FloatRange(min=0, min_open=True)


@click.command(cls=ExtraCommand, extra="app")
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address to listen on; 0.0.0.0 admits other machines.",
)
@click.option(
    "--port",
    default=8421,
    type=click.IntRange(0, 65_535),
    metavar="N",
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Also answer requests for this host name; repeatable.",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="NAME|PATH",
    help="Models to offer, separated by commas.  "
    "[default: the default, fast, open and your own models]",
)
@device
@threads
@click.option("--folder", type=PATH, help="Folder for temporary files.  [default: the user's own]")
@click.option(
    "--max-upload",
    "upload_bytes",
    default=500.0,
    type=AMOUNT,
    callback=times(1e6, round),
    metavar="MB",
    help="Largest upload that is accepted.",
)
@click.option("--queue", default=20, type=COUNT, metavar="N", help="Number of songs that may wait.")
@click.option(
    "--time-limit",
    "seconds",
    default=60.0,
    type=AMOUNT,
    callback=times(60),
    metavar="MIN",
    help="Give up on a song after this long.",
)
@click.option(
    "--keep",
    "keep_seconds",
    default=24.0,
    type=AMOUNT,
    callback=times(3600),
    metavar="HOURS",
    help="How long stems are kept after their last use, at most: less if space is short.",
)
@click.option(
    "--disk",
    "disk_bytes",
    default=20.0,
    type=AMOUNT,
    callback=times(1e9, round),
    metavar="GB",
    help="Disk space for all songs and stems together.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
@quiet
@tracebacks
def app(**options: Any) -> None:
    """Separate songs in the browser, or over HTTP.

    Only this machine can reach it, unless --host admits others. Temporary files are removed
    at the end. Needs pip install "unetsep[app]".

    See https://github.com/unetsep/unetsep/blob/main/docs/how-to/web-service.md
    """
    from ..app import AppOptions, run_app

    run_app(build(AppOptions, options))
