"""A part of a file, read as a file of its own."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Section:
    """A part of a file that is itself a file.

    Parameters
    ----------
    path
        The outer file.
    begin, end
        First byte, and the one after the last.
    """

    path: Path
    begin: int
    end: int

    def __str__(self) -> str:
        return str(self.path)


def count_bytes(source: Path | Section) -> int:
    """Length of a file or of a part of one."""
    return source.end - source.begin if isinstance(source, Section) else source.stat().st_size


def part_of(source: Path | Section, begin: int = 0, end: int | None = None) -> Section:
    """A part of a file, or of a part of one; by default up to its end."""
    end = count_bytes(source) if end is None else end
    if isinstance(source, Section):
        return Section(source.path, source.begin + begin, source.begin + end)
    return Section(source, begin, end)


def open_bytes(source: Path | Section) -> BinaryIO:
    """Open a file, or a part of one; positions count from its own first byte."""
    if isinstance(source, Section):
        return io.BufferedReader(_SectionFile(source))
    return source.open("rb")


class _SectionFile(io.RawIOBase):
    def __init__(self, section: Section) -> None:
        self._file = section.path.open("rb", buffering=0)
        self._begin, self._size, self._at = section.begin, count_bytes(section), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._begin + self._at)
        data = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()
