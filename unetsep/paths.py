"""Which files to separate, and where their stems go, before any work starts."""

from __future__ import annotations

import os
import re
import string
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .audio.decoder import AUDIO_SUFFIXES
from .errors import AudioError, UnetsepError

TEMPLATE = "{track}/{stem}.{ext}"
# Names that Windows keeps for itself, whatever the suffix.
DEVICES = re.compile(r"(?i)con|prn|aux|nul|com[0-9]|lpt[0-9]")
FIELDS = ("track", "stem", "ext", "model", "suffix")


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
    """

    path: Path
    track: str
    error: str | None = None


def find_inputs(paths: Iterable[Path], output_dir: Path) -> list[Input]:
    """Files as they are given, folders searched recursively.

    Hidden files and what lies under ``output_dir`` are passed over in folders. Paths that
    do not exist, and folders without audio, become inputs with an error: they must not stop
    the others.
    """
    inputs: dict[tuple[Path, str], Input] = {}
    for path in paths:
        if _problem(path) is None and path.is_dir():
            files = [Input(p, _track(p.relative_to(path))) for p in _search(path, output_dir)]
            suffixes = "wav, flac, mp3, ogg, opus, m4a, ..."
            message = f"{path} is a folder without audio files ({suffixes})"
            files = files or [Input(path, path.name, message)]
        else:
            files = [Input(path, _track(Path(path.name)), _problem(path))]
        for file in files:
            inputs.setdefault((file.path.resolve(), file.track), file)
    return list(inputs.values())


def _problem(path: Path) -> str | None:
    """Why a path that was given cannot be looked at, if it cannot."""
    try:
        return None if path.exists() else f"{path} does not exist"
    except OSError as error:  # a name too long, a folder that may not be entered
        return f"{path} cannot be opened: {error.strerror}"


def _search(folder: Path, output_dir: Path) -> Iterator[Path]:
    inside = output_dir.resolve()
    for root, folders, names in os.walk(folder):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (here / name).resolve() != inside
        )
        for name in sorted(names):
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES:
                yield here / name


def _track(relative: Path) -> str:
    # Not with_name: it refuses what remains of names such as "..wav".
    return "/".join((*relative.parts[:-1], relative.stem))


def target_path(
    template: str, track: str, stem: str, ext: str, model: str, suffix: str = ""
) -> Path:
    """Relative output path for one stem.

    Parameters
    ----------
    template
        With ``{track}``, ``{stem}``, ``{ext}``, ``{model}`` and ``{suffix}`` (the input's
        suffix without dot).
    track, stem, ext, model, suffix
        The values.
    """
    values = {"track": track, "stem": stem, "ext": ext, "model": model, "suffix": suffix}
    return Path(*(_portable(part) for part in template.format(**values).split("/") if part))


def check_template(template: str) -> None:
    """Refuse templates with unknown fields, or that lead out of the output folder."""
    try:
        parsed = [part[1:] for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise ValueError(f"filename template {template!r}: {error}") from error
    if any(name not in FIELDS or spec or conversion for name, spec, conversion in parsed):
        names = ", ".join(f"{{{name}}}" for name in FIELDS)
        raise ValueError(f"filename template {template!r}: expected nothing but {names} in braces")
    if Path(template).is_absolute() or ".." in Path(template).parts:
        raise ValueError(f"filename template {template!r} must stay inside the output folder")


def _portable(name: str) -> str:
    """A name that every file system takes: no trailing dots or blanks, no control codes."""
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

    Returns
    -------
    list
        For each input, for each model, the paths of its stems.

    Raises
    ------
    UnetsepError
        If two outputs would have the same name, an output would be written over an input,
        or the output folder is a file.
    """
    check_template(template)
    if output_dir.exists() and not output_dir.is_dir():
        raise UnetsepError(f"output {output_dir} is a file: name a folder with -o")
    if len(models) > 1 and "{model}" not in template:
        template = "{model}/" + template
    owner: dict[str, Path] = {}
    originals = {_same_file_key(file.path.resolve()) for file in inputs}
    targets = []
    for file in inputs:
        suffix = file.path.suffix[1:]
        per_model = [
            [
                output_dir / target_path(template, file.track, stem, ext, name, suffix)
                for stem in stems
            ]
            for name, stems in models
        ]
        targets.append(per_model)
        if file.error:
            continue
        for path in (path for paths in per_model for path in paths):
            _claim(path, file.path, owner, originals)
    return targets


def _claim(path: Path, input_path: Path, owner: dict[str, Path], originals: set[str]) -> None:
    """Enter a target's owner; refuse a second one, and writing over an input."""
    key = _same_file_key(path)
    if key in originals or _same_file_key(path.resolve()) in originals:
        raise UnetsepError(f"{path} would be written over an input: choose another folder with -o")
    if owner.get(key) == input_path:
        raise UnetsepError(
            f"several stems of {input_path} would be written to {path}: name {{stem}} in --filename"
        )
    if key in owner:
        raise UnetsepError(
            f"{owner[key]} and {input_path} would both be written to {path}: give "
            "--filename more fields, such as {track}-{suffix}/{stem}.{ext}"
        )
    owner[key] = input_path


def refuse_existing(paths: Iterable[Path]) -> None:
    """Raise if any of the files exists: nothing is ever overwritten without being asked."""
    existing = [path for path in paths if path.exists()]
    if existing:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise AudioError(
            f"{existing[0]}{more} exists already: use --overwrite or --skip-existing, "
            "or another output folder"
        )
