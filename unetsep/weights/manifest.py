"""What is published, and what the user imported: manifests of checkpoints."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..locks import locked
from ..storage import open_atomically, user_folder, write_atomically
from .datasets import SONG_LISTS, DataSet, collect_datasets, refer, resolve

PACKAGE = Path(__file__).parent.parent
BUNDLED = PACKAGE / "checkpoints"
# In an installed wheel the manifest lies inside the package, in a checkout beside it.
MANIFESTS = (PACKAGE / "weights_manifest.json", PACKAGE.parent / "weights_manifest.json")
SUFFIX = ".safetensors"
# Names that ``unetsep models download`` knows besides published ones.
SPLEETER = ("spleeter-2stems", "spleeter-4stems", "spleeter-5stems")
# Same form, in the user's folder: models imported from elsewhere.
USER_MANIFEST = "models.json"
# Columns of a manifest's text; what fits into a line is written in one.
WIDTH = 100


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint, as `weights_manifest.json` describes it.

    Parameters
    ----------
    name, loss, description
        What to call it, the training loss, one sentence.
    file, repo_id, revision
        File name in the package and on the hub, and where on the hub it is.
    sha256, bytes
        Of the file, without that of its guide.
    config
        Fields of its `ModelConfig`.
    training, scores
        Data and settings; SDR with its definition, data set and command.
    licence
        Licence of the weights (the code is MIT).
    source
        For a model that the user imported: what it was made from, with hashes.
    aliases
        Other names that it answers to.
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
        """Whether it came with the package or was imported, and is on no hub."""
        return bool(self.source) or self.bundled

    @property
    def path(self) -> Path:
        """Where the file lies, if it is there: in the package, or in the user's folder."""
        return (user_folder() if self.source else BUNDLED) / self.file


@dataclass(frozen=True)
class Manifest:
    """Checkpoints by name, in order.

    Parameters
    ----------
    default
        Name of the checkpoint that is taken when none is asked for; empty if there is none.
    checkpoints
        Each with the whole list of the songs it was trained on.
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
        """The checkpoint that has or answers to a name."""
        if name in self.checkpoints:
            return self.checkpoints[name]
        return next((e for e in self.checkpoints.values() if name in e.aliases), None)

    def bytes_with_guide(self, entry: Checkpoint) -> int:
        """What a checkpoint takes together with that of its guide, if it has one."""
        guide = entry.config.get("guide")
        return entry.bytes + next(
            (other.bytes for other in self.checkpoints.values() if other.sha256 == guide), 0
        )

    def including(self, entry: Checkpoint) -> Manifest:
        """The same with one more checkpoint, which takes the place of one of its name."""
        return replace(self, checkpoints={**self.checkpoints, entry.name: entry})

    def to_dict(self) -> dict[str, Any]:
        """As the file has it: each data set listed once, and checkpoints that refer to it."""
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
            If it is something else.
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


# What JSON has for the annotations of `Checkpoint` and `DataSet`, and what to call it.
_KINDS = {"str": str, "int": int, "dict[str, Any]": dict, "tuple[str, ...]": list}
_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
}


def _expect(kind: type, value: Any, place: str) -> Any:
    """A part of a manifest, which anyone may have edited, if it is of the right kind."""
    kinds = (int, float) if kind is float else kind
    if not isinstance(value, kinds) or isinstance(value, bool):
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
        if not isinstance(value, str):  # of thousands of songs
            _expect(str, value, f"one of {place}")


def _check_parts(entry: Mapping[str, Any]) -> None:
    """What is used of the objects in an entry."""
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
        If it is missing or cannot be understood: the installation is damaged.
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
        If their manifest cannot be understood.
    """
    path = user_folder() / USER_MANIFEST
    return read_manifest(path, cure="delete it and import its models again")


def all_models() -> Manifest:
    """The packaged manifest and, after it, the models that the user imported.

    A name is that of the published model, as in `find_checkpoint`: an import that was first to
    have it is left out.

    Raises
    ------
    WeightsError
        If either cannot be understood.
    """
    published, imported = manifest(), user_models()
    own = {name: e for name, e in imported.checkpoints.items() if published.find(name) is None}
    return Manifest(
        published.default,
        {**published.checkpoints, **own},
        {**published.datasets, **imported.datasets},
    )


def list_models() -> list[Checkpoint]:
    """All published checkpoints, in the manifest's order, then those the user imported."""
    return list(all_models().checkpoints.values())


def find_checkpoint(name: str) -> Checkpoint:
    """The published or imported checkpoint of a name.

    Raises
    ------
    WeightsError
        If there is none; the message lists the names.
    """
    # A published one is found even where the user's manifest is damaged.
    entry = manifest().find(name) or all_models().find(name)
    if entry is None:
        if name and Path(name).is_dir():
            raise WeightsError(why_no_model(Path(name)))
        release = name.replace(":", "-")  # as Spleeter calls them
        cure = f"; get it by: unetsep models download {release}" if release in SPLEETER else ""
        raise WeightsError(
            f"there is no model {name!r}: expected {', '.join(all_models().checkpoints)}, "
            f"or the path of a {SUFFIX} file{cure}"
        )
    return entry


