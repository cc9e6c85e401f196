"""Songs of one's own, a folder with stems for each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ...errors import AudioError
from .sources import AUDIO_SUFFIXES, DatasetKind, Source, audio_files


class SongFolders(DatasetKind):
    """Songs ``<root>/train/<song>/<stem>.<suffix>``, with an optional ``song.json``.

    A stem that is neither there nor listed under ``"silent"`` in ``song.json`` is unknown.
    """

    name = "songs"
    option = "--songs"
    help = "Songs with stems."
    held_out = True

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Songs with at least one stem; see `DatasetKind.find`."""
        folder = root / "train"
        sources = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            files = {file.stem: file for file in audio_files(path) if file.stem in stems}
            if files:
                listed = _silent(path / "song.json", stems)
                silent = tuple(stem for stem in listed if stem not in files)
                sources.append(Source(path.name, self.name, "train", files, silent))
        if not sources:
            raise AudioError(
                f"there are no songs in {root}: expected {folder}/<song>/ with "
                f"{{{','.join(stems)}}}{{{','.join(AUDIO_SUFFIXES)}}}"
            )
        return sources


def _silent(described: Path, stems: Sequence[str]) -> list[str]:
    if not described.exists():
        return []
    try:
        silent = json.loads(described.read_text(encoding="utf-8")).get("silent", [])
        wrong = [stem for stem in silent if stem not in stems]
    except (ValueError, AttributeError, TypeError) as error:
        raise AudioError(f"{described} cannot be understood: {error}") from error
    if wrong:
        raise AudioError(f"{described}: {wrong[0]!r} is no stem: expected {', '.join(stems)}")
    return list(silent)
