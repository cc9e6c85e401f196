from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.signals import RATE, music
from unetsep.config import ModelConfig
from unetsep.dsp.passes import MAX_PASSES, pass_rates
from unetsep.dsp.segments import SegmentPool
from unetsep.dsp.signal_path import SongPass
from unetsep.network.unet import UNet
from unetsep.separator import Separator

CONFIG = ModelConfig(filters=(4, 4), segment_frames=64)


def make_separator(passes: int, **options: object) -> Separator:
    torch.manual_seed(0)
    network = UNet(CONFIG).eval()
    with torch.no_grad():
        network.head.weight *= 10
    return Separator(network, device="cpu", precision="fp32", passes=passes, **options)


def decibels(error: np.ndarray, signal: np.ndarray) -> float:
    return float(10 * np.log10(np.square(error).sum() / np.square(signal).sum() + 1e-30))


def test_passes_have_rising_pitches() -> None:
    assert pass_rates(44_100, 1) == [44_100]
    ratios = np.array(pass_rates(48_000, MAX_PASSES)) / 48_000
    np.testing.assert_allclose(12 * np.log2(ratios), [0, 2, 1, 3], atol=1e-3)


@pytest.mark.parametrize("rate", [22_050, RATE, 48_000])
def test_stems_are_the_mean_of_separations_at_those_pitches(rate: int) -> None:
    mixture = music(5, rate)
    once = make_separator(1)
    parts = [once.separate(mixture, each) for each in pass_rates(rate, 3)]
    stems = make_separator(3).separate(mixture, rate)
    for name, stem in stems.items():
        expected = np.mean([part[name] for part in parts], axis=0)
        np.testing.assert_allclose(stem, expected, atol=1e-5)
        # The passes do differ, or there would be nothing to average.
        assert decibels(parts[1][name] - parts[0][name], parts[0][name]) > -40


@pytest.mark.parametrize("options", [{}, {"wiener": 1}])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_stems_of_several_passes_add_up_to_the_song(channels: int, options: dict) -> None:
    mixture = music(4)[:1].repeat(channels, 0) * np.linspace(1, 0.5, channels)[:, None]
    separator = make_separator(4, **options)
    stems = separator.separate(mixture.astype(np.float32), RATE)
    assert decibels(sum(stems.values()) - mixture, mixture) < -110
    two = separator.separate(mixture.astype(np.float32), RATE, two_stems="vocals")
    assert decibels(two["vocals"] - stems["vocals"], stems["vocals"]) < -110
    assert decibels(sum(two.values()) - mixture, mixture) < -110


@pytest.mark.parametrize("samples", [1, 1000, 70_000])
def test_stems_have_the_length_of_the_song(samples: int) -> None:
    mixture = music(2)[:, :samples]
    stems = make_separator(2).separate(mixture, RATE)
    assert {stem.shape for stem in stems.values()} == {mixture.shape}
    assert decibels(sum(stems.values()) - mixture, mixture) < -90


def test_blocks_and_threads_do_not_matter() -> None:
    mixture, separator = music(8), make_separator(2)
    whole = separator.separate(mixture, RATE)
    pieces = np.array_split(mixture, [30_000, 30_001, 200_000], axis=1)
    parts = list(separator.stream(pieces, RATE))
    for name, stem in whole.items():
        joined = np.concatenate([part[name] for part in parts], axis=1)
        np.testing.assert_allclose(joined, stem, atol=1e-6)
    with SegmentPool(2, 1) as pool:
        song = separator.open_song(RATE, 2, separator.select(), pool)
        stems = np.concatenate([song.push(mixture), song.finish()], axis=-1)
    np.testing.assert_allclose(stems, np.stack(list(whole.values())), atol=1e-6)


def test_integers_are_rounded_once_after_the_mean() -> None:
    mixture, separator = music(3) * 0.25, make_separator(2)
    song = separator.open_song(RATE, 2, separator.select())
    blocks = [song._push_block(mixture, integers=True), song._finish_block(integers=True)]
    found = np.concatenate([block.integers() for block in blocks if block.samples], axis=1)
    stems = np.stack(list(separator.separate(mixture, RATE).values()))
    # Half a step, and the difference of floats between other blocks.
    np.testing.assert_allclose(found, stems.swapaxes(1, 2) * 32768, atol=0.51)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_pushed_blocks_have_any_type_and_may_share_one_buffer(dtype: type) -> None:
    mixture, separator = music(4), make_separator(1)
    song = separator.open_song(RATE, 2, separator.select())
    scale = 32768 if dtype == np.int16 else 1
    buffer, parts = np.empty((2, 44_100), dtype), []
    for at in range(0, mixture.shape[1], 44_100):
        buffer[:] = np.round(mixture[:, at : at + 44_100] * scale, 0 if scale > 1 else 12)
        parts.append(song.push(buffer))
        buffer[:] = 1
    stems = np.concatenate([*parts, song.finish()], axis=-1)
    expected = np.stack(list(separator.separate(mixture, RATE).values()))
    np.testing.assert_allclose(stems, expected, atol=2e-4 if scale > 1 else 1e-5)


def test_stems_do_not_wait_for_the_end_of_the_song() -> None:
    """Stems lag behind the song by no more than some segments."""
    separator = make_separator(2)
    song = separator.open_song(RATE, 2, separator.select())
    segment = CONFIG.segment_frames * CONFIG.hop_length
    taken = given = 0
    for _ in range(12):
        block = music(segment / RATE)
        given += song.push(block).shape[-1]
        taken += block.shape[-1]
        assert taken - given < 3 * segment
    assert given + song.finish().shape[-1] == taken


def test_one_pass_is_the_signal_path_itself() -> None:
    separator = make_separator(1)
    assert isinstance(separator.open_song(RATE, 2, separator.select()), SongPass)


@pytest.mark.parametrize("passes", [0, 5, 1.5, "2", None])
def test_another_number_of_passes_is_refused(passes: object) -> None:
    with pytest.raises(ValueError, match="passes must be a whole number from 1 to 4"):
        make_separator(passes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="passes must be a whole number from 1 to 4"):
        make_separator(1).with_passes(passes)  # type: ignore[arg-type]


def test_a_separator_with_other_passes_is_another_one_with_the_same_weights() -> None:
    once = make_separator(1)
    twice = once.with_passes(2)
    assert (once.passes, twice.passes) == (1, 2)
    assert twice._ensemble is once._ensemble
    mixture, expected = music(1), make_separator(2)
    for stem, signal in expected.separate(mixture, RATE).items():
        np.testing.assert_array_equal(twice.separate(mixture, RATE)[stem], signal)
