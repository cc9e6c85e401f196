"""The set of stems in which tracks are scored: scores depend on it.

A set holds stems of the songs, or sums of them. SiSEC (Stöter et al. 2018) scores systems for
two stems in the set of ``vocals`` and ``accompaniment``, the sum of all stems but the vocals. A
frame in which one stem of the set is silent has no score. So vocals read another value in that
set than beside drums, bass and other: the two must never share a column.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from ...config import STEMS
from ...dsp.arrays import Signal

ACCOMPANIMENT = "accompaniment"
StemSet = tuple[str, ...]


def ordered(stems: Iterable[str]) -> tuple[str, ...]:
    """The usual stems in their order, then others by name."""
    names = set(stems)
    usual = [stem for stem in (*STEMS, ACCOMPANIMENT) if stem in names]
    return (*usual, *sorted(names - set(usual)))


def rest_of(stem: str) -> str:
    """What to call the sum of all stems but one."""
    return ACCOMPANIMENT if stem == "vocals" else f"no_{stem}"


def parts_of(source: str, stems: Sequence[str]) -> StemSet:
    """The stems whose sum a source is.

    Parameters
    ----------
    source
        A stem, or the `rest_of` one.
    stems
        Whose sum the mixture is.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> parts_of("accompaniment", ("vocals", "drums", "bass", "other"))
    ('drums', 'bass', 'other')
    """
    if source in stems:
        return (source,)
    for stem in stems:
        if source == rest_of(stem):
            return tuple(other for other in stems if other != stem)
    names = dict.fromkeys((*stems, *map(rest_of, stems)))
    raise ValueError(f"--sources: there is no {source!r}, expected some of {', '.join(names)}")


def check_set(sources: Sequence[str], stems: Sequence[str]) -> None:
    """Refuse a set in which tracks with these stems cannot be scored.

    Raises
    ------
    ValueError
        If it has fewer than two sources, one twice, or one that is not of the songs.
    """
    if len(sources) < 2 or len(set(sources)) < len(sources):
        raise ValueError(
            f"--sources {','.join(sources)}: expected two or more different names, such as "
            f"vocals,{ACCOMPANIMENT}"
        )
    for source in sources:
        parts_of(source, stems)


def absent(sources: Sequence[str], estimates: Iterable[str], stems: Sequence[str]) -> list[str]:
    """Sources that are neither among estimates nor sums of them.

    Parameters
    ----------
    sources
        A set.
    estimates
        Their names.
    stems
        Of the track.
    """
    names = set(estimates)
    return [s for s in sources if s not in names and not set(parts_of(s, stems)) <= names]


def in_set(
    signals: Mapping[str, Signal], sources: Sequence[str], stems: Sequence[str]
) -> dict[str, Signal]:
    """True stems or estimates in a set: as they are, or added up.

    Parameters
    ----------
    signals
        Each ``(channels, samples)``.
    sources
        A set, no source of which is `absent`.
    stems
        Of the track.
    """
    return {
        source: signals[source]
        if source in signals
        else _total([signals[part] for part in parts_of(source, stems)])
        for source in sources
    }


def _total(signals: Sequence[Signal]) -> Signal:
    """The sum of signals that may differ in length, as estimates of other tools do."""
    longest = max(signal.shape[-1] for signal in signals)
    total = np.zeros((len(signals[0]), longest))
    for signal in signals:
        total[:, : signal.shape[-1]] += signal
    return total.astype(np.float32)
