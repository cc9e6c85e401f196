"""What recordings come from: sources, and the kinds of data sets that have them.

Only names are read here; `unetsep.train.data.decode` reads the audio. Nothing under a folder
called ``test`` is ever listed: those songs are for reporting alone.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...errors import AudioError

if TYPE_CHECKING:
    from .recording import Recording

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


@dataclass(frozen=True)
class Source:
    """A song or single stem that can be decoded into a recording.

    Parameters
    ----------
    name, origin
        What it is called, and the name of the kind of data set that it is from.
    split
        ``train`` or ``valid``.
    files
        Stem to its file, or to several whose sum it is; a ``.stem.mp4`` holds all stems and
        stands under ``""``.
    silent
        Stems known to be silent; stems that are nowhere are unknown.
    extra
        Whether it is one if its kind is; see `DatasetKind`.
    weight
        How often it is drawn, relative to another one that is as long.
    """

    name: str
    origin: str
    split: str
    files: Mapping[str, Path | Sequence[Path]]
    silent: tuple[str, ...] = ()
    extra: bool = True
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
    """What a song is called among those of a run, ``origin/split/name``."""
    return f"{song.origin}/{song.split}/{song.name}"


class DatasetKind:
    """A kind of data set, of which ``unetsep train`` can be given folders.

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
        Whether random mixtures take it by ``extra_share``, beside what is no extra.
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
            Of the run; what is of no stem is left alone.

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

    It has the other's name and suffix, and none of its audio.
    """
    return path.name.startswith("._")


def walk(folder: Path, *, links: bool, deep: bool = True) -> list[Path]:
    """All files below a folder, in order.

    Parameters
    ----------
    folder
        One that is not there has none.
    links
        Whether to follow links to folders: to none twice, and to none that the folder is in.
    deep
        Whether to look into the folders in it.
    """
    if not folder.is_dir():
        return []
    root, seen, files = folder.resolve(), set[Path](), list[Path]()
    real, linked = [folder], list[Path]()
    while real or linked:  # what is there by itself comes first, by its own name
        place = real.pop(0) if real else linked.pop(0)
        target = place.resolve()
        if target in seen or (root != target and root.is_relative_to(target)):
            continue
        seen.add(target)
        try:
            inside = [(path, path.is_dir()) for path in sorted(place.iterdir())]
        except OSError as error:
            logger.warning("%s is passed over: %s", place, error.strerror)
            continue
        for path, is_folder in inside:
            if not is_folder:
                files.append(path)
            elif not deep:
                continue
            elif not path.is_symlink():
                real.append(path)
            elif links:
                linked.append(path)
    return sorted(files)


def audio_files(folder: Path, *, links: bool = False, deep: bool = True) -> Iterator[Path]:
    """Audio files below a folder, see `walk`, without those in folders called ``test``."""
    for path in walk(folder, links=links, deep=deep):
        inside = path.relative_to(folder).parts[:-1]
        audio = path.suffix.lower() in AUDIO_SUFFIXES and not is_shadow(path)
        if audio and "test" not in map(str.lower, inside):
            yield path


def refuse_test(path: Path) -> None:
    """Refuse what is called ``test``, or lies in a folder of that name, links followed or not.

    Raises
    ------
    AudioError
        If it does.
    """
    for place in (path.absolute(), path.resolve()):
        if "test" in map(str.lower, _below_home(place).parts):
            raise AudioError(
                f"{path} is of a test set, which is for reporting, never for training: "
                f"{place} has a folder called test; if it merely lies there, move it or rename the "
                "folder"
            )


def _below_home(place: Path) -> Path:
    """A path without the user's own folder, as its user may be called test."""
    with contextlib.suppress(RuntimeError):  # there is none
        for home in (Path.home(), Path.home().resolve()):
            if place.is_relative_to(home):
                return place.relative_to(home)
    return place
