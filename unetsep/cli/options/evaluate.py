"""Options of ``eval`` and ``compare``."""

from __future__ import annotations

from typing import Any

import click

from ..errors import ExtraCommand
from ..parsing import build, names, seconds
from .shared import COUNT, PATH, device, model_choice, output, passes, tracebacks

EVAL_SECTIONS = {
    "--musdb-root": "Data",
    "--model": "Estimates",
    "--metrics": "Scores",
    "--jobs": "Machine",
    "--output": "What is shown",
    "--help": "Other options",
}


@click.command("eval", cls=ExtraCommand, extra="train", sections=EVAL_SECTIONS)
@click.option(
    "--musdb-root",
    type=PATH,
    metavar="ROOT",
    help="Folder with train/ and test/, of .stem.mp4 files or wav folders.  [default: $MUSDB_PATH]",
)
@click.option(
    "--songs",
    type=PATH,
    metavar="ROOT",
    help="Score your own songs: ROOT/test/<song>/ holds a file for each stem, of any name.",
)
@click.option(
    "--pairs",
    type=PATH,
    metavar="CSV",
    help="Score files listed in a table, with columns mixture and vocals, or other stems.",
)
@click.option("--moisesdb", type=PATH, metavar="ROOT", help="Score all songs of a MoisesDB folder.")
@click.option(
    "--index", type=PATH, metavar="JSON", help="Score a split of an index such as mirdata's."
)
@click.option(
    "--stems",
    type=names,
    metavar="A,B",
    help="Stems of --moisesdb and --index to score.  [default: four]",
)
@click.option(
    "--subset",
    default="test",
    type=click.Choice(["test", "train", "valid"]),
    help="Part of the data to score; valid is 14 songs of train.",
)
@click.option(
    "--tracks",
    multiple=True,
    metavar="NAME|N",
    help="Only tracks whose names contain NAME (repeatable), or the first N.",
)
@click.option("--duration", type=seconds, metavar="TIME", help="Cut songs to this length.")
@model_choice
@click.option(
    "--estimates",
    multiple=True,
    type=PATH,
    metavar="DIR",
    help="Also score stems from any tool: DIR/<track>/vocals.wav and so on; repeatable.",
)
@click.option(
    "--baselines",
    default="all",
    metavar="A,B",
    help="mixture, mixture-4, oracle-1, oracle-2, repet-hpss; or none.",
)
@passes
@click.option(
    "--metrics",
    default="sdr",
    type=click.Choice(["sdr", "bsseval", "museval"]),
    help="bsseval adds ISR, SIR and SAR; museval computes the same by museval, slowly.",
)
@click.option(
    "--measures",
    type=names,
    metavar="A,B",
    help="Also: si-sdr; log-wmse; 2f, a model of listeners; lsd, log-spectral distance; all."
    "  [default: none]",
)
@click.option(
    "--sources",
    multiple=True,
    type=names,
    metavar="A,B",
    help="Score this set, such as vocals,accompaniment (the sum of the rest); repeatable."
    "  [default: the stems that each method gives]",
)
@click.option("--jobs", default=1, type=COUNT, metavar="N", help="Tracks to score at once.")
@device
@output("evaluation", "Folder of scores and reports; scores that are still valid are reused.")
@click.option("--figures/--no-figures", default=True, help="Draw pictures of the scores.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Show only the measured tables.")
@tracebacks
def evaluate(**options: Any) -> None:
    """Score models, or stems from any tool, on MUSDB18.

    The score is museval's: the median SDR of 1 s frames, then the median of tracks, with
    bootstrap intervals. The network runs in fp32. Needs pip install "unetsep[train]".
    """
    from ..evaluate import EvalOptions, run_eval

    if not run_eval(build(EvalOptions, options)):
        raise SystemExit(1)


@click.command(cls=ExtraCommand, extra="train")
@click.argument("a", type=PATH)
@click.argument("b", type=PATH)
@click.option(
    "--metric",
    default="SDR",
    metavar="SDR|ISR|SIR|SAR",
    help="What to compare: one of these, or a measure that both reports have.",
)
@output("evaluation", "Folder in which A and B are looked up if they are names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@tracebacks
def compare(**options: Any) -> None:
    """Compare two evaluations, song by song.

    A and B are folders written by 'unetsep eval'.
    """
    from ..evaluate import run_compare

    run_compare(**options)
