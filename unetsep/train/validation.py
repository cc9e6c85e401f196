"""Exact SDR of the networks in training on the validation recordings.

A recording's score is the median of its frames as museval computes it, see
`unetsep.train.evaluation.sdr`. The set's score is the mean of its recordings: their median would
depend on two of fourteen. Frames are scored with the stems that the network estimates.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..network.masks import MaskNetwork
from ..separator import Separator
from .config import TrainingError
from .data.recording import SAMPLE_RATE, UNKNOWN, Recording
from .evaluation.sdr import frame_sdr, median

logger = logging.getLogger(__name__)


class RecordingScorer:
    """Scores recordings with several networks.

    Parameters
    ----------
    networks
        They are copied.
    device
        Where to run them.
    """

    def __init__(self, networks: Iterable[nn.Module], device: torch.device) -> None:
        self.separators = []
        for network in networks:
            assert isinstance(network, MaskNetwork)
            self.separators.append(Separator(network, device=device.type))
        self.rows: dict[int, npt.NDArray[np.float64]] = {}

    def score(self, index: int, recording: Recording) -> None:
        """Compute and store the SDR of recording number ``index``."""
        self.rows[index] = np.stack([recording_sdr(each, recording) for each in self.separators])

    def table(self, recordings: int) -> Tensor:
        """SDR in dB, ``(recordings, networks, stems)``; zero for those that were not scored."""
        stems = len(self.separators[0].stems)
        table = torch.zeros(recordings, len(self.separators), stems)
        for index, row in self.rows.items():
            table[index] = torch.from_numpy(row)
        return table


def recording_sdr(separator: Separator, recording: Recording) -> npt.NDArray[np.float64]:
    """Median-of-frames SDR of each stem of a recording in dB, NaN where it is undefined.

    The mixture is the recording's own, or else the sum of its stems.
    """
    signals = {
        name: recording.stem(name).T.astype(np.float32) / 32768
        for name in recording.names
        if name != UNKNOWN
    }
    mixture = signals.pop("mixture", None)
    if mixture is None:
        mixture = np.sum(list(signals.values()), axis=0)
    silence = np.zeros_like(mixture)
    estimates = separator.separate(mixture, separator.config.sample_rate)
    return median(
        frame_sdr(
            np.stack([signals.get(stem, silence) for stem in separator.stems]),
            np.stack([estimates[stem] for stem in separator.stems]),
        )
    )


def scorable(recordings: Sequence[Recording], stems: Sequence[str]) -> list[Recording]:
    """Recordings that can be validated on: with their mixture, or all stems whose sum it is.

    Parameters
    ----------
    recordings
        Candidates; a warning names those that cannot be used.
    stems
        Of the run, of which a mixture is the sum.
    """
    usable: list[Recording] = []
    unusable: list[str] = []
    for each in recordings:
        if "mixture" in each.names or each.knows(stems):
            usable.append(each)
        else:
            unusable.append(each.name)
    if unusable:
        logger.warning(
            "recordings are left out of validation, as some of %s are unknown: %s",
            ", ".join(stems),
            ", ".join(unusable),
        )
    return usable


def check_defined(recordings: Sequence[Recording], stems: Sequence[str]) -> None:
    """Make sure before a run that its validation will have a score.

    Parameters
    ----------
    recordings
        To validate on.
    stems
        Of the model.

    Raises
    ------
    TrainingError
        If in no second of any recording all stems sound.
    """
    if not any(_has_scored_frame(recording, stems) for recording in recordings):
        raise TrainingError(
            f"no second of the {len(recordings)} recordings to validate on has all of "
            f"{', '.join(stems)}, so that no SDR is defined: name others, or --targets that sound "
            "at once"
        )


def _has_scored_frame(recording: Recording, stems: Sequence[str]) -> bool:
    """Whether there is a frame that counts, see `frame_sdr`."""
    if not set(stems) <= set(recording.names):
        return False
    window = min(SAMPLE_RATE, recording.samples) or 1  # a second
    return any(
        all(recording.stem(stem)[start : start + window].sum(axis=1).any() for stem in stems)
        for start in range(0, recording.samples - window + 1, window)
    )


def combine(
    table: npt.NDArray[Any], losses: Sequence[str], stems: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Mean over recordings for each loss: dB for each stem, and their mean.

    A recording in which a stem's SDR is undefined does not count for that stem.

    Parameters
    ----------
    table
        SDR, ``(recordings, networks, stems)``.
    losses, stems
        Names of the last two axes.
    """
    scores = {}
    for loss, by_song in zip(losses, table.transpose(1, 2, 0), strict=True):
        values = _finite_mean(by_song)
        scores[loss] = dict(zip(stems, values.tolist(), strict=True))
        scores[loss]["mean"] = float(values.mean())
    return scores


def _finite_mean(by_song: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Mean of ``(stems, recordings)`` over finite values; NaN where there is none."""
    is_defined = np.isfinite(by_song)
    count = is_defined.sum(axis=1)
    total = np.where(is_defined, by_song, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
