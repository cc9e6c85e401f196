"""Measures on signals whose values are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.commands import call
from tests.signals import RATE, music, noise
from unetsep.train.evaluation import results
from unetsep.train.evaluation.compare import compare
from unetsep.train.evaluation.estimates import baseline_methods
from unetsep.train.evaluation.evaluate import Settings, evaluate
from unetsep.train.evaluation.measures import (
    BANDS,
    MEASURES,
    choose_measures,
    log_spectral_distance,
    si_sdr,
)
from unetsep.train.evaluation.tracks import find_tracks
from unetsep.train.evaluation.two_f import two_f


def signal(seed: int, samples: int = RATE) -> np.ndarray:
    return noise(seed, samples).astype(np.float32) / 4


def test_si_sdr_does_not_depend_on_the_level() -> None:
    true, error = signal(0).astype(np.float64), signal(1).astype(np.float64)
    error -= true * (error.ravel() @ true.ravel()) / (true.ravel() @ true.ravel())
    error *= np.linalg.norm(true) / np.linalg.norm(error) / 10
    for scale in (1.0, 0.01, -3.0):
        assert si_sdr(true, scale * (true + error), RATE) == pytest.approx(20, abs=1e-6)


def test_si_sdr_of_silence_is_not_defined() -> None:
    assert np.isnan(si_sdr(0 * signal(0), signal(0), RATE))
    assert np.isnan(si_sdr(signal(0), 0 * signal(0), RATE))


@pytest.mark.parametrize("samples", [100, 2048, 2049, RATE])
@pytest.mark.parametrize("band", BANDS.values())
def test_a_wrong_level_has_a_distance_of_as_many_decibels(
    band: tuple[float, float], samples: int
) -> None:
    true = signal(0, samples)
    for factor in (0.5, 2.0):
        found = log_spectral_distance(true, factor * true, RATE, band=band)
        assert found == pytest.approx(20 * np.log10(2), abs=0.02)
    assert log_spectral_distance(true, true, RATE, band=band) == 0


@pytest.mark.parametrize(
    ("silent", "wrong"),
    [((11_500, RATE), "lsd-11k-16k"), ((8500, 10_500), "lsd-8k-11k"), ((0, 180), "lsd-0-250")],
)
def test_an_error_in_a_band_changes_only_the_distance_of_that_band(
    silent: tuple[int, int], wrong: str
) -> None:
    true = signal(0)
    spectrum = np.fft.rfft(true)
    low, high = (edge * true.shape[1] // RATE for edge in silent)
    spectrum[:, low:high] = 0
    cut = np.fft.irfft(spectrum, true.shape[1]).astype(np.float32)
    found = {name: log_spectral_distance(true, cut, RATE, band=b) for name, b in BANDS.items()}
    assert found[wrong] > 30
    assert all(value < 1 for name, value in found.items() if name != wrong)


def test_an_error_at_the_very_end_counts() -> None:
    true = signal(0, 2148)
    guess = true.copy()
    guess[:, 2048:] *= 2
    assert log_spectral_distance(true, guess, RATE, band=(2_000, 8_000)) > 0.1


def test_a_band_that_the_rate_does_not_have_and_silence_have_no_distance() -> None:
    assert np.isnan(log_spectral_distance(signal(0), signal(1), 16_000, band=(11_025, 16_000)))
    assert np.isnan(log_spectral_distance(0 * signal(0), signal(1), RATE, band=(0, 250)))
    cut = log_spectral_distance(signal(0), 2 * signal(0), 24_000, band=(11_025, 16_000))
    assert cut == pytest.approx(20 * np.log10(2), abs=0.02)  # up to the highest that there is


@pytest.mark.parametrize(("level_db", "counts"), [(-50, True), (-70, False)])
def test_frames_60_db_below_the_loudest_do_not_count(level_db: float, counts: bool) -> None:
    true, half = signal(0, 2 * RATE), RATE // 1024 * 1024
    true[:, half:] *= 10 ** (level_db / 20)
    guess = true.copy()
    guess[:, half + 2048 :] *= 2
    found = log_spectral_distance(true, guess, RATE, band=(2_000, 8_000))
    assert found == pytest.approx(3 if counts else 0, abs=0.2)


def test_nothing_is_as_far_from_a_sound_as_the_floor() -> None:
    """The power of noise has a mean of -2.5 dB and a deviation of 5.6 dB from bin to bin."""
    true = signal(0, 4 * RATE)
    found = log_spectral_distance(true, 0 * true, RATE, band=(2_000, 8_000))
    assert found == pytest.approx(np.hypot(80 - 2.5, 5.6), abs=1)


def test_measures_are_chosen_by_name_or_kind() -> None:
    assert choose_measures(["si-sdr"]) == ("si-sdr",)
    assert choose_measures(["lsd"]) == tuple(BANDS)
    assert choose_measures(["lsd", "all"]) == tuple(dict.fromkeys((*BANDS, *MEASURES)))
    assert {"si-sdr", "log-wmse", "2f"} <= {*MEASURES}
    with pytest.raises(ValueError, match="there is no 'pesq', expected all, lsd, si-sdr"):
        choose_measures(["pesq"])


def test_measures_are_stored_reused_reported_and_compared(root: Path, tmp_path: Path) -> None:
    tracks, methods = find_tracks(root, "test"), baseline_methods("mixture-4,oracle-2")
    plain = Settings(tmp_path)
    assert not any(outcome.reused for outcome in evaluate(tracks, methods, plain))
    more = Settings(tmp_path, measures=("si-sdr", "lsd-2k-8k"))
    found = evaluate(tracks, methods, more)
    assert not any(outcome.reused for outcome in found)
    assert all(outcome.reused for outcome in evaluate(tracks, methods, more))
    assert all(outcome.reused for outcome in evaluate(tracks, methods, plain))
    scores = results.read(tmp_path / "oracle-2" / "test" / "Ana - One.json")[0]
    assert scores.median("bass", "si-sdr") == scores.measures["si-sdr"]["bass"]
    for metric in ("SDR", "si-sdr", "lsd-2k-8k"):
        gains = compare(tmp_path / "mixture-4", tmp_path / "oracle-2", metric).differences
        assert all(each.better > each.gain.tracks / 2 for each in gains), metric
        assert {each.lower_is_better for each in gains} == {metric == "lsd-2k-8k"}
    words = ["eval", "--musdb-root", str(root), "-o", str(tmp_path), "--measures", "lsd,si-sdr"]
    words += ["--estimates", str(root / "test"), "--baselines", "mixture-4", "--no-figures"]
    result = call(*words)
    assert result.exit_code == 0, result.output
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "## SI-SDR (dB, higher is better)" in text
    assert "## Log-spectral distance, 11025 to 16000 Hz (dB, lower is better)" in text
    assert ",lsd-0-250," in (tmp_path / "report.csv").read_text(encoding="utf-8")


def test_computing_further_measures_keeps_existing_ones(root: Path, tmp_path: Path) -> None:
    tracks, methods = find_tracks(root, "test")[:1], baseline_methods("mixture-4")
    evaluate(tracks, methods, Settings(tmp_path, metrics="bsseval", measures=("si-sdr",)))
    path = tmp_path / "mixture-4" / "test" / "Ana - One.json"
    before = results.read(path)[0]
    for measures in (("lsd-0-250",), ("lsd-2k-8k", "si-sdr")):
        again = Settings(tmp_path, measures=measures)
        assert not any(outcome.reused for outcome in evaluate(tracks, methods, again))
    scores, about = results.read(path)
    assert about["metrics"] == "bsseval"
    assert set(scores.measures) == {"si-sdr", "lsd-0-250", "lsd-2k-8k"}
    assert scores.measures["si-sdr"] == before.measures["si-sdr"]
    for metric in ("SDR", "ISR", "SIR", "SAR"):
        np.testing.assert_array_equal(scores.values[metric], before.values[metric])


def test_log_wmse_is_the_log_of_the_error_over_the_mixture() -> None:
    """An error that is the mixture at -20 dB has a hundredth of its energy in every band."""
    pytest.importorskip("torch_log_wmse")
    mixture = noise(3, RATE) / 8
    silence = np.zeros_like(mixture)
    measure = MEASURES["log-wmse"]
    assert measure(silence, mixture / 10, RATE, mixture) == pytest.approx(4 * np.log(100), abs=1e-2)
    assert measure(mixture, mixture, RATE, mixture) == pytest.approx(4 * np.log(1e8), rel=1e-3)
    assert np.isnan(measure(silence, mixture / 10, RATE))


@pytest.mark.filterwarnings("ignore:numpy.fix is deprecated")  # by seabass, since numpy 2.5
def test_the_2f_model_gives_100_to_the_reference_and_less_the_louder_an_error() -> None:
    """The package's authors compare it with the model's own scores; this is how it is asked."""
    pytest.importorskip("seabass")
    true, error = music(2.0), noise(4, 2 * RATE) / 8
    before = true.copy()
    scores = [two_f(true, true + gain * error, RATE) for gain in (0, 0.1, 0.3, 1)]
    assert scores[0] == pytest.approx(100, abs=1e-6)
    assert all(more > less for more, less in itertools.pairwise(scores))
    np.testing.assert_array_equal(true, before)
    assert np.isnan(two_f(true / 10_000, true, RATE))
    assert np.isnan(two_f(true[:, :4410], true[:, :4410], RATE))
