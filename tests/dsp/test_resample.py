from __future__ import annotations

import numpy as np
import pytest

from tests.signals import white_noise
from unetsep.dsp.resample import (
    Queue,
    Residual,
    StreamResampler,
    resample_blocks,
    resampled_length,
)


def resampled(signal: np.ndarray, to_rate: int, block: int, *, rate: int = 44_100) -> np.ndarray:
    stream = StreamResampler(rate, to_rate, len(signal))
    parts = [stream.push(signal[:, i : i + block]) for i in range(0, signal.shape[1], block)]
    return np.concatenate([*parts, stream.push(signal[:, :0], last=True)], axis=1)


@pytest.mark.parametrize("rate", [8000, 48_000, 96_000])
def test_division_into_blocks_does_not_matter(rate: int) -> None:
    signal = white_noise(20_000)
    assert np.allclose(resampled(signal, rate, 333), resampled(signal, rate, 20_000), atol=1e-6)


def test_equal_rates_pass_through() -> None:
    signal = white_noise(1000)
    assert np.array_equal(resampled(signal, 44_100, 100), signal)


@pytest.mark.parametrize("rate", [32_000, 48_000, 88_200])
def test_a_pulse_stays_in_its_place(rate: int) -> None:
    signal = np.zeros((1, 44_100), np.float32)
    signal[0, 22_050] = 1
    pulse = resampled(signal, rate, 4096)
    assert abs(int(np.abs(pulse[0]).argmax()) - rate / 2) <= 1


def test_queue_returns_the_same_samples_in_any_pieces() -> None:
    signal, queue = white_noise(100), Queue()
    for part in np.split(signal, [10, 11, 50], axis=1):
        queue.put(part)
    taken = [queue.take(n) for n in (1, 10, 60, 29)]
    assert queue.samples == 0
    assert np.array_equal(np.concatenate(taken, axis=1), signal)


def test_residual_is_the_loss_of_the_round_trip_divided_by_shares() -> None:
    rate, inner_rate, hop = 48_000, 44_100, 1024
    signal = white_noise(30_000)
    up = StreamResampler(rate, inner_rate, 2)
    inner = np.concatenate(
        [up.push(signal), up.push(np.zeros((2, 0), np.float32), last=True)], axis=1
    )
    residual = Residual(rate, inner_rate, 2, hop)
    residual.push(signal, inner, last=True)
    shares = np.random.default_rng(1).dirichlet((1, 1, 1), (2, 40)).astype(np.float32)
    residual.push_shares(shares.transpose(2, 0, 1))
    assert residual.ready == 30_000
    lost = np.concatenate([residual.take(7000), residual.take(23_000)], axis=-1)
    back = resampled(inner, rate, inner.shape[1])
    assert np.allclose(lost.sum(axis=0), signal - back[:, :30_000], atol=1e-5)


def test_a_host_that_lets_numpy_raise_may_push_the_softest_songs() -> None:
    residual = Residual(48_000, 44_100, 1, 1024)
    residual.push(np.full((1, 2000), 1e-37, np.float32), np.zeros((1, 1838), np.float32), last=True)
    residual.push_shares(np.full((1, 1, 4), 0.01, np.float32))
    with np.errstate(all="raise"):
        assert residual.take(2000).max() < 1e-38


@pytest.mark.parametrize("rate", [48_000, 96_000])
@pytest.mark.parametrize("block", [700, 12_000, 36_000])
def test_the_residual_follows_shares_from_frame_to_frame(rate: int, block: int) -> None:
    """The frames' centres lie a hop apart, that of the first one a hop before the song."""
    inner_rate, hop, samples = 44_100, 1024, 36_000
    signal = np.random.default_rng(0).normal(0, 0.1, (1, samples)).astype(np.float32)
    residual = Residual(rate, inner_rate, 1, hop)
    inner = np.zeros((1, round(samples * inner_rate / rate)), np.float32)  # so all is lost
    residual.push(signal, inner, last=True)
    frames = np.arange(40, dtype=np.float32)
    residual.push_shares(np.stack([frames, 1 - frames])[:, None])
    parts = [residual.take(min(block, samples - at)) for at in range(0, samples, block)]
    found = np.concatenate(parts, axis=-1)[0] / signal
    expected = 1 + np.arange(samples) * inner_rate / (hop * rate)
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize(("in_rate", "out_rate"), [(96_000, 44_100), (8000, 22_050), (100, 100)])
@pytest.mark.parametrize("samples", [0, 1, 1000, 4801])
def test_blocks_at_another_rate_last_as_long(in_rate: int, out_rate: int, samples: int) -> None:
    signal = np.ones((2, samples), np.float32)
    blocks = list(resample_blocks(np.array_split(signal, 3, axis=-1), in_rate, out_rate, 2))
    assert all(block.size for block in blocks)
    length = sum(block.shape[-1] for block in blocks)
    assert length == resampled_length(samples, in_rate, out_rate)
    assert abs(length - samples * out_rate / in_rate) <= (0.5 if samples != 1 else 1)
    assert (length > 0) == (samples > 0)
