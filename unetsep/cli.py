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

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Group(click.Group):
    """Commands whose errors are one sentence, a traceback only with ``--verbose``.

    The commands of training and evaluation come from `unetsep.train.cli`, when they are
    listed or called.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, those for users first."""
        from .train.cli import COMMANDS

        return [*super().list_commands(ctx), *COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """A command by its name."""
        found = super().get_command(ctx, name)
        if found is not None:
            return found
        from .train.cli import COMMANDS

        return COMMANDS.get(name)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn known errors into messages and exit codes."""
        from .errors import UnetsepError

        try:
            return super().invoke(ctx)
        except (UnetsepError, ValueError) as error:
            if "--verbose" in sys.argv or "-v" in sys.argv:
                traceback.print_exc()
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError) or error.strerror is None:
                raise
            place = f" ({error.filename})" if error.filename else ""
            raise click.ClickException(f"{error.strerror}{place}") from error
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
    from .console import run_separate

    if not run_separate(**options):
        raise SystemExit(1)


@main.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Everything the manifest says, as JSON.")
@click.option("--cache-dir", is_flag=True, help="Print where downloads are kept.")
@click.pass_context
def models(ctx: click.Context, as_json: bool, cache_dir: bool) -> None:
    """List the models, get or verify them, or import others'."""
    if ctx.invoked_subcommand is not None:
        return
    if cache_dir:
        from .hub import cache_folder

        click.echo(cache_folder())
        return
    from dataclasses import asdict

    from .weights import all_models

    known = all_models()
    entries = list(known.checkpoints.values())
    if as_json:
        content = [asdict(e) | {"bundled": e.bundled} for e in entries]
        click.echo(json.dumps({"default": known.default, "models": content}, indent=1))
        return
    from .console import print_models

    print_models(known)


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Every published model.")
def download(names: tuple[str, ...], everything: bool) -> None:
    """Get models from the hub now, to be offline later; bundled ones are there already."""
    from .manage import download as run

    for line in run(names, everything=everything):
        click.echo(line)


@models.command()
def verify() -> None:
    """Compare every model that is here with its SHA-256; damaged downloads are deleted."""
    from .manage import verify as run

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
    from .spleeter import import_spleeter as run

    entry = run(source, name=name, band=band, overwrite=overwrite)
    click.echo(f"Imported {entry.name} to {entry.path}; use it with --model {entry.name}")


def run() -> None:
    """The command as a process of its own."""
    try:
        main()
    except SystemExit as end:
        if sys.argv[1:2] == ["separate"] and isinstance(end.code, int):
            from .startup import leave

            leave(end.code)
        raise


if __name__ == "__main__":
    run()
