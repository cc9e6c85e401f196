"""A network and its guide: a frozen network for vocals joins the masks of another network.

The guide was trained elsewhere, on far more music: it is Spleeter's network for vocals
(Hennequin et al., JOSS 2020). It is frozen. In each bin guide and network vote on the vocals, and
the network divides the rest; see `unetsep.network.voting`. The network's second input, beside the
mixture, is the guide's accompaniment ``(1 - sigmoid(g)) m``. A branch may correct how the rest is
divided in the lowest bins, see `unetsep.network.low_band`.

The guide's decoder knows more than its logits show. With ``config.guide_states`` the network
also sees the states ``x_l`` of that decoder: ``W_l sign(x_l) log(1 + |x_l|)`` is added to the
output of the convolution of its encoder's level ``l``. Such lateral connections from a frozen
network are those of Rusu et al., "Progressive neural networks" (2016).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .folding import affine
from .inference import FrameLogits, InferenceNetwork, InferenceUNet, WriteMasks
from .low_band import InferenceLowBand, LowBand, low_slice, required
from .masks import MaskNetwork
from .unet import UNet, rms_level
from .voting import corrected, guided_logits, write_guided_masks

# RMS level of the guide's input, since the guide depends on the level: the median over the
# training songs of MUSDB18, which are mastered as music usually is.
LEVEL = 9.0
# Digital silence has level 0 and stays silent instead of becoming infinity times 0.
MIN_LEVEL = 1e-20


def guide_output(
    guide: InferenceUNet, magnitude: Tensor, level: Tensor, state_count: int
) -> tuple[Tensor, list[Tensor]]:
    """Logits of a guide for mixtures of any level, and states of its decoder.

    Parameters
    ----------
    guide
        A network with ``stems=("vocals",)``.
    magnitude
        ``(batch, channels, bins, frames)``.
    level
        Of ``magnitude`` by `unetsep.network.unet.rms_level`.
    state_count
        See `UNet.output`.

    Returns
    -------
    Tensor
        ``(batch, 1, channels, frames, bins)``, fp32: frames before bins.
    list
        See `InferenceUNet.output`.
    """
    spectrum = guide.normalised(scaled_for_guide(magnitude, level))
    logits, states = guide.output(spectrum, state_count=state_count)
    return logits(0, magnitude.shape[-1]), states


def scaled_for_guide(magnitude: Tensor, level: Tensor) -> Tensor:
    """Magnitudes scaled to the level of the guide's training, of the same shape.

    Parameters
    ----------
    magnitude
        ``(batch, channels, bins, frames)``.
    level
        Of ``magnitude``, see `unetsep.network.unet.rms_level`.
    """
    return magnitude * (LEVEL / level.clamp(min=MIN_LEVEL))


def accompaniment(magnitude: Tensor, guide: Tensor) -> Tensor:
    """The guide's accompaniment, ``(1 - sigmoid(g)) m``, of the shape of ``magnitude``.

    Parameters
    ----------
    magnitude
        ``m``, ``(batch, channels, bins, frames)``.
    guide
        ``g``, from `guide_output`.
    """
    return magnitude * torch.sigmoid(-guide[:, 0]).mT


def both_spectra(
    network: UNet | InferenceUNet, magnitude: Tensor, guide: Tensor, level: Tensor
) -> Tensor:
    """Inputs of a guided network: mixture and accompaniment, at the mixture's level.

    Parameters
    ----------
    network
        Normalises both.
    magnitude
        ``(batch, channels, bins, frames)``.
    guide
        Logits, from `guide_output`.
    level
        Of ``magnitude``, see `unetsep.network.unet.rms_level`.

    Returns
    -------
    Tensor
        ``(batch, 2 channels, bins, frames)``, frames before bins in memory.
    """
    spectra = (magnitude, accompaniment(magnitude, guide))
    return torch.cat([network.normalised(each, level).mT for each in spectra], dim=1).mT


def state_channels(guide: ModelConfig) -> tuple[int, ...]:
    """Channels of a guide's states from the first level on, see `UNet.output`."""
    return tuple(2 * width for width in guide.filters[:-1])


