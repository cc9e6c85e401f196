"""Files that tests make, and damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from tests.signals import RATE


def touch(*paths: Path) -> None:
    """Empty files, in folders that need not be there."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_song(folder: Path, stems: dict[str, npt.NDArray[np.floating]]) -> None:
    """A song in the layout of MUSDB18-HQ; the mixture is the stems' sum."""
    folder.mkdir(parents=True)
    mixture = np.sum(list(stems.values()), axis=0)
    for name, signal in {"mixture": mixture, **stems}.items():
        soundfile.write(folder / f"{name}.wav", signal.T, RATE, subtype="PCM_16")


def cut(path: Path, share: float) -> Path:
    """A file, of which only this share is left, from its begin."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def damage(path: Path, kind: str, share: float, size: int = 2000) -> Path:
    """A file in which some bytes after this share are zeros or noise, or have noise before them."""
    content = bytearray(path.read_bytes())
    at = int(len(content) * share)
    end = at if kind == "insert" else at + size
    content[at:end] = bytes(size) if kind == "zeros" else np.random.default_rng(0).bytes(size)
    path.write_bytes(content)
    return path


def take_for_one(monkeypatch: pytest.MonkeyPatch, folds: Callable[[str], str]) -> None:
    """Let names be found in folders as on some drives: by what is equal once it is folded."""

    def exists(path: str | Path) -> bool:
        place = Path(Path(path).anchor)
        for name in Path(path).parts[1:]:
            names = [each.name for each in place.iterdir()] if place.is_dir() else []
            same = [each for each in names if folds(each) == folds(name)]
            if not same:
                return False
            place /= name if name in same else same[0]
        return True

    monkeypatch.setattr(os.path, "lexists", exists)
