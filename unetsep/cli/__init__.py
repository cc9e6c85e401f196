"""The ``unetsep`` command: words and options in, sentences and exit codes out.

options      every command and its options, on one page
separate     what ``separate`` does, and how it shows it
models       what ``models`` and its subcommands do
train        what ``train``, ``average``, ``export`` and ``publish`` do
evaluate     what ``eval`` and ``compare`` do
startup      starting fast, and ending fast
"""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Any

import click

from ..version import __version__
from .options import COMMANDS

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Group(click.Group):
    """Commands whose errors are one sentence, a traceback only with ``--verbose``."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All names, those for users first."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn known errors into messages and exit codes."""
        from ..errors import UnetsepError

        try:
            return super().invoke(ctx)
        except (UnetsepError, ValueError) as error:
            if "--verbose" in sys.argv or "-v" in sys.argv:
                traceback.print_exc()
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.strerror is None:
                raise
            place = f" ({error.filename})" if error.filename else ""
            raise click.ClickException(f"{error.strerror}{place}") from error
        except KeyboardInterrupt:
            click.echo("Interrupted; unfinished files were removed.", err=True)
            ctx.exit(130)


@click.group(cls=Group, commands=COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="unetsep")
def main() -> None:
    """Split songs into vocals, drums, bass and other."""
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run() -> None:
    """The command as a process of its own."""
    try:
        main()
    except SystemExit as end:
        if sys.argv[1:2] == ["separate"] and isinstance(end.code, int):
            from .startup import leave

            leave(end.code)
        raise
