"""A song as a stream of blocks: what is asked of it, and how it is pushed through models."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import CancelledError
from .arrays import Signal
from .threads import OwnThread, without_autocast
from .transfer import Link, StemBlock

# Called with (seconds done, seconds in total or None); False cancels.
Progress = Callable[[float, float | None], bool | None]


@dataclass(frozen=True)
class Selection:
    """Which stems come out, in which order.

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
        """The network's stems that are needed."""
        return tuple(sorted({i if i >= 0 else -1 - i for i in self.indices}))

    def adds_up(self, stems: int, *, complete: bool) -> bool:
        """Whether the outputs add up to the mixture.

        Parameters
        ----------
        stems
            How many the network has.
        complete
            Whether those add up to the mixture.
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
            Leave out the axis of the channels, of which there is one.
        """
        return dict(zip(self.names, stems[:, 0] if mono else stems, strict=True))

    def without_last(self) -> Selection:
        """The same outputs but the last."""
        return Selection(self.names[:-1], self.indices[:-1])

    def apply(self, stems: Tensor, whole: Tensor | float = 1.0) -> Tensor:
        """Masks, or spectra, of the selected stems.

        Parameters
        ----------
        stems
            ``(stems, channels, bins, frames)``, all the network's.
        whole
            What all stems make together: the mixture's spectrum, if these are spectra.

        Returns
        -------
        Tensor
            ``(selected, channels, bins, frames)``.
        """
        if self.indices == tuple(range(len(self.indices))):
            return stems[: len(self.indices)]
        return torch.stack([stems[i] if i >= 0 else whole - stems[-1 - i] for i in self.indices])


def check_progress(progress: Progress | None) -> None:
    """Refuse what cannot be called.

    Raises
    ------
    ValueError
        If it is neither None nor callable.
    """
    if progress is not None and not callable(progress):
        raise ValueError(f"progress must be a function of seconds done and total, got {progress!r}")


def _cancels(answer: object) -> bool:
    """Whether what a callback returned is False, numpy's own too; None and 0 go on."""
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

    On a CPU this is computed in a thread of our own; blocks are taken and progress is told in
    the caller's.

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
        What the message of a cancelled run begins with.
    integers
        For each of ``songs``, whether integers of 16 bits are wanted; by default for none.

    Yields
    ------
    list of StemBlock
        For each of ``songs``, its next samples, maybe none.

    Raises
    ------
    CancelledError
        If ``progress`` returned False.
    ValueError
        If ``progress`` cannot be called.
    """
    check_progress(progress)
    done = 0
    wanted = list(zip(songs, integers or [False] * len(songs), strict=True))
    with _computing(songs) as call:
        for block in blocks:
            yield call(lambda: [song._send(block, integers=each) for song, each in wanted])  # noqa: B023
            done += block.shape[-1]
            if progress is not None and _cancels(progress(done / sample_rate, total)):
                raise CancelledError(f"{label}separation was cancelled")
        yield call(lambda: [song._end(integers=each) for song, each in wanted])


Stems = list[StemBlock]


@contextlib.contextmanager
def _computing(songs: Sequence[SongStream]) -> Iterator[Callable[[Callable[[], Stems]], Stems]]:
    """What computes songs: a thread of our own, or on a GPU, which threads choose, the caller."""
    if any(song.device.type == "cuda" for song in songs):
        yield lambda compute: compute()
        return
    # What is done between segments takes no more than its share, too.
    threads = min((song.threads for song in songs), default=1)
    with OwnThread(threads, "song") as thread:
        yield thread.call


class SongStream:
    """A song on its way through a model; push blocks, then finish.

    Parameters
    ----------
    channels
        Of the song.
    device
        Where spectra are kept.
    threads
        Of torch, for what is done between segments.
    """

    def __init__(self, channels: int, device: torch.device, threads: int) -> None:
        self.channels, self.device, self.threads = channels, device, threads
        self._link = Link(device)

    def push(self, block: Signal) -> Signal:
        """Take ``(channels, samples)``, return ``(stems, channels, samples)``, maybe none."""
        return self._send(block).floats()

    def finish(self) -> Signal:
        """The rest of the stems; in total they are as long as what was pushed."""
        return self._end().floats()

    @torch.inference_mode()
    def _send(self, block: Signal, *, integers: bool = False) -> StemBlock:
        """`push` that does not wait for a GPU.

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
            return StemBlock(self._link, self._push(block), integers=integers)

    @torch.inference_mode()
    def _end(self, *, integers: bool = False) -> StemBlock:
        """`finish` that does not wait for a GPU; see `_send`."""
        with self._link.computing(), without_autocast(self.device):
            return StemBlock(self._link, self._finish(), integers=integers)

    def _push(self, block: Signal) -> Tensor:
        """Stems that are ready, ``(stems, channels, samples)``, given further samples."""
        raise NotImplementedError

    def _finish(self) -> Tensor:
        """All stems that are left."""
        raise NotImplementedError
