"""Which files to separate: named files, and the songs in folders and playlists."""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from .audio.decoder import AUDIO_SUFFIXES
from .audio.tags import Tags
from .drives import FileMap, Listings, folded, in_real_folder, path_problem, real_path
from .playlists import PLAYLISTS, playlist_files

# Pictures and texts that lie beside songs; none is audio.
SIDECARS = {
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".pdf", ".txt", ".nfo", ".log", ".md",
    ".html", ".url", ".cue", ".lrc", ".json", ".md5", ".sfv",
}  # fmt: skip
# Errors of a failing disk, and of a network drive whose server does not answer.
NO_ANSWER = frozenset(
    (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH)
)
NO_AUDIO = "{} is a folder without audio files (wav, flac, mp3, ogg, opus, m4a, ...)"
STEMS_ALONE = "{} holds only stems that unetsep made: to separate them choose another -o"
# Returns which files are stems, given a folder and all names in it.
OutputsIn = Callable[[Path, Sequence[str]], Set[Path]]


@dataclass(frozen=True)
class Input:
    """A file to separate.

    Parameters
    ----------
    path
        The file.
    track
        Name of the output: the file's name without suffix, after its folders relative to
        the folder that was named. Of a folder that cannot be read: what the tracks of its songs
        start with, such as ``sub/``.
    error
        Why it cannot be separated, if that is known before opening it.
    tags
        Tags of the file, if a template needs them; see `unetsep.paths.with_tags`.
    """

    path: Path
    track: str
    error: str | None = None
    tags: Tags = field(default_factory=Tags)


def find_inputs(
    paths: Iterable[Path],
    output_dir: Path,
    on_skip: Callable[[Path], None] | None = None,
    outputs_in: OutputsIn | None = None,
    on_stem: Callable[[Path], None] | None = None,
    *,
    songs_elsewhere: bool = False,
) -> list[Input]:
    """Songs to separate: single files, and folders searched recursively.

    In folders, hidden files, files without an audio suffix, stems that records in these folders
    name, and everything under ``output_dir`` are skipped. Linked folders are searched once, under
    the link's name unless they are inside the folder themselves. If ``output_dir`` itself or a
    folder in it is searched, records in the folders above it count, too. Stems in other folders
    are songs if nothing else is found, apart from errors and links that lead nowhere. Paths that do
    not exist, unreadable folders and playlists, and those without audio become inputs with an
    error: the others continue. A file may have any name. But as a shell's ``*`` names all files of
    a folder, those among songs that are pictures or texts by their suffix are skipped, and those
    that have the name of a song, but no audio suffix.

    Parameters
    ----------
    paths
        Files, folders and playlists (m3u, m3u8).
    output_dir
        Folder of the stems.
    on_skip
        Called with every path that is skipped, except ``output_dir`` and stems.
    outputs_in
        Returns which files are stems, given a folder and all names in it.
    on_stem
        Called with every stem outside of ``output_dir`` that is skipped.
    songs_elsewhere
        Whether there are songs besides, such as those at URLs: then stems are none.
    """
    songs: list[Input] = []
    stems: list[Input] = []
    stems_above: dict[Path, Set[Path]] = {}
    for path in paths:
        problem = path_problem(path)
        if problem is None and path.suffix.lower() in PLAYLISTS and path.is_file():
            files = playlist_files(path)
            of_path = [Input(file, file.stem, error) for file, error in files]
        elif problem is None and path.is_dir():
            output = _as_searched(real_path(output_dir), real_path(path))
            search = _Search(path, output, on_skip, outputs_in, stems_above)
            of_path = search.songs()
            if not search.is_output:
                stems += search.stems
            if not of_path and (search.is_output or not search.stems):
                message = STEMS_ALONE if search.stems else NO_AUDIO
                of_path = [Input(path, path.name, message.format(path))]
        else:
            of_path = [Input(path, path.stem, problem)]
        songs += of_path
    if not songs_elsewhere and not any(map(_exists, songs)):
        songs += stems
    elif on_stem:
        named = {real_path(song.path) for song in songs} if stems else set()
        for stem in _without_duplicates(stems):
            if real_path(stem.path) not in named:
                on_stem(stem.path)
    return _without_sidecars(_without_duplicates(songs), on_skip or (lambda _: None))


