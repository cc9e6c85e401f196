"""The network that a run starts from, and its guide."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch

from ..config import ModelConfig
from ..network.guided import Guided, with_guide, with_parts
from ..network.masks import MaskNetwork
from ..weights.load import carry_guide, load_guide, load_network
from ..weights.manifest import is_path
from .config import TrainConfig, TrainingError
from .module import fresh_network


def load_run_guide(
    config: TrainConfig, run: Path, *models: str | Path | None
) -> MaskNetwork | None:
    """The guide of the config's model; an unpublished one may lie beside one of ``models``."""
    sha256 = config.model.guide
    if not sha256:
        return None
    folders = [Path(model).parent for model in models if model is not None and is_path(model)]
    for folder in (run, *folders):
        carry_guide(sha256, folder, run)
    return load_guide(sha256, run, "the network")


def first_network(
    config: TrainConfig, init_from: str | Path | None, guide: MaskNetwork | None
) -> MaskNetwork | None:
    """The network with which a run starts; None for a fresh one without a guide.

    Parameters
    ----------
    config
        Of the run.
    init_from
        Name or path of a checkpoint, or None.
    guide
        From `load_run_guide`.

    Raises
    ------
    TrainingError
        If the checkpoint does not fit the config.
    """
    if init_from is None:
        return None if guide is None else _attach(fresh_network(config), guide)
    start = load_network(init_from)
    if guide is not None and start.config.networks == "joint":
        start = with_guide(start, guide, config.model.guide)
    if isinstance(start, Guided):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            start = with_parts(start, config.model)
    check_fits(start.config, config.model, init_from)
    if start.config.bin_units == config.model.bin_units:
        return start
    network = fresh_network(config)
    network.load_state_dict(start.state_dict(), strict=False)
    return network if guide is None else _attach(network, guide)


def check_fits(start: ModelConfig, target: ModelConfig, init_from: str | Path) -> None:
    """Make sure that a network can start from the weights of another.

    Parameters
    ----------
    start, target
        Configs of the other, which may lack layers that mix bins, and of the network.
    init_from
        Name or path of the other, for the message.

    Raises
    ------
    TrainingError
        With the first field that differs.
    """
    start, target = start.as_trained, target.as_trained
    # Layers that mix bins start as the identity: a network without them can be given some.
    if start.bin_units == 0:
        start = replace(start, bin_units=target.bin_units)
    for name in (field.name for field in fields(target)):
        if getattr(start, name) != getattr(target, name):
            raise TrainingError(
                f"{init_from} does not fit this run: its {name} is "
                f"{getattr(start, name)!r}, the run's {getattr(target, name)!r}"
            )


def _attach(network: MaskNetwork, guide: MaskNetwork) -> MaskNetwork:
    assert isinstance(network, Guided)
    network.attach(guide)
    return network
