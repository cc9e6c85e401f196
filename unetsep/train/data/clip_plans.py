"""What training clips are made of, which depends only on (seed, clip index)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..config import TrainConfig, TrainingError
from .augment import ChangePlanner, Changes, augments
from .recording import AUDIBLE, LEVEL_BLOCK, SAMPLE_RATE, Recording

logger = logging.getLogger(__name__)

# Attempts to find an audible excerpt before a silent one is used.
ATTEMPTS = 5
_Integers = npt.NDArray[np.int64]
# Number of a silent stem.
SILENCE = -1
# Second recordings of a stem: their level against the first one in dB, and what sets their
# random numbers apart from those of the first.
SECOND_DB, SECOND = (-10.0, 2.0), 10**15


class Plan(NamedTuple):
    """What a clip is made of; each array has a row for each recording.

    The first rows are those of the config's stems. With a ``second_share`` as many follow; each
    is added to the stem at the same place.

    Parameters
    ----------
    numbers
        Of a recorded stem in `ClipPlanner.recorded_stems`, or `SILENCE`; int64 ``(rows,)``.
    starts
        First sample in it; int64 ``(rows,)``.
    gains
        Factors, polarity included; float32 ``(rows,)``.
    swapped
        Whether left and right change places; bool ``(rows,)``.
    changes
        Further changes of each recording.
    """

    numbers: Tensor
    starts: Tensor
    gains: Tensor
    swapped: Tensor
    changes: Changes


class _WeightedRecordings:
    """Recordings to draw from, each with the number of each of its stems.

    Longer ones are drawn more often, but not in proportion: they repeat.
    """

    def __init__(
        self, recordings: Sequence[tuple[dict[str, int], Recording]], by_artist: bool
    ) -> None:
        self.recordings = recordings
        weights = draw_weights([recording for _, recording in recordings], by_artist)
        self.sums = np.cumsum(weights / weights.sum())

    def __bool__(self) -> bool:
        return bool(self.recordings)

    def draw(self, rng: np.random.Generator) -> tuple[dict[str, int], Recording]:
        at = int(np.searchsorted(self.sums, rng.random(), side="right"))
        return self.recordings[min(at, len(self.recordings) - 1)]


def draw_weights(recordings: Sequence[Recording], by_artist: bool) -> npt.NDArray[np.float64]:
    """How often recordings are drawn, relative to each other.

    Parameters
    ----------
    recordings
        Of one kind.
    by_artist
        Whether an artist counts by the square root of the length of all its recordings, which they
        share by the square roots of their lengths. Otherwise each counts by the root of its length.
        Either is multiplied by a recording's own weight.
    """
    lengths = np.array([float(recording.samples) for recording in recordings])
    roots: npt.NDArray[np.float64] = np.sqrt(lengths)
    factors = np.array([recording.weight for recording in recordings])
    weights: npt.NDArray[np.float64] = roots * factors
    if not by_artist:
        return weights
    _, artist = np.unique([recording.artist for recording in recordings], return_inverse=True)
    weights /= np.bincount(artist, roots)[artist]
    weights *= np.sqrt(np.bincount(artist, lengths)[artist])
    return weights


def _warn_of_short(recordings: Sequence[Recording], config: TrainConfig) -> None:
    """Warn that no clip is from one song, if all songs are too short."""
    longest = max((each.samples for each in recordings if each.knows(config.stems)), default=0)
    if longest:
        logger.warning(
            "all clips are random mixtures, none is from one song: clips have %.1f s, and the "
            "longest song whose stems are all known has %.1f s; choose fewer --clip-frames",
            config.clip_samples / SAMPLE_RATE,
            longest / SAMPLE_RATE,
        )


class ClipPlanner:
    """Draws clips: coherent ones from one place in one recording, and random mixtures.

    Parameters
    ----------
    recordings
        One is used for the stems it has, and for coherent clips if all stems are known.
    config
        Stems, clip length, shares, gains, seed.

    Raises
    ------
    TrainingError
        If no recording has one of the targets, or nothing in the data is audible.
    """

    def __init__(self, recordings: Sequence[Recording], config: TrainConfig) -> None:
        self.config, self.stems = config, config.stems
        self.changes = ChangePlanner(config)
        self.recorded_stems: list[tuple[Recording, str]] = []
        numbered: list[tuple[dict[str, int], Recording]] = []
        for recording in recordings:
            stems = [stem for stem in recording.names if stem in self.stems]
            numbers = {stem: len(self.recorded_stems) + i for i, stem in enumerate(stems)}
            numbered.append((numbers, recording))
            self.recorded_stems += [(recording, stem) for stem in stems]

        def choice(condition: Callable[[Recording], bool]) -> _WeightedRecordings:
            return _WeightedRecordings(
                [each for each in numbered if condition(each[1])], config.artist_weights
            )

        def with_stem(stem: str, extra: bool) -> _WeightedRecordings:
            return choice(lambda each: stem in each.names and each.extra == extra)

        self.coherent_choice = choice(
            lambda each: each.samples >= config.clip_samples and each.knows(self.stems)
        )
        if config.coherent_share and not self.coherent_choice:
            _warn_of_short(recordings, config)
        self.base = {stem: with_stem(stem, False) for stem in self.stems}
        self.extra = {stem: with_stem(stem, True) for stem in self.stems}
        for stem in config.model.stems:
            if not any(
                # To the end of the last block, which may be a part of one.
                recording.level(name, 0, recording.samples + LEVEL_BLOCK - 1) > 0
                for recording, name in self.recorded_stems
                if name == stem
            ):
                raise TrainingError(
                    f"no training data for {stem}: there is no recording of it, or all are silent"
                )

    def plan(self, index: int) -> Plan:
        """What clip ``index`` is made of; equal for equal seeds in every process."""
        config = self.config
        rng = np.random.default_rng([config.seed, index])
        coherent = rng.random() < config.coherent_share and bool(self.coherent_choice)
        draws = (
            self._coherent(rng) if coherent else [self._single(rng, stem) for stem in self.stems]
        )
        numbers, starts = np.array(draws, np.int64).T
        count = len(self.stems)
        spread = config.gain_db
        if coherent and config.coherent_gain_db is not None:
            spread = config.coherent_gain_db
        gains = 10 ** (rng.uniform(-spread, spread, count) / 20)
        gains *= rng.choice((-1.0, 1.0), count)
        swapped = rng.random(count) < 0.5
        dropped = rng.random(count) < config.drop_share
        dropped[int(rng.integers(count))] = False
        numbers = np.where(dropped, SILENCE, numbers)
        changes = self.changes.draw(index, coherent)
        if any(config.second_share.values()):
            *second_rows, second_changes = self._second(index, (numbers == SILENCE) | coherent)
            rows = zip((numbers, starts, gains, swapped), second_rows, strict=True)
            numbers, starts, gains, swapped = map(np.concatenate, rows)
            changes = Changes(*map(torch.cat, zip(changes, second_changes, strict=True)))
        if augments(config):
            starts = self._scaled_starts(numbers, starts, changes.lengths.numpy())
        return Plan(
            torch.from_numpy(numbers),
            torch.from_numpy(starts),
            torch.from_numpy(gains.astype(np.float32)),
            torch.from_numpy(swapped),
            changes,
        )

    def _second(self, index: int, without: npt.NDArray[np.bool_]) -> tuple[Any, ...]:
        """Second recordings of some stems, as `Plan` has them; none for those in ``without``."""
        rng, count = np.random.default_rng([self.config.seed, index, SECOND]), len(self.stems)
        shares = [self.config.second_share.get(stem, 0.0) for stem in self.stems]
        has_second = (rng.random(count) < shares) & ~without
        draws = [
            self._single(rng, stem) if some else (SILENCE, 0)
            for stem, some in zip(self.stems, has_second, strict=True)
        ]
        numbers, starts = np.array(draws, np.int64).T
        gains = 10 ** (rng.uniform(*SECOND_DB, count) / 20) * rng.choice((-1.0, 1.0), count)
        swapped = rng.random(count) < 0.5
        changes = self.changes.draw(index + SECOND, coherent=False)
        return numbers, starts, gains, swapped, changes

    def _scaled_starts(
        self, numbers: _Integers, starts: _Integers, lengths: _Integers
    ) -> npt.NDArray[np.int64]:
        """Starts from which ``lengths`` samples, instead of those of a clip, can be read."""
        scaled = np.zeros_like(starts)
        for row, number in enumerate(numbers):
            samples = self.recorded_stems[number][0].samples if number != SILENCE else 0
            slack = samples - self.config.clip_samples
            if slack > 0:
                scaled[row] = starts[row] * max(0, samples - int(lengths[row])) // slack
        return scaled

    def _coherent(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        numbers, recording = self.coherent_choice.draw(rng)
        start = self._start(rng, recording)
        return [(numbers.get(stem, SILENCE), start) for stem in self.stems]

    def _single(self, rng: np.random.Generator, stem: str) -> tuple[int, int]:
        base, extra = self.base[stem], self.extra[stem]
        use_extra = rng.random() < self.config.extra_shares.get(stem, 0.0)
        if not base and not extra:
            return SILENCE, 0
        choice = extra if extra and (use_extra or not base) else base
        for _ in range(ATTEMPTS):
            numbers, recording = choice.draw(rng)
            start = self._start(rng, recording)
            if recording.level(stem, start, self.config.clip_samples) > AUDIBLE:
                break
        return numbers[stem], start

    def _start(self, rng: np.random.Generator, recording: Recording) -> int:
        return int(rng.integers(max(1, recording.samples - self.config.clip_samples + 1)))
