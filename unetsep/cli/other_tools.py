"""Options of other tools, and their equivalents here.

Users of Demucs, Spleeter, audio-separator or Open-Unmix type them from habit.
"""

from __future__ import annotations

import click

from .sections import SectionedCommand

SPLEETER_MODELS = "--model spleeter-2stems, spleeter-4stems or spleeter-5stems"
# Demucs, Spleeter, audio-separator, Open-Unmix.
TRANSLATIONS = {
    "-n": "--model",
    "--name": "--model",
    "--out": "--output",
    "--mp3": "--format mp3",
    "--flac": "--format flac",
    "--mp3-bitrate": "--bitrate 320k",
    "--int24": "--bit-depth 24",
    "--float32": "--bit-depth 32f",
    "--shifts": "--passes",
    "-j": "--jobs",
    "-p": SPLEETER_MODELS,
    "--params_filename": SPLEETER_MODELS,
    "--output_path": "--output",
    "-c": "--format",
    "--codec": "--format",
    "-b": "--bitrate",
    "-s": "--start",
    "--offset": "--start",
    "--filename_format": "--filename",
    "--mwf": "--wiener 1",
    "--list_models": "'unetsep models'",
    "--model_filename": "--model",
    "--output_format": "--format",
    "--output_dir": "--output",
    "--output_bitrate": "--bitrate",
    "--sample_rate": "--sample-rate",
    "--mdx_overlap": "--overlap",
    "--vr_enable_tta": "--passes 4",
    "--model_file_dir": "UNETSEP_HOME=DIR",
    "--single_stem": "--stems vocals or --instrumental",
    "--targets": "--stems",
    "--residual": "--two-stems",
    "--outdir": "--output",
    "--ext": "--format",
    "--niter": "--wiener",
    "--no-cuda": "--device cpu",
}
NOT_NEEDED = "It is not needed here."
# Options without an equivalent, and what to say of them.
REMARKS = {
    "-i": "Name songs without an option.",
    "--inputs": "Name songs without an option.",
    "-a": NOT_NEEDED,
    "--adapter": NOT_NEEDED,
    "--segment": NOT_NEEDED,
    "--no-split": NOT_NEEDED,
    "--clip-mode": "Stems that would clip are always lowered, all alike.",
    "--normalization": "Levels stay as they are in the song.",
}


class SeparateCommand(SectionedCommand):
    """A command that answers options of other tools with its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; refuse an option of another tool and name its equivalent."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            if name not in TRANSLATIONS and name not in REMARKS:
                raise
            remark = REMARKS.get(name) or f"Use {TRANSLATIONS[name]} instead."
            message = f"No such option '{name}'. {remark}"
            raise click.NoSuchOption(name, message, ctx=ctx) from error
