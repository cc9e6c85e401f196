"""Chunks of wav, w64, AIFF and CAF files, by their names."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

from .sections import Section, open_bytes

# What is read of a chunk: those that are looked for are small.
CHUNK_BYTES = 1 << 16


class _Form(NamedTuple):
    """How chunks lie in a file: where the first begins, their headers, what sizes count."""

    begin: int
    header: struct.Struct
    padding: int = 2
    counts_header: bool = False


_FORMS = {
    b"RIFF": _Form(12, struct.Struct("<4sI")),
    b"RF64": _Form(12, struct.Struct("<4sI")),
    b"RIFX": _Form(12, struct.Struct(">4sI")),
    b"FORM": _Form(12, struct.Struct(">4sI")),
    b"riff": _Form(40, struct.Struct("<16sq"), 8, counts_header=True),
    b"caff": _Form(8, struct.Struct(">4sq"), 1),
}


def byte_order(source: Path | Section) -> str:
    """Of the numbers in a wav or w64 file, as `struct` writes it."""
    with open_bytes(source) as file:
        return ">" if file.read(4) == b"RIFX" else "<"


def read_chunk(source: Path | Section, name: bytes) -> bytes:
    """The beginning of the first chunk of a name; empty where there is none.

    Parameters
    ----------
    source
        The file.
    name
        Four bytes; of the sixteen in w64 they are the first.
    """
    with open_bytes(source) as file:
        form = _FORMS.get(file.read(4))
        if form is None:
            return b""
        file.seek(form.begin)
        while len(header := file.read(form.header.size)) == form.header.size:
            found, size = form.header.unpack(header)
            size -= form.header.size if form.counts_header else 0
            if size < 0:  # damaged, or in CAF: up to the end of the file
                break
            if found[:4] == name:
                return file.read(min(size, CHUNK_BYTES))
            file.seek(min(size + -size % form.padding, 1 << 62), os.SEEK_CUR)
        return b""
