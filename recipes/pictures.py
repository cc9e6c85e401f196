"""The pictures of docs/understand: a real song on its way to stems, and what each loss makes of it.

    python recipes/pictures.py

draws the song of recipes/demo.py into docs/understand/images. It takes matplotlib, ffmpeg and
stempeg: ``pip install ".[ffmpeg,plots]" stempeg``.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from demo import excerpt
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn import functional

import unetsep
from unetsep.dsp.spectrogram import StreamingSTFT
from unetsep.weights.manifest import list_models

FOLDER = Path(__file__).parent.parent / "docs/understand/images"
TICKS = {
    50: "50",
    100: "100",
    200: "200",
    500: "500",
    1000: "1k",
    2000: "2k",
    5000: "5k",
    10_000: "10k",
}
FLOOR = -80.0  # dB below the loudest place
# A picture of so few colours looks the same and takes a third of the space.
COLOURS = 200


class Song:
    """A waveform, its spectrum and what the default makes of it.

    Parameters
    ----------
    path
        An audio file at the model's sample rate, shorter than a segment.
    """

    def __init__(self, path: Path) -> None:
        audio, self.sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
        self.waveform = torch.from_numpy(audio.T.copy())
        self.separator = unetsep.Separator(precision="fp32")
        self.config = self.separator.config
        self.spectrum = self.transform(self.waveform)

    def transform(self, waveform: Tensor) -> Tensor:
        """Complex, ``(channels, bins, frames)``."""
        stft = StreamingSTFT(self.config.n_fft, self.config.hop_length)
        return torch.cat([stft.push(waveform), stft.flush()], dim=-1)

    def masks(self) -> Tensor:
        """What the network says, ``(stems, channels, bins, frames)``, within its band."""
        frames = self.spectrum.shape[-1]
        inputs = functional.pad(
            self.spectrum[:, : self.config.bins], (0, self.config.segment_frames - frames)
        )
        return self.separator.estimate(inputs)[..., :frames]

    @property
    def seconds(self) -> float:
        """Length."""
        return self.waveform.shape[-1] / self.sample_rate

    def frequencies(self, bins: int) -> np.ndarray:
        """Of bins, in Hz."""
        return np.arange(bins) * self.sample_rate / self.config.n_fft


def decibels(spectrum: Tensor, loudest: float) -> np.ndarray:
    """Levels of the mean over channels, 0 at the loudest place."""
    power = spectrum.abs().square().mean(dim=0).numpy() / loudest
    return np.asarray(10 * np.log10(np.maximum(power, 1e-12)))


def mesh(axes: Any, song: Song, values: np.ndarray, title: str, **options: Any) -> Any:
    """Values over time and logarithmic frequency."""
    times = np.linspace(0, song.seconds, values.shape[1])
    image = axes.pcolormesh(
        times, song.frequencies(len(values))[1:], values[1:], rasterized=True, **options
    )
    axes.set_yscale("log")
    axes.set_ylim(40, song.frequencies(len(values))[-1])
    axes.set_yticks(list(TICKS), list(TICKS.values()))
    axes.minorticks_off()
    axes.set_title(title, loc="left", fontsize=11)
    axes.tick_params(labelsize=9)
    return image


def grid(song: Song, pictures: Mapping[str, np.ndarray], label: str, **options: Any) -> Figure:
    """Pictures two by two, with one scale beside them."""
    rows = -(-len(pictures) // 2)
    figure = Figure(figsize=(8, 2.2 * rows + 0.6), layout="constrained")
    axes = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False)
    for place, (title, values) in zip(axes.flat, pictures.items(), strict=False):
        image = mesh(place, song, values, title, **options)
    for place in axes.flat[len(pictures) :]:
        place.set_axis_off()
    figure.supxlabel("seconds", fontsize=9)
    figure.supylabel("Hz", fontsize=9)
    figure.colorbar(image, ax=axes, label=label, aspect=40, pad=0.02)
    return figure


LEVELS: dict[str, Any] = {"cmap": "magma", "vmin": FLOOR, "vmax": 0}


def mixture_picture(song: Song, loudest: float) -> Figure:
    """The waveform above the spectrogram, and where the network's band ends."""
    figure = Figure(figsize=(8, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.4))
    wave = song.waveform.mean(dim=0).numpy()
    above.plot(np.arange(wave.size) / song.sample_rate, wave, linewidth=0.3, color="#4b3f8f")
    above.set_title("the song: pressure over time", loc="left", fontsize=11)
    above.set_yticks([])
    image = mesh(below, song, decibels(song.spectrum, loudest), "its spectrogram", **LEVELS)
    top = song.frequencies(song.config.bins)[-1]
    below.axhline(top, color="white", linewidth=1, linestyle="--")
    below.text(0.05, top * 1.08, "the network sees what lies below", color="white", fontsize=9)
    below.set_xlabel("seconds", fontsize=9)
    below.set_ylabel("Hz", fontsize=9)
    figure.colorbar(image, ax=below, label="dB", pad=0.02)
    return figure


