"""Where recordings come from: sources, and the kinds of data sets that have them.

Only names are read here; `unetsep.train.data.decode` reads the audio. Nothing under a folder
called ``test`` is ever listed: those songs are only for reporting.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...errors import AudioError

if TYPE_CHECKING:
    from .recording import Recording

logger = logging.getLogger(__name__)

# In place of a stem's name, where one file holds all stems.
ALL_STEMS = ""


@dataclass(frozen=True)
class Source:
    """A song or single stem that can be decoded into a recording.

    Parameters
    ----------
    name, origin
        Its name, and that of its kind of data set.
    split
        ``train`` or ``valid``.
    files
        Stem to its file, or to several whose sum it is; `ALL_STEMS` to a ``.stem.mp4``.
    silent
        Stems known to be silent; all others without a file are unknown.
    extra
        As its kind is, see `DatasetKind`; set by `unetsep.train.data.run_data.load_recordings`.
    weight
        How often it is drawn, relative to another one that is as long.
    """

    name: str
    origin: str
    split: str
    files: Mapping[str, Path | Sequence[Path]]
    silent: tuple[str, ...] = ()
    extra: bool = False
    weight: float = 1.0

    @property
    def parts(self) -> list[tuple[str, Path]]:
        """Each file with the stem that it is part of."""
        return [
            (stem, path)
            for stem, files in self.files.items()
            for path in ([files] if isinstance(files, Path) else files)
        ]


def listed_name(song: Source | Recording) -> str:
    """Name of a song among those of a run, ``origin/split/name``."""
    return f"{song.origin}/{song.split}/{song.name}"


def first_few(texts: Sequence[str]) -> str:
    """Three of several texts, and how many more there are."""
    remainder = f" and {len(texts) - 3} more" if len(texts) > 3 else ""
    return f"{', '.join(texts[:3])}{remainder}"


class DatasetKind:
    """A kind of data set, whose folders ``unetsep train`` takes.

    To add one, write a class like `unetsep.train.data.pools.Pools` and put an instance of it
    into `unetsep.train.data.datasets.DATASETS`.

    Attributes
    ----------
    name
        In ``data.json`` and ``songs.json``.
    option
        Of ``unetsep train``, and whether it can be ``repeated``.
    help
        One line about the folder.
    extra
        Whether random mixtures take it by ``extra_share``, beside recordings that are not extra.
    held_out
        Whether excerpts are held out of it for validation.
    """

    name: ClassVar[str]
    option: ClassVar[str]
    help: ClassVar[str]
    repeated: ClassVar[bool] = True
    extra: ClassVar[bool] = True
    held_out: ClassVar[bool] = False

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Sources in a folder, for training.

        Parameters
        ----------
        root
            As the user named it.
        stems
            Of the run; files of no stem are skipped.

        Raises
        ------
        AudioError
            If there are none, or something is wrong with them; it says what was expected.
        """
        raise NotImplementedError

    def default_root(self, stems: Sequence[str]) -> Path | None:  # noqa: ARG002
        """A folder that is used without being named, if there is one for these stems."""
        return None


def is_shadow(path: Path) -> bool:
    """Whether macOS put a file, ``._<name>``, beside another on a disk of other systems.

    It has the other's name and suffix, but no audio.
    """
    return path.name.startswith("._")


def walk(folder: Path, *, links: bool, deep: bool = True) -> list[Path]:
    """All files below a folder, in order.

    Parameters
    ----------
    folder
        A missing one has none.
    links
        Whether to follow links to folders: to none twice, and to none that contains the folder.
    deep
        Whether to search subfolders.
    """
    if not folder.is_dir():
        return []
    root, visited, files = folder.resolve(), set[Path](), list[Path]()
    folders, link_folders = [folder], list[Path]()
    while folders or link_folders:  # real folders before links, by their own names
        place = folders.pop(0) if folders else link_folders.pop(0)
        target = place.resolve()
        if target in visited or (root != target and root.is_relative_to(target)):
            continue
        visited.add(target)
        try:
            inside = [(path, path.is_dir()) for path in sorted(place.iterdir())]
        except OSError as error:
            logger.warning("%s is skipped: %s", place, error.strerror)
            continue
        for path, is_folder in inside:
            if not is_folder:
                files.append(path)
            elif not deep:
                continue
            elif not path.is_symlink():
                folders.append(path)
            elif links:
                link_folders.append(path)
    return sorted(files)


def audio_files(folder: Path, *, links: bool = False, deep: bool = True) -> Iterator[Path]:
    """Audio files below a folder, see `walk`, without those in folders called ``test``."""
    from ...audio.decoder import AUDIO_SUFFIXES  # numpy, which the command's help does not need

    for path in walk(folder, links=links, deep=deep):
        inside = path.relative_to(folder).parts[:-1]
        audio = path.suffix.lower() in AUDIO_SUFFIXES and not is_shadow(path)
        if audio and "test" not in map(str.lower, inside):
            yield path


def refuse_test(path: Path) -> None:
    """Refuse a path called ``test`` or in a folder of that name, with links followed or not.

    Raises
    ------
    AudioError
        If the path is called ``test``, or a folder above it is.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (links stay; absolute() keeps test/..)
    for place in (absolute, path.resolve()):
        if "test" in map(str.lower, _below_home(place).parts):
            raise AudioError(
                f"{path} is of a test set, which is for reporting, never for training: "
                f"{place} has a folder called test; if it merely lies there, move it or rename the "
                "folder"
            )


def _below_home(place: Path) -> Path:
    """A path below the user's home folder, as the user may be called test."""
    with contextlib.suppress(RuntimeError):  # there is none
        for home in (Path.home(), Path.home().resolve()):
            if place.is_relative_to(home):
                return place.relative_to(home)
    return place
