"""What the ``models`` commands do and print, and which models a command uses."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from ..errors import UnetsepError, WeightsError
from ..spleeter.release import DownloadProgress, get, is_release
from ..storage import file_sha256
from ..weights import hub
from ..weights.load import fetch_model
from ..weights.manifest import (
    SPLEETER,
    Checkpoint,
    Manifest,
    all_models,
    check_distinct,
    is_path,
    list_models,
    model_name,
    unknown_model,
)
from .errors import SignalError
from .terminal import Messages, can_draw, table_console

# Advice that no manifest contains; each text completes "Take it ...".
TAKE = {
    "guided": "for the best stems: it is what you get when you name no model",
    "fast": "for long archives, old computers and phones: the fastest, 0.9 dB behind the default",
    "open": "for a channel or a product that earns money: we trained it on open licences alone",
    "mse": "as the reference when you compare losses: the plainest of them",
    "mag_mse": "to hear the loss of Open-Unmix",
    "mel_mse": "to hear a loss that counts bands as hearing does",
    "l1": "to hear a loss that prefers silence to a soft wrong sound",
    "log_mse": "to hear what happens when soft sounds count as much as loud ones",
    "mag_l1": "to hear the loss of Spleeter; among the seven losses it has the best vocals",
    "perceptual": "to hear a loss that models hearing",
    "spleeter-vocals": "if you need vocals alone, under the MIT licence",
}
TITLES = ("name", "take it", "SDR (v/d/b/o)", "size", "licence", "where")
# Columns that the table of models needs; narrower terminals get a list.
TABLE_WIDTH = 100


def _split(text: str) -> list[str]:
    """Names and paths separated by commas, which the path of a file may contain itself."""
    return [text] if is_path(text) and os.path.isfile(text) else text.split(",")  # noqa: PTH113


@dataclass(frozen=True)
class ModelChoice:
    """The models that a command uses.

    Parameters
    ----------
    models
        Names and paths; each text may hold several, separated by commas.
    average
        Whether to average their masks, as one model.
    all_losses
        Whether to add all bundled models except those that only guide others.
    """

    models: tuple[str, ...] = ()
    average: bool = False
    all_losses: bool = False

    def groups(self, *, default: bool = True) -> list[list[str]]:
        """Models whose masks are averaged: all with ``average``, else each model alone.

        Parameters
        ----------
        default
            Use the default model where none is named.

        Raises
        ------
        ValueError
            As `names`.
        """
        names = self.names()
        if not names and default:
            names = ["default"]
        return [names] if self.average and names else [[name] for name in names]

    def names(self) -> list[str]:
        """All models, one by one.

        Raises
        ------
        ValueError
            If two models have the same name, or a text names no model.
        """
        parts = [part.strip() for text in self.models for part in _split(text)]
        names = list(dict.fromkeys(part for part in parts if part))
        # Files of two runs have the same name. Only results by model need distinct names.
        labels = [name if self.average and is_path(name) else model_name(name) for name in names]
        check_distinct(labels)
        if not all(text.strip(", ") for text in self.models):
            raise ValueError(
                f"--model {','.join(self.models)!r}: expected names, separated by commas"
            )
        if self.all_losses:
            manifest = all_models()
            bundled = (e.name for e in manifest.checkpoints.values() if e.bundled)
            names += [name for name in bundled if name not in {*labels, *manifest.guides}]
        return names


def run_models(*, as_json: bool, cache_dir: bool, command: str | None = None) -> None:
    """The ``models`` command; with a subcommand, only that it has no option before it."""
    if command and (as_json or cache_dir):
        option = "--json" if as_json else "--cache-dir"
        raise ValueError(f"{option} is an option of models alone: leave it out before {command}")
    if command:
        return
    if as_json and cache_dir:
        raise ValueError("--json prints the models and --cache-dir a folder: choose one")
    if cache_dir:
        click.echo(hub.cache_folder())
        return
    manifest = all_models()
    if as_json:
        content = manifest.to_dict()
        entries = zip(content.pop("checkpoints"), manifest.checkpoints.values(), strict=True)
        content["models"] = [each | {"bundled": entry.bundled} for each, entry in entries]
        click.echo(json.dumps(content, indent=1))
        return
    print_models(manifest)


def print_models(manifest: Manifest) -> None:
    """Print the models with advice: a table or, on a narrow terminal, a list."""
    console = table_console()
    rows = [_row(entry, manifest) for entry in manifest.checkpoints.values()]
    if console.width < TABLE_WIDTH:
        for name, *facts in rows:
            console.print(name, style="bold")
            for title, text in zip(TITLES[1:], facts, strict=True):
                if text:
                    console.print(Padding(f"{title}: {text}", (0, 0, 0, 2)))
        return
    table = Table(box=None, pad_edge=False)
    for title in TITLES:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _row(entry: Checkpoint, manifest: Manifest) -> tuple[str, ...]:
    """Name, advice, scores, size, licence and location of a model."""
    scores = entry.scores.get("sdr", {})
    return (
        entry.name + (" (default)" if entry.name == manifest.default else ""),
        advice(entry),
        "/".join(f"{scores[s]:.2f}" for s in entry.config.get("stems", ()) if s in scores),
        f"{manifest.bytes_with_guide(entry) / 1e6:.1f} MB",
        entry.licence,
        "bundled" if entry.bundled else "imported" if entry.source else entry.repo_id,
    )


def advice(entry: Checkpoint) -> str:
    """Who should take a model; without advice, its description."""
    return TAKE.get(entry.name, entry.description)


def run_download(
    *, names: Sequence[str], everything: bool, source: Path | None, address: str | None
) -> None:
    """The ``models download`` command."""
    console = Messages()
    columns = (TextColumn("Downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not can_draw(console)) as bar:
        task = bar.add_task("download", total=None, visible=False)

        def advance(completed: int, total: int | None) -> None:
            bar.update(task, completed=completed, total=total, visible=True)

        def wait(name: str) -> None:
            click.echo(f"Another process is downloading {name}: waiting for it", err=True)

        for line in download(
            names,
            everything=everything,
            source=source,
            address=address,
            progress=advance,
            on_wait=wait,
        ):
            click.echo(line)


def download(
    names: Sequence[str],
    *,
    everything: bool = False,
    source: Path | None = None,
    address: str | None = None,
    progress: DownloadProgress | None = None,
    on_wait: Callable[[str], None] = lambda _: None,
) -> Iterator[str]:
    """Download models from the hub, or Spleeter's from its release; yields a sentence for each.

    Parameters
    ----------
    names
        Of published models, including ``default``, or of Spleeter's.
    everything
        Download all published models instead.
    source, address, progress
        For Spleeter's models, see `unetsep.spleeter.release.get`.
    on_wait
        Called with a name that another process is downloading.

    Raises
    ------
    ValueError
        If neither or both of ``names`` and ``everything`` are given, or a source for several
        models, or a source and an address.
    WeightsError
        If a name is unknown or a download fails.
    """
    _check_download(names, everything=everything, source=source, address=address)
    entries = {entry.name: entry for entry in list_models()}
    names = [name if is_path(name) else model_name(name) for name in names]
    unknown = [name for name in names if name not in entries and not is_release(name)]
    if unknown:
        expected = dict.fromkeys((*entries, *SPLEETER))  # some of which may be imported already
        raise WeightsError(unknown_model(unknown[0], list(expected)))
    for name in entries if everything else names:
        entry = entries.get(name)
        if entry is None or (is_release(name) and not everything):
            wait = functools.partial(on_wait, name)
            with contextlib.nullcontext() if source else _explain_resume():
                entry = get(name, source=source, address=address, progress=progress, on_wait=wait)
        yield f"{entry.name}: {fetch_model(entry)}"


def _check_download(
    names: Sequence[str], *, everything: bool, source: Path | None, address: str | None
) -> None:
    """Raise `ValueError` unless these options can be combined."""
    if bool(names) == everything:
        choice = "both" if names else "neither"
        raise ValueError(f"name the models to download, or use --all: got {choice}")
    if source and address:
        raise ValueError("--from and --url both say where an archive is: choose one")
    if (source or address) and not all(is_release(name) for name in names):
        raise ValueError(
            f"--from and --url are for {', '.join(SPLEETER)}: other models come from the hub"
        )
    if source and len(names) > 1:
        raise ValueError(f"--from is for one model, got {', '.join(names)}")


@contextlib.contextmanager
def _explain_resume() -> Iterator[None]:
    """Say on Ctrl-C that the download can be resumed."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise SignalError(
            "interrupted; the partial download was kept: run the command again to resume",
            signal.SIGINT,
        ) from error


