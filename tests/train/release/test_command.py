from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unetsep.cli import CONTEXT
from unetsep.cli.options.train import train
from unetsep.cli.train import TrainOptions, _model, _parsed
from unetsep.config import STEMS, ModelConfig
from unetsep.network.build import build
from unetsep.network.presets import NETWORKS, preset_config
from unetsep.train.config import TrainConfig
from unetsep.train.release.command import train_command
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import load_network

ROOTS = {"musdb": ["/data/musdb18-7"], "songs": ["/data/songs"], "pools": ["/a/x", "/b/y"]}
DATA = {"roots": ROOTS}


def parse_command(config: TrainConfig) -> dict[str, object]:
    """The command's options as click understands them."""
    words = shlex.split(train_command(config, DATA))
    assert words[:2] == ["unetsep", "train"]
    return train.make_context("train", words[2:], **CONTEXT).params


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"losses": ("mse", "l1"), "max_steps": 500, "seed": 3, "learning_rate": 2e-3},
        {"batch_size": 2, "varispeed": 0.1, "eq_db": 3.0, "ema_decay": 0.9, "max_minutes": 9.0},
        {"optimizer": "adamw"},
        {"muon_size": 0.2},
        {"varispeed": 0.1, "coherent_varispeed": 0.2, "coherent_share": 0.5},
        {"gain_db": 3.0, "coherent_gain_db": 2.0},
        {"stereo_share": 0.2, "drive_share": 0.1, "artist_weights": True},
        {"all_songs": True},
    ],
)
def test_the_command_has_options_that_differ_from_the_defaults(changed: dict[str, object]) -> None:
    config = dataclasses.replace(TrainConfig(), **changed)
    found = parse_command(config)
    assert found["losses"] == config.losses
    assert [str(found["musdb_root"]), *map(str, found["songs"])] == ["musdb18-7", "songs"]
    assert [*map(str, found["pools"])] == ["x", "y"]
    for name in ("max_steps", "seed", "precision"):
        assert found[name] == getattr(config, name)
    for name in ("learning_rate", "batch_size", "varispeed", "eq_db", "ema_decay", "max_minutes"):
        assert found[name] == changed.get(name)
    for name in ("optimizer", "muon_size", "coherent_varispeed", "coherent_share"):
        assert found[name] == changed.get(name)
    for name in ("gain_db", "coherent_gain_db", "stereo_share", "drive_share"):
        assert found[name] == changed.get(name)
    for name in ("artist_weights", "all_songs"):
        assert found[name] == changed.get(name)
    assert (found["network"], found["targets"], found["extra_share"]) == (None, None, None)


# A value that is not the default, of each setting that has an option of its name.
CHANGED: dict[str, Any] = {
    "losses": ("mse",), "stems": ("vocals", "rest"), "max_steps": 7, "max_minutes": 1.5,
    "batch_size": 3, "clip_frames": 128, "learning_rate": 2e-3, "warmup_steps": 9,
    "optimizer": "adamw", "muon_size": 0.3, "schedule": "plateau", "ema_decay": 0.9,
    "precision": "bf16", "freeze_norm": True, "coherent_share": 0.5,
    "extra_share": {"vocals": 0.25, "drums": 0.5, "bass": 0.75, "other": 0.5},
    "second_share": {"bass": 0.25}, "gain_db": 3.0, "coherent_gain_db": 2.0,
    "varispeed": 0.1, "coherent_varispeed": 0.2, "eq_db": 3.0, "reverb_share": 0.1,
    "own_share": 0.5, "stereo_share": 0.2, "drive_share": 0.1,
    "artist_weights": True, "all_songs": True, "seed": 3, "valid_every": 50, "watched": 14,
    "early_stop": 8,
}  # fmt: skip


def test_every_setting_that_has_an_option_is_in_the_command() -> None:
    settings = {field.name for field in dataclasses.fields(TrainConfig)}
    assert set(CHANGED) == settings & {parameter.name for parameter in train.params}
    for name, value in CHANGED.items():
        stems = value if name == "stems" else STEMS
        config = TrainConfig(**{name: value}, model=preset_config("mixing", None, stems=stems))
        shown = ",".join(f"{k}={v:g}" for k, v in value.items()) if isinstance(value, dict) else ""
        assert parse_command(config)[name] == (shown or value), name


def test_the_command_names_what_was_left_out() -> None:
    left = ["A, B - It's C", "x=vocals,other"]
    words = shlex.split(train_command(TrainConfig(), DATA | {"held_out": 0, "leave_out": left}))
    found = train.make_context("train", words[2:], **CONTEXT).params
    assert (found["held_out"], list(found["leave_out"])) == (0, left)
    words = shlex.split(train_command(TrainConfig(), DATA))
    found = train.make_context("train", words[2:], **CONTEXT).params
    assert (found["held_out"], found["leave_out"]) == (None, ())


