"""MUSDB18 (Rafii et al. 2017): where it is, its songs, and what their files hold.

Training takes its songs from here, evaluation its tracks.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ...config import STEMS
from ...errors import AudioError, how_to_install
from .sources import ALL_STEMS, DatasetKind, Source, is_shadow

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SUBSETS = ("train", "valid", "test")
STEM_SUFFIX = ".stem.mp4"
WAV_SUFFIXES = (".wav", ".flac")
# Order of the streams in a .stem.mp4 file.
STREAMS = ("mixture", "drums", "bass", "other", "vocals")
# The songs that musdb sets aside for validation (`validation_tracks` in its mus.yaml).
VALID_SONGS = (
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
HOW_TO_GET = (
    "get MUSDB18 from https://sigsep.github.io/datasets/musdb.html, or let musdb fetch its "
    "7-second excerpts: python -c \"import musdb; musdb.DB(root='musdb18-7', download=True)\""
)
VARIABLE = "MUSDB_PATH"


class Musdb(DatasetKind):
    """MUSDB18 or MUSDB18-HQ: ``train/`` with ``*.stem.mp4`` files or folders of wav files.

    Its validation songs are those that musdb sets aside.
    """

    name = "musdb"
    option = "--musdb-root"
    help = f"Folder with train/, of .stem.mp4 files or wav folders.  [default: ${VARIABLE}]"
    repeated = False
    extra = False

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        """Training and validation songs; see `DatasetKind.find`."""
        if not set(STEMS) <= set(stems):
            raise AudioError(
                f"MUSDB18 has the stems {', '.join(STEMS)}, whose sum its mixtures are: it cannot "
                f"be used for {', '.join(stems)} alone"
            )
        sources = []
        for path in song_paths(root / "train"):
            files = song_files(path)
            missing = [f"{stem}.wav" for stem in ("mixture", *STEMS) if stem not in files]
            if missing and ALL_STEMS not in files:
                raise AudioError(f"{path} is not a MUSDB18 song: it lacks {', '.join(missing)}")
            split = "valid" if song_name(path) in VALID_SONGS else "train"
            sources.append(Source(song_name(path), self.name, split, files))
        if not sources:
            raise AudioError(
                f"there is no MUSDB18 in {root}: expected {root / 'train'} with *{STEM_SUFFIX} "
                f"files or a folder of wav files for each song; {HOW_TO_GET}"
            )
        return sources

    def default_root(self, stems: Sequence[str]) -> Path | None:
        """The folder in the environment variable, if its stems are among those of the run."""
        root = os.environ.get(VARIABLE)
        return Path(root) if root and set(STEMS) <= set(stems) else None


def musdb_root(root: str | Path | None) -> Path:
    """The MUSDB18 folder that was named, or else the one in ``MUSDB_PATH``.

    Raises
    ------
    AudioError
        If there is neither; the message says how to get MUSDB18.
    """
    folder = root or os.environ.get(VARIABLE)
    if not folder:
        raise AudioError(f"no MUSDB18: name --musdb-root or set {VARIABLE}; {HOW_TO_GET}")
    return Path(folder)


def song_paths(folder: Path) -> list[Path]:
    """Songs in ``train/`` or ``test/``, sorted: ``.stem.mp4`` files, and folders with stems."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in paths if song_files(path)]


def song_name(path: Path) -> str:
    """As musdb calls a song: the file's name without ``.stem.mp4``, or the folder's."""
    return path.name if path.is_dir() else path.name.removesuffix(STEM_SUFFIX)


def song_files(path: Path, stems: Sequence[str] = STEMS) -> dict[str, Path]:
    """Mixture and stems to files; `ALL_STEMS` to one that holds them all; empty for no song."""
    if not path.is_dir():
        is_song = path.name.endswith(STEM_SUFFIX) and not is_shadow(path)
        return {ALL_STEMS: path} if is_song else {}
    by_name = {
        (file.stem, file.suffix.lower()): file
        for file in sorted(path.iterdir())
        if file.is_file() and not is_shadow(file)
    }
    places = {
        stem: [by_name[stem, suffix] for suffix in WAV_SUFFIXES if (stem, suffix) in by_name]
        for stem in ("mixture", *stems)
    }
    return {stem: files[0] for stem, files in places.items() if files}


def import_stempeg(path: Path) -> ModuleType:
    """The package that reads a ``.stem.mp4`` file.

    Raises
    ------
    AudioError
        If it is not installed, or there is no ffmpeg.
    """
    try:
        return importlib.import_module("stempeg")
    except RuntimeError as error:  # stempeg looks for ffmpeg when it is imported
        raise AudioError(
            f"{path}: reading {STEM_SUFFIX} files needs ffmpeg and ffprobe on PATH: install "
            "ffmpeg, or use the wav version of MUSDB18"
        ) from error
    except ImportError as error:
        raise AudioError(f"{path} needs stempeg: run {how_to_install('train')}") from error


def read_stem_file(
    path: Path, **options: Any
) -> tuple[dict[str, npt.NDArray[np.floating[Any]]], int]:
    """Mixture and stems of a ``.stem.mp4`` file, and their rate in Hz.

    Parameters
    ----------
    path
        The file.
    options
        Of ``stempeg.read_stems``, such as ``duration`` and ``sample_rate``.

    Returns
    -------
    streams
        Float, each ``(samples, channels)``, in the order of `STREAMS`.
    sample_rate
        In Hz.

    Raises
    ------
    AudioError
        If it cannot be read, or there is no ffmpeg to read it.
    """
    stempeg = import_stempeg(path)
    try:
        audio, rate = stempeg.read_stems(str(path), **options)
    # stempeg raises Warning where ffprobe finds no stream, and trips over its own warning
    # (AttributeError) where streams differ in length.
    except (Warning, RuntimeError, ValueError, AttributeError, OSError) as error:
        raise AudioError(f"{path} cannot be read: is it complete? ({error})") from error
    if audio.ndim != 3 or len(audio) != len(STREAMS) or audio.shape[1] == 0:
        raise AudioError(
            f"{path} is not a MUSDB18 file: it holds {audio.shape}, expected {len(STREAMS)} "
            "streams with sound"
        )
    return dict(zip(STREAMS, audio, strict=True)), round(rate)
