"""What the ``train``, ``average``, ``export`` and ``publish`` commands do, and show."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from ..audio.libsndfile import hide_decoder_chatter
from ..config import STEMS, ModelConfig
from ..network.devices import pick_precision
from ..network.guided import check_guide, plain, state_channels
from ..network.presets import DEFAULT, preset_config
from ..storage import shell_word, write_atomically
from ..train.callbacks import LAST
from ..train.config import TrainConfig, TrainingError, extra_shares
from ..train.data.datasets import DATASETS
from ..train.data.recording import Recording
from ..train.data.run_data import (
    HELD_OUT,
    Data,
    audio_notes,
    check_songs,
    find_data,
    load_data,
    move_data,
    read_data,
    read_songs,
    song_lists,
    warn_of_other_audio,
)
from ..train.distributed import processes
from ..train.fit import Machine, check_fits, check_resumable, check_trainable, fit, refuse_used
from ..train.interruption import InterruptedRunError
from ..train.logs import is_main_process
from ..train.losses.functions import LOSSES
from ..train.losses.own import add_loss, add_losses, published_losses
from ..train.release.average import average_weights
from ..train.release.export import export_run
from ..train.release.publish import publish
from ..weights.checkpoint import serialize
from ..weights.load import carry_guide, load_checkpoint, load_network
from ..weights.manifest import is_path
from .errors import SignalError
from .parsing import build
from .terminal import Messages, table_console
from .training_progress import ProgressBar, decoding

SHARES = ("extra_share", "second_share")
UNLIMITED = 1_000_000  # steps, which take a GPU half a day: a limit of minutes ends the run


@dataclass(frozen=True)
class DataOptions:
    """Where recordings and first weights come from.

    Parameters
    ----------
    roots
        Folders of each kind of data set, by its name.
    cache_dir, stems, init_from, guide, held_out, leave_out
        See `unetsep.train.data.run_data.Data`; None takes the default.
    """

    roots: Mapping[str, Sequence[Path]]
    cache_dir: Path | None
    stems: tuple[str, ...] | None
    init_from: str | None
    guide: str | None
    held_out: int | None
    leave_out: tuple[str, ...]


@dataclass(frozen=True)
class TrainOptions:
    """Options of the ``train`` command.

    Parameters
    ----------
    settings
        What differs from the defaults of `TrainConfig`, shares and precision as words.
    data, machine
        On what recordings, and on what machine.
    network, targets
        See `unetsep.network.presets.preset_config`.
    guide_levels
        How many levels of the encoder see the states of the guide, from the first on.
    low_band
        First and last bin of a branch that is trained alone, ``0-127``.
    run
        Folder; None is ``runs/`` and the losses.
    resume
        Go on with the run in that folder.
    threads
        Of the CPU; None takes all cores.
    list_losses, quiet
        What is shown.
    """

    settings: Mapping[str, Any]
    data: DataOptions
    machine: Machine
    network: str | None
    targets: tuple[str, ...] | None
    guide_levels: int | None
    low_band: str | None
    run: Path | None
    resume: bool
    threads: int | None
    list_losses: bool
    quiet: bool

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> TrainOptions:
        """From options by name, as click gives them.

        Raises
        ------
        TrainingError
            If a launcher has started another number of processes.
        """
        names = {field.name for field in dataclasses.fields(TrainConfig)}
        settings = {n: value for n, value in values.items() if n in names and value is not None}
        devices, nodes = processes(values["devices"], values["nodes"])
        derived = {"roots": _roots(values), "devices": devices, "nodes": nodes}
        return build(cls, {**values, **derived, "settings": settings})

    @property
    def folder(self) -> Path:
        """Of the run."""
        losses = self.settings.get("losses") or TrainConfig().losses
        return self.run or Path("runs") / "-".join(losses)


def _roots(values: Mapping[str, Any]) -> dict[str, Sequence[Path]]:
    """Folders of each kind of data set from the option that the kind names."""
    roots = {}
    for name, kind in DATASETS.items():
        value = values[kind.option.removeprefix("--").replace("-", "_")]
        roots[name] = value if kind.repeated else [value] if value else []
    return roots


def run_train(options: TrainOptions) -> None:
    """The ``train`` command."""
    if options.list_losses:
        print_losses()
        return
    console = Messages(quiet=options.quiet or not is_main_process())
    hide_decoder_chatter()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    options = _with_losses(options)
    config, data = _resumed_run(options) if options.resume else _new_run(options)
    check_trainable(config, options.machine)  # before hours of decoding
    folder = options.folder
    with _logging(console):
        saved = read_songs(folder) if options.resume else {}
        train, valid = _load(data, console, saved, all_songs=config.all_songs)
        minutes = sum(recording.samples for recording in train) / 44_100 / 60
        known = " of them" if config.all_songs else ""
        console.print(
            f"Training {', '.join(config.losses)} on {len(train)} recordings "
            f"({minutes:.0f} min), validating on {len(valid)}{known}: {_length(config)}, "
            f"{config.batch_size} clips a step; writing to {folder}"
        )
        songs, notes = song_lists(train, valid), audio_notes([*train, *valid])
        if options.resume:
            check_songs(folder, songs)
            warn_of_other_audio(folder, notes)
        try:
            fit(
                config,
                train,
                valid,
                folder,
                machine=options.machine,
                resume=options.resume,
                init_from=options.data.init_from,
                guide=options.data.guide,
                notes={
                    "data.json": json.dumps(dataclasses.asdict(data), indent=1),
                    "songs.json": json.dumps({**songs, "recordings": notes}, indent=1),
                },
                callbacks=[ProgressBar(console)],
            )
        except InterruptedRunError as error:
            if not is_main_process():  # of many, one tells
                sys.exit(128 + error.number)
            raise SignalError(str(error), error.number) from error
    console.print(f"Done. Next: unetsep export {shell_word(folder)}")


def _with_losses(options: TrainOptions) -> TrainOptions:
    """The same with every loss by its name, those of the user's own imported and tested."""
    if "losses" not in options.settings:
        return options
    added = dict(map(add_loss, options.settings["losses"]))
    own = {name: about for name, about in added.items() if about is not None}
    settings = {**options.settings, "losses": tuple(added), "own_losses": own}
    return dataclasses.replace(options, settings=settings)


