"""The spectrogram U-Net: magnitudes of the mixture in, one mask per stem out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .layers import BinMixing, SameConv2d, SameConvTranspose2d
from .masks import MaskNetwork


class UNet(MaskNetwork):
    """U-Net of Jansson et al. (ISMIR 2017).

    Each encoder level halves bins and frames by a strided convolution, each decoder level
    doubles them by a transposed one and receives the encoder's output of the same size.
    One encoder-decoder serves all stems, as in Kadandale et al. (2020).

    Parameters
    ----------
    config
        Sizes, stems and the kind of mask.
    spectra
        How many input spectra, of ``config.channels`` each, it sees side by side.
    """

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, config: ModelConfig, spectra: int = 1) -> None:
        super().__init__(config)
        assert config.networks == "joint", "see unetsep.network.build"
        widths = (spectra * config.channels, *config.filters)
        self.encoder = nn.ModuleList(
            _encoder_level(before, after, config, deepest=level == len(config.filters))
            for level, (before, after) in enumerate(itertools.pairwise(widths), start=1)
        )
        widths = (*reversed(config.filters), *((1,) if config.head == "dilated" else ()))
        self.decoder = nn.ModuleList(
            # All but the deepest level also receive the skip, hence twice the channels.
            _decoder_level(before if level == 0 else 2 * before, after, config)
            for level, (before, after) in enumerate(itertools.pairwise(widths))
        )
        if config.bin_units:
            # A dilated head follows a level of the decoder with all bins, which are not mixed.
            halved = self.decoder[: len(config.filters) - 1]
            for blocks in (self.encoder, reversed(halved)):
                for level, (block, width) in enumerate(
                    zip(blocks, config.filters, strict=False), start=1
                ):
                    assert isinstance(block, nn.Sequential)
                    block.append(BinMixing(config.bins >> level, width, config.bin_units))
        masks = len(config.stems) * config.channels
        self.head: nn.Module
        if config.head == "dilated":
            # Four taps two apart span seven elements: three on either side keep the size.
            self.head = nn.Conv2d(1, masks, 4, dilation=2, padding=3)
        else:
            before = config.filters[0] * (1 if len(config.filters) == 1 else 2)
            self.head = _doubling(before, masks, config, bias=True)
        if config.input == "log":
            # Mean and deviation of the log magnitude in each bin over the training mixtures.
            self.register_buffer("input_mean", torch.zeros(config.bins))
            self.register_buffer("input_std", torch.ones(config.bins))

    def logits(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """See `MaskNetwork.logits`."""
        logits, _ = self.output(self.normalised(magnitude))
        return logits

    def normalised(self, magnitude: Tensor, level: Tensor | None = None) -> Tensor:
        """Magnitudes normalised for the first level, of the same shape.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.
        level
            See `compress`.
        """
        if self.config.input == "linear":
            return magnitude
        mean, std = self.input_mean[..., None], self.input_std[..., None]
        return (compress(magnitude, self.config, level) - mean) / std

    def output(
        self, hidden: Tensor, laterals: Sequence[Tensor] = (), state_count: int = 0
    ) -> tuple[Tensor, list[Tensor]]:
        """Logits of normalised spectra, and states of the decoder.

        Parameters
        ----------
        hidden
            The spectra, ``(batch, spectra * channels, bins, frames)``.
        laterals
            Added to the outputs of the first levels' convolutions, each
            ``(batch, filters, frames, bins)``.
        state_count
            Of how many levels, from the first on, states are returned; the last has none.

        Returns
        -------
        Tensor
            ``(batch, stems, channels, bins, frames)``, fp32.
        list
            Outputs of the decoder's levels, each joined with its skip,
            ``(batch, 2 filters, frames, bins)``.
        """
        # Frames before bins inside the network: rfft writes bins side by side.
        hidden = hidden.transpose(2, 3).contiguous(memory_format=torch.channels_last)
        skips = []
        for level, block in enumerate(self.encoder):
            assert isinstance(block, nn.Sequential)
            raw = block[0](hidden)
            if level < len(laterals):
                raw = raw + laterals[level]
            hidden = block[1:](raw)
            skips.append(raw if self.config.skips == "raw" else hidden)
        hidden = skips.pop()
        states = []
        for block in self.decoder:
            hidden = block(hidden)
            if skips:
                hidden = torch.cat([hidden, skips.pop()], dim=1)
                if len(skips) < state_count:
                    states.append(hidden)
        out: Tensor = self.head(hidden).transpose(2, 3)
        if out.dtype != torch.float64:  # a network in double precision, for gradient checks
            out = out.float()
        stems = len(self.config.stems)
        logits = out.reshape(out.shape[0], stems, self.config.channels, *out.shape[2:])
        return logits, states[::-1]


def rms_level(magnitude: Tensor) -> Tensor:
    """RMS of each clip over its frames without digital silence, ``(batch, 1, 1, 1)``.

    Parameters
    ----------
    magnitude
        ``(batch, channels, bins, frames)``, >= 0.
    """
    power = magnitude.square().mean(dim=(1, 2))  # (batch, frames)
    active = (power > 0).sum(dim=1).clamp(min=1)
    return safe_sqrt(power.sum(dim=1) / active)[:, None, None, None]


def safe_sqrt(power: Tensor) -> Tensor:
    """Square root whose gradient at zero is zero; silence would make it infinite.

    Parameters
    ----------
    power
        Of any shape, >= 0.
    """
    positive = power > 0
    return torch.where(positive, torch.where(positive, power, 1).sqrt(), 0)


def compress(magnitude: Tensor, config: ModelConfig, level: Tensor | None = None) -> Tensor:
    """Log magnitude relative to the clip's level, hence independent of the level.

    Silence gives the constant ``log(log_floor)``.

    Parameters
    ----------
    magnitude
        ``(batch, channels, bins, frames)``, >= 0.
    config
        ``log_floor``.
    level
        ``(batch, 1, 1, 1)``; by default that of ``magnitude`` by `rms_level`.

    Returns
    -------
    Tensor
        ``(batch, channels, bins, frames)``, not yet normalised per bin.
    """
    level = rms_level(magnitude) if level is None else level
    scale = 1 / level.clamp(min=torch.finfo(magnitude.dtype).tiny)
    return (magnitude * scale + config.log_floor).log()


def _doubling(before: int, after: int, config: ModelConfig, *, bias: bool) -> nn.ConvTranspose2d:
    """Transposed convolution that doubles bins and frames."""
    kernel = config.kernel_size
    if config.padding == "same":
        return SameConvTranspose2d(before, after, kernel, 2, (kernel - 2) // 2, bias=bias)
    return nn.ConvTranspose2d(before, after, kernel, 2, kernel // 2, output_padding=1, bias=bias)


def _encoder_level(before: int, after: int, config: ModelConfig, *, deepest: bool) -> nn.Sequential:
    raw, kernel = config.skips == "raw", config.kernel_size
    convolution: nn.Conv2d
    if config.padding == "same":
        convolution = SameConv2d(before, after, kernel, 2, bias=raw)
    else:
        convolution = nn.Conv2d(before, after, kernel, 2, kernel // 2, bias=raw)
    if raw and deepest:  # only its skip is used, which precedes norm and activation
        return nn.Sequential(convolution)
    norm = nn.BatchNorm2d(after, eps=config.norm_epsilon)
    return nn.Sequential(convolution, norm, _activation(config, 0.2))


def _decoder_level(before: int, after: int, config: ModelConfig) -> nn.Sequential:
    raw = config.skips == "raw"
    convolution = _doubling(before, after, config, bias=raw)
    norm = nn.BatchNorm2d(after, eps=config.norm_epsilon)
    activation = _activation(config, 0.0)
    return nn.Sequential(convolution, *((activation, norm) if raw else (norm, activation)))


def _activation(config: ModelConfig, slope: float) -> nn.Module:
    if config.activation == "elu":
        return nn.ELU()
    return nn.LeakyReLU(slope) if slope else nn.ReLU()
