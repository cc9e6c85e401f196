"""The data of a run, as Lightning expects it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .config import TrainConfig
from .data.augment import on_device
from .data.clip_plans import ClipPlanner, Plan
from .data.clips import ClipBatches, ResidentClips
from .data.loaders import clip_loader, valid_loader
from .data.recording import Recording


class ClipModule(lightning.LightningDataModule):
    """Training clips and validation recordings.

    Parameters
    ----------
    config
        Batch size and what clips are made of.
    train, valid
        Recordings; see `unetsep.train.data.cache`. Of the former ``config.watched`` are
        ``watched``: scored beside the latter, see `watched_recordings`.
    workers
        See `unetsep.train.data.loaders.clip_loader`.
    resident
        Keep all audio in the accelerator's memory and cut clips there.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: Sequence[Recording],
        valid: Sequence[Recording],
        *,
        workers: int | None = None,
        resident: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.valid = config, list(valid)
        self.watched = watched_recordings(train, config.stems, config.watched)
        self.planner = ClipPlanner(train, config)
        self.workers, self.resident = workers, resident
        self._audio: ResidentClips | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Batches from the run's current step on."""
        trainer = self.trainer
        assert trainer is not None
        batches = ClipBatches(
            self.config.batch_size, trainer.global_step, trainer.global_rank, trainer.world_size
        )
        device = trainer.strategy.root_device
        return clip_loader(
            self.planner, batches, device, workers=self.workers, resident=self.resident
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """The process's share of the validation recordings, and of those watched after them."""
        trainer = self.trainer
        assert trainer is not None
        return valid_loader([*self.valid, *self.watched], trainer.global_rank, trainer.world_size)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move clips; leave recordings and plans where they are."""
        return on_device(batch, device) if isinstance(batch, Tensor) else batch

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Cut resident clips."""
        if not isinstance(batch, Plan):
            return batch
        if self._audio is None:
            assert self.trainer is not None
            self._audio = ResidentClips(self.planner, self.trainer.strategy.root_device)
        return self._audio.cut(batch)


def watched_recordings(
    train: Sequence[Recording], stems: Sequence[str], count: int
) -> list[Recording]:
    """Some training recordings, whose scores tell how far a network overfits.

    Parameters
    ----------
    train
        Those with all stems known are candidates. Extra ones count only if there are no others:
        validation songs are no extra ones either.
    stems
        Of the run.
    count
        How many, spread evenly.
    """
    candidates = [each for each in train if each.knows(stems)]
    candidates = [each for each in candidates if not each.extra] or candidates
    count = min(count, len(candidates))
    return [candidates[number * len(candidates) // count] for number in range(count)]
