"""Sample rates: there and back, without losing what the resampler's filter cuts off."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np

from .arrays import Signal

if TYPE_CHECKING:
    from torch import Tensor

Samples = TypeVar("Samples", "Signal", "Tensor")


class StreamResampler:
    """soxr over ``(channels, samples)`` blocks; the same samples for any division in blocks.

    Parameters
    ----------
    in_rate, out_rate
        In Hz; if they are equal, blocks pass through.
    channels
        Number of channels.

    Notes
    -----
    At the end, `TAIL` seconds of silence are appended, so that the filter's response to the
    last samples is complete; whoever knows the length of the stream cuts it off.
    """

    TAIL = 0.05

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        self._channels, self._tail = channels, round(self.TAIL * in_rate)
        self._soxr = None
        if in_rate != out_rate:
            import soxr

            self._soxr = soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32")

    def push(self, block: Signal, *, last: bool = False) -> Signal:
        """Samples that are complete after ``block``; all that are left if it is the last.

        Parameters
        ----------
        block
            ``(channels, samples)``, float32; may be empty.
        last
            Whether the stream ends here.
        """
        if self._soxr is None:
            return block
        if last:
            block = np.pad(block, ((0, 0), (0, self._tail)))
        out = self._soxr.resample_chunk(np.ascontiguousarray(block.T), last=last)
        return np.asarray(out, dtype=np.float32).reshape(-1, self._channels).T


class Queue(Generic[Samples]):
    """Samples waiting to be taken from the front, ``(channels, samples)``: arrays or tensors."""

    def __init__(self) -> None:
        self._blocks: list[Samples] = []
        self.samples = 0

    def put(self, block: Samples) -> None:
        """Append a block."""
        if block.shape[-1]:
            self._blocks.append(block)
            self.samples += block.shape[-1]

    def take(self: Queue[Signal], samples: int) -> Signal:
        """Remove and return the first ``samples`` samples, which must be there."""
        taken = self._remove(samples)
        return taken[0] if len(taken) == 1 else np.concatenate(taken, axis=-1)

    def take_into(self, room: Samples) -> None:
        """Remove the first samples, and write as many as ``(channels, samples)`` has room for."""
        done = 0
        for part in self._remove(room.shape[-1]):
            room[..., done : done + part.shape[-1]] = part
            done += part.shape[-1]

    def _remove(self, samples: int) -> list[Samples]:
        assert samples <= self.samples
        taken, have = [], 0
        while have < samples:
            block = self._blocks[0]
            part = block[..., : samples - have]
            taken.append(part)
            have += part.shape[-1]
            if part.shape[-1] == block.shape[-1]:
                self._blocks.pop(0)
            else:
                self._blocks[0] = block[..., part.shape[-1] :]
        self.samples -= samples
        return taken


class Residual:
    """What a round trip through another sample rate loses, to be shared out among stems.

    Nearly all of it lies above the lower rate's band. Adding each stem's share (shares
    that sum to one) to the stems makes them sum to the input again, at any rate.

    Parameters
    ----------
    rate, inner_rate
        Rate of the input, and of the network, in Hz.
    channels
        Channels of the input.
    hop_length
        Distance in samples (at ``inner_rate``) of the frames for which shares are given.
    """

    def __init__(self, rate: int, inner_rate: int, channels: int, hop_length: int) -> None:
        self._back = StreamResampler(inner_rate, rate, channels)
        self._input: Queue[Signal] = Queue()
        self._trip: Queue[Signal] = Queue()
        self._lost: Queue[Signal] = Queue()
        self._frame = hop_length * rate / inner_rate
        self._shares: Signal | None = None
        self._first_frame = 0  # index of the first frame still kept in _shares
        self._position = 0  # samples shared out so far

    def push(self, block: Signal, inner: Signal, *, last: bool = False) -> None:
        """Take input samples, and the same stretch of the stream at the inner rate."""
        self._input.put(block)
        self._trip.put(self._back.push(inner, last=last))
        ready = min(self._input.samples, self._trip.samples)
        if ready:
            self._lost.put(self._input.take(ready) - self._trip.take(ready))

    def push_shares(self, shares: Signal) -> None:
        """Take the stems' shares in further frames, ``(stems, channels, frames)``."""
        old = [] if self._shares is None else [self._shares]
        self._shares = np.concatenate([*old, shares], axis=-1)

    @property
    def ready(self) -> int:
        """Samples that can be shared out."""
        return self._lost.samples

    def take(self, samples: int) -> Signal:
        """The next samples' residual for each stem, ``(stems, channels, samples)``."""
        assert self._shares is not None
        lost = self._lost.take(samples)
        # Frame k is centred (k - 1) hops after the first sample: 4 hops long, 3 before it.
        time = (self._position + np.arange(samples)) / self._frame + 1 - self._first_frame
        last = self._shares.shape[-1] - 1
        left = np.clip(np.floor(time).astype(np.intp), 0, last)
        right = np.minimum(left + 1, last)
        weight = np.clip(time - left, 0, 1).astype(np.float32)
        shares = self._shares[..., left] * (1 - weight) + self._shares[..., right] * weight
        self._position += samples
        done = min(max(0, int(self._position / self._frame) + 1 - self._first_frame), last)
        self._shares = self._shares[..., done:]
        self._first_frame += done
        out: Signal = shares * lost
        return out
