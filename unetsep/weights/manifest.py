"""Manifests of checkpoints: published ones, and those that the user imported."""

from __future__ import annotations

import functools
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..locks import locked
from ..storage import open_atomically, user_folder, write_atomically
from .datasets import SONG_LISTS, DataSet, collect_datasets, refer, resolve

PACKAGE = Path(__file__).parent.parent
BUNDLED = PACKAGE / "checkpoints"
# An installed wheel has the manifest inside the package, a checkout beside it.
MANIFESTS = (PACKAGE / "weights_manifest.json", PACKAGE.parent / "weights_manifest.json")
SUFFIX = ".safetensors"
# Names that ``unetsep models download`` accepts besides published ones.
SPLEETER = ("spleeter-2stems", "spleeter-4stems", "spleeter-5stems")
# Names and suffixes of other tools' models: htdemucs, UVR-MDX-NET-Inst_HQ_3.onnx, umxhq.
OTHER_TOOLS = re.compile(r"demucs|mdx|uvr|roformer|^umx|\.(onnx|ckpt|pth?|th|yaml)$", re.IGNORECASE)
# A manifest in the user's folder, of imported models.
USER_MANIFEST = "models.json"
# Columns of a manifest's text; a value that fits is written in one line.
WIDTH = 100


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint, as described in `weights_manifest.json`.

    Parameters
    ----------
    name, loss, description
        Name of the model, its training loss, and one sentence about it.
    file, repo_id, revision
        File name in the package and on the hub, and its repository and revision there.
    sha256, bytes
        Of the file, without its guide.
    config
        Fields of its `ModelConfig`.
    training, scores
        Data and settings; SDR with its definition, data set and command.
    licence
        Licence of the weights (the code is MIT).
    source
        For an imported model: the files that it was made from, with hashes.
    aliases
        Other names of the model.
    """

    name: str
    loss: str
    description: str
    file: str
    repo_id: str
    revision: str
    sha256: str
    bytes: int
    config: dict[str, Any]
    licence: str
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()

    @property
    def bundled(self) -> bool:
        """Whether the file comes with the package."""
        return not self.source and (BUNDLED / self.file).is_file()

    @property
    def is_local(self) -> bool:
        """Whether it came with the package or was imported, and needs no download."""
        return bool(self.source) or self.bundled

    @property
    def path(self) -> Path:
        """Path of a local file: in the package, or in the user's folder."""
        return (user_folder() if self.source else BUNDLED) / self.file


