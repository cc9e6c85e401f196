"""Options of ``train``, ``average``, ``export`` and ``publish``."""

from __future__ import annotations

from typing import Any

import click

from ...network.presets import DEFAULT, NETWORKS
from ...train.config import (
    EXTRA_BASS,
    EXTRA_SHARE,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    TrainConfig,
)
from ...train.data.datasets import DATASETS
from ..errors import ExtraCommand
from ..parsing import names
from .completion import complete_model
from .shared import COUNT, PATH, PATH_TEXT, Decorator, group, quiet, threads

WHOLE = click.IntRange(min=0)
# What `train` does without options.
TRAINING = TrainConfig()
# An option for each kind of data set.
datasets = group(
    *(
        click.option(kind.option, multiple=kind.repeated, type=PATH, help=kind.help)
        for kind in DATASETS.values()
    )
)
manifest = click.option("--manifest", type=PATH, help="Add the entries to this manifest.")


def setting(name: str, kind: Any, text: str, metavar: str | None = None) -> Decorator:
    """An option whose default is that of the field of `TrainConfig` with its name."""
    default = getattr(TRAINING, name.removeprefix("--").replace("-", "_"))
    shown = (f"{default:g}" if default else "off") if isinstance(default, float) else default
    return click.option(name, type=kind, metavar=metavar, help=f"{text}  [default: {shown}]")


TRAIN_SECTIONS = {
    "--run": "The run",
    "--losses": "Losses",
    "--musdb-root": "Data",
    "--network": "Network",
    "--batch-size": "Clips",
    "--optimizer": "Steps",
    "--valid-every": "Validation",
    "--accelerator": "Machines",
    "--quiet": "Other options",
}


