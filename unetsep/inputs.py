"""Which files to separate: those that are named, and what folders and playlists hold."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from urllib.parse import unquote

from .audio.decoder import AUDIO_SUFFIXES
from .audio.tags import Tags
from .drives import Listings, Places, folded, why_not_there

PLAYLISTS = (".m3u", ".m3u8")
# Of two letters at least: C:/song.wav is no URL.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Of a file on this machine; what follows is its path, in which % begins the number of a byte.
FILE_URL = re.compile(r"file://(?:localhost)?(?=/)", re.IGNORECASE)
# On Windows also that of a file of another machine, whose path begins with two slashes.
SHARE_URL = re.compile(r"file://(?=[^/])", re.IGNORECASE)
# How programs wrote names before UTF-8: on Windows those with windows, and those in terminals,
# as dir; elsewhere those of Windows in the west.
OLD_ENCODINGS = ("mbcs", "oem") if os.name == "nt" else ("cp1252",)
# What a disk that fails says of a file, and a network drive whose server is away.
NO_ANSWER = frozenset(
    (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH)
)
NO_AUDIO = "{} is a folder without audio files (wav, flac, mp3, ogg, opus, m4a, ...)"
STEMS_ALONE = "{} holds stems alone, which were made here: to separate them choose another -o"
# Which files are stems, by a folder and all names in it.
OutputsIn = Callable[[Path, Sequence[str]], Set[Path]]


@dataclass(frozen=True)
class Input:
    """A file to separate.

    Parameters
    ----------
    path
        The file.
    track
        What the output is called: the file's name without suffix, after its folders
        relative to the folder that was given.
    error
        Why it cannot be separated, if that is known already.
    tags
        What the file says of the song, where a template asks for that; see
        `unetsep.paths.with_tags`.
    """

    path: Path
    track: str
    error: str | None = None
    tags: Tags = field(default_factory=Tags)


def find_inputs(
    paths: Iterable[Path],
    output_dir: Path,
    left_out: Callable[[Path], None] | None = None,
    outputs_in: OutputsIn | None = None,
) -> list[Input]:
    """Files as they are given, folders searched recursively.

    Hidden files and what lies under ``output_dir`` are passed over in folders, and so is what
    has no suffix of audio. Folders that are linked are searched once, under the link's name
    unless they lie in the folder themselves. Where ``output_dir`` itself is searched, or a folder
    in it, the stems there are no songs. Paths that do not exist, folders and playlists that cannot
    be read and those without audio become inputs with an error: they must not stop the others.

    Parameters
    ----------
    paths
        Files, folders and playlists (m3u, m3u8).
    output_dir
        Where the stems go.
    left_out
        Called with every path in the folders that was passed over, but for ``output_dir``.
    outputs_in
        Which files are stems, by a folder and all names in it.
    """
    inputs: list[Input] = []
    stems_above: dict[Path, Set[Path]] = {}
    for path in paths:
        problem = why_not_there(path)
        if problem is None and path.suffix.lower() in PLAYLISTS and path.is_file():
            found = _playlist(path) or [
                Input(path, path.stem, f"{path} is a playlist without songs")
            ]
        elif problem is None and path.is_dir():
            output = _as_searched(real_path(output_dir), real_path(path))
            search = _Search(path, output, left_out, outputs_in, stems_above)
            found = search.inputs()
            if not found:
                message = STEMS_ALONE if search.has_stems else NO_AUDIO
                found = [Input(path, path.name, message.format(path))]
        else:
            found = [Input(path, track_name(Path(path.name)), problem)]
        inputs += found
    return _each_once(inputs)


def _each_once(inputs: Iterable[Input]) -> list[Input]:
    """Each file of a track once, whose names may differ, as that in a playlist and in a folder."""
    listings, songs = Listings(), []
    once: dict[str, Places[Input]] = {}
    for file in inputs:
        places = once.setdefault(folded(file.track), Places(listings.same))
        if places.setdefault(real_path(file.path), file) is file:
            songs.append(file)
    return songs


def real_path(path: Path) -> Path:
    """The path without links; unlike `Path.resolve` it takes links that lead in circles."""
    try:
        return Path(os.path.realpath(path))
    except ValueError:  # a NUL in the name, by which nothing can be there
        return path


def in_real_folder(path: Path) -> Path:
    """A file's path without links but itself."""
    return real_path(path.parent) / path.name


def _as_searched(output: Path, root: Path) -> Path:
    """The output folder by the name that a search from another folder finds it by.

    Parameters
    ----------
    output, root
        Without links.
    """
    depth = min(len(output.parts), len(root.parts))
    shared, top = Path(*output.parts[:depth]), Path(*root.parts[:depth])
    listings = Listings()
    if not listings.same(shared, top):
        return output
    place = top
    for name in output.parts[depth:]:
        place /= listings.name(place, name)
    return place


