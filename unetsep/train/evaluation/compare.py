"""The paired difference of two methods that were scored on the same tracks."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UnetsepError
from . import results
from .measures import MEASURES
from .scoring import TrackScores
from .sdr import median
from .statistics import COVERAGE, Interval, sign_test, track_median


@dataclass(frozen=True)
class Difference:
    """How much better B is than A on one stem.

    Parameters
    ----------
    stem
        Its name.
    gain
        Median over tracks of B's minus A's score, with its interval.
    a, b
        Each method's median over the tracks that both scored.
    better
        Tracks on which B is better.
    lower_is_better
        Whether a negative difference speaks for B.
    sources
        The set of stems in which the tracks were scored.
    subset
        Folder of the scores, ``test`` or another.
    chance
        Probability that one of two equal methods is better on this many tracks or more, by a sign
        test.
    """

    stem: str
    gain: Interval
    a: float
    b: float
    better: int
    lower_is_better: bool = False
    sources: tuple[str, ...] = ()
    subset: str = "test"
    chance: float = 1.0

    @property
    def verdict(self) -> str:
        """What interval and sign test say: ``A``, ``B``, or ``undecided`` if either is."""
        holds_zero = math.isnan(self.gain.low) or self.gain.low <= 0 <= self.gain.high
        if holds_zero or self.chance > 1 - COVERAGE:
            return "undecided"
        return "B" if (self.gain.low > 0) != self.lower_is_better else "A"


@dataclass(frozen=True)
class Comparison:
    """Two methods on the tracks that both were scored on.

    Parameters
    ----------
    differences
        Of each stem, in each folder and set of stems by itself.
    alone
        By folder, how many tracks only A, and only B, has scores of; they are not compared.
    """

    differences: list[Difference]
    alone: dict[str, tuple[int, int]]


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.json")) if folder.is_dir() else []


def scores_folder(method: Path, output: Path) -> Path:
    """The folder of a method's scores: that folder itself, or the one of its name in ``output``.

    A folder without scores does not count: that of a method's estimates may have its name.
    """
    by_name = output / method
    if _files(method) or (method.is_dir() and not by_name.is_dir()):
        return method
    return by_name


def load(folder: Path) -> dict[str, tuple[TrackScores, dict[str, Any]]]:
    """Scores in a method's folder of results, unetsep's or museval's, by folder and track.

    Raises
    ------
    UnetsepError
        If there are none.
    """
    files = _files(folder)
    if not files:
        raise UnetsepError(
            f"{folder} holds no scores: expected a folder with test/<track>.json, as "
            "'unetsep eval' and museval write it"
        )
    return {f"{path.parent.name}/{path.stem}": results.read(path) for path in files}


def compare(a: Path, b: Path, metric: str = "SDR") -> Comparison:
    """Paired differences of all stems that both methods scored.

    Each set of stems is compared by itself, and so is each folder: validation songs may
    have selected one of the models. Pairing removes what makes songs easy or hard for both methods,
    so the interval is much narrower than those of the two medians.

    Parameters
    ----------
    a, b
        Folders of results.
    metric
        One of SDR, ISR, SIR, SAR, or a key of `unetsep.train.evaluation.measures.MEASURES`; where
        less is better, B is better if the difference is negative.

    Raises
    ------
    UnetsepError
        If there are no common tracks or scores, or a folder holds scores of several methods.
        Also if tracks were scored on different audio or in different sets of stems.
    """
    left, right = load(a), load(b)
    common = [track for track in left if track in right]
    if not common:
        raise UnetsepError(f"{a} and {b} have no track in common")
    for track in common:
        _check_pair(track, left[track], right[track])
    for folder, scores in ((a, left), (b, right)):
        _check_method(folder, {track: scores[track][1] for track in common})
    lower = metric in MEASURES and MEASURES[metric].lower_is_better
    sets: dict[tuple[str, frozenset[str]], list[str]] = {}
    for track in common:
        sets.setdefault((_subset(track), frozenset(left[track][0].stems)), []).append(track)
    differences = []
    for (subset, _), tracks in sets.items():
        sources = left[tracks[0]][0].stems
        for stem in sources:
            pairs = [
                (left[track][0].median(stem, metric), right[track][0].median(stem, metric))
                for track in tracks
                # A stem that is silent for one method only changes the set on this track.
                if set(left[track][0].silent) == set(right[track][0].silent)
            ]
            pairs = [pair for pair in pairs if all(map(math.isfinite, pair))]
            if pairs:
                differences.append(_difference(stem, pairs, sources, subset, lower=lower))
    if not differences:
        option = f"--measures {metric}" if metric in MEASURES else "--metrics bsseval"
        raise UnetsepError(f"{a} and {b} share no {metric} scores: score both with {option}")
    only_a, only_b = (
        Counter(map(_subset, one.keys() - other.keys()))
        for one, other in ((left, right), (right, left))
    )
    alone = {subset: (only_a[subset], only_b[subset]) for subset in sorted({*only_a, *only_b})}
    return Comparison(differences, alone)


def _subset(track: str) -> str:
    return track.partition("/")[0]


def _difference(
    stem: str,
    pairs: list[tuple[float, float]],
    sources: tuple[str, ...],
    subset: str,
    *,
    lower: bool,
) -> Difference:
    gains = [b - a for a, b in pairs]
    a, b = (float(median(np.array(column))) for column in zip(*pairs, strict=True))
    better = sum((gain < 0) if lower else (gain > 0) for gain in gains)
    gain, chance = track_median(gains), sign_test(gains)
    return Difference(stem, gain, a, b, better, lower, sources, subset, chance)


def _check_method(folder: Path, abouts: dict[str, dict[str, Any]]) -> None:
    """Refuse scores of several models, or versions of one, in a method's folder."""
    methods: dict[str, str] = {}
    for track, about in abouts.items():
        method = (about.get("origin") or {}).get("method", {})
        # Files of estimates differ from track to track.
        settings = {key: value for key, value in method.items() if key != "files"}
        methods.setdefault(json.dumps(settings, sort_keys=True), track)
    if len(methods) > 1:
        first, second, *_ = methods.values()
        raise UnetsepError(
            f"{folder} mixes scores of several models or versions, as of {first} and {second}: "
            "score all of its tracks again with 'unetsep eval'"
        )


def _check_pair(
    track: str, left: tuple[TrackScores, dict[str, Any]], right: tuple[TrackScores, dict[str, Any]]
) -> None:
    (a, about_a), (b, about_b) = left, right
    if set(a.stems) != set(b.stems):
        sets = [", ".join(scores.stems) for scores in (a, b)]
        raise UnetsepError(
            f"{track} was scored in the sets {sets[0]} and {sets[1]}: scores depend on the set, "
            "so these cannot be compared"
        )
    for key, reason in (
        ("scorer", "by different versions of unetsep: score both again"),
        ("track", "on different audio: score both on the same"),
        ("duration", "with --duration {} and {}: score both with the same"),
    ):
        values = [(about.get("origin") or {}).get(key, ...) for about in (about_a, about_b)]
        if ... not in values and values[0] != values[1]:
            raise UnetsepError(f"{track}: A and B were scored {reason.format(*values)}")
