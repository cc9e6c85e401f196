"""Several passes of one song at other pitches, and the mean of their stems."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .arrays import Queue, Signal
from .signal_path import CPU, SongPass
from .song_stream import SongStream
from .transfer import Link

# Transposition of the song in each pass. Masks of a transposed song have other errors, the more
# so the larger the interval, until the network no longer recognises the sounds.
SEMITONES = (0, 2, 1, 3)
MAX_PASSES = len(SEMITONES)


def pass_rates(sample_rate: int, passes: int) -> list[int]:
    """For each pass, the sample rate in Hz at which the song is interpreted.

    Samples interpreted at a higher rate sound higher, and shorter.

    Parameters
    ----------
    sample_rate
        Of the song.
    passes
        1 to `MAX_PASSES`.
    """
    return [round(sample_rate * 2 ** (semitones / 12)) for semitones in SEMITONES[:passes]]


class SongPasses(SongStream):
    """A song on its way through a model several times: the mean of the stems.

    Each pass has another pitch, see `pass_rates`. Errors that depend on how notes and hits fall
    into bins and frames then cancel in part. If the stems of each pass add up to the song, so
    does their mean.

    Parameters
    ----------
    passes
        One or more, of the same song and selection.
    """

    def __init__(self, passes: Sequence[SongPass]) -> None:
        first = passes[0]
        super().__init__(first.sample_rate, first.channels, first.device, first.threads)
        # All passes but the first resample on the host, so the mean is taken there.
        self._link = Link(CPU)
        self._passes = passes
        self._ready: list[Queue[Tensor]] = [Queue() for _ in passes]

    def _process(self, block: Signal) -> Tensor:
        return self._mean(lambda song: song._process(block))

    def _process_rest(self) -> Tensor:
        return self._mean(lambda song: song._process_rest())

    def _mean(self, compute: Callable[[SongPass], Tensor]) -> Tensor:
        """Mean of the stems that all passes have ready, after ``compute`` for each."""
        for song, ready in zip(self._passes, self._ready, strict=True):
            with song._link.computing():
                ready.put(compute(song).cpu())
        samples = min(ready.samples for ready in self._ready)
        shape = (self._passes[0].outputs, self.channels, samples)
        mean = torch.zeros(shape, dtype=torch.float32, device=CPU)
        part = torch.empty_like(mean)
        for ready in self._ready:
            ready.take_into(part)
            mean += part
        return mean.div_(len(self._passes))
