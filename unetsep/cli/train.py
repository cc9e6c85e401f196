"""What the ``train``, ``export`` and ``publish`` commands do."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..config import STEMS
from ..network.devices import pick_precision
from ..train.config import EXTRA_SHARE, TrainConfig, TrainingError
from ..train.data.cache import Progress as Report
from ..train.data.run_data import HELD_OUT, Data, find_data, load_data, read_data, song_lists
from ..train.progress import stop


def run_train(
    *,
    losses: str | None,
    list_losses: bool,
    musdb_root: Path | None,
    songs: Sequence[Path],
    pools: Sequence[Path],
    cache_dir: Path | None,
    held_out: int | None,
    leave_out: Sequence[str],
    network: str | None,
    targets: str | None,
    extra_share: str | None,
    second_share: str | None,
    run: Path | None,
    resume: bool,
    init_from: str | None,
    precision: str | None,
    accelerator: str,
    devices: int | None,
    nodes: int | None,
    workers: int | None,
    resident: bool,
    threads: int | None,
    quiet: bool,
    **settings: Any,
) -> None:
    """The ``train`` command; its options are described in `unetsep.cli.options`."""
    console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
    if list_losses:
        print_losses()
        return
    import torch

    from ..train.distributed import processes
    from ..train.fit import Machine, fit, refuse_used
    from ..train.logs import is_main_process
    from ..train.losses.functions import check_name
    from ..train.progress import ProgressBar

    console.quiet = quiet or not is_main_process()
    each, machines = processes(devices, nodes)
    if threads is not None:
        torch.set_num_threads(threads)
    names = tuple(name.strip() for name in losses.split(",")) if losses else None
    for name in names or ():
        check_name(name)
    chosen = {key: value for key, value in settings.items() if value is not None}
    if names:
        chosen["losses"] = names
    if precision:
        chosen["precision"] = pick_precision(precision, accelerator)
    if extra_share:
        chosen["extra_share"] = EXTRA_SHARE | parse_shares(extra_share)
    if second_share:
        chosen["second_share"] = parse_shares(second_share)
    folder = run or Path("runs") / "-".join(names or TrainConfig().losses)
    if resume:
        if network or targets or init_from or leave_out or held_out is not None:
            raise ValueError(
                "--resume goes on with the run's own network and recordings: it cannot be "
                "combined with --network, --targets, --init-from, --held-out or --leave-out"
            )
        config, data = _saved(folder)
        config = dataclasses.replace(config, **chosen)
        if musdb_root or songs or pools or cache_dir:
            kept = {name: getattr(data, name) for name in ("init_from", "held_out", "leave_out")}
            data = find_data(musdb_root, songs, pools, cache_dir, **kept)
    else:
        if is_main_process():
            refuse_used(folder)
        chosen.setdefault("precision", pick_precision("auto", accelerator))
        chosen["model"] = _model(network, targets, init_from)
        config = TrainConfig(**chosen)
        data = find_data(
            *(musdb_root, songs, pools, cache_dir),
            init_from=init_from,
            held_out=HELD_OUT if held_out is None else held_out,
            leave_out=tuple(leave_out),
        )
    with _logging(console):
        train, valid = load_data(data, console)
        minutes = sum(song.samples for song in train) / 44_100 / 60
        console.print(
            f"Training {', '.join(config.losses)} on {len(train)} songs and recordings "
            f"({minutes:.0f} min), validating on {len(valid)}; writing to {folder}"
        )
        if is_main_process():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "data.json").write_text(json.dumps(dataclasses.asdict(data), indent=1))
            (folder / "songs.json").write_text(json.dumps(song_lists(train, valid), indent=1))
        fit(
            config,
            train,
            valid,
            folder,
            machine=Machine(accelerator, each, machines, workers, resident),
            resume=resume,
            init_from=init_from,
            callbacks=[ProgressBar(console)],
        )
    console.print(f"Done. Next: unetsep export {folder}")


def parse_shares(text: str) -> dict[str, float]:
    """``bass=0.3,drums=0.5`` as a mapping.

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
        if stem not in STEMS:
            raise ValueError(
                f"--extra-share {text!r}: expected a share from 0 to 1 for some of "
                f"{', '.join(STEMS)}, such as bass=0.3,drums=0.5"
            )
    return shares


def print_losses() -> None:
    """The registry as a table on stdout."""
    from rich.table import Table

    from ..train.losses.functions import LOSSES

    table = Table("loss", "what it measures", box=None)
    for name, entry in LOSSES.items():
        table.add_row(name, entry.summary)
    Console().print(table)


def run_export(*, run: Path, loss: str | None, check: bool, **described: Any) -> None:
    """The ``export`` command."""
    from ..train.release.export import export_run

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with _logging(console):
        valid = load_data(read_data(run), console)[1] if check else None
        for path in export_run(run, loss=loss, valid=valid, **described):
            console.print(f"Wrote {path}", markup=False)


def run_average(*, models: Sequence[str], output: Path) -> None:
    """The ``average`` command."""
    from ..storage import write_atomically
    from ..train.release.average import average_weights
    from ..weights.checkpoint import serialize

    if output.suffix != ".safetensors":
        raise ValueError(f"--output {output}: expected a name that ends in .safetensors")
    if output.exists():
        raise ValueError(f"{output} exists: choose another name, or delete it first")
    content = serialize(average_weights(models), half=False)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, content)
    Console(stderr=True).print(f"Wrote {output}", markup=False)


def run_publish(*, run: Path, repo_id: str, private: bool, manifest: Path | None) -> None:
    """The ``publish`` command."""
    from ..train.release.publish import publish

    revision = publish(run, repo_id, private=private, manifest=manifest)
    Console(stderr=True).print(f"Published {repo_id} at revision {revision}", markup=False)


def _model(network: str | None, targets: str | None, init_from: str | None) -> Any:
    from ..network.presets import DEFAULT, build_model
    from ..weights.load import load_network

    if init_from and not (network or targets):
        return load_network(init_from).config
    names = [name.strip() for name in targets.split(",")] if targets else None
    return build_model(network or DEFAULT, names)


def _saved(run: Path) -> tuple[TrainConfig, Data]:
    try:
        config = TrainConfig.from_json((run / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"there is no run to resume in {run}: {error}") from error
    return config, read_data(run)


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


@contextmanager
def decoding(console: Console) -> Iterator[Report]:
    """A bar for `unetsep.train.data.cache.load`, shown only if there is something to decode."""
    bar = Progress(
        TextColumn("Decoding"), BarColumn(), MofNCompleteColumn(), console=console, transient=True
    )
    task = bar.add_task("decoding", total=None)

    def report(done: int, total: int) -> None:
        if done < total and console.is_terminal and not bar.live.is_started:
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield report
    finally:
        stop(bar)
