"""What the ``train``, ``average``, ``export`` and ``publish`` commands do and print."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ..network.devices import training_precision
from ..network.guided import check_guide, extended, state_channels
from ..network.presets import DEFAULT, preset_config
from ..storage import shell_word, write_atomically
from ..train.config import TrainConfig, TrainingError, extra_shares
from ..train.data.datasets import DATASETS
from ..train.data.recording import SAMPLE_RATE, Recording
from ..train.data.run_data import (
    HELD_OUT,
    DataConfig,
    find_data,
    load_data,
    move_data,
    read_data,
)
from ..train.data.song_lists import SongLists
from ..train.distributed import processes
from ..train.fit import fit
from ..train.interruption import LAST, InterruptedRunError
from ..train.logs import is_main_process
from ..train.losses.functions import LOSSES
from ..train.losses.own import add_loss, add_losses, published_losses
from ..train.machine import Machine, check_trainable
from ..train.release.average import average_weights
from ..train.release.export import export_run
from ..train.release.publish import publish
from ..train.run_folder import refuse_used, resumable_step
from ..train.start import check_fits
from ..weights.checkpoint import serialize
from ..weights.load import carry_guide, load_checkpoint, load_network
from ..weights.manifest import is_path
from .errors import SignalError
from .parsing import build
from .terminal import Messages, table_console
from .training_progress import ProgressBar, decoding

SHARES = ("extra_share", "second_share")
UNLIMITED = 1_000_000  # steps, half a day on a GPU: a limit of minutes ends the run earlier


@dataclass(frozen=True)
class DataOptions:
    """Where recordings and initial weights come from.

    Parameters
    ----------
    roots
        Folders of each kind of data set, by its name.
    cache_dir, stems, init_from, guide, held_out, leave_out
        See `unetsep.train.data.run_data.DataConfig`; None is the default.
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
        Fields that differ from the defaults of `TrainConfig`, with shares and precision as text.
    data, machine
        The recordings and the machine.
    network, targets
        See `unetsep.network.presets.preset_config`.
    guide_levels
        Number of levels of the encoder, from the first, that see the guide's states.
    low_band
        First and last bin of a branch that is trained alone, ``0-127``.
    run
        Folder; None is ``runs/`` and the losses.
    resume
        Resume the run in that folder.
    threads
        CPU threads; None uses all cores.
    list_losses, quiet
        What is printed.
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
        """Build from options by name, as click passes them.

        Raises
        ------
        TrainingError
            If a launcher has started a different number of processes.
        """
        names = {field.name for field in dataclasses.fields(TrainConfig)}
        settings = {n: value for n, value in values.items() if n in names and value is not None}
        devices, nodes = processes(values["devices"], values["nodes"])
        derived = {"roots": _roots(values), "devices": devices, "nodes": nodes}
        return build(cls, {**values, **derived, "settings": settings})

    @property
    def folder(self) -> Path:
        """Folder of the run."""
        losses = self.settings.get("losses") or TrainConfig().losses
        return self.run or Path("runs") / "-".join(losses)


def _roots(values: Mapping[str, Any]) -> dict[str, Sequence[Path]]:
    """Folders of each kind of data set, from the kind's option."""
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
    with _logging(console):
        options = _with_losses(options)
        config, data = _resumed_run(options) if options.resume else _new_run(options)
        check_trainable(config, options.machine)  # before hours of decoding
        folder = options.folder
        saved = SongLists.read(folder) if options.resume else None
        train, valid = _load(data, console, saved, all_songs=config.all_songs)
        overlap = " of them" if config.all_songs else ""
        console.print(
            f"Training {', '.join(config.losses)} on {_what(train)}, validating on "
            f"{len(valid)}{overlap}: {_length(config)}, {config.batch_size} clips a step; writing "
            f"to {folder}"
        )
        songs = SongLists.of(train, valid)
        if saved is not None:
            saved.check_resumed(folder, songs)
        if not options.resume:
            console.print("Measuring levels and losses of clips before the first step")
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
                    "songs.json": songs.to_json(),
                },
                callbacks=[ProgressBar(console)],
            )
        except InterruptedRunError as error:
            if not is_main_process():  # one of many prints the message
                sys.exit(128 + error.number)
            raise SignalError(str(error), error.number) from error
    console.print(f"Done. Next: unetsep export {shell_word(folder)}")


