"""Exact SDR of the networks in training on the validation songs.

A song's score is the median of its frames, the set's score the median of its songs, both as
museval computes them; see `unetsep.train.evaluation.sdr`. Frames are scored with the stems that the
network estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..config import STEMS
from ..network.unet import UNet
from ..separator import Separator
from .data.recording import Song
from .evaluation.sdr import frame_sdr, median


class Separators:
    """Scores songs with several networks.

    Parameters
    ----------
    networks
        By loss; copies are made.
    device
        Where to run them.
    """

    def __init__(self, networks: Mapping[str, nn.Module], device: torch.device) -> None:
        self.separators = []
        for network in networks.values():
            assert isinstance(network, UNet)
            self.separators.append(Separator(network, device=device.type))
        self.rows: dict[int, npt.NDArray[np.float64]] = {}

    def score(self, index: int, song: Song) -> None:
        """Note the SDR of song number ``index``."""
        self.rows[index] = np.stack([song_sdr(each, song) for each in self.separators])

    def table(self, songs: int) -> Tensor:
        """SDR in dB, ``(songs, networks, stems)``; zero for songs that were not scored."""
        stems = len(self.separators[0].stems)
        table = torch.zeros(songs, len(self.separators), stems)
        for index, row in self.rows.items():
            table[index] = torch.from_numpy(row)
        return table


def song_sdr(separator: Separator, song: Song) -> npt.NDArray[np.float64]:
    """Median-of-frames SDR of each stem of a song in dB, NaN where it is undefined.

    The mixture is the song's own, or else the sum of its stems.
    """
    references = {
        stem: song.stem(stem).T.astype(np.float32) / 32768
        if stem in song.names
        else np.zeros((2, song.samples), np.float32)
        for stem in STEMS
    }
    if "mixture" in song.names:
        mixture = song.stem("mixture").T.astype(np.float32) / 32768
    else:
        mixture = np.sum(list(references.values()), axis=0)
    estimates = separator.separate(mixture, separator.config.sample_rate)
    return median(
        frame_sdr(
            np.stack([references[stem] for stem in separator.stems]),
            np.stack([estimates[stem] for stem in separator.stems]),
        )
    )


def combine(
    table: npt.NDArray[Any], losses: Sequence[str], stems: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Median over songs for each loss: dB for each stem, and their mean.

    Parameters
    ----------
    table
        SDR, ``(songs, networks, stems)``.
    losses, stems
        Names of the last two axes.
    """
    scores = {}
    for loss, by_song in zip(losses, table.transpose(1, 2, 0), strict=True):
        values = median(by_song)
        scores[loss] = dict(zip(stems, values.tolist(), strict=True))
        scores[loss]["mean"] = float(values.mean())
    return scores
