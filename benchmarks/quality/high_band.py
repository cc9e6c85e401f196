"""What masks above the network's band are worth, on MUSDB18's validation songs.

    python benchmarks/quality/high_band.py --musdb-root MUSDB18-7 --model guided

Three ways to fill 11 to 16 kHz are compared in log-spectral distance (dB, lower is better; see
`unetsep.train.evaluation.measures`), and in the energy of the error there (dB, higher is better):

mean
    The mean of each stem's mask over the top 100 bins, as unetsep does.
guide
    The guide of a guided model is convolutional: run with 1,536 bins it gives the vocals' mask up
    to 16.5 kHz. The others share what it leaves as they share the top 100 bins.
learned
    For each frame a linear map from the masks in twelve bands from 5 to 11 kHz. It is fitted by
    least squares to ideal ratio masks of MUSDB18's training songs, each error weighted by its share
    of the song's energy. One value for each stem and frame, clipped and divided by their sum.

Prints medians over songs, and what the guide costs at both sizes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unetsep.dsp.spectrogram import EXTENSION_BINS, magnitudes, overlap_add, stft
from unetsep.errors import UnetsepError, WeightsError
from unetsep.network.guided import LEVEL, Guided
from unetsep.network.inference import InferenceUNet
from unetsep.network.unet import rms_level
from unetsep.separator import Separator
from unetsep.train.evaluation.measures import log_spectral_distance
from unetsep.train.evaluation.tracks import TrackAudio, find_tracks, read_track
from unetsep.weights.load import load_network

RATE, N_FFT, HOP, BINS, WIDE = 44_100, 4096, 1024, 1024, 1536
BAND = (11_025.0, 16_000.0)
FIRST, LAST = BINS, round(BAND[1] * N_FFT / RATE)
BANDS = [slice(at, at + 47) for at in range(460, 1024, 47)]
RIDGE = 1e-3


def spectrum_of(signal: np.ndarray) -> Tensor:
    """``(channels, bins, frames)`` with silence at both ends, frames a multiple of 64."""
    samples = torch.from_numpy(np.ascontiguousarray(signal, np.float32))
    frames = -(-(samples.shape[-1] + 2 * N_FFT) // HOP // 64) * 64
    length = N_FFT + (frames - 1) * HOP
    return stft(functional.pad(samples, (N_FFT, length - N_FFT - samples.shape[-1])), N_FFT, HOP)


def sound_of(spectrum: Tensor, samples: int) -> np.ndarray:
    """The inverse of `spectrum_of`."""
    return np.asarray(overlap_add(spectrum, HOP)[..., N_FFT : N_FFT + samples])


def features(masks: Tensor) -> Tensor:
    """Means over `BANDS` and a constant, ``(channels * frames, features)``."""
    means = torch.stack([masks[:, :, band].mean(dim=2) for band in BANDS], dim=-1)
    rows = means.permute(1, 2, 0, 3).flatten(0, 1).flatten(1)
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)


class Way:
    """Masks above the band by each way, ``(stems, channels, high bins, frames)``."""

    def __init__(self, model: str) -> None:
        self.separator = Separator(model, precision="fp32")
        network = load_network(model)
        if not isinstance(network, Guided):
            raise WeightsError(f"{model} has no guide: expected a guided model")
        self.config, self.vocals = network.config, network.vocals
        self.guide = InferenceUNet(network.guide)
        self.map = torch.zeros(0)

    def low(self, mixture: Tensor) -> Tensor:
        """The model's masks in its own bins."""
        return self.separator.estimate(mixture)

    def mean(self, masks: Tensor) -> Tensor:
        """One value for each frame."""
        above = masks[..., -EXTENSION_BINS:, :].mean(dim=-2, keepdim=True)
        return above.expand(-1, -1, LAST - FIRST, -1)

    def by_guide(self, masks: Tensor, mixture: Tensor) -> Tensor:
        """The vocals by the guide with more bins, the rest as in `mean`."""
        vote = self.wide_guide(mixture)[..., FIRST:LAST].mT  # (channels, bins, frames)
        above = self.mean(masks)
        mean_logit = torch.logit(above[self.vocals].clamp(1e-6, 1 - 1e-6))
        weight = self.config.guide_weight
        voice = torch.sigmoid(weight * vote + (1 - weight) * mean_logit)
        out = above * ((1 - voice) / (1 - above[self.vocals]).clamp(min=1e-6))
        out[self.vocals] = voice
        return out

    def wide_guide(self, mixture: Tensor, bins: int = WIDE) -> Tensor:
        """The guide's logits at its own level, ``(channels, frames, bins)``."""
        magnitude = magnitudes(mixture[None, :, :bins])
        level = rms_level(magnitude[:, :, :BINS]).clamp(min=1e-20)
        return self.guide.logits(magnitude * (LEVEL / level))(0, magnitude.shape[-1])[0, 0]

    def fit(self, songs: Iterator[TrackAudio]) -> None:
        """The learned way, from training songs."""
        size = len(BANDS) * len(self.config.stems) + 1
        left = RIDGE * torch.eye(size, dtype=torch.float64)
        right = torch.zeros(size, len(self.config.stems), dtype=torch.float64)
        for song in songs:
            parts = [spectrum_of(song.references[stem]) for stem in self.config.stems]
            power = torch.stack([part[:, FIRST:LAST].abs().square().sum(1) for part in parts])
            ideal = (power.sqrt() / power.sqrt().sum(0).clamp(min=1e-9)).flatten(1).T
            weight = power.sum(0).flatten()
            weight = weight / weight.sum().clamp(min=1e-9)
            rows = features(self.low(sum(parts)))  # type: ignore[arg-type]
            weighted = (rows * weight[:, None]).double()
            left += weighted.T @ rows.double()
            right += weighted.T @ ideal.double()
        self.map = torch.linalg.solve(left, right).float()

    def learned(self, masks: Tensor) -> Tensor:
        """By the fitted map."""
        rows = (features(masks) @ self.map).clamp(min=0) + 1e-6
        shares = (rows / rows.sum(dim=1, keepdim=True)).T
        above = shares.unflatten(1, (masks.shape[1], masks.shape[-1]))[:, :, None]
        return above.expand(-1, -1, LAST - FIRST, -1)


