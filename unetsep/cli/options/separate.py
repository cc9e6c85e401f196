"""Options of ``separate``."""

from __future__ import annotations

from typing import Any

import click

from ...audio.formats import BIT_DEPTHS, CONTAINERS
from ...config import MAX_ITERATIONS, MAX_RATE, MIN_RATE
from ..errors import note_verbose
from ..other_tools import SeparateCommand
from ..parsing import (
    bitrate,
    build,
    default_filename,
    names,
    path_or_url,
    seconds,
    shard,
    without_stem,
)
from .completion import complete_file
from .shared import COUNT, PATH, PATH_TEXT, device, model_choice, output, passes, quiet, threads

SEPARATE_SECTIONS = {
    "--files-from": "Input",
    "--stems": "Stems",
    "--output": "Output",
    "--model": "Models",
    "--device": "Quality and speed",
    "--jobs": "Many songs",
    "--player": "What is shown",
    "--help": "Other options",
}


@click.command(cls=SeparateCommand, sections=SEPARATE_SECTIONS)
@click.argument(
    "songs", nargs=-1, type=path_or_url, metavar="SONG...", shell_complete=complete_file
)
@click.option(
    "--files-from",
    type=PATH,
    metavar="FILE|-",
    help="Read more SONGs from a file, one to a line or NUL-separated; - is stdin.",
)
@click.option(
    "--start",
    default=0.0,
    show_default=False,
    type=seconds,
    metavar="TIME",
    help="Start here: 90 or 1:30.",
)
@click.option("--duration", type=seconds, metavar="TIME", help="Separate only this much.")
@click.option(
    "--track",
    type=COUNT,
    metavar="N",
    help="Which sound track of a video with several; the first is 1.  "
    "[default: the file's default]",
)
@click.option("--stems", type=names, metavar="A,B", help="Write only these stems.")
@click.option("--two-stems", metavar="STEM", help="Write STEM, and the rest as no_STEM.")
@click.option("--without", metavar="STEM", help="Write all but STEM, in one file.")
@click.option(
    "--instrumental", is_flag=True, help="Same as --without vocals: 'song (Instrumental).wav'."
)
@output(
    "separated",
    "Output folder or URL; - writes a single stem to stdout.",
    path_or_url,
    "FOLDER|URL|-",
)
@click.option(
    "--filename",
    type=PATH_TEXT,
    metavar="TEMPLATE",
    help="Path of a stem within OUTPUT. {track} is the song's name; other fields are {label} "
    "(Vocals), {model}, {suffix} and {folder} (the song's; not at URLs), {artist}, {title}, "
    "{album}, {albumartist}, {tracknumber} and {year}. With --without the default is {track} "
    "({label}).{ext}.  [default: {track}/{stem}.{ext}]",
)
@click.option(
    "-f",
    "--format",
    "container",
    default="wav",
    type=click.Choice([*CONTAINERS], case_sensitive=False),
    help="File format of the stems. "
    + " ".join(f"{name}: {row.help}." for name, row in CONTAINERS.items()),
)
@click.option(
    "--bit-depth",
    default="auto",
    type=click.Choice(BIT_DEPTHS),
    help="auto keeps the song's bit depth, or the nearest that the format supports (flac: at "
    "most 24), but at least 16. Lossy songs count as 24.",
)
@click.option(
    "--bitrate", type=bitrate, metavar="RATE", help="Bit rate of lossy formats, such as 192k."
)
@click.option(
    "--sample-rate",
    type=click.IntRange(MIN_RATE, MAX_RATE),
    metavar="HZ",
    help="Sample rate of the stems, such as 48000.  [default: the song's]",
)
@click.option("--tags/--no-tags", default=True, help="Copy the song's tags and cover.")
@click.option(
    "--skip-existing",
    is_flag=True,
    help="Skip songs whose stems this command would make again. Stems that were made differently, "
    "such as by another model, stay and are reported as errors.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace existing files; with --skip-existing, only those that were made differently.",
)
@click.option("--dry-run", is_flag=True, help="List what would be written, and write nothing.")
@model_choice
@device
@click.option(
    "--precision",
    default="auto",
    type=click.Choice(["auto", "fp32", "bf16"]),
    help="Number format of the network; auto uses bf16 where that is faster.",
)
@threads
@passes
@click.option(
    "--overlap",
    type=float,
    metavar="SHARE",
    help="Overlap of neighbouring segments, as a share from 0 to 0.5.  [default: the model's]",
)
@click.option(
    "--wiener",
    type=click.IntRange(0, MAX_ITERATIONS),
    metavar="ITERATIONS",
    help="Iterations of a filter that refines stems by their position in the stereo image; "
    "0 turns it off.  [default: the model's]",
)
@click.option(
    "--gate/--no-gate",
    default=True,
    help="Turn each stem down while it does not play, if the model supports it.",
)
@click.option(
    "--mask-extension",
    default="top",
    type=click.Choice(["top", "zeros"]),
    help="Above the network's band: extend the top of the mask, or stay silent (stems then do not "
    "add up).",
)
@click.option(
    "--jobs",
    "songs_at_once",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Songs to separate at once.  [default: by cores, memory and lengths]",
)
@click.option("--timeout", type=seconds, metavar="TIME", help="Give up on a song after this long.")
@click.option(
    "--log",
    type=PATH,
    metavar="FILE",
    help="Log a line of JSON for each song to FILE.  [default: with several songs, --shard or "
    "--retry-failed, OUTPUT/unetsep-<host>-<process>.jsonl]",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Retry the songs whose last attempt failed, according to the logs in OUTPUT and that of "
    "--log; if SONGs are given, only those. Existing stems are treated as by --skip-existing.",
)
@click.option(
    "--shard",
    type=shard,
    metavar="K/N",
    help="Separate the K-th of N shares of the songs, for job arrays and clusters.",
)
@click.option(
    "--engine",
    default="local",
    type=click.Choice(["local", "ray"]),
    help='ray separates on --jobs slots of a cluster; needs pip install "unetsep[ray]".',
)
@click.option(
    "--address",
    metavar="HOST:PORT|auto",
    help="Running Ray cluster to use.  [default: start one on this machine]",
)
@click.option("--dashboard", is_flag=True, help="Start Ray's dashboard, on 127.0.0.1.")
@click.option("--player", is_flag=True, help="Also write a page that plays the stems.")
@click.option("--plots", is_flag=True, help="Also draw spectrograms, masks and levels.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print a line of JSON for each song and model."
)
@quiet
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    callback=note_verbose,
    help="Show the device, the load time and tracebacks.",
)
def separate(**options: Any) -> None:
    """Separate songs into stems.

    A SONG is an audio file, a folder, an m3u playlist or a URL; - is stdin. Put ./ before a
    name that starts with a dash.

    Stems go to OUTPUT/<song>/vocals.wav and so on, with the song's own sample rate, channels,
    length and bit depth. Folders are searched recursively and mirrored. Each of several models
    gets a folder of its own. Several commands with --skip-existing may share an output folder:
    no song is separated twice.

    See https://github.com/unetsep/unetsep/blob/main/docs/how-to/scale.md for clusters.
    """
    from ..startup import import_torch

    if not (options["songs"] or options["files_from"] or options["retry_failed"]):
        raise click.UsageError("Missing argument 'SONG...'.")
    without = without_stem(options)
    options["without"] = without
    options["filename"] = options["filename"] or default_filename(options["container"], without)
    import_torch()
    from ..separate import SeparateOptions, run_separate

    if not run_separate(build(SeparateOptions, options)):
        raise SystemExit(1)
