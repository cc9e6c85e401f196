"""What separating the channels of a stereo pair singly gains where they have little in common.

    python benchmarks/quality/unlike_channels.py --musdb-root ROOT

Makes such pairs of musdb's 14 validation songs. Prints for each kind the SDR of the stems in the
channel that holds them, once with both channels in the network and once as `unetsep.ensemble`
does: medians over songs of the SDR of a whole excerpt, which is not museval's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np

from unetsep import ensemble
from unetsep.config import STEMS
from unetsep.errors import UnetsepError
from unetsep.separator import Separator
from unetsep.train.evaluation.tracks import find_tracks, read_track

SEED = 0
NEVER = {"APART_DB": np.inf, "APART_COHERENCE": 0.0}
# Stems below this level are not in a song.
SILENT = 1e-4


def pairs(stems: np.ndarray, noise: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Kinds of pairs with their stems, ``(stems, 2, samples)``, and what is added to them."""
    mono, nothing = stems.mean(axis=1, keepdims=True), np.zeros_like(stems[0])
    silent = np.zeros_like(mono)
    level = np.sqrt(np.square(mono.sum(axis=0)).mean())
    yield "stereo, right 16 dB softer", stems * np.float32([[1], [10 ** (-16 / 20)]]), nothing
    yield "all left, silence right", np.concatenate([mono, silent], axis=1), nothing
    hiss = np.stack([nothing[0], 0.1 * level * noise])
    yield "all left, hiss 20 dB softer right", np.concatenate([mono, silent], axis=1), hiss
    left = np.concatenate([mono, silent], axis=1)
    singer = STEMS.index("vocals")
    left[singer] = left[singer, ::-1]
    yield "band left, singer right", left, nothing


def scores(separator: Separator, stems: np.ndarray, mixture: np.ndarray) -> list[float]:
    """SDR of each stem in its louder channel; NaN of one that is silent."""
    estimates = separator.separate(mixture.astype(np.float32), 44_100)
    result = []
    for name, truth in zip(STEMS, stems, strict=True):
        power = np.square(truth).mean(axis=-1)
        at = power.argmax()
        error = np.square(estimates[name][at] - truth[at]).mean()
        result.append(10 * np.log10(power[at] / error) if power[at] > SILENT**2 else np.nan)
    return result


def main() -> None:
    """Measure all kinds of pairs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--musdb-root", type=Path, required=True)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    try:
        songs = [read_track(track) for track in find_tracks(options.musdb_root, "valid")]
        separator = Separator(options.model, precision="fp32")
    except UnetsepError as error:
        parser.error(str(error))
    rng = np.random.default_rng(SEED)
    results: dict[tuple[str, str], list[list[float]]] = {}
    for song in songs:
        stems = np.stack([song.references[name] for name in STEMS])
        noise = rng.standard_normal(stems.shape[-1]).astype(np.float32)
        for kind, parts, added in pairs(stems, noise):
            mixture = parts.sum(axis=0) + added
            singly = scores(separator, parts, mixture)
            with patch.multiple(ensemble, **NEVER):
                together = scores(separator, parts, mixture)
            results.setdefault((kind, "together"), []).append(together)
            results.setdefault((kind, "singly"), []).append(singly)
    print("| pair | channels |", " | ".join(STEMS), "|")
    print("|---|---|---|---|---|---|")
    for (kind, way), rows in results.items():
        medians = np.nanmedian(rows, axis=0)
        print(f"| {kind} | {way} |", " | ".join(f"{value:.2f}" for value in medians), "|")


if __name__ == "__main__":
    main()
