"""Which files to separate, and where their stems go, before any work starts."""

from __future__ import annotations

import codecs
import os
import re
import string
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from .audio.decoder import AUDIO_SUFFIXES
from .audio.tags import Tags, read_tags, stem_label
from .errors import AudioError, UnetsepError

TEMPLATE = "{track}/{stem}.{ext}"
# Where there is but one file for each song: that without a stem, or that with all of them.
WITHOUT_TEMPLATE = "{track} ({label}).{ext}"
TOGETHER_TEMPLATE = "{track}.{ext}"
PLAYLISTS = (".m3u", ".m3u8")
# Names that Windows keeps for itself, whatever the suffix.
DEVICES = re.compile(r"(?i)con|prn|aux|nul|com[0-9]|lpt[0-9]")
# Of two letters at least: C:/song.wav is no URL.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Fields of templates that are filled from tags, and what stands where a tag is missing; for the
# title it is the track's name.
TAG_FIELDS = {
    "artist": "Unknown Artist",
    "title": "",
    "album": "Unknown Album",
    "albumartist": "Unknown Artist",
    "tracknumber": "00",
    "year": "0000",
}
FIELDS = ("track", "stem", "label", "ext", "model", "suffix", *TAG_FIELDS)
STEMS_ALONE = "{} holds stems alone, which were made here: to separate them choose another -o"
# Which files are stems, by a folder and all names in it.
OutputsIn = Callable[[Path, Sequence[str]], Set[Path]]
# Of UTF-8, for what a tag adds to a name: file systems take 255 for the whole name.
TAG_BYTES = 100


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
        What the file says of the song, where a template asks for that; see `with_tags`.
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
    in it, the stems there are no songs. Paths that do not exist, folders that cannot be
    read and folders without audio become inputs with an error: they must not stop the others.

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
    inputs: dict[tuple[Path, str], Input] = {}
    for path in paths:
        problem = _problem(path)
        if problem is None and path.suffix.lower() in PLAYLISTS and path.is_file():
            found = _playlist(path) or [
                Input(path, path.stem, f"{path} is a playlist without songs")
            ]
        elif problem is None and path.is_dir():
            search = _Search(path, _real(output_dir), left_out, outputs_in)
            suffixes = "wav, flac, mp3, ogg, opus, m4a, ..."
            message = f"{path} is a folder without audio files ({suffixes})"
            found = search.inputs() or [
                Input(path, path.name, STEMS_ALONE.format(path) if search.has_stems else message)
            ]
        else:
            found = [Input(path, _track(Path(path.name)), problem)]
        for file in found:
            inputs.setdefault((_real(file.path), file.track), file)
    return list(inputs.values())


def _real(path: Path) -> Path:
    """The path without links; unlike `Path.resolve` it takes links that lead in circles."""
    return Path(os.path.realpath(path))


def _in_real_folder(path: Path) -> Path:
    """A file's path without links but itself."""
    return _real(path.parent) / path.name


def _problem(path: Path) -> str | None:
    """Why a path that was given cannot be looked at, if it cannot."""
    try:
        return None if path.exists() else f"{path} does not exist"
    except OSError as error:  # a name too long, a folder that may not be entered
        return f"{path} cannot be opened: {error.strerror}"


def _playlist(path: Path) -> list[Input]:
    """The songs that a playlist names, as they follow each other."""
    raw = as_utf8(path.read_bytes())
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:  # of programs from before UTF-8
        text = raw.decode("cp1252", "replace")
    names = [line.strip() for line in text.splitlines()]
    return [_listed(path, name) for name in names if name and not name.startswith("#")]


def as_utf8(raw: bytes) -> bytes:
    """A text whose mark says UTF-16, as PowerShell writes it, or UTF-32, as UTF-8; others as is."""
    # The mark of UTF-32 begins with that of UTF-16.
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return raw.decode("utf-32", "replace").encode()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace").encode()
    return raw


