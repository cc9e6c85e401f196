"""MUSDB18 (Rafii et al. 2017): where it lies, its songs and its streams."""

from __future__ import annotations

import os
from pathlib import Path

from ...config import STEMS
from ...errors import AudioError
from .sources import Source

SUBSETS = ("train", "valid", "test")


STEM_SUFFIX = ".stem.mp4"


# Order of the streams in a .stem.mp4 file.
STREAMS = ("mixture", "drums", "bass", "other", "vocals")


HOW_TO_GET = (
    "see https://sigsep.github.io/datasets/musdb.html, or let the musdb package fetch 7-second "
    "excerpts with musdb.DB(root=..., download=True)"
)


NO_ROOT = (
    "no MUSDB18 root: name one with --musdb-root or in the environment variable MUSDB_PATH; "
    "see https://sigsep.github.io/datasets/musdb.html, or let the musdb package fetch 7-second "
    "excerpts with musdb.DB(root=..., download=True)"
)


# The songs that musdb sets aside for validation (`validation_tracks` in its mus.yaml).
MUSDB_VALID = (
    "ANiMAL - Rockshow",
    "Actions - One Minute Smile",
    "Alexander Ross - Goodbye Bolero",
    "Clara Berry And Wooldog - Waltz For My Victims",
    "Fergessen - Nos Palpitants",
    "James May - On The Line",
    "Johnny Lokke - Promises & Lies",
    "Leaf - Summerghost",
    "Meaxic - Take A Step",
    "Patrick Talbot - A Reason To Leave",
    "Skelpolu - Human Mistakes",
    "Traffic Experiment - Sirens",
    "Triviul - Angelsaint",
    "Young Griffo - Pennies",
)


MUSDB_HELP = (
    "get MUSDB18 from https://sigsep.github.io/datasets/musdb.html, or let musdb fetch its "
    "7-second excerpts: python -c \"import musdb; musdb.DB(root='musdb18-7', download=True)\""
)


def musdb_root(root: str | Path | None) -> Path:
    """The MUSDB18 folder that was named, or else the one in ``MUSDB_PATH``.

    Raises
    ------
    AudioError
        If there is neither; the message says how to get MUSDB18.
    """
    found = root or os.environ.get("MUSDB_PATH")
    if not found:
        raise AudioError(f"no training data: name --musdb-root or set MUSDB_PATH; {MUSDB_HELP}")
    return Path(found)


def find_musdb(root: str | Path) -> list[Source]:
    """Training and validation songs of MUSDB18 or MUSDB18-HQ.

    Parameters
    ----------
    root
        The folder that holds ``train/``, with ``*.stem.mp4`` files or a folder of
        wav files for each song.

    Raises
    ------
    AudioError
        If there is no song, or one lacks a stem.
    """
    folder = Path(root) / "train"
    sources = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.endswith(STEM_SUFFIX):
            name, files = path.name.removesuffix(STEM_SUFFIX), {"": path}
        elif path.is_dir():
            name, files = path.name, {s: path / f"{s}.wav" for s in ("mixture", *STEMS)}
            missing = [file.name for file in files.values() if not file.is_file()]
            if len(missing) == len(files):
                continue
            if missing:
                raise AudioError(f"{path} is no MUSDB18 song: it lacks {', '.join(missing)}")
        else:
            continue
        split = "valid" if name in MUSDB_VALID else "train"
        sources.append(Source(name, "musdb", split, files))
    if not sources:
        raise AudioError(
            f"there is no MUSDB18 in {root}: expected {folder} with *{STEM_SUFFIX} files or a "
            f"folder of wav files for each song; {MUSDB_HELP}"
        )
    return sources


# The order of the streams in a MUSDB18 file.
MUSDB_ORDER = ("mixture", "drums", "bass", "other", "vocals")
