"""A network and its guide: what another network knows of voices joins its masks.

The guide is a network for vocals alone that was trained elsewhere, on far more music: Spleeter's
(Hennequin et al., JOSS 2020). It stays as it is. In each bin it gives one logit ``g``, the
network itself a logit ``a`` for each stem. With ``rest`` all stems but the vocals and ``w`` the
weight of the guide

    L_vocals = w g + (1 - w) (a_vocals - logsumexp(a_rest))
    L_s      = a_s - logsumexp(a_rest)                          for each s of the rest

and the masks are ``softmax(L)``, which is

    M_vocals = v = sigmoid(L_vocals),    M_s = (1 - v) softmax(a_rest)_s :

the guide and the network vote on the vocals, and the network divides what they leave among the
others. Masks sum to one, as those of any softmax. The network sees what the guide leaves of the
mixture, ``(1 - sigmoid(g)) m``, as a second spectrum beside the mixture.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig
from .inference import InferenceNetwork, InferenceUNet, Logits
from .masks import MaskNetwork
from .unet import UNet, rms_level

# RMS level of the magnitudes that the guide is given, since level matters to it: the median
# over the training songs of MUSDB18, which are mastered as music is.
LEVEL = 9.0
# Digital silence has level 0 and stays silent instead of becoming infinity times 0.
MIN_LEVEL = 1e-20


def guided_logits(own: Tensor, guide: Tensor, weight: float, vocals: int) -> Tensor:
    """Logits whose softmax are the masks of a network and its guide: ``L`` of this module.

    Parameters
    ----------
    own
        ``a``, ``(batch, stems, ...)``.
    guide
        ``g``, ``(batch, 1, ...)``.
    weight
        ``w``, 0 to 1.
    vocals
        Place of the vocals among the stems.

    Returns
    -------
    Tensor
        Of the shape of ``own``.
    """
    before, voice, after = own.tensor_split((vocals, vocals + 1), dim=1)
    level = torch.cat([before, after], dim=1).logsumexp(dim=1, keepdim=True)
    vote = torch.lerp(voice - level, guide, weight)
    return torch.cat([before - level, vote, after - level], dim=1)


def guide_logits(guide: InferenceUNet, magnitude: Tensor) -> Tensor:
    """What a guide thinks of mixtures, whatever their level.

    Parameters
    ----------
    guide
        With ``stems=("vocals",)``.
    magnitude
        ``(batch, channels, bins, frames)``.

    Returns
    -------
    Tensor
        ``(batch, 1, channels, frames, bins)``, fp32: frames before bins.
    """
    scale = LEVEL / rms_level(magnitude).clamp(min=MIN_LEVEL)
    return guide.logits(magnitude * scale)(0, magnitude.shape[-1])


def accompaniment(magnitude: Tensor, guide: Tensor) -> Tensor:
    """What the guide leaves, ``(1 - sigmoid(g)) m``, of the shape of ``magnitude``.

    Parameters
    ----------
    magnitude
        ``m``, ``(batch, channels, bins, frames)``.
    guide
        ``g``, as `guide_logits` gives it.
    """
    return magnitude * torch.sigmoid(-guide[:, 0]).mT


def both_spectra(network: UNet | InferenceUNet, magnitude: Tensor, guide: Tensor) -> Tensor:
    """What a guided network sees: the mixture and what the guide leaves, at the mixture's level.

    Parameters
    ----------
    network
        Normalises both.
    magnitude
        ``(batch, channels, bins, frames)``.
    guide
        As `guide_logits` gives it.

    Returns
    -------
    Tensor
        ``(batch, 2 channels, bins, frames)``.
    """
    level = rms_level(magnitude)
    spectra = (magnitude, accompaniment(magnitude, guide))
    return torch.cat([network.normalised(each, level) for each in spectra], dim=1)


class Guided(MaskNetwork):
    """A `UNet` with a guide, which is no part of its weights: see this module.

    The guide is neither trained nor saved with the network; it is attached after the network
    was built or loaded.

    Parameters
    ----------
    config
        Of the whole, with ``networks="guided"``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.rest = UNet(dataclasses.replace(config, networks="joint", guide=""), spectra=2)
        self.vocals = config.stems.index("vocals")
        # In a list torch does not see them: they are no parameters, and stay as they are.
        self._guide: list[Any] = []
        self._guide_dtype = torch.float32

    @property
    def guide(self) -> UNet:
        """The network that guides.

        Raises
        ------
        ValueError
            If none was attached.
        """
        if not self._guide:
            raise ValueError(f"the guide {self.config.guide[:12]}... was not attached")
        guide: UNet = self._guide[0]
        return guide

    def attach(self, guide: MaskNetwork, dtype: torch.dtype = torch.float32) -> None:
        """Give the network its guide.

        Parameters
        ----------
        guide
            One network for vocals alone, of the same signal path, that sees magnitudes.
        dtype
            Of its convolutions.

        Raises
        ------
        ValueError
            If it is another kind of network.
        """
        ours, theirs = self.config, guide.config
        path = ("sample_rate", "channels", "n_fft", "hop_length", "bins")
        alike = all(getattr(ours, name) == getattr(theirs, name) for name in path)
        alone = (theirs.stems, theirs.input) == (("vocals",), "linear")
        if not (isinstance(guide, UNet) and alike and alone):
            raise ValueError(
                f"a guide must be one network for vocals alone, with linear input and equal "
                f"{', '.join(path)}"
            )
        # Its twin that computes is made when it is first needed: who only separates has another.
        self._guide, self._guide_dtype = [guide], dtype

    def _apply(self, fn: Any, recurse: bool = True) -> Guided:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for part in self._guide:
            part._apply(fn, recurse)
        return self

    @torch.no_grad()
    def vote(self, magnitude: Tensor) -> Tensor:
        """Logits of the guide, ``(batch, 1, channels, bins, frames)``, fp32."""
        guide = self.guide
        if len(self._guide) == 1:
            twin = InferenceUNet(guide, self._guide_dtype)
            self._guide.append(twin.to(magnitude.device))
        return guide_logits(self._guide[1], magnitude).mT

    def own_logits(self, magnitude: Tensor, guide: Tensor) -> Tensor:
        """Logits of the network itself, ``(batch, stems, channels, bins, frames)``, fp32.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.
        guide
            As `vote` gives it.
        """
        return self.rest.output(both_spectra(self.rest, magnitude, guide.mT))

    def logits(self, magnitude: Tensor) -> Tensor:
        """See `MaskNetwork.logits`."""
        guide = self.vote(magnitude)
        own = self.own_logits(magnitude, guide)
        return guided_logits(own, guide, self.config.guide_weight, self.vocals)


