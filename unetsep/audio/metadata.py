"""Texts and pictures in Matroska, WebM and AVI files, which mutagen does not read, by ffmpeg."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .ffmpeg_program import find_ffmpeg, run_ffmpeg

# Timeout in seconds; ffmpeg reads the head of a file only.
PATIENCE = 20.0
# In ffmpeg's format a backslash escapes the next character, which may be the end of a line.
LINE = re.compile(r"(?:[^\\\n]|\\.)+", re.DOTALL)
ENTRY = re.compile(r"((?:[^\\=]|\\.)+)=(.*)", re.DOTALL)
# The texts on stdout, and on stderr the streams: most files have no picture.
TEXTS = ("-v", "info", "-f", "ffmetadata")
# All pictures but those of a film.
PICTURE = ("-map", "0:v", "-map", "-0:V", "-c", "copy", "-frames:v", "1", "-f", "image2pipe")


def read_metadata(path: Path) -> tuple[dict[str, str], bytes]:
    """Texts of a file by ffmpeg's names in lower case, and its cover; empty if there is none.

    Without ffmpeg both are empty: such a file cannot be separated anyway.
    """
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        return {}, b""
    try:
        texts = run_ffmpeg(ffmpeg, path, PATIENCE, *TEXTS, "pipe:1")
        has_cover = b"(attached pic)" in texts.stderr
        cover = run_ffmpeg(ffmpeg, path, PATIENCE, *PICTURE, "pipe:1").stdout if has_cover else b""
    except TimeoutError:
        return {}, b""
    return dict(_entries(texts.stdout.decode(errors="replace"))), cover


def _entries(text: str) -> Iterator[tuple[str, str]]:
    """The entries of the file itself, before those of its streams and chapters."""
    for line in LINE.findall(text):
        if line.startswith("["):
            return
        if entry := ENTRY.fullmatch(line):
            name, value = (
                re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in entry.groups()
            )
            yield name.lower(), value
