"""What the ``models`` commands do and print, and which models a command takes."""

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
    is_path,
    list_models,
    model_name,
)
from .errors import SignalError
from .terminal import Messages, table_console

# Who should take which model: what no manifest can know. "Take it ..."
TAKE = {
    "guided": "for the best stems: it is what you get when you name no model",
    "fast": "for long archives, old computers and phones: the fastest, 0.9 dB behind the default",
    "open": "for a channel or a product that earns money: we trained it on open licences alone",
    "mse": "as the reference when you compare losses: the plainest of them",
    "mag_mse": "to hear the loss of Open-Unmix",
    "mel_mse": "to hear a loss that counts bands as hearing does",
    "l1": "to hear what prefers silence to a soft wrong sound",
    "log_mse": "to hear what happens when soft sounds count as much as loud ones",
    "mag_l1": "to hear the loss of Spleeter; among the seven losses it has the best vocals",
    "perceptual": "to hear a loss that models hearing",
    "spleeter-vocals": "if you need vocals alone, under the MIT licence",
}
# Columns that the table of models takes; narrower terminals get a list.
TABLE_WIDTH = 100


def _split(text: str) -> list[str]:
    """Names and paths between commas; the path of a file may have some itself."""
    return [text] if is_path(text) and os.path.isfile(text) else text.split(",")  # noqa: PTH113


@dataclass(frozen=True)
class ModelChoice:
    """The models that a command is to use.

    Parameters
    ----------
    models
        Names and paths; each text may hold several, separated by commas.
    average
        The mean of their masks, as one model.
    all_losses
        All bundled models, too, but those that are there to guide others.
    """

    models: tuple[str, ...] = ()
    average: bool = False
    all_losses: bool = False

    def groups(self, *, default: bool = True) -> list[list[str]]:
        """Models whose masks belong together: all with ``average``, else each by itself.

        Parameters
        ----------
        default
            Take the default model where none is named.

        Raises
        ------
        ValueError
            If two models have one name, or a text has none.
        """
        names = self._names()
        if not names and default:
            names = ["default"]
        return [names] if self.average and names else [[name] for name in names]

    def _names(self) -> list[str]:
        parts = [part.strip() for text in self.models for part in _split(text)]
        names = list(dict.fromkeys(part for part in parts if part))
        # Files of two runs have one name. Only results by model need names of their own.
        called = [name if self.average and is_path(name) else model_name(name) for name in names]
        twice = next((each for each in called if called.count(each) > 1), None)
        if twice or not all(text.strip(", ") for text in self.models):
            why = f"two are called {twice}, " if twice else ""
            raise ValueError(
                f"--model {','.join(self.models)!r}: {why}expected different names, separated by "
                "commas"
            )
        if self.all_losses:
            known = all_models()
            bundled = (e.name for e in known.checkpoints.values() if e.bundled)
            names += [name for name in bundled if name not in {*called, *known.guides}]
        return names


def run_models(*, as_json: bool, cache_dir: bool) -> None:
    """The ``models`` command without a subcommand."""
    if as_json and cache_dir:
        raise ValueError("--json prints the models and --cache-dir a folder: give one of them")
    if cache_dir:
        click.echo(hub.cache_folder())
        return
    known = all_models()
    if as_json:
        content = known.to_dict()
        entries = zip(content.pop("checkpoints"), known.checkpoints.values(), strict=True)
        content["models"] = [each | {"bundled": entry.bundled} for each, entry in entries]
        click.echo(json.dumps(content, indent=1))
        return
    print_models(known)


def print_models(known: Manifest) -> None:
    """Print the models: a table or, on a narrow terminal, a list; with advice for each."""
    console = table_console()
    rows = [_row(entry, known) for entry in known.checkpoints.values()]
    if console.width < TABLE_WIDTH:
        for name, *facts in rows:
            console.print(name, style="bold")
            for text in filter(None, facts):
                console.print(Padding(text, (0, 0, 0, 2)))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("name", "take it", "SDR (v/d/b/o)", "size", "licence", "where"):
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _row(entry: Checkpoint, known: Manifest) -> tuple[str, ...]:
    """Name, advice, scores, size, licence and place of a model."""
    scores = entry.scores.get("sdr", {})
    return (
        entry.name + (" (default)" if entry.name == known.default else ""),
        advice(entry),
        "/".join(f"{scores[s]:.2f}" for s in entry.config.get("stems", ()) if s in scores),
        f"{known.bytes_with_guide(entry) / 1e6:.1f} MB",
        entry.licence,
        "bundled" if entry.bundled else "imported" if entry.source else entry.repo_id,
    )


