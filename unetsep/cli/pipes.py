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
from typing import TextIO

from ..audio.decoder import AUDIO_SUFFIXES
from ..errors import UnetsepError, temporary_folder_error
from ..locations import is_url
from ..playlists import as_utf8, from_old_encoding
from ..storage import FULL
from .parsing import path_or_url

# Stands for a standard stream instead of a file.
STREAM = Path("-")


@contextlib.contextmanager
def standard_input(songs: Sequence[Path | str]) -> Iterator[Sequence[Path | str]]:
    """The songs, with ``-`` replaced by a temporary file of what stdin holds.

    Decoders seek in a file, which a pipe does not allow.

    Raises
    ------
    UnetsepError
        If there are other songs, stdin is closed, or the temporary folder is full.
    """
    if STREAM not in songs:
        yield songs
        return
    if len(songs) > 1:
        raise UnetsepError("- reads one song from stdin: name no other songs with it")
    _require_open(sys.stdin, "stdin")
    with tempfile.TemporaryDirectory(prefix="unetsep-") as folder:
        path = Path(folder) / "stdin"
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            if error.errno not in FULL:
                raise
            raise temporary_folder_error(path.parent.parent, os.strerror(error.errno)) from error
        yield [path]


@contextlib.contextmanager
def standard_output(output: Path) -> Iterator[Path]:
    """The output folder; for ``-`` a temporary one, from which `write_out` reads the stem.

    Raises
    ------
    UnetsepError
        If stdout is a terminal, or closed.
    """
    if output != STREAM:
        yield output
        return
    _require_open(sys.stdout, "stdout")
    if sys.stdout.isatty():
        raise UnetsepError(
            "-o - writes audio, and stdout is a terminal: redirect stdout to a file or a program"
        )
    with tempfile.TemporaryDirectory(prefix="unetsep-") as folder:
        yield Path(folder)


def write_out(path: Path) -> None:
    """Write a stem to stdout, or nothing if its song failed."""
    if path.exists():
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _require_open(stream: TextIO | None, name: str) -> None:
    if stream is None:
        raise UnetsepError(f"- is {name}, which is closed: redirect it to a file or a program")


def require_one_file(paths: Sequence[Path]) -> None:
    """Refuse to write several files to stdout.

    Raises
    ------
    UnetsepError
        If there is more than one.
    """
    if len(set(paths)) > 1:
        raise UnetsepError(
            "-o - writes one file: name one song and one stem, with --stems or --instrumental"
        )


def listed_files(source: Path | None) -> list[Path | str]:
    """Paths and URLs from a file or, for ``-``, stdin: one to a line, or NUL-separated.

    Raises
    ------
    OSError
        If it cannot be read.
    UnetsepError
        If stdin is closed, or the file is audio.
    """
    if source == STREAM:
        _require_open(sys.stdin, "stdin")
    if source is None:
        return []
    if source.suffix.lower() in AUDIO_SUFFIXES:
        raise UnetsepError(f"{source} is audio, not a list of songs: name it without --files-from")
    raw = sys.stdin.buffer.read() if source == STREAM else source.read_bytes()
    raw = as_utf8(raw).removeprefix(codecs.BOM_UTF8)  # of editors on Windows
    lines = raw.split(b"\0") if b"\0" in raw else raw.splitlines()
    names = [_name(line) for line in lines if line.strip()]
    return [path_or_url(name.strip() if is_url(name) else name) for name in names]


def _name(line: bytes) -> str:
    """A name in a list; on Windows it may be in the encoding of an old program.

    There it may also be quoted, as "Copy as path" does; no name contains quotes.
    """
    if os.name == "nt" and line.startswith(b'"'):
        line = line.strip(b' "')
    try:
        return os.fsdecode(line)
    except UnicodeDecodeError:
        return from_old_encoding(line, Path())
