"""A synthetic MUSDB18 folder for the tests of evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from tests.signals import RATE


def write_song(folder: Path, stems: dict[str, npt.NDArray[np.floating]]) -> None:
    """A song in the wav layout; the mixture is the stems' sum."""
    folder.mkdir(parents=True)
    mixture = np.sum(list(stems.values()), axis=0)
    for name, signal in {"mixture": mixture, **stems}.items():
        soundfile.write(folder / f"{name}.wav", signal.T, RATE, subtype="PCM_16")