def cost(way: Way, rounds: int = 5) -> tuple[float, float]:
    """CPU seconds of the guide for 512 frames with 1,024 and 1,536 bins, the least of several."""
    mixture = torch.randn(2, N_FFT // 2 + 1, 512, dtype=torch.complex64)
    least = dict.fromkeys((BINS, WIDE), float("inf"))
    for _ in range(rounds):
        for bins in least:
            start = time.process_time()
            way.wide_guide(mixture, bins)
            least[bins] = min(least[bins], time.process_time() - start)
    return least[BINS], least[WIDE]


@torch.inference_mode()
def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--musdb-root", type=Path, required=True)
    parser.add_argument("--model", default="guided")
    options = parser.parse_args()
    try:
        way = Way(options.model)
        train, valid = (find_tracks(options.musdb_root, part) for part in ("train", "valid"))
    except UnetsepError as error:
        parser.error(str(error))
    stems = way.config.stems
    way.fit(read_track(track) for track in train)
    table: dict[str, list[list[float]]] = {}
    for track in valid:
        song = read_track(track)
        parts = [spectrum_of(song.references[stem]) for stem in stems]
        mixture: Tensor = sum(parts)  # type: ignore[assignment]
        masks = way.low(mixture)
        ways = {
            "mean": way.mean(masks),
            "guide": way.by_guide(masks, mixture),
            "learned": way.learned(masks),
        }
        for name, above in ways.items():
            row = []
            for stem, part, share in zip(stems, parts, above, strict=True):
                high = torch.zeros_like(mixture)
                high[:, FIRST:LAST] = share * mixture[:, FIRST:LAST]
                reference = song.references[stem]
                estimate = sound_of(high, reference.shape[-1])
                distance = log_spectral_distance(reference, estimate, RATE, band=BAND)
                true = part[:, FIRST:LAST]
                error = (true - high[:, FIRST:LAST]).abs().square().sum()
                ratio = true.abs().square().sum() / error.clamp(min=1e-20)
                row += [distance, float(10 * ratio.clamp(min=1e-12).log10())]
            table.setdefault(name, []).append(row)
    titles = [f"{stem} {kind}" for stem in stems for kind in ("LSD", "SDR")]
    print(f"| way | {' | '.join(titles)} | mean LSD | mean SDR |")
    print(f"|---|{'---|' * (len(titles) + 2)}")
    for name, rows in table.items():
        middle = np.nanmedian(np.array(rows), axis=0)
        both = [middle[0::2].mean(), middle[1::2].mean()]
        print(f"| {name} | {' | '.join(f'{v:.2f}' for v in (*middle, *both))} |")
    narrow, wide = cost(way)
    print(f"guide, 512 frames: {narrow:.3f} s with 1,024 bins, {wide:.3f} s with 1,536")


if __name__ == "__main__":
    main()
