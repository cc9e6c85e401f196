"""Transcribe the words of a song: separate the voice, silence its pauses, ask whisper.

    pip install faster-whisper      (or openai-whisper)
    python examples/transcribe.py song.mp3

prints the times and words of each line.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soxr

import unetsep

WHISPER_RATE = 16_000
# Windows this much softer than the loudest hold only residues of the band.
GATE_DB = -40.0
GATE_SECONDS = 0.5

Samples = npt.NDArray[np.float32]


class Line(NamedTuple):
    """A line of a transcript, times in seconds."""

    start: float
    end: float
    text: str


Transcriber = Callable[[Samples], Iterable[Line]]


def voice(path: Path, start: float = 0.0, duration: float | None = None) -> Samples:
    """The voice of a song as whisper expects it: ``(samples,)``, mono, 16 kHz, float32."""
    stems = unetsep.separate(path, stems=["vocals"], start=start, duration=duration)
    mono = stems["vocals"].mean(axis=0)
    return gated(np.asarray(soxr.resample(mono, stems.sample_rate, WHISPER_RATE), np.float32))


def gated(samples: Samples, rate: int = WHISPER_RATE) -> Samples:
    """The samples with silenced pauses, faded over the length of the gate's window."""
    size = round(GATE_SECONDS * rate)
    count = -(-samples.size // size)
    windows = np.pad(samples, (0, count * size - samples.size)).reshape(count, size)
    levels = np.sqrt((windows**2).mean(axis=1))
    loudest = levels.max(initial=0.0)
    if not loudest:
        return samples
    gate = (levels > loudest * 10 ** (GATE_DB / 20)).astype(np.float32)
    # Windows beside an open one stay open, so that no syllable is cut.
    gate = np.maximum(gate, np.maximum(np.r_[0, gate[:-1]], np.r_[gate[1:], 0]))
    middles = (np.arange(count) + 0.5) * size
    gain = np.interp(np.arange(samples.size), middles, gate)
    return (samples * gain).astype(np.float32)


def whisper(model: str) -> Transcriber:
    """A function from samples to lines, by the installed whisper package."""
    try:
        from faster_whisper import WhisperModel
    except ImportError:
        try:
            import whisper as openai_whisper
        except ImportError:
            raise SystemExit("install faster-whisper or openai-whisper") from None
        openai = openai_whisper.load_model(model)
        return lambda samples: (
            Line(part["start"], part["end"], part["text"].strip())
            for part in openai.transcribe(samples)["segments"]
        )
    faster = WhisperModel(model)
    return lambda samples: (
        Line(part.start, part.end, part.text.strip()) for part in faster.transcribe(samples)[0]
    )


def main(transcriber: Callable[[str], Transcriber] = whisper) -> None:
    """Separate, transcribe, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("song", type=Path)
    parser.add_argument("--start", type=float, default=0.0, help="seconds to skip")
    parser.add_argument("--duration", type=float, help="seconds to take")
    parser.add_argument("--model", default="small", help="whisper's model")
    options = parser.parse_args()
    transcribe = transcriber(options.model)  # fails before the long work if packages are missing
    try:
        samples = voice(options.song, options.start, options.duration)
    except (ValueError, unetsep.UnetsepError) as error:
        raise SystemExit(str(error)) from error
    for line in transcribe(samples):
        start, end = line.start + options.start, line.end + options.start
        print(f"{start:7.2f} {end:7.2f}  {line.text}")


if __name__ == "__main__":
    main()
