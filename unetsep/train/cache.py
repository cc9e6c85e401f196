"""Stems decoded once into memory-mapped int16 files.

Each song becomes ``<cache>/<key>.npy``, int16 ``(stems, samples, 2)``, and
``<cache>/<key>.json``, which names it. The key depends on the source files and on
`CACHE_VERSION`; a file appears under its name only when it is complete, so decoding can
be interrupted, repeated, or done by two processes at once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..config import STEMS
from ..errors import AudioError

CACHE_VERSION = 1
SAMPLE_RATE = 44_100
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


@dataclass(frozen=True)
class Song:
    """One decoded song or single-source recording.

    Parameters
    ----------
    name, source
        What it is called and where it comes from (``musdb``, ``songs`` or ``pools``).
    split
        ``train``, ``valid`` or ``test``.
    stems
        Stem name (or ``mixture``) to int16 ``(samples, 2)``; unknown stems are missing.
    silent
        Stems that are known to be silent.
    """

    name: str
    source: str
    split: str
    stems: dict[str, npt.NDArray[np.int16]]
    silent: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Length in samples, common to all stems."""
        return min(len(stem) for stem in self.stems.values())


def load_musdb(root: str | Path, cache: str | Path, split: str) -> list[Song]:
    """Songs of a MUSDB18 root (``.stem.mp4``, or wav folders), decoded by musdb.

    Parameters
    ----------
    root
        The folder that holds ``train/`` and ``test/``.
    cache
        Folder for the decoded stems.
    split
        ``train`` (without musdb's 14 validation songs), ``valid`` or ``test``.

    Raises
    ------
    AudioError
        If there is no track.
    """
    import musdb

    is_wav = not any(Path(root).glob("*/*.stem.mp4"))
    subset, part = ("test", None) if split == "test" else ("train", split)
    tracks = musdb.DB(root=str(root), subsets=subset, split=part, is_wav=is_wav).tracks
    if not tracks:
        raise AudioError(
            f"no MUSDB18 tracks for split {split!r} in {root}: expected train/ and test/ with "
            "*.stem.mp4 files or wav folders; see https://sigsep.github.io/datasets/musdb.html"
        )

    def decode(track: Any) -> dict[str, npt.NDArray[np.float64]]:
        return {"mixture": track.audio} | {stem: track.targets[stem].audio for stem in STEMS}

    return [
        _cached(
            [Path(track.path)],
            Path(cache),
            {"name": track.name, "source": "musdb", "split": split},
            functools.partial(decode, track),
        )
        for track in tracks
    ]


def load_songs(root: str | Path, cache: str | Path, split: str = "train") -> list[Song]:
    """Songs ``<root>/<split>/<song>/<stem>.<suffix>``, with an optional ``song.json``.

    A stem that is neither there nor listed under ``"silent"`` is unknown.
    """
    songs = []
    for folder in sorted(path for path in (Path(root) / split).iterdir() if path.is_dir()):
        files = {path.stem: path for path in _audio_files(folder) if path.stem in STEMS}
        if not files:
            continue
        described = folder / "song.json"
        silent = json.loads(described.read_text()).get("silent", []) if described.exists() else []
        head = {"name": folder.name, "source": "songs", "split": split, "silent": silent}
        songs.append(
            _cached(list(files.values()), Path(cache), head, functools.partial(_read_all, files))
        )
    return songs


def load_pools(root: str | Path, cache: str | Path) -> list[Song]:
    """Single-source recordings ``<root>/<stem>/**``; all are training data."""
    return [
        _cached(
            [path],
            Path(cache),
            {"name": path.stem, "source": "pools", "split": "train"},
            functools.partial(_read_all, {stem: path}),
        )
        for stem in STEMS
        for path in _audio_files(Path(root) / stem)
    ]


def _audio_files(folder: Path) -> Iterator[Path]:
    yield from sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)


def _read_all(files: dict[str, Path]) -> dict[str, npt.NDArray[np.float64]]:
    import soundfile
    import soxr

    stems = {}
    for stem, path in files.items():
        audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if rate != SAMPLE_RATE:
            audio = soxr.resample(audio, rate, SAMPLE_RATE)
        stems[stem] = audio if audio.shape[1] == 2 else np.repeat(audio[:, :1], 2, axis=1)
    return stems


def _cached(
    files: Iterable[Path],
    cache: Path,
    head: dict[str, Any],
    decode: Callable[[], dict[str, npt.NDArray[Any]]],
) -> Song:
    key = _key(files, head)
    data, text = cache / f"{key}.npy", cache / f"{key}.json"
    if not text.exists():
        stems = decode()
        length = min(len(audio) for audio in stems.values())
        pcm = np.stack([_to_int16(audio[:length]) for audio in stems.values()])
        _write(data, lambda file: np.save(file, pcm))
        described = json.dumps(head | {"stems": list(stems)}).encode()
        _write(text, lambda file: file.write(described))
    info = json.loads(text.read_text())
    pcm = np.load(data, mmap_mode="r")
    return Song(
        name=info["name"],
        source=info["source"],
        split=info["split"],
        stems=dict(zip(info["stems"], pcm, strict=True)),
        silent=tuple(info.get("silent", ())),
    )


def _key(files: Iterable[Path], head: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps([CACHE_VERSION, head], sort_keys=True).encode())
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()[:24]


def _to_int16(audio: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    return np.clip(np.rint(audio * 32768.0), -32768, 32767).astype(np.int16)


def _write(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write beside the target, then rename: what has the name is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink()
        raise
