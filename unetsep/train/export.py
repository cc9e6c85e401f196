"""From a training run to a checkpoint file and its manifest entry."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..unet import UNet
from ..weights import Checkpoint, serialize


def export(network: UNet, file: Path, **described: Any) -> Checkpoint:
    """Write a network as a half-precision checkpoint.

    Parameters
    ----------
    network
        The averaged network of a run.
    file
        Where to write it; its name becomes the entry's.
    **described
        The other fields of `Checkpoint`.

    Returns
    -------
    Checkpoint
        The manifest entry, with hash, size and config of what was written.
    """
    content = serialize(network)
    file.write_bytes(content)
    return Checkpoint(
        file=file.name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        config=json.loads(network.config.to_json()),
        **described,
    )


def write_manifest(path: Path, default: str, checkpoints: list[Checkpoint]) -> None:
    """Write the manifest of all published checkpoints."""
    entries = [asdict(checkpoint) for checkpoint in checkpoints]
    text = json.dumps({"default": default, "checkpoints": entries}, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
