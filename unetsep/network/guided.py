"""A network and its guide: what another network knows of voices joins its masks.

The guide is a network for vocals alone that was trained elsewhere, on far more music: Spleeter's
(Hennequin et al., JOSS 2020). It stays as it is. In each bin it votes on the vocals beside the
network, which divides what they leave; see `unetsep.network.voting`. The network sees what the
guide leaves of the mixture, ``(1 - sigmoid(g)) m``, as a second spectrum beside the mixture. A
branch may correct how the rest is divided in the lowest bins, see `unetsep.network.low_band`.

What the guide knows is more than its logits. Where ``config.guide_states`` says so, the network
also sees the states ``x_l`` of the guide's decoder: the convolution of its encoder's level ``l``
gets ``W_l sign(x_l) log(1 + |x_l|)`` added to its output. Such lateral connections from a network
that stays as it is are those of Rusu et al., "Progressive neural networks" (2016).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from .folding import affine
from .inference import InferenceNetwork, InferenceUNet, UNetLogits, WriteFrames
from .low_band import InferenceLowBand, LowBand, low_slice
from .masks import MaskNetwork
from .unet import UNet, rms_level
from .voting import corrected, guided_logits, write_guided_masks

# RMS level of the magnitudes that the guide is given, since level matters to it: the median
# over the training songs of MUSDB18, which are mastered as music is.
LEVEL = 9.0
# Digital silence has level 0 and stays silent instead of becoming infinity times 0.
MIN_LEVEL = 1e-20


def guide_logits(
    guide: InferenceUNet, magnitude: Tensor, level: Tensor, states: list[Tensor] | None = None
) -> Tensor:
    """What a guide thinks of mixtures, whatever their level.

    Parameters
    ----------
    guide
        With ``stems=("vocals",)``.
    magnitude
        ``(batch, channels, bins, frames)``.
    level
        Of ``magnitude`` by `unetsep.network.unet.rms_level`.
    states
        See `UNet.output`.

    Returns
    -------
    Tensor
        ``(batch, 1, channels, frames, bins)``, fp32: frames before bins.
    """
    seen = guide.normalised(scaled_for_guide(magnitude, level))
    return guide.output(seen, states=states)(0, magnitude.shape[-1])


def scaled_for_guide(magnitude: Tensor, level: Tensor) -> Tensor:
    """Magnitudes at the level that the guide was trained at, of the same shape.

    Parameters
    ----------
    magnitude
        ``(batch, channels, bins, frames)``.
    level
        Its own, see `unetsep.network.unet.rms_level`.
    """
    return magnitude * (LEVEL / level.clamp(min=MIN_LEVEL))


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


def both_spectra(
    network: UNet | InferenceUNet, magnitude: Tensor, guide: Tensor, level: Tensor
) -> Tensor:
    """What a guided network sees: the mixture and what the guide leaves, at the mixture's level.

    Parameters
    ----------
    network
        Normalises both.
    magnitude
        ``(batch, channels, bins, frames)``.
    guide
        As `guide_logits` gives it.
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
    """Channels of the states of a guide, from the first level on: see `UNet.output`."""
    return tuple(2 * width for width in guide.filters[:-1])


