"""Paths of the stems of songs, planned before any work starts."""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from .audio.formats import CONTAINERS, either
from .audio.tags import Tags, read_tags, stem_label
from .drives import (
    FORBIDDEN,
    FileMap,
    NameRules,
    folded,
    in_real_folder,
    real_path,
    stray_quote,
    without_illegal,
    without_reserved,
)
from .errors import AudioError, UnetsepError
from .inputs import Input
from .locations import is_url

TEMPLATE = "{track}/{stem}.{ext}"
# For a single file per song: the song without a stem, or all stems together.
WITHOUT_TEMPLATE = "{track} ({label}).{ext}"
TOGETHER_TEMPLATE = "{track}.{ext}"
# Fields of templates that are filled from tags, and their defaults for missing tags; the default
# title is the track's name.
TAG_FIELDS = {
    "artist": "Unknown Artist",
    "title": "",
    "album": "Unknown Album",
    "albumartist": "Unknown Artist",
    "tracknumber": "00",
    "year": "0000",
}
FIELDS = ("track", "stem", "label", "ext", "model", "suffix", "folder", *TAG_FIELDS)
# For each model, the paths of the stems of one song.
SongTargets = list[list[Path]]
# Most bytes of UTF-8 that a tag adds to a name: file systems allow 255 for the whole name.
TAG_BYTES = 100


class ModelNames(NamedTuple):
    """The name of a model, and those of the stems that are written."""

    name: str
    stems: Sequence[str]


def target_path(template: str, song: Input, stem: str, ext: str, model: str) -> Path:
    """Relative output path of one stem.

    Parameters
    ----------
    template
        With ``{track}``, ``{stem}``, ``{label}`` (the stem for people: Instrumental), ``{ext}``,
        ``{model}``, ``{suffix}`` (the input's suffix without dot), ``{folder}`` (name of the
        input's folder) and `TAG_FIELDS`.
    song
        The song, with its tags if the template needs them.
    stem, ext, model
        The other values.
    """
    values = {"track": song.track, "stem": stem, "ext": ext, "model": model}
    folder = os.path.basename(os.path.abspath(song.path.parent))  # noqa: PTH100, PTH119
    values |= {"label": stem_label(stem), "suffix": song.path.suffix[1:], "folder": folder}
    values |= _tag_values(song.tags, song.track)
    # A dot in the template means the folder itself; in a name it stays.
    template = "/".join(part for part in _slashed(template).split("/") if part != ".")
    return Path(*(_portable(part) for part in template.format(**values).split("/") if part))


def uses_tags(template: str) -> bool:
    """Whether a template has fields that are filled from tags."""
    return not TAG_FIELDS.keys().isdisjoint(_fields(template))


def refuse_folder(template: str) -> None:
    """Refuse ``{folder}`` for songs that are not files: their copies are in folders of ours."""
    if "folder" in _fields(template):
        raise ValueError(
            f"filename template {template!r}: {{folder}} is that of a file on this computer, which "
            "URLs, streams and arrays do not have: use other fields, such as {track}"
        )


def _fields(template: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(template)}


def named_by_track(template: str) -> bool:
    """Whether only songs of one track, such as a.wav and a.mp3, can have equal stem names."""
    fields = _fields(template)
    return "track" in fields and fields.isdisjoint(("folder", *TAG_FIELDS))


def with_namesakes(selection: Iterable[Input], songs: Iterable[Input]) -> list[Input]:
    """The selected songs, and those whose tracks some drives may confuse with theirs."""
    tracks = {folded(song.track) for song in selection}
    return [song for song in songs if folded(song.track) in tracks]


def with_tags(songs: Iterable[Input], template: str) -> list[Input]:
    """The songs with their tags, which are read only if the template needs them."""
    if not uses_tags(template):
        return list(songs)
    return [
        song if song.error or song.tags else replace(song, tags=read_tags(song.path))
        for song in songs
    ]


def _tag_values(tags: Tags, track: str) -> dict[str, str]:
    """Values of fields from tags, safe in names on every file system."""
    number = tags.text("tracknumber").partition("/")[0].strip()
    year = re.search(r"\d{4}", tags.text("date"))
    texts = {name: tags.text(name) for name in TAG_FIELDS}
    texts["tracknumber"] = number.zfill(2) if number else ""
    texts["year"] = year[0] if year else ""
    texts["title"] = texts["title"] or track.rpartition("/")[2]
    texts["albumartist"] = texts["albumartist"] or texts["artist"]
    return {name: _safe(texts[name]) or default for name, default in TAG_FIELDS.items()}


def _safe(text: str) -> str:
    """A part of a name that is safe on every file system, not only the present one."""
    text = unicodedata.normalize("NFC", text)
    text = re.sub(rf"[\x00-\x1f\x7f{re.escape(FORBIDDEN)}/]", "_", text)
    # Hidden files start with a dot; Windows drops dots and blanks at the end.
    text = re.sub(r"^\.", "_", text.strip()).rstrip(" .")
    raw = text.encode("utf-8", "surrogateescape")[:TAG_BYTES]
    text = raw.decode("utf-8", "ignore").rstrip(" .") if len(raw) == TAG_BYTES else text
    return without_reserved(text)


