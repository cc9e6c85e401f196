"""The ``unetsep`` command: arguments in, messages and exit codes out.

options      the options of each command
separate     what ``separate`` does
song_search  which songs it separates: named, failed, of a shard
reporter     its messages about each song, and the summary
pipes        songs from standard input, stems to standard output
progress     progress bars of songs, below a line about the whole run
listen       what ``listen`` does, and ``separate --player`` and ``--plots``
app          what ``app`` does
models       what ``models`` and its subcommands do; which models a command uses
train        what ``train``, ``average``, ``export`` and ``publish`` do
training_progress  progress bars of ``train``
evaluate     what ``eval`` and ``compare`` do
parsing      arguments as values, values as the dataclasses that the library takes
terminal     printing, also after the reader has closed the stream
sections     help texts with options under headings
other_tools  options of other tools, and their equivalents here
errors       errors as one sentence and an exit code
interrupts   SIGINT, SIGTERM and SIGHUP, none of which may get lost
startup      fast start and exit
"""

from __future__ import annotations

import os
import sys

import click

from ..unfinished import ignore_signals, undo_all
from ..version import __version__
from .errors import Group
from .interrupts import INTERRUPTED, obey_signals, signal_number
from .options.commands import COMMANDS
from .parsing import expanded
from .startup import (
    leave,
    raise_broken_pipes,
    reopen_closed,
    silence_matplotlib,
    unset_zero_size,
    write_utf8,
)

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.group(cls=Group, commands=COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="unetsep")
def main() -> None:
    """Split songs into vocals, drums, bass and other."""


def run() -> None:
    """Run the command as the main program of this process."""
    code: object
    try:
        obey_signals()
        reopen_closed()
        unset_zero_size()
        write_utf8()
        raise_broken_pipes()
        silence_matplotlib()
        arguments = sys.argv[1:]
        main(expanded(arguments) if os.name == "nt" else arguments)
        code = 0
    except KeyboardInterrupt:  # before or after `main`
        code = INTERRUPTED
    except SystemExit as end:
        code = 128 + signal_number() if end.code == 1 and signal_number() else end.code
    ignore_signals()  # the process is ending and cleans up
    undo_all()
    if sys.argv[1:2] == ["separate"] and isinstance(code, int):
        leave(code)
    sys.exit(code)
