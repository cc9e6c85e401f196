"""The ``unetsep`` command; each subcommand imports what it needs when it runs."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from . import __version__
from .cli_train import export, publish, train

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Group(click.Group):
    """Commands whose errors are one sentence, a traceback only with ``--verbose``."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn known errors into messages and exit codes."""
        from .errors import UnetsepError

        try:
            return super().invoke(ctx)
        except (UnetsepError, ValueError) as error:
            if "--verbose" in sys.argv or "-v" in sys.argv:
                traceback.print_exc()
            raise click.ClickException(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Interrupted; unfinished files were removed.", err=True)
            ctx.exit(130)


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="unetsep")
def main() -> None:
    """Split songs into vocals, drums, bass and other."""
    # A polite kill cleans up like Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@main.command()
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
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all cores]")
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
    from .console import run_separate

    if not run_separate(**options):
        raise SystemExit(1)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Everything the manifest says, as JSON.")
def models(as_json: bool) -> None:
    """List the models."""
    from dataclasses import asdict

    from .weights import manifest

    published = manifest()
    entries = list(published.checkpoints.values())
    if as_json:
        content = [asdict(e) | {"bundled": e.bundled} for e in entries]
        click.echo(json.dumps({"default": published.default, "models": content}, indent=1))
        return
    from .console import print_models

    print_models(published)


@main.command("eval")
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
    from .train.commands import run_eval

    if not run_eval(**options):
        raise SystemExit(1)


@main.command()
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
    from .train.commands import run_compare

    run_compare(**options)


main.add_command(train)
main.add_command(export)
main.add_command(publish)


if __name__ == "__main__":
    main()
