"""Masks for a stream of frames: overlapping segments, cross-faded in the mask domain.

Only the network needs segments; the STFT and its inverse run over the whole song. So waveforms
have no seams, and masks that sum to one still do after the cross-fade.
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

from .arrays import Queue
from .threads import thread_count, use_threads

Estimate = Callable[[Tensor], Tensor]
"""From a complex spectrum, ``(channels, bins, frames)``, fp32 masks of ``(stems, channels, bins,
frames)``, which the caller may overwrite."""


class SegmentedMasks:
    """Estimate masks segment by segment while the mixture's frames stream through.

    Neighbouring segments share ``overlap`` frames, over which their masks are cross-faded
    with linear weights that sum to one. Masks at a border, where the network has the least
    context, have the least weight. The last segment starts earlier so that it is as long as the
    others; a song shorter than one segment is padded with silence to the next multiple of
    ``frame_multiple``.

    Parameters
    ----------
    estimate
        The network.
    bins
        Input bins of the network, the lowest of the spectrum.
    segment, overlap
        In frames; ``overlap`` at most half of ``segment``.
    frame_multiple
        The network takes only multiples of this many frames.
    lead_frames
        Silent frames at the start of the first segment.
    pad_segments
        Pad the last segment with silence to a whole segment, whatever its length.
    pool
        Threads that run the network, each on one segment; they run ahead of the yielded masks by
        as many segments. Without a pool segments are computed one by one.
    """

    def __init__(
        self,
        estimate: Estimate,
        bins: int,
        segment: int,
        overlap: int,
        frame_multiple: int,
        *,
        lead_frames: int = 0,
        pad_segments: bool = False,
        pool: SegmentPool | None = None,
    ) -> None:
        if not 0 <= 2 * overlap <= segment:
            raise ValueError(f"overlap must be 0 to half of {segment} frames, got {overlap}")
        self._estimate, self._bins, self._frame_multiple = estimate, bins, frame_multiple
        self._segment, self._overlap = segment, overlap
        self._lead_frames, self._pad_segments = lead_frames, pad_segments
        self._pool, self._lookahead = pool, 0 if pool is None else pool.size
        self._spectra: Queue[Tensor] = Queue()  # (channels, all bins, frames) without masks yet
        self._inputs: list[Tensor] = []  # the network's bins of frames in no segment yet
        self._frames = 0  # in all of `_inputs`
        self._context: Tensor | None = None  # the network's bins of the frames before `_inputs`
        self._pending: deque[tuple[Callable[[], Tensor], int, int]] = deque()
        self._tail: Tensor | None = None  # faded-out masks of the previous segment's overlap
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
        if not self._inputs:
            self._append(spectrum.new_zeros(*spectrum.shape[:-1], self._lead_frames))
        self._append(spectrum)
        keep = self._segment - self._overlap
        # With more frames than a segment has, this segment is not the last one.
        while self._frames > self._segment:
            frames = join(self._inputs)
            self._submit(frames[..., : self._segment], keep)
            self._context = frames[..., :keep]
            self._inputs, self._frames = [frames[..., keep:]], self._frames - keep
            while len(self._pending) > self._lookahead:
                yield from self._finish_oldest()

    def flush(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pairs for all remaining frames."""
        count, self._ended = self._frames, True
        if self._context is not None or count > self._lead_frames:
            frames, self._inputs = join(self._inputs), []
            if self._pad_segments:
                self._submit(functional.pad(frames, (0, self._segment - count)), count)
            elif self._context is not None and count < self._segment:
                context = self._context[..., count - self._segment :]
                self._submit(join([context, frames]), count, skip=self._segment - count)
            else:
                self._submit(functional.pad(frames, (0, -count % self._frame_multiple)), count)
        while self._pending:
            yield from self._finish_oldest()

    def _append(self, spectrum: Tensor) -> None:
        self._spectra.put(spectrum)
        self._inputs.append(spectrum[:, : self._bins])
        self._frames += spectrum.shape[-1]

    def _submit(self, segment: Tensor, count: int, skip: int = 0) -> None:
        """Submit a segment to the network; ``count`` frames after ``skip`` of its masks count."""
        if self._pool is not None:
            masks = self._pool.submit(self._estimate, segment).result
        else:
            masks = functools.partial(self._estimate, segment)
        self._pending.append((masks, count, skip))

    def _finish_oldest(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Wait for the oldest segment's masks, cross-fade them and pair them with frames."""
        result, count, skip = self._pending.popleft()
        masks = result()[..., skip:]
        overlap = self._overlap
        fade = (torch.arange(overlap, device=masks.device, dtype=torch.float32) + 0.5) / overlap
        if self._tail is not None:
            masks[..., :overlap] *= fade
            masks[..., :overlap] += self._tail
        # The last segment ends with the song, or with padding, so it has no tail.
        last = not self._pending and self._ended
        self._tail = masks[..., count : count + overlap] * (1 - fade) if not last else None
        position = 0
        for piece in self._spectra.take_parts(count):
            frames = piece.shape[-1]
            if self._lead_frames:  # pieces of silence alone
                self._lead_frames -= frames
            else:
                yield masks[..., position : position + frames], piece
            position += frames


def join(parts: Sequence[Tensor]) -> Tensor:
    """Concatenated frames, ``(..., bins, frames)``, frames before bins in memory."""
    return parts[0] if len(parts) == 1 else torch.cat([part.mT for part in parts], dim=-2).mT


# The network needs some 0.15 GB of memory for each segment.
MAX_WORKERS = 4


class SegmentPool(ThreadPoolExecutor):
    """Threads that each work on a segment.

    Parameters
    ----------
    size
        Number of threads.
    share
        Torch's threads for each of them.
    """

    def __init__(self, size: int, share: int) -> None:
        super().__init__(size, "segment", use_threads, (share,))
        self.size, self.share = size, share


@contextlib.contextmanager
def segment_pool(device: torch.device) -> Iterator[SegmentPool | None]:
    """Threads for several segments at once, among which torch's threads are divided.

    Threads with a segment each never wait for each other, while threads that share an operation
    wait after each one. Yields None where there is nothing to divide: with one thread, or on a
    GPU. The calling thread keeps its number of torch threads.
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
