"""Multichannel Wiener filter: stems refined by where they lie in the stereo image.

Each stem is taken as a Gaussian whose power changes from bin to bin and frame to frame and
whose spatial covariance, how it is panned, changes only slowly (Duong et al. 2010). As in
Nugraha et al. (2016), and the ``norbert`` package that Spleeter and Open-Unmix use, powers
and covariances are estimated from the stems of the iteration before. Block by block: what
earlier blocks told about the panning fades out, so memory does not grow with the song.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Share of earlier blocks in a stem's covariance, one block later.
MEMORY = 0.5
# Added to the mixture's covariance, relative to it and to the block's power: far below what
# is heard, far above what float32 rounds.
RELATIVE, ABSOLUTE = 1e-4, 1e-10
# Frames filtered at once, few enough for a CPU's cache.
CHUNK_FRAMES = 8


class WienerFilter:
    """Refine the stems of one song, block by block.

    Stereo is filtered as such, any other number of channels one by one. The stems of a
    block add up to its mixture.

    Parameters
    ----------
    iterations
        How often powers and covariances are estimated anew, at least 1.
    """

    def __init__(self, iterations: int) -> None:
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, got {iterations}")
        self._iterations = iterations
        self._scatter: Tensor | None = None  # of the blocks before, (3, stems, bins)

    def __call__(self, masks: Tensor, spectrum: Tensor) -> Tensor:
        """Filter one block.

        Parameters
        ----------
        masks
            ``(stems, channels, bins, frames)``, >= 0; all stems of the mixture.
        spectrum
            Mixture, complex, ``(channels, bins, frames)``.

        Returns
        -------
        Tensor
            Complex, ``(stems, channels, bins, frames)``.
        """
        # Real and imaginary part apart: torch is slow at complex numbers times real ones.
        # (2, frames, channels, bins) and (frames, stems, channels, bins).
        mixture = torch.view_as_real(spectrum).permute(3, 2, 0, 1).contiguous()
        level = mixture.square().sum(dim=0).mean().sqrt().clamp(min=1e-15)
        mixture /= level
        shares = masks.permute(3, 0, 1, 2)
        shares = (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-12)).contiguous()
        stems = shares * mixture[:, :, None]  # (2, frames, stems, channels, bins)
        chunks = range(0, len(shares), CHUNK_FRAMES)
        at = [slice(start, start + CHUNK_FRAMES) for start in chunks]
        for iteration in range(self._iterations):
            panning = None
            if shares.shape[2] == 2:
                scatter = level.square() * torch.stack([_scatter(stems[:, k]) for k in at]).sum(0)
                if self._scatter is not None:
                    scatter += MEMORY * self._scatter
                if iteration == self._iterations - 1:
                    self._scatter = scatter
                power = (scatter[0] + scatter[1]) / 2
                panning = scatter / power.clamp(min=torch.finfo(power.dtype).tiny)
            for k in at:
                stems[:, k] = _filter(stems[:, k], mixture[:, k], shares[k], panning)
        # (frames, stems, channels, bins, 2)
        parts = (stems * level).movedim(0, -1).contiguous()
        return torch.view_as_complex(parts).permute(1, 2, 3, 0)


def _scatter(stems: Tensor) -> Tensor:
    """Sums over frames of the channels' products, ``(4, stems, bins)``.

    Left squared, right squared, real and imaginary part of left times conjugate right.
    """
    xr, xi, yr, yi = (stems[part, :, :, channel] for channel in (0, 1) for part in (0, 1))
    products = (
        xr.square() + xi.square(),
        yr.square() + yi.square(),
        xr * yr + xi * yi,
        xi * yr - xr * yi,
    )
    return torch.stack([product.sum(dim=0) for product in products])


def _filter(stems: Tensor, mixture: Tensor, shares: Tensor, panning: Tensor | None) -> Tensor:
    """One step.

    Parameters
    ----------
    stems
        ``(2, frames, stems, channels, bins)``.
    mixture
        ``(2, frames, channels, bins)``.
    shares
        ``(frames, stems, channels, bins)``.
    panning
        Covariance of each stem relative to its power, rows as in `_scatter`; None treats
        channels one by one.
    """
    power = stems[0].square() + stems[1].square()
    if panning is None:
        gain = power / (power.sum(dim=1, keepdim=True) + ABSOLUTE)
        filtered = gain * mixture[:, :, None]
    else:
        power = power.mean(dim=2)  # (frames, stems, bins)
        left, right, cr, ci = panning
        # The mixture's covariance [[a, b], [b*, d]] in each bin and frame: it grows by a
        # floor, so its determinant is at least the square of that.
        a, d, br, bi = ((power * row).sum(dim=1) for row in panning)
        floor = RELATIVE * (a + d) + ABSOLUTE
        a, d = a + floor, d + floor
        scale = 1 / (a * d - br * br - bi * bi).clamp(min=ABSOLUTE**2)
        # u, w = inverse covariance times the mixture's channels x, y.
        xr, yr = mixture[0].unbind(dim=1)
        xi, yi = mixture[1].unbind(dim=1)
        ur = ((d * xr - br * yr + bi * yi) * scale)[:, None]
        ui = ((d * xi - br * yi - bi * yr) * scale)[:, None]
        wr = ((a * yr - br * xr - bi * xi) * scale)[:, None]
        wi = ((a * yi - br * xi + bi * xr) * scale)[:, None]
        filtered = torch.empty_like(stems)
        filtered[0, :, :, 0] = power * (left * ur + cr * wr - ci * wi)
        filtered[1, :, :, 0] = power * (left * ui + cr * wi + ci * wr)
        filtered[0, :, :, 1] = power * (cr * ur + ci * ui + right * wr)
        filtered[1, :, :, 1] = power * (cr * ui - ci * ur + right * wi)
    # What the floor kept back is shared out by the masks.
    missing = mixture - filtered.sum(dim=2)
    return filtered.addcmul_(shares[None], missing[:, :, None])
