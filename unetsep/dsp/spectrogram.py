"""Streaming STFT and its exact inverse, and masks applied to the mixture's spectrum.

Nothing is centred or reflected: a stream is padded with ``n_fft - hop_length`` zeros at
both ends, so that every sample lies under exactly four windows. The squared periodic Hann
window at a hop of ``n_fft / 4`` adds up to the constant 3/2, so the inverse divides by
that number and never by an edge sum close to zero.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor
from torch.nn import functional

# Bins below the network's top from which the mask above it is estimated; about 1.1 kHz.
EXTENSION_BINS = 100
# Frames that are worked on at once, for intermediate results to stay in the cache.
CACHED_FRAMES = 32
# Sum over four hops of the squared periodic Hann window.
WINDOW_SUM = 1.5


@functools.lru_cache(maxsize=8)
def hann(n_fft: int, device: torch.device) -> Tensor:
    """Periodic Hann window, shape ``(n_fft,)``.

    Made on the host: a copy is complete when it is there, for all songs of a GPU, while what one
    song computes there others would have to wait for.
    """
    window = torch.hann_window(n_fft, periodic=True, dtype=torch.float32, device="cpu")
    return window.to(device)


def stft(waveform: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Spectrum of the whole frames of a waveform, without padding.

    Parameters
    ----------
    waveform
        ``(..., samples)``, float32, at least ``n_fft`` samples.
    n_fft, hop_length
        Window length and distance in samples.

    Returns
    -------
    Tensor
        Complex, ``(..., bins, frames)`` with ``n_fft // 2 + 1`` bins and
        ``1 + (samples - n_fft) // hop_length`` frames; a view, frames before bins in memory.
    """
    frames = waveform.unfold(-1, n_fft, hop_length)  # (..., frames, n_fft)
    spectrum: Tensor = torch.fft.rfft(frames * hann(n_fft, waveform.device))
    return spectrum.transpose(-1, -2)


def overlap_add(spectrum: Tensor, hop_length: int) -> Tensor:
    """Inverse of `stft` wherever four windows overlap.

    Parameters
    ----------
    spectrum
        Complex, ``(..., bins, frames)``.
    hop_length
        Distance of the frames in samples, a quarter of the window.

    Returns
    -------
    Tensor
        ``(..., (frames + 3) * hop_length)``; the first and last three hops are incomplete
        sums that the neighbouring frames must complete.
    """
    n_fft = 4 * hop_length
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=n_fft)  # (..., frames, n_fft)
    quarters = frames.unflatten(-1, (4, hop_length))  # (..., frames, 4, hop)
    window = hann(n_fft, frames.device).view(4, hop_length) / WINDOW_SUM
    count = quarters.shape[-3]
    out: Tensor = frames.new_empty(*frames.shape[:-2], count + 3, hop_length)
    torch.mul(quarters[..., 0, :], window[0], out=out[..., :count, :])
    out[..., count:, :].zero_()
    for quarter in range(1, 4):
        out[..., quarter : quarter + count, :].addcmul_(quarters[..., quarter, :], window[quarter])
    return out.flatten(-2)


def overlap_add_with_gradients(spectrum: Tensor, hop_length: int) -> Tensor:
    """`overlap_add` for training and `torch.export`: slower, for nothing is written in place."""
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=4 * hop_length)
    # Not `hann`: what is remembered between calls, torch.compile refuses.
    window = torch.hann_window(4 * hop_length, dtype=frames.dtype, device=frames.device)
    frames = frames * (window / WINDOW_SUM)
    quarters = frames.reshape(*frames.shape[:-1], 4, hop_length)  # (..., frames, 4, hop)
    moved = [
        functional.pad(quarters[..., quarter, :], (0, 0, quarter, 3 - quarter))
        for quarter in range(4)
    ]
    return torch.stack(moved).sum(dim=0).flatten(-2)


def magnitudes(spectrum: Tensor) -> Tensor:
    """Absolute values, several times as fast as `torch.abs`, which cannot overflow.

    Parameters
    ----------
    spectrum
        Complex, ``(batch, channels, bins, frames)``.

    Returns
    -------
    Tensor
        ``(batch, channels, bins, frames)``, frames before bins in memory.
    """
    batch, channels, bins, frames = spectrum.shape
    out = spectrum.real.new_empty(batch, channels, frames, bins)
    step = CACHED_FRAMES if spectrum.device.type == "cpu" else max(1, frames)
    for at in range(0, frames, step):
        part, target = spectrum.mT[:, :, at : at + step], out[:, :, at : at + step]
        real, imaginary = part.real, part.imag
        torch.mul(real, real, out=target).addcmul_(imaginary, imaginary).sqrt_()
    return out.mT