def _without_sidecars(songs: Sequence[Input], on_skip: Callable[[Path], None]) -> list[Input]:
    """Songs without files that only lie beside others; all if none is a song by its suffix."""
    existing = [song.path for song in songs if not song.error]
    audio_files = list(filter(_has_audio_suffix, existing))
    if not audio_files or len(audio_files) == len(existing):
        return list(songs)
    names = set(map(_without_suffix, audio_files))
    remaining = []
    for song in songs:
        is_picture_or_text = song.path.suffix.lower() in SIDECARS
        is_sidecar = is_picture_or_text or _without_suffix(song.path) in names
        if song.error or _has_audio_suffix(song.path) or not is_sidecar:
            remaining.append(song)
        else:
            on_skip(song.path)
    return remaining


def _exists(song: Input) -> bool:
    return not song.error and path_problem(song.path) is None


def _has_audio_suffix(path: Path) -> bool:
    return path.suffix.lower() in AUDIO_SUFFIXES


def _without_suffix(path: Path) -> str:
    """A path without links in its folders and without suffix; case does not count."""
    return folded(real_path(path.parent) / path.stem)


def _without_duplicates(songs: Iterable[Input]) -> list[Input]:
    """Songs without repeated files, even if a playlist and a folder spell them differently."""
    listings, unique = Listings(), []
    songs_of: dict[str, FileMap[Input]] = {}
    for song in songs:
        namesakes = songs_of.setdefault(folded(song.track), FileMap(listings.same))
        if namesakes.setdefault(real_path(song.path), song) is song:
            unique.append(song)
    return unique


def _as_searched(output: Path, root: Path) -> Path:
    """The output folder, spelled as in the listings of a search from another folder.

    Parameters
    ----------
    output, root
        Paths without links.
    """
    depth = min(len(output.parts), len(root.parts))
    output_start, start = Path(*output.parts[:depth]), Path(*root.parts[:depth])
    listings = Listings()
    if not listings.same(output_start, start):
        return output
    path = start
    for name in output.parts[depth:]:
        path /= listings.name(path, name)
    return path


