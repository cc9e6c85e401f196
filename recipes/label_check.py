"""Find training recordings in which something other than their stem is heard.

    python recipes/label_check.py --musdb-root MUSDB18 --songs SONGS --pools POOLS

Separates every recording of a single stem by itself. What a model hears as other stems is often
an error of the model. But recordings with much of it (instruments that bleed into a singer's
microphone, samples of whole bands, stems that are mixed up) deserve a listen. A wrong label
teaches the wrong thing, and its large errors outweigh those of many good clips. Prints a table,
worst first, with where to listen; `unetsep train --leave-out` leaves them out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unetsep.errors import UnetsepError
from unetsep.separator import Separator
from unetsep.train.data.datasets import DATASETS
from unetsep.train.data.recording import AUDIBLE, SAMPLE_RATE, Recording
from unetsep.train.data.run_data import find_data, load_recordings

SECONDS = 10


class Finding(NamedTuple):
    """The result of one recording; energies are shares of its own."""

    name: str
    stem: str
    sdr: float
    shares: tuple[float, ...]
    worst: int


def examine(separator: Separator, recording: Recording, stem: str) -> Finding | None:
    """Separate a recording in pieces; None for one that is silent."""
    size = SECONDS * SAMPLE_RATE
    pieces = []
    for start in range(0, max(1, recording.samples - size // 2), size):
        length = min(size, recording.samples - start)
        if recording.level(stem, start, length) < AUDIBLE:
            continue
        sound = recording.stem(stem)[start : start + length].T.astype(np.float32) / 32768
        estimates = separator.separate(sound, SAMPLE_RATE)
        error = np.square(sound - estimates[stem]).sum()
        energies = [np.square(estimates[name]).sum() for name in separator.stems]
        pieces.append((start, np.square(sound).sum(), error, *energies))
    if not pieces:
        return None
    starts, energy, error, *stem_energies = np.array(pieces, np.float64).T
    total = energy.sum()
    sdr = 10 * float(np.log10(total / max(error.sum(), 1e-12 * total)))
    shares = tuple(float(stem_energy.sum() / total) for stem_energy in stem_energies)
    return Finding(
        recording.name, stem, sdr, shares, int(starts[(error / total).argmax()] // SAMPLE_RATE)
    )


def main() -> None:
    """Examine and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind in DATASETS.values():
        parser.add_argument(kind.option, dest=kind.name, type=Path, action="append", default=[])
    parser.add_argument("--cache", type=Path, help="as of unetsep train")
    parser.add_argument("--model", default="default", help="name or path")
    parser.add_argument("--below", type=float, default=6.0, help="SDR in dB of what is printed")
    options = parser.parse_args()
    try:
        separator = Separator(options.model)
        stems = separator.stems
        roots = {name: getattr(options, name) for name in DATASETS}
        recordings = load_recordings(find_data(roots, options.cache, stems=stems))
    except UnetsepError as error:
        parser.error(str(error))
    findings = [
        finding
        for recording in recordings
        if recording.split == "train"
        for stem in recording.names
        if stem in stems and (finding := examine(separator, recording, stem)) is not None
    ]
    print(f"| recording | stem | SDR | {' | '.join(f'heard as {s}' for s in stems)} | worst from |")
    print(f"|---|---|---|{'---|' * len(stems)}---|")
    for row in sorted(findings, key=lambda finding: finding.sdr):
        if row.sdr < options.below:
            shares = " | ".join(f"{share:.0%}" for share in row.shares)
            print(f"| {row.name} | {row.stem} | {row.sdr:.1f} dB | {shares} | {row.worst} s |")


if __name__ == "__main__":
    main()
