"""Songs from standard input, stems to standard output."""

from __future__ import annotations

import codecs
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import UnetsepError
from ..paths import is_url

# Stands for a standard stream in the place of a file.
STREAM = Path("-")


@contextlib.contextmanager
def standard_input(songs: Sequence[Path | str]) -> Iterator[Sequence[Path | str]]:
    """The songs, with a file of what comes on standard input in the place of ``-``.

    Decoders look here and there in a file, which cannot be done in a pipe.

    Raises
    ------
    UnetsepError
        If there are other songs beside it.
    """
    if STREAM not in songs:
        yield songs
        return
    if len(songs) > 1:
        raise UnetsepError("- takes one song from stdin: name no others beside it")
    with tempfile.TemporaryDirectory(prefix="unetsep-") as folder:
        path = Path(folder) / "stdin"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield [path]


@contextlib.contextmanager
def standard_output(output: Path) -> Iterator[Path]:
    """The output folder; for ``-`` one for a time, whose only file then goes to stdout.

    Raises
    ------
    UnetsepError
        If stdout is a terminal.
    """
    if output != STREAM:
        yield output
        return
    if sys.stdout.isatty():
        raise UnetsepError("-o - writes audio: lead stdout to a file or another program")
    with tempfile.TemporaryDirectory(prefix="unetsep-") as folder:
        yield Path(folder)
        files = [path for path in Path(folder).rglob("[!.]*") if path.is_file()]
        for path in files:  # none, if the song failed
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def require_one_file(paths: Sequence[Path]) -> None:
    """Refuse to write several files to stdout.

    Raises
    ------
    UnetsepError
        If there is more than one.
    """
    if len(set(paths)) > 1:
        raise UnetsepError(
            "-o - takes one file: name one song and one stem, with --stems or --instrumental"
        )


def listed_files(source: Path | None) -> list[Path | str]:
    """Paths and URLs from a file or, for ``-``, standard input: one in a line, or between NULs.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    if source is None:
        return []
    raw = sys.stdin.buffer.read() if source == STREAM else source.read_bytes()
    raw = raw.removeprefix(codecs.BOM_UTF8)  # of editors on Windows
    lines = raw.split(b"\0") if b"\0" in raw else raw.splitlines()
    names = [os.fsdecode(line) for line in lines if line.strip()]
    return [name.strip() if is_url(name) else Path(name) for name in names]