def run_verify() -> bool:
    """The ``models verify`` command: check all local models against their SHA-256.

    Damaged downloads are deleted from the cache where that is possible.

    Returns
    -------
    bool
        Whether all can be read and none is damaged.
    """
    checked = [_verify(entry) for entry in list_models()]
    click.echo("\n".join(line for line, _ in checked))
    return all(intact for _, intact in checked)


def _verify(entry: Checkpoint) -> tuple[str, bool]:
    path = entry.path if entry.is_local else hub.cached_file(entry)
    if path is None or not path.is_file():
        if entry.source:
            return f"{entry.name}: missing, {path} is gone: import it again", False
        return f"{entry.name}: not downloaded", True
    try:
        digest = file_sha256(path)
    except OSError as error:
        return f"{entry.name}: cannot be read: {error.strerror} ({path})", False
    if digest == entry.sha256:
        return f"{entry.name}: intact", True
    if entry.is_local:
        remedy = "import it again" if entry.source else "install unetsep again"
        return f"{entry.name}: damaged, {path}: {remedy}", False
    try:
        hub.remove(path)
    except OSError as error:
        return f"{entry.name}: damaged, and could not be deleted: {error.strerror} ({path})", False
    return f"{entry.name}: damaged, deleted from the cache", False


def run_import(*, source: Path, name: str | None, band: str, overwrite: bool) -> None:
    """The ``models import-spleeter`` command."""
    from ..spleeter.convert import import_spleeter

    entry = import_spleeter(source, name=name, band=band, overwrite=overwrite)
    click.echo(f"Imported {entry.name} to {entry.path}; use it with --model {entry.name}")


def run_export_onnx(*, model: str, output: Path, overwrite: bool) -> None:
    """The ``export-onnx`` command."""
    if output.is_file() and not overwrite:  # before the work
        raise UnetsepError(f"{output} already exists: use --overwrite, or choose another file")
    from ..weights.onnx import export_onnx

    click.echo(f"Wrote {export_onnx(model, output)}")
