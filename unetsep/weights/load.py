"""From the name or path of a model to its network, with all checks.

A file in the manifest is compared with the manifest's SHA-256 before any of it is used.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from ..storage import write_atomically
from . import hub
from .checkpoint import MAX_BYTES, build_network
from .manifest import (
    SUFFIX,
    Checkpoint,
    find_checkpoint,
    is_path,
    manifest,
    model_name,
    user_models,
    why_no_model,
)

if TYPE_CHECKING:
    from ..network.masks import MaskNetwork


def load_network(model: str | Path) -> MaskNetwork:
    """The network of a published checkpoint, or of a safetensors file, ready to separate.

    Parameters
    ----------
    model
        A name from the manifest, ``"default"``, or the path of a ``.safetensors`` file.

    Returns
    -------
    MaskNetwork
        In evaluation mode, fp32, on the CPU.

    Raises
    ------
    WeightsError
        If there is no such model, or the file is damaged or not a checkpoint.
    """
    return load_checkpoint(model)[0]


def load_checkpoint(model: str | Path) -> tuple[MaskNetwork, str]:
    """A network and the SHA-256 of exactly the bytes that it was read from.

    Parameters and errors are those of `load_network`.
    """
    if is_path(model):
        content = _read(Path(model))
        network, sha256 = build_network(content, str(model)), hashlib.sha256(content).hexdigest()
        place: Path | Checkpoint = Path(model).parent
    else:
        entry = find_checkpoint(model_name(model))
        network, sha256 = _published(entry), entry.sha256
        place = _place(entry)
    if network.config.guide:
        _attach_guide(network, place, str(model))
    return network, sha256


def fetch_model(entry: Checkpoint) -> Path:
    """Path of a published or imported model, downloaded with its guide if missing.

    Raises
    ------
    WeightsError
        If either is not available.
    """
    if entry.config.get("guide"):
        guide = _find_guide(entry.config["guide"], _place(entry))
        if isinstance(guide, Checkpoint) and not guide.is_local:
            hub.fetch(guide, guided=entry.name)
    if not entry.is_local:
        return hub.fetch(entry)
    _verified(entry)
    return entry.path


def _place(entry: Checkpoint) -> Path | Checkpoint:
    """Where to look for the guide of a model: in the folder of its file, or on the hub."""
    return entry.path.parent if entry.is_local else entry


def _published(entry: Checkpoint, *, guided: str = "") -> MaskNetwork:
    content = _verified(entry) if entry.is_local else hub.read(entry, guided=guided)
    return build_network(content, entry.name)


def _attach_guide(network: MaskNetwork, place: Path | Checkpoint, label: str) -> None:
    """Attach the guide of a guided network: a separate model, which several may share."""
    from ..network.guided import Guided

    assert isinstance(network, Guided)
    sha256 = network.config.guide
    guide = load_guide(sha256, place, label)
    try:
        network.attach(guide)
    except ValueError as error:
        source = _find_guide(sha256, place)
        name = source.name if source else ""
        raise WeightsError(f"{label} cannot be guided by {name}: {error}") from error


def load_guide(sha256: str, place: Path | Checkpoint, label: str) -> MaskNetwork:
    """The guide of a network: a published or imported model, or one that lies beside it.

    Parameters
    ----------
    sha256
        Of its checkpoint.
    place
        Where to look for it after the manifests: a folder, or a published model on the hub,
        which has its guide at the same revision.
    label
        The guided model, for messages.

    Raises
    ------
    WeightsError
        If it is not found.
    """
    source = _find_guide(sha256, place)
    if source is None:
        raise WeightsError(
            f"{label} is guided by a model that is not here (SHA-256 {sha256[:12]}...): install "
            "the version of unetsep that has it, import it, or put its file beside the checkpoint"
        )
    if isinstance(source, Path):
        return build_network(_read(source), str(source))
    return _published(source, guided=label)


def _find_guide(sha256: str, place: Path | Checkpoint) -> Checkpoint | Path | None:
    try:
        entry = _entry_of(sha256)
    except WeightsError:  # the user's manifest is damaged, but the folder may have the guide
        path = None if isinstance(place, Checkpoint) else _guide_in(place, sha256, None)
        if path is None:
            raise
        return path
    if isinstance(place, Checkpoint):  # `unetsep publish` uploads guides that are not published
        file = _guide_file(sha256)
        return entry or replace(place, name=file, file=file, sha256=sha256)
    if entry is not None and entry.is_local:
        return entry
    return _guide_in(place, sha256, None if entry is None else entry.bytes) or entry


def _guide_in(folder: Path, sha256: str, size: int | None) -> Path | None:
    """The guide's file in a folder, tried first by its usual name, as there may be many files."""
    name = _guide_file(sha256)
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: (path.name != name, path))
    return next((path for path in files if _has_hash(path, sha256, size)), None)


def _has_hash(path: Path, sha256: str, size: int | None) -> bool:
    """Whether a file has a hash, which is computed only if the size can be right.

    A folder of downloads may hold any files: those that cannot be read do not have it.
    """
    try:
        possible = path.is_file() and size in (None, path.stat().st_size)
        return possible and checkpoint_hash(path) == sha256
    except (OSError, WeightsError):
        return False


def _entry_of(sha256: str) -> Checkpoint | None:
    """The published or imported model with a hash."""
    # Published ones come first, so that a damaged manifest of the user's does not hide them.
    for models in (manifest, user_models):
        for entry in models().checkpoints.values():
            if entry.sha256 == sha256:
                return entry
    return None


def _guide_file(sha256: str) -> str:
    return f"guide-{sha256[:12]}{SUFFIX}"


def carry_guide(sha256: str, source: Path, target: Path) -> None:
    """Copy an unpublished guide to the folder of a new checkpoint that needs it.

    Parameters
    ----------
    sha256
        Of its checkpoint; empty for a network without a guide.
    source, target
        Folders. Nothing is copied if ``source`` lacks the guide, or if ``target`` or a manifest has
        it.
    """
    if not sha256 or _find_guide(sha256, target) is not None:
        return
    path = _find_guide(sha256, source)
    if isinstance(path, Path):
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(target / _guide_file(sha256), _read(path))


def checkpoint_hash(model: str | Path) -> str:
    """SHA-256 of a checkpoint: of the file at a path, or from the manifest for a name.

    Raises
    ------
    WeightsError
        If there is no such model.
    """
    if is_path(model):
        return hashlib.sha256(_read(Path(model))).hexdigest()
    return find_checkpoint(model_name(model)).sha256


def _verified(entry: Checkpoint) -> bytes:
    """The content of a bundled or imported checkpoint, after comparing its hash."""
    content = _read(entry.path)
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != entry.sha256:
        cure = "import it again" if entry.source else "install unetsep again"
        raise WeightsError(
            f"{entry.path} is damaged: its SHA-256 is {sha256[:12]}..., the manifest "
            f"says {entry.sha256[:12]}...; {cure}"
        )
    return content


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES and path.is_file():
            raise WeightsError(
                f"model file {path} has {size / 1e9:.1f} GB: expected a checkpoint of at most "
                f"{MAX_BYTES / 1e9:.0f} GB"
            )
        return path.read_bytes()
    except (FileNotFoundError, ValueError) as error:  # the latter for a NUL in the name
        raise WeightsError(f"model file {path} does not exist") from error
    except OSError as error:
        if os.path.isdir(path):  # noqa: PTH112 (raises no error for long names)
            raise WeightsError(why_no_model(path)) from error
        raise WeightsError(f"model file {path} cannot be read: {error.strerror}") from error