def _with_losses(options: TrainOptions) -> TrainOptions:
    """The options with losses by name; the user's own losses are imported and tested."""
    if "losses" not in options.settings:
        return options
    losses = dict(map(add_loss, options.settings["losses"]))
    sources = {name: source for name, source in losses.items() if source is not None}
    settings = {**options.settings, "losses": tuple(losses), "own_losses": sources}
    return dataclasses.replace(options, settings=settings)


def _length(config: TrainConfig) -> str:
    """When the run ends."""
    ends = [f"{config.max_minutes:g} minutes"] if config.max_minutes else []
    if config.max_steps != UNLIMITED or not ends:
        ends.insert(0, f"{config.max_steps} steps")
    return " or ".join(ends)


def _new_run(options: TrainOptions) -> tuple[TrainConfig, DataConfig]:
    """Config and data of a new run."""
    if is_main_process():
        refuse_used(options.folder)
    data_options = options.data
    stems = data_options.stems or STEMS
    settings = {"precision": "auto"} | dict(options.settings)
    if settings.get("max_minutes"):
        settings = {"max_steps": UNLIMITED} | settings
    # Loaded before hours of decoding, whatever the network.
    start = load_network(data_options.init_from).config if data_options.init_from else None
    model = _model(options, start)
    if data_options.guide:
        network, sha256 = load_checkpoint(data_options.guide)
        levels = options.guide_levels
        if levels is None:
            levels = len(start.guide_states) if start else 0
        model = model.guided(sha256, _states(data_options.guide, network.config, levels))
        check_guide(model, network.config)  # before hours of decoding
    elif options.guide_levels is not None:
        raise ValueError("--guide-levels counts levels of the network that --guide names: name one")
    if options.low_band:
        model = _with_low_band(model, options.low_band, data_options.init_from)
        settings |= {"part": "low"}
    if data_options.guide and start and start.guide:
        check_fits(extended(start, model), model, str(data_options.init_from))
    config = TrainConfig(**_parsed(settings, options.machine.kind, stems), model=model)
    data = find_data(
        data_options.roots,
        data_options.cache_dir,
        stems=stems,
        init_from=data_options.init_from,
        guide=data_options.guide,
        held_out=HELD_OUT if data_options.held_out is None else data_options.held_out,
        leave_out=data_options.leave_out,
    )
    return config, data


def _resumed_run(options: TrainOptions) -> tuple[TrainConfig, DataConfig]:
    """Config and data of an interrupted run, with those options applied that may change."""
    data_options = options.data
    network = (options.network, options.targets, options.guide_levels, options.low_band)
    songs = (data_options.stems, data_options.held_out, options.settings.get("all_songs"))
    fixed_options = (*network, *songs, data_options.init_from)
    if (
        data_options.guide
        or data_options.leave_out
        or any(value is not None for value in fixed_options)
    ):
        raise ValueError(
            "--resume uses the run's own network and recordings: it cannot be combined with "
            "--network, --targets, --guide, --guide-levels, --low-band, --stems, "
            "--init-from, --held-out, --leave-out or --all-songs"
        )
    config, data = _read_run(options.folder)
    config = dataclasses.replace(config, own_losses=add_losses(config.own_losses))
    settings = _parsed(options.settings, options.machine.kind, data.stems)
    if data_options.cache_dir or any(data_options.roots.values()):
        data = move_data(data, data_options.roots, data_options.cache_dir)
    _refuse_missing(data, lambda words: f"name its new folder with --resume by {words}")
    config = dataclasses.replace(config, **settings)
    resumable_step(options.folder / LAST, config)  # its error comes before hours of decoding
    return config, data


def _parsed(settings: Mapping[str, Any], accelerator: str, stems: Sequence[str]) -> dict[str, Any]:
    """Settings with shares as mappings, and the precision for the accelerator."""
    values = dict(settings)
    if "precision" in values:
        values["precision"] = training_precision(values["precision"], accelerator)
    for name in SHARES:
        if name in values:
            values[name] = parse_shares(f"--{name.replace('_', '-')}", values[name], stems)
    if "extra_share" in values:
        values["extra_share"] = extra_shares(stems) | values["extra_share"]
    return values


