"""Checkpoints: the manifest of what is published, and loading with every check made.

A checkpoint is a safetensors file whose metadata holds the `ModelConfig` as JSON under
``"config"``. Nothing is ever unpickled; a file that the manifest names is compared with
the manifest's SHA-256 before anything in it is used.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError

if TYPE_CHECKING:
    from ..network.unet import UNet
from .checkpoint import MAX_BYTES, build_network
from .manifest import SUFFIX, all_models, is_path, manifest, model_name


def load_network(model: str | Path) -> UNet:
    """The network of a published checkpoint, or of a safetensors file, ready to separate.

    Parameters
    ----------
    model
        A name from the manifest, ``"default"``, or the path of a ``.safetensors`` file.

    Returns
    -------
    UNet
        In evaluation mode, fp32, on the CPU.

    Raises
    ------
    WeightsError
        If there is no such model, or the file is damaged or not what it should be.
    """
    return build_network(*_locate(model))


def _locate(model: str | Path) -> tuple[bytes, str]:
    """Content of a checkpoint, already compared with the manifest, and what it is called."""
    if is_path(model):
        return _read(Path(model)), str(model)
    name = model_name(model)
    known = manifest().checkpoints
    if name not in known:
        known = all_models().checkpoints
    if name not in known:
        raise WeightsError(
            f"there is no model {name!r}: expected {', '.join(known)}, "
            f"or the path of a {SUFFIX} file"
        )
    entry = known[name]
    if not entry.source and not entry.bundled:
        from .hub import read

        return read(entry), name
    content = _read(entry.path)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        cure = "import it again" if entry.source else "install unetsep again"
        raise WeightsError(
            f"{entry.path} is damaged: its SHA-256 is {found[:12]}..., the manifest "
            f"says {entry.sha256[:12]}...; {cure}"
        )
    return content, name


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES and path.is_file():
            raise WeightsError(
                f"model file {path} has {size / 1e9:.1f} GB: expected a checkpoint of at most "
                f"{MAX_BYTES / 1e9:.0f} GB"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"model file {path} does not exist") from error
    except OSError as error:
        raise WeightsError(f"model file {path} cannot be read: {error.strerror}") from error