def test_names_with_spaces_are_quoted() -> None:
    losses = {"my losses.py:mine": {"from": "/a/my losses.py:mine"}}
    config = TrainConfig(losses=tuple(losses), own_losses=losses)
    data = {
        "roots": {"songs": ["/data/My Songs"]},
        "init_from": "/a/first run.safetensors",
        "guide": "/a/it's mine.safetensors",
    }
    words = shlex.split(train_command(config, data))
    found = train.make_context("train", words[2:], **CONTEXT).params
    assert found["losses"] == ("my losses.py:mine",)
    assert list(map(str, found["songs"])) == ["My Songs"]
    assert found["init_from"] == "first run.safetensors"
    assert found["guide"] == "it's mine.safetensors"


@pytest.mark.parametrize("network", ["small", "mixing", "large", "wide", "spleeter"])
@pytest.mark.parametrize("targets", [None, ["vocals"], ["vocals", "bass"]])
def test_the_command_names_preset_networks(network: str, targets: list[str] | None) -> None:
    shares = {"vocals": 0.5, "drums": 0.0, "bass": 1 / 3, "other": 1.0}
    config = TrainConfig(model=preset_config(network, targets), extra_share=shares)
    found = parse_command(config)
    named = str(found["network"] or "mixing")
    chosen = found["targets"]
    assert preset_config(named, chosen) == config.model
    assert found["extra_share"] == f"vocals=0.5,drums=0.0,bass={1 / 3},other=1.0"


@pytest.mark.parametrize("shares", [{}, {"bass": 0.5}])
def test_stems_without_a_share_have_none_in_the_command(shares: dict[str, float]) -> None:
    config = TrainConfig(extra_share=shares)
    words = {"extra_share": parse_command(config)["extra_share"]}
    assert _parsed(words, "cpu", STEMS) == {"extra_share": dict.fromkeys(STEMS, 0.0) | shares}


def test_a_network_that_is_no_preset_is_called_custom() -> None:
    config = TrainConfig(model=ModelConfig(filters=(4, 4)))
    assert "--network custom" in train_command(config, {"roots": {}})


def test_the_command_names_the_checkpoint_that_the_run_began_with() -> None:
    begin = {"init_from": "/runs/long/best-mse.safetensors", "guide": "/a/vocals.safetensors"}
    command = train_command(TrainConfig(own_share=0.5), DATA | begin)
    assert "--init-from best-mse.safetensors --guide vocals.safetensors" in command
    assert "--own-share 0.5" in command


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[ModelConfig], str]:
    """Untrained weights of a network, as a file."""

    def write(model: ModelConfig) -> str:
        path = tmp_path / "begin.safetensors"
        path.write_bytes(serialize(build(model), half=False))
        return str(path)

    return write


CUSTOM = ModelConfig(n_fft=512, hop_length=128, bins=64, filters=(4, 6), segment_frames=64)


@pytest.mark.parametrize(
    ("trained", "begun"),
    [
        (NETWORKS["mixing"], NETWORKS["small"]),  # layers were added
        (NETWORKS["small"], NETWORKS["small"]),
        (NETWORKS["mixing"], NETWORKS["mixing"]),
        (preset_config("mixing", ["vocals"]), preset_config("mixing", ["vocals"])),
        (CUSTOM, CUSTOM),
    ],
)
def test_the_command_trains_the_same_network_from_a_checkpoint(
    trained: ModelConfig, begun: ModelConfig, checkpoint: Callable[[ModelConfig], str]
) -> None:
    begin = checkpoint(begun)
    config = TrainConfig(model=trained, clip_frames=64)
    words = shlex.split(train_command(config, DATA | {"init_from": begin}))
    found = train.make_context("train", words[2:], **CONTEXT).params
    assert found["init_from"] == Path(begin).name
    options = TrainOptions.from_values({**found, "init_from": begin})
    assert _model(options, load_network(begin).config) == trained


def test_a_branch_of_the_first_checkpoint_needs_no_network_option() -> None:
    model = preset_config("mixing").guided("a" * 64)
    model = dataclasses.replace(model, low_bins=128)
    begin = {"init_from": "guided.safetensors", "guide": "vocals.safetensors"}
    assert "--network" not in train_command(TrainConfig(model=model), DATA | begin)
    alone = train_command(TrainConfig(model=model, part="low"), DATA | begin)
    assert "--network mixing" in alone
    assert "--low-band 0-127" in alone


def test_a_guided_network_has_the_name_of_its_plain_form() -> None:
    model = dataclasses.replace(preset_config("small", None), networks="guided", guide="a" * 64)
    named = train_command(TrainConfig(model=model), DATA | {"guide": "vocals.safetensors"})
    assert "--network small --guide vocals.safetensors" in named
    assert "--guide-levels" not in named
    seeing = dataclasses.replace(model, guide_states=(32, 64))
    named = train_command(TrainConfig(model=seeing), DATA | {"guide": "vocals.safetensors"})
    assert "--network small --guide vocals.safetensors --guide-levels 2" in named
    resumed = train_command(TrainConfig(model=model), DATA | {"init_from": "guided"})
    assert "--network" not in resumed