def model_name(model: str | Path) -> str:
    """What to call a model in reports and folder names: by its real name, not an alias."""
    if str(model) == "default":
        return manifest().default
    if is_path(model):
        return Path(model).stem
    entry = manifest().find(str(model))
    return str(model) if entry is None else entry.name


def check_name(name: str) -> None:
    """Refuse a name for a new model that is none, or that would never mean it.

    Raises
    ------
    ValueError
        If it is a path, has other characters than names have, or is ``default``.
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
    """What is wrong with a folder in the place of a model, and which of its files to name."""
    # Those of a run are first those that `unetsep export` wrote.
    files = [*sorted(folder.glob(f"export/*{SUFFIX}")), *sorted(folder.glob(f"*{SUFFIX}"))]
    if not files:
        return f"{folder} is a folder without {SUFFIX} files: expected the path of such a file"
    return f"{folder} is a folder: name a {SUFFIX} file in it, such as {files[0]}"


def read_manifest(path: Path, *, cure: str = "repair it, or name another file") -> Manifest:
    """A manifest from its file; an empty one if there is none yet.

    Parameters
    ----------
    path
        The file, which is left as it is.
    cure
        What to do if it is damaged, for the message.

    Raises
    ------
    WeightsError
        If it cannot be understood, or names files that lie elsewhere.
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
        # File names are joined to folders, so they must not lead anywhere else.
        if Path(entry.file).name != entry.file or not entry.file.endswith(SUFFIX):
            raise WeightsError(f"{path}: {entry.name} names {entry.file!r}, not a plain file name")
    return content


def write_manifest(path: Path, content: Manifest) -> None:
    """Write a manifest, or replace the one that is there."""
    write_atomically(path, _encoded(content))


def add_to_manifest(path: Path, entry: Checkpoint) -> None:
    """Add an entry to a manifest file, in place of one of the same name.

    The first entry of a new manifest becomes its default.
    """
    with locked(path):
        content = read_manifest(path).including(entry)
        write_manifest(path, replace(content, default=content.default or entry.name))


def add_user_model(entry: Checkpoint, content: bytes, *, overwrite: bool = False) -> None:
    """Write a checkpoint to the user's folder and name it in the manifest there.

    Parameters
    ----------
    entry
        With a ``source``.
    content
        Of the file.
    overwrite
        Take the place of a model of that name, and of a file that no model is known by.

    Raises
    ------
    WeightsError
        If there is one, or the folder cannot be written to; all is then as before.
    """
    folder = user_folder()
    try:
        with locked(folder / USER_MANIFEST):
            if not overwrite:
                refuse_taken(entry.name)
            models = _encoded(user_models().including(entry))
            # Both files are complete before the first gets its name, which is the checkpoint.
            with (
                open_atomically(folder / USER_MANIFEST) as listing,
                open_atomically(entry.path) as checkpoint,
            ):
                listing.write(models)
                listing.flush()
                checkpoint.write(content)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written to: {error.strerror}") from error


def refuse_taken(name: str) -> None:
    """Refuse the name of a model that the user imported, or of a file in its place.

    Raises
    ------
    WeightsError
        If there is one.
    """
    path = user_folder() / f"{name}{SUFFIX}"
    taken = name in user_models().checkpoints
    if taken or os.path.lexists(path):
        owner = (
            f"already a model {name!r}" if taken else f"a file {path}, which no model is known by"
        )
        raise WeightsError(f"there is {owner}: choose another --name or add --overwrite")


def _encoded(content: Manifest) -> bytes:
    return encode_json(format_json(content.to_dict()) + "\n")


def encode_json(text: str) -> bytes:
    r"""JSON as UTF-8; a byte of a file's name that is none is escaped as JSON does, ``\udce9``."""
    return text.encode(errors="backslashreplace")


def format_json(value: Any, indent: str = "") -> str:
    """JSON in which a list or an object that fits into a line is not broken up."""
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, dict | list | tuple) or len(indent + line) <= WIDTH:
        return line
    inner = indent + "  "
    if isinstance(value, dict):
        keys = [f"{json.dumps(key, ensure_ascii=False)}: " for key in value]
        parts, (first, last) = list(value.values()), "{}"
    else:
        keys, parts, (first, last) = [""] * len(value), list(value), "[]"
    lines = [key + format_json(part, inner) for key, part in zip(keys, parts, strict=True)]
    return f"{first}\n{inner}" + f",\n{inner}".join(lines) + f"\n{indent}{last}"
