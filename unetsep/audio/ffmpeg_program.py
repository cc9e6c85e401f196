"""The ``ffmpeg`` program: where it is, and how it is run."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

from ..stopwatch import Stopwatch
from ..unfinished import register_undo, unregister_undo

# On Windows: no Ctrl-C, which unetsep handles, and no console window over a graphical program.
NO_CONSOLE = getattr(subprocess, "CREATE_NO_WINDOW", 0)


def find_ffmpeg() -> str | None:
    """The ffmpeg program on PATH, or the one of the ``imageio-ffmpeg`` package, or None."""
    program = shutil.which("ffmpeg")
    if program:
        return program
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def ffmpeg_command(ffmpeg: str, path: Path, *output: str) -> list[str]:
    """Arguments that run ffmpeg on a file; without an output it describes the file."""
    # ffmpeg must not open what a playlist names; see also `FfmpegDecoder._refuse_lists`.
    source = ["-protocol_whitelist", "file,pipe", "-i", f"file:{path}"]
    quiet = ["-v", "error"] if output else []
    return [ffmpeg, "-hide_banner", "-nostdin", *quiet, *source, *output]


def run_ffmpeg(
    ffmpeg: str, path: Path, timeout: float, *output: str
) -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg on a file to its end.

    Raises
    ------
    TimeoutError
        After that many seconds; ffmpeg is stopped.
    OSError
        If it cannot be started.
    """
    command = ffmpeg_command(ffmpeg, path, *output)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, creationflags=NO_CONSOLE
    ) as process:
        register_undo(process.kill)  # one that hangs would outlive this program
        try:
            output_and_messages = _communicate(process, timeout)
        finally:
            process.kill()
            unregister_undo(process.kill)
    return subprocess.CompletedProcess(command, process.returncode, *output_and_messages)


def _communicate(process: subprocess.Popen[bytes], timeout: float) -> tuple[bytes, bytes]:
    """What a process prints; a `TimeoutError` once this process has run for so long."""
    watch = Stopwatch()
    while watch.look() < timeout:
        with contextlib.suppress(subprocess.TimeoutExpired):  # nothing that was read is lost
            return process.communicate(timeout=min(1.0, timeout))
    raise TimeoutError(f"ffmpeg was stopped after {timeout:g} s")