def _listed(playlist: Path, name: str) -> Input:
    if URL.match(name):
        problem = f"{playlist} names a URL, {name}: download it first"
        return Input(Path(name), _track(Path(Path(name).name)), problem)
    path = playlist.parent / name
    if "\\" in name and not path.exists():  # written on Windows
        path = playlist.parent / name.replace("\\", "/")
    return Input(path, _track(Path(path.name)), _problem(path))


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
    """

    def __init__(
        self,
        root: Path,
        output_dir: Path,
        left_out: Callable[[Path], None] | None,
        outputs_in: OutputsIn | None,
    ) -> None:
        self._root, self._output_dir = root, output_dir
        self._is_output = _real(root).is_relative_to(output_dir)
        self._left_out = left_out or (lambda _: None)
        self._outputs_in = outputs_in or (lambda _folder, _names: set())
        self._searched: set[Path] = set()
        self._links: list[Path] = []
        self._stems: set[Path] = set()
        self.has_stems = False

    def inputs(self) -> list[Input]:
        """All of them in order: what lies there first, then what is linked."""
        inputs = self._folder(self._root)
        while self._links:
            link = self._links.pop(0)
            if _real(self._root).is_relative_to(_real(link)):
                self._left_out(link)  # the folder itself, or one that it lies in
            else:
                inputs += self._folder(link)
        songs = [file for file in inputs if _in_real_folder(file.path) not in self._stems]
        self.has_stems = len(songs) < len(inputs)
        return songs

    def _folder(self, folder: Path) -> list[Input]:
        real = _real(folder)
        is_output = real.is_relative_to(self._output_dir)
        if real in self._searched or (is_output and not self._is_output):
            return []
        self._searched.add(real)
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            track = folder.relative_to(self._root).as_posix()
            return [Input(folder, track, f"{folder} cannot be read: {error.strerror}")]
        if self._is_output:
            stems = self._outputs_in(folder, [entry.name for entry in entries])
            self._stems.update(map(_in_real_folder, stems))
        files = [entry for entry in entries if not os.path.isdir(entry)]  # noqa: PTH112 (no errors)
        inputs = [self._input(folder / entry.name) for entry in files if self._is_audio(entry)]
        for entry in entries:
            path = folder / entry.name
            if entry in files:
                continue
            if entry.name.startswith("."):
                self._left_out(path)
            elif entry.is_symlink():
                self._links.append(path)
            else:
                inputs += self._folder(path)
        return inputs

    def _is_audio(self, entry: os.DirEntry[str]) -> bool:
        suffix = Path(entry.name).suffix.lower()
        audio = not entry.name.startswith(".") and suffix in AUDIO_SUFFIXES
        if not audio:
            self._left_out(Path(entry.path))
        return audio

    def _input(self, path: Path) -> Input:
        return Input(path, _track(path.relative_to(self._root)))


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
        If it is empty, a URL, which would lose a slash as a path, or something else.
    """
    if not isinstance(value, (str, os.PathLike)) or not os.fspath(value):
        raise ValueError(f"{what} must be a path, got {value!r}")
    if isinstance(value, str) and is_url(value):
        raise ValueError(f"{value} is a URL: download it first")
    return Path(value)


def is_url(text: str) -> bool:
    """Whether a text begins as URLs do."""
    return URL.match(text) is not None


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


def _track(relative: Path) -> str:
    # Not with_name: it refuses what remains of names such as "..wav".
    return "/".join((*relative.parts[:-1], relative.stem))


def target_path(
    template: str,
    track: str,
    stem: str,
    ext: str,
    model: str,
    suffix: str = "",
    tags: Tags | None = None,
) -> Path:
    """Relative output path for one stem.

    Parameters
    ----------
    template
        With ``{track}``, ``{stem}``, ``{label}`` (the stem for people: Instrumental), ``{ext}``,
        ``{model}``, ``{suffix}`` (the input's suffix without dot) and `TAG_FIELDS`.
    track, stem, ext, model, suffix
        The values.
    tags
        Where the others come from.
    """
    values = {"track": track, "stem": stem, "ext": ext, "model": model, "suffix": suffix}
    values |= {"label": stem_label(stem)} | _tag_values(tags or Tags(), track)
    # Of the template, not of a name, a dot is the folder itself.
    template = "/".join(part for part in template.split("/") if part != ".")
    return Path(*(_portable(part) for part in template.format(**values).split("/") if part))


