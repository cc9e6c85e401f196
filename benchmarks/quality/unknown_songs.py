"""How well models separate stems they were trained on and stems they never heard.

    python benchmarks/quality/unknown_songs.py --musdb-root ROOT --models mse fast

Takes six-second clips of MUSDB18's training songs (without the validation songs) and of its 14
validation songs, made as in training but without augmentation. All stems are from one song, at
their own levels, or each from another one, with gains of up to 6 dB. Prints the mean over clips
and stems of the SDR of a whole clip in the network's band, which is not museval's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from unetsep.config import STEMS
from unetsep.errors import UnetsepError
from unetsep.network.masks import MaskNetwork
from unetsep.train.config import TrainConfig
from unetsep.train.data.clip_plans import ClipPlanner
from unetsep.train.data.clips import ClipDataset
from unetsep.train.data.recording import Recording
from unetsep.train.data.run_data import find_data, load_data
from unetsep.train.losses.spectra import spectra
from unetsep.weights.load import load_network

SEED = 77
# Stems at least 30 dB below the mixture's level in a clip are not scored.
AUDIBLE = 1e-3


def clips(recordings: Sequence[Recording], *, one_song: bool) -> ClipDataset:
    """Clips of whole songs, or of stems that do not belong together."""
    config = TrainConfig(
        coherent_share=float(one_song),
        gain_db=0.0 if one_song else 6.0,
        drop_share=0.0,
        seed=SEED,
    )
    return ClipDataset(ClipPlanner(recordings, config))


@torch.no_grad()
def mean_sdr(networks: Sequence[MaskNetwork], dataset: ClipDataset, count: int) -> list[float]:
    """Mean SDR of each network in dB."""
    ratios: list[list[torch.Tensor]] = [[] for _ in networks]
    for index in range(count):
        for clip_ratios, network in zip(ratios, networks, strict=True):
            batch = spectra(dataset[index][None], network.config)
            in_phase, quadrature = batch.references()
            power = (in_phase.square() + quadrature.square()).mean(dim=(2, 3, 4))
            estimate = network(*batch.inputs(network.config)) * batch.mixture[:, None]
            error = (in_phase - estimate).square() + quadrature.square()
            decibels = 10 * (power / error.mean(dim=(2, 3, 4))).log10()
            clip_ratios.append(decibels.where(power > AUDIBLE, torch.nan))
    return [torch.cat(clip_ratios).nanmean(dim=0).mean().item() for clip_ratios in ratios]


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--musdb-root", type=Path, required=True)
    parser.add_argument("--cache", type=Path, help="as of unetsep train")
    parser.add_argument("--models", nargs="+", default=["default"], help="names or paths")
    parser.add_argument("--clips", type=int, default=96, help="of each kind")
    options = parser.parse_args()
    try:
        networks = [load_network(model) for model in options.models]
        train, valid = load_data(find_data({"musdb": [options.musdb_root]}, options.cache))
    except UnetsepError as error:
        parser.error(str(error))
    for model, network in zip(options.models, networks, strict=True):
        if network.config.stems != STEMS:  # a mask would be taken for that of every stem
            parser.error(f"{model} has the stems {', '.join(network.config.stems)}")
    columns = [
        mean_sdr(networks, clips(recordings, one_song=one_song), options.clips)
        for one_song in (False, True)
        for recordings in (train, valid)
    ]
    print(
        "| model | mixed, trained on | mixed, unknown | one song, trained on | one song, unknown |"
    )
    print("|---|---|---|---|---|")
    for model, *row in zip(options.models, *columns, strict=True):
        print(f"| {model} | {' | '.join(f'{value:.2f}' for value in row)} |")


if __name__ == "__main__":
    main()