class Lateral(nn.Conv2d):
    """A lateral connection from the guide's decoder to a level of the encoder; zero at first.

    States have rare values of some hundreds, hence the logarithm.

    Parameters
    ----------
    states, filters
        Channels of the guide's states and of the encoder's level.
    """

    def __init__(self, states: int, filters: int) -> None:
        super().__init__(states, filters, 1, bias=False)
        if not self.weight.is_meta:  # see `BinMixing`
            nn.init.zeros_(self.weight)

    def forward(self, state: Tensor) -> Tensor:
        """``(batch, states, frames, bins)`` to ``(batch, filters, frames, bins)``."""
        return super().forward(self.compressed(state).to(self.weight.dtype))

    def compressed(self, state: Tensor) -> Tensor:
        """``sign(x) log(1 + |x|)``."""
        return state.sign() * state.abs().log1p()


class InferenceLateral(Lateral):
    """A lateral connection to a level whose norm `InferenceUNet` folds into its convolution.

    Parameters
    ----------
    lateral, level
        The connection and the level it leads to; neither is changed.
    folds
        Whether the norm is folded.
    dtype
        Of the convolution.
    """

    def __init__(
        self, lateral: nn.Module, level: nn.Module, *, folds: bool, dtype: torch.dtype
    ) -> None:
        assert isinstance(lateral, Lateral)
        with torch.device("meta"):  # see `mirrored`
            super().__init__(lateral.in_channels, lateral.out_channels)
        weight = lateral.weight.detach().cpu().float()
        if folds:
            assert isinstance(level, nn.Sequential)
            weight = weight * affine(level[1])[0].cpu().float().view(-1, 1, 1, 1)
        layout = torch.channels_last
        self.weight = nn.Parameter(weight.to(dtype, memory_format=layout), requires_grad=False)

    def compressed(self, state: Tensor) -> Tensor:
        """`Lateral.compressed` in less time, by operators that ONNX lacks."""
        return state.abs().log1p_().copysign_(state)


class _Guide:
    """A guide, hidden from torch: it is neither trained nor saved with the network.

    Parameters
    ----------
    network
        The guide.
    dtype
        Of the convolutions of its twin for inference.
    """

    def __init__(self, network: UNet, dtype: torch.dtype) -> None:
        self.network, self.dtype = network, dtype
        self.twin: InferenceUNet | None = None

    def inference(self, device: torch.device) -> InferenceUNet:
        """The twin, which is made when it is first needed; separating uses another one."""
        if self.twin is None:
            self.twin = InferenceUNet(self.network, self.dtype).to(device)
        return self.twin


