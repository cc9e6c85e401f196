"""Pools: recordings of a single stem."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import AudioError
from .sources import DatasetKind, Source, audio_files


class Pools(DatasetKind):
    """Single stems ``<root>/<stem>/**``; all are training data."""

    name = "pools"
    option = "--pools"
    help = "Folder of recordings of one stem each, in PATH/STEM/; repeatable."

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Recordings of all stems; see `DatasetKind.find`."""
        sources = [
            Source(name.with_suffix("").as_posix(), self.name, "train", {stem: root / name})
            for stem in stems
            for name in (p.relative_to(root) for p in audio_files(root / stem, links=True))
        ]
        if not sources:
            raise AudioError(
                f"there are no recordings in {root}: expected {root}/<stem>/** with audio files, "
                f"<stem> one of {', '.join(stems)}"
            )
        return sources
