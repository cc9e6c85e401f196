"""Uploads of stems to a store.

Stems have temporary names there until all of them were read back and compared. Then they are
renamed, and the record is marked as complete.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UnetsepError
from ..storage import PREFIX
from .file_info import modified
from .records import HALF_REPLACED, Record
from .songs import Part, Shared
from .store import Store, name_in


class SpooledRecord(Record):
    """A local copy of a record in a store; changes by others are detected at the upload."""

    @property
    def signature(self) -> None:
        """None: a local copy does not show changes in the store."""
        return


class StemUpload:
    """The upload of one model's stems of one song."""

    def __init__(self, part: Part, store: Store, out: Path) -> None:
        self._store, self._out = store, out
        self._record, self._targets = part.record, list(dict.fromkeys(part.targets))
        self._initial_record: str | None = None
        self._placeholders: dict[Path, tuple[int, int]] = {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self._out).as_posix()

    def prepare(self) -> None:
        """Download the record, and create a sparse placeholder for each stem that exists.

        With these the song is compared as if its stems were local. Placeholders have the size of
        their stems but take no room on a disk.
        """
        existing: dict[Path, dict[str, Any]] = {}
        paths = (*self._targets, self._record.path)
        for folder in dict.fromkeys(path.parent for path in paths):
            folder.mkdir(parents=True, exist_ok=True)
            names = [path.name for path in paths if path.parent == folder]
            infos = self._store.look(self._folder(folder), names)
            existing |= {folder / name: info for name, info in infos.items()}
        for path in existing.keys() & self._targets:
            with path.open("wb") as file:
                file.truncate(existing[path].get("size") or 0)
            _set_time(path, existing[path])
            self._placeholders[path] = _signature(path)
        self._initial_record = self._fetch_record()
        if self._initial_record is not None and self._record.path in existing:
            _set_time(self._record.path, existing[self._record.path])

    def _folder(self, folder: Path) -> str:
        return "" if folder == self._out else self._name(folder)

    def _fetch_record(self) -> str | None:
        content = self._store.read(self._name(self._record.path))
        if content is None:
            self._record.path.unlink(missing_ok=True)
            return None
        self._record.path.write_bytes(content)
        return content.decode(errors="replace")

    @property
    def is_new(self) -> bool:
        """Whether the run has made stems."""
        return any(
            path.exists() and self._placeholders.get(path) != _signature(path)
            for path in self._targets
        )

    def run(self, *, overwrite: bool, shared: Shared) -> None:
        """Upload the stems, then rename them, then mark the record as complete."""
        entry = self._record.entry_of(self._targets)
        assert entry is not None, "stems were made, so the record has an entry for them"
        token = secrets.token_hex(6)
        partial: dict[Path, str] = {}
        for folder in {self._folder(path.parent) for path in self._targets}:
            self._store.remove_leftovers(folder)
        try:
            for index, path in enumerate(self._targets):
                _raise_if_stopped(shared)
                folder = self._folder(path.parent)
                partial[path] = name_in(folder, f"{PREFIX}{token}-{index}.part")
                self._store.put(path, partial[path])
            _raise_if_stopped(shared)
            if self._is_made_by_another_run(entry, overwrite=overwrite):
                return
            self._write_record(entry | {"complete": False})
            for path, name in list(partial.items()):
                try:
                    self._store.rename(name, self._name(path), path)
                except UnetsepError as error:
                    if overwrite and len(partial) < len(self._targets):
                        raise UnetsepError(f"{error}; {HALF_REPLACED}") from error
                    raise
                del partial[path]
            self._write_record(entry | {"complete": True})
        finally:
            for name in partial.values():
                self._store.remove(name)

    def _is_made_by_another_run(self, entry: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Whether another run has made the same stems meanwhile; fetches the newest record.

        Raises
        ------
        UnetsepError
            If it has made different ones.
        """
        if self._fetch_record() == self._initial_record:
            return False
        other_entry = self._record.entry_of(self._targets) or {}
        if _content(other_entry) == _content({**entry, "complete": True}):
            return True
        if other_entry and not overwrite:
            place = f"{self._store.url}/{self._name(self._targets[0])}"
            raise UnetsepError(f"{place} appeared while its song was being separated")
        return False

    def _write_record(self, entry: Mapping[str, Any]) -> None:
        self._record.write(entry)
        self._store.publish(self._record.path, self._name(self._record.path))

    def clear(self) -> None:
        """Remove all local files."""
        for path in (*self._targets, self._record.path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _set_time(path: Path, info: Mapping[str, Any]) -> None:
    """Give a file the time of one in a store, if it is known."""
    if (seconds := modified(info)) is not None:
        os.utime(path, (seconds, seconds))


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _content(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What decides stems, their sizes and audio: other fields may differ between versions."""
    song = entry.get("input", {})
    fields = ("complete", "models", "options", "stems_edition", "outputs", "audio")
    content = {name: entry.get(name) for name in fields}
    return content | {"input": (song.get("bytes"), song.get("sha256"))}


def _raise_if_stopped(shared: Shared) -> None:
    if shared.stop.is_set():
        raise UnetsepError("stopped")
