"""Users' own losses: named, imported, tested, trained with, and recorded."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.commands import call
from tests.train.runs import run
from tests.train.synthetic import tiny, write_musdb
from unetsep.train.config import TrainConfig, TrainingError
from unetsep.train.losses import LOSSES, check
from unetsep.train.losses.functions import LossEntry
from unetsep.train.losses.own import add_loss, add_losses
from unetsep.weights.manifest import read_manifest

SOURCE = '''
"""Losses of a test."""


def mine(estimate, in_phase, quadrature):
    """A squared distance of roots."""
    true = (in_phase.square() + quadrature.square() + 1e-8).pow(0.25)
    return (true - (estimate + 1e-4).sqrt()).square().mean()
'''


@pytest.fixture(autouse=True)
def _registry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the losses that a test added."""
    before = dict(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [*LOSSES]:
        monkeypatch.setitem(LOSSES, name, before[name])
    monkeypatch.setitem(LOSSES, "mine", LOSSES["mse"])
    monkeypatch.delitem(LOSSES, "mine")


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_unetsep_passes_the_kit(name: str) -> None:
    check(name)


def total(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return ((estimate - in_phase).square() + quadrature.square()).sum()


def by_bin(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return ((estimate - in_phase).square() + quadrature.square()).mean(dim=-1)


def negative(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return -total(estimate, in_phase, quadrature)


def signed(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return (estimate - in_phase).mean()


def offset(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return 1 + ((estimate - in_phase).square() + quadrature.square()).mean()


def rough(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return ((estimate - in_phase).square() + quadrature.square()).sqrt().mean()


def detached(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return (estimate.detach() * (estimate - 2 * in_phase) + in_phase.square()).mean() + (
        quadrature.square().mean()
    )


def constant(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return ((estimate.detach() - in_phase).square() + quadrature.square()).mean()


def mismatched(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    return ((estimate - 2 * in_phase).square() + quadrature.square()).mean()


def si_sdr(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
    """Negative, in dB, of magnitudes."""
    true = (in_phase.square() + quadrature.square() + 1e-8).sqrt()
    axes = (-2, -1)
    share = (estimate * true).sum(axes, keepdim=True) / true.square().sum(axes, keepdim=True)
    signal, error = (share * true, estimate - share * true)
    power, noise = (each.square().sum(axes) + 1e-4 for each in (signal, error))
    return 10 * (noise / power).log10().mean()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (constant, "constant must have a gradient by the estimate: is it detached"),
        (by_bin, "by_bin must return a scalar tensor, got torch.Size"),
        (negative, "must be lower at the target"),
        (signed, r"must be lower at the target .*: it is 0 there, -\S+ for silence"),
        (rough, "must have a finite gradient in silence"),
        (detached, "has a gradient of .* where finite differences give"),
    ],
)
def test_the_kit_tests_the_properties_that_training_relies_on(loss: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(loss)  # type: ignore[arg-type]


AT_TARGET = r"the loss \w+ is \S+ at the target, not 0: compare its values in the log"
BY_FRAMES, BY_CLIPS = (
    rf"the loss \w+ is not the mean of its values for {kind} .*: CPUs train with its mean over 16 "
    for kind in ("blocks of frames", "clips")
)


@pytest.mark.parametrize(
    ("loss", "patterns"),
    [
        (offset, [AT_TARGET]),
        (mismatched, [AT_TARGET]),
        (total, [BY_FRAMES, BY_CLIPS]),
        (si_sdr, [AT_TARGET, BY_FRAMES]),
        (LOSSES["l1"].function, []),
    ],
)
def test_the_kit_warns_of_what_training_does_without(
    loss: Callable[..., Tensor], patterns: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    check(loss)
    assert len(caplog.messages) == len(patterns)
    for message, pattern in zip(caplog.messages, patterns, strict=True):
        assert re.match(pattern, message)


def test_one_of_many_processes_warns(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("NODE_RANK", "1")
    check(offset)
    assert not caplog.messages
    monkeypatch.setenv("NODE_RANK", "0")
    check(offset)
    assert len(caplog.messages) == 1


def test_a_ratio_in_decibels_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSSES, "mine", LossEntry(si_sdr, ""))
    lines = run(tmp_path / "run", tiny(losses=("mine",), max_steps=30, valid_every=30))
    values = [line["train/mine"] for line in lines if "train/mine" in line]
    assert sum(values[-5:]) < sum(values[:5])
    assert min(values) < 0


@pytest.mark.parametrize("text", ["losses.py:mine", "losses:mine"])
def test_a_loss_is_loaded_from_a_file_or_a_module(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "losses.py").write_text(SOURCE)
    monkeypatch.delitem(sys.modules, "losses", raising=False)
    name, about = add_loss(text)
    assert name == "mine"
    assert about is not None
    assert about["sha256"] == hashlib.sha256(SOURCE.encode()).hexdigest()
    assert about["from"].endswith("losses.py:mine" if ".py" in text else "losses:mine")
    assert LOSSES["mine"].summary == "A squared distance of roots."
    value = LOSSES["mine"].function(*torch.rand(3, 2, 5, 4))
    assert value > 0
    assert add_loss(text)[0] == "mine"
    assert add_loss("mse") == ("mse", None)


def test_an_installed_package_can_add_losses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCE.replace("def mine", "def roots")
    (tmp_path / "other_losses.py").write_text(source)
    info = tmp_path / "other_losses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-losses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[unetsep.losses]\nmine = other_losses:roots\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.invalidate_caches()
    listed = call("train", "--list-losses")
    assert "mine" in listed.output
    assert "other_losses:roots" in listed.output
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    origin = {"from": "other_losses:roots", "sha256": sha256}
    assert add_loss("mine") == ("mine", origin)
    del LOSSES["mine"]  # as when another process resumes
    assert add_losses({"mine": origin}) == {"mine": origin}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.py:mine", "there is no file nowhere.py"),
        ("no_such_module_at_all:mine", "cannot be imported: No module named"),
        ("bad.py:other", "cannot be imported: bad.py has no attribute 'other'"),
        ("bad.py:number", "is 5: expected a function of three arrays"),
        ("bad.py:mse", "there is a loss 'mse' already"),
        ("bad.py:two", r"--loss bad.py:two fails: TypeError: two\(\) takes 2 positional arguments"),
        ("bad.py:broken", "--loss bad.py:broken fails: ZeroDivisionError: division by zero"),
        ("worse.py:mine", "--loss worse.py:mine cannot be imported: NameError: name 'nothing'"),
    ],
)
def test_an_unusable_loss_is_refused_with_a_message(
    text: str, message: str, tmp_path: Path
) -> None:
    code = "number = 5\ndef mse(estimate, in_phase, quadrature):\n    return estimate.mean()\n"
    code += "def two(estimate, in_phase):\n    return estimate.mean()\n"
    code += "def broken(*parts):\n    return 1 / 0\n"
    (tmp_path / "bad.py").write_text(code)
    (tmp_path / "worse.py").write_text("mine = nothing\n")
    before = dict(LOSSES)
    with pytest.raises(TrainingError, match=message):
        add_loss(text)
    assert before == LOSSES


def test_a_run_stores_the_loss_and_its_source(tmp_path: Path) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "C - D", "Leaf - Summerghost"), 300_000)
    file = tmp_path / "losses.py"
    file.write_text(SOURCE)
    run = tmp_path / "run"
    start = ["train", "--run", run, "--musdb-root", tmp_path / "musdb", "--cache", "cache"]
    start += ["--accelerator", "cpu", "--workers", "0", "--batch-size", "1", "--quiet"]
    start += ["--network", "small", "--clip-frames", "64", "--valid-every", "1"]
    begun = call(*start, "--loss", f"{file}:mine", "--max-steps", 1)
    assert begun.exit_code == 0, begun.output
    own = json.loads((run / "config.json").read_text())["own_losses"]
    sha256 = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert own == {"mine": {"from": f"{file}:mine", "sha256": sha256}}
    again = call("train", "--run", run, "--resume", "--max-steps", 2, "--quiet")
    assert again.exit_code == 0, again.output
    exported = call("export", run, "--no-check", "--manifest", tmp_path / "manifest.json")
    assert exported.exit_code == 0, exported.output
    entry = read_manifest(tmp_path / "manifest.json").checkpoints["mine"]
    assert entry.loss == "mine"
    assert entry.training["settings"]["own_losses"] == {
        "mine": {"from": "losses.py:mine", "sha256": sha256}
    }
    assert "--losses losses.py:mine " in entry.training["command"]
    file.write_text(SOURCE.replace("0.25", "0.2").replace(".sqrt()", ".pow(0.4)"))
    del LOSSES["mine"]
    changed = call("train", "--run", run, "--resume", "--max-steps", 3, "--quiet")
    assert changed.exit_code == 1
    assert "is of another run: its own_losses is" in changed.output


def test_python_names_losses_as_the_command_does(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(SOURCE)
    config = tiny(losses=("l1", "losses.py:mine"), max_steps=1, valid_every=1)
    run(tmp_path / "run", config)
    saved = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert saved.losses == ("l1", "mine")
    assert saved.own_losses["mine"]["from"] == f"{(tmp_path / 'losses.py').resolve()}:mine"
    del LOSSES["mine"]  # as in another process
    longer = dataclasses.replace(saved, max_steps=2)
    assert run(tmp_path / "run", longer, resume=True)[-1]["step"] == 2


OBJECTS = """
import functools


class Squared:
    def __call__(self, estimate, in_phase, quadrature):
        return ((estimate - in_phase).square() + quadrature.square()).mean()


def power(exponent, estimate, in_phase, quadrature):
    return ((estimate - in_phase).abs() ** exponent + quadrature.square()).mean()


mine = Squared()
partial = functools.partial(power, 2)
"""


@pytest.mark.parametrize("name", ["mine", "partial"])
def test_a_loss_that_is_no_plain_function_resumes_in_the_same_process(
    name: str, tmp_path: Path
) -> None:
    (tmp_path / "losses.py").write_text(OBJECTS)
    config = tiny(losses=(f"losses.py:{name}",), max_steps=1, valid_every=1)
    run(tmp_path / "run", config)
    longer = dataclasses.replace(config, max_steps=2)
    assert run(tmp_path / "run", longer, resume=True)[-1]["step"] == 2


def test_an_edited_loss_replaces_the_one_of_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(SOURCE)
    _, before = add_loss("losses.py:mine")
    parts = torch.rand(3, 2, 5, 4)
    value = LOSSES["mine"].function(*parts)
    (tmp_path / "losses.py").write_text(SOURCE.replace("return ", "return 2 * "))
    _, after = add_loss("losses.py:mine")
    assert after != before
    assert torch.equal(LOSSES["mine"].function(*parts), 2 * value)
    edited = LOSSES["mine"]
    (tmp_path / "losses.py").write_text(SOURCE.replace("return ", "return -"))
    with pytest.raises(ValueError, match="must be lower at the target"):
        add_loss("losses.py:mine")
    assert LOSSES["mine"] is edited
    (tmp_path / "others.py").write_text(SOURCE)
    with pytest.raises(TrainingError, match=r"'mine' already: rename the one of others\.py"):
        add_loss("others.py:mine")
    assert add_loss("mine") == ("mine", after)


def test_a_run_stores_the_source_of_a_loss_that_it_names_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "losses.py").write_text(SOURCE)
    name, origin = add_loss("losses.py:mine")
    run(tmp_path / "run", tiny(losses=(name,), max_steps=1, valid_every=1))
    saved = TrainConfig.from_json((tmp_path / "run" / "config.json").read_text())
    assert saved.own_losses == {"mine": origin}
    del LOSSES["mine"]  # as in another process
    longer = dataclasses.replace(saved, max_steps=2)
    assert run(tmp_path / "run", longer, resume=True)[-1]["step"] == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.py:mine", "there is no file nowhere.py"), ("minimum", "there is no loss 'minimum'")],
)
def test_python_refuses_unusable_losses_before_anything_is_written(
    name: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises((TrainingError, ValueError), match=message):
        run(tmp_path / "run", tiny(losses=(name,)))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["C:\\x.py", "c:/losses/x.py", "x.py"])
def test_a_path_without_a_loss_is_refused_and_no_drive_taken_for_a_module(text: str) -> None:
    with pytest.raises(ValueError, match=r"there is no loss .*, module:name or file\.py:name"):
        add_loss(text)
