"""Streaming resampling, and the residual that the round trip's filter cuts off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .arrays import Queue, Signal


class StreamResampler:
    """soxr for ``(channels, samples)`` blocks; the result does not depend on the blocks' sizes.

    Parameters
    ----------
    in_rate, out_rate
        In Hz; if they are equal, blocks pass through.
    channels
        Number of channels.

    Notes
    -----
    At the end, `TAIL` seconds of silence are appended, so that the filter's response to the
    last samples is complete; the caller, who knows the stream's length, cuts it off.
    """

    TAIL = 0.05

    def __init__(self, in_rate: int, out_rate: int, channels: int) -> None:
        self._channels, self._tail = channels, round(self.TAIL * in_rate)
        self._soxr = None
        if in_rate != out_rate:
            import soxr

            self._soxr = soxr.ResampleStream(in_rate, out_rate, channels, dtype="float32")

    def push(self, block: Signal, *, last: bool = False) -> Signal:
        """Samples that are complete after ``block``; all remaining ones if it is the last.

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


def resampled_length(samples: int, in_rate: int, out_rate: int) -> int:
    """Samples that last as long at another rate, at least one if there are any."""
    return max(1, round(samples * out_rate / in_rate)) if samples else 0


def resample_blocks(
    blocks: Iterable[Signal], in_rate: int, out_rate: int, channels: int
) -> Iterator[Signal]:
    """Yield blocks at another rate, of `resampled_length` in total.

    Parameters
    ----------
    blocks
        ``(channels, samples)``, float32.
    in_rate, out_rate
        In Hz.
    channels
        Number of channels.
    """
    resampler, samples_in, samples_out = StreamResampler(in_rate, out_rate, channels), 0, 0
    for block in blocks:
        samples_in += block.shape[-1]
        out = resampler.push(block)
        samples_out += out.shape[-1]
        if out.size:
            yield out
    tail = resampler.push(np.zeros((channels, 0), np.float32), last=True)
    if remaining := max(0, resampled_length(samples_in, in_rate, out_rate) - samples_out):
        yield tail[:, :remaining]


class Residual:
    """The input minus its round trip through another sample rate, distributed among stems.

    Nearly all of it lies above the lower rate's band. Adding each stem's share (shares
    that sum to one) to the stems makes them sum to the input again, at any rate.

    Parameters
    ----------
    rate, inner_rate
        Rate of the input, and of the network, in Hz.
    channels
        Channels of the input.
    hop_length
        Distance of the shares' frames in samples at ``inner_rate``.
    """

    def __init__(self, rate: int, inner_rate: int, channels: int, hop_length: int) -> None:
        self._back = StreamResampler(inner_rate, rate, channels)
        self._input: Queue[Signal] = Queue()
        self._round_trip: Queue[Signal] = Queue()
        self._residual: Queue[Signal] = Queue()
        self._frame = hop_length * rate / inner_rate
        self._shares: Signal | None = None
        self._first_frame = 0  # index of the first frame in _shares
        self._position = 0  # samples distributed so far

    def push(self, block: Signal, inner: Signal, *, last: bool = False) -> None:
        """Add input samples, and the same stretch of the stream at the inner rate."""
        self._input.put(block)
        self._round_trip.put(self._back.push(inner, last=last))
        ready = min(self._input.samples, self._round_trip.samples)
        if ready:
            self._residual.put(self._input.take(ready) - self._round_trip.take(ready))

    def push_shares(self, shares: Signal) -> None:
        """Add the stems' shares in further frames, ``(stems, channels, frames)``."""
        old = [] if self._shares is None else [self._shares]
        self._shares = np.concatenate([*old, shares], axis=-1)

    @property
    def ready(self) -> int:
        """Number of samples that can be distributed."""
        return self._residual.samples

    def take(self, samples: int) -> Signal:
        """Residual of the next samples for each stem, ``(stems, channels, samples)``."""
        assert self._shares is not None
        residual = self._residual.take(samples)
        # Frame k is centred (k - 1) hops after the first sample: 4 hops long, 3 before it.
        time = (self._position + np.arange(samples)) / self._frame + 1 - self._first_frame
        last = self._shares.shape[-1] - 1
        left = np.clip(np.floor(time).astype(np.intp), 0, last)
        right = np.minimum(left + 1, last)
        weight = np.clip(time - left, 0, 1).astype(np.float32)
        with np.errstate(under="ignore"):  # the host program may let numpy raise
            shares = self._shares[..., left] * (1 - weight) + self._shares[..., right] * weight
            out: Signal = shares * residual
        self._position += samples
        passed = min(max(0, int(self._position / self._frame) + 1 - self._first_frame), last)
        self._shares = self._shares[..., passed:]
        self._first_frame += passed
        return out
