"""The commands that train, export and publish; the work is in `unetsep.train`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

# Keys of `unetsep.train.presets.NETWORKS`, which is not imported for a help text.
NETWORKS = ("small", "mixing", "large", "wide", "spleeter", "spleeter-relu")


@click.command()
@click.option("--loss", "--losses", "losses", metavar="A,B", help="One network for each.")
@click.option("--list-losses", is_flag=True, help="List the losses and stop.")
@click.option("--musdb-root", type=click.Path(path_type=Path), help="[default: $MUSDB_PATH]")
@click.option("--songs", multiple=True, type=click.Path(path_type=Path), help="Songs with stems.")
@click.option("--pools", multiple=True, type=click.Path(path_type=Path), help="Single stems.")
@click.option("--cache", "cache_dir", type=click.Path(path_type=Path), help="For decoded stems.")
@click.option("--held-out", type=click.IntRange(min=0), help="Of --songs.  [default: 10 excerpts]")
@click.option("--leave-out", multiple=True, metavar="NAME[=STEM,...]", help="Not trained on.")
@click.option("--network", type=click.Choice(NETWORKS), help="[default: mixing]")
@click.option("--targets", metavar="A,B", help="Estimate only these stems.")
@click.option("--run", type=click.Path(path_type=Path), help="Folder.  [default: runs/LOSS]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@click.option("--init-from", metavar="NAME|PATH", help="Start from a checkpoint's weights.")
@click.option("--max-steps", type=click.IntRange(min=1))
@click.option("--max-minutes", type=float, help="End on time, with the rate annealed.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Clips, for each device.")
@click.option("--varispeed", type=float, help="Pitch and tempo, 0.1: up to 10%.  [default: off]")
@click.option("--coherent-varispeed", type=float, help="Of clips from one song.  [default: same]")
@click.option("--eq-db", type=float, help="Random equalisers, up to this.  [default: off]")
@click.option("--reverb-share", type=float, help="Of the stems.  [default: off]")
@click.option("--optimizer", type=click.Choice(["muon", "adamw"]), help="[default: muon]")
@click.option("--muon-size", type=float, help="Of its steps.  [default: 0.8]")
@click.option("--learning-rate", type=float)
@click.option("--warmup-steps", type=click.IntRange(min=0))
@click.option("--schedule", type=click.Choice(["cosine", "plateau"]))
@click.option("--ema-decay", type=float)
@click.option("--freeze-norm", is_flag=True, default=None, help="Keep BatchNorm's statistics.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]))
@click.option("--coherent-share", type=float, help="Clips from one song.  [default: 0.3]")
@click.option("--extra-share", metavar="STEM=SHARE,...", help="Taken from songs and pools.")
@click.option("--second-share", metavar="STEM=SHARE,...", help="Two recordings.  [default: none]")
@click.option("--seed", type=click.IntRange(min=0))
@click.option("--valid-every", type=click.IntRange(min=1), help="Steps.")
@click.option("--early-stop", type=click.IntRange(min=0), help="Validations without progress.")
@click.option("--accelerator", default="auto", type=click.Choice(["auto", "cpu", "gpu", "mps"]))
@click.option(
    "--devices", type=click.IntRange(min=1), help="Per machine.  [default: 1, or the launcher's]"
)
@click.option("--nodes", type=click.IntRange(min=1), help="Machines.  [default: as --devices]")
@click.option("--workers", type=click.IntRange(min=0), help="Processes that cut clips.")
@click.option("--resident", is_flag=True, help="Keep all audio in the accelerator's memory.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
def train(**options: Any) -> None:
    """Train networks, one for each loss, all on the same batches.

    Takes MUSDB18 (--musdb-root or MUSDB_PATH), folders of songs and pools of single stems,
    and writes a run folder with checkpoints, log and curves. See docs/training.md.
    """
    from .train_commands import run_train

    run_train(**options)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--loss", help="Only this network.  [default: all]")
@click.option("--name", help="What to call it.  [default: the loss]")
@click.option("--licence", default="CC BY-NC-SA 4.0", show_default=True, help="Of the weights.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Add the entries to this file.")
@click.option("--check/--no-check", default=True, help="Compare SDR with full precision.")
def export(**options: Any) -> None:
    """Turn a training RUN's best networks into checkpoints, in RUN/export."""
    from .train_commands import run_export

    run_export(**options)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="NAME|PATH...")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="New file.")
def average(**options: Any) -> None:
    """Write the mean of the weights of several checkpoints, in full precision.

    For networks that were trained from the same weights (--init-from), each with a seed of
    its own, for a few hundred steps: their mean is usually better than any of them.
    """
    from .train_commands import run_average

    run_average(**options)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--repo-id", required=True, metavar="ORG/NAME", help="Repository on the hub.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Add the entries to this file.")
def publish(**options: Any) -> None:
    """Upload a RUN's exported checkpoints to the Hugging Face hub."""
    from .train_commands import run_publish

    run_publish(**options)
