"""The interface of all networks: magnitudes of the mixture in, one mask per stem out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import ModelConfig
from ..dsp.spectrogram import powers


class MaskNetwork(nn.Module):
    """A network that estimates masks; each kind computes their logits in its own way.

    Parameters
    ----------
    config
        Sizes, stems and the kind of mask.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config

    def logits(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        """Network output before the mask's non-linearity, fp32.

        Parameters
        ----------
        magnitude
            Absolute STFT of the mixture, ``(batch, channels, bins, frames)``; bins and frames as
            the config requires.
        fine
            For a network with a branch for low bins
            `unetsep.network.low_band.fine_magnitudes` of the same frames; others ignore it.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``.
        """
        raise NotImplementedError

    def masks(self, logits: Tensor) -> Tensor:
        """Masks in [0, 1] from logits, both ``(batch, stems, channels, bins, frames)``."""
        # Frames before bins in memory, as in the spectrum that the masks multiply.
        return activate(logits.transpose(-1, -2).contiguous(), self.config).transpose(-1, -2)

    def forward(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        """Masks in [0, 1] for mixture magnitudes, before any ratio between them.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``, any level; see
            `unetsep.dsp.spectrogram.magnitudes`.
        fine
            See `logits`.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``, fp32 whatever the autocast; with
            ``config.mask == "softmax"`` they sum to one over the stems.
        """
        return self.masks(self.logits(magnitude, fine))


def activate(logits: Tensor, config: ModelConfig) -> Tensor:
    """Masks from logits whose second axis is the stems, in the layout of ``logits``."""
    return logits.softmax(dim=1) if config.mask == "softmax" else logits.sigmoid()


def ratio_masks(masks: Tensor, mixture: Tensor, config: ModelConfig) -> Tensor:
    """Ratios between the estimates of all stems; ``masks`` if the config wants no ratios.

    ``(e_i^p + epsilon / stems) / (sum of e_j^p + epsilon)``, which sum to one: equal shares in
    silence. The estimates ``e_i`` are magnitudes if the network sees those, else masks.

    Parameters
    ----------
    masks
        A network's, ``(batch, stems, channels, bins, frames)``.
    mixture
        Its spectrum or magnitudes, ``(batch, channels, bins, frames)``.
    config
        ``mask_exponent``, ``p``, and ``mask_epsilon``.

    Returns
    -------
    Tensor
        Of the shape of ``masks``.
    """
    exponent = config.ratio_exponent
    if exponent == 0:
        return masks
    estimates = masks * mixture.abs()[:, None] if config.input == "linear" else masks
    power = estimates.square() if exponent == 2 else estimates.pow(exponent)
    power = power + config.mask_epsilon / power.shape[1]
    return power / power.sum(dim=1, keepdim=True)


# Frames on either side over which `gate_` averages, 0.74 s in the default model; it takes every
# fourth frame, since windows overlap by three quarters.
GATE_FRAMES, GATE_STEP = 32, 4
GATE_EXPONENT = 3
# -40 dB: a quiet stem stays audible in bins that are clearly its own.
GATE_FLOOR = 0.01
# Frames gated at once, few enough for a CPU's cache.
CHUNK_FRAMES = 16


def gate_(masks: Tensor, spectrum: Tensor, threshold_db: float) -> None:
    """Reduce leakage into stems that do not play, in place.

    An uncertain network gives each stem a little of everything, which is audible as soon as the
    stem itself pauses. Such leakage is soft over all bins, for long. With ``p_s`` the mean power of
    ``M_s |x|`` over all bins and `GATE_FRAMES` on either side, ``p`` that of ``x``, ``d`` the
    threshold and ``e`` the least gain, `GATE_FLOOR`,

        g_s = e + (1 - e) / (1 + (d p / p_s)^3),    M'_s = g_s M_s / sum over r of g_r M_r :

    masks are weighed by how likely the stem plays at all. A quiet stem keeps bins that are clearly
    its own, since no other stem claims them.

    Parameters
    ----------
    masks
        ``(stems, channels, bins, frames)`` that sum to one; changed in place, they still do.
    spectrum
        Of the mixture, complex, ``(channels, bins, frames)``.
    threshold_db
        ``10 log10(d)``, below 0.
    """
    transposed = masks.mT  # frames before bins, as in memory
    mixture_power = powers(spectrum.mT[:, ::GATE_STEP])
    power = torch.stack(
        [
            *(
                (mask[:, ::GATE_STEP].square() * mixture_power).sum(dim=(0, 2))
                for mask in transposed
            ),
            mixture_power.sum(dim=(0, 2)),
        ]
    )
    reach = GATE_FRAMES // GATE_STEP
    # Every mean divides by the same number of frames, which cancels in the ratio.
    mean_power = functional.avg_pool1d(power[:, None], 2 * reach + 1, 1, reach)[:, 0]
    tiny = torch.finfo(mean_power.dtype).tiny  # in silence all stems have equal shares
    shares = (mean_power[:-1] + tiny) / (mean_power[-1] + tiny)
    gains = 1 / (1 + (10 ** (threshold_db / 10) / shares) ** GATE_EXPONENT)
    gains = GATE_FLOOR + (1 - GATE_FLOOR) * gains
    gains = functional.interpolate(gains[None], scale_factor=GATE_STEP, mode="linear")
    gains = gains[0, :, None, : transposed.shape[-2], None]
    parts = (torch.split(each, CHUNK_FRAMES, -2) for each in (transposed, gains))
    for part, gain in zip(*parts, strict=True):
        part *= gain
        part /= part.sum(dim=0)
