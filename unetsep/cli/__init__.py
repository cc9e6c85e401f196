"""The ``unetsep`` command: words and options in, sentences and exit codes out.

options      every command and its options, on one page
separate     what ``separate`` does
song_search  which songs it takes: given, failed, of a shard
reporter     what it says of each song, and of all
pipes        songs from standard input, stems to standard output
progress     bars of songs, under a line about all of them
listen       what ``listen`` does, and ``separate --player`` and ``--plots``
app          what ``app`` does, and how it says where the app is
models       what ``models`` and its subcommands do; which models a command takes
train        what ``train``, ``average``, ``export`` and ``publish`` do
training_progress  bars of ``train``
evaluate     what ``eval`` and ``compare`` do
parsing      words as values, values as the dataclasses that the library takes
terminal     what is printed, even where nobody listens any more
sections     options of a command under headings
other_tools  options of other tools, and what says the same here
errors       errors as one sentence and an exit code
interrupts   Ctrl-C, a polite kill and a closed terminal, which must not get lost
startup      starting fast, and ending fast
"""

from __future__ import annotations

import os
import sys

import click

from ..unfinished import ignore_signals, take_back
from ..version import __version__
from .errors import Group
from .interrupts import INTERRUPTED, obey_signals, signal_number
from .options import COMMANDS
from .parsing import expanded
from .startup import forget_no_size, leave, name_closed_pipes, reopen_closed, write_utf8

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True}


@click.group(cls=Group, commands=COMMANDS, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="unetsep")
def main() -> None:
    """Split songs into vocals, drums, bass and other."""


def run() -> None:
    """The command as a process of its own."""
    code: object
    try:
        obey_signals()
        reopen_closed()
        forget_no_size()
        write_utf8()
        name_closed_pipes()
        words = sys.argv[1:]
        main(expanded(words) if os.name == "nt" else words)
        code = 0
    except KeyboardInterrupt:  # before or after all that `main` does
        code = INTERRUPTED
    except SystemExit as end:
        code = 128 + signal_number() if end.code == 1 and signal_number() else end.code
    ignore_signals()  # the process ends anyway, and cleans up
    take_back()
    if sys.argv[1:2] == ["separate"] and isinstance(code, int):
        leave(code)
    sys.exit(code)
