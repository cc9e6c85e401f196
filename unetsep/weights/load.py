"""From the name or path of a model to its network, with every check made.

A file that the manifest names is compared with the manifest's SHA-256 before anything in it
is used.
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
        If there is no such model, or the file is damaged or not what it should be.
    """
    return load_checkpoint(model)[0]


def load_checkpoint(model: str | Path) -> tuple[MaskNetwork, str]:
    """A network and the SHA-256 of the very bytes that it was read from.

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
    """Path of a published or imported model, downloaded with its guide if they are not here.

    Raises
    ------
    WeightsError
        If either cannot be had.
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
    """Where the guide of a model may lie: in the folder of its file, or on the hub as it does."""
    return entry.path.parent if entry.is_local else entry


def _published(entry: Checkpoint, *, guided: str = "") -> MaskNetwork:
    content = _verified(entry) if entry.is_local else hub.read(entry, guided=guided)
    return build_network(content, entry.name)


def _attach_guide(network: MaskNetwork, place: Path | Checkpoint, label: str) -> None:
    """Give a guided network its guide, which is a model of its own: several share one."""
    from ..network.guided import Guided

    assert isinstance(network, Guided)
    sha256 = network.config.guide
    guide = load_guide(sha256, place, label)
    try:
        network.attach(guide)
    except ValueError as error:
        found = _find_guide(sha256, place)
        name = found.name if found else ""
        raise WeightsError(f"{label} cannot be guided by {name}: {error}") from error


def load_guide(sha256: str, place: Path | Checkpoint, label: str) -> MaskNetwork:
    """The guide of a network: a published or imported model, or one that lies beside it.

    Parameters
    ----------
    sha256
        Of its checkpoint.
    place
        Where to look for it after the models: a folder, or a published model on the hub, which
        has its guide at the same revision.
    label
        What is guided, for messages.

    Raises
    ------
    WeightsError
        If it is nowhere.
    """
    found = _find_guide(sha256, place)
    if found is None:
        raise WeightsError(
            f"{label} is guided by a model that is not here (SHA-256 {sha256[:12]}...): install "
            "the version of unetsep that has it, import it, or put its file beside the checkpoint"
        )
    if isinstance(found, Path):
        return build_network(_read(found), str(found))
    return _published(found, guided=label)


def _find_guide(sha256: str, place: Path | Checkpoint) -> Checkpoint | Path | None:
    try:
        known = _known(sha256)
    except WeightsError:  # the user's manifest is damaged, and of no concern to what is beside
        beside = None if isinstance(place, Checkpoint) else _guide_in(place, sha256, None)
        if beside is None:
            raise
        return beside
    if isinstance(place, Checkpoint):  # `unetsep publish` uploaded what was not published
        named = _guide_file(sha256)
        return known or replace(place, name=named, file=named, sha256=sha256)
    if known is not None and known.is_local:
        return known
    return _guide_in(place, sha256, None if known is None else known.bytes) or known


def _guide_in(folder: Path, sha256: str, size: int | None) -> Path | None:
    """The guide's file in a folder; that of its own name first, as there may be many."""
    named = _guide_file(sha256)
    files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: (path.name != named, path))
    return next((path for path in files if _has_hash(path, sha256, size)), None)


def _has_hash(path: Path, sha256: str, size: int | None) -> bool:
    """Whether a file is the one with a hash, which is computed only if its size may be right.

    A folder of downloads may hold anything: what cannot be read as a checkpoint is another one.
    """
    try:
        possible = path.is_file() and size in (None, path.stat().st_size)
        return possible and checkpoint_hash(path) == sha256
    except (OSError, WeightsError):
        return False


def _known(sha256: str) -> Checkpoint | None:
    """The published or imported model with a hash."""
    # A published one is found even where the user's manifest is damaged.
    for models in (manifest, user_models):
        for entry in models().checkpoints.values():
            if entry.sha256 == sha256:
                return entry
    return None


def _guide_file(sha256: str) -> str:
    return f"guide-{sha256[:12]}{SUFFIX}"


def carry_guide(sha256: str, source: Path, target: Path) -> None:
    """Copy a guide that was not published to where a checkpoint that needs it is written.

    Parameters
    ----------
    sha256
        Of its checkpoint; empty for a network without a guide.
    source, target
        Folders. Nothing is done if the guide is not in the one, or is in the other.
    """
    if not sha256 or _find_guide(sha256, target) is not None:
        return
    found = _find_guide(sha256, source)
    if isinstance(found, Path):
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(target / _guide_file(sha256), _read(found))


def checkpoint_hash(model: str | Path) -> str:
    """SHA-256 of a checkpoint: of the file at a path, or as the manifest names it.

    Raises
    ------
    WeightsError
        If there is no such model.
    """
    if is_path(model):
        return hashlib.sha256(_read(Path(model))).hexdigest()
    return find_checkpoint(model_name(model)).sha256


def _verified(entry: Checkpoint) -> bytes:
    """The content of a bundled or imported checkpoint, with the hash that it should have."""
    content = _read(entry.path)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        cure = "import it again" if entry.source else "install unetsep again"
        raise WeightsError(
            f"{entry.path} is damaged: its SHA-256 is {found[:12]}..., the manifest "
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
    except (FileNotFoundError, ValueError) as error:  # the latter by a NUL in the name
        raise WeightsError(f"model file {path} does not exist") from error
    except OSError as error:
        if os.path.isdir(path):  # noqa: PTH112 (no errors, as of a name too long)
            raise WeightsError(why_no_model(path)) from error
        raise WeightsError(f"model file {path} cannot be read: {error.strerror}") from error