class Guided(MaskNetwork):
    """A `UNet` with a guide, which is not part of its weights: see this module.

    The guide is neither trained nor saved with the network. It is attached after the network
    is built or loaded.

    Parameters
    ----------
    config
        Of the whole network, with ``networks="guided"``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.rest = UNet(plain(config), spectra=2)
        self.vocals = config.stems.index("vocals")
        self.low = LowBand(config) if config.low_bins else None
        self.laterals = nn.ModuleList(map(Lateral, config.guide_states, config.filters))
        self._guide: _Guide | None = None

    @property
    def guide(self) -> UNet:
        """The guide.

        Raises
        ------
        ValueError
            If none was attached.
        """
        return self._attached.network

    @property
    def _attached(self) -> _Guide:
        if self._guide is None:
            raise ValueError(f"the guide {self.config.guide[:12]}... was not attached")
        return self._guide

    def attach(self, guide: MaskNetwork, dtype: torch.dtype = torch.float32) -> None:
        """Attach the guide.

        Parameters
        ----------
        guide
            A joint network for vocals alone, with the same signal path and linear input.
        dtype
            Of the guide's convolutions.

        Raises
        ------
        ValueError
            If the guide does not fit.
        """
        check_guide(self.config, guide.config)
        assert isinstance(guide, UNet)
        self._guide = _Guide(guide, dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> Guided:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self._guide is not None:
            for part in (self._guide.network, self._guide.twin):
                if part is not None:
                    part._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.no_grad()
    def guide_output(self, magnitude: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of the guide, and the states that the network sees.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.

        Returns
        -------
        Tensor
            ``(batch, 1, channels, bins, frames)``, fp32.
        list
            See `UNet.output`.
        """
        guide, level = self._attached.inference(magnitude.device), rms_level(magnitude)
        logits, states = guide_output(guide, magnitude, level, len(self.laterals))
        return logits.mT, [guide.oriented(state) for state in states]

    def own_logits(
        self,
        magnitude: Tensor,
        fine: Tensor | None = None,
        *,
        guide: Tensor,
        states: Sequence[Tensor] = (),
    ) -> Tensor:
        """Logits of the network without the vote, ``(batch, stems, channels, bins, frames)``, fp32.

        Parameters
        ----------
        magnitude, fine
            See `MaskNetwork.logits`.
        guide, states
            From `guide_output`.
        """
        logits = self.rest_logits(magnitude, guide, states)
        if self.low is None:
            return logits
        low = low_slice(self.config)
        low_logits = self.low_logits(
            magnitude, required(fine), logits=logits[..., low, :], guide=guide[..., low, :]
        )
        return torch.cat(
            [logits[..., : low.start, :], low_logits, logits[..., low.stop :, :]], dim=-2
        )

    def rest_logits(self, magnitude: Tensor, guide: Tensor, states: Sequence[Tensor]) -> Tensor:
        """`own_logits` before the corrections of the branch for low bins."""
        spectra = both_spectra(self.rest, magnitude, guide.mT, rms_level(magnitude))
        laterals = [lateral(state) for lateral, state in zip(self.laterals, states, strict=True)]
        logits, _ = self.rest.output(spectra, laterals)
        return logits

    def low_logits(
        self, magnitude: Tensor, fine: Tensor, *, logits: Tensor, guide: Tensor
    ) -> Tensor:
        """Corrected logits in the bins of the branch.

        Parameters
        ----------
        magnitude, fine
            As for `own_logits`; all bins.
        logits, guide
            In the bins of the branch only, ``(batch, stems or 1, channels, bins, frames)``.
        """
        assert self.low is not None
        change = self.low(fine, rms_level(magnitude), logits, guide)
        return corrected(logits, change, self.vocals)

    def logits(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        """See `MaskNetwork.logits`."""
        return self._voted(magnitude, fine, *self.guide_output(magnitude))

    def logits_through(self, guide: UNet, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        """`logits` with gradients through the guide, too.

        Parameters
        ----------
        guide
            The attached one.
        magnitude, fine
            As for `logits`.
        """
        spectrum = guide.normalised(scaled_for_guide(magnitude, rms_level(magnitude)))
        output = guide.output(spectrum, state_count=len(self.laterals))
        return self._voted(magnitude, fine, *output)

    def _voted(
        self, magnitude: Tensor, fine: Tensor | None, guide: Tensor, states: Sequence[Tensor]
    ) -> Tensor:
        """Logits of network and guide together, from the output of the guide."""
        logits = self.own_logits(magnitude, fine, guide=guide, states=states)
        return guided_logits(logits, guide, self.config.guide_weight, self.vocals)


class InferenceGuided(InferenceNetwork):
    """The masks of a `Guided`, for evaluation only.

    Parameters
    ----------
    network, dtype
        As for `InferenceUNet`; the network must have its guide attached.
    """

    def __init__(self, network: Guided, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(network.config)
        self.guide = InferenceUNet(network.guide, dtype)
        self.rest = InferenceUNet(network.rest, dtype)
        self.low = None if network.low is None else InferenceLowBand(network.low, dtype)
        self.vocals = network.vocals
        folds = network.config.skips == "activated"
        self.laterals = nn.ModuleList(
            InferenceLateral(lateral, level, folds=folds, dtype=dtype)
            for lateral, level in zip(network.laterals, network.rest.encoder, strict=False)
        )

    def frame_masks(self, magnitude: Tensor, fine: Tensor | None = None) -> WriteMasks:
        """See `InferenceNetwork.frame_masks`."""
        level = rms_level(magnitude)
        guide, states = guide_output(self.guide, magnitude, level, len(self.laterals))
        # Cheaper than orienting the states, which have more channels.
        laterals = [
            self.guide.oriented(lateral(state))
            for lateral, state in zip(self.laterals, states, strict=True)
        ]
        logits, _ = self.rest.output(both_spectra(self.rest, magnitude, guide, level), laterals)
        change = self._change(level, required(fine), logits, guide) if self.low else None
        weight, low = self.config.guide_weight, low_slice(self.config)

        def write(start: int, stop: int, target: Tensor) -> None:
            block_logits, votes = logits(start, stop), guide[..., start:stop, :]
            block = None if change is None else change[..., start:stop, :]
            write_guided_masks(block_logits, votes, weight, self.vocals, target, block, low)

        return write

    def _change(self, level: Tensor, fine: Tensor, logits: FrameLogits, guide: Tensor) -> Tensor:
        """Corrections by the branch, ``(batch, stems - 1, channels, frames, bins)``."""
        assert self.low is not None
        low = low_slice(self.config)
        low_logits = logits(0, guide.shape[-2], low).mT
        change: Tensor = self.low(fine, level, low_logits, guide[..., low].mT)
        return change.mT


def check_guide(config: ModelConfig, guide: ModelConfig) -> None:
    """Check that a network can be the guide of another.

    Parameters
    ----------
    config
        Of the guided network.
    guide
        Of the guide.

    Raises
    ------
    ValueError
        If it cannot.
    """
    path = ("sample_rate", "channels", "n_fft", "hop_length", "bins")
    same_path = all(getattr(config, name) == getattr(guide, name) for name in path)
    vocals_only = (guide.networks, guide.stems, guide.input) == ("joint", ("vocals",), "linear")
    if not (same_path and vocals_only):
        raise ValueError(
            f"a guide must be one network for vocals alone, with linear input and equal "
            f"{', '.join(path)}"
        )
    channels, actual = config.guide_states, state_channels(guide)
    if channels != actual[: len(channels)]:
        raise ValueError(
            f"the network sees guide_states {channels} of its guide, which has {actual}"
        )


def plain(config: ModelConfig) -> ModelConfig:
    """The config of a guided model's network without its guide and branch."""
    return dataclasses.replace(
        config, networks="joint", guide="", guide_states=(), low_bins=0, low_first=0
    )


def extended(config: ModelConfig, other: ModelConfig) -> ModelConfig:
    """A guided model's config with those parts of another that it lacks; see `with_parts`."""
    names = [] if config.guide_states else ["guide_states"]
    names += [] if config.low_bins else ["low_bins", "low_first", "low_filters"]
    return dataclasses.replace(config, **{name: getattr(other, name) for name in names})


def with_parts(network: Guided, config: ModelConfig) -> Guided:
    """A guided network extended by missing parts, which change nothing before they are trained.

    If no part is missing, the network itself is returned.

    Parameters
    ----------
    network
        Not changed.
    config
        ``guide_states``; and ``low_bins``, ``low_first`` and ``low_filters`` of a branch for low
        bins. Parts that the network has already do not change.
    """
    full_config = extended(network.config, config)
    if full_config == network.config:
        return network
    larger = Guided(full_config)
    larger.load_state_dict(network.state_dict(), strict=False)
    larger.attach(network.guide)
    return larger.train(network.training)


def with_guide(network: MaskNetwork, guide: MaskNetwork, sha256: str) -> Guided:
    """A guided network from a trained network and a guide, before any training together.

    The weights of the second input spectrum are zero.

    Parameters
    ----------
    network
        A joint `UNet`; not changed.
    guide
        See `Guided.attach`.
    sha256
        Of the guide's checkpoint.

    Raises
    ------
    ValueError
        If network or guide does not fit.
    """
    guided = Guided(network.config.guided(sha256))
    state = dict(network.state_dict())
    first = "encoder.0.0.weight"
    state[first] = torch.cat([state[first], torch.zeros_like(state[first])], dim=1)
    guided.rest.load_state_dict(state)
    guided.attach(guide)
    return guided.train(network.training)