def song_target(template: str, song: Input, stem: str, ext: str, model: str) -> Path:
    """`target_path` for a song's stem."""
    return target_path(template, song.track, stem, ext, model, song.path.suffix[1:], song.tags)


def uses_tags(template: str) -> bool:
    """Whether a template has fields that are filled from tags."""
    return any(name in TAG_FIELDS for _, name, _, _ in string.Formatter().parse(template))


def with_tags(songs: Iterable[Input], template: str) -> list[Input]:
    """The songs with their tags, which are read only if the template asks for them."""
    if not uses_tags(template):
        return list(songs)
    return [song if song.error else replace(song, tags=read_tags(song.path)) for song in songs]


def _tag_values(tags: Tags, track: str) -> dict[str, str]:
    """What tags put into names that every file system takes."""
    number = tags.text("tracknumber").partition("/")[0].strip()
    year = re.search(r"\d{4}", tags.text("date"))
    texts = {name: tags.text(name) for name in TAG_FIELDS}
    texts["tracknumber"] = number.zfill(2) if number else ""
    texts["year"] = year[0] if year else ""
    texts["title"] = texts["title"] or track.rpartition("/")[2]
    texts["albumartist"] = texts["albumartist"] or texts["artist"]
    return {name: _safe(texts[name]) or missing for name, missing in TAG_FIELDS.items()}


