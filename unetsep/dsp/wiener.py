"""Multichannel, multi-frame Wiener filter: stems refined by where they lie and how they go on.

A mask weighs each channel of each frame by itself. What it cannot see is phase: how a stem is
panned, and that a note goes on from frame to frame while a drum does not. In each bin stem ``s``
is taken as a Gaussian whose power ``v_s`` the masks tell, and whose coherence ``R_s``, between
channels and between frames that lie `REACH` apart, changes only slowly. With ``x`` the mixture of
the frames ``t - REACH``, ``t`` and ``t + REACH``, stacked, and ``a_s`` the roots of ``v_s`` there,

    v_s = mean over channels of M_s |x|^2
    C_s = (a_s a_s^T) R_s, element by element,    y_s = C_s (sum over r of C_r)^-1 x

of which the rows of frame ``t`` are kept. Masks that were trained for the least squared error are
shares of power, hence ``M_s`` and not its square in ``v_s``: if all coherences are equal and
frames are not, the filter gives back what the masks say. Coherences are those of ``M_s x``,
drawn towards that of the mixture; biased sums over a block make them positive.

One frame is the filter of Duong et al. (2010) with the estimates of Nugraha et al. (2016), which
Spleeter and Open-Unmix use; several are the filter of Huang and Benesty (2012). It works block by
block: what earlier blocks told about coherences fades out, so memory does not grow with the song.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor

from .spectrogram import powers

# Bins that are filtered, the lowest; above them it gains next to nothing.
BINS = 128
# Frames between those that are seen together, and how many those are. Windows overlap by three
# quarters: neighbours would say the same.
REACH, SEEN = 3, 3
# Share of the mixture's coherence in that of each stem.
COMMON = 0.1
# Share of earlier blocks in a stem's coherence, one block later.
MEMORY = 0.5
# Added to the mixture's covariance, relative to it and to the block's power.
RELATIVE, ABSOLUTE = 1e-2, 1e-10
# Frames from which coherences are learned at a time, as many as a segment brings: 8.9 s.
BLOCK_FRAMES = 384
# Frames filtered at once, few enough for a CPU's cache.
CHUNK_FRAMES = 64
TINY = torch.finfo(torch.float32).tiny


Block = tuple[Tensor, Tensor, Tensor]  # masks, the mixture's spectrum, and refined stems


class WienerFilter:
    """Refine the stems of one song, block by block.

    Stereo is filtered as such, any other number of channels one by one. Stems add up to the
    mixture. Frames are gathered to blocks of `BLOCK_FRAMES`, so that it does not matter in which
    pieces they come, and stems lag `REACH` frames behind these.

    Parameters
    ----------
    iterations
        How often coherences are estimated anew, at least 1.
    """

    def __init__(self, iterations: int) -> None:
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self._iterations = iterations
        # For each group of channels: products of all blocks, and coherences in the last one.
        self._products: dict[int, Tensor] = {}
        self._coherence: dict[int, Tensor] = {}
        self._waiting: deque[tuple[Tensor, Tensor]] = deque()  # masks and spectrum not given yet
        # The lowest bins, frames before bins, of the last `REACH` frames that were given, which the
        # next ones see, and of all that were not.
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._given = 0  # of these: none before the first block, `REACH` after

    def push(self, masks: Tensor, spectrum: Tensor) -> Iterator[Block]:
        """Take frames.

        Parameters
        ----------
        masks
            ``(stems, channels, bins, frames)``, >= 0; all stems of the mixture.
        spectrum
            Mixture, complex, ``(channels, bins, frames)``; may have more bins.

        Yields
        ------
        tuple
            Masks and spectrum of the frames that are ready, and their stems in the `BINS` lowest
            bins, complex, ``(stems, channels, bins, frames)``.
        """
        bins = min(BINS, masks.shape[-2])
        self._waiting.append((masks, spectrum))
        self._seen.append((masks[..., :bins, :].mT, spectrum[..., :bins, :].mT))
        while sum(part.shape[-2] for _, part in self._seen) - self._known >= BLOCK_FRAMES:
            yield from self._block()

    def flush(self) -> Iterator[Block]:
        """Yield what is left, as `push` does."""
        if self._waiting:
            yield from self._block(last=True)

    @property
    def _known(self) -> int:
        """Frames that were in the block before: those given, and as many that wait for the next."""
        return 2 * self._given

    def _block(self, *, last: bool = False) -> Iterator[Block]:
        """Filter the next block, or all that is left; give frames whose neighbours are there."""
        masks, spectrum = (torch.cat(parts, dim=-2) for parts in zip(*self._seen, strict=True))
        size = spectrum.shape[-2] if last else self._known + BLOCK_FRAMES
        ready = size if last else size - REACH
        refined = self._refined(
            masks[..., :size, :], spectrum[..., :size, :], learn=size > self._known
        )
        yield from self._give(refined, ready)
        keep = max(0, ready - REACH)
        self._seen = [(masks[..., keep:, :], spectrum[..., keep:, :])]
        self._given = REACH

    def _give(self, refined: Tensor, ready: int) -> Iterator[Block]:
        """Pair stems of the frames from those that were given to ``ready`` with what waits."""
        done = self._given
        while done < ready:
            masks, spectrum = self._waiting.popleft()
            frames = min(masks.shape[-1], ready - done)
            if frames < masks.shape[-1]:
                self._waiting.appendleft((masks[..., frames:], spectrum[..., frames:]))
            stems = refined[..., done : done + frames, :].mT
            yield masks[..., :frames], spectrum[..., :frames], stems
            done += frames

    def _refined(self, masks: Tensor, spectrum: Tensor, *, learn: bool) -> Tensor:
        """Stems of frames, ``(stems, channels, frames, bins)``.

        Parameters
        ----------
        masks, spectrum
            ``(stems, channels, frames, bins)`` and, complex, ``(channels, frames, bins)``.
        learn
            Whether they tell more of the coherences than the block before.
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
            Number of these channels.
        level
            What the mixture was divided by.
        shares, mixture
            ``(stems, channels, frames, bins)`` and, complex, ``(channels, frames, bins)``.
        """
        everything = COMMON * _coherence(_products(mixture[None]))
        stems = shares * mixture
        for iteration in range(self._iterations):
            # At the song's own level, since blocks of silence follow loud ones.
            products = level.square() * _products(stems)
            if group in self._products:
                products = products + self._products[group]
            coherence = (1 - COMMON) * _coherence(products) + everything
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
    seen = _split(_stacked(mixture).transpose(0, 1))
    parts = _split(coherence)[..., None, :]
    chunks = range(0, mixture.shape[1], CHUNK_FRAMES)
    at = [slice(start, start + CHUNK_FRAMES) for start in chunks]
    found = [_filter(parts, roots[..., k, :], seen[..., k, :]) for k in at]
    stems = torch.complex(*torch.cat(found, dim=-2))
    # What the floor kept back is shared out by the masks.
    stems += shares * (mixture - stems.sum(dim=0))
    return stems


def _split(numbers: Tensor) -> Tensor:
    """Real and imaginary part along a new first axis."""
    return torch.stack([numbers.real, numbers.imag])


def _stacked(frames: Tensor) -> Tensor:
    """``(n, frames, bins)`` to ``(n, seen, frames, bins)``: each frame and those around it."""
    n, count, bins = frames.shape
    around = frames.new_zeros(n, count + (SEEN - 1) * REACH, bins)
    first = SEEN // 2 * REACH
    around[:, first : first + count] = frames
    return torch.stack([around[:, i * REACH : i * REACH + count] for i in range(SEEN)], dim=1)


def _products(signals: Tensor) -> Tensor:
    """Sums over frames of ``signals[c, t + i REACH] conj(signals[d, t])``.

    Parameters
    ----------
    signals
        Complex, ``(n, channels, frames, bins)``.

    Returns
    -------
    Tensor
        ``(n, i, c, d, bins)`` for ``i`` from 0 to ``SEEN - 1``.
    """
    count = signals.shape[2]
    # Real products of real and imaginary parts, as of one matrix for each bin.
    parts = torch.view_as_real(signals).permute(0, 3, 4, 1, 2).flatten(2, 3).contiguous()
    lags = [
        parts[..., i * REACH :] @ parts[..., : max(0, count - i * REACH)].mT for i in range(SEEN)
    ]
    n, channels, _, bins = signals.shape
    sums = torch.stack(lags, dim=1).view(n, SEEN, bins, 2, channels, 2, channels)
    (rr, ri), (ir, ii) = (part.unbind(-2) for part in sums.unbind(3))
    return torch.complex(rr + ii, ir - ri).movedim(2, -1)


def _coherence(products: Tensor) -> Tensor:
    """Covariance of the stacked frames, relative to the mean power of a channel.

    Parameters
    ----------
    products
        As `_products` gives them.

    Returns
    -------
    Tensor
        Complex, ``(n, seen, channels, seen, channels, bins)``.
    """
    power = products[:, 0].real.diagonal(dim1=1, dim2=2).mean(dim=-1).clamp(min=TINY)
    relative = products / power[:, None, None, None]
    mirrored = relative.conj().transpose(2, 3)
    rows = [
        torch.stack([(relative[:, i - j] if i >= j else mirrored[:, j - i]) for j in range(SEEN)])
        for i in range(SEEN)
    ]
    return torch.stack(rows).permute(2, 0, 3, 1, 4, 5)


def _filter(coherence: Tensor, roots: Tensor, seen: Tensor) -> Tensor:
    """The filter of this module for some frames.

    Parameters
    ----------
    coherence
        ``R``, ``(2, stems, seen, channels, seen, channels, 1, bins)``; the first axis is real and
        imaginary part, since torch is slow at complex numbers.
    roots
        ``a``, ``(stems, seen, frames, bins)``.
    seen
        ``x``, ``(2, seen, channels, frames, bins)``.

    Returns
    -------
    Tensor
        ``(2, stems, channels, frames, bins)``.
    """
    stems, _, channels = coherence.shape[1:4]
    size, room = SEEN * channels, roots.shape[-2:]
    covariance = seen.new_zeros(2, SEEN, channels, SEEN, channels, *room)
    for stem in range(stems):
        both = roots[stem, :, None, None, None] * roots[stem, None, None, :, None]
        covariance.addcmul_(both, coherence[:, stem])
    covariance = covariance.view(2, size, size, *room)
    diagonal = covariance[0].diagonal().movedim(-1, 0)
    diagonal += RELATIVE * diagonal.mean(dim=0) + ABSOLUTE
    solved = _solve(covariance, seen.reshape(2, size, *room).clone()).view(seen.shape)
    weighted = roots[:, :, None] * solved[:, None]  # (2, stems, seen, channels, frames, bins)
    middle = coherence[:, :, SEEN // 2]
    found = seen.new_zeros(2, stems, channels, *room)
    for i, channel in itertools.product(range(SEEN), range(channels)):
        _add_product(found, middle[:, :, :, i, channel], weighted[:, :, None, i, channel])
    return found.mul_(roots[:, SEEN // 2, None])


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