def _length(config: TrainConfig) -> str:
    """When the run ends."""
    ends = [f"{config.max_steps} steps"] if config.max_steps != UNLIMITED else []
    ends += [f"{config.max_minutes:g} minutes"] if config.max_minutes else []
    return " or ".join(ends)


def _new_run(options: TrainOptions) -> tuple[TrainConfig, Data]:
    """What a run that begins trains, and on what."""
    if is_main_process():
        refuse_used(options.folder)
    given = options.data
    stems = given.stems or STEMS
    settings = {"precision": "auto"} | dict(options.settings)
    if settings.get("max_minutes"):
        settings = {"max_steps": UNLIMITED} | settings
    model = _model(options.network, options.targets, given.init_from, stems, given.guide)
    if given.guide:
        network, sha256 = load_checkpoint(given.guide)
        levels = options.guide_levels or 0
        model = model.guided(sha256, _states(given.guide, network.config, levels))
        check_guide(model, network.config)  # before hours of decoding
    elif options.guide_levels is not None:
        raise ValueError("--guide-levels are levels of the network that --guide names")
    if options.low_band:
        model = _with_low_band(model, options.low_band, given.init_from)
        settings |= {"part": "low"}
    config = TrainConfig(**_parsed(settings, options.machine.kind, stems), model=model)
    data = find_data(
        given.roots,
        given.cache_dir,
        stems=stems,
        init_from=given.init_from,
        guide=given.guide,
        held_out=HELD_OUT if given.held_out is None else given.held_out,
        leave_out=given.leave_out,
    )
    return config, data


def _resumed_run(options: TrainOptions) -> tuple[TrainConfig, Data]:
    """What an interrupted run trained and on what, with what may be changed changed."""
    given = options.data
    network = (options.network, options.targets, options.guide_levels, options.low_band)
    songs = (given.stems, given.held_out, options.settings.get("all_songs"))
    fixed = (*network, *songs, given.init_from)
    if given.guide or given.leave_out or any(value is not None for value in fixed):
        raise ValueError(
            "--resume goes on with the run's own network and recordings: it cannot be combined "
            "with --network, --targets, --guide, --guide-levels, --low-band, --stems, "
            "--init-from, --held-out, --leave-out or --all-songs"
        )
    config, data = _saved(options.folder)
    config = dataclasses.replace(config, own_losses=add_losses(config.own_losses))
    settings = _parsed(options.settings, options.machine.kind, data.stems)
    if given.cache_dir or any(given.roots.values()):
        data = move_data(data, given.roots, given.cache_dir)
    config = dataclasses.replace(config, **settings)
    check_resumable(options.folder / LAST, config)
    return config, data


def _parsed(settings: Mapping[str, Any], accelerator: str, stems: Sequence[str]) -> dict[str, Any]:
    """Settings with shares as mappings, and the precision for the accelerator."""
    values = dict(settings)
    if "precision" in values:
        values["precision"] = pick_precision(values["precision"], accelerator)
    for name in SHARES:
        if name in values:
            values[name] = parse_shares(f"--{name.replace('_', '-')}", values[name], stems)
    if "extra_share" in values:
        values["extra_share"] = extra_shares(stems) | values["extra_share"]
    return values


def parse_shares(option: str, text: str, stems: Sequence[str]) -> dict[str, float]:
    """``bass=0.3,drums=0.5`` as a mapping.

    Parameters
    ----------
    option
        Where the text stands, for the message.
    text
        A share from 0 to 1 for some stems.
    stems
        Of the run.

    Raises
    ------
    ValueError
        If it is something else.
    """
    shares = {}
    for part in text.split(","):
        stem, _, share = part.strip().partition("=")
        try:
            shares[stem] = float(share)
        except ValueError:
            stem = ""
        if stem not in stems or not 0 <= shares[stem] <= 1:
            raise ValueError(
                f"{option} {text!r}: expected a share from 0 to 1 for some of "
                f"{', '.join(stems)}, such as {stems[0]}=0.3,{stems[-1]}=0.5"
            )
    return shares


