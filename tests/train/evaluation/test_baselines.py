from __future__ import annotations

import numpy as np
import pytest

from tests.signals import RATE, noise
from unetsep.config import STEMS
from unetsep.train.evaluation.baselines import BASELINES, LABELS, mixture_share, oracle_mask
from unetsep.train.evaluation.scoring import score
from unetsep.train.evaluation.tracks import TrackAudio


def tones(seconds: float = 3.0) -> TrackAudio:
    """Four stems far apart in frequency."""
    time = np.arange(round(seconds * RATE)) / RATE
    stems = {}
    for stem, pitch in zip(STEMS, (880, 3500, 90, 9000), strict=True):
        tone = 0.1 * np.sin(2 * np.pi * pitch * time)
        stems[stem] = np.stack([tone, 0.5 * tone]).astype(np.float32)
    return TrackAudio(np.sum(list(stems.values()), axis=0), stems, RATE)


@pytest.mark.parametrize("name", list(BASELINES))
@pytest.mark.parametrize("samples", [1, 5000, 270_001])
def test_estimates_have_the_shape_of_the_recording(name: str, samples: int) -> None:
    stems = {s: noise(i, samples).astype(np.float32) for i, s in enumerate(STEMS)}
    recording = TrackAudio(np.sum(list(stems.values()), axis=0), stems, RATE)
    found = BASELINES[name](recording)
    assert tuple(found)[:4] == STEMS
    for estimate in found.values():
        assert estimate.shape == (2, samples)
        assert np.isfinite(estimate).all()


@pytest.mark.parametrize("name", ["mixture-4", "oracle-1", "oracle-2", "repet-hpss"])
def test_stems_add_up_to_the_mixture(name: str) -> None:
    stems = {s: noise(i, 200_000).astype(np.float32) for i, s in enumerate(STEMS)}
    recording = TrackAudio(np.sum(list(stems.values()), axis=0), stems, RATE)
    total = np.sum(list(BASELINES[name](recording).values()), axis=0)
    np.testing.assert_allclose(total, recording.mixture, atol=2e-6)


def test_a_quarter_of_the_mixture_is_a_quarter_of_the_mixture() -> None:
    recording = tones()
    np.testing.assert_array_equal(mixture_share(recording)["bass"], recording.mixture / 4)


@pytest.mark.parametrize("power", [1, 2])
def test_oracle_masks_separate_what_does_not_overlap(power: int) -> None:
    recording = tones()
    found = score(recording.references, oracle_mask(recording, power), RATE)
    assert all(found.median(stem) > 25 for stem in STEMS)


def test_power_two_separates_better_than_power_one() -> None:
    recording = tones()
    one, two = (oracle_mask(recording, power) for power in (1, 2))
    for stem in STEMS:
        gain = score(recording.references, two, RATE).median(stem)
        assert gain > score(recording.references, one, RATE).median(stem)


def test_silence_stays_silent() -> None:
    silence = np.zeros((2, 100_000), np.float32)
    recording = TrackAudio(silence, dict.fromkeys(STEMS, silence), RATE)
    for name, baseline in BASELINES.items():
        assert not any(estimate.any() for estimate in baseline(recording).values()), name


def test_the_classical_baseline_finds_clicks_and_low_tones() -> None:
    time = np.arange(6 * RATE) / RATE
    bass = 0.2 * np.sin(2 * np.pi * 80 * time)
    drums = np.zeros_like(bass)
    drums[:: RATE // 4] = 0.8
    stems = {s: np.zeros((2, len(time)), np.float32) for s in STEMS}
    stems["bass"] = np.stack([bass] * 2).astype(np.float32)
    stems["drums"] = np.stack([drums] * 2).astype(np.float32)
    recording = TrackAudio(stems["bass"] + stems["drums"], stems, RATE)
    found = BASELINES["repet-hpss"](recording)
    mixed = BASELINES["mixture-4"](recording)
    for stem in ("bass", "drums"):
        error, before = (np.square(x[stem] - stems[stem]).sum() for x in (found, mixed))
        assert error < before / 2


def test_every_baseline_has_a_label() -> None:
    assert set(LABELS) == set(BASELINES)
