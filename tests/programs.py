"""Decoders and encoders that do not come with the package: they say what the right samples are."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = {
    "flac": "flac",
    "oggenc": "vorbis-tools",
    "oggdec": "vorbis-tools",
    "opusenc": "opus-tools",
    "opusdec": "opus-tools",
    "lame": "lame",
    "ffmpeg": "ffmpeg",
    "ffprobe": "ffmpeg",
}


def execute(name: str, *arguments: str | Path) -> bytes:
    """Run a program of `PACKAGES`; its standard output.

    The test is skipped where it is not installed, and fails if the environment has ``CI``.
    """
    if shutil.which(name) is None:
        message = f"needs {name}: apt-get install {PACKAGES[name]}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    command = [name, *map(str, arguments)]
    ran = subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True)
    return ran.stdout


def script(folder: Path, text: str) -> str:
    """A program that stands in for ffmpeg."""
    if os.name == "nt":
        pytest.skip("needs a shell")
    path = folder / "ffmpeg"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)
