"""The command that retrains the networks of a run, from the run's own description."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...config import STEMS
from ...network.guided import plain
from ...network.presets import DEFAULT, NETWORKS, preset_config
from ..config import TrainConfig
from ..data.datasets import DATASETS
from ..data.run_data import HELD_OUT

# Settings with an option of the same name.
OPTIONS = (
    *("max_steps", "max_minutes", "batch_size", "clip_frames", "optimizer", "muon_size"),
    *("learning_rate", "warmup_steps", "schedule", "ema_decay", "precision", "varispeed"),
    *("coherent_share", "coherent_varispeed", "eq_db", "reverb_share", "seed", "valid_every"),
    *("watched", "early_stop"),
    *("gain_db", "coherent_gain_db", "own_share", "stereo_share", "drive_share"),
)


def train_command(config: TrainConfig, data: Mapping[str, Any]) -> str:
    """The options of ``unetsep train`` that differ from its defaults, and the data.

    Settings that no option reaches (they are `TrainConfig`'s) are left out.

    Parameters
    ----------
    config
        Of the run.
    data
        Its ``data.json``. Folders appear only by name: their paths mean nothing on another
        machine.

    Returns
    -------
    str
        A line for the shell. A network that is not a preset is that of the checkpoint from which
        the run started. Without one it is ``--network custom``, which is refused: such a run was
        started from Python.
    """
    default = TrainConfig(stems=config.stems, model=config.model)
    losses = ",".join(loss_words(config, name) for name in config.losses)
    words = ["unetsep", "train", "--losses", losses]
    for kind, roots in data["roots"].items():
        for root in roots:
            words += [DATASETS[kind].option, Path(root).name]
    if config.stems != STEMS:
        words += ["--stems", ",".join(config.stems)]
    if data.get("held_out", HELD_OUT) != HELD_OUT:
        words += ["--held-out", str(data["held_out"])]
    for name in data.get("leave_out") or ():
        words += ["--leave-out", name]
    words += _network(config, data)
    if data.get("init_from"):
        words += ["--init-from", Path(str(data["init_from"])).name]
    if data.get("guide"):
        words += ["--guide", Path(str(data["guide"])).name]
        if config.model.guide_states:
            words += ["--guide-levels", str(len(config.model.guide_states))]
    for name in OPTIONS:
        value = getattr(config, name)
        if value != getattr(default, name) or name in ("max_steps", "precision", "seed"):
            words += [_option(name), str(value)]
    for name in ("extra_share", "second_share"):
        shares = getattr(config, name)
        if shares != getattr(default, name):
            if name == "extra_share":  # stems that the option does not name have its default
                shares = dict.fromkeys(config.stems, 0.0) | shares
            values = ",".join(f"{stem}={share}" for stem, share in shares.items())
            words += [_option(name), values]
    if config.part == "low":
        first, count = config.model.low_first, config.model.low_bins
        words += ["--low-band", f"{first}-{first + count - 1}"]
    words += [
        _option(name)
        for name in ("artist_weights", "all_songs", "freeze_norm")
        if getattr(config, name)
    ]
    return shlex.join(words)


def _option(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"


def loss_words(config: TrainConfig, name: str) -> str:
    """A loss as the command names it; of a file only its own name."""
    place = config.own_losses.get(name, {}).get("from")
    if place is None:
        return name
    source, _, loss = place.rpartition(":")
    return f"{Path(source).name if source.endswith('.py') else source}:{loss}"


def _network(config: TrainConfig, data: Mapping[str, Any]) -> list[str]:
    """``--network`` and ``--targets``; none for what only the first checkpoint provides."""
    model, has_start = config.model, bool(data.get("init_from"))
    if model.networks == "guided":
        is_in_start = has_start and model.low_bins > 0 and config.part != "low"
        if is_in_start or not data.get("guide"):
            return []
        model = plain(model)
    stems = model.stems
    for name in NETWORKS:
        if preset_config(name, stems, stems=config.stems).as_trained == model.as_trained:
            # Without the option a run takes the network of the checkpoint that it starts from.
            network = [] if name == DEFAULT and not has_start else ["--network", name]
            is_subset = len(stems) < len(config.stems)
            return network + (["--targets", ",".join(stems)] if is_subset else [])
    return [] if has_start else ["--network", "custom"]
