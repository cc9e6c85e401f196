"""From a run to checkpoints with their manifest entries."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from tests.train.runs import log
from tests.train.synthetic import MODEL, songs
from unetsep.network.unet import UNet
from unetsep.train.callbacks import VALIDATION
from unetsep.train.config import TrainingError
from unetsep.train.release import export
from unetsep.train.release.export import export_run, sdr_change
from unetsep.weights.checkpoint import serialize
from unetsep.weights.load import load_network
from unetsep.weights.manifest import read_manifest


def test_export_halves_the_file_and_keeps_the_sdr(tmp_path: Path, whole: Path) -> None:
    manifest = tmp_path / "manifest.json"
    valid = songs()[1]
    written = export_run(whole, valid=valid, manifest=manifest)
    assert [path.name for path in written] == ["l1.safetensors", "mel_mse.safetensors"]
    network = load_network(written[0])
    assert network.config == MODEL
    assert sdr_change(load_network(whole / "best-l1.safetensors"), network, valid) < 0.01
    found = read_manifest(manifest)
    entries = list(found.checkpoints.values())
    assert found.default == "l1"
    assert entries[0].bytes == written[0].stat().st_size
    assert entries[0].scores["sdr"].keys() == {*MODEL.stems, "mean"}
    assert entries[0].training["settings"]["seed"] == 0
    assert entries[0].training["valid_over_songs"] == "mean"  # by `export.DEFINITION`
    export_run(whole, loss="l1", name="renamed", manifest=manifest)
    assert list(read_manifest(manifest).checkpoints) == ["l1", "mel_mse", "renamed"]
    with pytest.raises(TrainingError, match=r"holds no best-mse.safetensors"):
        export_run(whole, loss="mse")


def test_an_entry_is_strict_json_though_a_run_had_endless_minutes(
    tmp_path: Path, whole: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run", ignore=lambda *_: ["export"]))
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"max_minutes": math.inf}))
    (file,) = export_run(run, loss="l1")
    text = file.with_suffix(".json").read_text()
    entry = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert entry["training"]["settings"]["max_minutes"] is None


def test_weights_that_the_run_replaces_during_export_are_refused(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run, ignore=shutil.ignore_patterns("export"))
    load = export.load_checkpoint

    def train_on(path: Path) -> object:
        loaded = load(path)
        shutil.copy(run / "best-mel_mse.safetensors", path)
        return loaded

    monkeypatch.setattr(export, "load_checkpoint", train_on)
    with pytest.raises(TrainingError, match=r"has replaced .*best-l1.safetensors meanwhile"):
        export_run(run, loss="l1")
    assert not list((run / "export").iterdir())


@pytest.mark.parametrize("name", ["../../evil", "a/b", "default", "x.safetensors", ""])
def test_an_invalid_name_is_refused(name: str, whole: Path) -> None:
    with pytest.raises(ValueError, match=f"^name '{name}': "):
        export_run(whole, loss="l1", name=name)


def test_weights_that_half_precision_cannot_hold_are_not_exported(
    tmp_path: Path, whole: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run", ignore=lambda *_: ["export"]))
    network = load_network(run / "best-l1.safetensors")
    scale = 1e7  # of the first convolution, which BatchNorm takes back
    state = network.state_dict()
    state["encoder.0.0.weight"] *= scale
    state["encoder.0.1.running_mean"] *= scale
    state["encoder.0.1.running_var"] *= scale**2
    (run / "best-l1.safetensors").write_bytes(serialize(network, half=False))
    with pytest.raises(TrainingError, match=r"best-l1\.safetensors .*0\.0\.weight.*float16"):
        export_run(run, loss="l1")
    assert not (run / "export" / "l1.safetensors").exists()


def test_a_network_without_scores_has_an_infinite_change_of_sdr() -> None:
    network, broken = UNet(MODEL).eval(), UNet(MODEL).eval()
    for parameter in broken.parameters():
        parameter.data.fill_(math.nan)
    valid = songs()[1]
    assert sdr_change(network, broken, valid) == math.inf
    assert sdr_change(network, network, valid) == 0


def test_weights_missing_from_the_log_are_exported_with_their_own_scores(
    tmp_path: Path, whole: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run", ignore=lambda *_: ["export"]))
    mean = "valid/l1/mean"
    scored = sorted((line for line in log(run) if mean in line), key=lambda line: line[mean])
    second, best = scored[-2:]

    def exported() -> tuple[int, float]:
        (file,) = export_run(run, loss="l1")
        entry = json.loads(file.with_suffix(".json").read_text())
        return entry["training"]["steps"], entry["scores"]["sdr"]["mean"]

    # After a crash the weights may be newer than the checkpoint, and the log ends with that one.
    (run / "log.jsonl").write_text(json.dumps(second) + "\n")
    assert exported() == (best["step"], best[mean])
    # Weights of an older run do not say: then the log does.
    network = load_network(run / "best-l1.safetensors")
    (run / "best-l1.safetensors").write_bytes(serialize(network, half=False))
    assert exported() == (second["step"], second[mean])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, whole: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run", ignore=lambda *_: ["export"]))
    # A folder of that name stands for a disk that is full: the file cannot take its place.
    (run / "export").touch()
    with pytest.raises(TrainingError, match="export cannot be written: File exists"):
        export_run(run)
    (run / "export").unlink()
    (run / "export" / "l1.json").mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"export.l1\.json cannot be written: "):
        export_run(run, loss="l1")
    assert not list((run / "export").glob("*.part"))


def test_names_that_are_not_utf8_are_exported(tmp_path: Path, whole: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run", ignore=lambda *_: ["export"]))
    lists = {"songs": ["songs/train/caf\udce9"], "valid_songs": ["songs/valid/na\u00efve"]}
    (run / "songs.json").write_text(json.dumps(lists))
    manifest = tmp_path / "manifest.json"
    (file,) = export_run(run, loss="l1", manifest=manifest)
    training = json.loads(file.with_suffix(".json").read_text("utf-8"))["training"]
    assert {name: training[name] for name in lists} == lists
    assert manifest.read_text("utf-8").count("caf\\udce9") == 1
    assert "na\u00efve" in manifest.read_text("utf-8")
    assert r"caf\udce9" in repr(read_manifest(manifest).datasets)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("data.json", '{"roots": []}'),
        ("data.json", '{"a": 1}'),
        ("songs.json", '{"versions": []}'),
        ("config.json", '{"own_losses": []}'),
        ("log.jsonl", '{"valid/l1/mean": [1], "step": 1}'),
        ("log.jsonl", '{"valid/l1/mean": "loud", "step": 1}'),
        ("note", '{"step": 1, "sdr": []}'),
        ("note", "{"),
    ],
)
def test_changed_files_of_the_run_are_refused(
    file: str, content: str, tmp_path: Path, whole: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    best = run / "best-l1.safetensors"
    if file == "note":
        best.write_bytes(serialize(load_network(best), half=False, notes={VALIDATION: content}))
    else:
        (run / file).write_text(content)
    if file == "log.jsonl":
        best.write_bytes(serialize(load_network(best), half=False))
    with pytest.raises(TrainingError, match="as unetsep train wrote it"):
        export_run(run, loss="l1")


@pytest.mark.parametrize("file", ["data.json", "versions.json", "songs.json"])
@pytest.mark.parametrize("content", ["[]", "null", "3", '"x"'])
def test_a_file_of_the_run_without_an_object_is_named(
    file: str, content: str, tmp_path: Path, whole: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / file).write_text(content)
    with pytest.raises(TrainingError, match=rf"{file} cannot be used: it holds .*an object"):
        export_run(run, loss="l1")


@pytest.mark.parametrize("file", ["config.json", "songs.json", "log.jsonl"])
def test_a_damaged_file_of_the_run_is_named(file: str, tmp_path: Path, whole: Path) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    if file == "log.jsonl":  # damaged lines are left out; weights of an older run need it
        (run / file).unlink()
        network = load_network(run / "best-l1.safetensors")
        (run / "best-l1.safetensors").write_bytes(serialize(network, half=False))
    else:
        (run / file).write_text("{")
    with pytest.raises(TrainingError, match=rf"{file} cannot be used: .*as unetsep train wrote it"):
        export_run(run, loss="l1")