def check_template(template: str, ext: str) -> None:
    """Refuse templates of unknown fields, of another suffix, or out of the output folder."""
    if not isinstance(template, str):
        raise ValueError(f"filename must be a template such as {TEMPLATE}, got {template!r}")
    try:
        parsed = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"filename template {template!r}: {error}") from error
    if any(name not in FIELDS or spec or conversion for name, spec, conversion in parsed):
        names = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise ValueError(
            f"filename template {template!r}: expected nothing but {names} in braces, as in "
            f"{TEMPLATE}"
        )
    # Not `is_absolute`: on Windows /a and C:a are not absolute.
    if Path(template).anchor or ".." in Path(template).parts:
        raise ValueError(f"filename template {template!r} must stay inside the output folder")
    if _slashed(template).rpartition("/")[2] in ("", "."):
        raise ValueError(f"filename template {template!r} must end with the name of a file")
    suffix = _suffix(template)
    rows = {name: row for name, row in CONTAINERS.items() if suffix in row.suffixes}
    if suffix != "{ext}" and ext not in (row.suffix for row in rows.values()):
        choice = f", or choose the format {either([*rows])}" if rows else ""
        raise ValueError(
            f"filename template {template!r} has another suffix than the stems, which are {ext}: "
            f"end it with .{{ext}}{choice}"
        )


def _suffix(template: str) -> str:
    """The longest suffix of an output format that a template ends with, or ``{ext}``."""
    suffixes = {"{ext}", *chain(*(row.suffixes for row in CONTAINERS.values()))}
    name = template.lower()
    return max((each for each in suffixes if name.endswith(f".{each}")), key=len, default="")


def _slashed(template: str) -> str:
    """A template with slashes between folders; on Windows users may write backslashes."""
    return template.replace("\\", "/") if os.name == "nt" else template


def _portable(name: str) -> str:
    """A song's name that the usual file systems of this platform accept.

    It has no trailing dots or blanks, no control codes, and on Windows nothing that Windows
    refuses. The rest stays: users look for songs by the names that they chose. Values of tags are
    changed for all platforms, by `_safe`.
    """
    return without_illegal(name).rstrip(" .") or "_"


def distinct_targets(
    songs: Sequence[Input],
    models: Sequence[ModelNames],
    output_dir: Path,
    template: str,
    ext: str,
    *,
    together: bool = False,
) -> list[SongTargets]:
    """Targets of every song, model and stem, all different and none a song.

    Parameters and result are those of `name_targets`.

    Raises
    ------
    UnetsepError
        If two outputs would have the same name, an output would overwrite a song,
        or the output folder is a file.
    """
    name_rules = NameRules()
    targets = name_targets(
        songs, models, output_dir, template, ext, together=together, name_rules=name_rules
    )
    clashes = find_clashes(songs, targets, name_rules)
    for song, clash in zip(songs, clashes, strict=True):
        if clash and not song.error:
            raise UnetsepError(clash)
    return targets


def name_targets(
    songs: Sequence[Input],
    models: Sequence[ModelNames],
    output_dir: Path,
    template: str,
    ext: str,
    *,
    together: bool = False,
    name_rules: NameRules,
) -> list[SongTargets]:
    """Targets of every song, model and stem.

    Parameters
    ----------
    songs
        See `find_inputs`.
    models
        With more than one, each gets its own folder unless the template has ``{model}``.
    output_dir, template, ext
        Folder, template and suffix of the paths.
    together
        All stems of a model are in one file, whose path is listed for each of them.
    name_rules
        Tell which names lead to the same file.

    Returns
    -------
    list
        For each song, for each model, the paths of its stems.

    Raises
    ------
    UnetsepError
        If several stems of a song would have the same name, or the output folder is a file or
        not a valid name.
    """
    check_template(template, ext)
    if quote := stray_quote(output_dir):
        raise UnetsepError(quote)
    if output_dir.exists() and not output_dir.is_dir():
        raise UnetsepError(f"output {output_dir} is a file: name a folder with -o")
    template = template_for(template, len(models))
    targets: list[SongTargets] = []
    for song in songs:
        per_model = [
            [
                output_dir / target_path(template, song, "stems" if together else stem, ext, name)
                for stem in stems
            ]
            for name, stems in models
        ]
        targets.append(per_model)
        files = [dict.fromkeys(paths) if together else paths for paths in per_model]
        _refuse_equal(song, [path for paths in files for path in paths], name_rules)
    return targets


def template_for(template: str, models: int) -> str:
    """The template, with a folder for each of several models unless it has ``{model}``."""
    return template if models == 1 or "{model}" in template else "{model}/" + template