def advice(entry: Checkpoint) -> str:
    """Who should take a model; what it is, if that is not known here."""
    return TAKE.get(entry.name, entry.description)


def run_download(
    *, names: Sequence[str], everything: bool, source: Path | None, address: str | None
) -> None:
    """The ``models download`` command."""
    console = Messages()
    columns = (TextColumn("Downloading"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("download", total=None, visible=False)

        def advance(done: int, total: int | None) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        def wait(name: str) -> None:
            click.echo(f"Another process is getting {name}: waiting for it", err=True)

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
    """Get models from the hub, or Spleeter's from its release; yields a sentence for each.

    Parameters
    ----------
    names
        Of published models, ``default`` among them, or of Spleeter's.
    everything
        All published ones instead.
    source, address, progress
        Of Spleeter's, see `unetsep.spleeter.release.get`.
    on_wait
        Called with a name that another process is getting.

    Raises
    ------
    ValueError
        If neither or both of ``names`` and ``everything`` are given, or a source for several, or
        a source and an address.
    WeightsError
        If a name is unknown or a download fails.
    """
    _check_download(names, everything=everything, source=source, address=address)
    known = {entry.name: entry for entry in list_models()}
    names = [name if is_path(name) else model_name(name) for name in names]
    unknown = [name for name in names if name not in known and not is_release(name)]
    if unknown:
        expected = dict.fromkeys((*known, *SPLEETER))  # of which some may be imported already
        raise WeightsError(f"there is no model {unknown[0]!r}: expected {', '.join(expected)}")
    for name in known if everything else names:
        entry = known.get(name)
        if entry is None or (is_release(name) and not everything):
            wait = functools.partial(on_wait, name)
            with contextlib.nullcontext() if source else _telling_what_is_kept():
                entry = get(name, source=source, address=address, progress=progress, on_wait=wait)
        yield f"{entry.name}: {fetch_model(entry)}"


def _check_download(
    names: Sequence[str], *, everything: bool, source: Path | None, address: str | None
) -> None:
    """Raise `ValueError` unless these options go together."""
    if bool(names) == everything:
        given = "both" if names else "neither"
        raise ValueError(f"name the models to download, or give --all: got {given}")
    if source and address:
        raise ValueError("--from and --url both say where an archive is: give one of them")
    if (source or address) and not all(is_release(name) for name in names):
        raise ValueError(
            f"--from and --url are for {', '.join(SPLEETER)}: others come from the hub"
        )
    if source and len(names) > 1:
        raise ValueError(f"--from is for one model, got {', '.join(names)}")


@contextlib.contextmanager
def _telling_what_is_kept() -> Iterator[None]:
    """Say on Ctrl-C that a download goes on where it was."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise SignalError(
            "interrupted; what was downloaded is kept: run the command again to resume",
            signal.SIGINT,
        ) from error


def run_verify() -> bool:
    """The ``models verify`` command; returns whether no model is damaged."""
    lines, intact = verify()
    click.echo("\n".join(lines))
    return intact


def verify() -> tuple[list[str], bool]:
    """Compare all models that are here with their SHA-256.

    Returns
    -------
    list of str
        A sentence for each model.
    bool
        Whether all can be read and none is damaged; damaged downloads are deleted from the
        cache, if that is possible.
    """
    checked = [_verify(entry) for entry in list_models()]
    return [line for line, _ in checked], all(intact for _, intact in checked)


def _verify(entry: Checkpoint) -> tuple[str, bool]:
    here = entry.is_local
    path = entry.path if here else hub.cached_file(entry)
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
    if here:
        cure = "import it again" if entry.source else "install unetsep again"
        return f"{entry.name}: damaged, {path}: {cure}", False
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
    if output.is_file() and not overwrite:  # said before the work
        raise UnetsepError(f"{output} exists already: use --overwrite, or choose another file")
    from ..weights.onnx import export_onnx

    click.echo(f"Wrote {export_onnx(model, output)}")
