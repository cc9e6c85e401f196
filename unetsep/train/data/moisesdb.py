"""MoisesDB (Pereira et al. 2023): songs of many recordings, in stems of eleven kinds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ...errors import AudioError
from .sources import DatasetKind, Source, walk

STEMS = (
    "vocals",
    "bass",
    "drums",
    "other",
    "guitar",
    "other_plucked",
    "percussion",
    "piano",
    "other_keys",
    "bowed_strings",
    "wind",
)
REST = "other"


class MoisesDb(DatasetKind):
    """Songs ``<root>/**/<id>/data.json`` with ``<stem>/<id>.wav``, as the archive unpacks.

    A stem is the sum of its recordings. ``other`` of a run is the sum of all recordings in no other
    stem of the run, as in the four, five and six stems of MoisesDB's own package. What a
    song does not have is silent in it.
    """

    name = "moisesdb"
    option = "--moisesdb"
    help = "Folder of MoisesDB, unpacked."
    held_out = True

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Songs, but none in a folder called ``test``; see `DatasetKind.find`."""
        return [
            source
            for path, source in self.songs(root, stems)
            if "test" not in map(str.lower, path.relative_to(root).parts)
        ]

    def songs(self, root: Path, stems: Sequence[str]) -> list[tuple[Path, Source]]:
        """All songs with their folders.

        Parameters
        ----------
        root, stems
            See `DatasetKind.find`.

        Raises
        ------
        AudioError
            If there are none with any of the stems, or a file is missing.
        """
        unknown = [stem for stem in stems if stem not in STEMS]
        if unknown:
            raise AudioError(
                f"MoisesDB has no stem {unknown[0]!r}: expected some of {', '.join(STEMS)}"
            )
        songs = []
        for description in (path for path in walk(root, links=True) if path.name == "data.json"):
            files = self._files(description, stems)
            if files:
                silent = tuple(stem for stem in stems if stem not in files)
                source = Source(description.parent.name, self.name, "train", files, silent)
                songs.append((description.parent, source))
        if not songs:
            raise AudioError(
                f"there is no MoisesDB in {root}: expected {root}/**/data.json, beside folders "
                f"such as vocals/ with audio files, of {', '.join(stems)}"
            )
        return songs

    def _files(self, description: Path, stems: Sequence[str]) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for name, path in _recordings(description):
            stem = name if name in stems else REST
            if stem not in stems:
                continue
            if not path.is_file():
                raise AudioError(f"{description} names a file that does not exist: {path}")
            files.setdefault(stem, []).append(path)
        return files


def _recordings(description: Path) -> list[tuple[str, Path]]:
    """Stems of MoisesDB and files of a song, from its ``data.json``."""
    try:
        content = json.loads(description.read_bytes())  # in any UTF, as Windows writes it
        return [
            (str(stem["stemName"]), path)
            for stem in content["stems"]
            for track in stem["tracks"]
            for path in [
                description.parent / stem["stemName"] / f"{track['id']}.{track['extension']}"
            ]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AudioError(f"{description} cannot be understood: {error!r}") from error
