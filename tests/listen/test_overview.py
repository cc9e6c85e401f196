"""Waveforms and spectrograms of streams."""

from __future__ import annotations

import io

import matplotlib.image
import numpy as np
import pytest

from tests.signals import RATE
from unetsep.listen.overview import COLUMNS, HIGHEST, LOWEST, ROWS, Overview, spectrogram_png


def overview(wave: np.ndarray, block: int) -> Overview:
    """Of ``(channels, samples)``, pushed in blocks."""
    made = Overview(RATE, wave.shape[-1])
    for begin in range(0, wave.shape[-1], block):
        made.push(wave[:, begin : begin + block])
    made.finish()
    return made


@pytest.mark.parametrize("samples", [1, 511, 512, 44_100, 900_001])
def test_block_sizes_do_not_matter_and_columns_cover_the_stream(samples: int) -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)
    whole, parts = overview(wave, samples), overview(wave, 10_000)
    np.testing.assert_array_equal(whole.peaks, parts.peaks)
    np.testing.assert_allclose(whole.power, parts.power, rtol=1e-4)
    assert whole.peaks.max() == np.abs(wave).max()
    assert whole.power.shape == (ROWS, len(whole.peaks))
    assert 1 <= len(whole.peaks) <= COLUMNS


@pytest.mark.parametrize("frequency", [55.0, 440.0, 5000.0])
def test_a_tone_is_loudest_in_its_band(frequency: float) -> None:
    time = np.arange(3 * RATE) / RATE
    tone = np.sin(2 * np.pi * frequency * time).astype(np.float32)[None]
    power = overview(tone, RATE).power.mean(axis=1)
    edges = np.geomspace(LOWEST, HIGHEST, ROWS + 1)
    band = int(np.searchsorted(edges, frequency)) - 1
    width = 10.8 * ROWS / np.log2(HIGHEST / LOWEST) / (frequency * np.log(2))  # of a bin, in rows
    assert abs(int(power.argmax()) - band) <= max(1, width)


def test_a_click_is_where_it_is() -> None:
    wave = np.zeros((1, 4 * RATE), np.float32)
    wave[0, 3 * RATE] = 1.0
    made = overview(wave, 4096)
    hop = 4 * RATE / len(made.peaks)
    assert made.peaks.argmax() == pytest.approx(3 * RATE / hop, abs=1.5)
    assert made.power.sum(axis=0).argmax() == pytest.approx(3 * RATE / hop, abs=4.5)


def test_memory_does_not_grow_with_the_stream() -> None:
    made = Overview(RATE, 100 * 88_200)
    block = np.zeros((2, 88_200), np.float32)
    for _ in range(100):
        made.push(block)
    assert made._mono.nbytes + made._loudest.nbytes < 1_000_000
    assert len(made.peaks) <= COLUMNS


def test_the_picture_has_the_colour_and_the_level_as_opacity() -> None:
    power = np.ones((ROWS, 7), np.float32)
    power[0] = 1e-9  # the lowest band, the last line of the picture
    picture = matplotlib.image.imread(io.BytesIO(spectrogram_png(power, 1.0, (255, 51, 0))))
    assert picture.shape == (ROWS, 7, 4)
    np.testing.assert_allclose(picture[0, 0], [1, 0.2, 0, 1], atol=0.01)
    assert picture[-1, 0, 3] == 0
