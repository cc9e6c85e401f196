"""The commands ``train``, ``export`` and ``publish``."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from tests.commands import call
from tests.train.runs import At, make_command_small
from tests.train.synthetic import MODEL, write, write_musdb
from unetsep.cli import train as train_commands
from unetsep.cli.errors import ExtraCommand
from unetsep.cli.train import UNLIMITED
from unetsep.config import STEMS
from unetsep.train import fit as fitting
from unetsep.train.config import TrainConfig
from unetsep.train.data import cache
from unetsep.train.losses.functions import LOSSES
from unetsep.train.machine import Machine
from unetsep.unfinished import ENDING
from unetsep.weights.load import load_network
from unetsep.weights.manifest import read_manifest


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks and clips of a size for tests, no pictures; no MUSDB18 in the environment."""
    make_command_small(monkeypatch)
    monkeypatch.setattr(fitting, "draw_curves", lambda *_, **__: None)
    monkeypatch.delenv("MUSDB_PATH", raising=False)


def test_a_run_is_trained_resumed_and_exported_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "C - D", "Leaf - Summerghost"))
    monkeypatch.setenv("MUSDB_PATH", str(tmp_path / "musdb"))
    run = tmp_path / "my [first] run"
    start = ("train", "--run", run, "--accelerator", "cpu", "--workers", 0)
    settings = ("--batch-size", 2, "--valid-every", 2, "--precision", "fp32")
    told = call(
        *start, "--losses", "l1,mse", "--cache", tmp_path / "cache", *settings, "--max-steps", 2
    )
    assert told.exit_code == 0, told.output
    assert "Training l1, mse on 2 recordings" in told.output
    assert f"writing to {run}\n" in told.output
    assert "step 2 l1: SDR in dB vocals" in told.output
    quote = '"' if os.name == "nt" else "'"
    assert f"Next: unetsep export {quote}{run.as_posix()}{quote}" in told.output.replace("\n", "")
    assert json.loads((run / "data.json").read_text())["roots"] == {
        "musdb": [str(tmp_path / "musdb")]
    }
    lists = {
        "songs": ["musdb/train/A - B", "musdb/train/C - D"],
        "valid_songs": ["musdb/valid/Leaf - Summerghost"],
    }
    notes = json.loads((run / "songs.json").read_text())
    recordings = notes.pop("recordings")
    assert notes == lists
    assert set(recordings) == {*lists["songs"], *lists["valid_songs"]}
    monkeypatch.delenv("MUSDB_PATH")
    again = call(*start, "--resume", "--max-steps", 4)
    assert again.exit_code == 0, again.output
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 4
    other = call(*start, "--resume", "--seed", 9)
    assert other.exit_code == 1
    assert "its seed is 0, this run's 9" in other.output
    exported = call("export", run, "--loss", "l1", "--manifest", tmp_path / "manifest.json")
    assert exported.exit_code == 0, exported.output
    (entry,) = read_manifest(tmp_path / "manifest.json").checkpoints.values()
    assert entry.training["data"] == ["musdb"]
    assert entry.training.items() >= lists.items()
    assert "recordings" not in entry.training
    assert entry.scores["change_by_half_precision"] < 0.01


def test_an_older_run_is_resumed_with_its_duplicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    for name in ("one", "two"):
        write(tmp_path / "pools" / "bass" / name, 1)
    run = tmp_path / "run"
    start = ("train", "--run", run, "--accelerator", "cpu", "--workers", 0)
    data = ("--musdb-root", tmp_path / "musdb", "--pools", tmp_path / "pools")
    settings = ("--batch-size", 1, "--valid-every", 1, "--precision", "fp32", "--max-steps", 1)
    with monkeypatch.context() as before:
        before.setattr(cache, "distinct", lambda sources, *_: (sources, []))
        told = call(*start, "--loss", "l1", *data, "--cache", tmp_path / "cache", *settings)
        assert told.exit_code == 0, told.output
    for name in ("one", "two"):
        write(tmp_path / "pools" / "bass" / name, 2)
    again = call(*start, "--resume", "--max-steps", 2)
    assert again.exit_code == 0, again.output
    words = " ".join(again.output.split())  # lines are folded
    assert "with audio that has changed: pools/train/bass/one has other content" in words
    songs = json.loads((run / "songs.json").read_text())["songs"]
    assert songs == ["musdb/train/A - B", "pools/train/bass/one", "pools/train/bass/two"]


