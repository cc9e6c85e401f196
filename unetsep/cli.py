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
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: all cores]")
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


if __name__ == "__main__":
    main()
