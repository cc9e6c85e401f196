"""Training clips: what a clip is made of depends on (seed, clip index) and nothing else.

`ClipPlanner` draws what a clip is made of; `ClipDataset` reads it from the cache,
`ResidentClips` from a copy of the whole data set in the accelerator's memory. Both give the
same clips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ..config import STEMS
from .augment import Augmenter, ChangePlanner, Changes, augments, source_lengths
from .config import TrainConfig, TrainingError
from .song import AUDIBLE, Song

# Attempts to find an audible excerpt before a silent one is taken.
ATTEMPTS = 5
_Integers = npt.NDArray[np.int64]
# Track number of a silent stem.
SILENCE = -1


class Plan(NamedTuple):
    """What a clip is made of; each array has one row for each of `STEMS`.

    Parameters
    ----------
    tracks
        Number of the stem in `ClipPlanner.tracks`, or `SILENCE`; int64 ``(stems,)``.
    starts
        First sample in that stem; int64 ``(stems,)``.
    gains
        Factors, polarity included; float32 ``(stems,)``.
    swapped
        Whether left and right change places; bool ``(stems,)``.
    changes
        What else becomes of each stem.
    """

    tracks: Tensor
    starts: Tensor
    gains: Tensor
    swapped: Tensor
    changes: Changes


class _Choice:
    """Tracks of one kind, longer ones drawn more often, but not in proportion: they repeat."""

    def __init__(self, tracks: Sequence[tuple[int, Song]]) -> None:
        self.tracks = list(tracks)
        weights = np.sqrt([float(song.samples) for _, song in self.tracks])
        self.sums = np.cumsum(weights / weights.sum()) if len(weights) else weights

    def draw(self, rng: np.random.Generator) -> tuple[int, Song]:
        at = int(np.searchsorted(self.sums, rng.random(), side="right"))
        return self.tracks[min(at, len(self.tracks) - 1)]


class ClipPlanner:
    """Draws clips: coherent ones from one place in one song, and random mixtures.

    Parameters
    ----------
    songs
        Training songs and pools; a song is used for the stems it has, and for coherent
        clips if all its stems are known.
    config
        Clip length, shares, gains, seed.

    Raises
    ------
    TrainingError
        If no song has one of the targets, or nothing in the data is audible.
    """

    def __init__(self, songs: Sequence[Song], config: TrainConfig) -> None:
        self.config = config
        self.changes = ChangePlanner(config)
        self.tracks = [(song, stem) for song in songs for stem in song.names if stem in STEMS]
        number = {(id(song), stem): i for i, (song, stem) in enumerate(self.tracks)}
        self.number = number
        long = [song for song in songs if song.samples >= config.clip_samples]
        self.whole = _Choice([(-1, song) for song in long if song.knows(STEMS)])

        def having(stem: str, musdb: bool) -> _Choice:
            found = [s for s in songs if stem in s.names and (s.origin == "musdb") == musdb]
            return _Choice([(number[id(song), stem], song) for song in found])

        self.base = {stem: having(stem, True) for stem in STEMS}
        self.extra = {stem: having(stem, False) for stem in STEMS}
        for stem in config.model.stems:
            audible = [
                song
                for song, name in self.tracks
                if name == stem and song.level(stem, 0, song.samples) > 0
            ]
            if not audible:
                raise TrainingError(
                    f"no training data for {stem}: there is no recording of it, or all are silent"
                )

    def plan(self, index: int) -> Plan:
        """What clip ``index`` is made of; equal for equal seeds, wherever it is asked."""
        config = self.config
        rng = np.random.default_rng([config.seed, index])
        coherent = rng.random() < config.coherent_share and bool(self.whole.tracks)
        draws = self._coherent(rng) if coherent else [self._single(rng, stem) for stem in STEMS]
        tracks, starts = np.array(draws, np.int64).T
        count = len(STEMS)
        gains = 10 ** (rng.uniform(-config.gain_db, config.gain_db, count) / 20)
        gains *= rng.choice((-1.0, 1.0), count)
        swapped = rng.random(count) < 0.5
        dropped = rng.random(count) < config.drop_share
        dropped[int(rng.integers(count))] = False
        tracks = np.where(dropped, SILENCE, tracks)
        changes = self.changes.draw(index, coherent)
        if augments(config):
            starts = self._moved(tracks, starts, changes.lengths.numpy())
        return Plan(
            torch.from_numpy(tracks),
            torch.from_numpy(starts),
            torch.from_numpy(gains.astype(np.float32)),
            torch.from_numpy(swapped),
            changes,
        )

    def _moved(
        self, tracks: _Integers, starts: _Integers, lengths: _Integers
    ) -> npt.NDArray[np.int64]:
        """Starts from which ``lengths`` samples, not those of a clip, are there to be read."""
        moved = np.zeros_like(starts)
        for row, track in enumerate(tracks):
            samples = self.tracks[track][0].samples if track != SILENCE else 0
            room = samples - self.config.clip_samples
            if room > 0:
                moved[row] = starts[row] * max(0, samples - int(lengths[row])) // room
        return moved

    def _coherent(self, rng: np.random.Generator) -> list[tuple[int, int]]:
        _, song = self.whole.draw(rng)
        start = self._start(rng, song)
        return [(self.number.get((id(song), stem), SILENCE), start) for stem in STEMS]

    def _single(self, rng: np.random.Generator, stem: str) -> tuple[int, int]:
        base, extra = self.base[stem], self.extra[stem]
        use_extra = rng.random() < self.config.extra_share.get(stem, 0.0)
        if not base.tracks and not extra.tracks:
            return SILENCE, 0
        choice = extra if extra.tracks and (use_extra or not base.tracks) else base
        for _ in range(ATTEMPTS):
            track, song = choice.draw(rng)
            start = self._start(rng, song)
            if song.level(stem, start, self.config.clip_samples) > AUDIBLE:
                break
        return track, start

    def _start(self, rng: np.random.Generator, song: Song) -> int:
        return int(rng.integers(max(1, song.samples - self.config.clip_samples + 1)))


class ClipDataset(Dataset[Tensor]):
    """Clips read from the cache; item ``i`` is clip ``i``, float32 ``(stems, 2, samples)``.

    The mixture is the sum over stems, which are always all of `STEMS`.
    """

    def __init__(self, planner: ClipPlanner) -> None:
        self.planner = planner
        config = planner.config
        cpu = torch.device("cpu")
        self.augmenter = Augmenter(config.clip_samples, cpu) if augments(config) else None

    def __getitem__(self, index: int) -> Tensor:
        planner, samples = self.planner, self.planner.config.clip_samples
        plan = planner.plan(index)
        clip = np.zeros((len(STEMS), 2, samples), np.float32)
        whence = zip(*map(Tensor.tolist, (*plan[:2], plan.changes.lengths)), strict=True)
        for row, (track, start, length) in enumerate(whence):
            if track == SILENCE:
                continue
            song, stem = planner.tracks[track]
            excerpt: npt.NDArray[Any] = song.stem(stem)[start : start + length].T
            if self.augmenter is not None:
                changes = Changes(*(part[row : row + 1] for part in plan.changes))
                excerpt = self.augmenter([torch.tensor(excerpt.T)], changes)[0].numpy()
            excerpt = excerpt[::-1] if plan.swapped[row] else excerpt
            factor = np.float32(plan.gains[row]) / np.float32(32768)
            np.multiply(excerpt, factor, out=clip[row, :, : excerpt.shape[1]])
        return torch.from_numpy(clip)


class PlanDataset(Dataset[Plan]):
    """Plans of clips, for `ResidentClips`; item ``i`` is that of clip ``i``."""

    def __init__(self, planner: ClipPlanner) -> None:
        self.planner = planner

    def __getitem__(self, index: int) -> Plan:
        return self.planner.plan(index)


class ResidentClips:
    """All training audio in a device's memory, from which clips are cut there.

    Parameters
    ----------
    planner
        Knows the tracks.
    device
        Where the int16 samples go: four bytes for each stereo sample, so the whole of
        MUSDB18 takes about 15 GB, and an hour of one stem 0.6 GB.
    """

    def __init__(self, planner: ClipPlanner, device: torch.device) -> None:
        config = planner.config
        self.samples = config.clip_samples
        self.augmenter = Augmenter(self.samples, device) if augments(config) else None
        longest = max(source_lengths(config)) if self.augmenter else self.samples
        # Silence first, so that a silent stem is cut like any other.
        lengths = [longest, *(max(song.samples, longest) for song, _ in planner.tracks)]
        self.offsets = torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()])
        self.pcm = torch.zeros(sum(lengths), 2, dtype=torch.int16, device=device)
        for offset, (song, stem) in zip(self.offsets.tolist()[1:], planner.tracks, strict=True):
            pcm = torch.from_numpy(np.array(song.stem(stem)))
            self.pcm[offset : offset + len(pcm)] = pcm.to(device)

    def cut(self, plan: Plan) -> Tensor:
        """Clips of a batch of plans, ``(batch, stems, 2, samples)`` on the device.

        Plans stay in the memory of the CPU, which need not wait for the device to cut.
        """
        device = self.pcm.device
        first = self.offsets[plan.tracks + 1] + plan.starts * (plan.tracks != SILENCE)
        if self.augmenter is None:
            at = first.to(device, non_blocking=True)[..., None]
            clips = self.pcm[at + torch.arange(self.samples, device=device)]
            clips = clips.transpose(-1, -2).float()  # (batch, stems, 2, samples)
        else:
            changes = Changes(*(part.flatten(0, 1) for part in plan.changes))
            where = zip(first.flatten().tolist(), changes.lengths.tolist(), strict=True)
            clips = self.augmenter([self.pcm[at : at + n] for at, n in where], changes)
            clips = clips.reshape(*plan.tracks.shape, 2, self.samples)
        swapped, gains = (part.to(device, non_blocking=True) for part in (plan.swapped, plan.gains))
        clips = torch.where(swapped[..., None, None], clips.flip(-2), clips)
        return clips * (gains / 32768)[..., None, None]


class ClipBatches(Sampler[list[int]]):
    """Global clip indices of one process's batches, without end.

    Step ``s`` of process ``r`` of ``w`` takes the clips from ``(s * w + r) * batch_size``
    on: no two processes or steps share a clip, and all together take the same clips as one
    process with a batch ``w`` times as large.

    Parameters
    ----------
    batch_size
        Clips in a batch of one process.
    first_step
        Where to start; that is all a resumed run needs.
    rank, world
        This process, and how many there are.
    """

    def __init__(self, batch_size: int, first_step: int, rank: int = 0, world: int = 1) -> None:
        self.batch_size, self.step, self.rank, self.world = batch_size, first_step, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        step = self.step
        while True:
            yield clip_indices(step, self.batch_size, self.rank, self.world)
            step += 1


def clip_indices(step: int, batch_size: int, rank: int = 0, world: int = 1) -> list[int]:
    """Global indices of the clips that a process sees at a step."""
    first = (step * world + rank) * batch_size
    return list(range(first, first + batch_size))