class Lateral(nn.Conv2d):
    """What a level of the guide's decoder adds to a level of the encoder; nothing at first.

    States have rare values of some hundreds, hence the logarithm.

    Parameters
    ----------
    states, filters
        Channels of both.
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
        The connection and what it goes to; both are left as they are.
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
        """The same as of a `Lateral`, in less time; ONNX has no such operator."""
        return state.abs().log1p_().copysign_(state)


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
        self.rest = UNet(plain(config), spectra=2)
        self.vocals = config.stems.index("vocals")
        self.low = LowBand(config) if config.low_bins else None
        self.laterals = nn.ModuleList(map(Lateral, config.guide_states, config.filters))
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
        check_guide(self.config, guide.config)
        assert isinstance(guide, UNet)
        # Its twin that computes is made when it is first needed: who only separates has another.
        self._guide, self._guide_dtype = [guide], dtype

    def _apply(self, fn: Any, recurse: bool = True) -> Guided:
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for part in self._guide:
            part._apply(fn, recurse)
        return self

    @torch.no_grad()
    def vote(self, magnitude: Tensor, states: list[Tensor] | None = None) -> Tensor:
        """Logits of the guide, ``(batch, 1, channels, bins, frames)``, fp32.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.
        states
            Gets those that `own_logits` needs; see `UNet.output`.
        """
        guide = self.guide
        if len(self._guide) == 1:
            twin = InferenceUNet(guide, self._guide_dtype)
            self._guide.append(twin.to(magnitude.device))
        wanted = states if self.laterals else None
        logits = guide_logits(self._guide[1], magnitude, rms_level(magnitude), wanted).mT
        if wanted is not None and self._guide[1].mirrored:
            wanted[:] = [state.flip(2, 3) for state in wanted]
        return logits

    def own_logits(
        self, magnitude: Tensor, *fine: Tensor, guide: Tensor, states: Sequence[Tensor] = ()
    ) -> Tensor:
        """Logits of the network itself, ``(batch, stems, channels, bins, frames)``, fp32.

        Parameters
        ----------
        magnitude
            ``(batch, channels, bins, frames)``.
        fine
            For a network with a branch for low bins, see `unetsep.network.low_band`.
        guide, states
            As `vote` gives them.
        """
        own = self.rest_logits(magnitude, guide, states)
        if self.low is None:
            return own
        low = low_slice(self.config)
        better = self.low_logits(magnitude, *fine, own=own[..., low, :], guide=guide[..., low, :])
        return torch.cat([own[..., : low.start, :], better, own[..., low.stop :, :]], dim=-2)

    def rest_logits(self, magnitude: Tensor, guide: Tensor, states: Sequence[Tensor]) -> Tensor:
        """What `own_logits` are before the branch for low bins corrects them."""
        spectra = both_spectra(self.rest, magnitude, guide.mT, rms_level(magnitude))
        sides = [see(state) for see, state in zip(self.laterals, states, strict=False)]
        return self.rest.output(spectra, sides)

    def low_logits(self, magnitude: Tensor, fine: Tensor, *, own: Tensor, guide: Tensor) -> Tensor:
        """Logits in the bins of the branch, which it has corrected.

        Parameters
        ----------
        magnitude, fine
            As for `own_logits`; all bins.
        own, guide
            Of the bins of the branch alone, ``(batch, stems or 1, channels, bins, frames)``.
        """
        assert self.low is not None
        change = self.low(fine, rms_level(magnitude), own, guide)
        return corrected(own, change, self.vocals)

    def logits(self, magnitude: Tensor, *more: Tensor) -> Tensor:
        """See `MaskNetwork.logits`."""
        states: list[Tensor] = []
        guide = self.vote(magnitude, states)
        own = self.own_logits(magnitude, *more, guide=guide, states=states)
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
        self.low = None if network.low is None else InferenceLowBand(network.low, dtype)
        self.vocals = network.vocals
        folds = network.config.skips == "activated"
        self.laterals = nn.ModuleList(
            InferenceLateral(lateral, level, folds=folds, dtype=dtype)
            for lateral, level in zip(network.laterals, network.rest.encoder, strict=False)
        )

    def frame_masks(self, magnitude: Tensor, *more: Tensor) -> WriteFrames:
        """See `InferenceNetwork.frame_masks`."""
        level = rms_level(magnitude)
        states: list[Tensor] = []
        guide = guide_logits(self.guide, magnitude, level, states if self.laterals else None)
        sides = [see(state) for see, state in zip(self.laterals, states, strict=False)]
        if self.guide.mirrored:  # turning what has fewer channels back is less work
            sides = [side.flip(2, 3) for side in sides]
        own = self.rest.output(both_spectra(self.rest, magnitude, guide, level), sides)
        change = self._change(level, *more, own=own, guide=guide) if self.low else None
        weight, low = self.config.guide_weight, low_slice(self.config)

        def write(start: int, stop: int, room: Tensor) -> None:
            logits, votes = own(start, stop), guide[..., start:stop, :]
            part = None if change is None else change[..., start:stop, :]
            write_guided_masks(logits, votes, weight, self.vocals, room, part, low)

        return write

    def _change(self, level: Tensor, fine: Tensor, *, own: UNetLogits, guide: Tensor) -> Tensor:
        """What the branch adds, ``(batch, stems - 1, channels, frames, bins)``."""
        assert self.low is not None
        low = low_slice(self.config)
        said = own(0, guide.shape[-2], low).mT
        change: Tensor = self.low(fine, level, said, guide[..., low].mT)
        return change.mT


def check_guide(config: ModelConfig, guide: ModelConfig) -> None:
    """Make sure that a network can be the guide of another.

    Parameters
    ----------
    config
        Of the network that is guided, or is to be.
    guide
        Of the other.

    Raises
    ------
    ValueError
        If it cannot.
    """
    path = ("sample_rate", "channels", "n_fft", "hop_length", "bins")
    alike = all(getattr(config, name) == getattr(guide, name) for name in path)
    alone = (guide.networks, guide.stems, guide.input) == ("joint", ("vocals",), "linear")
    if not (alike and alone):
        raise ValueError(
            f"a guide must be one network for vocals alone, with linear input and equal "
            f"{', '.join(path)}"
        )
    seen, has = config.guide_states, state_channels(guide)
    if seen != has[: len(seen)]:
        raise ValueError(f"the network sees guide_states {seen} of its guide, which has {has}")


def plain(config: ModelConfig) -> ModelConfig:
    """The config of the network of a guided model, alone."""
    return dataclasses.replace(
        config, networks="joint", guide="", guide_states=(), low_bins=0, low_first=0
    )


def with_parts(network: Guided, config: ModelConfig) -> Guided:
    """A guided network with parts that it lacks, which change nothing before they are trained.

    It is the same network if it lacks none.

    Parameters
    ----------
    network
        Is left as it is.
    config
        ``guide_states``; and ``low_bins``, ``low_first`` and ``low_filters`` of a branch for low
        bins. What the network has of these stays as it is.
    """
    names = [] if network.laterals else ["guide_states"]
    names += [] if network.low else ["low_bins", "low_first", "low_filters"]
    wanted = {name: getattr(config, name) for name in names}
    whole = dataclasses.replace(network.config, **wanted)
    if whole == network.config:
        return network
    added = Guided(whole)
    added.load_state_dict(network.state_dict(), strict=False)
    added.attach(network.guide)
    return added.train(network.training)


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
    guided = Guided(network.config.guided(sha256))
    state = dict(network.state_dict())
    first = "encoder.0.0.weight"
    state[first] = torch.cat([state[first], torch.zeros_like(state[first])], dim=1)
    guided.rest.load_state_dict(state)
    guided.attach(guide)
    return guided.train(network.training)
