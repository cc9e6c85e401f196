"""An index: a JSON file that says which songs there are and where their stems lie.

It has the shape of mirdata's indexes::

    {"tracks": {"song 1": {"vocals": ["song1/voice.wav", "<md5>"], "drums": "song1/drums.wav",
                           "other": [["song1/piano.wav", "<md5>"], ["song1/organ.wav", null]],
                           "bass": null, "split": "train"}}}

A stem is a path, or a pair of path and MD5, or a list of several such, whose sum it is. Its name
may end in ``_path`` or ``_audio``. With null the stem is silent, and without an entry unknown.
Paths are relative to the folder of the index. ``split`` is train (the default), valid or test.
Checksums are not looked at: mirdata's ``validate`` does that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...errors import AudioError
from .sources import DatasetKind, Source

SPLITS = ("train", "valid", "test")
SUFFIXES = ("_path", "_audio")
MD5 = re.compile("[0-9a-f]{32}", re.IGNORECASE)


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
            Whether a mixture is wanted beside the stems, if the index has one.

        Raises
        ------
        AudioError
            If the index cannot be understood, names no song with any of the stems, or a file that
            is not there.
        """
        wanted = (*stems, "mixture") if mixture else tuple(stems)
        try:
            tracks = json.loads(path.read_text(encoding="utf-8"))["tracks"].items()
            found = [self._song(path, name, entry, wanted) for name, entry in tracks]
        except OSError as error:
            raise AudioError(f"{path} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AudioError(
                f"{path} is no index, expected {{'tracks': {{SONG: {{STEM: [PATH, MD5]}}}}}}: "
                f"{error!r}"
            ) from error
        songs = [each for each in found if set(each.files) & set(stems)]
        if not songs:
            raise AudioError(f"{path} names no songs with any of {', '.join(stems)}")
        return songs

    def _song(self, path: Path, name: str, entry: dict[str, Any], stems: Sequence[str]) -> Source:
        split = entry.get("split", "train")
        if split not in SPLITS:
            raise ValueError(f"{name}: the split is {split!r}, expected one of {', '.join(SPLITS)}")
        files, silent = {}, []
        for key, value in entry.items():
            stem = next((key.removesuffix(end) for end in SUFFIXES if key.endswith(end)), key)
            if stem not in stems:
                continue
            files[stem] = [path.parent / part for part in _paths(value)]
            missing = [file for file in files[stem] if not file.is_file()]
            if missing:
                raise AudioError(f"{path} names a file that is not there: {missing[0]}")
            if not files[stem]:
                del files[stem]
                silent.append(stem)
        return Source(name, self.name, split, files, tuple(silent))


def _paths(value: Any) -> list[str]:
    """Paths of a stem, however they are written."""
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no path and no list of paths")
    is_pair = len(value) == 2 and not isinstance(value[0], list)
    if is_pair and (value[1] is None or MD5.fullmatch(value[1])):
        return _paths(value[0])
    return [path for part in value for path in _paths(part)]
