"""Loaders of clips and validation songs, for one process of a run."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..config import TrainConfig
from .clip_plans import ClipPlanner, Plan
from .clips import ClipBatches, ClipDataset, PlanDataset, ResidentClips
from .recording import Song

NO_NUMBER = -1


class ValidSongs(Dataset[tuple[int, Song]]):
    """The validation songs of one process, with their numbers.

    Lightning wants something for every process: one without a song gets a song without a
    number, which is not scored.
    """

    def __init__(self, songs: Sequence[Song], rank: int, world: int) -> None:
        self.songs: list[tuple[int, Song]] = list(enumerate(songs))[rank::world]
        self.songs = self.songs or [(NO_NUMBER, songs[0])]

    def __len__(self) -> int:
        return len(self.songs)

    def __getitem__(self, index: int) -> tuple[int, Song]:
        if index >= len(self.songs):
            raise IndexError(index)
        return self.songs[index]


class ClipModule(lightning.LightningDataModule):
    """Training clips and validation songs.

    Parameters
    ----------
    config
        Batch size and what clips are made of.
    train, valid
        Songs; see `unetsep.train.data.cache`.
    workers
        Processes that cut clips; 0 cuts them in the training process. By default one on a
        CPU, where every core is wanted, up to eight otherwise.
    resident
        Keep all audio in the accelerator's memory and cut clips there.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: Sequence[Song],
        valid: Sequence[Song],
        *,
        workers: int | None = None,
        resident: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.valid = config, list(valid)
        self.planner = ClipPlanner(train, config)
        self.workers, self.resident = workers, resident
        self._audio: ResidentClips | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the step on at which the run stands."""
        trainer = self.trainer
        assert trainer is not None
        on_cpu = trainer.strategy.root_device.type == "cpu"
        workers = self.workers
        if workers is None:
            workers = 1 if on_cpu else min(8, os.cpu_count() or 1)
        batches = ClipBatches(
            self.config.batch_size, trainer.global_step, trainer.global_rank, trainer.world_size
        )
        dataset = PlanDataset(self.planner) if self.resident else ClipDataset(self.planner)
        return DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            worker_init_fn=_leave_signals,
            prefetch_factor=4 if workers else None,
            pin_memory=not on_cpu,
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The process's share of the validation songs."""
        trainer = self.trainer
        assert trainer is not None
        songs = ValidSongs(self.valid, trainer.global_rank, trainer.world_size)
        return DataLoader(songs, batch_size=None, collate_fn=_same)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move clips; leave songs and plans where they are."""
        return batch.to(device, non_blocking=True) if isinstance(batch, Tensor) else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Cut resident clips."""
        if not isinstance(batch, Plan):
            return batch
        if self._audio is None:
            assert self.trainer is not None
            self._audio = ResidentClips(self.planner, self.trainer.strategy.root_device)
        return self._audio.cut(batch)


def _leave_signals(_: int) -> None:
    """Let a worker outlive Ctrl-C and SIGTERM, which go to all processes of a terminal or job.

    The training process finishes its step and saves; for that it needs its workers.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _same(item: Any) -> Any:
    return item