def input_picture(song: Song) -> Figure:
    """What the network sees: logarithms of magnitudes, over their level."""
    magnitude = song.spectrum[:, : song.config.bins].abs().mean(dim=0)
    level = magnitude.square().mean().sqrt()
    values = torch.log(magnitude / level + song.config.log_floor).numpy()
    figure = Figure(figsize=(8, 3), layout="constrained")
    axes = figure.subplots()
    image = mesh(axes, song, values, "what the network sees", cmap="viridis")
    axes.set_xlabel("seconds", fontsize=9)
    axes.set_ylabel("Hz", fontsize=9)
    figure.colorbar(image, ax=axes, label="log of magnitude over level", pad=0.02)
    return figure


def path_pictures(song: Song) -> Iterable[tuple[str, Figure]]:
    """From the waveform to the stems."""
    loudest = float(song.spectrum.abs().square().mean(dim=0).max())
    yield "mixture.png", mixture_picture(song, loudest)
    yield "input.png", input_picture(song)
    masks = song.masks()
    names = song.separator.stems
    means = {f"mask of {n}": m.mean(dim=0).numpy() for n, m in zip(names, masks, strict=True)}
    yield "masks.png", grid(song, means, "share of the mixture", cmap="Greys", vmin=0, vmax=1)
    stems = song.separator.separate(song.waveform, song.sample_rate)
    levels = {
        name: decibels(song.transform(torch.from_numpy(stem)), loudest)
        for name, stem in stems.items()
    }
    yield "stems.png", grid(song, levels, "dB", **LEVELS)


def loss_pictures(
    song: Song, path: Path, truth: np.ndarray, models: Sequence[str]
) -> Iterable[tuple[str, Figure]]:
    """The voice as it is, and as some models leave it."""
    spectrum = song.transform(torch.from_numpy(truth.astype(np.float32)))
    loudest = float(spectrum.abs().square().mean(dim=0).max())
    voices = {"the true voice": decibels(spectrum, loudest)}
    for name in models:
        voice = torch.from_numpy(unetsep.separate(path, model=name)["vocals"])
        voices[name] = decibels(song.transform(voice), loudest)
    yield "losses.png", grid(song, voices, "dB", **LEVELS)


def save(figure: Figure, path: Path) -> None:
    """As a PNG of few colours."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(buffer).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=FOLDER)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, truth = excerpt(Path(folder))
        song = Song(path)
        models = [e.name for e in list_models() if "l1" in e.training.get("trained_with", ())]
        losses = loss_pictures(song, path, truth["vocals"], models)
        figures = [*path_pictures(song), *losses]
    for name, figure in figures:
        save(figure, options.output / name)
        print(options.output / name)


if __name__ == "__main__":
    main()
