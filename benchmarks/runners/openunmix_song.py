"""Separate a 16-bit wav file by Open-Unmix with random weights: ``SONG.wav OUT_FOLDER``.

Runs where Open-Unmix is, see `peers.py`. Its own command reads audio through a package that
its requirements do not bring, so reading and writing are done here, by Python's wave module.
The network and its filter are those of the published ``umxhq``: hidden size 512, 16 kHz of
bandwidth, one step of expectation maximisation.
"""

import sys
import wave
from pathlib import Path

import numpy as np
import torch
from openunmix.model import OpenUnmix, Separator
from openunmix.utils import bandwidth_to_max_bin

TARGETS = ("vocals", "drums", "bass", "other")


def build() -> Separator:
    """The separator, with the weights of a fixed seed."""
    torch.manual_seed(0)
    top = bandwidth_to_max_bin(rate=44100.0, n_fft=4096, bandwidth=16000)
    models = {
        target: OpenUnmix(nb_bins=2049, nb_channels=2, hidden_size=512, max_bin=top).eval()
        for target in TARGETS
    }
    separator = Separator(models, niter=1, residual=False, n_fft=4096, n_hop=1024, nb_channels=2)
    separator.freeze()
    return separator


def main() -> None:
    """Read, separate, write."""
    song, folder = map(Path, sys.argv[1:])
    with wave.open(str(song)) as file:
        rate, data = file.getframerate(), file.readframes(file.getnframes())
    audio = np.frombuffer(data, "<i2").reshape(-1, 2).T.astype(np.float32) / 32768
    separator = build()
    with torch.no_grad():
        stems = separator.to_dict(separator(torch.from_numpy(audio)[None]))
    folder.mkdir(parents=True, exist_ok=True)
    for name, stem in stems.items():
        samples = np.clip(np.rint(stem[0].T.numpy() * 32768), -32768, 32767).astype("<i2")
        with wave.open(str(folder / f"{name}.wav"), "wb") as file:
            file.setparams((2, 2, rate, len(samples), "NONE", ""))
            file.writeframes(samples.tobytes())


if __name__ == "__main__":
    main()
