"""From a training run to a checkpoint file and its manifest entry."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from ...errors import WeightsError
from ...locations import as_path
from ...network.guided import Guided
from ...network.masks import MaskNetwork
from ...separator import Separator
from ...storage import file_sha256, write_atomically
from ...weights.checkpoint import build_network, serialize
from ...weights.load import carry_guide, load_checkpoint
from ...weights.manifest import (
    Checkpoint,
    add_to_manifest,
    check_name,
    encode_json,
    read_manifest,
)
from ..callbacks import BEST, VALIDATION, best_weights
from ..config import TrainConfig, TrainingError
from ..data.recording import Recording
from ..evaluation.report import strict
from ..logs import read_log
from ..validation import combine, recording_sdr
from .command import loss_words, train_command

EXPORTS = "export"
# Half precision may not change the SDR on the validation songs by more, in dB.
TOLERANCE = 0.01
DEFINITION = (
    "SDR in dB as museval: median of 1 s frames, then mean of songs; mean over stems; on the "
    "validation songs of the run"
)
LICENCE = "CC BY-NC-SA 4.0"


def export(network: MaskNetwork, file: Path, **fields: Any) -> Checkpoint:
    """Write a network as a half-precision checkpoint.

    Parameters
    ----------
    network
        The averaged network of a run.
    file
        Where to write it; its name becomes the entry's.
    **fields
        The other fields of `Checkpoint`.

    Returns
    -------
    Checkpoint
        The manifest entry, with hash, size and config of what was written.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    content = serialize(network)
    _write(file, content)
    return Checkpoint(
        file=file.name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        config=json.loads(network.config.to_json()),
        **fields,
    )


def export_run(
    run: str | Path,
    *,
    loss: str | None = None,
    name: str | None = None,
    licence: str = LICENCE,
    valid: Sequence[Recording] | None = None,
    manifest: str | Path | None = None,
) -> list[Path]:
    """Export the best networks of a run into ``<run>/export``.

    Each becomes ``<name>.safetensors`` and ``<name>.json``, its manifest entry. A guide that was
    not published is copied beside them.

    Parameters
    ----------
    run
        Folder of the run.
    loss
        Only this network; default: all.
    name
        What to call it; default: the loss.
    licence
        Of the weights.
    valid
        Recordings on which to check that half precision changes the SDR by less than 0.01 dB.
    manifest
        A manifest to add the entries to, replacing those of the same name.

    Raises
    ------
    TrainingError
        If there is nothing to export, a file that describes the run is damaged or missing, or the
        disk is full. Also if half precision cannot hold a weight or changes the SDR by 0.01 dB or
        more.
    ValueError
        If there are several networks to name, or the name cannot be one.
    WeightsError
        If the manifest is damaged.
    """
    run = as_path(run, "run")
    losses = [each for each in best_weights(run) if loss in (None, each)]
    if not losses:
        raise TrainingError(f"{run} holds no {BEST.format(loss or '<loss>')} to export")
    if name is not None and len(losses) > 1:
        raise ValueError(f"{run} holds {len(losses)} networks: choose one with --loss to name it")
    if name is not None:
        check_name(name)
    if manifest is not None:
        read_manifest(Path(manifest))  # so that a damaged one is an error before the work
    try:
        (run / EXPORTS).mkdir(exist_ok=True)
    except OSError as error:
        raise TrainingError(f"{run / EXPORTS} cannot be written: {error.strerror}") from error
    files = []
    for each in losses:
        entry = _export_best(run, each, name, licence, valid)
        if manifest is not None:
            add_to_manifest(Path(manifest), entry)
        files.append(run / EXPORTS / entry.file)
    return files


def _export_best(
    run: Path, loss: str, name: str | None, licence: str, valid: Sequence[Recording] | None
) -> Checkpoint:
    """Export one of a run's best networks, with its entry and its guide."""
    path = run / BEST.format(loss)
    network, sha256 = load_checkpoint(path)
    name = name or loss
    change = _half_precision_change(network, path, name, valid)
    try:
        fields = _entry_fields(run, loss, name, licence, change)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise TrainingError(
            f"{run} cannot be exported: a file of it is not as unetsep train wrote it ({error!r})"
        ) from error
    if file_sha256(path) != sha256:  # and the fields describe the new one
        raise TrainingError(f"the run has replaced {path} meanwhile: export it again")
    file = run / EXPORTS / f"{name}.safetensors"
    entry = export(network, file, **fields)
    carry_guide(network.config.guide, run, file.parent)
    write_entry(file.with_suffix(".json"), entry)
    return entry


def _half_precision_change(
    network: MaskNetwork, path: Path, name: str, valid: Sequence[Recording] | None
) -> float | None:
    """What half precision changes of a network's SDR in dB, if there are recordings to tell.

    Raises
    ------
    TrainingError
        If it cannot hold a weight, or changes too much.
    """
    try:
        half = build_network(serialize(network), name)
    except WeightsError as error:
        raise TrainingError(f"{path} cannot be exported: {error}") from error
    if isinstance(network, Guided) and isinstance(half, Guided):
        half.attach(network.guide)
    change = sdr_change(network, half, valid) if valid else None
    if change is not None and not change < TOLERANCE:
        raise TrainingError(
            f"half precision changes the SDR of {path} by {change:.3f} dB: not exported"
        )
    return change


