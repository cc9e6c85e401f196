"""Options of other tools, and their equivalents here.

Users of Demucs, Spleeter, audio-separator or Open-Unmix type them from habit.
"""

from __future__ import annotations

import itertools
import re

import click

from .sections import SectionedCommand

SPLEETER_MODELS = "--model spleeter-2stems, spleeter-4stems or spleeter-5stems"
# Demucs, Spleeter, audio-separator, Open-Unmix.
TRANSLATIONS = {
    "--out": "--output",
    "--mp3": "--format mp3",
    "--flac": "--format flac",
    "--mp3-bitrate": "--bitrate 320k",
    "--mp3-preset": "--bitrate 320k",
    "--int24": "--bit-depth 24",
    "--float32": "--bit-depth 32f",
    "--shifts": "--passes",
    "--demucs_shifts": "--passes",
    "--cpu": "--device cpu",
    "--gpu": "--device cuda",
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
    "--log_level": "--verbose or --quiet",
    "--debug": "--verbose",
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
NO_WEIGHTS = (
    "Leave it out for the best stems; --model names our models. Those of Demucs do not run."
)
# Options without an equivalent, and what to say of them.
REMARKS = {
    "-i": "Name songs without an option.",
    "--inputs": "Name songs without an option.",
    "-a": NOT_NEEDED,
    "--adapter": NOT_NEEDED,
    "-n": NO_WEIGHTS,
    "--name": NO_WEIGHTS,
    "--repo": NO_WEIGHTS,
    "--other-method": "With --two-stems the other file is the song without the stem.",
    "-B": NOT_NEEDED,
    "--segment": NOT_NEEDED,
    "--no-split": NOT_NEEDED,
    "--use_autocast": NOT_NEEDED,
    "--chunk_duration": NOT_NEEDED,
    "--mdx_segment_size": NOT_NEEDED,
    "--invert_spect": NOT_NEEDED,
    "--clip-mode": "Stems that would clip are always lowered, all alike.",
    "--normalization": "Levels stay as they are in the song.",
}
# Options of Spleeter's that have another meaning here, by values that only Spleeter takes.
SPLEETER_VALUES = (
    ("device", r"'[\d.]+'", "-d use --duration."),
    ("container", r"'.*\{", "-f use --filename."),
)


class SeparateCommand(SectionedCommand):
    """A command that answers options of other tools with its own."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; refuse options of other tools and name their equivalents."""
        words = list(args)  # which click consumes
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            options = itertools.takewhile(lambda word: word != "--", words)
            names = [w.partition("=")[0] if w.startswith("--") else w[:2] for w in options]
            answers = {name: _answer(name) for name in (error.option_name, *names)}
            if not answers[error.option_name]:
                raise
            message = "\n".join(filter(None, answers.values()))
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from error
        except click.BadParameter as error:
            for name, value, cure in SPLEETER_VALUES:
                if error.param and error.param.name == name and re.match(value, error.message):
                    message = f"{error.message} For Spleeter's {cure}"
                    raise click.BadParameter(message, ctx, error.param) from error
            raise


def _answer(name: str) -> str:
    """What to say of another tool's option; nothing of a name that is none's."""
    if name not in TRANSLATIONS and name not in REMARKS:
        return ""
    remark = REMARKS.get(name) or f"Use {TRANSLATIONS[name]} instead."
    return f"No such option '{name}'. {remark}"
