"""The spectrogram U-Net: magnitudes of the mixture in, one mask per stem out."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .config import ModelConfig


class UNet(nn.Module):
    """U-Net of Jansson et al. (ISMIR 2017) in the joint, many-stems form.

    Each encoder level halves bins and frames by a strided convolution, each decoder level
    doubles them by a transposed one and receives the encoder's output of the same size.
    One encoder-decoder serves all stems, as in Kadandale et al. (2020).

    Parameters
    ----------
    config
        Sizes, stems and the kind of mask.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        kernel, padding = config.kernel_size, config.kernel_size // 2
        widths = (config.channels, *config.filters)
        self.encoder = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, kernel, stride=2, padding=padding, bias=False),
                nn.BatchNorm2d(after),
                nn.LeakyReLU(0.2),
            )
            for before, after in itertools.pairwise(widths)
        )
        self.decoder = nn.ModuleList()
        for level in reversed(range(1, len(config.filters))):
            # All but the deepest level also receive the skip, hence twice the channels.
            before = config.filters[level] * (1 if level == len(config.filters) - 1 else 2)
            after = config.filters[level - 1]
            self.decoder.append(
                nn.Sequential(
                    nn.ConvTranspose2d(
                        before, after, kernel, 2, padding, output_padding=1, bias=False
                    ),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
            )
        outputs = len(config.stems) * config.channels
        before = config.filters[0] * (1 if len(config.filters) == 1 else 2)
        self.head = nn.ConvTranspose2d(before, outputs, kernel, 2, padding, output_padding=1)
        # Mean and deviation of the log magnitude in each bin over the training mixtures.
        self.register_buffer("input_mean", torch.zeros(config.bins))
        self.register_buffer("input_std", torch.ones(config.bins))

    def compress(self, magnitude: Tensor) -> Tensor:
        """Log magnitude relative to the clip's level, so that the level does not matter.

        The level is the RMS over all frames that are not digital silence; silence gives
        the constant ``log(log_floor)``.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``, >= 0.

        Returns
        -------
        Tensor
            ``(batch, channels, bins, frames)``, not yet normalised per bin.
        """
        power = magnitude.square().mean(dim=(1, 2))  # (batch, frames)
        active = (power > 0).sum(dim=1).clamp(min=1)
        level = (power.sum(dim=1) / active).sqrt()
        scale = 1 / level.clamp(min=torch.finfo(magnitude.dtype).tiny)
        return (magnitude * scale[:, None, None, None] + self.config.log_floor).log()

    def logits(self, magnitude: Tensor) -> Tensor:
        """Network output before the mask's non-linearity, fp32.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``; bins and frames as the config demands.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``.
        """
        mean, std = self.input_mean[:, None], self.input_std[:, None]
        hidden = (self.compress(magnitude) - mean) / std
        # Frames before bins inside the network: rfft writes bins side by side.
        hidden = hidden.transpose(2, 3).to(self.head.weight.dtype)
        hidden = hidden.contiguous(memory_format=torch.channels_last)
        skips = []
        for block in self.encoder:
            hidden = block(hidden)
            skips.append(hidden)
        skips.pop()
        for block in self.decoder:
            hidden = torch.cat([block(hidden), skips.pop()], dim=1)
        out: Tensor = self.head(hidden).float().transpose(2, 3)
        stems = len(self.config.stems)
        return out.reshape(len(out), stems, self.config.channels, *out.shape[2:])

    def for_inference(self, dtype: torch.dtype) -> UNet:
        """A copy that computes the same masks faster, for evaluation only.

        BatchNorm is folded into the convolutions before it, which run in ``dtype``.
        """
        network = copy.deepcopy(self).eval()
        for block in (*network.encoder, *network.decoder):
            assert isinstance(block, nn.Sequential)
            convolution: Any = block[0]
            norm: Any = block[1]
            transposed = isinstance(convolution, nn.ConvTranspose2d)
            block[0] = fuse_conv_bn_eval(convolution, norm, transposed)
            block[1] = nn.Identity()
        for part in (network.encoder, network.decoder, network.head):
            part.to(dtype=dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network.requires_grad_(False)

    def forward(self, magnitude: Tensor) -> Tensor:
        """Masks in [0, 1] for mixture magnitudes.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``, any level.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``, fp32 whatever the autocast; with
            ``config.mask == "softmax"`` they sum to one over the stems.
        """
        return self.masks(self.logits(magnitude))

    def masks(self, logits: Tensor) -> Tensor:
        """Masks in [0, 1] from logits, both ``(batch, stems, channels, bins, frames)``."""
        # Frames before bins in memory, as in the spectrum that the masks will multiply.
        ordered = logits.transpose(-1, -2).contiguous()
        masks = ordered.softmax(dim=1) if self.config.mask == "softmax" else ordered.sigmoid()
        return masks.transpose(-1, -2)
