"""An index: a JSON file that names songs and the files of their stems.

It has the shape of mirdata's indexes. Songs are multitracks, where there are any::

    {"tracks": {"song 1_bass": {"audio": ["song1/bass.wav", "<md5>"]},
                "song 1_drums": {"audio": ["song1/drums.wav", "<md5>"]},
                "song 1_piano": {"audio": ["song1/piano.wav", "<md5>"]}},
     "multitracks": {"song 1": {"tracks": ["song 1_bass", "song 1_drums", "song 1_piano"],
                                "mix": ["song1/mix.wav", "<md5>"]}}}

A track of a multitrack is the stem that its name ends with, from its ``audio`` or all files whose
keys begin with ``audio_`` and that name. What a multitrack does not have is silent, and ``other``
is the sum of all tracks that have no other stem's name. Without multitracks songs are tracks::

    {"tracks": {"song 1": {"audio-vocals": ["song1/voice.wav", "<md5>"], "drums": "song1/drums.wav",
                           "other": [["song1/piano.wav", "<md5>"], ["song1/organ.wav", null]],
                           "silent": ["bass"], "split": "train"}}}

A stem is a path, or a pair of path and MD5, or a list of several such, whose sum it is. Its key
may begin with ``audio-`` or ``audio_`` and end in ``_path`` or ``_audio``; dashes count as
underscores. Without an entry, or with null for a path, it is unknown.

The mixture is ``mixture``, ``mix`` or ``audio``. Paths are relative to the folder of the index,
where mirdata's ``data_home`` must therefore hold it. ``split`` is train (the default), valid or
test. Checksums are not verified: mirdata's ``validate`` does that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import AudioError
from .moisesdb import STEMS as MOISESDB_STEMS
from .sources import DatasetKind, Source

SPLITS = ("train", "valid", "test")
PREFIX, SUFFIXES = "audio_", ("_path", "_audio")
MIXTURE, REST = ("audio", "mix", "mixture"), "other"
MD5 = re.compile("[0-9a-f]{32}", re.IGNORECASE)
# A stem's name, and how its files are written.
Entries = list[tuple[str, Any]]


class Index(DatasetKind):
    """Songs that a JSON index names, as mirdata's do; those of the split ``test`` are left out."""

    name = "index"
    option = "--index"
    help = "JSON index of songs with stems, as mirdata's."
    held_out = True

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Songs to train and validate on; see `DatasetKind.find`. The root is the index."""
        sources = [each for each in self.songs(root, stems) if each.split != "test"]
        if not sources:
            raise AudioError(f"{root} names songs of the split test alone: expected train or valid")
        return sources

    def songs(self, path: Path, stems: Sequence[str], *, mixture: bool = False) -> list[Source]:
        """All songs.

        Parameters
        ----------
        path
            The index.
        stems
            Of the run.
        mixture
            Whether to include the mixture, if the index has one.

        Raises
        ------
        AudioError
            If the index cannot be understood, names no song with any of the stems, or a missing
            file.
        """
        names = (*stems, "mixture") if mixture else tuple(stems)
        try:
            content = json.loads(path.read_bytes())  # in any UTF, as Windows writes it
            tracks, multitracks = content["tracks"], content.get("multitracks")
            songs = multitracks or tracks
            _check_silent(songs, stems)
            all_sources = [
                self._song(path, name, entry, names, tracks if multitracks else None)
                for name, entry in songs.items()
            ]
        except OSError as error:
            raise AudioError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AudioError(
                f"{path} is not an index, expected {{'tracks': {{SONG: {{STEM: [PATH, MD5]}}}}}}: "
                f"{error!r}"
            ) from error
        sources = [each for each in all_sources if set(each.files) & set(stems)]
        if not sources:
            raise AudioError(f"{path} names no songs with any of {', '.join(stems)}")
        return sources

    def _song(
        self,
        path: Path,
        name: str,
        entry: dict[str, Any],
        stems: Sequence[str],
        tracks: dict[str, Any] | None,
    ) -> Source:
        """A song of some stems; of a multitrack, if all ``tracks`` are given."""
        split = entry.get("split", "train")
        if split not in SPLITS:
            raise ValueError(f"{name}: the split is {split!r}, expected one of {', '.join(SPLITS)}")
        entries = [(_stem(key), value) for key, value in entry.items() if key != "tracks"]
        if tracks is not None:
            entries = [each for each in entries if each[0] == "mixture"]
            entries += _recordings(name, entry["tracks"], tracks, stems)
        files: dict[str, list[Path]] = {}
        for stem, value in entries:
            paths = [path.parent / part for part in _paths(value)] if stem in stems else []
            missing = [file for file in paths if not file.is_file()]
            if missing:
                raise AudioError(f"{path} names a file that does not exist: {missing[0]}")
            if paths:
                files.setdefault(stem, []).extend(paths)
        silent = entry.get("silent", ()) if tracks is None else set(stems) - {"mixture"}
        return Source(
            name, self.name, split, files, tuple(s for s in stems if s in silent and s not in files)
        )


def _check_silent(songs: dict[str, dict[str, Any]], stems: Sequence[str]) -> None:
    """Refuse silent stems that do not exist: neither usual, nor of the run, nor of any song."""
    names = {*MOISESDB_STEMS, *stems, *(_stem(key) for entry in songs.values() for key in entry)}
    for name, entry in songs.items():
        for stem in entry.get("silent", ()):
            if stem not in names:
                raise ValueError(
                    f"{name}: silent {stem!r} is not a stem: expected {', '.join(stems)}"
                )


def _stem(key: str) -> str:
    """The stem that a key stands for."""
    name = key.replace("-", "_")
    if name in MIXTURE:
        return "mixture"
    name = next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)
    name = name.removeprefix(PREFIX)
    return "mixture" if name in MIXTURE else name


def _recordings(
    song: str, names: Sequence[str], tracks: dict[str, Any], stems: Sequence[str]
) -> Entries:
    """The stems of a multitrack; none if no track has the name of one of them."""
    entries: Entries = []
    for name in names:
        stem = name.removeprefix(song).strip("-_ ").replace("-", "_")
        keys = {key.replace("-", "_"): value for key, value in tracks[name].items()}
        if "audio" in keys:
            entries.append((stem, keys["audio"]))
        else:
            begin = PREFIX + stem
            entries += [(stem, value) for key, value in keys.items() if key.startswith(begin)]
    if not any(stem in stems for stem, _ in entries):
        return []
    return [(stem if stem in stems else REST, value) for stem, value in entries]


def _paths(value: Any) -> list[str]:
    """Paths of a stem, however they are written."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is neither a path nor a list of paths")
    is_pair = len(value) == 2 and not isinstance(value[0], list)
    if is_pair and (value[1] is None or MD5.fullmatch(value[1])):
        return _paths(value[0])
    return [path for part in value for path in _paths(part)]
