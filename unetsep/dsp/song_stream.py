"""The signal path of one song, as a stream of blocks.

Resample to the network's rate, STFT, masks from overlapping segments, mask times mixture
spectrum, inverse STFT, resample back, and each stem's share of what the resampler cut off.
Every step takes blocks and gives blocks, so memory does not grow with the song.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import CancelledError
from .arrays import Signal
from .resample import Queue, Residual, StreamResampler
from .segments import Estimate, SegmentedMasks, SegmentPool
from .spectrogram import (
    CACHED_FRAMES,
    StreamingISTFT,
    StreamingSTFT,
    apply_mask,
    extension_weights,
)
from .threads import OwnThread
from .transfer import Link, StemBlock, as_tensor
from .wiener import WienerFilter

CPU = torch.device("cpu")
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
    """One song on its way through a model; push blocks, then finish.

    Parameters
    ----------
    config, estimate
        Signal path and network of the model.
    sample_rate, channels
        Of the song.
    selection
        Stems to compute.
    overlap
        Share of a segment that neighbours have in common.
    extend
        Whether masks are extended above the network's top bin, or are zero there.
    rest
        Whether the last output is what the others leave of the song, instead of being
        transformed back by itself; for outputs that add up to the mixture.
    wiener
        Iterations of the multichannel Wiener filter in the lowest bins; 0 for none.
    pool
        Threads for several segments at once; then stems lag further behind.
    device
        Where spectra are kept.
    """

    def __init__(
        self,
        config: ModelConfig,
        estimate: Estimate,
        *,
        sample_rate: int,
        channels: int,
        selection: Selection,
        overlap: float,
        extend: bool,
        rest: bool = False,
        wiener: int = 0,
        pool: SegmentPool | None = None,
        device: torch.device,
    ) -> None:
        self._selection = selection.without_last() if rest else selection
        self._song: Queue[Tensor] | None = Queue() if rest else None
        self._extend, self._channels = extend, channels
        self.device, self._link = device, Link(device)
        self._resamples = sample_rate != config.sample_rate
        # soxr knows no GPU: what it resamples is put together on the host.
        self._home = CPU if self._resamples else device
        # Of torch, for what is done between segments.
        self.threads = torch.get_num_threads() if pool is None else pool.share
        self._outputs, self._computed = len(selection.names), len(self._selection.names)
        self._up = StreamResampler(sample_rate, config.sample_rate, channels)
        self._down = StreamResampler(config.sample_rate, sample_rate, self._computed * channels)
        self._residual = None
        if self._resamples and extend:
            self._residual = Residual(sample_rate, config.sample_rate, channels, config.hop_length)
        self._stft = StreamingSTFT(config.n_fft, config.hop_length)
        self._istft = StreamingISTFT(config.n_fft, config.hop_length)
        self.masks = SegmentedMasks(
            estimate,
            config.bins,
            config.segment_frames,
            round(overlap * config.segment_frames),
            config.frame_multiple,
            lead=config.lead_frames,
            fill=config.pad_segments,
            pool=pool,
        )
        self._wiener = WienerFilter(wiener) if wiener else None
        self._out: Queue[Tensor] = Queue()  # (stems times channels, samples)
        self._taken = self._given = self._inner_taken = 0

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
        if block.ndim != 2 or block.shape[0] != self._channels:
            raise ValueError(f"expected blocks ({self._channels}, samples), got {block.shape}")
        self._taken += block.shape[-1]
        with self._link.computing():
            return StemBlock(self._link, self._push(block), integers=integers)

    @torch.inference_mode()
    def _end(self, *, integers: bool = False) -> StemBlock:
        """`finish` that does not wait for a GPU; see `_send`."""
        with self._link.computing():
            return StemBlock(self._link, self._finish(), integers=integers)

    def _push(self, block: Signal) -> Tensor:
        if not self._resamples:
            given = self._link.upload(block)
            if self._song is not None:
                self._song.put(given)
            return self._advance(given)
        if self._song is not None:
            self._song.put(as_tensor(block))
        inner = self._up.push(block)
        self._inner_taken += inner.shape[-1]
        if self._residual is not None:
            self._residual.push(block, inner)
        return self._advance(self._link.upload(inner))

    def _finish(self) -> Tensor:
        if self._taken == 0 or not self._resamples:
            return self._advance(None, last=self._taken > 0)
        empty = np.zeros((self._channels, 0), np.float32)
        inner = self._up.push(empty, last=True)
        if self._inner_taken + inner.shape[-1] == 0:  # a sample or two at a high rate
            inner = np.zeros((self._channels, 1), np.float32)
        if self._residual is not None:
            self._residual.push(empty, inner, last=True)
        return self._advance(self._link.upload(inner), last=True)

    def _advance(self, inner: Tensor | None, *, last: bool = False) -> Tensor:
        """Stems that are ready, ``(stems, channels, samples)``, given further samples."""
        if inner is not None and inner.shape[-1]:
            self._mask(self.masks.push(self._stft.push(inner)))
        if last:
            self._mask(self.masks.push(self._stft.flush()))
            self._mask(self.masks.flush(), last=True)
            rows = self._computed * self._channels
            self._out.put(self._resampled(self._empty(rows, 0), last=True))
        # The inverse STFT and the resampler end after the song: never give what was not taken.
        ready = min(self._out.samples, self._taken - self._given)
        if self._residual is not None:
            ready = min(ready, self._residual.ready)
        if ready == 0:
            return self._empty(self._outputs, self._channels, 0)
        self._given += ready
        stems = self._empty(self._outputs, self._channels, ready, device=self._home)
        computed, rest = stems[: self._computed], stems[-1]
        self._out.take_into(computed.flatten(0, 1))
        if self._residual is not None:
            computed += torch.from_numpy(self._residual.take(ready))
        if self._song is not None:
            self._song.take_into(rest)
            for stem in computed:
                rest -= stem
        return stems

    @staticmethod
    def _empty(*shape: int, device: torch.device = CPU) -> Tensor:
        """Room for samples, whatever the program we are a guest of makes by default."""
        return torch.empty(shape, dtype=torch.float32, device=device)

    def _resampled(self, wave: Tensor, *, last: bool = False) -> Tensor:
        """Samples of the network's rate, ``(stems times channels, samples)``, at the song's."""
        if not self._resamples:
            return wave
        host = self._link.download(wave).wait()
        return torch.from_numpy(self._down.push(host.numpy(), last=last))

    def _mask(self, pairs: Iterator[tuple[Tensor, Tensor]], *, last: bool = False) -> None:
        if self._wiener is None:
            blocks: Iterator[tuple[Tensor, ...]] = pairs
        else:
            blocks = itertools.chain.from_iterable(self._wiener.push(*pair) for pair in pairs)
            blocks = itertools.chain(blocks, self._wiener.flush()) if last else blocks
        for block in self._in_cache(blocks):
            self._separate(*block)

    def _separate(self, masks: Tensor, spectrum: Tensor, refined: Tensor | None = None) -> None:
        """Stems of frames whose masks are final; ``refined`` are spectra of the lowest bins."""
        chosen = self._selection.apply(masks)
        above = extension_weights(chosen)
        if not self._extend:
            above = torch.zeros_like(above)
        if self._residual is not None:
            self._residual.push_shares(self._link.download(above).wait().numpy())
        stems = apply_mask(chosen, above, spectrum)
        if refined is not None:
            bins = refined.shape[-2]
            stems[..., :bins, :] = self._selection.apply(refined, spectrum[:, :bins])
        self._out.put(self._resampled(self._istft.push(stems).flatten(0, 1)))

    def _in_cache(self, blocks: Iterator[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
        """The same frames, so many at once that what is made of them stays in the cache."""
        for block in blocks:
            step = CACHED_FRAMES if self.device.type == "cpu" else max(1, block[0].shape[-1])
            yield from zip(*(torch.split(each, step, -1) for each in block), strict=True)