def test_a_run_is_resumed_only_on_its_own_songs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    write_musdb(tmp_path / "other", ("C - D", "Leaf - Summerghost"))
    write(tmp_path / "pools" / "bass" / "one", 1)
    write(tmp_path / "others" / "bass" / "two", 2)
    run = tmp_path / "run"
    start = ("train", "--run", run, "--accelerator", "cpu", "--workers", 0)
    data = ("--musdb-root", tmp_path / "musdb", "--pools", tmp_path / "pools")
    settings = ("--batch-size", 1, "--valid-every", 1, "--precision", "fp32", "--max-steps", 1)
    told = call(*start, "--loss", "l1", *data, "--cache", tmp_path / "cache", *settings)
    assert told.exit_code == 0, told.output
    assert "on 2 recordings (0 min; 1 of musdb, 1 of pools)" in " ".join(told.output.split())
    files = [run / name for name in ("data.json", "songs.json", "config.json")]
    before = [file.read_bytes() for file in files]
    for words, message in (
        (("--pools", tmp_path / "others"), "pools/train/bass/one, there is now pools/train/bass/t"),
        (("--musdb-root", tmp_path / "other"), "musdb/train/A - B, there is now musdb/train/C - D"),
        (("--pools", tmp_path / "others", "--seed", 9), "its seed is 0, this run's 9"),
    ):
        told = call(*start, "--resume", "--max-steps", 2, *words)
        assert told.exit_code == 1
        assert message in told.output
        assert [file.read_bytes() for file in files] == before
    maps = Path("/proc/self/maps")  # which Windows would not replace while ``told`` is there
    assert not maps.exists() or str(run / "last.ckpt") not in maps.read_text()
    monkeypatch.setenv("MUSDB_PATH", str(tmp_path / "other"))
    (tmp_path / "pools").rename(tmp_path / "moved")
    for command, cure in (
        (
            (*start, "--resume", "--max-steps", 2),
            "name its new folder with --resume by --pools NEW",
        ),
        (("export", run), "export without its validation songs by --no-check"),
    ):
        told = call(*command)
        assert told.exit_code == 1
        assert f"{tmp_path / 'pools'}, from which this run has" in told.output
        assert f"; if it was moved, {cure}\n" in told.output
    assert call("export", run, "--no-check").exit_code == 0
    again = call(*start, "--resume", "--max-steps", 2, "--pools", tmp_path / "moved")
    assert again.exit_code == 0, again.output
    assert torch.load(run / "last.ckpt", weights_only=True)["global_step"] == 2
    content = json.loads((run / "data.json").read_text())
    assert content["roots"] == {
        "musdb": [str(tmp_path / "musdb")], "pools": [str(tmp_path / "moved")]
    }  # fmt: skip
    assert content["cache"] == str(tmp_path / "cache")
    assert files[1].read_bytes() == before[1]
    fewer = call(*start, "--resume", "--max-steps", 1)
    assert fewer.exit_code == 1
    assert "is of step 2: name at least as many --max-steps, got 1" in fewer.output
    assert json.loads((run / "config.json").read_text())["max_steps"] == 2


def test_a_last_phase_is_trained_on_all_songs_and_keeps_its_last_weights(tmp_path: Path) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    run = tmp_path / "run"
    start = ("train", "--run", run, "--accelerator", "cpu", "--workers", 0)
    data = ("--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache", "--all-songs")
    settings = ("--batch-size", 1, "--valid-every", 1, "--precision", "fp32", "--ema-decay", 0)
    told = call(*start, *data, "--loss", "l1", *settings, "--max-steps", 3)
    assert told.exit_code == 0, told.output
    assert "on 2 recordings" in told.output
    assert "validating on 1 of them" in told.output
    kept = load_network(run / "best-l1.safetensors").state_dict()
    state = torch.load(run / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[f"networks.l1.{name}"]) for name, value in kept.items())
    assert call("export", run, "--manifest", tmp_path / "manifest.json").exit_code == 0
    (entry,) = read_manifest(tmp_path / "manifest.json").checkpoints.values()
    assert (entry.training["splits"], entry.training["steps"]) == (["train", "valid"], 3)
    assert "musdb/valid/Leaf - Summerghost" in entry.training["songs"]
    assert "--all-songs" in entry.training["command"]
    assert "valid_sdr" not in entry.training
    assert call(*start, "--resume", "--all-songs").exit_code == 1


