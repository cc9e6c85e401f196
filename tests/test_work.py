"""How much is computed for a song: no timing, but counts that say where time goes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.commands import call
from unetsep import ensemble
from unetsep.config import ModelConfig
from unetsep.file_options import FileOptions
from unetsep.files import separate_file
from unetsep.network.unet import UNet
from unetsep.separator import Separator

CONFIG = ModelConfig(filters=(4, 4), segment_frames=64)
HOP = CONFIG.hop_length


class Counter:
    """Transforms, and frames of each call of the network, while it is patched in."""

    def __init__(self, patch: pytest.MonkeyPatch, separator: Separator) -> None:
        self.forward = self.inverse = 0
        self.calls: list[int] = []
        patch.setattr(torch.fft, "rfft", self._counted("forward", torch.fft.rfft))
        patch.setattr(torch.fft, "irfft", self._counted("inverse", torch.fft.irfft))
        estimate = separator.estimate

        def counted(spectrum: torch.Tensor) -> torch.Tensor:
            self.calls.append(spectrum.shape[-1])
            return estimate(spectrum)

        patch.setattr(separator, "estimate", counted)

    def _counted(
        self, name: str, transform: Callable[..., torch.Tensor]
    ) -> Callable[..., torch.Tensor]:
        def counted(given: torch.Tensor, *rest: object, **options: object) -> torch.Tensor:
            setattr(self, name, getattr(self, name) + math.prod(given.shape[:-1]))
            return transform(given, *rest, **options)

        return counted


def least_calls(frames: int, overlap: float) -> list[int]:
    """Lengths of the segments that cover so many frames, neighbours sharing the overlap."""
    segment = CONFIG.segment_frames
    shared = round(overlap * segment)
    if frames <= segment:
        return [frames]
    return math.ceil((frames - shared) / (segment - shared)) * [segment]


@pytest.mark.parametrize("overlap", [0.0, 0.125, 0.25, 0.5])
@pytest.mark.parametrize("samples", [1, 50_000, 64 * HOP - 3072, 200_000, 654_321])
def test_no_frame_is_transformed_twice_and_no_segment_computed_in_vain(
    monkeypatch: pytest.MonkeyPatch, samples: int, overlap: float
) -> None:
    torch.manual_seed(0)
    separator = Separator(UNet(CONFIG).eval(), precision="fp32", overlap=overlap)
    counter = Counter(monkeypatch, separator)
    separator.separate(np.ones((2, samples), np.float32), 44_100)
    # Every sample lies under four windows, and no window without a sample is computed.
    frames = math.ceil(samples / HOP) + 3
    assert counter.forward == 2 * frames
    # The fourth stem is what the other three leave of the song.
    assert counter.inverse == 3 * 2 * frames
    assert counter.calls == least_calls(frames, overlap)


@pytest.mark.parametrize("threads", [1, 3])
def test_files_need_no_more_work_than_arrays_with_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, threads: int
) -> None:
    torch.manual_seed(0)
    separator = Separator(UNet(CONFIG).eval(), precision="fp32", overlap=0.25)
    samples = 400_000
    soundfile.write(tmp_path / "song.wav", np.zeros((samples, 2)), 44_100)
    targets = [tmp_path / f"{stem}.wav" for stem in separator.stems]
    counter = Counter(monkeypatch, separator)
    torch.set_num_threads(threads)
    try:
        separate_file(tmp_path / "song.wav", [separator], [targets], FileOptions())
    finally:
        torch.set_num_threads(1)
    frames = math.ceil(samples / HOP) + 3
    assert (counter.forward, counter.inverse) == (2 * frames, 6 * frames)
    assert counter.calls == least_calls(frames, 0.25)


def test_only_requested_stems_are_transformed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    separator = Separator(UNet(CONFIG).eval(), precision="fp32")
    counter = Counter(monkeypatch, separator)
    separator.separate(np.ones((2, 44_100), np.float32), 44_100, stems=["bass"])
    assert counter.inverse == counter.forward
    separator.separate(np.ones((2, 44_100), np.float32), 44_100, two_stems="bass")
    assert counter.inverse == counter.forward


def test_a_folder_of_songs_loads_the_model_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path
) -> None:
    songs = tmp_path / "songs"
    songs.mkdir()
    for index in range(20):
        soundfile.write(songs / f"{index}.wav", np.zeros((1000, 2)), 44_100)
    loaded = []
    load = ensemble.load_checkpoint

    def counted(model: str) -> tuple[UNet, str]:
        loaded.append(model)
        return load(model)

    monkeypatch.setattr(ensemble, "load_checkpoint", counted)
    result = call("separate", songs, "-o", tmp_path / "out", "-m", tiny_model)
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 80
    assert loaded == [str(tiny_model)]
