"""What all networks have in common: magnitudes of the mixture in, one mask per stem out."""

from __future__ import annotations

from torch import Tensor, nn

from ..config import ModelConfig


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

    def logits(self, magnitude: Tensor, *more: Tensor) -> Tensor:
        """Network output before the mask's non-linearity, fp32.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``; bins and frames as the config demands.
        more
            What else `unetsep.network.low_band.network_inputs` gives for this config, if anything.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``.
        """
        raise NotImplementedError

    def masks(self, logits: Tensor) -> Tensor:
        """Masks in [0, 1] from logits, both ``(batch, stems, channels, bins, frames)``."""
        # Frames before bins in memory, as in the spectrum that the masks will multiply.
        return activate(logits.transpose(-1, -2).contiguous(), self.config).transpose(-1, -2)

    def forward(self, magnitude: Tensor, *more: Tensor) -> Tensor:
        """Masks in [0, 1] for mixture magnitudes, before any ratio between them.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``, any level; see
            `unetsep.dsp.spectrogram.magnitudes`.
        more
            See `logits`.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``, fp32 whatever the autocast; with
            ``config.mask == "softmax"`` they sum to one over the stems.
        """
        return self.masks(self.logits(magnitude, *more))


def activate(logits: Tensor, config: ModelConfig) -> Tensor:
    """Masks from logits whose second axis is the stems, in the layout of ``logits``."""
    return logits.softmax(dim=1) if config.mask == "softmax" else logits.sigmoid()


def ratio_masks(estimates: Tensor, exponent: float, epsilon: float) -> Tensor:
    """Masks that sum to one from one estimate for each stem.

    ``(e_i^p + epsilon / stems) / (sum of e_j^p + epsilon)``: equal shares in silence.

    Parameters
    ----------
    estimates
        ``(stems, ...)``, >= 0: magnitudes or masks.
    exponent, epsilon
        ``p`` > 0 and what keeps the division finite.

    Returns
    -------
    Tensor
        Of the shape of ``estimates``.
    """
    power = estimates.square() if exponent == 2 else estimates.pow(exponent)
    power = power + epsilon / len(estimates)
    return power / power.sum(dim=0)
