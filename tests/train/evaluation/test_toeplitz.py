from __future__ import annotations

import pytest
import torch
from torch import Tensor

from unetsep.train.evaluation.toeplitz import multiply, schur, solve


def correlation_lags(signals: Tensor, taps: int) -> Tensor:
    """``(1, m, m, taps)`` of signals ``(m, samples)``."""
    m, samples = signals.shape
    lags = torch.zeros(1, m, m, taps, dtype=torch.float64)
    for t in range(taps):
        lags[0, :, :, t] = signals[:, : samples - t] @ signals[:, t:].T
    return lags


def dense(lags: Tensor) -> Tensor:
    """The matrix, ``(taps * m, taps * m)``, entry by entry from its definition."""
    _, m, _, taps = lags.shape
    rows = [
        [
            lags[0, a, b, p - q] if p >= q else lags[0, b, a, q - p]
            for q in range(taps)
            for b in range(m)
        ]
        for p in range(taps)
        for a in range(m)
    ]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.fixture
def lags() -> Tensor:
    torch.manual_seed(0)
    return correlation_lags(torch.randn(3, 200, dtype=torch.float64), 9)


def test_factor_is_the_cholesky_factor(lags: Tensor) -> None:
    factor = schur(lags)
    assert factor is not None
    expected = torch.linalg.cholesky(dense(lags), upper=True)
    torch.testing.assert_close(factor[0].triu(), expected)


def test_product_is_that_of_the_matrix(lags: Tensor) -> None:
    vectors = torch.randn(1, 9, 3, 4, dtype=torch.float64)
    expected = dense(lags) @ vectors[0].flatten(0, 1)
    torch.testing.assert_close(multiply(lags, vectors)[0].flatten(0, 1), expected)


def test_solution_is_that_of_the_matrix(lags: Tensor) -> None:
    right = torch.randn(1, 9, 3, 2, dtype=torch.float64)
    expected = torch.linalg.solve(dense(lags), right[0].flatten(0, 1))
    torch.testing.assert_close(solve(lags, right)[0].flatten(0, 1), expected)


def test_systems_are_solved_in_batches(lags: Tensor) -> None:
    both = torch.cat([lags, 2 * lags])
    right = torch.randn(2, 9, 3, 2, dtype=torch.float64)
    torch.testing.assert_close(multiply(both, solve(both, right)), right)


def test_singular_systems_of_equal_signals_are_solved() -> None:
    torch.manual_seed(1)
    signals = torch.randn(2, 300, dtype=torch.float64)
    signals = torch.cat([signals, signals[:1]])  # singular: the third is the first
    lags = correlation_lags(signals, 8)
    right = multiply(lags, torch.randn(1, 8, 3, 1, dtype=torch.float64))
    torch.testing.assert_close(multiply(lags, solve(lags, right)), right, rtol=1e-6, atol=1e-6)


def test_band_limited_signals_are_solved_to_rounding_error() -> None:
    torch.manual_seed(2)
    spectrum = torch.fft.rfft(torch.randn(2, 4096, dtype=torch.float64))
    spectrum[:, 1400:] *= 1e-6  # -120 dB above two thirds of the band
    lags = correlation_lags(torch.fft.irfft(spectrum), 64)
    right = lags.permute(0, 3, 2, 1).contiguous()
    residual = right - multiply(lags, solve(lags, right))
    assert float(residual.abs().max() / right.abs().max()) < 1e-10


def test_a_matrix_of_no_signals_is_refused() -> None:
    lags = torch.full((1, 2, 2, 4), float("nan"), dtype=torch.float64)
    with pytest.raises(ValueError, match="finite"):
        solve(lags, torch.ones(1, 4, 2, 1, dtype=torch.float64))
