"""Effect of the Wiener filter, and of bfloat16, on musdb's validation songs.

    python benchmarks/quality/wiener.py --musdb-root MUSDB18-7 --models mse l1 --iterations 0 1 2

Prints the SDR of each stem (median of 1 s frames, median of songs) and their mean, and by
how much bfloat16 changes the stems over all songs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from unetsep.errors import UnetsepError
from unetsep.separator import Separator
from unetsep.train.evaluation.sdr import frame_sdr, median
from unetsep.train.evaluation.tracks import find_tracks, read_track
from unetsep.weights.load import load_network


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--musdb-root", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=["default"])
    parser.add_argument("--iterations", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    try:
        songs = [read_track(track) for track in find_tracks(options.musdb_root, "valid")]
        networks = {model: load_network(model) for model in options.models}
    except UnetsepError as error:
        parser.error(str(error))
    for model, network in networks.items():
        exact: list[np.ndarray] = []
        for iterations in options.iterations:
            separator = Separator(network, precision="fp32", wiener=iterations)
            scores = []
            for song in songs:
                stems = separator.separate(song.mixture, song.sample_rate)
                estimates = np.stack([stems[name] for name in separator.stems])
                references = np.stack([song.references[name] for name in separator.stems])
                scores.append(median(frame_sdr(references, estimates)))
                if iterations == 0:
                    exact.append(estimates)
            by_stem = median(np.stack(scores), axis=0)
            cells = " | ".join(f"{score:.2f}" for score in (*by_stem, by_stem.mean()))
            print(f"| {model}, {iterations} | {cells} |", flush=True)
        rough = Separator(network, precision="bf16", wiener=0)
        error = power = np.zeros(len(rough.stems))
        for song, stems_ in zip(songs, exact, strict=False):
            estimates_bf16 = np.stack(list(rough.separate(song.mixture, song.sample_rate).values()))
            error = error + np.square(estimates_bf16 - stems_).sum(axis=(1, 2))
            power = power + np.square(stems_).sum(axis=(1, 2))
        if exact:
            print(f"  bf16 changes {model}: {np.round(10 * np.log10(error / power), 1)} dB")


if __name__ == "__main__":
    main()
