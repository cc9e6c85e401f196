"""Training clips from the cache, or from an accelerator's memory.

`ClipDataset` reads what `unetsep.train.data.clip_plans` has drawn from the cache,
`ResidentClips` from a copy of the whole data set in the accelerator's memory. Both give the
same clips.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from .augment import Augmenter, Changes, augments, on_device, source_lengths
from .clip_plans import SILENCE, ClipPlanner, Plan


class ClipDataset(Dataset[Tensor]):
    """Clips read from the cache; item ``i`` is clip ``i``, float32 ``(stems, 2, samples)``.

    The mixture is the sum over stems, which are always all of the config's.
    """

    def __init__(self, planner: ClipPlanner) -> None:
        self.planner = planner
        config = planner.config
        cpu = torch.device("cpu")
        self.augmenter = Augmenter(config.clip_samples, cpu) if augments(config) else None

    def __getitem__(self, index: int) -> Tensor:
        planner, samples = self.planner, self.planner.config.clip_samples
        plan, stems = planner.plan(index), len(planner.stems)
        clip = np.zeros((stems, 2, samples), np.float32)
        lengths = plan.changes.lengths.tolist()
        rows = zip(plan.numbers.tolist(), plan.starts.tolist(), lengths, strict=True)
        for row, (number, start, length) in enumerate(rows):
            if number == SILENCE:
                continue
            recording, name = planner.recorded_stems[number]
            excerpt: npt.NDArray[Any] = recording.stem(name)[start : start + length].T
            if self.augmenter is not None:
                changes = Changes(*(part[row : row + 1] for part in plan.changes))
                excerpt = self.augmenter(torch.tensor(excerpt.T[None]), changes)[0].numpy()
            excerpt = excerpt[::-1] if plan.swapped[row] else excerpt
            factor = np.float32(plan.gains[row]) / np.float32(32768)
            stem = clip[row % stems, :, : excerpt.shape[1]]
            if row < stems:
                np.multiply(excerpt, factor, out=stem)
            else:
                stem += excerpt * factor
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
        Knows the recorded stems.
    device
        Where the int16 samples go, four bytes for each stereo sample: all of MUSDB18 takes about
        15 GB, an hour of one stem 0.6 GB.
    """

    def __init__(self, planner: ClipPlanner, device: torch.device) -> None:
        config = planner.config
        self.samples, self.stems = config.clip_samples, len(planner.stems)
        self.augmenter = Augmenter(self.samples, device) if augments(config) else None
        longest = max(source_lengths(config)) if self.augmenter else self.samples
        # Silence first, so that without an augmenter a silent stem is cut like any other.
        lengths = [
            self.samples,
            *(max(each.samples, longest) for each, _ in planner.recorded_stems),
        ]
        self.offsets = torch.tensor([0, *np.cumsum(lengths)[:-1].tolist()])
        self.pcm = torch.zeros(sum(lengths), 2, dtype=torch.int16, device=device)
        for offset, (each, stem) in zip(
            self.offsets.tolist()[1:], planner.recorded_stems, strict=True
        ):
            pcm = torch.from_numpy(np.array(each.stem(stem)))
            self.pcm[offset : offset + len(pcm)] = pcm.to(device)

    def cut(self, plan: Plan) -> Tensor:
        """Clips of a batch of plans, ``(batch, stems, 2, samples)`` on the device.

        Plans stay in the memory of the CPU, so that cutting need not wait for the device.
        """
        device = self.pcm.device
        first = self.offsets[plan.numbers + 1] + plan.starts * (plan.numbers != SILENCE)
        audible = (plan.numbers.flatten() != SILENCE).nonzero()[:, 0]
        if self.augmenter is None or not len(audible):
            clips = self._read(first, self.samples).mT.float()  # (batch, stems, 2, samples)
        else:
            changes = Changes(*(part.flatten(0, 1)[audible] for part in plan.changes))
            longest = int(changes.lengths.max())
            sounds = self.augmenter(self._read(first.flatten()[audible], longest), changes)
            clips = sounds.new_zeros(plan.numbers.numel(), 2, self.samples)
            clips.index_copy_(0, on_device(audible, device), sounds)
            clips = clips.reshape(*plan.numbers.shape, 2, self.samples)
        swapped, gains = (on_device(part, device) for part in (plan.swapped, plan.gains))
        clips = torch.where(swapped[..., None, None], clips.flip(-2), clips)
        clips = clips * (gains / 32768)[..., None, None]
        first, second = clips[:, : self.stems], clips[:, self.stems :]
        return first + second if second.shape[1] else first

    def _read(self, first: Tensor, samples: int) -> Tensor:
        """``samples`` from each of ``first`` on; adds axes of samples and channels."""
        device = self.pcm.device
        at = on_device(first, device)[..., None] + torch.arange(samples, device=device)
        # A shorter excerpt may lie at the very end.
        return self.pcm[at.clamp_(max=len(self.pcm) - 1)]


class ClipBatches(Sampler[list[int]]):
    """Global clip indices of one process's batches, without end.

    Step ``s`` of process ``r`` of ``w`` takes the clips from ``(s * w + r) * batch_size`` on. No
    two processes or steps share a clip. All together take the same clips as one process with a
    batch ``w`` times as large.

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