def _playlist(path: Path) -> list[Input]:
    """The songs that a playlist names, as they follow each other."""
    try:
        raw = as_utf8(path.read_bytes())
    except OSError as error:
        return [Input(path, path.stem, f"{path} cannot be read: {error.strerror}")]
    # Not splitlines: to it characters end lines that names may hold, such as U+2028.
    lines = re.split(rb"\r\n|\r|\n", raw.removeprefix(codecs.BOM_UTF8))
    names = [_decoded(line.strip(b" \t"), path.parent) for line in lines]
    return [_named(path, name) for name in names if name and not name.startswith("#")]


def _decoded(name: bytes, folder: Path) -> str:
    """A name in a playlist: UTF-8, bytes of a file that is there, or as programs before UTF-8."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        as_it_is = name.decode(errors="surrogateescape")
        exists = os.path.exists(folder / as_it_is)  # noqa: PTH110 (no errors)
        return as_it_is if exists else from_old_encoding(name, folder)


def from_old_encoding(name: bytes, folder: Path) -> str:
    """A name that is no UTF-8, read as that of a file that is there.

    Parameters
    ----------
    name
        As some program wrote it.
    folder
        From which it leads to the file, unless it is absolute.
    """
    texts = [name.decode(encoding, "replace") for encoding in OLD_ENCODINGS]
    there = (text for text in texts if os.path.exists(folder / text))  # noqa: PTH110 (no errors)
    return next(there, texts[0])


def as_utf8(raw: bytes) -> bytes:
    """A text whose mark says UTF-16, as PowerShell writes it, or UTF-32, as UTF-8; others as is."""
    # The mark of UTF-32 begins with that of UTF-16.
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return raw.decode("utf-32", "replace").encode()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace").encode()
    return raw


def _named(playlist: Path, name: str) -> Input:
    name = without_scheme(name)
    name = name.replace("\0", "\ufffd")  # as of bytes that are no text: no name has it
    if URL.match(name):
        why = f"{playlist} names a URL, {name}: name it on the command line, or download it"
        return Input(Path(name), track_name(Path(Path(name).name)), why)
    slashed = name.replace("\\", "/")  # written on Windows
    # Written, or copied here, by a system that takes accents apart, or one that does not.
    forms = [unicodedata.normalize(form, slashed) for form in ("NFC", "NFD")]
    places = [playlist.parent / each for each in dict.fromkeys([name, slashed, *forms])]
    there = (place for place in places if why_not_there(place) is None)
    path = next(there, playlist.parent / slashed)
    return Input(path, track_name(Path(path.name)), why_not_there(path))


class _Search:
    """The audio files in a folder and the folders in it.

    Parameters
    ----------
    root
        The folder.
    output_dir
        A folder that is passed over, without links in its path.
    left_out, outputs_in
        See `find_inputs`.
    stems_above
        What records in folders above those that are searched tell: there may be many of both.
    """

    def __init__(
        self,
        root: Path,
        output_dir: Path,
        left_out: Callable[[Path], None] | None,
        outputs_in: OutputsIn | None,
        stems_above: dict[Path, Set[Path]],
    ) -> None:
        self._root, self._output_dir = root, output_dir
        self._is_output = real_path(root).is_relative_to(output_dir)
        self._left_out = left_out or (lambda _: None)
        self._outputs_in = outputs_in or (lambda _folder, _names: set())
        self._stems_above = stems_above
        self._searched: set[Path] = set()
        self._links: list[Path] = []
        self._stems: set[Path] = set()
        self.has_stems = False

    def inputs(self) -> list[Input]:
        """All of them in order: what lies there first, then what is linked."""
        if self._is_output:
            self._look_above()
        inputs = self._tree(self._root)
        while self._links:
            link = self._links.pop(0)
            if real_path(self._root).is_relative_to(real_path(link)):
                self._left_out(link)  # the folder itself, or one that it lies in
            else:
                inputs += self._tree(link)
        songs = self._without_stems(inputs)
        self.has_stems = len(songs) < len(inputs)
        return songs

    def _without_stems(self, inputs: Sequence[Input]) -> list[Input]:
        """Those of the inputs that no record names, however the drive spells what it lists."""
        if not self._stems:
            return list(inputs)
        # Such as a folder that was there in other case, or what HFS+ has taken apart.
        recorded = Places[bool](Listings().same)
        for stem in self._stems:
            recorded.setdefault(stem, True)
        return [file for file in inputs if in_real_folder(file.path) not in recorded]

    def _look_above(self) -> None:
        """Note stems in the folder of which records tell that lie above it, in the output."""
        for folder in real_path(self._root).parents:
            if not folder.is_relative_to(self._output_dir):
                return
            if folder not in self._stems_above:
                with contextlib.suppress(OSError):
                    names = os.listdir(folder)  # noqa: PTH208 (names alone)
                    self._stems_above[folder] = self._stems_in(folder, names)
            self._stems |= self._stems_above.get(folder, set())

    def _stems_in(self, folder: Path, names: Sequence[str]) -> set[Path]:
        return set(map(in_real_folder, self._outputs_in(folder, names)))

    def _tree(self, top: Path) -> list[Input]:
        """The songs in a folder and all below: its own, then those of each folder in it."""
        inputs: list[Input] = []
        # Folders may lie deeper than calls may: each has its search here, on hold for those in it.
        searches = [self._folder(top, inputs)]
        while searches:
            inner = next(searches[-1], None)
            if inner is None:
                searches.pop()
            else:
                searches.append(self._folder(inner, inputs))
        return inputs

    def _folder(self, folder: Path, inputs: list[Input]) -> Iterator[Path]:
        """Add the songs of one folder, and yield the folders in it that are to be searched."""
        real = real_path(folder)
        is_output = real.is_relative_to(self._output_dir)
        if real in self._searched or (is_output and not self._is_output):
            return
        self._searched.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            track = folder.relative_to(self._root).as_posix()
            inputs.append(Input(folder, track, f"{folder} cannot be read: {error.strerror}"))
            return
        if self._is_output:
            self._stems |= self._stems_in(folder, [entry.name for entry in entries])
        folders = []
        for entry in entries:
            if _is_folder(entry):
                folders.append(entry)
            elif self._is_audio(entry):
                inputs.append(self._input(folder / entry.name))
        for entry in folders:
            path = folder / entry.name
            if entry.name.startswith("."):
                self._left_out(path)
            elif entry.is_symlink():
                self._links.append(path)
            else:
                yield path

    def _is_audio(self, entry: os.DirEntry[str]) -> bool:
        suffix = Path(entry.name).suffix.lower()
        audio = not entry.name.startswith(".") and suffix in AUDIO_SUFFIXES
        if not audio:
            self._left_out(Path(entry.path))
        return audio

    def _input(self, path: Path) -> Input:
        return Input(path, track_name(path.relative_to(self._root)))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether a name in a folder is that of one, or of a link to one.

    What lies on a drive that does not answer counts as one: the error of reading it says what is
    wrong.
    """
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno in NO_ANSWER