class _Search:
    """The audio files in a folder and the folders in it.

    Parameters
    ----------
    root
        The folder.
    output_dir
        A folder to skip, without links in its path.
    on_skip, outputs_in
        See `find_inputs`.
    stems_above
        Cache of the stems that records name, for each folder above the searched ones.

    Attributes
    ----------
    is_output
        Whether the folder is ``output_dir`` or in it.
    stems
        What `songs` left out as stems.
    """

    def __init__(
        self,
        root: Path,
        output_dir: Path,
        on_skip: Callable[[Path], None] | None,
        outputs_in: OutputsIn | None,
        stems_above: dict[Path, Set[Path]],
    ) -> None:
        self._root, self._output_dir = root, output_dir
        self.is_output = real_path(root).is_relative_to(output_dir)
        self._on_skip = on_skip or (lambda _: None)
        self._outputs_in = outputs_in or (lambda _folder, _names: set())
        self._stems_above = stems_above
        self._searched: set[Path] = set()
        self._links: list[Path] = []
        self._recorded: set[Path] = set()
        self.stems: list[Input] = []

    def songs(self) -> list[Input]:
        """All songs in order: those in the folder first, then those in linked folders."""
        if self.is_output:
            self._look_above()
        audio_files = self._tree(self._root)
        while self._links:
            link = self._links.pop(0)
            if real_path(self._root).is_relative_to(real_path(link)):
                self._on_skip(link)  # the folder itself, or a parent of it
            else:
                audio_files += self._tree(link)
        return self._without_stems(audio_files)

    def _without_stems(self, audio_files: Sequence[Input]) -> list[Input]:
        """Those that no record names as stems, however the drive spells their names.

        The others are added to `stems`.
        """
        if not self._recorded:
            return list(audio_files)
        # Spellings differ where a folder existed in other case, or HFS+ decomposed accents.
        recorded = FileMap[bool](Listings().same)
        for stem in self._recorded:
            recorded.setdefault(stem, True)
        songs = []
        for file in audio_files:
            if in_real_folder(file.path) in recorded:
                self.stems.append(file)
            else:
                songs.append(file)
        return songs

    def _look_above(self) -> None:
        """Collect stems that are named by records in the output's folders above this one."""
        for folder in real_path(self._root).parents:
            if not folder.is_relative_to(self._output_dir):
                return
            if folder not in self._stems_above:
                with contextlib.suppress(OSError):
                    names = os.listdir(folder)  # noqa: PTH208 (only names)
                    self._stems_above[folder] = self._stems_in(folder, names)
            self._recorded |= self._stems_above.get(folder, set())

    def _stems_in(self, folder: Path, names: Sequence[str]) -> set[Path]:
        return set(map(in_real_folder, self._outputs_in(folder, names)))

    def _tree(self, top: Path) -> list[Input]:
        """The songs in a folder and all below: its own first, then those of each folder in it."""
        songs, folders = self._listed(top)
        # A stack instead of recursion, as folders may be nested deeper than Python's calls. Skipped
        # folders and links wait there, too: the first of several links to a folder is searched.
        while folders:
            entry = folders.pop()
            path = Path(entry.path)
            if entry.name.startswith("."):
                self._on_skip(path)
            elif entry.is_symlink():
                self._links.append(path)
            else:
                inner_songs, inner_folders = self._listed(path)
                songs += inner_songs
                folders += inner_folders
        return songs

    def _listed(self, folder: Path) -> tuple[list[Input], list[os.DirEntry[str]]]:
        """The songs of one folder and, in reverse, the folders in it; none if it is skipped."""
        real = real_path(folder)
        is_output = real.is_relative_to(self._output_dir)
        if real in self._searched or (is_output and not self.is_output):
            return [], []
        self._searched.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            track = "".join(f"{part}/" for part in folder.relative_to(self._root).parts)
            return [Input(folder, track, f"{folder} cannot be read: {error.strerror}")], []
        self._recorded |= self._stems_in(folder, [entry.name for entry in entries])
        songs, folders = [], []
        for entry in entries:
            if _is_folder(entry):
                folders.append(entry)
            elif self._is_audio(entry):
                songs.append(self._input(folder / entry.name))
        return songs, folders[::-1]

    def _is_audio(self, entry: os.DirEntry[str]) -> bool:
        audio = not entry.name.startswith(".") and _has_audio_suffix(Path(entry.name))
        if not audio:
            self._on_skip(Path(entry.path))
        return audio

    def _input(self, path: Path) -> Input:
        return Input(path, track_name(path.relative_to(self._root)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one.

    Entries of a drive that does not answer count as folders: the error of reading them tells
    what is wrong.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno in NO_ANSWER


def count_kinds(paths: Iterable[Path]) -> str:
    """Numbers of files by kind of name, such as ``12 .jpg, 3 hidden, 1 circular`` link."""
    kinds = Counter(
        "hidden"
        if path.name.startswith(".")
        else "circular"
        if os.path.isdir(path)  # noqa: PTH112 (raises no error)
        else path.suffix.lower() or "without suffix"
        for path in paths
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def track_name(relative: PurePath) -> str:
    """Name of a song's output, from its path relative to the folder that was named."""
    # Not with_name: it refuses the stem of names such as "..wav".
    return "/".join((*relative.parts[:-1], relative.stem))
