"""Loaders of clips and of validation recordings, for one process of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from ...unfinished import ignore_signals
from ..children import block_interrupts
from .clip_plans import ClipPlanner
from .clips import ClipBatches, ClipDataset, PlanDataset
from .recording import Recording

# Lightning needs an item for every process: a process without a recording gets one without a
# number, which is not scored.
NO_NUMBER = -1


class ClipLoader(DataLoader[Any]):
    """A loader whose workers no Ctrl-C reaches, from their first moment on.

    Where processes are not forked, they import torch for seconds before they can ignore it.
    """

    def __iter__(self) -> Any:
        if not self.num_workers:  # then no process is started, as some systems allow few
            return super().__iter__()
        with block_interrupts():
            return super().__iter__()


def clip_loader(
    planner: ClipPlanner,
    batches: ClipBatches,
    device: torch.device,
    *,
    workers: int | None = None,
    resident: bool = False,
) -> DataLoader[Any]:
    """Batches of clips, or of plans for `unetsep.train.data.clips.ResidentClips`.

    Parameters
    ----------
    planner
        Knows what is in a clip.
    batches
        Numbers of this process's clips.
    device
        Of the training.
    workers
        Processes that cut clips; 0 cuts them in the training process. By default one on a
        CPU, where training needs every core, up to eight otherwise.
    resident
        Plans instead of clips.
    """
    if workers is None:
        workers = 1 if device.type == "cpu" else min(8, os.cpu_count() or 1)
    dataset: Dataset[Any] = PlanDataset(planner) if resident else ClipDataset(planner)
    return ClipLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_leave_signals,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )


def valid_loader(recordings: Sequence[Recording], rank: int, world: int) -> DataLoader[Any]:
    """A process's share of the validation recordings, each with its number."""
    share: Any = list(enumerate(recordings))[rank::world] or [(NO_NUMBER, recordings[0])]
    return DataLoader(share, batch_size=None)


def _leave_signals(_: int) -> None:
    """Let a worker ignore signals that ask to end: all processes of a terminal or job get them.

    The training process finishes its step and saves; for that it needs its workers.
    """
    ignore_signals()
