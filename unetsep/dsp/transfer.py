"""Uploads and downloads of samples between the host and the computing device, for one song.

On a CPU nothing is copied. A song on a GPU has three CUDA streams: for computing, uploads and
downloads. Each block is uploaded once and downloaded once, through pinned memory. Its consumer
waits only for the block's event, while the next block is computed. Pinned memory comes from
torch's own cache, so that a few buffers serve all blocks.
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
# Samples of each stem that are converted to integers at once, to stay in the cache.
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


# Streams without a song. They are reused, since torch caches memory for each stream separately.
_idle: defaultdict[torch.device, list[Streams]] = defaultdict(list)


class Link:
    """The connection between the host and the device of one song.

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
        """A context in which computations are queued in the song's own CUDA stream."""
        if self._streams is None:
            return contextlib.nullcontext()
        return torch.cuda.stream(self._streams.compute)

    def upload(self, block: Signal) -> Tensor:
        """Copy ``(channels, samples)`` to the device; on a CPU the memory is shared."""
        host = as_tensor(block)
        if self._streams is None or not block.size:
            return host.to(self.device)
        with torch.cuda.stream(self._streams.up):
            uploaded = host.pin_memory().to(self.device, non_blocking=True)
        self._streams.compute.wait_stream(self._streams.up)
        uploaded.record_stream(self._streams.compute)
        return uploaded

    def download(self, tensor: Tensor) -> Download:
        """Start to copy a tensor to the host, without waiting for it."""
        if self._streams is None or tensor.device.type == "cpu":
            return Download(tensor.cpu())
        tensor = tensor.contiguous()
        host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=True)
        self._streams.down.wait_stream(self._streams.compute)
        with torch.cuda.stream(self._streams.down):
            host.copy_(tensor, non_blocking=True)
            # A blocking event lets the waiting thread sleep: cores read and write other songs.
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record()
        tensor.record_stream(self._streams.down)
        return Download(host, event)


class Download:
    """A tensor that is copied to the host.

    Parameters
    ----------
    host
        The copy.
    event
        Marks its completion; None if it is complete.
    """

    def __init__(self, host: Tensor, event: torch.cuda.Event | None = None) -> None:
        self._host, self._event = host, event
        self.is_pinned = event is not None

    def has_arrived(self) -> bool:
        """Whether the copy is complete."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def wait(self) -> Tensor:
        """The complete tensor; its pinned memory is reused once it is released."""
        if self._event is not None:
            self._event.synchronize()
        return self._host


class StemBlock:
    """A stretch of a song's stems, whose download may still be running.

    Parameters
    ----------
    link
        Of the song.
    stems
        ``(stems, channels, samples)``, float32.
    integers
        Whether to convert to 16-bit integers, if they can hold the stems.
    """

    def __init__(self, link: Link, stems: Tensor, *, integers: bool = False) -> None:
        self.samples = stems.shape[-1]
        self._shape = stems.shape
        self._stems: Tensor | None = None
        self._packed = integers and self.samples > 0
        self._download = link.download(pack(stems) if self._packed else stems)
        # On a CPU the peak tells at once whether floats will be needed.
        if self._packed and not (self._download.has_arrived() and self._peak() <= 1):
            self._stems = stems

    def _peak(self) -> float:
        return float(self._download.wait()[:2].view(torch.float32))

    def integers(self) -> Integers | None:
        """``(stems, samples, channels)`` as files store them; None if `floats` must be used.

        That is the case if integers were not requested, or a sample exceeds full scale.
        """
        if not self._packed or self._peak() > 1:
            return None
        stems, channels, samples = self._shape
        array: Integers = self._download.wait()[2:].view(stems, samples, channels).numpy()
        return array

    def floats(self) -> Signal:
        """``(stems, channels, samples)``; only to be called if `integers` returns None."""
        array: Signal = self._download.wait().numpy()
        if self._packed:
            assert self._stems is not None, "stems within full scale are integers"
            array = self._stems.cpu().numpy()
        elif self._download.is_pinned:  # scarce memory, and a caller may keep a whole song
            array = array.copy()
        return array


def pack(stems: Tensor) -> Tensor:
    """Stems as 16-bit integers, and their peak, in one tensor for the download.

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