def parse_shares(option: str, text: str, stems: Sequence[str]) -> dict[str, float]:
    """Parse ``bass=0.3,drums=0.5`` into a mapping.

    Parameters
    ----------
    option
        Name of the option, for the message.
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
    """Channels of the guide's states that the encoder sees."""
    channels = state_channels(config)
    if levels > len(channels):
        raise ValueError(
            f"--guide-levels {levels}: expected at most {len(channels)}, as {guide} has"
        )
    return channels[:levels]


def parse_low_band(text: str) -> tuple[int, int]:
    """Parse ``0-127`` into the first bin and the number of bins.

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
    """A network with a branch for some bins, which its initial weights may have already."""
    first, count = parse_low_band(low_band)
    if model.low_bins and (model.low_first, model.low_bins) != (first, count):
        last = model.low_first + model.low_bins - 1
        raise ValueError(
            f"--low-band {low_band}: {init_from} has a branch for bins {model.low_first}-{last}: "
            f"use --low-band {model.low_first}-{last}"
        )
    return dataclasses.replace(model, low_first=first, low_bins=count)


def _model(options: TrainOptions, start: ModelConfig | None) -> ModelConfig:
    """The config of the network, without the additions of a guide.

    Parameters
    ----------
    options
        Of the command.
    start
        The config of the initial weights, if there are any.
    """
    stems, init_from = options.data.stems or STEMS, options.data.init_from
    if start and not set(start.stems) <= set(stems):
        raise ValueError(
            f"--init-from {init_from} estimates {', '.join(start.stems)}, and --stems are "
            f"{', '.join(stems)}: start from a network of these stems"
        )
    if start and not (options.network or options.targets):
        return start
    model = preset_config(options.network or DEFAULT, options.targets, stems=stems)
    if start and not (options.data.guide and start.guide):  # else compared with its guide
        check_fits(start, model, str(init_from))
    return model


def _read_run(run: Path) -> tuple[TrainConfig, DataConfig]:
    try:
        config = TrainConfig.from_json((run / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(f"there is no run to resume in {run}: it has no config.json") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"there is no run to resume in {run}: {error}") from error
    return config, read_data(run)


def _refuse_missing(data: DataConfig, cure: Callable[[str], str]) -> None:
    """Refuse data of a run that has been moved.

    Parameters
    ----------
    data
        Of the run.
    cure
        What to do, from the options that would name all folders of the missing one's kind.
    """
    for name, roots in data.roots.items():
        missing = [root for root in roots if not Path(root).exists()]
        if missing:
            option = DATASETS[name].option
            words = [f"{option} {'NEW' if root in missing else shell_word(root)}" for root in roots]
            raise TrainingError(
                f"{missing[0]}, from which this run has recordings, does not exist; if it was "
                f"moved, {cure(' '.join(words))}"
            )


def print_losses() -> None:
    """Print all losses as a table on stdout."""
    table = Table("loss", "what it measures", box=None)
    for name, entry in LOSSES.items():
        table.add_row(name, entry.summary)
    for name, point in published_losses().items():
        table.add_row(name, f"from an installed package: {point.value}")
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
        valid = None
        if check:
            data = read_data(run)
            _refuse_missing(data, lambda _: "export without its validation songs by --no-check")
            valid = _load(data, console, SongLists.read(run))[1]
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
        raise ValueError(f"{output} already exists: choose another name, or delete it first")
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
    """Print warnings and errors of the package on the console."""
    log = logging.getLogger("unetsep")
    handler = RichHandler(console=console, show_path=False, show_time=False)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _what(train: Sequence[Recording]) -> str:
    """What is trained on; of several kinds of data each, as MUSDB_PATH may add one."""
    minutes = sum(recording.samples for recording in train) / SAMPLE_RATE / 60
    counts = Counter(recording.origin for recording in train)
    kinds = ", ".join(f"{count} of {kind}" for kind, count in counts.items())
    return f"{len(train)} recordings ({minutes:.0f} min{f'; {kinds}' if len(counts) > 1 else ''})"


def _load(
    data: DataConfig, console: Console, saved: SongLists | None, *, all_songs: bool = False
) -> tuple[list[Recording], list[Recording]]:
    """Training and validation recordings; a progress bar shows decoding.

    Of duplicates, those are used that the ``saved`` songs of a run name.
    """
    songs = {*saved.songs, *saved.valid_songs} if saved else ()
    with decoding(console) as progress:
        return load_data(data, all_songs=all_songs, songs=songs, progress=progress)
