"""The signal path of one song.

Resample to the network's rate, STFT, masks from overlapping segments, mask times mixture
spectrum, inverse STFT, resample back, and each stem's share of what the resampler cut off.
Every step takes and returns blocks, so memory does not grow with the song.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig
from .arrays import Queue, Signal
from .resample import Residual, StreamResampler
from .segments import Estimate, SegmentedMasks, SegmentPool
from .song_stream import Selection, SongStream
from .spectrogram import (
    CACHED_FRAMES,
    StreamingISTFT,
    StreamingSTFT,
    apply_mask,
    extension_weights,
)
from .threads import thread_count
from .transfer import as_tensor
from .wiener import WienerFilter

CPU = torch.device("cpu")


class SongPass(SongStream):
    """One pass of a song through a model: resample, STFT, masks, inverse STFT, resample.

    Parameters
    ----------
    config, estimate
        Signal path and network of the model.
    sample_rate, channels
        Of the song.
    selection
        Stems to compute.
    overlap
        Share of a segment that overlaps with its neighbour.
    extend
        Whether masks are extended above the network's top bin, or are zero there.
    wiener
        Iterations of the multichannel Wiener filter in the lowest bins; 0 for none.
    complete
        Whether the model's stems are all of the mixture.
    pool
        Threads for several segments at once; stems then lag further behind.
    device
        Where spectra are stored.
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
        wiener: int = 0,
        complete: bool = True,
        pool: SegmentPool | None = None,
        device: torch.device,
    ) -> None:
        count = thread_count()  # before this thread computes
        threads = count if pool is None else pool.share
        super().__init__(sample_rate, channels, device, threads)
        # Of outputs that add up to the song, the last is what the others leave: that saves its
        # inverse STFT.
        adds_up = extend and selection.adds_up(len(config.stems), complete=complete)
        rest = adds_up and len(selection.names) > 1
        self._selection = selection.without_last() if rest else selection
        self._mixture: Queue[Tensor] | None = Queue() if rest else None
        self._extend = extend
        self._resamples = sample_rate != config.sample_rate
        # soxr runs on the CPU: resampled stems are put together on the host.
        self._output_device = CPU if self._resamples else device
        self.outputs, self._computed = len(selection.names), len(self._selection.names)
        self._resampler_in = StreamResampler(sample_rate, config.sample_rate, channels)
        self._resampler_out = StreamResampler(
            config.sample_rate, sample_rate, self._computed * channels
        )
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
            lead_frames=config.lead_frames,
            pad_segments=config.pad_segments,
            pool=pool,
        )
        self._wiener = WienerFilter(wiener, complete=complete) if wiener else None
        self._ready_stems: Queue[Tensor] = Queue()  # (stems times channels, samples)
        self._samples_in = self._samples_out = self._resampled_samples = 0

    def _process(self, block: Signal) -> Tensor:
        self._samples_in += block.shape[-1]
        if not self._resamples:
            uploaded = self._link.upload(block)
            if self._mixture is not None:
                self._mixture.put(uploaded)
            return self._advance(uploaded)
        if self._mixture is not None:
            self._mixture.put(as_tensor(block))
        resampled = self._resampler_in.push(block)
        self._resampled_samples += resampled.shape[-1]
        if self._residual is not None:
            self._residual.push(block, resampled)
        return self._advance(self._link.upload(resampled))

    def _process_rest(self) -> Tensor:
        if self._samples_in == 0 or not self._resamples:
            return self._advance(None, last=self._samples_in > 0)
        empty = np.zeros((self.channels, 0), np.float32)
        resampled = self._resampler_in.push(empty, last=True)
        if self._resampled_samples + resampled.shape[-1] == 0:  # a sample or two at a high rate
            resampled = np.zeros((self.channels, 1), np.float32)
        if self._residual is not None:
            self._residual.push(empty, resampled, last=True)
        return self._advance(self._link.upload(resampled), last=True)

    def _advance(self, resampled: Tensor | None, *, last: bool = False) -> Tensor:
        """Process further samples; return the ready stems, ``(stems, channels, samples)``."""
        if resampled is not None and resampled.shape[-1]:
            self._queue_frames(self.masks.push(self._stft.push(resampled)))
        if last:
            self._queue_frames(self.masks.push(self._stft.flush()))
            self._queue_frames(self.masks.flush(), last=True)
            rows = self._computed * self.channels
            self._ready_stems.put(self._at_song_rate(self._empty(rows, 0), last=True))
        # The inverse STFT and the resampler end after the song: never return more than came in.
        ready = min(self._ready_stems.samples, self._samples_in - self._samples_out)
        if self._residual is not None:
            ready = min(ready, self._residual.ready)
        if ready == 0:
            return self._empty(self.outputs, self.channels, 0)
        self._samples_out += ready
        stems = self._empty(self.outputs, self.channels, ready, device=self._output_device)
        computed, rest = stems[: self._computed], stems[-1]
        self._ready_stems.take_into(computed.flatten(0, 1))
        if self._residual is not None:
            computed += torch.from_numpy(self._residual.take(ready))
        if self._mixture is not None:
            self._mixture.take_into(rest)
            for stem in computed:
                rest -= stem
        return stems

    @staticmethod
    def _empty(*shape: int, device: torch.device = CPU) -> Tensor:
        """An uninitialised float32 tensor, whatever the host program's default type."""
        return torch.empty(shape, dtype=torch.float32, device=device)

    def _at_song_rate(self, wave: Tensor, *, last: bool = False) -> Tensor:
        """Samples at the network's rate, ``(stems times channels, samples)``, at the song's."""
        if not self._resamples:
            return wave
        host = self._link.download(wave).wait()
        return torch.from_numpy(self._resampler_out.push(host.numpy(), last=last))

    def _queue_frames(self, pairs: Iterator[tuple[Tensor, Tensor]], *, last: bool = False) -> None:
        """Queue the stems of frames with final masks, after the Wiener filter if there is one."""
        if self._wiener is None:
            blocks: Iterator[tuple[Tensor, ...]] = pairs
        else:
            blocks = itertools.chain.from_iterable(self._wiener.push(*pair) for pair in pairs)
            blocks = itertools.chain(blocks, self._wiener.flush()) if last else blocks
        for block in self._in_cache(blocks):
            self._queue_stems(*block)

    def _queue_stems(self, masks: Tensor, spectrum: Tensor, refined: Tensor | None = None) -> None:
        """Queue the stems of frames with final masks; ``refined`` has the lowest bins' spectra."""
        selected = self._selection.apply(masks)
        above = extension_weights(selected)
        if not self._extend:
            above = torch.zeros_like(above)
        if self._residual is not None:
            self._residual.push_shares(self._link.download(above).wait().numpy())
        stems = apply_mask(selected, above, spectrum)
        if refined is not None:
            bins = refined.shape[-2]
            stems[..., :bins, :] = self._selection.apply(refined, spectrum[:, :bins])
        self._ready_stems.put(self._at_song_rate(self._istft.push(stems).flatten(0, 1)))

    def _in_cache(self, blocks: Iterator[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
        """The same frames in blocks whose intermediate results stay in the cache."""
        for block in blocks:
            step = CACHED_FRAMES if self.device.type == "cpu" else max(1, block[0].shape[-1])
            yield from zip(*(torch.split(each, step, -1) for each in block), strict=True)
