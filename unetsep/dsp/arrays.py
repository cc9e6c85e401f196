"""Arrays and sample rates of callers, checked; blocks of a useful size; a queue of samples."""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ..config import LOUDEST, MAX_CHANNELS, MAX_RATE, MIN_RATE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Signal = npt.NDArray[np.float32]
"""An array of samples."""
Samples = TypeVar("Samples", Signal, "Tensor")
# Largest integers that are samples; longer ones come from Python lists.
MAX_SAMPLE_BYTES = 4


def as_signal(audio: npt.ArrayLike | torch.Tensor) -> Signal:
    """Audio as float32, of the same shape.

    Integers of 8 to 32 bits are samples of a file: their full scale becomes 1, as in soundfile.
    Everything else keeps its level.

    Parameters
    ----------
    audio
        ``(channels, samples)`` or ``(samples,)``: an array, a list, or a tensor of any type
        on any device.

    Raises
    ------
    ValueError
        If it does not hold real numbers, has another shape, or over 64 channels.
    """
    torch = sys.modules.get("torch")  # if it is not imported, audio is no tensor
    if torch is not None and isinstance(audio, torch.Tensor):
        audio = _numpy(audio)
    try:
        signal = np.asarray(audio)
    except ValueError as error:  # lists of different lengths
        raise ValueError(f"audio must be (channels, samples) or (samples,): {error}") from error
    if isinstance(audio, (str, os.PathLike)):
        raise ValueError(
            f"audio must be an array, got {audio!r}: for a file use "
            "unetsep.separate(path, model=separator)"
        )
    if signal.dtype.kind not in "fiu":
        raise ValueError(f"audio must hold real numbers, got an array of {signal.dtype}")
    if signal.ndim not in (1, 2):
        raise ValueError(f"audio must be (channels, samples) or (samples,), got {signal.shape}")
    if signal.ndim == 2 and not 1 <= signal.shape[0] <= MAX_CHANNELS:
        raise ValueError(
            f"audio has {signal.shape[0]} channels: expected (channels, samples) with 1 to "
            f"{MAX_CHANNELS}; if it is (samples, channels), pass its transpose, audio.T"
        )
    if signal.dtype.kind in "iu" and signal.dtype.itemsize <= MAX_SAMPLE_BYTES:
        return _from_full_scale(signal)
    # Too large values become infinite, which is refused later; too small ones become zero.
    with np.errstate(over="ignore", under="ignore"):
        return signal.astype(np.float32, copy=False)


def _from_full_scale(signal: npt.NDArray[np.generic]) -> Signal:
    """Integers as floats from -1 to 1; the zero of unsigned integers is their middle."""
    half = 2.0 ** (8 * signal.dtype.itemsize - 1)
    centre = half if signal.dtype.kind == "u" else 0.0
    return ((signal.astype(np.float64) - centre) / half).astype(np.float32)


def _numpy(tensor: torch.Tensor) -> npt.NDArray[np.generic]:
    from .threads import settle_thread_count

    if tensor.is_meta:
        raise ValueError("audio must hold samples, got a tensor on the device meta, which has none")
    settle_thread_count()  # this may be the thread's first computation
    tensor = tensor.detach().cpu()
    tensor = tensor.dequantize() if tensor.is_quantized else tensor.to_dense()
    tensor = tensor.float() if tensor.is_floating_point() else tensor
    array: npt.NDArray[np.generic] = tensor.resolve_conj().resolve_neg().numpy()
    return array


def check_finite(signal: Signal, sample_rate: int, before: int = 0) -> None:
    """Refuse NaN, infinite and huge samples, which would spread over all stems.

    Parameters
    ----------
    signal
        ``(..., samples)``.
    sample_rate
        In Hz.
    before
        Samples that came before these.

    Raises
    ------
    ValueError
        With the time of the first one.
    """
    if not signal.size or (signal.max() <= LOUDEST and signal.min() >= -LOUDEST):  # never with NaN
        return
    usable = np.abs(signal) <= LOUDEST
    first = int(np.flatnonzero(~usable.reshape(-1, signal.shape[-1]).all(axis=0))[0])
    finite = np.isfinite(signal[..., first]).all()
    problem = f"samples beyond {LOUDEST:g}" if finite else "NaN or infinite samples"
    raise ValueError(f"audio holds {problem}, the first at {(before + first) / sample_rate:.3f} s")


def as_rate(sample_rate: float) -> int:
    """A sample rate in Hz as an integer.

    Raises
    ------
    ValueError
        If it is not a whole number, or out of range.
    """
    try:
        rate = operator.index(sample_rate)  # type: ignore[arg-type]
    except TypeError:
        is_float = isinstance(sample_rate, (float, np.floating))
        if not is_float or not float(sample_rate).is_integer():
            hint = _in_hertz(sample_rate) if is_float else ""
            raise ValueError(
                f"sample_rate must be a whole number of Hz, got {sample_rate!r}{hint}"
            ) from None
        rate = int(sample_rate)
    if not MIN_RATE <= rate <= MAX_RATE:
        raise ValueError(
            f"sample_rate must be {MIN_RATE} to {MAX_RATE} Hz, got {rate}{_in_hertz(rate)}"
        )
    return rate


def _in_hertz(rate: float) -> str:
    """A hint with the rate in Hz where a rate looks like kHz."""
    return f"; {rate:g} kHz are {round(rate * 1000)}" if 8 <= rate < MIN_RATE else ""


def regroup(blocks: Iterable[Signal], smallest: int, largest: int) -> Iterator[Signal]:
    """The same samples in fewer, or more, blocks.

    Parameters
    ----------
    blocks
        ``(channels, samples)``.
    smallest
        Least samples of a block; only the last may have fewer.
    largest
        Longer blocks are divided, so that progress is reported and Ctrl-C takes effect.
    """
    group: list[Signal] = []
    samples = 0
    for block in blocks:
        group.append(block)
        samples += block.shape[-1]
        if samples >= smallest:
            yield from _divide(group, largest)
            group, samples = [], 0
    if samples:
        yield from _divide(group, largest)


def _divide(blocks: list[Signal], largest: int) -> Iterator[Signal]:
    whole = blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=-1)
    for at in range(0, whole.shape[-1], largest):
        yield whole[:, at : at + largest]


class Queue(Generic[Samples]):
    """First in, first out samples, ``(channels, samples)``: arrays or tensors."""

    def __init__(self) -> None:
        self._blocks: list[Samples] = []
        self.samples = 0

    def put(self, block: Samples) -> None:
        """Append a block."""
        if block.shape[-1]:
            self._blocks.append(block)
            self.samples += block.shape[-1]

    def take(self: Queue[Signal], samples: int) -> Signal:
        """Remove and return the first ``samples`` samples, at most ``self.samples``."""
        blocks = list(self.take_parts(samples))
        return blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=-1)

    def take_into(self, target: Samples) -> None:
        """Move the first samples into ``target``, ``(channels, samples)``, and fill it."""
        offset = 0
        for part in self.take_parts(target.shape[-1]):
            target[..., offset : offset + part.shape[-1]] = part
            offset += part.shape[-1]

    def take_parts(self, samples: int) -> Iterator[Samples]:
        """Remove the first ``samples`` samples; yields them in parts, as they were put."""
        assert samples <= self.samples
        while samples:
            block = self._blocks[0]
            part = block[..., :samples]
            taken = part.shape[-1]
            if taken == block.shape[-1]:
                self._blocks.pop(0)
            else:
                self._blocks[0] = block[..., taken:]
            self.samples -= taken
            samples -= taken
            yield part
