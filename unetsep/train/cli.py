"""The commands of training and evaluation; each imports what it needs when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .train_cli import average, export, publish, train


@click.command("eval")
@click.option(
    "--musdb-root",
    type=click.Path(path_type=Path),
    metavar="ROOT",
    help="Folder with train/ and test/, of .stem.mp4 files or wav folders.  [default: $MUSDB_PATH]",
)
@click.option(
    "-o",
    "--output",
    default="evaluation",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder for scores and report; what is there and still valid is reused.",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="NAME|PATH",
    help="Any number, repeated or separated by commas.  [default: the default model]",
)
@click.option("--average", is_flag=True, help="One method: the mean of the models' masks.")
@click.option("--all-losses", is_flag=True, help="Every bundled model.")
@click.option(
    "--estimates",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Stems that any tool wrote: DIR/<track>/vocals.wav and so on; repeatable.",
)
@click.option(
    "--baselines",
    default="all",
    show_default=True,
    metavar="A,B",
    help="mixture, mixture-4, oracle-1, oracle-2, repet-hpss; or none.",
)
@click.option(
    "--subset", default="test", show_default=True, type=click.Choice(["test", "train", "valid"])
)
@click.option(
    "--tracks",
    "only",
    multiple=True,
    metavar="NAME|N",
    help="Tracks whose names hold NAME (repeatable), or the first N.",
)
@click.option("--duration", type=float, metavar="SECONDS", help="Cut songs to this length.")
@click.option(
    "--metrics",
    default="sdr",
    show_default=True,
    type=click.Choice(["sdr", "bsseval", "museval"]),
    help="bsseval adds ISR, SIR and SAR; museval computes the same by museval, slowly.",
)
@click.option("--jobs", default=1, show_default=True, type=click.IntRange(min=1), help="Processes.")
@click.option(
    "-d",
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
)
@click.option("--figures/--no-figures", default=True, show_default=True, help="Pictures, too.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Only the measured table.")
@click.option("-v", "--verbose", is_flag=True, expose_value=False, help="Tracebacks.")
def evaluate(**options: Any) -> None:
    """Score models and other estimates on MUSDB18, as museval does.

    Median SDR of 1 s frames, median of tracks, with bootstrap intervals. The network runs
    in fp32. Needs 'pip install unetsep[train]'.
    """
    from .commands import run_eval

    if not run_eval(**options):
        raise SystemExit(1)


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--metric", default="SDR", show_default=True, metavar="SDR|ISR|SIR|SAR")
@click.option(
    "-o",
    "--output",
    default="evaluation",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Where A and B are looked for if they are names.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on stdout.")
@click.option("-v", "--verbose", is_flag=True, expose_value=False, help="Tracebacks.")
def compare(**options: Any) -> None:
    """Paired difference of A and B, two folders that 'unetsep eval' wrote."""
    from .commands import run_compare

    run_compare(**options)


COMMANDS = {
    str(command.name): command for command in (train, average, evaluate, compare, export, publish)
}
