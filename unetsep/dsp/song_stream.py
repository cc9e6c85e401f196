"""A song as a stream of blocks: the selection of stems, and the way through models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import CancelledError
from .arrays import Signal, as_signal, check_finite
from .threads import OwnThread, without_autocast
from .transfer import Link, StemBlock

Progress = Callable[[float, float | None], bool | None]
"""Called with the completed and total seconds, or None for an unknown total; False cancels."""


@dataclass(frozen=True)
class Selection:
    """The output stems, in order.

    Parameters
    ----------
    names
        Names of the output stems.
    indices
        For each, the network's stem; negative numbers ``-1 - i`` mean all but stem ``i``.
    """

    names: tuple[str, ...]
    indices: tuple[int, ...]

    @property
    def stems(self) -> tuple[int, ...]:
        """Indices of the network's stems that the outputs need."""
        return tuple(sorted({i if i >= 0 else -1 - i for i in self.indices}))

    def adds_up(self, stems: int, *, complete: bool) -> bool:
        """Whether the outputs add up to the mixture.

        Parameters
        ----------
        stems
            Number of stems of the network.
        complete
            Whether all of them add up to the mixture.
        """
        if len(self.indices) == 2 and self.indices[0] == -1 - self.indices[1]:
            return True
        return complete and sorted(self.indices) == list(range(stems))

    def named(self, stems: Signal, *, mono: bool = False) -> dict[str, Signal]:
        """Outputs by name.

        Parameters
        ----------
        stems
            ``(selected, channels, samples)``.
        mono
            Drop the axis of channels, which has length one.
        """
        return dict(zip(self.names, stems[:, 0] if mono else stems, strict=True))

    def without_last(self) -> Selection:
        """The same outputs without the last."""
        return Selection(self.names[:-1], self.indices[:-1])

    def apply(self, stems: Tensor, whole: Tensor | float = 1.0) -> Tensor:
        """Masks, or spectra, of the selected stems.

        Parameters
        ----------
        stems
            ``(stems, channels, bins, frames)``, all stems of the network.
        whole
            The sum of all stems: for spectra that of the mixture.

        Returns
        -------
        Tensor
            ``(selected, channels, bins, frames)``.
        """
        if self.indices == tuple(range(len(self.indices))):
            return stems[: len(self.indices)]
        return torch.stack([stems[i] if i >= 0 else whole - stems[-1 - i] for i in self.indices])


def check_progress(progress: Progress | None) -> None:
    """Check a progress callback.

    Raises
    ------
    ValueError
        If it is neither None nor callable.
    """
    if progress is not None and not callable(progress):
        raise ValueError(f"progress must be a function of seconds done and total, got {progress!r}")


def _cancels(answer: object) -> bool:
    """Whether a callback returned False, numpy's included; None and 0 do not cancel."""
    return isinstance(answer, (bool, np.bool_)) and not answer


def push_all(
    songs: Sequence[SongStream],
    blocks: Iterable[Signal],
    sample_rate: int,
    total: float | None,
    progress: Progress | None,
    label: str = "",
    integers: Sequence[bool] = (),
) -> Iterator[list[StemBlock]]:
    """Push blocks through one or more models at once and finish.

    On a CPU a thread of our own computes; blocks are read and progress is reported in the
    caller's thread.

    Parameters
    ----------
    songs
        The same song on its way through each model.
    blocks
        ``(channels, samples)`` at ``sample_rate`` Hz.
    total
        Length in seconds, if known; only passed on to ``progress``.
    progress
        Called after each block.
    label
        Start of the message of a cancelled run.
    integers
        For each of ``songs``, whether to return 16-bit integers; by default for none.

    Yields
    ------
    list of StemBlock
        The next samples of each of ``songs``, possibly none.

    Raises
    ------
    CancelledError
        If ``progress`` returned False.
    ValueError
        If ``progress`` cannot be called.
    """
    check_progress(progress)
    samples = 0
    outputs = list(zip(songs, integers or [False] * len(songs), strict=True))
    with _computing(songs) as call:
        for block in blocks:
            yield call(lambda: [song._push_block(block, integers=each) for song, each in outputs])  # noqa: B023
            samples += block.shape[-1]
            if progress is not None and _cancels(progress(samples / sample_rate, total)):
                raise CancelledError(f"{label}separation was cancelled")
        yield call(lambda: [song._finish_block(integers=each) for song, each in outputs])


Stems = list[StemBlock]


@contextlib.contextmanager
def _computing(songs: Sequence[SongStream]) -> Iterator[Callable[[Callable[[], Stems]], Stems]]:
    """Yield a function that runs computations: in a thread of our own, or on a GPU directly."""
    if any(song.device.type == "cuda" for song in songs):
        yield lambda compute: compute()
        return
    # Work between segments also uses no more than its share of threads.
    threads = min((song.threads for song in songs), default=1)
    with OwnThread(threads, "song") as thread:
        yield thread.call


class SongStream:
    """What a program pushes blocks into; subclasses process them.

    Parameters
    ----------
    sample_rate, channels
        Of the song.
    device
        Where spectra are stored.
    threads
        Torch's threads for work between segments.
    """

    def __init__(self, sample_rate: int, channels: int, device: torch.device, threads: int) -> None:
        self.sample_rate, self.channels, self.device = sample_rate, channels, device
        self.threads = threads
        self._link = Link(device)
        self._pushed, self._finished = 0, False

    def push(self, block: Signal) -> Signal:
        """Push ``(channels, samples)``; return ready ``(stems, channels, samples)``, maybe none."""
        self._check_unfinished()
        signal = as_signal(block).copy()
        check_finite(signal, self.sample_rate, self._pushed)
        stems = self._push_block(signal).floats()
        self._pushed += signal.shape[-1]
        return stems

    def finish(self) -> Signal:
        """The rest of the stems; in total they are as long as the pushed blocks."""
        self._check_unfinished()
        self._finished = True
        return self._finish_block().floats()

    def _check_unfinished(self) -> None:
        if self._finished:
            raise ValueError("the song is finished: open another with Separator.open_song")

    @torch.inference_mode()
    def _push_block(self, block: Signal, *, integers: bool = False) -> StemBlock:
        """`push` without waiting for a GPU.

        Parameters
        ----------
        block
            ``(channels, samples)``.
        integers
            See `StemBlock`.
        """
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"expected blocks ({self.channels}, samples), got {block.shape}")
        with self._link.computing(), without_autocast(self.device):
            return StemBlock(self._link, self._process(block), integers=integers)

    @torch.inference_mode()
    def _finish_block(self, *, integers: bool = False) -> StemBlock:
        """`finish` without waiting for a GPU; see `_push_block`."""
        with self._link.computing(), without_autocast(self.device):
            return StemBlock(self._link, self._process_rest(), integers=integers)

    def _process(self, block: Signal) -> Tensor:
        """Process further samples; return the ready stems, ``(stems, channels, samples)``."""
        raise NotImplementedError

    def _process_rest(self) -> Tensor:
        """The rest of the stems."""
        raise NotImplementedError