def write_entry(path: Path, entry: Checkpoint) -> None:
    """Write a manifest entry as a file of its own.

    Raises
    ------
    TrainingError
        If it cannot be written.
    """
    text = json.dumps(asdict(entry), indent=2, ensure_ascii=False) + "\n"
    _write(path, encode_json(text))


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except OSError as error:  # which names no file if the disk is full
        raise TrainingError(f"{path} cannot be written: {error.strerror}") from error


def sdr_change(one: MaskNetwork, other: MaskNetwork, recordings: Sequence[Recording]) -> float:
    """Largest difference of any stem's SDR over a set of recordings, in dB.

    Infinite if only the other network has no SDR where the one has: it gives silence or NaN.
    """
    stems = one.config.stems
    separators = [Separator(each, precision="fp32") for each in (one, other)]
    table = np.stack(
        [
            np.stack([recording_sdr(each, recording) for each in separators])
            for recording in recordings
        ]
    )
    if (np.isfinite(table[:, 0]) & ~np.isfinite(table[:, 1])).any():
        return math.inf
    scores = combine(table, ("one", "other"), stems)
    changes = [abs(scores["one"][stem] - scores["other"][stem]) for stem in stems]
    return max((change for change in changes if math.isfinite(change)), default=0.0)


def _read(path: Path, parse: Callable[[Path], Any]) -> Any:
    """The content of a file that describes a run."""
    try:
        return parse(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingError(
            f"{path} cannot be used: {reason}; export needs it as unetsep train wrote it"
        ) from error


def _validation(run: Path, loss: str, *, last: bool) -> dict[str, Any] | None:
    """Step and SDR of the weights that a run saved, by their metadata; None without validation.

    Weights of older runs have none: then it is the best line of the log, or the last one.
    """
    path = run / BEST.format(loss)
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(VALIDATION)
    if text is not None:
        validation: dict[str, Any] = json.loads(text)
        return validation
    key = f"valid/{loss}/"
    log = _read(run / "log.jsonl", read_log)
    lines = [line for line in log if line.get(f"{key}mean") is not None]
    if not lines:
        return None
    line = lines[-1] if last else max(lines, key=lambda line: float(line[f"{key}mean"]))
    sdr = {name.removeprefix(key): v for name, v in line.items() if name.startswith(key)}
    return {"step": line["step"], "sdr": sdr}


def _config(path: Path) -> TrainConfig:
    return TrainConfig.from_json(path.read_text(encoding="utf-8"))


def _object(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"it holds {text[:20]!r}, expected an object")
    return content


def _entry_fields(
    run: Path, loss: str, name: str, licence: str, change: float | None
) -> dict[str, Any]:
    """Fields of the manifest entry that come from the run folder."""
    config = _read(run / "config.json", _config)
    training = _training(run, config)
    scores: dict[str, Any] = {}
    validation = _validation(run, loss, last=config.all_songs)
    if config.all_songs:  # scores of songs that were trained on do not count
        training["steps"] = validation["step"] if validation else 0
    elif validation:
        stems = validation["sdr"]
        training["steps"] = validation["step"]
        training["valid_sdr"] = {stem: round(value, 3) for stem, value in stems.items()}
        training["valid_over_songs"] = "mean"
        scores = {"sdr": stems, "definition": DEFINITION}
        if change is not None:
            scores["change_by_half_precision"] = round(change, 5)
    return {
        "name": name,
        "loss": loss,
        "description": f"U-Net for {', '.join(config.model.stems)}, trained with {loss}",
        "repo_id": "",
        "revision": "",
        "licence": licence,
        "training": training,
        "scores": scores,
    }


def _training(run: Path, config: TrainConfig) -> dict[str, Any]:
    """How all networks of a run were trained: settings, data, versions, command."""
    settings = {k: v for k, v in asdict(config).items() if k not in ("model", "losses")}
    settings["own_losses"] = {
        name: {**about, "from": loss_words(config, name)}
        for name, about in config.own_losses.items()
    }
    training: dict[str, Any] = {
        "splits": ["train", "valid"] if config.all_songs else ["train"],
        "settings": strict(settings),  # endless minutes have no number in JSON
        "trained_with": list(config.losses),
    }
    for part in ("data", "versions"):
        if (run / f"{part}.json").exists():
            training[part] = _read(run / f"{part}.json", _object)
    if (run / "songs.json").exists():
        training |= _read(run / "songs.json", _object)
    training.pop("recordings", None)  # they say what changes when a run is resumed
    training.get("versions", {}).pop("command", None)
    if "data" in training:  # folders of this machine say nothing elsewhere
        data = training["data"]
        training["command"] = train_command(config, data)
        roots = [root for folders in data["roots"].values() for root in folders]
        training["data"] = [Path(root).name for root in roots]
    return training