def _safe(text: str) -> str:
    """A part of a name that is safe on every file system, whatever the present one is."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(r'[\x00-\x1f\x7f<>:"|?*\\/]', "_", text)
    # Hidden files begin with a dot; Windows drops dots and blanks at the end.
    text = re.sub(r"^\.", "_", text.strip()).rstrip(" .")
    raw = text.encode("utf-8", "surrogateescape")[:TAG_BYTES]
    text = raw.decode("utf-8", "ignore").rstrip(" .") if len(raw) == TAG_BYTES else text
    return f"{text}_" if DEVICES.fullmatch(text.split(".")[0]) else text


def check_template(template: str) -> None:
    """Refuse templates with unknown fields, or that lead out of the output folder."""
    if not isinstance(template, str):
        raise ValueError(f"filename must be a template such as {TEMPLATE}, got {template!r}")
    try:
        parsed = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"filename template {template!r}: {error}") from error
    if any(name not in FIELDS or spec or conversion for name, spec, conversion in parsed):
        names = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise ValueError(f"filename template {template!r}: expected nothing but {names} in braces")
    if Path(template).is_absolute() or ".." in Path(template).parts:
        raise ValueError(f"filename template {template!r} must stay inside the output folder")
    if template.rpartition("/")[2] in ("", "."):
        raise ValueError(f"filename template {template!r} must end with the name of a file")


def _portable(name: str) -> str:
    """A song's name, as the usual file systems of this platform take it.

    No trailing dots or blanks, no control codes; on Windows nothing that it refuses. Elsewhere
    the rest stays: people look for their songs by the names that they gave them. What tags
    say is changed for all platforms, by `_safe`.
    """
    illegal = r'[\x00-\x1f<>:"|?*\\]' if os.name == "nt" else r"[\x00-\x1f]"
    name = re.sub(illegal, "_", name).rstrip(" .") or "_"
    return f"{name}_" if os.name == "nt" and DEVICES.fullmatch(name.split(".")[0]) else name


def _same_file_key(path: Path) -> str:
    """Equal for names that the usual file systems of this platform take for the same."""
    if sys.platform not in ("win32", "darwin"):
        return str(path)
    return unicodedata.normalize("NFC", str(path)).casefold()


def plan(
    inputs: Sequence[Input],
    models: Sequence[tuple[str, Sequence[str]]],
    output_dir: Path,
    template: str,
    ext: str,
    *,
    together: bool = False,
) -> list[list[list[Path]]]:
    """Targets of every input, model and stem, all different and none an input.

    Parameters and result are those of `name_targets`.

    Raises
    ------
    UnetsepError
        If two outputs would have the same name, an output would be written over an input,
        or the output folder is a file.
    """
    inputs = with_tags(inputs, template)
    targets = name_targets(inputs, models, output_dir, template, ext, together=together)
    for file, clash in zip(inputs, find_clashes(inputs, targets), strict=True):
        if clash and not file.error:
            raise UnetsepError(clash)
    return targets


def name_targets(
    inputs: Sequence[Input],
    models: Sequence[tuple[str, Sequence[str]]],
    output_dir: Path,
    template: str,
    ext: str,
    *,
    together: bool = False,
) -> list[list[list[Path]]]:
    """Targets of every input, model and stem.

    Parameters
    ----------
    inputs
        See `find_inputs`.
    models
        Name and output stems of each model. With more than one, each gets a folder of its
        own unless the template names ``{model}``.
    output_dir, template, ext
        Where and how to name them.
    together
        All stems of a model are in one file, whose path stands for each of them.

    Returns
    -------
    list
        For each input, for each model, the paths of its stems.

    Raises
    ------
    UnetsepError
        If several stems of a song would have the same name, or the output folder is a file.
    """
    check_template(template)
    if output_dir.exists() and not output_dir.is_dir():
        raise UnetsepError(f"output {output_dir} is a file: name a folder with -o")
    template = template_for(template, len(models))
    targets = []
    for file in inputs:
        per_model = [
            [
                output_dir / song_target(template, file, "stems" if together else stem, ext, name)
                for stem in stems
            ]
            for name, stems in models
        ]
        targets.append(per_model)
        files = [dict.fromkeys(paths) if together else paths for paths in per_model]
        _refuse_equal(file, [path for paths in files for path in paths])
    return targets


def template_for(template: str, models: int) -> str:
    """The template, with a folder for each of several models unless it names them."""
    return template if models == 1 or "{model}" in template else "{model}/" + template


def _refuse_equal(file: Input, paths: Sequence[Path]) -> None:
    """Raise if stems of one song have the same name: so will those of any other."""
    keys = [_same_file_key(path) for path in paths]
    if len(set(keys)) < len(keys):
        path = next(path for path, key in zip(paths, keys, strict=True) if keys.count(key) > 1)
        raise UnetsepError(
            f"several stems of {file.path} would be written to {path}: name {{stem}} in --filename"
        )


def find_clashes(
    inputs: Sequence[Input],
    targets: Sequence[Sequence[Sequence[Path]]],
    others: Iterable[Input] = (),
) -> list[str | None]:
    """For each input, why its stems cannot have their names, if they cannot.

    Of two songs that would write the same file both have a clash: neither has the better
    right to it. Nor may stems be written over ``others``, inputs that are separated elsewhere.
    """
    originals = {_same_file_key(_real(file.path)) for file in (*inputs, *others)}
    owners: dict[str, list[int]] = {}
    clashes: list[str | None] = [file.error for file in inputs]
    for index, (file, per_model) in enumerate(zip(inputs, targets, strict=True)):
        for path in (path for paths in per_model for path in paths):
            if file.error:
                continue
            key = _same_file_key(path)
            if key in originals or _same_file_key(_real(path)) in originals:
                clashes[index] = (
                    f"{path} would be written over an input: choose another folder with -o"
                )
            owners.setdefault(key, []).append(index)
            first = owners[key][0]
            if first != index:
                clashes[first] = clashes[index] = (
                    f"{inputs[first].path} and {file.path} would both be written to {path}: give "
                    "--filename more fields, such as {track}-{suffix}/{stem}.{ext}"
                )
    return clashes


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise if any of the files exists: nothing is ever overwritten without being asked.

    Raises
    ------
    AudioError
        If so, or if one cannot be looked at.
    """
    existing = [path for path in dict.fromkeys(paths) if _exists(path)]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise AudioError(
            f"{existing[0]}{more} exists already: use --overwrite or --skip-existing, "
            "or another output folder"
        )


def _exists(path: Path) -> bool:
    """Whether something has a name; links that lead nowhere are in the way, too."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a name too long, a folder that may not be entered
        raise AudioError(f"{path} cannot be written: {error.strerror}") from error
    return True