@dataclass(frozen=True)
class Manifest:
    """Checkpoints by name, in order.

    Parameters
    ----------
    default
        Name of the checkpoint that is used by default; empty if there is none.
    checkpoints
        Each with the complete list of its training songs.
    datasets
        Those songs by data set, with licence and note; see `unetsep.weights.datasets`.
    """

    default: str = ""
    checkpoints: Mapping[str, Checkpoint] = field(default_factory=dict)
    datasets: Mapping[str, DataSet] = field(default_factory=dict)

    @property
    def guides(self) -> frozenset[str]:
        """Names of the checkpoints that guide others; see `unetsep.network.guided`."""
        hashes = {entry.config.get("guide") for entry in self.checkpoints.values()}
        return frozenset(e.name for e in self.checkpoints.values() if e.sha256 in hashes)

    def find(self, name: str) -> Checkpoint | None:
        """The checkpoint of a name or alias."""
        name = _with_hyphens(name)
        if name in self.checkpoints:
            return self.checkpoints[name]
        return next((e for e in self.checkpoints.values() if name in e.aliases), None)

    def bytes_with_guide(self, entry: Checkpoint) -> int:
        """Size of a checkpoint in bytes, together with its guide if it has one."""
        guide = entry.config.get("guide")
        return entry.bytes + next(
            (each.bytes for each in self.checkpoints.values() if each.sha256 == guide), 0
        )

    def including(self, entry: Checkpoint) -> Manifest:
        """The manifest with one more checkpoint, which replaces one of the same name."""
        return replace(self, checkpoints={**self.checkpoints, entry.name: entry})

    def to_dict(self) -> dict[str, Any]:
        """Content of the file: each data set is listed once, and checkpoints refer to it."""
        entries = [asdict(entry) for entry in self.checkpoints.values()]
        datasets = collect_datasets((entry["training"] for entry in entries), self.datasets)
        return {
            "default": self.default,
            "datasets": {name: asdict(dataset) for name, dataset in datasets.items()},
            "checkpoints": [
                entry | {"training": refer(entry["training"], datasets)} for entry in entries
            ],
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_dict`.

        Raises
        ------
        ValueError, KeyError, TypeError, AttributeError
            If the content has another form.
        """
        _expect(dict, content, "the whole")
        _expect(str, content["default"], "default")
        datasets = {}
        for name, dataset in _expect(dict, content.get("datasets", {}), "datasets").items():
            _check_fields(DataSet, dataset, f"data set {name!r}")
            datasets[name] = DataSet(**(dataset | {"songs": tuple(dataset["songs"])}))
        checkpoints = {}
        for entry in _expect(list, content["checkpoints"], "checkpoints"):
            _expect(dict, entry, "one of checkpoints")
            _check_fields(Checkpoint, entry, f"model {entry['name']!r}")
            training = resolve(entry.get("training", {}), datasets)
            aliases = tuple(entry.get("aliases", ()))
            entry = entry | {"training": training, "aliases": aliases}
            _check_parts(entry)
            checkpoints[entry["name"]] = Checkpoint(**entry)
        return cls(content["default"], checkpoints, datasets)


# Types in JSON for the annotations of `Checkpoint` and `DataSet`, and their names in messages.
_KINDS = {"str": str, "int": int, "dict[str, Any]": dict, "tuple[str, ...]": list}
_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def _expect(kind: type, value: Any, place: str) -> Any:
    """Check the type of a part of a manifest, which anyone may have edited; returns the part."""
    kinds = (int, float) if kind is float else kind
    right = isinstance(value, kinds) and not isinstance(value, bool)
    if right and isinstance(value, (int, float)):  # no NaN, and no whole number beyond floats
        right = abs(value) <= sys.float_info.max
    if not right:
        raise ValueError(f"{place} is {repr(value)[:60]}, expected {_NAMES[kind]}")
    return value


class NewerError(ValueError):
    """A manifest with fields that this version does not know."""


def _check_fields(described: type[Checkpoint | DataSet], values: Any, place: str) -> None:
    _expect(dict, values, place)
    unknown = sorted(values.keys() - {each.name for each in fields(described)})
    if unknown:
        raise NewerError(f"unknown field {unknown[0]!r} of {place}")
    for each in fields(described):
        if each.name in values:
            kind = _KINDS[str(each.type)]
            value = _expect(kind, values[each.name], f"{each.name} of {place}")
            if kind is list:
                _check_texts(value, f"{each.name} of {place}")


def _check_texts(values: Any, place: str) -> None:
    for value in _expect(list, values, place):
        if not isinstance(value, str):  # a fast test, for thousands of songs
            _expect(str, value, f"one of {place}")


def _check_parts(entry: Mapping[str, Any]) -> None:
    """Check the parts of an entry's objects that the program uses."""
    place = f"model {entry['name']!r}"
    _check_texts(entry["config"].get("stems", []), f"config.stems of {place}")
    _expect(str, entry["config"].get("guide", ""), f"config.guide of {place}")
    scores = _expect(dict, entry.get("scores", {}).get("sdr", {}), f"scores.sdr of {place}")
    for stem, score in scores.items():
        _expect(float, score, f"scores.sdr.{stem} of {place}")
    for key in SONG_LISTS:
        _check_texts(entry["training"].get(key, []), f"training.{key} of {place}")


@functools.lru_cache(maxsize=1)
def manifest() -> Manifest:
    """The packaged manifest.

    Raises
    ------
    WeightsError
        If it is missing or invalid: the installation is damaged.
    """
    for path in MANIFESTS:
        if path.is_file():
            return read_manifest(path, cure="install unetsep again")
    raise WeightsError(
        f"{MANIFESTS[0].name} is missing from this installation: install unetsep again"
    )


def user_models() -> Manifest:
    """The models that the user imported.

    Raises
    ------
    WeightsError
        If their manifest is invalid.
    """
    path = user_folder() / USER_MANIFEST
    return read_manifest(path, cure="delete it and import its models again")


def all_models() -> Manifest:
    """The packaged manifest and, after it, the models that the user imported.

    Names of published models take precedence, as in `find_checkpoint`: an older import of the
    same name is left out.

    Raises
    ------
    WeightsError
        If either is invalid.
    """
    published, imported = manifest(), user_models()
    others = {name: e for name, e in imported.checkpoints.items() if published.find(name) is None}
    return Manifest(
        published.default,
        {**published.checkpoints, **others},
        {**published.datasets, **imported.datasets},
    )


def list_models() -> list[Checkpoint]:
    """All published checkpoints, in the manifest's order, then the imported ones."""
    return list(all_models().checkpoints.values())


def find_checkpoint(name: str) -> Checkpoint:
    """The published or imported checkpoint of a name.

    Raises
    ------
    WeightsError
        If there is none; the message lists the names.
    """
    # Published ones come first, so that a damaged manifest of the user's does not hide them.
    entry = manifest().find(name) or all_models().find(name)
    if entry is None:
        if name and Path(name).is_dir():
            raise WeightsError(why_no_model(Path(name)))
        names = [*all_models().checkpoints, f"or the path of a {SUFFIX} file"]
        raise WeightsError(unknown_model(name, names))
    return entry


def unknown_model(name: str, expected: Sequence[str]) -> str:
    """Message about a name that is no model's: a slip, another tool's, one to download."""
    import difflib

    release = _with_hyphens(name)
    cure = ""
    if release.removesuffix("-16khz") in SPLEETER:
        cure = f"; get it by: unetsep models download {release}"
    elif OTHER_TOOLS.search(name):
        cure = (
            "; models of Demucs, UVR and other tools, and files of other formats, do not run here: "
            "name no model for the best stems"
        )
    elif similar := difflib.get_close_matches(name, expected, n=1):
        cure = f"; did you mean {similar[0]}?"
    return f"there is no model {name!r}: expected {', '.join(expected)}{cure}"


def _with_hyphens(name: str) -> str:
    """Our name for a name of Spleeter's own, such as ``spleeter:4stems-16kHz``."""
    return name.lower().replace(":", "-") if name.lower().startswith("spleeter:") else name


def model_name(model: str | Path) -> str:
    """The real name of a model, not an alias, for reports and names of folders."""
    if is_path(model):
        return Path(model).stem
    if str(model) == "default":
        return manifest().default
    entry = manifest().find(str(model))
    return _with_hyphens(str(model)) if entry is None else entry.name


def check_distinct(labels: Sequence[str]) -> None:
    """Refuse models of one name, whose results could not be told apart.

    Raises
    ------
    ValueError
        If two labels are equal.
    """
    duplicate = next((each for each in labels if labels.count(each) > 1), None)
    if duplicate:
        raise ValueError(f"two models are called {duplicate}: expected different names")


def check_name(name: str) -> None:
    """Refuse a name for a new model that is invalid or reserved.

    Raises
    ------
    ValueError
        If it is a path, has invalid characters, or is ``default``.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name) or name.endswith(SUFFIX):
        raise ValueError(f"name {name!r}: expected letters, digits, dots and dashes")
    if name == "default":
        raise ValueError("name 'default': it means the default model, choose another --name")


def is_path(model: str | Path) -> bool:
    """Whether ``model`` means a file rather than a name of the manifest."""
    text = str(model)
    return isinstance(model, Path) or text.endswith(SUFFIX) or "/" in text or "\\" in text


def why_no_model(folder: Path) -> str:
    """Message about a folder in place of a model, with a file in it to name instead."""
    # For the folder of a run, exported files come first.
    files = [*sorted(folder.glob(f"export/*{SUFFIX}")), *sorted(folder.glob(f"*{SUFFIX}"))]
    if not files:
        return f"{folder} is a folder without {SUFFIX} files: expected the path of such a file"
    return f"{folder} is a folder: name a {SUFFIX} file in it, such as {files[0]}"


def read_manifest(path: Path, *, cure: str = "repair it, or name another file") -> Manifest:
    """Read a manifest; an empty one if the file does not exist.

    Parameters
    ----------
    path
        The file.
    cure
        For the message: what to do if it is damaged.

    Raises
    ------
    WeightsError
        If it is invalid, or names files in other folders.
    """
    if not path.exists():
        return Manifest()
    try:
        content = Manifest.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise WeightsError(f"{path} is damaged ({error} is missing): {cure}") from error
    except NewerError as error:
        raise WeightsError(f"{path} was written by a newer unetsep ({error}): update it") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged ({error}): {cure}") from error
    for entry in content.checkpoints.values():
        # File names are appended to folders, so they must not lead to other folders.
        if Path(entry.file).name != entry.file or not entry.file.endswith(SUFFIX):
            raise WeightsError(f"{path}: {entry.name} names {entry.file!r}, not a plain file name")
    return content


def write_manifest(path: Path, content: Manifest) -> None:
    """Write a manifest, or replace an existing one."""
    write_atomically(path, _encoded(content))


def add_to_manifest(path: Path, entry: Checkpoint) -> None:
    """Add an entry to a manifest file, replacing one of the same name.

    The first entry of a new manifest becomes its default.
    """
    with locked(path):
        content = read_manifest(path).including(entry)
        write_manifest(path, replace(content, default=content.default or entry.name))


def add_user_model(entry: Checkpoint, content: bytes, *, overwrite: bool = False) -> None:
    """Write a checkpoint to the user's folder and add it to the manifest there.

    Parameters
    ----------
    entry
        With a ``source``.
    content
        Of the file.
    overwrite
        Replace a model of that name, and a file of that name without a model.

    Raises
    ------
    WeightsError
        If there is one, or the folder cannot be written to; then nothing has changed.
    """
    folder = user_folder()
    try:
        with locked(folder / USER_MANIFEST):
            if not overwrite:
                refuse_existing_model(entry.name)
            models = _encoded(user_models().including(entry))
            # Both files are complete before the first one, the checkpoint, is renamed.
            with (
                open_atomically(folder / USER_MANIFEST) as listing,
                open_atomically(entry.path) as checkpoint,
            ):
                listing.write(models)
                listing.flush()
                checkpoint.write(content)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written to: {error.strerror}") from error


def refuse_existing_model(name: str) -> None:
    """Refuse the name of an imported model, or of a file that a new model would replace.

    Raises
    ------
    WeightsError
        If there is one.
    """
    path = user_folder() / f"{name}{SUFFIX}"
    imported = name in user_models().checkpoints
    if imported or os.path.lexists(path):
        obstacle = (
            f"already a model {name!r}" if imported else f"a file {path} that is not of any model"
        )
        raise WeightsError(f"there is {obstacle}: choose another --name or add --overwrite")


def _encoded(content: Manifest) -> bytes:
    return encode_json(format_json(content.to_dict()) + "\n")


def encode_json(text: str) -> bytes:
    r"""JSON as UTF-8; bytes of file names that are not UTF-8 are escaped, as ``\udce9``."""
    return text.encode(errors="backslashreplace")


def format_json(value: Any, indent: str = "") -> str:
    """JSON in which a list or an object that fits into one line is not split."""
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, dict | list | tuple) or len(indent + line) <= WIDTH:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        keys = [f"{json.dumps(key, ensure_ascii=False)}: " for key in value]
        parts, (opening, closing) = list(value.values()), "{}"
    else:
        keys, parts, (opening, closing) = [""] * len(value), list(value), "[]"
    lines = [key + format_json(part, inner) for key, part in zip(keys, parts, strict=True)]
    return f"{opening}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{closing}"
