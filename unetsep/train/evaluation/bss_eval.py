"""BSS Eval v4 in full: SDR, ISR, SIR and SAR, the numbers of museval, computed faster.

Conventions are those of `unetsep.train.evaluation.sdr`. The distortion filters (512 taps, one set
for the whole song) are least-squares projections of each estimate ``e_j`` on delayed
copies of the references ``s_k``. ``P_j`` is the projection of ``e_j`` on its own reference
alone, ``P`` the one on all references (Vincent et al. 2007, Liutkus et al. 2018):

    ISR = |s_j|^2 / |P_j - s_j|^2      SIR = |P_j|^2 / |P - P_j|^2
    SAR = |P|^2 / |e_j - P|^2          SDR = |s_j|^2 / |e_j - s_j|^2

where energies are sums over a frame, whose signals are filtered by themselves: the frame
is preceded and followed by silence, and the filters' tails count.

Where the time goes, and how it is saved:

- museval solves the 4096 x 4096 system (four stereo stems) again for each estimate by LU,
  4 x 46 billion operations. It is the same symmetric matrix for all, and block-Toeplitz:
  `unetsep.train.evaluation.toeplitz` factors it once, in half a billion operations.
- Correlations are needed at 512 lags only. So they are summed over blocks of 8192 samples
  instead of one transform of a whole song, and memory does not grow with the song.
- Nothing is filtered in the time domain. A frame padded to hold the filters' tails has the
  spectrum of the exact linear convolution. So all energies follow by Parseval's theorem
  from the spectra of the references and estimates: 16 real transforms per frame instead of
  240 for each of the frame's convolutions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.fft import next_fast_len
from torch import Tensor

from . import toeplitz
from .sdr import (
    Array,
    Signals,
    check_shapes,
    decibels,
    frame_sdr,
    silent_stems,
    split_frames,
)

FILTER_LENGTH = 512
# FFT length for correlations: short enough for a processor's cache.
BLOCK = 8_192
BLOCKS_AT_ONCE = 8
# Frames whose spectra are held at once.
FRAMES_AT_ONCE = 4


@dataclass(frozen=True)
class Scores:
    """Frame-wise scores in dB, each ``(stems, frames)``."""

    sdr: Array
    isr: Array
    sir: Array
    sar: Array


def bss_eval(references: Signals, estimates: Signals, *, window: int = 44_100) -> Scores:
    """SDR, ISR, SIR and SAR of BSS Eval v4, frame by frame.

    Parameters
    ----------
    references, estimates
        ``(stems, channels, samples)`` of one shape, floating point.
    window
        Samples in a frame; frames do not overlap.

    Returns
    -------
    Scores
        NaN where any reference or estimate is silent.

    Raises
    ------
    ValueError
        If the shapes differ, or a stem is silent throughout: museval refuses this, too,
        see `unetsep.train.evaluation.scoring` for what to do then.
    """
    check_shapes(references, estimates)
    if silent_stems(references).any() or silent_stems(estimates).any():
        raise ValueError("a reference or an estimate is silent throughout: leave its stem out")
    sdr = frame_sdr(references, estimates, window=window)
    window = min(window, references.shape[-1])
    filters, target_filters = _filters(references, estimates)
    scores = np.full((3, *sdr.shape), np.nan)
    frame_numbers = np.flatnonzero(~np.isnan(sdr[0]))  # no stem is silent there
    true, guess = split_frames(references, window), split_frames(estimates, window)
    projector = _Projector(filters, target_filters, window)
    for start in range(0, len(frame_numbers), FRAMES_AT_ONCE):
        some = frame_numbers[start : start + FRAMES_AT_ONCE]
        scores[:, :, some] = projector.ratios(_pick(true, some), _pick(guess, some))
    return Scores(sdr, *scores)


def _pick(frames: Signals, indices: npt.NDArray[np.intp]) -> Tensor:
    """Some frames as a double tensor, ``(stems, channels, frames, window)``."""
    return torch.from_numpy(np.ascontiguousarray(frames[:, :, indices], dtype=np.float64))


class _Projector:
    """Energies of projected frames, from their spectra.

    Parameters
    ----------
    filters
        ``(stems, channels, stems, channels, taps)``: of each estimate's channel, from each
        reference's channel.
    target_filters
        ``(stems, channels, channels, taps)``, from the channels of the estimate's own reference.
    window
        Samples in a frame.
    """

    def __init__(self, filters: Tensor, target_filters: Tensor, window: int) -> None:
        self.stems, self.channels = filters.shape[:2]
        self.length = _fast_length(window + FILTER_LENGTH - 1)
        rows = self.stems * self.channels
        # (bins, outputs, inputs), so that projecting is one matrix product per bin.
        spectra = torch.fft.rfft(filters, n=self.length).reshape(rows, rows, -1)
        self.all = spectra.permute(2, 0, 1).contiguous()
        target_spectra = torch.fft.rfft(target_filters, n=self.length)
        self.target = target_spectra.permute(
            3, 0, 1, 2
        ).contiguous()  # (bins, stems, outputs, inputs)
        # A real signal's energy is that of its half spectrum with the inner bins twice.
        weights = torch.full((len(self.all),), 2 / self.length, dtype=torch.float64)
        weights[0] = weights[-1] = 1 / self.length  # the length is even
        self.roots = weights.sqrt()

    def ratios(self, true: Tensor, guess: Tensor) -> Array:
        """ISR, SIR and SAR, ``(3, stems, frames)``, of ``(stems, channels, frames, window)``."""
        source, estimate = self._spectrum(true), self._spectrum(guess)
        projection = self._unfold(self.all @ source.flatten(1, 2))
        target = self.target @ source  # (bins, stems, channels, frames)
        target_energy = self._energy(target)
        return np.stack(
            [
                decibels(self._energy(source), self._energy(target - source)),
                decibels(target_energy, self._energy(projection - target)),
                decibels(self._energy(projection), self._energy(estimate - projection)),
            ]
        )

    def _spectrum(self, frames: Tensor) -> Tensor:
        """``(bins, stems, channels, frames)``, scaled so that squares add up to energies."""
        spectrum: Tensor = torch.fft.rfft(frames, n=self.length) * self.roots
        return spectrum.permute(3, 0, 1, 2).contiguous()

    def _unfold(self, spectrum: Tensor) -> Tensor:
        bins, _, frames = spectrum.shape
        return spectrum.reshape(bins, self.stems, self.channels, frames)

    def _energy(self, spectrum: Tensor) -> Array:
        """Energy over bins and channels, ``(stems, frames)``."""
        power = torch.view_as_real(spectrum).square().sum(dim=0)
        energy: Array = power.sum(dim=(1, 3)).numpy()
        return energy


def _filters(references: Signals, estimates: Signals) -> tuple[Tensor, Tensor]:
    """Distortion filters of a whole song; shapes as in `_Projector`."""
    stems, channels, _ = references.shape
    rows = stems * channels
    lags = correlations(references, estimates)
    gram, right = lags[:, :rows], lags[:, rows:].permute(2, 0, 1)  # (taps, input, output)
    solution = toeplitz.solve(gram[None], right[None])[0]
    filters = solution.permute(2, 1, 0).reshape(stems, channels, stems, channels, -1)
    rows_of_stems = [slice(at, at + channels) for at in range(0, rows, channels)]
    target_filters = toeplitz.solve(
        torch.stack([gram[some, some] for some in rows_of_stems]),
        torch.stack([right[:, some, some] for some in rows_of_stems]),
    )
    return filters, target_filters.permute(0, 3, 2, 1)


def correlations(references: Signals, estimates: Signals) -> Tensor:
    """Correlations of the references with everything, at the filters' lags.

    Parameters
    ----------
    references, estimates
        ``(stems, channels, samples)``.

    Returns
    -------
    Tensor
        ``(rows, 2 * rows, taps)`` with ``rows = stems * channels``: at ``[a, b, t]`` the
        sum over ``n`` of ``x_a[n] x_b[n + t]``. ``b`` counts first the references' channels,
        then the estimates'.
    """
    samples = references.shape[-1]
    rows = references.shape[0] * references.shape[1]
    overhang = FILTER_LENGTH - 1
    step = BLOCK - overhang
    group = step * BLOCKS_AT_ONCE
    total = torch.zeros(BLOCK // 2 + 1, rows, 2 * rows, dtype=torch.complex128)
    for start in range(0, samples, group):
        # Lag t looks t samples ahead, so the later signal's block reaches over the earlier
        # one's end; circular wrapping then only touches lags that are not read.
        stop = start + group + overhang
        part = np.concatenate([references[..., start:stop], estimates[..., start:stop]])
        part = part.reshape(2 * rows, -1).astype(np.float64)
        blocks = -(-min(group, samples - start) // step)
        padded = torch.zeros(2 * rows, blocks * step + overhang, dtype=torch.float64)
        padded[:, : part.shape[1]] = torch.from_numpy(part)
        pieces = padded.unfold(-1, BLOCK, step)  # (2 * rows, blocks, BLOCK)
        later_spectra = torch.fft.rfft(pieces).permute(2, 1, 0).contiguous()
        spectra = torch.fft.rfft(pieces[:rows, :, :step], n=BLOCK).conj()
        total += spectra.permute(2, 0, 1).contiguous() @ later_spectra
    lags: Tensor = torch.fft.irfft(total.permute(1, 2, 0), n=BLOCK)
    return lags[..., :FILTER_LENGTH].contiguous()


def _fast_length(samples: int) -> int:
    """The next even FFT length without prime factors above 5."""
    return 2 * int(next_fast_len(-(-samples // 2), real=True))
