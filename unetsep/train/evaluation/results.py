"""One JSON file per method and track, in museval's layout, and when it may be reused.

``<output>/<method>/<train or test>/<track>.json``, below a folder such as
``vocals-accompaniment`` if the user chose that set, holds what museval writes. Its key
``unetsep``, which museval's tools ignore, says how the scores were computed. As in museval's
own files, infinities are written as NaN, and NaN as the bare word. Python, pandas and
simplejson read it, but strict JSON parsers do not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...drives import FileMap, NameRules, refused_name, without_illegal
from ...errors import UnetsepError
from ...storage import write_atomically
from ...version import __version__
from ..data.cache import content_hash
from .measures import can_measure
from .scoring import FULL_MODES, METRICS, TrackScores
from .stem_sets import StemSet
from .tracks import Track

# Raise this when scores change for the same audio.
SCORER_VERSION = 3
# museval rounds to this many decimals.
DECIMALS = 5
MUSEVAL_LAYOUT = "0.4.1"


def origin_of(method: dict[str, Any], track: list[Any], duration: float | None) -> dict[str, Any]:
    """What scores depend on; equal origins have equal scores.

    Parameters
    ----------
    method
        What made the estimates: a model's hash and settings, a baseline's name, or names,
        sizes and times of the estimates' files.
    track
        See `track_origin`.
    duration
        Seconds that were scored, None for all.
    """
    return {"scorer": SCORER_VERSION, "method": method, "track": track, "duration": duration}


def track_origin(track: Track, output: Path) -> list[Any]:
    """A track's stems, its rest, and of each file the stem, the name and the content's SHA-256.

    Parameters
    ----------
    track
        To be scored.
    output
        Folder of the results. ``<output>/.hashes`` caches hashes of files: reading all references
        again takes longer than reading their scores.
    """
    notes = output / ".hashes"
    files = [[stem, path.name, content_hash(path, notes)] for stem, path in track.parts]
    return [list(track.stems), track.rest, files]


def file_name(track: Track) -> str:
    """A track's name as that of a file; separators of folders in it become ``_``, too."""
    return re.sub(r"[/\\]", "_", without_illegal(track.name))


def check_names(tracks: Sequence[Track], output: Path) -> None:
    """Check before any work that the drive of the results takes the names of all tracks.

    Parameters
    ----------
    tracks
        Of the evaluation.
    output
        The folder of the results, which exists.

    Raises
    ------
    UnetsepError
        If it refuses one, or takes two for the same.
    """
    names = {f"{file_name(track)}.json": track.name for track in tracks}
    cure = "choose another folder with -o, or rename the track"
    if refused := refused_name(names, output):
        raise UnetsepError(f"the drive of {output} takes no such name as {refused!r}: {cure}")
    files: FileMap[str] = FileMap(NameRules().same)
    for name, track in names.items():
        other = files.setdefault(output / name, track)
        if other != track:
            raise UnetsepError(
                f"the tracks {other!r} and {track!r} have one name on the drive of {output}: {cure}"
            )


def path_of(output: Path, method: str, track: Track, sources: StemSet = ()) -> Path:
    """Where the scores of a method on a track are; a set that the user chose has its own folder."""
    return output / "-".join(sources) / method / track.folder / f"{file_name(track)}.json"


def write(path: Path, scores: TrackScores, origin: dict[str, Any], mode: str) -> None:
    """Write scores; a file of that name is always complete."""
    content = {
        "targets": [
            {"name": stem, "frames": _frames(scores, index)}
            for index, stem in enumerate(scores.stems)
        ],
        "museval_version": MUSEVAL_LAYOUT,
        "unetsep": {
            "version": __version__,
            "metrics": mode,
            "stems": list(scores.stems),
            "silent": list(scores.silent),
            "leakage": _leakage(scores),
            "measures": {
                name: {stem: _round(value) for stem, value in by_stem.items()}
                for name, by_stem in scores.measures.items()
            },
            "origin": origin,
        },
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False))
    except OSError as error:
        raise UnetsepError(f"{path} cannot be written: {error.strerror}") from error


def _frames(scores: TrackScores, stem: int) -> list[dict[str, Any]]:
    frames = scores.values["SDR"].shape[1]
    return [
        {
            "time": frame * scores.duration,
            "duration": scores.duration,
            "metrics": {m: _round(scores.values[m][stem, frame]) for m in METRICS},
        }
        for frame in range(frames)
    ]


def _leakage(scores: TrackScores) -> dict[str, list[float]] | None:
    """Frames of each stem, for which museval's layout has no place."""
    if scores.leakage is None:
        return None
    rows = zip(scores.stems, scores.leakage, strict=True)
    return {stem: [_round(value) for value in row] for stem, row in rows}


def _round(value: float) -> float:
    return round(float(value), DECIMALS) if math.isfinite(value) else math.nan


def read(path: Path) -> tuple[TrackScores, dict[str, Any]]:
    """Scores from a file of unetsep's or museval's, and how unetsep computed them, if it did.

    Raises
    ------
    UnetsepError
        If it is neither, or cannot be read.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        raise UnetsepError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        content = json.loads(text)
        targets = content["targets"]
        stems = tuple(target["name"] for target in targets)
        columns = {
            metric: [[_number(f["metrics"].get(metric)) for f in t["frames"]] for t in targets]
            for metric in METRICS
        }
        shape = (len(stems), -1)
        values = {m: np.array(c, dtype=np.float64).reshape(shape) for m, c in columns.items()}
        about = content.get("unetsep", {})
        first: dict[str, Any] = next(
            (frame for target in targets for frame in target["frames"]), {}
        )
        duration = float(first.get("duration", 1.0))
        leaks = about.get("leakage")
        leakage = None if leaks is None else np.array([leaks[s] for s in stems], dtype=np.float64)
        silent = tuple(about.get("silent", ()))
        measures = dict(about.get("measures") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnetsepError(f"{path} holds no scores in museval's layout: {error}") from error
    return TrackScores(stems, values, silent, duration, leakage, measures), about


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def reusable(
    path: Path, stem_set: StemSet, origin: dict[str, Any], mode: str, measures: Collection[str]
) -> tuple[TrackScores | None, str, list[str]]:
    """Existing scores of the same set and origin that hold all metrics and measures.

    Returns
    -------
    TrackScores or None
        The scores, if they exist.
    str, list of str
        Mode and measures to score with, including those of existing scores of this origin.
    """
    names = list(measures)
    existing = _of_origin(path, stem_set, origin)
    if existing is None:
        return None, mode, names
    scores, existing_mode = existing
    mode = existing_mode if mode == "sdr" and existing_mode in FULL_MODES else mode
    if existing_mode == mode and set(names) <= set(scores.measures):
        return scores, mode, names
    names += [each for each in scores.measures if each not in names and can_measure(each)]
    return None, mode, names


def _of_origin(
    path: Path, stem_set: StemSet, origin: dict[str, Any]
) -> tuple[TrackScores, str] | None:
    """Existing scores in a set and of an origin, and their mode."""
    if not path.is_file():
        return None
    try:
        scores, about = read(path)
    except UnetsepError:
        return None  # half a file of another program: score again and replace it
    # The sets a-b,c and a,b-c have the same folder.
    same = set(scores.stems) == set(stem_set) and about.get("origin") == origin
    return (scores, str(about.get("metrics"))) if same else None
