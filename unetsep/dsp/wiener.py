"""Multichannel, multi-frame Wiener filter: stems refined by their panning and continuity.

A mask weighs each channel of each frame by itself. It cannot use phase: how a stem is panned, and
that a note lasts for many frames while a drum does not. In each bin stem ``s`` is modelled as a
Gaussian whose power ``v_s`` the masks estimate. Its coherence ``R_s``, between channels and between
frames `REACH` apart, changes only slowly. With ``x`` the mixture of the frames ``t - REACH``,
``t`` and ``t + REACH``, stacked, and ``a_s`` the roots of ``v_s`` there,

    v_s = mean over channels of M_s |x|^2
    C_s = (a_s a_s^T) R_s, element by element,    y_s = C_s (sum over r of C_r)^-1 x

of which the rows of frame ``t`` are the result. Masks trained for the least squared error are
shares of power, hence ``M_s`` and not its square in ``v_s``: if all stems have equal coherences and
frames are incoherent, the filter agrees with the masks. Coherences are those of ``M_s x``, shrunk
towards that of the mixture; biased sums over a block make them positive.

One frame is the filter of Duong et al. (2010) with the estimates of Nugraha et al. (2016), which
Spleeter and Open-Unmix use; several are the filter of Huang and Benesty (2012). It works block by
block and forgets the coherences of earlier blocks gradually, so memory does not grow with the song.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .arrays import Queue
from .spectrogram import powers

# The lowest bins, which are filtered; higher ones gain almost nothing.
BINS = 128
# Distance in frames and number of the frames that are filtered together. Windows overlap by three
# quarters, so direct neighbours would add nothing.
REACH, TAPS = 3, 3
# Share of the mixture's coherence in that of each stem.
COMMON = 0.1
# Factor by which the weight of earlier blocks in a stem's coherence falls with each block.
MEMORY = 0.5
# Added to the mixture's covariance, relative to it and to the block's power.
RELATIVE, ABSOLUTE = 1e-2, 1e-10
# Frames of one estimate of the coherences, as many as a segment adds: 8.9 s.
BLOCK_FRAMES = 384
# Frames filtered at once, few enough for a CPU's cache.
CHUNK_FRAMES = 64
TINY = torch.finfo(torch.float32).tiny


class FilteredFrames(NamedTuple):
    """Frames with final masks, and their refined stems in the lowest bins."""

    masks: Tensor
    spectrum: Tensor  # of the mixture
    stems: Tensor


class WienerFilter:
    """Refine the stems of one song, block by block.

    Stereo is filtered as such, any other number of channels one by one. Stems add up to the
    mixture. Frames are gathered to blocks of `BLOCK_FRAMES`, so the result does not depend on the
    pieces that are pushed. Stems lag `REACH` frames behind the blocks.

    Parameters
    ----------
    iterations
        Number of estimates of the coherences, at least 1.
    complete
        Whether the stems are all of the mixture. Otherwise what their masks leave is filtered as
        one more, the last.
    """

    def __init__(self, iterations: int, *, complete: bool = True) -> None:
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self._iterations, self._complete = iterations, complete
        # For each group of channels: products of all blocks, and coherences of the last one.
        self._products: dict[int, Tensor] = {}
        self._coherence: dict[int, Tensor] = {}
        self._masks: Queue[Tensor] = Queue()
        self._spectra: Queue[Tensor] = Queue()
        # The lowest bins, frames before bins: of the last `REACH` emitted frames, which are the
        # context of the next ones, and of all pending frames.
        self._inputs: list[tuple[Tensor, Tensor]] = []
        self._context = 0  # emitted frames among these: 0 before the first block, then `REACH`

    def push(self, masks: Tensor, spectrum: Tensor) -> Iterator[FilteredFrames]:
        """Push frames.

        Parameters
        ----------
        masks
            ``(stems, channels, bins, frames)``, >= 0.
        spectrum
            Mixture, complex, ``(channels, bins, frames)``; may have more bins.

        Yields
        ------
        FilteredFrames
            Masks and spectrum of the ready frames, and their stems in the `BINS` lowest bins,
            complex, ``(stems, channels, bins, frames)``.
        """
        if not self._complete:
            rest = (1 - masks.sum(dim=0, keepdim=True)).clamp(min=0)
            masks = torch.cat([masks.mT, rest.mT]).mT
        bins = min(BINS, masks.shape[-2])
        self._masks.put(masks)
        self._spectra.put(spectrum)
        self._inputs.append((masks[..., :bins, :].mT, spectrum[..., :bins, :].mT))
        while sum(part.shape[-2] for _, part in self._inputs) - self._overlap >= BLOCK_FRAMES:
            yield from self._block()

    def flush(self) -> Iterator[FilteredFrames]:
        """Yield the remaining frames, as `push` does."""
        if self._spectra.samples:
            yield from self._block(last=True)

    @property
    def _overlap(self) -> int:
        """Frames of the previous block: the emitted context, and as many pending ones."""
        return 2 * self._context

    def _block(self, *, last: bool = False) -> Iterator[FilteredFrames]:
        """Filter the next block, or all remaining frames; emit frames with all neighbours."""
        masks, spectrum = (torch.cat(parts, dim=-2) for parts in zip(*self._inputs, strict=True))
        size = spectrum.shape[-2] if last else self._overlap + BLOCK_FRAMES
        ready = size if last else size - REACH
        refined = self._refined(
            masks[..., :size, :], spectrum[..., :size, :], learn=size > self._overlap
        )
        yield from self._emit(refined, ready)
        keep = max(0, ready - REACH)
        self._inputs = [(masks[..., keep:, :], spectrum[..., keep:, :])]
        self._context = REACH

    def _emit(self, refined: Tensor, ready: int) -> Iterator[FilteredFrames]:
        """Pair the stems of frames before ``ready`` with pending masks and spectra."""
        position = self._context
        parts = (queue.take_parts(ready - position) for queue in (self._masks, self._spectra))
        for masks, spectrum in zip(*parts, strict=True):
            end = position + masks.shape[-1]
            yield FilteredFrames(masks, spectrum, refined[..., position:end, :].mT)
            position = end

    def _refined(self, masks: Tensor, spectrum: Tensor, *, learn: bool) -> Tensor:
        """Stems of frames, ``(stems, channels, frames, bins)``.

        Parameters
        ----------
        masks, spectrum
            ``(stems, channels, frames, bins)`` and, complex, ``(channels, frames, bins)``.
        learn
            Whether they have frames that the previous block had not, to learn coherences from.
        """
        shares = masks / masks.sum(dim=0).clamp(min=1e-12)
        level = powers(spectrum).mean().sqrt().clamp(min=1e-15)
        mixture = spectrum / level
        size = 2 if len(mixture) == 2 else 1
        groups = zip(torch.split(shares, size, 1), torch.split(mixture, size), strict=True)
        stems = []
        for group, (share, mix) in enumerate(groups):
            if learn:
                self._learn(group, level, share, mix)
            stems.append(_wiener(self._coherence[group], share, mix))
        return torch.cat(stems, dim=1) * level

    def _learn(self, group: int, level: Tensor, shares: Tensor, mixture: Tensor) -> None:
        """Estimate the coherences of channels that are filtered together.

        Parameters
        ----------
        group
            Index of these channels.
        level
            Divisor that normalised the mixture.
        shares, mixture
            ``(stems, channels, frames, bins)`` and, complex, ``(channels, frames, bins)``.
        """
        common = COMMON * _coherence(_products(mixture[None]))
        stems = shares * mixture
        for iteration in range(self._iterations):
            # At the song's own level, since silent blocks follow loud ones.
            products = level.square() * _products(stems)
            if group in self._products:
                products = products + self._products[group]
            coherence = (1 - COMMON) * _coherence(products) + common
            if iteration < self._iterations - 1:
                stems = _wiener(coherence, shares, mixture)
        self._products[group] = MEMORY * products
        self._coherence[group] = coherence


def _wiener(coherence: Tensor, shares: Tensor, mixture: Tensor) -> Tensor:
    """Stems by the filter of this module, ``(stems, channels, frames, bins)``.

    Parameters
    ----------
    coherence
        ``R``, see `_coherence`.
    shares, mixture
        ``(stems, channels, frames, bins)`` and, complex, ``(channels, frames, bins)``.
    """
    roots = _stacked((shares * powers(mixture)).mean(dim=1).sqrt())
    stacked = _split(_stacked(mixture).transpose(0, 1))
    parts = _split(coherence)[..., None, :]
    chunks = range(0, mixture.shape[1], CHUNK_FRAMES)
    at = [slice(start, start + CHUNK_FRAMES) for start in chunks]
    spectra = [_filter(parts, roots[..., k, :], stacked[..., k, :]) for k in at]
    stems = torch.complex(*torch.cat(spectra, dim=-2))
    # Masks distribute what the regularised filter withheld.
    stems += shares * (mixture - stems.sum(dim=0))
    return stems


def _split(numbers: Tensor) -> Tensor:
    """Real and imaginary part along a new first axis."""
    return torch.stack([numbers.real, numbers.imag])


def _stacked(frames: Tensor) -> Tensor:
    """``(n, frames, bins)`` to ``(n, taps, frames, bins)``: each frame and its neighbours."""
    n, count, bins = frames.shape
    padded = frames.new_zeros(n, count + (TAPS - 1) * REACH, bins)
    first = TAPS // 2 * REACH
    padded[:, first : first + count] = frames
    return torch.stack([padded[:, i * REACH : i * REACH + count] for i in range(TAPS)], dim=1)


def _products(signals: Tensor) -> Tensor:
    """Sums over frames of ``signals[c, t + i REACH] conj(signals[d, t])``.

    Parameters
    ----------
    signals
        Complex, ``(n, channels, frames, bins)``.

    Returns
    -------
    Tensor
        ``(n, i, c, d, bins)`` for ``i`` from 0 to ``TAPS - 1``.
    """
    count = signals.shape[2]
    # One real matrix product for each bin, of real and imaginary parts.
    parts = torch.view_as_real(signals).permute(0, 3, 4, 1, 2).flatten(2, 3).contiguous()
    lags = [
        parts[..., i * REACH :] @ parts[..., : max(0, count - i * REACH)].mT for i in range(TAPS)
    ]
    n, channels, _, bins = signals.shape
    sums = torch.stack(lags, dim=1).view(n, TAPS, bins, 2, channels, 2, channels)
    (rr, ri), (ir, ii) = (part.unbind(-2) for part in sums.unbind(3))
    return torch.complex(rr + ii, ir - ri).movedim(2, -1)


def _coherence(products: Tensor) -> Tensor:
    """Covariance of the stacked frames, relative to the mean power of a channel.

    Parameters
    ----------
    products
        From `_products`.

    Returns
    -------
    Tensor
        Complex, ``(n, taps, channels, taps, channels, bins)``.
    """
    power = products[:, 0].real.diagonal(dim1=1, dim2=2).mean(dim=-1).clamp(min=TINY)
    relative = products / power[:, None, None, None]
    adjoint = relative.conj().transpose(2, 3)
    rows = [
        torch.stack([(relative[:, i - j] if i >= j else adjoint[:, j - i]) for j in range(TAPS)])
        for i in range(TAPS)
    ]
    return torch.stack(rows).permute(2, 0, 3, 1, 4, 5)


def _filter(coherence: Tensor, roots: Tensor, mixture: Tensor) -> Tensor:
    """The filter of this module for some frames.

    Parameters
    ----------
    coherence
        ``R``, ``(2, stems, taps, channels, taps, channels, 1, bins)``; the first axis is real and
        imaginary part, since torch is slow with complex numbers.
    roots
        ``a``, ``(stems, taps, frames, bins)``.
    mixture
        ``x``, ``(2, taps, channels, frames, bins)``.

    Returns
    -------
    Tensor
        ``(2, stems, channels, frames, bins)``.
    """
    stems, _, channels = coherence.shape[1:4]
    size, shape = TAPS * channels, roots.shape[-2:]
    covariance = mixture.new_zeros(2, TAPS, channels, TAPS, channels, *shape)
    for stem in range(stems):
        both = roots[stem, :, None, None, None] * roots[stem, None, None, :, None]
        covariance.addcmul_(both, coherence[:, stem])
    covariance = covariance.view(2, size, size, *shape)
    diagonal = covariance[0].diagonal().movedim(-1, 0)
    diagonal += RELATIVE * diagonal.mean(dim=0) + ABSOLUTE
    solved = _solve(covariance, mixture.reshape(2, size, *shape).clone()).view(mixture.shape)
    weighted = roots[:, :, None] * solved[:, None]  # (2, stems, taps, channels, frames, bins)
    middle = coherence[:, :, TAPS // 2]
    estimates = mixture.new_zeros(2, stems, channels, *shape)
    for i, channel in itertools.product(range(TAPS), range(channels)):
        _add_product(estimates, middle[:, :, :, i, channel], weighted[:, :, None, i, channel])
    return estimates.mul_(roots[:, TAPS // 2, None])


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """``matrix^-1 vector`` in each frame and bin, by elimination; both are overwritten.

    Parameters
    ----------
    matrix
        Hermitian and positive definite, so that no pivots are needed,
        ``(2, size, size, frames, bins)``.
    vector
        ``(2, size, frames, bins)``.
    """
    size = vector.shape[1]
    for k in range(size):
        below = slice(k + 1, size)
        factor = matrix[:, below, k] / matrix[0, k, k]
        _add_product(matrix[:, below, below], factor[:, :, None], matrix[:, None, k, below], -1)
        _add_product(vector[:, below], factor, vector[:, None, k], -1)
    for k in reversed(range(size)):
        vector[:, k] /= matrix[0, k, k]
        _add_product(vector[:, :k], matrix[:, :k, k], vector[:, None, k], -1)
    return vector


def _add_product(total: Tensor, a: Tensor, b: Tensor, sign: float = 1) -> None:
    """Add ``sign a b`` to a total; real and imaginary parts along the first axis of all."""
    total[0].addcmul_(a[0], b[0], value=sign).addcmul_(a[1], b[1], value=-sign)
    total[1].addcmul_(a[0], b[1], value=sign).addcmul_(a[1], b[0], value=sign)
