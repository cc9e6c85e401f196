"""What is published, and what the user imported: manifests of checkpoints."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import WeightsError
from ..storage import user_folder, write_atomically

PACKAGE = Path(__file__).parent.parent


BUNDLED = PACKAGE / "checkpoints"


# In an installed wheel the manifest lies inside the package, in a checkout beside it.
MANIFESTS = (PACKAGE / "weights_manifest.json", PACKAGE.parent / "weights_manifest.json")


SUFFIX = ".safetensors"


# Same form, in the user's folder: models imported from elsewhere.
USER_MANIFEST = "models.json"


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
        Of the file.
    config
        Fields of its `ModelConfig`.
    training, scores
        Data and settings; SDR with its definition, data set and command.
    licence
        Licence of the weights (the code is MIT).
    source
        For a model that the user imported: what it was made from, with hashes.
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

    @property
    def bundled(self) -> bool:
        """Whether the file comes with the package."""
        return not self.source and (BUNDLED / self.file).is_file()

    @property
    def path(self) -> Path:
        """Where the file lies, if it is there: in the package, or in the user's folder."""
        return (user_folder() if self.source else BUNDLED) / self.file


@dataclass(frozen=True)
class Manifest:
    """What is published, in order, and which checkpoint is the default."""

    default: str
    checkpoints: dict[str, Checkpoint]


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
            return _parse_manifest(path, "install unetsep again")
    raise WeightsError(
        f"{MANIFESTS[0].name} is missing from this installation: install unetsep again"
    )


def all_models() -> Manifest:
    """The packaged manifest and, after it, the models that the user imported.

    Raises
    ------
    WeightsError
        If either cannot be understood.
    """
    path = user_folder() / USER_MANIFEST
    published = manifest()
    if not path.is_file():
        return published
    imported = _parse_manifest(path, "delete it and import its models again")
    return Manifest(published.default, published.checkpoints | imported.checkpoints)


def _parse_manifest(path: Path, cure: str) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [Checkpoint(**entry) for entry in content["checkpoints"]]
        default = content["default"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error}): {cure}") from error
    for entry in entries:
        # File names are joined to folders, so they must not lead anywhere else.
        if Path(entry.file).name != entry.file or not entry.file.endswith(SUFFIX):
            raise WeightsError(f"{path}: {entry.name} names {entry.file!r}, not a plain file name")
    return Manifest(default, {entry.name: entry for entry in entries})


def list_models() -> list[Checkpoint]:
    """All published checkpoints, in the manifest's order, then those the user imported."""
    return list(all_models().checkpoints.values())


def model_name(model: str | Path) -> str:
    """What to call a model in reports and folder names; the default by its real name."""
    if str(model) == "default":
        return manifest().default
    return Path(model).stem if is_path(model) else str(model)


def is_path(model: str | Path) -> bool:
    """Whether ``model`` means a file rather than a name of the manifest."""
    text = str(model)
    return isinstance(model, Path) or text.endswith(SUFFIX) or "/" in text or "\\" in text


def read_manifest(path: Path) -> tuple[str, list[Checkpoint]]:
    """Default and entries of a manifest file; an empty one if there is none yet.

    Raises
    ------
    WeightsError
        If the file cannot be understood; it is left as it is.
    """
    if not path.exists():
        return "", []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["default"], [Checkpoint(**entry) for entry in content["checkpoints"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is no manifest of unetsep: {error}") from error


def add_to_manifest(path: Path, entry: Checkpoint) -> None:
    """Add an entry to a manifest file, in place of one of the same name."""
    default, entries = read_manifest(path)
    names = [each.name for each in entries]
    if entry.name in names:
        entries[names.index(entry.name)] = entry
    else:
        entries.append(entry)
    write_manifest(path, default or entry.name, entries)


def write_manifest(path: Path, default: str, checkpoints: Sequence[Checkpoint]) -> None:
    """Write the manifest of all published checkpoints."""
    entries = [asdict(checkpoint) for checkpoint in checkpoints]
    text = json.dumps({"default": default, "checkpoints": entries}, indent=2, ensure_ascii=False)
    write_atomically(path, (text + "\n").encode())


def _add(entry: Checkpoint, content: bytes) -> None:
    """Write a checkpoint and name it in the user's manifest, both or neither."""
    known = {n: e for n, e in all_models().checkpoints.items() if e.source}
    entries = [asdict(e) for e in (known | {entry.name: entry}).values()]
    manifest = json.dumps({"default": "", "checkpoints": entries}, indent=1, ensure_ascii=False)
    folder = user_folder()
    parts = [folder / f"{entry.file}.part", folder / f"{USER_MANIFEST}.part"]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        parts[0].write_bytes(content)
        parts[1].write_text(manifest, encoding="utf-8")
        parts[0].replace(entry.path)
        parts[1].replace(folder / USER_MANIFEST)
    except OSError as error:
        raise WeightsError(f"{folder} cannot be written to: {error.strerror}") from error
    finally:
        for part in parts:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
