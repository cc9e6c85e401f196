"""Stems on their way to a store.

They lie there under names of their own until all of them were read back and compared; then they
get their names, and the record says so.
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
from .records import HALF_REPLACED, Record
from .songs import Part, Shared
from .store import Store, modified, name_in


class SpooledRecord(Record):
    """A record that is brought for its song; whether others changed it is seen at the upload."""

    @property
    def signature(self) -> None:
        """Nothing here tells."""
        return


class StemUpload:
    """The stems of one model on their way to a store."""

    def __init__(self, part: Part, store: Store, out: Path) -> None:
        self._store, self._out = store, out
        self._record, self._targets = part.record, list(dict.fromkeys(part.targets))
        self._seen: str | None = None
        self._stand_ins: dict[Path, tuple[int, int]] = {}

    def _name(self, path: Path) -> str:
        return path.relative_to(self._out).as_posix()

    def prepare(self) -> None:
        """Put the record here, and for each stem that exists an empty file of its size.

        With them a song is judged as if its stems lay here. Such files take no room on a disk.
        """
        stored: dict[Path, dict[str, Any]] = {}
        for folder in dict.fromkeys(path.parent for path in (*self._targets, self._record.path)):
            folder.mkdir(parents=True, exist_ok=True)
            infos = self._store.remove_leftovers(self._folder(folder))
            stored |= {folder / name: info for name, info in infos.items()}
        for path in stored.keys() & self._targets:
            with path.open("wb") as file:
                file.truncate(stored[path].get("size") or 0)
            _set_time(path, stored[path])
            self._stand_ins[path] = _signature(path)
        self._seen = self._fetch_record()
        if self._seen is not None and self._record.path in stored:
            _set_time(self._record.path, stored[self._record.path])

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
        """Whether stems were made."""
        return any(
            path.exists() and self._stand_ins.get(path) != _signature(path)
            for path in self._targets
        )

    def run(self, *, overwrite: bool, shared: Shared) -> None:
        """Upload the stems, then give them their names, then say so in the record."""
        entry = self._record.entry_of(self._targets)
        assert entry is not None, "stems were made, so the record tells of them"
        token = secrets.token_hex(6)
        partial: dict[Path, str] = {}
        try:
            for index, path in enumerate(self._targets):
                _end_if_asked(shared)
                folder = self._folder(path.parent)
                partial[path] = name_in(folder, f"{PREFIX}{token}-{index}.part")
                self._store.put(path, partial[path])
            _end_if_asked(shared)
            if self._was_done_meanwhile(entry, overwrite=overwrite):
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

    def _was_done_meanwhile(self, entry: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Whether another run has just made the same; the record is then the newest.

        Raises
        ------
        UnetsepError
            If it has made something else.
        """
        if self._fetch_record() == self._seen:
            return False
        other = self._record.entry_of(self._targets) or {}
        if _made(other) == _made({**entry, "complete": True}):
            return True
        if other and not overwrite:
            place = f"{self._store.url}/{self._name(self._targets[0])}"
            raise UnetsepError(f"{place} appeared while its song was being separated")
        return False

    def _write_record(self, entry: Mapping[str, Any]) -> None:
        self._record.write(entry)
        self._store.publish(self._record.path, self._name(self._record.path))

    def clear(self) -> None:
        """Remove everything here."""
        for path in (*self._targets, self._record.path):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _set_time(path: Path, info: Mapping[str, Any]) -> None:
    """Give a file the time of one in a store, if that is known."""
    if (written := modified(info)) is not None:
        os.utime(path, (written, written))


def _signature(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def _made(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What an entry says but for where and when the song was found."""
    song = entry.get("input", {})
    return {**entry, "input": (song.get("bytes"), song.get("sha256"))}


def _end_if_asked(shared: Shared) -> None:
    if shared.stop.is_set():
        raise UnetsepError("stopped")
