"""Runs of networks with a guide, from Python and from the command line."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.commands import call
from tests.train.runs import At, make_command_small, run
from tests.train.synthetic import GUIDE, MODEL, RATE, pcm, tiny, write_musdb
from unetsep.errors import WeightsError
from unetsep.network.guided import Guided, with_guide, with_parts
from unetsep.network.masks import MaskNetwork
from unetsep.network.unet import UNet
from unetsep.separator import Separator
from unetsep.train.config import TrainingError
from unetsep.train.module import SeparationModule
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import load_network

TRAIN = ("train", "--accelerator", "cpu", "--workers", 0, "--run")
THREE_STEPS = ("--batch-size", 2, "--valid-every", 3, "--max-steps", 3, "--precision", "bf16")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints of a guide and of a network without one."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(3)
    networks = {"guide": UNet(GUIDE), "plain": UNet(MODEL)}
    for name, network in networks.items():
        (folder / name).mkdir()
        (folder / name / f"{name}.safetensors").write_bytes(serialize(network, half=False))
    return {name: folder / name / f"{name}.safetensors" for name in networks}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def recordings(folder: Path) -> tuple[object, ...]:
    """Write two training songs and one for validation; the options that name them."""
    write_musdb(folder / "musdb", ("A - B", "C - D", "Leaf - Summerghost"))
    return ("--loss", "mse", "--musdb-root", folder / "musdb", "--cache", folder / "cache")


def assert_stems_add_up(model: MaskNetwork | Path) -> None:
    song = pcm(1).T.astype(np.float32) / 32768
    stems = Separator(model).separate(song, RATE)
    np.testing.assert_allclose(np.sum(list(stems.values()), axis=0), song, atol=1e-5)


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_command_small(monkeypatch)


@pytest.mark.usefixtures("_small")
def test_a_guided_network_is_trained_resumed_exported_and_separates(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    data, folder = recordings(tmp_path), tmp_path / "run"
    start = ("train", "--run", folder, "--accelerator", "cpu", "--workers", 0)
    begin = ("--init-from", files["plain"], "--guide", files["guide"])
    steps = ("--batch-size", 2, "--valid-every", 5, "--precision", "bf16", "--watched", 1)
    told = call(*start, *data, *begin, *steps, "--max-steps", 5)
    assert told.exit_code == 0, told.output
    saved = json.loads((folder / "data.json").read_text())
    assert saved["guide"] == str(files["guide"])
    (folder / "data.json").write_text(json.dumps(saved | {"guide": "/gone.safetensors"}))
    told = call(*start, "--resume", "--max-steps", 10)  # the run has a copy of the guide
    assert told.exit_code == 0, told.output
    state = torch.load(folder / "last.ckpt", weights_only=True)
    assert state["global_step"] == 10
    assert all(".rest." in name for name in state["state_dict"] if name.startswith("networks."))

    told = call("export", folder)
    assert told.exit_code == 0, told.output
    entry = json.loads((folder / "export" / "mse.json").read_text())
    assert entry["config"]["networks"] == "guided"
    assert entry["config"]["guide"] == sha256(files["guide"])
    exported = folder / "export" / "mse.safetensors"
    network, plain = load_network(exported), load_network(files["plain"])
    assert isinstance(network, Guided)
    assert all(name.startswith("rest.") for name in network.state_dict())
    for name, value in network.guide.state_dict().items():
        assert torch.equal(value, load_network(files["guide"]).state_dict()[name])
    assert not torch.equal(network.rest.head.weight, plain.head.weight)
    stems = Separator(exported).separate(pcm(1).T.astype(np.float32) / 32768, RATE)
    assert {stem: bool(np.isfinite(x).all()) for stem, x in stems.items()} == dict.fromkeys(
        MODEL.stems, True
    )

    other = call(*start[:2], tmp_path / "next", *start[3:], *data, "--init-from", exported, *steps,
                 "--max-steps", 1)  # fmt: skip
    assert other.exit_code == 0, other.output
    best = [tmp_path / name / "best-mse.safetensors" for name in ("run", "next")]
    mean = tmp_path / "means" / "mean.safetensors"
    told = call("average", *best, "-o", mean)
    assert told.exit_code == 0, told.output
    assert load_network(mean).config == network.config


def test_a_guide_that_is_not_beside_the_checkpoint_is_an_error(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    model = dataclasses.replace(MODEL, networks="guided", guide=sha256(files["guide"]))
    config = tiny(model=model, losses=("mse",), max_steps=1)
    run(tmp_path / "run", config, guide=files["guide"])
    assert isinstance(load_network(tmp_path / "run" / "best-mse.safetensors"), Guided)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(tmp_path / "run" / "best-mse.safetensors", alone)
    with pytest.raises(WeightsError, match="put its file beside the checkpoint"):
        load_network(alone)
    with pytest.raises(WeightsError, match="the network is guided by a model that is not here"):
        run(tmp_path / "other", config)


def test_a_run_begins_with_both_networks_and_does_not_train_the_guide(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    model = dataclasses.replace(MODEL, networks="guided", guide=sha256(files["guide"]))
    seen: list[torch.Tensor] = []
    magnitude = torch.rand(1, 2, 64, 64)
    plain = load_network(files["plain"])

    @torch.no_grad()
    def look(module: SeparationModule) -> None:
        network = module.network("mse")
        assert isinstance(network, Guided)
        network.eval()
        rest = network(magnitude)[:, 1:]
        seen.append(rest / rest.sum(dim=1, keepdim=True))
        network.train()
        names = [name for name, _ in module.named_parameters()]
        assert names
        assert all(".rest." in name for name in names)

    config = tiny(model=model, losses=("mse", "l1"), max_steps=3)
    sources = {"init_from": files["plain"], "guide": files["guide"]}
    lines = run(tmp_path, config, callbacks=[At(0, look)], **sources)
    expected = plain(magnitude)[:, 1:]
    torch.testing.assert_close(seen[0], expected / expected.sum(dim=1, keepdim=True))
    assert "valid/l1/mean" in lines[-1]
    assert all(np.isfinite(line["train/mse"]) for line in lines if "train/mse" in line)


def test_layers_that_mix_bins_can_be_added_beside_a_guide(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    model = dataclasses.replace(MODEL, networks="guided", guide=sha256(files["guide"]), bin_units=4)
    sources = {"init_from": files["plain"], "guide": files["guide"]}
    run(tmp_path / "run", tiny(model=model, losses=("mse",), max_steps=1), **sources)
    assert load_network(tmp_path / "run" / "best-mse.safetensors").config == model
    wide = dataclasses.replace(model, filters=(8, 8))
    with pytest.raises(TrainingError, match=r"its filters is \(4, 6\)"):
        run(tmp_path / "wide", tiny(model=wide, losses=("mse",)), **sources)


@pytest.mark.usefixtures("_small")
def test_a_network_with_states_of_its_guide_is_trained_from_random_weights(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    data, start, steps = recordings(tmp_path), (*TRAIN, tmp_path / "run"), THREE_STEPS
    refused = call(*start, *data, "--guide-levels", 1, *steps)
    assert (
        "--guide-levels counts levels of the network that --guide names: name one" in refused.output
    )
    refused = call(*start, *data, "--guide", files["guide"], "--guide-levels", 2, *steps)
    assert f"--guide-levels 2: expected at most 1, as {files['guide']} has" in refused.output
    told = call(*start, *data, "--guide", files["guide"], "--guide-levels", 1, *steps)
    assert told.exit_code == 0, told.output
    refused = call(*start, "--resume", "--guide-levels", 0)
    assert "cannot be combined with --network, --targets, --guide, --guide-levels" in " ".join(
        refused.output.split()
    )
    assert call("export", tmp_path / "run").exit_code == 0
    network = load_network(tmp_path / "run" / "export" / "mse.safetensors")
    assert isinstance(network, Guided)
    assert network.config.guide_states == (8,)
    assert bool(network.laterals[0].weight.any())  # type: ignore[operator]
    assert_stems_add_up(network)


@pytest.mark.usefixtures("_small")
def test_the_network_of_a_guided_checkpoint_can_be_named_beside_its_guide(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    guide = files["guide"]
    guided = with_guide(load_network(files["plain"]), load_network(guide), sha256(guide))
    first = tmp_path / "guided.safetensors"
    first.write_bytes(serialize(guided, half=False))
    shutil.copy(guide, tmp_path)  # where the network finds it
    begin = ("--network", "mixing", "--init-from", first)  # as an exported command has it
    start = (*TRAIN, tmp_path / "run", *recordings(tmp_path), *begin, *THREE_STEPS)
    refused = call(*start)
    assert "its networks is 'guided', the run's 'joint'" in " ".join(refused.output.split())
    assert not (tmp_path / "cache").exists()
    told = call(*start, "--guide", guide)
    assert told.exit_code == 0, told.output


@pytest.mark.usefixtures("_small")
def test_levels_of_the_guide_are_those_of_the_first_checkpoint(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    guide, data = files["guide"], recordings(tmp_path)
    guided = with_guide(load_network(files["plain"]), load_network(guide), sha256(guide))
    first = tmp_path / "guided.safetensors"
    seeing = with_parts(guided, dataclasses.replace(guided.config, guide_states=(8,)))
    first.write_bytes(serialize(seeing, half=False))
    shutil.copy(guide, tmp_path)  # where the network finds it
    start = (*TRAIN, tmp_path / "run", *data, "--guide", guide, "--init-from", first, *THREE_STEPS)
    before = sorted(path.name for path in tmp_path.iterdir())
    refused = call(*start, "--guide-levels", 0)
    assert "its guide_states is (8,), the run's ()" in " ".join(refused.output.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    told = call(*start, "--network", "mixing")
    assert told.exit_code == 0, told.output


@pytest.mark.usefixtures("_small")
def test_an_unusable_guide_is_refused_before_decoding_or_writing(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    data = recordings(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    words = (*TRAIN, tmp_path / "run", *data, "--guide", files["plain"], *THREE_STEPS)
    told = call(*words)
    assert told.exit_code == 1
    assert "a guide must be one network for vocals alone" in " ".join(told.output.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--targets", "vocals,bass"), "expected a network of several stems, vocals among them"),
        (("--low-band", "0-15", "--losses", "mse,mel_mse"), "the loss mel_mse needs all: choose"),
        (("--low-band", "0-15", "--losses", "perceptual"), "the loss perceptual needs all"),
    ],
)
def test_options_that_exclude_a_guide_are_refused_before_decoding_or_writing(
    tmp_path: Path, files: dict[str, Path], options: tuple[str, ...], sentence: str
) -> None:
    data = recordings(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    begin = ("--guide", files["guide"], *THREE_STEPS, *options)
    told = call(*TRAIN, tmp_path / "run", *data, *begin)
    assert told.exit_code == 1
    assert sentence in " ".join(told.output.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.usefixtures("_small")
def test_a_branch_for_low_bins_is_trained_alone_then_with_the_rest(
    tmp_path: Path, files: dict[str, Path]
) -> None:
    data, start, steps = recordings(tmp_path), TRAIN, THREE_STEPS
    begin = ("--init-from", files["plain"], "--guide", files["guide"])
    first, low, both = (tmp_path / name for name in ("first", "low", "both"))
    told = call(*start, first, *data, *begin, *steps)
    assert told.exit_code == 0, told.output

    refused = call(*start, low, *data, "--low-band", "5", *steps)
    assert refused.exit_code != 0
    assert "--low-band '5': expected the first and the last bin, as 0-127" in refused.output
    best = [folder / "best-mse.safetensors" for folder in (first, low, both)]
    told = call(*start, low, *data, "--init-from", best[0], "--low-band", "0-15", *steps)
    assert told.exit_code == 0, told.output
    told = call(*start, low, "--resume", "--max-steps", 6)
    assert told.exit_code == 0, told.output
    before, after = (load_network(path) for path in best[:2])
    assert isinstance(after, Guided)
    assert after.low is not None
    assert (after.config.low_bins, after.config.low_first) == (16, 0)
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name]), name
    assert bool(after.low.head.weight.any())
    assert not torch.equal(after.low.fine_std, torch.ones_like(after.low.fine_std))

    refused = call(*start, both, *data, "--init-from", best[1], "--low-band", "16-31", *steps)
    assert refused.exit_code != 0
    assert f"{best[1]} has a branch for bins 0-15: use --low-band 0-15" in refused.output
    assert not both.exists()
    told = call(*start, both, *data, "--init-from", best[1], *steps)
    assert told.exit_code == 0, told.output
    whole = load_network(best[2])
    assert isinstance(whole, Guided)
    assert whole.low is not None
    assert torch.equal(whole.low.fine_std, after.low.fine_std)
    assert not torch.equal(whole.low.head.weight, after.low.head.weight)
    assert not torch.equal(whole.rest.head.weight, after.rest.head.weight)
    assert_stems_add_up(best[2])
