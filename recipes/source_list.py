"""``sources.csv``: what each recording of a folder was made of."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path


class SourceList:
    """A row for each recording, written at once; rows of earlier runs stay.

    Parameters
    ----------
    path
        The file.
    columns
        Their names; the first is that of the recording.
    recordings
        Folder of the recordings: rows whose recording no longer exists are dropped.
    """

    def __init__(self, path: Path, columns: Sequence[str], recordings: Path) -> None:
        self._path, self._columns = path, list(columns)
        self._rows: dict[str, list[str]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.reader(file) if row][1:]
            self._rows = {row[0]: row for row in rows if (recordings / row[0]).exists()}
        self._write()

    def add(self, row: Sequence[str]) -> None:
        """Take in a row; it replaces the one of the same recording."""
        self._rows[row[0]] = list(row)
        self._write()

    def _write(self) -> None:
        with self._path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([self._columns, *self._rows.values()])