class InferenceGuided(InferenceNetwork):
    """The masks of a `Guided`, for evaluation only.

    Parameters
    ----------
    network, dtype
        As for `InferenceUNet`; the network must have its guide.
    """

    def __init__(self, network: Guided, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(network.config)
        self.guide = InferenceUNet(network.guide, dtype)
        self.rest = InferenceUNet(network.rest, dtype)
        self.vocals = network.vocals

    def logits(self, magnitude: Tensor) -> Logits:
        """See `InferenceNetwork.logits`."""
        guide = guide_logits(self.guide, magnitude)
        own = self.rest.output(both_spectra(self.rest, magnitude, guide))
        weight = self.config.guide_weight

        def frames(start: int, stop: int) -> Tensor:
            part = guide[..., start:stop, :]
            return guided_logits(own(start, stop), part, weight, self.vocals)

        return frames


def with_guide(network: MaskNetwork, guide: MaskNetwork, sha256: str) -> Guided:
    """A network with a guide that separates as both together do before any training.

    The weights that look at the second spectrum are zero.

    Parameters
    ----------
    network
        A joint `UNet`; it is left as it is.
    guide
        See `Guided.attach`.
    sha256
        Of the guide's checkpoint.

    Raises
    ------
    ValueError
        If either cannot be used so.
    """
    config = dataclasses.replace(network.config, networks="guided", guide=sha256)
    guided = Guided(config)
    state = dict(network.state_dict())
    first = "encoder.0.0.weight"
    state[first] = torch.cat([state[first], torch.zeros_like(state[first])], dim=1)
    guided.rest.load_state_dict(state)
    guided.attach(guide)
    return guided.train(network.training)
