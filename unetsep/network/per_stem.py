"""One network for each stem, as in Spleeter (Hennequin et al. 2020)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .doubling import ALL
from .inference import FrameLogits, InferenceNetwork, InferenceUNet
from .masks import MaskNetwork
from .unet import UNet


class PerStem(MaskNetwork):
    """Independent `UNet`s, each of which sees the whole mixture and estimates one stem.

    Parameters
    ----------
    config
        Of all networks together, with ``networks="per_stem"``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.members = nn.ModuleList(
            UNet(dataclasses.replace(config, networks="joint", stems=(stem,), gate_db=None))
            for stem in config.stems
        )

    @property
    def networks(self) -> list[UNet]:
        """The stems' networks, in their order."""
        return cast(list[UNet], list(self.members))

    def logits(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """See `MaskNetwork.logits`."""
        return torch.cat([network.logits(magnitude) for network in self.networks], dim=1)


class InferencePerStem(InferenceNetwork):
    """The masks of a `PerStem`, for evaluation only.

    Parameters
    ----------
    network, dtype
        As for `InferenceUNet`.
    """

    def __init__(self, network: PerStem, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(network.config)
        self.members = nn.ModuleList(InferenceUNet(each, dtype) for each in network.networks)

    @property
    def networks(self) -> list[InferenceUNet]:
        """The stems' networks, in their order."""
        return cast(list[InferenceUNet], list(self.members))

    def logits(self, magnitude: Tensor, fine: Tensor | None = None) -> FrameLogits:  # noqa: ARG002
        """See `InferenceNetwork.logits`."""
        members = [network.logits(magnitude) for network in self.networks]

        def joined(start: int, stop: int, bins: slice = ALL) -> Tensor:
            return torch.cat([logits(start, stop, bins) for logits in members], dim=1)

        return joined

    def forward(
        self,
        magnitude: Tensor,
        fine: Tensor | None = None,
        *,
        wanted: Sequence[int] | None = None,
    ) -> Tensor:
        """See `InferenceNetwork.forward`."""
        if self.config.mask == "softmax":
            return super().forward(magnitude, fine)
        # One by one, so that only one network's logits are in memory at a time.
        masks = self._empty_masks(magnitude).zero_()
        for index, network in enumerate(self.networks):
            if wanted is None or index in wanted or not self.config.independent:
                masks[:, index] = network(magnitude)[:, 0].mT
        return masks.mT