def _refuse_equal(song: Input, paths: Sequence[Path], name_rules: NameRules) -> None:
    """Raise if stems of one song have the same name: those of all other songs will, too."""
    owners = FileMap[int](name_rules.same)
    for index, path in enumerate(paths):
        if owners.setdefault(path, index) != index:
            raise UnetsepError(
                f"several stems of {song.path} would be written to {path}: name {{stem}} in "
                "--filename"
            )


ELSEWHERE = "choose another folder with -o"
# Beginnings of templates to propose for songs of one name.
NAME_STARTS = (
    *("{track}", "{track}-{suffix}", "{artist} - {title}", "{album}/{track}"),
    "{folder}/{track}",
)
# Most songs that the message about their clash names.
NAMED_SONGS = 4


def find_clashes(
    songs: Sequence[Input],
    targets: Sequence[SongTargets],
    name_rules: NameRules,
    others: Iterable[Input] = (),
) -> list[str | None]:
    """For each song, a message if its stems cannot have their names, else None.

    If several songs would write the same file, all get the message: none takes precedence.
    ``name_rules`` are those of `name_targets`. Stems must not overwrite ``others`` either, songs
    that another command separates.
    """
    song_files = FileMap[bool](name_rules.same)
    writers = FileMap[dict[int, Path]](name_rules.same)  # songs by number, and their path
    shared: list[dict[int, Path]] = []
    all_songs = (*songs, *others)
    for song in all_songs:
        song_files.setdefault(real_path(song.path), True)
    # Songs at URLs have no ``{folder}``, and no tags before they are downloaded.
    local = not any(is_url(str(song.path)) for song in all_songs)
    starts = NAME_STARTS if local else NAME_STARTS[:2]
    clashes: list[str | None] = [song.error for song in songs]
    for index, (song, per_model) in enumerate(zip(songs, targets, strict=True)):
        if song.error:
            continue
        for path in dict.fromkeys(chain(*per_model)):
            # Compared with links resolved, and as a link itself, which would be replaced.
            target = in_real_folder(path)
            if target in song_files or real_path(path) in song_files:
                clashes[index] = f"{path} would be written over an input: {ELSEWHERE}"
            paths = writers.setdefault(target, {})
            paths[index] = path
            if len(paths) == 2:
                shared.append(paths)
    # One message for all stems of the same songs.
    for paths in {tuple(paths): paths for paths in shared}.values():
        clash = _clash([songs[index] for index in paths], [*paths.values()], starts, name_rules)
        for index in paths:
            clashes[index] = clash
    return clashes


def _clash(
    songs: Sequence[Input], paths: Sequence[Path], starts: Iterable[str], name_rules: NameRules
) -> str:
    """The message for songs that would write the same file, each by a path of its own."""
    # Otherwise a link leads to the same folder, and another name would not help.
    same_name = len(set(map(folded, paths))) == 1
    target = in_real_folder(paths[0])
    remedy = _remedy(songs, target, starts, name_rules) if same_name else ELSEWHERE
    names = [str(song.path) for song in songs]
    if len(names) > NAMED_SONGS:
        names = [*names[: NAMED_SONGS - 1], f"{len(names) - NAMED_SONGS + 1} others"]
    claim = "would both be written to" if len(songs) == 2 else "would all be written to"
    return f"{', '.join(names[:-1])} and {names[-1]} {claim} {paths[-1]}: {remedy}"


def _remedy(
    songs: Sequence[Input], path: Path, starts: Iterable[str], name_rules: NameRules
) -> str:
    """Advice on how songs, whose stems would be in one file, can get different names."""
    if len({str(song.path) for song in songs}) < len(songs):  # URLs that differ in their query
        return "separate each by itself, to its own folder with -o"
    together = [row.suffix for row in CONTAINERS.values() if row.together]
    end = ".{ext}" if any(path.name.endswith(f".{each}") for each in together) else "/{stem}.{ext}"
    for start in starts:
        template = start + end
        songs = with_tags(songs, template)
        names = [path.parent / target_path(template, s, "stem", "ext", "model") for s in songs]
        owners = FileMap[int](name_rules.same)
        if all(owners.setdefault(name, index) == index for index, name in enumerate(names)):
            return f"give --filename more fields, such as {template}"
    both, one = ("both", "one") if len(songs) == 2 else ("all", "all but one")
    in_one_folder = len({song.path.parent for song in songs}) == 1
    name_folder = f"name a folder that holds {both} instead"
    change = f"rename {one} of them" if in_one_folder else name_folder
    return f"{change}, or separate each to its own folder"


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise if any of the files exists: nothing is ever overwritten unasked.

    Raises
    ------
    AudioError
        If a file exists or cannot be examined.
    """
    existing = [path for path in dict.fromkeys(paths) if _exists(path)]
    if existing:
        total = f" ({len(existing)} files exist in all)" if len(existing) > 1 else ""
        raise AudioError(
            f"{existing[0]} already exists: use --overwrite or --skip-existing, "
            f"or another output folder{total}"
        )


def _exists(path: Path) -> bool:
    """Whether a path exists, even as a broken link."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:  # a name too long, a folder that may not be entered
        raise AudioError(f"{path} cannot be written: {error.strerror}") from error
    return True
