"""Masks for a stream of frames: overlapping segments, cross-faded in the mask domain.

Only the network needs segments; the STFT and its inverse run over the whole song. So no
seam of waveforms can exist, and masks that sum to one still do after the cross-fade.
"""

from __future__ import annotations

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn import functional

from .threads import thread_count, use_threads

# Complex spectrum (channels, bins, frames) to masks (stems, channels, bins, frames), fp32,
# which belong to the caller.
Estimate = Callable[[Tensor], Tensor]


class SegmentedMasks:
    """Estimate masks segment by segment while the mixture's frames stream through.

    Neighbouring segments share ``overlap`` frames, over which their masks are cross-faded
    with linear weights that sum to one: what the network says at a border, where it sees
    the least context, has the least weight. The last segment is moved back so that it is as
    long as the others; a song shorter than one segment is padded with silence to the
    next multiple of ``multiple``.

    Parameters
    ----------
    estimate
        The network.
    bins
        Bins the network sees, the lowest of the spectrum.
    segment, overlap
        In frames; ``overlap`` at most half of ``segment``.
    multiple
        The network takes only multiples of this many frames.
    lead
        Silent frames that the first segment begins with.
    fill
        Fill up the last segment with silence, whatever its length.
    pool
        Threads that run the network, each on a segment; by as many segments are they ahead of
        the masks that are given out. Without a pool each segment is waited for.
    """

    def __init__(
        self,
        estimate: Estimate,
        bins: int,
        segment: int,
        overlap: int,
        multiple: int,
        *,
        lead: int = 0,
        fill: bool = False,
        pool: SegmentPool | None = None,
    ) -> None:
        if not 0 <= 2 * overlap <= segment:
            raise ValueError(f"overlap must be 0 to half of {segment} frames, got {overlap}")
        self._estimate, self._bins, self._multiple = estimate, bins, multiple
        self._segment, self._overlap = segment, overlap
        self._lead, self._fill = lead, fill
        self._pool, self._ahead = pool, 0 if pool is None else pool.size
        self._pieces: deque[Tensor] = deque()  # (channels, all bins, frames) not yet masked
        self._seen: list[Tensor] = []  # the network's bins of those that are in no segment
        self._frames = 0  # in all of `_seen`
        self._context: Tensor | None = None  # and of the frames before those
        self._waiting: deque[tuple[Callable[[], Tensor], int, int]] = deque()
        self._tail: Tensor | None = None  # faded-out masks of the last segment's overlap
        self._ended = False

    def push(self, spectrum: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield ``(masks, spectrum)`` pairs for the frames whose masks are final.

        Parameters
        ----------
        spectrum
            Complex, ``(channels, all bins, frames)``.

        Yields
        ------
        tuple
            Masks ``(stems, channels, bins, frames)`` and the mixture's spectrum
            ``(channels, all bins, frames)`` of the same frames.
        """
        if not self._seen:
            self._append(spectrum.new_zeros(*spectrum.shape[:-1], self._lead))
        self._append(spectrum)
        keep = self._segment - self._overlap
        # More than a segment must be there: only then is it not the last one.
        while self._frames > self._segment:
            seen = join(self._seen)
            self._begin(seen[..., : self._segment], keep)
            self._context = seen[..., :keep]
            self._seen, self._frames = [seen[..., keep:]], self._frames - keep
            while len(self._waiting) > self._ahead:
                yield from self._give_first()

    def flush(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pairs for all frames that are left."""
        count, self._ended = self._frames, True
        if count > self._lead:
            seen, self._seen = join(self._seen), []
            if self._fill:
                self._begin(functional.pad(seen, (0, self._segment - count)), count)
            elif self._context is not None and count < self._segment:
                before = self._context[..., count - self._segment :]
                self._begin(join([before, seen]), count, skip=self._segment - count)
            else:
                self._begin(functional.pad(seen, (0, -count % self._multiple)), count)
        while self._waiting:
            yield from self._give_first()

    def _append(self, spectrum: Tensor) -> None:
        self._pieces.append(spectrum)
        self._seen.append(spectrum[:, : self._bins])
        self._frames += spectrum.shape[-1]

    def _begin(self, segment: Tensor, count: int, skip: int = 0) -> None:
        """Have a segment's masks computed, of which ``count`` frames after ``skip`` matter."""
        if self._pool is not None:
            masks = self._pool.submit(self._estimate, segment).result
        else:
            masks = functools.partial(self._estimate, segment)
        self._waiting.append((masks, count, skip))

    def _give_first(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Wait for the masks of the oldest segment, cross-fade them and pair them with frames."""
        result, count, skip = self._waiting.popleft()
        masks = result()[..., skip:]
        overlap = self._overlap
        fade = (torch.arange(overlap, device=masks.device, dtype=torch.float32) + 0.5) / overlap
        if self._tail is not None:
            masks[..., :overlap] *= fade
            masks[..., :overlap] += self._tail
        # The last segment ends with the song, or with silence that nobody needs.
        last = not self._waiting and self._ended
        self._tail = masks[..., count : count + overlap] * (1 - fade) if not last else None
        done = 0
        while done < count:
            piece = self._pieces.popleft()
            frames = min(piece.shape[-1], count - done)
            if frames < piece.shape[-1]:
                self._pieces.appendleft(piece[..., frames:])
            begin = min(self._lead, frames)
            self._lead -= begin
            if frames > begin:
                yield masks[..., done + begin : done + frames], piece[..., begin:frames]
            done += frames


def join(parts: Sequence[Tensor]) -> Tensor:
    """Frames one after the other, ``(..., bins, frames)``, still frames before bins in memory."""
    return parts[0] if len(parts) == 1 else torch.cat([part.mT for part in parts], dim=-2).mT


# Each segment on its way through the network takes some 0.15 GB.
MAX_WORKERS = 4


class SegmentPool(ThreadPoolExecutor):
    """Threads that each work on a segment.

    Parameters
    ----------
    size
        How many.
    share
        Of torch's threads, for each.
    """

    def __init__(self, size: int, share: int) -> None:
        super().__init__(size, "segment", use_threads, (share,))
        self.size, self.share = size, share


@contextlib.contextmanager
def segment_pool(device: torch.device) -> Iterator[SegmentPool | None]:
    """Threads for several segments at once, among which torch's threads are divided.

    Threads that work on segments of their own never wait for each other, as those that share
    one operation do after each. None is given where there is nothing to divide: with one
    thread, or on a GPU. The calling thread keeps its number.
    """
    total = thread_count()
    if device.type != "cpu" or total == 1:
        yield None
        return
    workers = min(total, MAX_WORKERS)
    pool = SegmentPool(workers, total // workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