@click.command(cls=ExtraCommand, extra="train", sections=TRAIN_SECTIONS)
@click.option("--run", type=PATH, help="Folder of the run.  [default: runs/LOSS]")
@click.option("--resume", is_flag=True, help="Resume an interrupted run.")
@click.option(
    "--max-steps",
    type=COUNT,
    metavar="N",
    help=f"Stop after this many batches.  [default: {TRAINING.max_steps}; with --max-minutes none]",
)
@click.option(
    "--max-minutes",
    type=float,
    metavar="MIN",
    help="Stop after this time, at learning rate 0; 0: no limit.",
)
@setting("--seed", WHOLE, "Seed of weights and clips.", "N")
@click.option(
    "--early-stop",
    type=WHOLE,
    metavar="N",
    help="Stop after this many validations without progress.  [default: never]",
)
@click.option(
    "--loss",
    "--losses",
    "losses",
    type=names,
    metavar="A,B",
    help="Train a network with each; your own are module:name or file.py:name.  "
    f"[default: {','.join(TRAINING.losses)}]",
)
@click.option("--list-losses", is_flag=True, help="List the losses and stop.")
@datasets
@click.option("--stems", type=names, metavar="A,B", help="Stems of the songs.  [default: four]")
@click.option(
    "--leave-out",
    multiple=True,
    metavar="NAME[=STEM,...]",
    help="Do not train on this song, or on these stems of it; repeatable.",
)
@click.option(
    "--held-out",
    type=WHOLE,
    metavar="N",
    help="Excerpts of songs held out for validation, besides MUSDB18's.  [default: 10]",
)
@click.option(
    "--all-songs",
    is_flag=True,
    default=None,
    help="Also train on the validation songs, and keep the last weights.",
)
@click.option(
    "--cache",
    "cache_dir",
    type=PATH,
    help="Cache folder of decoded stems.  [default: ~/.cache/unetsep/stems]",
)
@click.option(
    "--network", type=click.Choice(list(NETWORKS)), help=f"Kind of network.  [default: {DEFAULT}]"
)
@click.option("--targets", type=names, metavar="A,B", help="Estimate only these stems.")
@click.option(
    "--init-from",
    type=PATH_TEXT,
    metavar="NAME|PATH",
    help="Start from a checkpoint's weights.",
)
@click.option(
    "--guide",
    type=PATH_TEXT,
    metavar="NAME|PATH",
    help="Vocals network that guides, and is not trained.",
)
@click.option(
    "--guide-levels",
    type=WHOLE,
    metavar="N",
    help="Levels of the guide's decoder that the encoder sees.  "
    "[default: 0, or those of --init-from]",
)
@setting(
    "--own-share", float, "With a guide: weight of the network's own vocals in the loss.", "WEIGHT"
)
@click.option("--low-band", metavar="A-B", help="Train only a branch for these bins: 0-127.")
@click.option(
    "--freeze-norm", is_flag=True, default=None, help="Do not update BatchNorm's statistics."
)
@setting("--batch-size", COUNT, "Clips in a batch, for each device.", "N")
@setting("--clip-frames", COUNT, "Length of a clip; 256 are 6 s.", "N")
@setting("--coherent-share", float, "Share of clips from one song.", "SHARE")
@setting("--gain-db", float, "Random gain of stems, up or down.", "DB")
@click.option(
    "--coherent-gain-db",
    type=float,
    metavar="DB",
    help="The same for clips from one song.  [default: the same number]",
)
@setting("--varispeed", float, "Change pitch and tempo of stems; 0.1 is up to 10%.", "SHARE")
@click.option(
    "--coherent-varispeed",
    type=float,
    metavar="SHARE",
    help="The same for clips from one song.  [default: the same number]",
)
@setting("--eq-db", float, "Random equalisers of up to this many dB.", "DB")
@setting("--reverb-share", float, "Share of stems with reverb.", "SHARE")
@setting("--stereo-share", float, "Share of stems that are rotated and widened in stereo.", "SHARE")
@setting("--drive-share", float, "Share of saturated stems.", "SHARE")
@click.option(
    "--extra-share",
    metavar="STEM=SHARE,...",
    help="How often random mixes take a stem from other data than MUSDB18.  "
    f"[default: {EXTRA_SHARE}, bass {EXTRA_BASS}]",
)
@click.option(
    "--second-share",
    metavar="STEM=SHARE,...",
    help="How often random mixes have two recordings of a stem.  [default: none]",
)
@click.option(
    "--artist-weights",
    is_flag=True,
    default=None,
    help="Draw artists instead of recordings, since some artists have many.",
)
@setting("--optimizer", click.Choice(OPTIMIZERS), "How weights are updated.")
@setting("--muon-size", float, "Length of Muon's steps.", "SIZE")
@setting("--learning-rate", float, "Highest learning rate of the run.", "RATE")
@setting("--warmup-steps", WHOLE, "Steps in which the learning rate rises.", "N")
@setting(
    "--schedule",
    click.Choice(SCHEDULES),
    "How the learning rate falls: until the end, or whenever scores stop rising.",
)
@setting("--ema-decay", float, "Decay of the averaged weights, which are exported.", "DECAY")
@setting("--valid-every", COUNT, "Steps between validations.", "N")
@setting("--watched", WHOLE, "Training recordings to score as well.", "N")
@click.option(
    "--accelerator",
    default="auto",
    type=click.Choice(["auto", "cpu", "gpu", "mps"]),
    help="Device to train on.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    help="Number format of convolutions.  [default: auto]",
)
@click.option(
    "--devices",
    type=COUNT,
    metavar="N",
    help="GPUs of each machine, or processes on its CPU.  [default: 1, or as launched]",
)
@click.option(
    "--nodes", type=COUNT, metavar="N", help="Number of machines.  [default: 1, or as launched]"
)
@click.option(
    "--workers",
    type=WHOLE,
    metavar="N",
    help="Processes that cut clips.  [default: 1 on a CPU, at most 8 with a GPU]",
)
@threads
@click.option("--resident", is_flag=True, help="Keep all audio in the accelerator's memory.")
@click.option(
    "--graph/--no-graph",
    default=True,
    help="On one GPU: record steps as CUDA graphs.",
)
@quiet
def train(**options: Any) -> None:
    """Train networks, one for each loss, on the same batches.

    Reads MUSDB18 (--musdb-root or MUSDB_PATH), folders of songs and pools of single stems.
    Writes a run folder with checkpoints, log and curves.

    See https://github.com/unetsep/unetsep/blob/main/docs/how-to/train.md
    """
    from ..train import TrainOptions, run_train

    run_train(TrainOptions.from_values(options))


@click.command(cls=ExtraCommand, extra="train")
@click.argument(
    "models", nargs=-1, required=True, metavar="NAME|PATH...", shell_complete=complete_model
)
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
def average(**options: Any) -> None:
    """Average the weights of several checkpoints.

    The result is in full precision. Use it for networks that were trained from the same
    weights (--init-from) for a few hundred steps, each with a different seed. Their mean is
    usually better than any of them.
    """
    from ..train import run_average

    run_average(**options)


@click.command(cls=ExtraCommand, extra="train")
@click.argument("run", type=PATH)
@click.option("--loss", metavar="LOSS", help="Export only this network.  [default: all]")
@click.option("--name", metavar="NAME", help="Name of the checkpoint.  [default: the loss]")
@click.option(
    "--licence", default="CC BY-NC-SA 4.0", metavar="LICENCE", help="Licence of the weights."
)
@manifest
@click.option(
    "--check/--no-check",
    default=True,
    help="Check that the SDR is that of full precision.",
)
def export(**options: Any) -> None:
    """Export the best networks of a RUN as checkpoints.

    Writes them to RUN/export.
    """
    from ..train import run_export

    run_export(**options)


@click.command(cls=ExtraCommand, extra="train")
@click.argument("run", type=PATH)
@click.option("--repo-id", required=True, metavar="ORG/NAME", help="Repository on the hub.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@manifest
def publish(**options: Any) -> None:
    """Upload exported checkpoints to the Hugging Face hub."""
    from ..train import run_publish

    run_publish(**options)
