"""Samples on their way between the host and the device that computes, for one song.

On a CPU there is no way, and nothing is copied. A song on a GPU has three CUDA streams: what is
computed, what goes up, and what comes down. A block goes up once and comes down once, through
pinned memory; whoever takes it waits for its event and for nothing else, while the next block
is computed. Pinned memory comes from torch's own cache, so that a few buffers serve all blocks.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import defaultdict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .arrays import Signal

Integers = npt.NDArray[np.integer]
# Samples of each stem that become integers at once, to stay in the cache.
CACHED_SAMPLES = 1 << 13


class Streams:
    """The CUDA streams of one song.

    Parameters
    ----------
    device
        The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        streams = [torch.cuda.Stream(device) for _ in range(3)]  # type: ignore[no-untyped-call]
        self.compute, self.up, self.down = streams


# Streams that no song has now. torch keeps the memory of each stream apart: few serve many songs.
_idle: defaultdict[torch.device, list[Streams]] = defaultdict(list)


class Link:
    """The way between the host and the device of one song.

    Parameters
    ----------
    device
        Where a song's spectra are.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._streams: Streams | None = None
        if device.type == "cuda":
            idle = _idle[device]
            try:
                self._streams = idle.pop()
            except IndexError:
                self._streams = Streams(device)
            weakref.finalize(self, idle.append, self._streams)

    def computing(self) -> contextlib.AbstractContextManager[object]:
        """Within this, what is computed is in the song's order, and no other's."""
        if self._streams is None:
            return contextlib.nullcontext()
        return torch.cuda.stream(self._streams.compute)

    def upload(self, block: Signal) -> Tensor:
        """``(channels, samples)`` on the device; on a CPU the same memory."""
        host = as_tensor(block)
        if self._streams is None or not block.size:
            return host.to(self.device)
        with torch.cuda.stream(self._streams.up):
            there = host.pin_memory().to(self.device, non_blocking=True)
        self._streams.compute.wait_stream(self._streams.up)
        there.record_stream(self._streams.compute)
        return there

    def download(self, tensor: Tensor) -> Download:
        """Have a tensor brought to the host, which need not wait for it."""
        if self._streams is None or tensor.device.type == "cpu":
            return Download(tensor.cpu())
        tensor = tensor.contiguous()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        self._streams.down.wait_stream(self._streams.compute)
        with torch.cuda.stream(self._streams.down):
            host.copy_(tensor, non_blocking=True)
            # Waiting for it, a thread sleeps: cores have other songs to read and write.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
        tensor.record_stream(self._streams.down)
        return Download(host, event)


class Download:
    """A tensor that has come to the host, or will.

    Parameters
    ----------
    host
        Where it arrives.
    event
        When it has; None if it is there.
    """

    def __init__(self, host: Tensor, event: torch.cuda.Event | None = None) -> None:
        self._host, self._event = host, event
        self.is_pinned = event is not None

    def has_arrived(self) -> bool:
        """Whether nobody has to wait any more."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> Tensor:
        """The tensor; pinned memory is used again once this is let go."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


class StemBlock:
    """A stretch of a song's stems, which may still be on its way to the host.

    Parameters
    ----------
    link
        Of the song.
    stems
        ``(stems, channels, samples)``, float32.
    integers
        Whether integers of 16 bits are wanted, where they can hold the stems.
    """

    def __init__(self, link: Link, stems: Tensor, *, integers: bool = False) -> None:
        self.samples = stems.shape[-1]
        self._shape = stems.shape
        self._stems: Tensor | None = None
        self._packed = integers and self.samples > 0
        self._coming = link.download(pack(stems) if self._packed else stems)
        # On a CPU it is known at once whether floats will be asked for.
        if self._packed and not (self._coming.has_arrived() and self._peak() <= 1):
            self._stems = stems

    def _peak(self) -> float:
        return float(self._coming.wait()[:2].view(torch.float32))

    def integers(self) -> Integers | None:
        """``(stems, samples, channels)`` as they are stored; None if floats are to be taken.

        That is if integers were not wanted, or a sample is beyond full scale.
        """
        if not self._packed or self._peak() > 1:
            return None
        stems, channels, samples = self._shape
        array: Integers = self._coming.wait()[2:].view(stems, samples, channels).numpy()
        return array

    def floats(self) -> Signal:
        """``(stems, channels, samples)``; not to be asked for where there are integers."""
        array: Signal = self._coming.wait().numpy()
        if self._packed:
            assert self._stems is not None, "stems within full scale are integers"
            array = self._stems.cpu().numpy()
        elif self._coming.is_pinned:  # which is scarce, and who asks may keep all of a song
            array = array.copy()
        return array


def pack(stems: Tensor) -> Tensor:
    """Stems as 16-bit files hold them, and their peak: all that has to come to the host.

    Full scale is 2^15, as in `unetsep.audio.writers.quantize`.

    Parameters
    ----------
    stems
        ``(stems, channels, samples)``, float32, at least one sample.

    Returns
    -------
    Tensor
        int16, ``(2 + stems * samples * channels,)``. The first two are the bits of a float32,
        the peak; then ``(stems, samples, channels)``.
    """
    count, channels, samples = stems.shape
    packed = torch.empty(2 + stems.numel(), dtype=torch.int16, device=stems.device)
    least, most = torch.aminmax(stems)
    packed[:2].view(torch.float32).copy_(torch.maximum(-least, most))
    out = packed[2:].view(count, samples, channels)
    step = CACHED_SAMPLES if stems.device.type == "cpu" else samples
    for at in range(0, samples, step):
        scaled = (stems[..., at : at + step] * 32768).round_().clamp_(-32768, 32767)
        out[:, at : at + step] = scaled.to(torch.int16).mT
    return packed


def as_tensor(block: Signal) -> Tensor:
    """A tensor in the memory of an array, or of a copy if that must not be written to."""
    return torch.from_numpy(np.ascontiguousarray(block if block.flags.writeable else block.copy()))