def test_the_losses_are_listed() -> None:
    told = call("train", "--list-losses")
    assert told.exit_code == 0
    for name, entry in LOSSES.items():
        assert name in told.output
        assert entry.summary in told.output


def test_mistakes_get_a_message_of_one_sentence(tmp_path: Path) -> None:
    cases = {
        ("train",): "name --musdb-root or set MUSDB_PATH; get MUSDB18 from",
        ("train", "--musdb-root", tmp_path): "there is no MUSDB18 in",
        ("train", "--loss", "sdr"): "there is no loss 'sdr': expected mse",
        ("train", "--resume", "--run", tmp_path): "there is no run to resume in",
        ("train", "--resume", "--run", tmp_path, "--init-from", "x"): "cannot be combined with",
        ("train", "--resume", "--run", tmp_path, "--held-out", "0"): "cannot be combined with",
        ("train", "--songs", tmp_path / "test"): "is of a test set",
        ("train", "--run", __file__): "is a file: expected a folder, or a new name",
        ("train", "--targets", "piano", "--musdb-root", tmp_path): "no target 'piano'",
        ("export", tmp_path): "does not say where its data is",
        ("publish", tmp_path, "--repo-id", "a/b"): "nothing to publish",
    }
    for arguments, message in cases.items():
        told = call(*arguments)
        assert told.exit_code == 1, arguments
        assert message in told.output
        assert told.output.strip().count("\n") == 0
        assert "  " not in told.output, arguments