def _states(guide: str, config: ModelConfig, levels: int) -> tuple[int, ...]:
    """Channels of the guide's states that an encoder is to see."""
    channels = state_channels(config)
    if levels > len(channels):
        raise ValueError(f"--guide-levels {levels}: {guide} has {len(channels)}")
    return channels[:levels]


def parse_low_band(text: str) -> tuple[int, int]:
    """``0-127`` as the first bin and their number.

    Raises
    ------
    ValueError
        If it is something else.
    """
    first, dash, last = text.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise ValueError(f"--low-band {text!r}: expected the first and the last bin, as 0-127")
    return int(first), int(last) + 1 - int(first)


def _with_low_band(model: ModelConfig, low_band: str, init_from: str | None) -> ModelConfig:
    """A network with a branch for some bins, which it may have from its first weights."""
    first, count = parse_low_band(low_band)
    if model.low_bins and (model.low_first, model.low_bins) != (first, count):
        last = model.low_first + model.low_bins - 1
        raise ValueError(
            f"--low-band {low_band}: {init_from} has a branch for bins {model.low_first}-{last}, "
            "which is trained by these numbers alone"
        )
    return dataclasses.replace(model, low_first=first, low_bins=count)


def _model(
    network: str | None,
    targets: Sequence[str] | None,
    init_from: str | None,
    stems: Sequence[str],
    guide: str | None = None,
) -> ModelConfig:
    """The config of the network, as it is without what the option of its guide adds."""
    if init_from:  # a wrong one is told before hours of decoding, whatever the network
        begun = load_network(init_from).config
        if not set(begun.stems) <= set(stems):
            raise ValueError(
                f"--init-from {init_from} estimates {', '.join(begun.stems)}, and --stems are "
                f"{', '.join(stems)}: start from a network of these stems"
            )
        if not (network or targets):
            return begun
        model = preset_config(network or DEFAULT, targets, stems=stems)
        # What only guided networks have is compared when the guide is there, by `fit`.
        check_fits(plain(begun) if guide and begun.guide else begun, model, init_from)
        return model
    return preset_config(network or DEFAULT, targets, stems=stems)


def _saved(run: Path) -> tuple[TrainConfig, Data]:
    try:
        config = TrainConfig.from_json((run / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(f"there is no run to resume in {run}: it has no config.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"there is no run to resume in {run}: {error}") from error
    return config, read_data(run)


def print_losses() -> None:
    """The registry as a table on stdout."""
    table = Table("loss", "what it measures", box=None)
    for name, entry in LOSSES.items():
        table.add_row(name, entry.summary)
    for name, point in published_losses().items():
        table.add_row(name, f"of a package that is installed: {point.value}")
    table_console().print(table)


def run_export(
    *,
    run: Path,
    check: bool,
    loss: str | None,
    name: str | None,
    licence: str,
    manifest: Path | None,
) -> None:
    """The ``export`` command."""
    if not run.is_dir():
        raise TrainingError(f"there is no run {run}: expected a folder that unetsep train wrote")
    console = Messages()
    with _logging(console):
        valid = _load(read_data(run), console, read_songs(run))[1] if check else None
        paths = export_run(
            run, loss=loss, name=name, licence=licence, manifest=manifest, valid=valid
        )
        for path in paths:
            console.print(f"Wrote {path}")


def run_average(*, models: Sequence[str], output: Path) -> None:
    """The ``average`` command."""
    if output.suffix != ".safetensors":
        raise ValueError(f"--output {output}: expected a name that ends in .safetensors")
    if os.path.lexists(output):
        raise ValueError(f"{output} exists: choose another name, or delete it first")
    network = average_weights(models)
    content = serialize(network, half=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    for model in filter(is_path, models):
        carry_guide(network.config.guide, Path(model).parent, output.parent)
    write_atomically(output, content)
    Messages().print(f"Wrote {output}")


def run_publish(*, run: Path, repo_id: str, private: bool, manifest: Path | None) -> None:
    """The ``publish`` command."""
    revision = publish(run, repo_id, private=private, manifest=manifest)
    Messages().print(f"Published {repo_id} at revision {revision}")


@contextmanager
def _logging(console: Console) -> Iterator[None]:
    """Show warnings and errors of the package on the console."""
    log = logging.getLogger("unetsep")
    handler = RichHandler(console=console, show_path=False, show_time=False)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _load(
    data: Data, console: Console, saved: Mapping[str, list[str]], *, all_songs: bool = False
) -> tuple[list[Recording], list[Recording]]:
    """Training and validation recordings, with a bar if some are to be decoded.

    Of what comes twice those stay that a run has, by its ``saved`` songs.
    """
    songs = set(itertools.chain.from_iterable(saved.values()))
    with decoding(console) as progress:
        return load_data(data, all_songs=all_songs, songs=songs, progress=progress)
