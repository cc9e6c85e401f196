"""Scores of one track: which stems form the scored set, and which code computes them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...errors import check_choice
from .leakage import frame_leakage
from .measures import MEASURES
from .sdr import Array, Signals, frame_sdr, match_length, median, silent_stems

METRICS = ("SDR", "ISR", "SIR", "SAR")
# What ``--metrics`` accepts; only the first leaves ISR, SIR and SAR out.
MODES = ("sdr", "bsseval", "museval")
FULL_MODES = MODES[1:]


@dataclass(frozen=True)
class TrackScores:
    """Frame-wise scores of one method on one track.

    Parameters
    ----------
    stems
        Names, in the order of the values' first axis.
    values
        For each metric ``(stems, frames)`` in dB; all NaN for metrics that were not computed
        and for silent stems.
    silent
        Stems whose reference or estimate is silent throughout, which form no part of the
        scored set.
    duration
        Length of a frame in seconds.
    leakage
        ``(stems, frames)`` in dB, NaN where a stem is heard; see
        `unetsep.train.evaluation.leakage`. None where the mixture is not known.
    measures
        For each further measure of `unetsep.train.evaluation.measures` a number for each stem.
    """

    stems: tuple[str, ...]
    values: dict[str, Array]
    silent: tuple[str, ...] = ()
    duration: float = 1.0
    leakage: Array | None = None
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def median(self, stem: str, metric: str = "SDR") -> float:
        """A stem's median over frames, or a measure of the whole; NaN where it has no score."""
        if metric in MEASURES:
            return self.measures.get(metric, {}).get(stem, float("nan"))
        if stem not in self.stems:
            return float("nan")
        return float(median(self.values[metric][self.stems.index(stem)]))


def score(
    references: Mapping[str, Signals],
    estimates: Mapping[str, Signals],
    sample_rate: int,
    *,
    mode: str = "sdr",
    mixture: Signals | None = None,
    measures: Sequence[str] = (),
) -> TrackScores:
    """Score estimates of one track.

    museval refuses a track if any stem is silent throughout. Here a stem whose
    reference or estimate is silent has no score (NaN), and the others are scored without it.

    Parameters
    ----------
    references, estimates
        Stem name to ``(channels, samples)``; the set is that of the estimates. Estimates
        of another length are cut, or padded with zeros.
    sample_rate
        In Hz; a frame lasts one second, or all of a track that is shorter.
    mode
        One of `MODES`.
    mixture
        ``(channels, samples)``, for the leakage; without it there is none.
    measures
        Keys of `unetsep.train.evaluation.measures.MEASURES`.

    Raises
    ------
    ValueError
        If fewer than two stems are given, one has no reference, or the number of channels
        differs.
    """
    check_choice("metrics", mode, MODES)
    stems = tuple(estimates)
    unknown = [stem for stem in stems if stem not in references]
    if len(stems) < 2 or unknown:
        raise ValueError(
            f"expected estimates of two or more of {', '.join(references)}, got "
            f"{', '.join(stems) or 'none'}: scores depend on the set of stems"
        )
    true = np.stack([references[stem] for stem in stems])
    wrong = [stem for stem in stems if len(estimates[stem]) != true.shape[1]]
    if wrong:
        raise ValueError(
            f"the estimate of {wrong[0]} has {len(estimates[wrong[0]])} channels, the "
            f"reference {true.shape[1]}"
        )
    guess = np.stack([match_length(estimates[stem], true.shape[2]) for stem in stems])
    silent = silent_stems(true) | silent_stems(guess)
    window = sample_rate
    frames = max(1, true.shape[2] // window)
    values = {metric: np.full((len(stems), frames), np.nan) for metric in METRICS}
    audible = np.flatnonzero(~silent)
    if len(audible):
        for metric, rows in _compute(true[audible], guess[audible], window, mode).items():
            values[metric][audible] = rows
    leakage = None if mixture is None else frame_leakage(true, guess, mixture, window=window)
    silent_names = tuple(s for s, is_silent in zip(stems, silent, strict=True) if is_silent)
    further = {
        name: {
            stem: MEASURES[name](true[index], guess[index], sample_rate, mixture)
            for index, stem in enumerate(stems)
        }
        for name in measures
    }
    duration = min(window, true.shape[2]) / sample_rate
    return TrackScores(stems, values, silent_names, duration, leakage, further)


def _compute(true: Signals, guess: Signals, window: int, mode: str) -> dict[str, Array]:
    if mode == "sdr":
        return {"SDR": frame_sdr(true, guess, window=window)}
    if mode == "museval":
        return museval_scores(true, guess, window)
    from .bss_eval import bss_eval

    scores = bss_eval(true, guess, window=window)
    return {"SDR": scores.sdr, "ISR": scores.isr, "SIR": scores.sir, "SAR": scores.sar}


def museval_scores(true: Signals, guess: Signals, window: int) -> dict[str, Array]:
    """Scores by museval itself.

    Parameters
    ----------
    true, guess
        ``(stems, channels, samples)``.
    window
        Samples in a frame.
    """
    from museval.metrics import bss_eval

    # museval's axes are (stems, samples, channels).
    signals = [np.ascontiguousarray(np.moveaxis(x, 1, 2), dtype=np.float64) for x in (true, guess)]
    with _linalg_alias():
        *metrics, _ = bss_eval(*signals, window=window, hop=window)
    arrays: list[npt.NDArray[np.float64]] = metrics
    return dict(zip(METRICS, arrays, strict=True))


@contextlib.contextmanager
def _linalg_alias() -> Iterator[None]:
    """The name that museval 0.4.1 catches singular systems by, absent since numpy 2.4.

    Without it a mono stem, whose system is singular, ends in an `AttributeError` instead
    of museval's own least-squares solution.
    """
    module = vars(np.linalg)
    is_absent = "linalg" not in module
    if is_absent:
        module["linalg"] = np.linalg
    try:
        yield
    finally:
        if is_absent:
            del module["linalg"]
