"""Separate the real music excerpt of the stempeg package, and score it.

    python recipes/demo.py --output demo

The excerpt (The Easton Ellises - Falcon 69) is part of a song of MUSDB18's test set: it is
shown here and never used to choose anything.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import time
from pathlib import Path

import numpy as np
import soundfile

import unetsep
from unetsep.audio.ffmpeg_program import find_ffmpeg
from unetsep.errors import UnetsepError
from unetsep.train.data.musdb import STREAMS
from unetsep.train.evaluation.sdr import frame_sdr, median


def excerpt(folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The mixture as a file, and the true stems as arrays ``(channels, samples)``."""
    package = importlib.util.find_spec("stempeg")
    ffmpeg = find_ffmpeg()
    if package is None or package.origin is None or ffmpeg is None:
        raise SystemExit('run: pip install "unetsep[ffmpeg]" stempeg')
    (source,) = (Path(package.origin).parent / "data").glob("*.stem.mp4")
    stems = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(f"cannot write to {folder}: {error.strerror}") from error
    song = folder / f"{source.name.removesuffix('.stem.mp4')}.wav"
    for stream, name in enumerate(STREAMS):
        target = song if name == "mixture" else folder / f"true-{name}.wav"
        command = [ffmpeg, "-v", "error", "-y", "-i", str(source), "-map", f"0:a:{stream}"]
        subprocess.run([*command, "-c:a", "pcm_s16le", str(target)], check=True)
        stems[name] = soundfile.read(target, always_2d=True)[0].T
    stems.pop("mixture")
    return song, stems


def main() -> None:
    """Separate, score, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo"))
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    song, references = excerpt(options.output)
    start = time.perf_counter()
    try:
        stems = unetsep.separate(song, options.output, model=options.model, overwrite=True)
    except UnetsepError as error:
        parser.error(str(error))
    duration = time.perf_counter() - start
    names = list(stems)
    scores = frame_sdr(
        np.stack([references[name] for name in names]), np.stack([stems[name] for name in names])
    )
    seconds = stems["vocals"].shape[-1] / stems.sample_rate
    print(f"Separated {song} ({seconds:.1f} s) in {duration:.1f} s, loading included.")
    print("SDR against the true stems (BSS Eval v4, median of 1 s frames):")
    for name, score in zip(names, median(scores), strict=True):
        print(f"  {name:7s} {score:5.2f} dB   {stems.files[name]}")


if __name__ == "__main__":
    main()
