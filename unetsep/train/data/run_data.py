"""Which recordings a run learns from and is validated on."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...config import STEMS
from ..config import TrainingError
from . import cache
from .datasets import DATASETS
from .musdb import musdb_root
from .recording import AUDIBLE, SAMPLE_RATE, UNKNOWN, Recording, hold_out
from .sources import first_few, listed_name, refuse_test

logger = logging.getLogger(__name__)

# Length of the excerpts held out of the user's own songs, and how many of them by default:
# 14 seven-second clips alone are noise.
HELD_SECONDS, HELD_OUT = 10, 10
# Types of the fields of `DataConfig` that are no lists.
KINDS = {"cache": str, "init_from": str | None, "held_out": int, "guide": str | None}


@dataclass(frozen=True)
class DataConfig:
    """Where a run's recordings and first weights come from; saved with it as ``data.json``.

    Parameters
    ----------
    roots
        Folders of each kind of data set; see `unetsep.train.data.datasets.DATASETS`.
    cache
        Folder of the decoded stems.
    stems
        What the songs are made of: the sum of these stems is the mixture.
    init_from
        Checkpoint whose weights are the start.
    held_out
        How many excerpts of the user's own songs are held out for validation.
    leave_out
        Recordings that are not trained on, ``NAME`` or ``NAME=STEM,...``.
    guide
        Name or path of the guide's checkpoint, if it was named.
    """

    roots: dict[str, tuple[str, ...]]
    cache: str
    stems: tuple[str, ...] = STEMS
    init_from: str | None = None
    held_out: int = HELD_OUT
    leave_out: tuple[str, ...] = ()
    guide: str | None = None


def find_data(
    roots: Mapping[str, Sequence[Path]],
    cache_folder: Path | None = None,
    *,
    stems: Sequence[str] = STEMS,
    **settings: Any,
) -> DataConfig:
    """The data in some folders, with MUSDB18 from ``MUSDB_PATH`` if it is not named.

    Parameters
    ----------
    roots
        Folders of each kind of data set, by its name.
    cache_folder
        Of the decoded stems; default: in the user's cache.
    stems
        Of the songs.
    settings
        Other fields of `DataConfig`.

    Raises
    ------
    AudioError, TrainingError
        If a folder is of a test set, or none is named, or decoded stems have no place.
    """
    folders = {name: list(roots.get(name, ())) for name in DATASETS}
    for name, kind in DATASETS.items():
        default = kind.default_root(stems)
        if default is not None and not folders[name]:
            folders[name] = [default]
    if not any(folders.values()):
        if tuple(stems) != STEMS:
            options = ", ".join(kind.option for kind in DATASETS.values() if kind.repeated)
            raise TrainingError(f"no training data for {', '.join(stems)}: name {options}")
        musdb_root(None)  # its error says what to name, and how to get it
    return DataConfig(
        roots=_resolve(folders),
        cache=str((cache_folder or _default_cache_folder()).resolve()),
        stems=tuple(stems),
        **settings,
    )


def _default_cache_folder() -> Path:
    place = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "unetsep", "stems")
    try:
        return place.expanduser()
    except RuntimeError as error:  # as in a container whose account has no name
        raise TrainingError(
            f"there is no home folder for {place}: name a folder for decoded stems by --cache"
        ) from error


def _resolve(roots: Mapping[str, Sequence[Path]]) -> dict[str, tuple[str, ...]]:
    """The named folders, resolved; a folder of a test set is refused."""
    for root in (each for folders in roots.values() for each in folders):
        refuse_test(root)
    return {
        name: tuple(str(root.resolve()) for root in folders)
        for name, folders in roots.items()
        if folders
    }


def move_data(
    data: DataConfig, roots: Mapping[str, Sequence[Path]], cache_folder: Path | None
) -> DataConfig:
    """The data of a run after some of it was moved.

    Parameters
    ----------
    data
        Of the run.
    roots
        New folders; kinds of data sets without any stay where they were.
    cache_folder
        Of the decoded stems, if that is another one.

    Raises
    ------
    AudioError
        If a folder is of a test set.
    """
    folder = data.cache if cache_folder is None else str(cache_folder.resolve())
    return dataclasses.replace(data, roots={**data.roots, **_resolve(roots)}, cache=folder)


def read_data(run: Path) -> DataConfig:
    """The data of a run, from its ``data.json``.

    Raises
    ------
    TrainingError
        If it is missing or damaged.
    """
    try:
        values = json.loads((run / "data.json").read_text(encoding="utf-8"))
        values["roots"] = {name: _texts(name, each) for name, each in values["roots"].items()}
        for name in ("stems", "leave_out"):
            values[name] = _texts(name, values[name])
        data = DataConfig(**values)
        for name, kind in KINDS.items():
            if not isinstance(getattr(data, name), kind):
                raise TypeError(f"{name} is {getattr(data, name)!r}")
    except FileNotFoundError as error:
        raise TrainingError(f"{run} does not say where its data is: no data.json") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(f"{run} does not say where its data is: {error}") from error
    for name in data.roots:
        if name not in DATASETS:
            raise TrainingError(
                f"{run} has data of the kind {name!r}: expected {', '.join(DATASETS)}"
            )
    return data


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of texts in ``data.json``; a text alone would pass for one of its letters."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{name} is {value!r}, expected a list of texts")
    return tuple(value)


def load_recordings(
    data: DataConfig,
    *,
    songs: Collection[str] = (),
    progress: cache.DecodingProgress | None = None,
) -> list[Recording]:
    """All recordings, each once, from the cache or decoded into it.

    Parameters
    ----------
    data
        Folders and stems.
    songs
        Names of those of a run that is resumed: they stay even as duplicates.
    progress
        Called with how many recordings are decoded and how many there are.

    Raises
    ------
    AudioError
        If there are none in a folder, some are of a test set, or cannot be decoded.
    """
    sources = [
        dataclasses.replace(source, extra=kind.extra)
        for name, kind in DATASETS.items()
        for root in data.roots.get(name, ())
        for source in kind.find(Path(root), data.stems)
    ]
    for path in sorted({path for source in sources for _, path in source.parts}):
        refuse_test(path)  # in order, so that the same one is named each time
    sources, duplicates = cache.distinct(sources, data.cache, songs)
    if duplicates:
        pairs = [f"{listed_name(one)} is in {listed_name(other)}" for one, other in duplicates]
        logger.warning("duplicate recordings are used once: %s", first_few(pairs))
    return cache.load(sources, data.cache, progress=progress)


def load_data(
    data: DataConfig,
    *,
    all_songs: bool = False,
    songs: Collection[str] = (),
    progress: cache.DecodingProgress | None = None,
) -> tuple[list[Recording], list[Recording]]:
    """Training and validation recordings, decoded if need be.

    Parameters
    ----------
    data, songs, progress
        See `load_recordings`.
    all_songs
        Whether those for validation are trained on, too; see `TrainConfig`.

    Raises
    ------
    TrainingError
        If there is nothing to validate on, or nothing to leave out of a given name.
    """
    recordings = load_recordings(data, songs=songs, progress=progress)
    valid = [each for each in recordings if each.split == "valid"]
    candidates = [each for each in recordings if each.split == "train"]
    candidates = apply_leave_out(candidates, data.leave_out, data.stems)
    train, excerpts = hold_out(
        candidates,
        data.stems,
        data.held_out,
        HELD_SECONDS * SAMPLE_RATE,
        origins=[name for name, kind in DATASETS.items() if kind.held_out],
    )
    if not all_songs:
        wholes = [dataclasses.replace(each, start=0, stop=None) for each in excerpts]
        _warn_of_shared_stems(candidates, valid + wholes)
    if not valid + excerpts:
        cure = "" if data.held_out else ", without --held-out 0"
        known = {stem for each in candidates for stem in (*each.names, *each.silent)}
        unknown = [stem for stem in data.stems if stem not in known]
        cause = f"no song has {', '.join(unknown)}; " if unknown else ""
        raise TrainingError(
            f"there is nothing to validate on: {cause}name a MUSDB18 root, or songs of at least "
            f"{2 * HELD_SECONDS} s in which all of {', '.join(data.stems)} are heard at once{cure}"
        )
    return [*train, *(valid + excerpts if all_songs else ())], valid + excerpts


def _warn_of_shared_stems(train: Sequence[Recording], valid: Sequence[Recording]) -> None:
    """Warn of training recordings that share a stem, to the sample, with a validation song.

    `cache.distinct` has removed those that have all of its stems, or no others.
    """

    def stems(recordings: Sequence[Recording]) -> Iterator[tuple[Recording, str, bytes]]:
        for each in recordings:
            for name, levels in zip(each.names, each.levels, strict=True):
                if name != UNKNOWN and levels.max(initial=0) > AUDIBLE:
                    # A stem that is shorter than others of its song ends with silence.
                    yield each, name, np.trim_zeros(levels, "b").tobytes()

    valid_stems: dict[bytes, list[tuple[Recording, str]]] = {}
    for each, name, levels in stems(valid):
        valid_stems.setdefault(levels, []).append((each, name))
    sentences = []
    for each, name, levels in stems(train):
        for song, stem in valid_stems.get(levels, ()):
            if song.pcm is not each.pcm and _same(each.stem(name), song.stem(stem)):
                sentences.append(f"{listed_name(each)} has the {stem} of {listed_name(song)}")
                break
    if sentences:
        logger.warning(
            "stems of songs for validation are trained on, unless --leave-out names them: %s",
            first_few(sentences),
        )


def _same(one: npt.NDArray[np.int16], other: npt.NDArray[np.int16]) -> bool:
    """Whether two stems ``(samples, 2)`` are equal, except for silence at the end."""
    common = min(len(one), len(other))
    is_longer = one[common:].any() or other[common:].any()
    return not is_longer and np.array_equal(one[:common], other[:common])


def apply_leave_out(
    recordings: Sequence[Recording], leave_out: Sequence[str], stems: Sequence[str]
) -> list[Recording]:
    """Recordings without some, or without some stems of them, which become unknown.

    Parameters
    ----------
    recordings
        Training data.
    leave_out
        ``NAME`` or ``NAME=STEM,...`` each.
    stems
        Of the run.

    Raises
    ------
    TrainingError
        If a name is no recording's, or a stem is not in it.
    """
    omissions: dict[str, set[str]] = {}
    names: dict[str, set[str]] = {}  # several recordings may have one name
    for each in recordings:
        names.setdefault(each.name, set()).update(each.names)
    for text in leave_out:
        name, _, stem_names = text.rpartition("=") if text not in names else (text, "", "")
        omitted = {stem.strip() for stem in stem_names.split(",")} if stem_names else set(stems)
        if name not in names or (stem_names and not omitted <= names[name]):
            raise TrainingError(
                f"--leave-out {text}: there is no such recording to train on, expected a name "
                "as in the songs.json of a run, or NAME=STEM,... with stems that it has"
            )
        omissions[name] = omissions.get(name, set()) | omitted
    remaining = [each.without(omissions.get(each.name, ())) for each in recordings]
    return [each for each in remaining if any(stem in stems for stem in each.names)]
