from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from unetsep.dsp.arrays import LOUDEST, as_signal, check_finite


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2e12, -2e12])
@pytest.mark.parametrize("at", [0, 500, 999])
def test_samples_that_would_spread_are_refused_with_their_time(value: float, at: int) -> None:
    signal = np.ones((2, 1000), np.float32)
    signal[1, at] = value
    what = "samples beyond" if abs(value) < np.inf else "NaN or infinite samples"
    with pytest.raises(ValueError, match=f"{what}.*, the first at {(2000 + at) / 1000:.3f} s"):
        check_finite(signal, 1000, before=2000)


def test_audio_is_checked_without_copies() -> None:
    signal = np.full((2, 1 << 20), LOUDEST, np.float32)
    signal[1] *= -1
    tracemalloc.start()
    check_finite(signal, 44_100)
    check_finite(signal[:, :0], 44_100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < signal.nbytes / 8


def test_a_host_that_lets_numpy_raise_may_hand_over_any_level() -> None:
    with np.errstate(all="raise"):
        assert as_signal(np.array([1e-60, -1e-42, 0.5, 1e300])).tolist() == pytest.approx(
            [0.0, -1e-42, 0.5, np.inf]
        )