def powers(spectrum: Tensor) -> Tensor:
    """Squares of absolute values, of the shape and in the layout of a complex spectrum."""
    real, imaginary = spectrum.real, spectrum.imag
    return real.square().addcmul_(imaginary, imaginary)


class StreamingSTFT:
    """STFT of a stream of blocks: the same frames as for the whole signal at once.

    Parameters
    ----------
    n_fft, hop_length
        Window and hop in samples, ``n_fft == 4 * hop_length``.
    """

    def __init__(self, n_fft: int, hop_length: int) -> None:
        self.n_fft, self.hop_length = n_fft, hop_length
        self._tail: Tensor | None = None

    def push(self, block: Tensor) -> Tensor:
        """Frames that are complete after this block, ``(channels, bins, frames)``.

        Parameters
        ----------
        block
            ``(channels, samples)``, float32, any number of samples.
        """
        if self._tail is None:
            self._tail = block.new_zeros(block.shape[0], self.n_fft - self.hop_length)
        return self._transform(torch.cat([self._tail, block], dim=-1))

    def flush(self) -> Tensor:
        """The last frames, after which every sample lies under four windows."""
        if self._tail is None:
            raise ValueError("no block was pushed before the end of the stream")
        # To whole hops, and then as many zeros as before the first sample.
        missing = -self._tail.shape[-1] % self.hop_length + self.n_fft - self.hop_length
        return self._transform(functional.pad(self._tail, (0, missing)))

    def _transform(self, samples: Tensor) -> Tensor:
        count = max(0, (samples.shape[-1] - self.n_fft) // self.hop_length + 1)
        self._tail = samples[..., count * self.hop_length :]
        if count == 0:
            bins = self.n_fft // 2 + 1
            return samples.new_zeros(samples.shape[0], bins, 0, dtype=torch.complex64)
        return stft(samples, self.n_fft, self.hop_length)


class StreamingISTFT:
    """Waveform of a stream of frames, the exact inverse of `StreamingSTFT`.

    Parameters
    ----------
    n_fft, hop_length
        Window and hop in samples, ``n_fft == 4 * hop_length``.
    """

    def __init__(self, n_fft: int, hop_length: int) -> None:
        self.n_fft, self.hop_length = n_fft, hop_length
        self._tail: Tensor | None = None
        # The zeros that the STFT put before the first sample.
        self._skip = n_fft - hop_length

    def push(self, spectrum: Tensor) -> Tensor:
        """Samples that are complete after these frames.

        Parameters
        ----------
        spectrum
            Complex, ``(..., bins, frames)``.

        Returns
        -------
        Tensor
            ``(..., samples)``, ``frames * hop_length`` of them once the start is past.
        """
        samples = overlap_add(spectrum, self.hop_length)
        incomplete = self.n_fft - self.hop_length
        if self._tail is not None:
            samples[..., :incomplete] += self._tail
        complete = samples.shape[-1] - incomplete
        self._tail = samples[..., complete:].clone()
        skipped = min(self._skip, complete)
        self._skip -= skipped
        return samples[..., skipped:complete]


def extension_weights(mask: Tensor) -> Tensor:
    """Share of each stem above the network's top bin, frame by frame.

    The average over the top `EXTENSION_BINS` bins, so that shares that sum to one in every
    bin still do. Spleeter can average over all its bins instead (``mask_extension: average``).

    Parameters
    ----------
    mask
        ``(..., bins, frames)``.

    Returns
    -------
    Tensor
        ``(..., frames)``.
    """
    return mask[..., -EXTENSION_BINS:, :].mean(dim=-2)


def apply_mask(mask: Tensor, above: Tensor, spectrum: Tensor) -> Tensor:
    """Stems' spectra: mask times the mixture's complex spectrum, mixture phase kept.

    Parameters
    ----------
    mask
        ``(stems, channels, bins, frames)``, the network's bins.
    above
        ``(stems, channels, frames)``, the mask in all higher bins; see `extension_weights`.
    spectrum
        Mixture, complex, ``(channels, all bins, frames)``.

    Returns
    -------
    Tensor
        Complex, ``(stems, channels, all bins, frames)``, frames before bins in memory.
    """
    bins = mask.shape[-2]
    mixture = spectrum.transpose(-1, -2)  # (channels, frames, all bins)
    out = mixture.new_empty(mask.shape[0], *mixture.shape)
    shares = mask.transpose(-1, -2)
    # Plane by plane: torch turns the real factor into a complex copy, which so stays small.
    for stem, channel in itertools.product(range(out.shape[0]), range(out.shape[1])):
        target, source = out[stem, channel], mixture[channel]
        torch.mul(shares[stem, channel], source[:, :bins], out=target[:, :bins])
        upper, part = torch.view_as_real(target[:, bins:]), torch.view_as_real(source[:, bins:])
        torch.mul(above[stem, channel, :, None, None], part, out=upper)
    return out.transpose(-1, -2)