def as_path(value: str | os.PathLike[str], what: str = "song") -> Path:
    """A path as Python code and command lines give it.

    Parameters
    ----------
    value
        The path.
    what
        Of what, for messages.

    Raises
    ------
    ValueError
        If it is empty, a URL of another machine, or something else.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f"{what} must be a path, got {value!r}")
    if isinstance(value, str):
        value = without_scheme(value)
        if is_url(value):
            raise ValueError(f"{value} is a URL: download it first")
    return Path(value)


def is_url(text: str) -> bool:
    """Whether a text begins as URLs do."""
    return URL.match(text) is not None


def without_scheme(text: str) -> str:
    """The path that a URL of a file on this machine stands for; any other text as it is.

    File managers write names so, where a song is dragged or copied from them.
    """
    windows = os.name == "nt"
    local = FILE_URL.match(text) or (SHARE_URL.match(text) if windows else None)
    if local is None:
        return text
    path = unquote(text[local.end() :], errors="surrogateescape").replace("\0", "\ufffd")
    return _windows_path(path, share=local.re is SHARE_URL) if windows else path


def _windows_path(path: str, *, share: bool) -> str:
    """What is behind the ``file://`` of a URL; browsers have up to five slashes before a server."""
    drive = re.match(r"/*(?=[A-Za-z]:)", path)
    if drive:
        return path[drive.end() :]
    return "//" + path.lstrip("/") if share or path.startswith("//") else path


def count_kinds(paths: Iterable[Path]) -> str:
    """What some files are by their names, such as ``12 .jpg, 3 hidden, 1 circular`` link."""
    kinds = Counter(
        "hidden"
        if path.name.startswith(".")
        else "circular"
        if os.path.isdir(path)  # noqa: PTH112 (no errors where it may not be entered)
        else path.suffix.lower() or "without suffix"
        for path in paths
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def track_name(relative: PurePath) -> str:
    """What the output of a song is called, by its path from the folder that was given on."""
    # Not with_name: it refuses what remains of names such as "..wav".
    return "/".join((*relative.parts[:-1], relative.stem))
