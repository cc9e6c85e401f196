"""Downloading and verifying the published models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from ..errors import WeightsError
from ..weights import hub
from ..weights.manifest import Checkpoint, list_models


def download(names: Sequence[str], *, everything: bool = False) -> Iterator[str]:
    """Get models from the hub; yields a sentence for each.

    Parameters
    ----------
    names
        Of published models.
    everything
        All of them instead.

    Raises
    ------
    ValueError
        If neither or both are given.
    WeightsError
        If a name is unknown or a download fails.
    """
    if bool(names) == everything:
        raise ValueError("name the models to download, or give --all")
    known = {entry.name: entry for entry in list_models()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise WeightsError(f"there is no model {unknown[0]!r}: expected {', '.join(known)}")
    for entry in known.values() if everything else (known[name] for name in names):
        if entry.source or entry.bundled:
            yield f"{entry.name}: {entry.path}"
        else:
            yield f"{entry.name}: {hub.fetch(entry)}"


def verify() -> tuple[list[str], bool]:
    """Compare all models that are here with their SHA-256.

    Returns
    -------
    list of str
        A sentence for each model.
    bool
        Whether none is damaged; damaged downloads are deleted from the cache.
    """
    checked = [_verify(entry) for entry in list_models()]
    return [line for line, _ in checked], all(intact for _, intact in checked)


def _verify(entry: Checkpoint) -> tuple[str, bool]:
    here = bool(entry.source) or entry.bundled
    path = entry.path if here else hub.cached_file(entry)
    if path is None or not path.is_file():
        if entry.source:
            return f"{entry.name}: missing, {path} is gone: import it again", False
        return f"{entry.name}: not downloaded", True
    if hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256:
        return f"{entry.name}: intact", True
    if here:
        cure = "import it again" if entry.source else "install unetsep again"
        return f"{entry.name}: damaged, {path}: {cure}", False
    hub.remove(path)
    return f"{entry.name}: damaged, deleted from the cache", False