def test_data_without_validation_songs_is_refused(tmp_path: Path) -> None:
    write_musdb(tmp_path / "musdb", ("A - B",))
    data = ("train", "--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    told = call(*data)
    assert told.exit_code == 1
    assert "there is nothing to validate on" in told.output
    assert "--held-out" not in told.output
    assert "are heard at once, without --held-out 0" in " ".join(
        call(*data, "--held-out", "0").output.split()
    )


def test_stems_that_no_song_has_are_named(tmp_path: Path) -> None:
    for name in ("voice", "drums", "bass", "guitar"):
        write(tmp_path / "songs" / "train" / "odd" / name, 0)
    told = call("train", "--songs", tmp_path / "songs", "--cache", tmp_path / "cache")
    assert told.exit_code == 1
    words = " ".join(told.output.split())
    assert "odd: no stem is called guitar.wav, voice.wav; it is used for bass, drums" in words
    assert "nothing to validate on: no song has vocals, other; name a MUSDB18 root" in words


def test_recordings_can_be_left_out_by_name(tmp_path: Path) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "C, D = E", "Leaf - Summerghost"))
    run = tmp_path / "run"
    data = ("train", "--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    start = (*data, "--loss", "l1", "--run", run, "--workers", 0)
    settings = ("--batch-size", 1, "--max-steps", 1, "--precision", "fp32", "--held-out", 0)
    told = call(*start, *settings, "--leave-out", "C, D = E", "--leave-out", "A - B=bass,other")
    assert told.exit_code == 1
    assert "no training data for bass" in told.output
    assert not (run / "last.ckpt").exists()
    told = call(*start, *settings, "--leave-out", "C, D = E")
    assert told.exit_code == 0, told.output
    assert json.loads((run / "songs.json").read_text())["songs"] == ["musdb/train/A - B"]
    content = json.loads((run / "data.json").read_text())
    assert (content["held_out"], content["leave_out"]) == (0, ["C, D = E"])
    told = call(*start[:-4], "--leave-out", "A - B=piano")
    assert told.exit_code == 1
    assert "--leave-out A - B=piano: there is no such recording" in told.output


def test_fine_tuning_takes_the_network_of_the_checkpoint(tmp_path: Path) -> None:
    from unetsep.network.unet import UNet
    from unetsep.weights.checkpoint import serialize

    wide = dataclasses.replace(MODEL, filters=(6, 8))
    first, run = tmp_path / "net.safetensors", tmp_path / "run"
    first.write_bytes(serialize(UNet(wide)))
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    data = ("train", "--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    settings = ("--batch-size", 1, "--max-steps", 1, "--workers", 0, "--held-out", 0)
    told = call(*data, "--run", run, *settings, "--init-from", first)
    assert told.exit_code == 0, told.output
    assert TrainConfig.from_json((run / "config.json").read_text()).model == wide


@pytest.mark.parametrize("options", [(), ("--network", "small"), ("--targets", "vocals")])
def test_a_missing_first_checkpoint_is_refused_before_decoding(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    data = ("--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    begin = ("--init-from", tmp_path / "none.safetensors", *options)
    told = call("train", "--run", tmp_path / "run", *data, *begin, "--max-steps", 1)
    assert told.exit_code == 1
    assert "none.safetensors does not exist" in told.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["musdb"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--accelerator", "cpu", "--precision", "fp16"), "CPUs do not train in fp16: choose"),
        (("--accelerator", "gpu"), "cannot train on 1 gpu: torch finds none here; choose"),
        (("--accelerator", "mps"), "cannot train on 1 mps: torch finds none here; choose"),
    ],
)
def test_what_the_machine_cannot_do_is_refused_before_decoding_or_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    words = ("--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    told = call("train", *words, "--run", tmp_path / "run", "--max-steps", 1, *options)
    assert told.exit_code == 1
    assert sentence in told.output
    assert [path.name for path in tmp_path.iterdir()] == ["musdb"]


def test_a_first_checkpoint_of_another_network_is_refused_before_decoding(
    tmp_path: Path,
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    data = ("--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    begin = ("--init-from", "fast", "--network", "wide")
    told = call("train", "--run", tmp_path / "run", *data, *begin, "--max-steps", 1)
    assert told.exit_code == 1
    assert "fast does not fit this run: its filters" in told.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["musdb"]


def test_a_first_checkpoint_of_other_stems_is_refused_with_its_stems() -> None:
    told = call("train", "--songs", "none", "--stems", "vocals,piano", "--init-from", "fast")
    assert told.exit_code == 1
    assert "--init-from fast estimates vocals, drums, bass, other, and --stems are vocals" in (
        " ".join(told.output.split())
    )


def test_shares_are_parsed() -> None:
    read = train_commands.parse_shares("--extra-share", "bass=0.3, drums=1", STEMS)
    assert read == {"bass": 0.3, "drums": 1.0}
    assert train_commands.parse_shares("--extra-share", "piano=0", ("piano",)) == {"piano": 0.0}


@pytest.mark.parametrize("option", ["--extra-share", "--second-share"])
@pytest.mark.parametrize(
    "wrong", ["bass", "bass=much", "piano=0.3", "bass=0.3,", "bass=1.5", "drums=-0.1", "bass=nan"]
)
def test_invalid_shares_are_refused_with_the_name_of_their_option(option: str, wrong: str) -> None:
    told = call("train", option, wrong, "--pools", "nowhere")
    assert told.exit_code == 1
    expected = "expected a share from 0 to 1 for some of vocals, drums, bass, other, such as"
    assert f"Error: {option} {wrong!r}: {expected}" in told.output
    assert told.output.strip().count("\n") == 0


def test_shares_must_be_of_stems_of_the_run() -> None:
    told = call("train", "--stems", "piano,rest", "--second-share", "bass=0.3", "--pools", "none")
    assert "for some of piano, rest, such as piano=0.3,rest=0.5" in told.output


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_gives_the_exit_code_of_shells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    stop = At(1, lambda _: os.kill(os.getpid(), number))
    monkeypatch.setattr(train_commands, "ProgressBar", lambda _: stop)
    data = ("--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    settings = ("--batch-size", 1, "--precision", "fp32", "--accelerator", "cpu", "--workers", 0)
    told = call("train", "--run", tmp_path / "run", "--loss", "l1", *data, *settings)
    assert told.exit_code == 128 + number, told.output
    assert "Error: interrupted after step 2; resume with " in told.output


def test_a_run_without_a_checkpoint_restarts_with_new_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MUSDB_PATH", str(tmp_path / "musdb"))
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    run = tmp_path / "run"
    run.mkdir()
    (run / "log.jsonl").write_text("")
    (run / "data.json").write_text("{}")
    settings = ("--batch-size", 1, "--max-steps", 1, "--precision", "fp32", "--workers", 0)
    told = call("train", "--run", run, "--cache", tmp_path / "cache", "--loss", "l1", *settings)
    assert told.exit_code == 0, told.output
    assert json.loads((run / "data.json").read_text())["roots"] == {
        "musdb": [str(tmp_path / "musdb")]
    }
    assert json.loads((run / "songs.json").read_text())["songs"] == ["musdb/train/A - B"]


def test_the_length_of_clips_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[TrainConfig] = []

    def fit(config: TrainConfig, *_: object, machine: Machine, **__: object) -> None:
        drawn.append(config)
        assert not machine.graph

    monkeypatch.setattr(train_commands, "fit", fit)
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    data = (
        "train",
        "--musdb-root",
        tmp_path / "musdb",
        "--cache",
        tmp_path / "cache",
        "--no-graph",
    )
    told = call(*data, "--run", tmp_path / "run", "--clip-frames", 128)
    assert [each.clip_samples for each in drawn] == [MODEL.n_fft + 127 * MODEL.hop_length]
    told = call(*data, "--run", tmp_path / "run", "--clip-frames", 130)
    assert told.exit_code == 1
    assert "clip_frames=130 is not usable: expected a multiple of 4" in told.output


@pytest.mark.parametrize(
    ("limits", "steps", "told"),
    [
        ((), 20_000, "20000 steps, 4 clips a step"),
        (("--max-minutes", 480), UNLIMITED, "480 minutes, 4 clips a step"),
        (("--max-minutes", 0), 20_000, "20000 steps, 4 clips a step"),
        (("--max-steps", UNLIMITED), UNLIMITED, f"{UNLIMITED} steps, 4 clips a step"),
        (("--max-minutes", 5, "--max-steps", 7), 7, "7 steps or 5 minutes, 4 clips a step"),
    ],
)
def test_max_minutes_alone_removes_the_limit_of_steps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    limits: tuple[object, ...],
    steps: int,
    told: str,
) -> None:
    drawn: list[TrainConfig] = []
    monkeypatch.setattr(train_commands, "fit", lambda config, *_, **__: drawn.append(config))
    write_musdb(tmp_path / "musdb", ("A - B", "Leaf - Summerghost"))
    data = ("--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache")
    result = call("train", *data, "--run", tmp_path / "run", *limits)
    assert [config.max_steps for config in drawn] == [steps]
    assert f"validating on 1: {told}; writing to" in result.output


def test_a_missing_run_gets_a_message_of_one_sentence(tmp_path: Path) -> None:
    told = call("export", tmp_path / "none")
    assert told.exit_code == 1
    sentence = f"there is no run {tmp_path / 'none'}: expected a folder that unetsep train wrote"
    assert told.output == f"Error: {sentence}\n"
    told = call("train", "--resume", "--run", tmp_path / "none")
    sentence = f"there is no run to resume in {tmp_path / 'none'}: it has no config.json"
    assert told.output == f"Error: {sentence}\n"
    told = call("export", tmp_path)
    assert told.output == f"Error: {tmp_path} does not say where its data is: no data.json\n"


# Runs commands as if the packages of the extra were not installed.
BARE = """
import sys
from importlib.metadata import requires
from click.testing import CliRunner
from unetsep.cli import main
for line in requires("unetsep"):
    if "extra == 'train'" in line.replace('"', "'"):
        sys.modules[line.split(">")[0].replace("-", "_")] = None
for words in (
    "train --list-losses", "average a -o b.safetensors", "export run", "publish run --repo-id a/b"
):
    told = CliRunner().invoke(main, words.split())
    print(told.exit_code, told.output, sep="|", end="")
"""


def test_a_package_that_is_too_old_is_named_with_its_upgrade() -> None:
    old = ExtraCommand("old", extra="train", callback=lambda: import_module("click.newer"))
    told = CliRunner().invoke(old)
    sentence = "which the installed click lacks: run pip install --upgrade click"
    assert told.output == f"Error: unetsep old needs click.newer, {sentence}\n"


def test_without_the_extra_the_message_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    for line, command in zip(lines, ("train", "average", "export", "publish"), strict=True):
        assert line.startswith(f"1|Error: unetsep {command} needs ")
        assert line.endswith(
            ', which is not installed: run pip install "unetsep[train]" or, in a checkout, '
            'pip install -e ".[train]"'
        )
