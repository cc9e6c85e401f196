"""Training clips: what a clip is made of depends on (seed, clip index) and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .cache import Song
from .config import TrainConfig

# Below this RMS (-54 dB full scale) an excerpt counts as silent when one is being chosen.
AUDIBLE = 2e-3
# Attempts to find an audible excerpt before a silent one is taken.
ATTEMPTS = 5


class ClipDataset(Dataset[Tensor]):
    """Random mixtures of stems, as stems.

    Item ``i`` is float32 ``(stems, 2, samples)``; the mixture is the sum over stems. A
    share of the clips is coherent (all stems from one place in one song); the others take
    each stem from a song of its own.

    Parameters
    ----------
    songs
        Decoded songs and pools; see `unetsep.train.cache`.
    config
        Clip length, shares, gains, seed.
    start, count
        Global index of the first clip, and how many there are.
    """

    def __init__(self, songs: Sequence[Song], config: TrainConfig, start: int, count: int) -> None:
        self.config, self.start, self.count = config, start, count
        songs = [song for song in songs if song.samples >= config.clip_samples]
        stems = config.model.stems
        self.whole = [
            song for song in songs if all(s in song.stems or s in song.silent for s in stems)
        ]
        self.base = {
            stem: [song for song in songs if stem in song.stems and song.source == "musdb"]
            for stem in stems
        }
        self.extra = {
            stem: [song for song in songs if stem in song.stems and song.source != "musdb"]
            for stem in stems
        }

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Tensor:
        if not 0 <= index < self.count:
            raise IndexError(index)
        rng = np.random.default_rng([self.config.seed, self.start + index])
        if rng.random() < self.config.coherent_share:
            clip = self._coherent(rng)
        else:
            clip = np.stack([self._single(rng, stem) for stem in self.config.model.stems])
        return torch.from_numpy(_augment(clip, rng, self.config.gain_db))

    def _coherent(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        song = _draw(rng, self.whole)
        start = int(rng.integers(song.samples - self.config.clip_samples + 1))
        return np.stack(
            [
                self._excerpt(song, stem, start)
                if stem in song.stems
                else np.zeros((2, self.config.clip_samples), np.float32)
                for stem in self.config.model.stems
            ]
        )

    def _single(self, rng: np.random.Generator, stem: str) -> npt.NDArray[np.float32]:
        use_extra = bool(self.extra[stem]) and rng.random() < self.config.extra_share[stem]
        songs = self.extra[stem] if use_extra or not self.base[stem] else self.base[stem]
        for _ in range(ATTEMPTS):
            song = _draw(rng, songs)
            start = int(rng.integers(song.samples - self.config.clip_samples + 1))
            excerpt = self._excerpt(song, stem, start)
            if np.sqrt(np.mean(np.square(excerpt))) > AUDIBLE:
                break
        return excerpt

    def _excerpt(self, song: Song, stem: str, start: int) -> npt.NDArray[np.float32]:
        pcm = song.stems[stem][start : start + self.config.clip_samples]
        return pcm.T.astype(np.float32) / np.float32(32768)


def _draw(rng: np.random.Generator, songs: Sequence[Song]) -> Song:
    """A song, longer ones more often, but not in proportion: they repeat themselves."""
    weights = np.sqrt([song.samples for song in songs])
    return songs[int(rng.choice(len(songs), p=weights / weights.sum()))]


def _augment(
    clip: npt.NDArray[np.float32], rng: np.random.Generator, gain_db: float
) -> npt.NDArray[np.float32]:
    """Random gain, polarity and channel swap of each stem, ``(stems, 2, samples)``."""
    count = len(clip)
    gain = 10 ** (rng.uniform(-gain_db, gain_db, count) / 20) * rng.choice((-1.0, 1.0), count)
    swapped = np.where((rng.random(count) < 0.5)[:, None, None], clip[:, ::-1], clip)
    return np.ascontiguousarray(swapped * gain[:, None, None].astype(np.float32))
