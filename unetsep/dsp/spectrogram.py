"""Streaming STFT and its exact inverse, and masks applied to the mixture's spectrum.

Nothing is centred or reflected: a stream is padded with ``n_fft - hop_length`` zeros at
both ends, so that exactly four windows cover every sample. Squared periodic Hann windows at
a hop of ``n_fft / 4`` add up to the constant 3/2, so the inverse divides by that number and
never by an edge sum close to zero.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor
from torch.nn import functional

# The network's top bins, whose mean mask is used above them; about 1.1 kHz.
EXTENSION_BINS = 100
# Frames processed at once, so that intermediate results stay in the cache.
CACHED_FRAMES = 32
# Sum over four hops of the squared periodic Hann window.
WINDOW_SUM = 1.5


@functools.lru_cache(maxsize=8)
def hann(n_fft: int, device: torch.device) -> Tensor:
    """Periodic Hann window, shape ``(n_fft,)``.

    It is made on the host: a copied window is complete for all songs of a GPU, while for a window
    computed in one song's CUDA stream the others would have to wait.
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
    """`overlap_add` for training and `torch.export`: slower, without writing in place."""
    frames = torch.fft.irfft(spectrum.transpose(-1, -2), n=4 * hop_length)
    # Not `hann`: torch.compile refuses cached tensors.
    window = torch.hann_window(4 * hop_length, dtype=frames.dtype, device=frames.device)
    frames = frames * (window / WINDOW_SUM)
    quarters = frames.reshape(*frames.shape[:-1], 4, hop_length)  # (..., frames, 4, hop)
    padded = [
        functional.pad(quarters[..., quarter, :], (0, 0, quarter, 3 - quarter))
        for quarter in range(4)
    ]
    return torch.stack(padded).sum(dim=0).flatten(-2)


def magnitudes(spectrum: Tensor) -> Tensor:
    """Absolute values, several times faster than `torch.abs`, which guards against overflow.

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
    """Squared absolute values of a complex spectrum, in its shape and memory layout."""
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
        """The last frames, so that four windows cover every sample."""
        if self._tail is None:
            raise ValueError("no block was pushed before the end of the stream")
        # Zeros up to a whole hop, and then as many as before the first sample.
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
            ``(..., samples)``, ``frames * hop_length`` of them after the start.
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

    It is the mean over the top `EXTENSION_BINS` bins, so shares that sum to one in every bin
    still do. Spleeter can average over all its bins instead (``mask_extension: average``).

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
    """Stems' spectra: mask times the mixture's complex spectrum, with the mixture's phase.

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
    # Plane by plane, to keep the complex copy small that torch makes of the real factor.
    for stem, channel in itertools.product(range(out.shape[0]), range(out.shape[1])):
        target, source = out[stem, channel], mixture[channel]
        torch.mul(shares[stem, channel], source[:, :bins], out=target[:, :bins])
        upper, part = torch.view_as_real(target[:, bins:]), torch.view_as_real(source[:, bins:])
        torch.mul(above[stem, channel, :, None, None], part, out=upper)
    return out.transpose(-1, -2)
