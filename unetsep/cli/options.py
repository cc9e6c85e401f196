"""The ``unetsep`` command; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command()
@click.argument(
    "songs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SONG..."
)
@click.option(
    "-o",
    "--output",
    "output_dir",
    default="separated",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Output folder.",
)
@click.option(
    "-m",
    "--model",
    "models",
    default="default",
    show_default=True,
    metavar="NAME|PATH",
    help="Model, or several separated by commas; see 'unetsep models'.",
)
@click.option("--average", is_flag=True, help="One result: the mean of the models' masks.")
@click.option("--all-losses", is_flag=True, help="Every bundled model, each in its own folder.")
@click.option("--stems", metavar="A,B", help="Write only these stems.")
@click.option("--two-stems", metavar="STEM", help="Write STEM and no_STEM, the rest.")
@click.option(
    "-f",
    "--format",
    "container",
    default="wav",
    show_default=True,
    type=click.Choice(["wav", "flac", "ogg", "mp3"]),
    help="Output format.",
)
@click.option(
    "--bit-depth",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "16", "24", "32f"]),
    help="auto keeps the input's.",
)
@click.option(
    "--filename",
    "template",
    default="{track}/{stem}.{ext}",
    show_default=True,
    help="Also {model} and {suffix} (the input's).",
)
@click.option("--start", default=0.0, metavar="SECONDS", help="Skip this much.")
@click.option("--duration", type=float, metavar="SECONDS", help="Then take only this much.")
@click.option(
    "-d",
    "--device",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
)
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="Of the network alone.",
)
@click.option(
    "--overlap",
    type=float,
    metavar="SHARE",
    help="Of neighbouring segments, 0 to 0.5.  [default: the model's]",
)
@click.option(
    "--mask-extension",
    default="top",
    show_default=True,
    type=click.Choice(["top", "zeros"]),
    help="Above the network's band.",
)
@click.option(
    "--wiener",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="ITERATIONS",
    help="Refine stems by their place in the stereo image.",
)
@click.option("--threads", type=click.IntRange(1, 512), help="CPU threads.  [default: all cores]")
@click.option("--skip-existing", is_flag=True, help="Leave songs whose stems are all there.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--json", "as_json", is_flag=True, help="One JSON report per file on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors.")
@click.option("-v", "--verbose", is_flag=True, help="Device, load time, tracebacks.")
def separate(**options: Any) -> None:
    """Separate SONGs, audio files or folders, into stems.

    Writes OUTPUT/<song>/vocals.wav and so on, at the song's own sample rate, channels,
    length and bit depth. Folders are searched recursively and mirrored. For names that
    begin with a dash write ./-name or put -- before them.
    """
    from .startup import import_torch

    import_torch()
    from .separate import run_separate

    if not run_separate(**options):
        raise SystemExit(1)


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Everything the manifest says, as JSON.")
@click.option("--cache-dir", is_flag=True, help="Print where downloads are kept.")
@click.pass_context
def models(ctx: click.Context, as_json: bool, cache_dir: bool) -> None:
    """List the models, get or verify them, or import others'."""
    if ctx.invoked_subcommand is not None:
        return
    if cache_dir:
        from ..weights.hub import cache_folder

        click.echo(cache_folder())
        return
    from dataclasses import asdict

    from ..weights.manifest import all_models

    known = all_models()
    entries = list(known.checkpoints.values())
    if as_json:
        content = [asdict(e) | {"bundled": e.bundled} for e in entries]
        click.echo(json.dumps({"default": known.default, "models": content}, indent=1))
        return
    from .separate import print_models

    print_models(known)


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every published model.")
def download(names: tuple[str, ...], everything: bool) -> None:
    """Get models from the hub now, to be offline later; bundled ones are there already."""
    from .models import download as run

    for line in run(names, everything=everything):
        click.echo(line)


@models.command()
def verify() -> None:
    """Compare every model that is here with its SHA-256; damaged downloads are deleted."""
    from .models import verify as run

    lines, intact = run()
    click.echo("\n".join(lines))
    if not intact:
        raise SystemExit(1)


@models.command()
@click.argument("source", type=click.Path(path_type=Path), metavar="FOLDER|TAR.GZ")
@click.option("--name", help="What to call the model.  [default: spleeter-4stems and so on]")
@click.option(
    "--band",
    default="11khz",
    show_default=True,
    type=click.Choice(["11khz", "16khz"]),
    help="What the network sees, as in Spleeter's configurations.",
)
@click.option("--overwrite", is_flag=True, help="Replace the user's model of that name.")
def import_spleeter(source: Path, name: str | None, band: str, overwrite: bool) -> None:
    """Import a checkpoint of Spleeter, without TensorFlow.

    Reads the folder or archive that Deezer publishes (2stems, 4stems or 5stems) and keeps
    its networks as a model in the user's own folder.
    """
    from ..spleeter.convert import import_spleeter as run

    entry = run(source, name=name, band=band, overwrite=overwrite)
    click.echo(f"Imported {entry.name} to {entry.path}; use it with --model {entry.name}")


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
    from .evaluate import run_eval

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
    from .evaluate import run_compare

    run_compare(**options)


# Keys of `unetsep.network.presets.NETWORKS`, which is not imported for a help text.
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
    from .train import run_train

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
    from .train import run_export

    run_export(**options)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="NAME|PATH...")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="New file.")
def average(**options: Any) -> None:
    """Write the mean of the weights of several checkpoints, in full precision.

    For networks that were trained from the same weights (--init-from), each with a seed of
    its own, for a few hundred steps: their mean is usually better than any of them.
    """
    from .train import run_average

    run_average(**options)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--repo-id", required=True, metavar="ORG/NAME", help="Repository on the hub.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--manifest", type=click.Path(path_type=Path), help="Add the entries to this file.")
def publish(**options: Any) -> None:
    """Upload a RUN's exported checkpoints to the Hugging Face hub."""
    from .train import run_publish

    run_publish(**options)


COMMANDS: dict[str, click.Command] = {
    str(command.name): command
    for command in (separate, models, train, average, evaluate, compare, export, publish)
}
