"""Which files to separate: named files, and the songs in folders and playlists."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from urllib.parse import unquote

from .audio.decoder import AUDIO_SUFFIXES
from .audio.tags import Tags
from .drives import FileMap, Listings, folded, path_problem

PLAYLISTS = (".m3u", ".m3u8")
# Pictures and texts that lie beside songs; none is audio.
SIDECARS = {
    ".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".pdf", ".txt", ".nfo", ".log", ".md",
    ".html", ".url", ".cue", ".lrc", ".json", ".md5", ".sfv",
}  # fmt: skip
# The scheme has at least two letters: C:/song.wav is not a URL.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# URL of a file on this machine; its percent-encoded path follows.
FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
# On Windows also the URL of a file on another machine, whose path starts with two slashes.
SHARE_URL = re.compile(r"file://(?=[^/])", re.IGNORECASE)
# Encodings of names before UTF-8: on Windows those of windows and of terminals (dir); elsewhere
# that of western Windows.
OLD_ENCODINGS = ("mbcs", "oem") if os.name == "nt" else ("cp1252",)
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
            of_path = _playlist(path) or [
                Input(path, path.stem, f"{path} is a playlist without songs")
            ]
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


def real_path(path: Path) -> Path:
    """The path without links; unlike `Path.resolve` it allows circular links."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a NUL in the name: no such file can exist
        return path


def in_real_folder(path: Path) -> Path:
    """A file's path without links in its folders; the file itself may be one."""
    return real_path(path.parent) / path.name


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


def _playlist(path: Path) -> list[Input]:
    """The songs of a playlist, in order."""
    try:
        raw = as_utf8(path.read_bytes())
    except OSError as error:
        return [Input(path, path.stem, f"{path} cannot be read: {error.strerror}")]
    # Not splitlines: it splits at characters that names may hold, such as U+2028.
    lines = re.split(rb"\r\n|\r|\n", raw.removeprefix(codecs.BOM_UTF8))
    names = [_decoded(line.strip(b" \t"), path.parent) for line in lines]
    return [_playlist_song(path, name) for name in names if name and not name.startswith("#")]


def _decoded(name: bytes, folder: Path) -> str:
    """A name in a playlist: UTF-8, the bytes of an existing file, or an older encoding."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raw = name.decode(errors="surrogateescape")
        exists = os.path.exists(folder / raw)  # noqa: PTH110 (no errors)
        return raw if exists else from_old_encoding(name, folder)


def from_old_encoding(name: bytes, folder: Path) -> str:
    """Decode a name that is not UTF-8, preferably as that of an existing file.

    Parameters
    ----------
    name
        As some program wrote it.
    folder
        Folder of the name, unless it is absolute.
    """
    texts = [name.decode(encoding, "replace") for encoding in OLD_ENCODINGS]
    existing = (text for text in texts if os.path.exists(folder / text))  # noqa: PTH110 (no errors)
    return next(existing, texts[0])


def as_utf8(raw: bytes) -> bytes:
    """Convert a text with a byte order mark of UTF-16 (PowerShell) or UTF-32 to UTF-8."""
    # The mark of UTF-32 starts with that of UTF-16.
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return raw.decode("utf-32", "replace").encode()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace").encode()
    return raw


def _playlist_song(playlist: Path, name: str) -> Input:
    name = without_scheme(name)
    name = name.replace("\0", "\ufffd")  # from bytes that are not text: no file name has it
    if URL.match(name):
        error = f"{playlist} names a URL, {name}: name it on the command line, or download it"
        return Input(Path(name), Path(name).stem, error)
    slashed = name.replace("\\", "/")  # written on Windows
    # The playlist or the file may come from a system that decomposes accents, or one that does not.
    forms = [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    paths = [playlist.parent / each for each in dict.fromkeys([name, slashed, *forms])]
    existing = (path for path in paths if path_problem(path) is None)
    path = next(existing, playlist.parent / slashed)
    return Input(path, path.stem, path_problem(path))


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


def as_path(value: str | os.PathLike[str], what: str = "song") -> Path:
    """A path from an argument of Python code or a command line.

    Parameters
    ----------
    value
        The path.
    what
        Name of the argument, for messages.

    Raises
    ------
    ValueError
        If it is empty, a URL of another machine, or not a path.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f"{what} must be a path, got {value!r}")
    if isinstance(value, str):
        value = without_scheme(value)
        if is_url(value):
            raise ValueError(f"{value} is a URL: download it first")
    return Path(value)


def is_url(text: str) -> bool:
    """Whether a text starts like a URL."""
    return URL.match(text) is not None


def without_scheme(text: str) -> str:
    """The path of a URL of a file on this machine; any other text unchanged.

    File managers give such URLs when a song is dragged or copied.
    """
    windows = os.name == "nt"
    local = FILE_URL.match(text) or (SHARE_URL.match(text) if windows else None)
    if local is None:
        return text
    path = unquote(text[local.end() :], errors="surrogateescape").replace("\0", "\ufffd")
    return _windows_path(path, share=local.re is SHARE_URL) if windows else path


def _windows_path(path: str, *, share: bool) -> str:
    """The path after ``file://``; browsers write up to five slashes before a server."""
    drive = re.match(r"/*(?=[A-Za-z]:)", path)
    if drive:
        return path[drive.end() :]
    return "//" + path.lstrip("/") if share or path.startswith("//") else path


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
