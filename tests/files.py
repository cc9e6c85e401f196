"""Files that tests make, and damage."""

from __future__ import annotations

from pathlib import Path


def touch(*paths: Path) -> None:
    """Empty files, in folders that need not be there."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def cut(path: Path, share: float) -> Path:
    """A file, of which only this share is left, from its begin."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path
