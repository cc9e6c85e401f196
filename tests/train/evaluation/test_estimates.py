from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.signals import RATE, noise
from unetsep.config import STEMS, ModelConfig
from unetsep.errors import AudioError, UnetsepError, WeightsError
from unetsep.network import devices
from unetsep.network.unet import UNet
from unetsep.separator import Separator
from unetsep.train.evaluation.estimates import (
    ModelMethod,
    baseline_methods,
    folder_method,
    model_method,
)
from unetsep.train.evaluation.evaluate import refusals
from unetsep.train.evaluation.stem_sets import ACCOMPANIMENT, in_set
from unetsep.train.evaluation.tracks import Track, find_tracks, read_track
from unetsep.weights.checkpoint import serialize


@pytest.fixture
def track(root: Path) -> Track:
    return find_tracks(root, "test")[0]


def write(folder: Path, *stems: str, rate: int = RATE, samples: int = 3 * RATE) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, stem in enumerate(stems):
        soundfile.write(folder / f"{stem}.wav", noise(index, samples).T / 8, rate)


def test_a_model_is_computed_in_fp32(tiny_model: Path, track: Track) -> None:
    recording = read_track(track, 1.0)
    found = model_method([str(tiny_model)]).estimate(track, recording)
    separator = Separator(tiny_model, precision="fp32")
    expected = separator.separate(recording.mixture, recording.sample_rate)
    assert tuple(found) == STEMS
    for stem in STEMS:
        np.testing.assert_array_equal(found[stem], expected[stem])


def test_a_model_is_identified_by_its_hash(tiny_model: Path, track: Track, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(tiny_model.read_bytes())
    first, second = model_method([str(tiny_model)]), model_method([str(copy)])
    assert (first.name, second.name) == ("tiny", "copy")
    assert first.dependencies(track) == second.dependencies(track)


def test_a_replaced_model_is_loaded_again(track: Track, tmp_path: Path) -> None:
    torch.manual_seed(0)
    path, recording = tmp_path / "best-l1.safetensors", read_track(track, 1.0)
    config = ModelConfig(filters=(2,) * 6, segment_frames=64)
    found = []
    for _ in range(2):  # as a training does, between two evaluations of one program
        path.write_bytes(serialize(UNet(config)))
        method = model_method([str(path)])
        found.append(method.estimate(track, recording)["vocals"])
    assert np.abs(found[0] - found[1]).max() > 1e-3
    method = model_method([str(path)])
    np.testing.assert_array_equal(method.estimate(track, recording)["vocals"], found[1])
    path.write_bytes(serialize(UNet(config)))
    method = model_method([str(path)])
    path.write_bytes(serialize(UNet(config)))  # and before the first track is separated
    with pytest.raises(WeightsError, match="best-l1 is another model than when the evaluation"):
        method.estimate(track, recording)


def test_a_missing_model_fails_before_work_starts() -> None:
    with pytest.raises(WeightsError, match="there is no model"):
        model_method(["nonsense"])


def test_an_unusable_gpu_fails_before_work_starts(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices, "cuda_problem", lambda _: "has no code for it")
    with pytest.raises(UnetsepError, match=r"device cuda was asked for but torch \S+ has no code"):
        model_method([str(tiny_model)], "cuda")
    # Processes that score do not each find it out for themselves.
    assert model_method([str(tiny_model)], "auto").device == "cpu"


def test_a_single_stem_model_is_scored_against_the_rest(track: Track, tmp_path: Path) -> None:
    for stem, rest in (("vocals", ACCOMPANIMENT), ("drums", "no_drums")):
        config = ModelConfig(stems=(stem,), filters=(2,) * 6, mask="sigmoid", segment_frames=64)
        path = tmp_path / f"{stem}.safetensors"
        path.write_bytes(serialize(UNet(config)))
        recording = read_track(track, 1.0)
        method = model_method([str(path)])
        found = method.estimate(track, recording)
        assert tuple(found) == (stem, rest)
        np.testing.assert_allclose(found[stem] + found[rest], recording.mixture, atol=1e-5)
        true = in_set(recording.references, tuple(found), STEMS)
        assert tuple(true) == method.default_set(track) == (stem, rest)


def test_stems_that_musdb_does_not_know_belong_to_other(track: Track, tmp_path: Path) -> None:
    config = ModelConfig(stems=(*STEMS, "piano"), filters=(2,) * 6, segment_frames=64)
    path = tmp_path / "five.safetensors"
    path.write_bytes(serialize(UNet(config)))
    recording = read_track(track, 1.0)
    found = model_method([str(path)]).estimate(track, recording)
    assert tuple(found) == STEMS
    np.testing.assert_allclose(sum(found.values()), recording.mixture, atol=1e-5)


def test_the_accompaniment_is_all_but_vocals(track: Track) -> None:
    recording = read_track(track)
    true = in_set(recording.references, [ACCOMPANIMENT], STEMS)
    expected = sum(recording.references[stem] for stem in STEMS[1:])
    np.testing.assert_allclose(true[ACCOMPANIMENT], expected, atol=1e-7)


@pytest.mark.parametrize(
    "place",
    ["{name}", "test/{name}", "{name}.stem", "{name}/mixture", "test/{name}/mixture"],
)
def test_estimates_are_found_where_tools_put_them(place: str, track: Track, tmp_path: Path) -> None:
    write(tmp_path / place.format(name=track.name), *STEMS)
    method = folder_method(tmp_path)
    assert tuple(method.find(track)) == STEMS
    found = method.estimate(track, read_track(track))
    assert {stem: x.shape for stem, x in found.items()} == dict.fromkeys(STEMS, (2, 3 * RATE))


def test_estimates_may_have_any_format_but_only_one(track: Track, tmp_path: Path) -> None:
    folder = tmp_path / track.name
    write(folder, *STEMS, "mixture", "no_vocals")
    opus, aiff = {"format": "OGG", "subtype": "OPUS"}, {"format": "AIFF"}
    for name, options in (("vocals.opus", opus), ("bass.aiff", aiff), ("mixture.opus", opus)):
        soundfile.write(folder / name, noise(0, RATE).T / 8, 48_000, **options)
    method = folder_method(tmp_path)
    with pytest.raises(AudioError, match=r"two files of bass, bass\.aiff and bass\.wav: keep one"):
        method.find(track)
    (folder / "bass.wav").unlink()
    with pytest.raises(AudioError, match=r"two files of vocals, vocals\.opus and vocals\.wav"):
        method.find(track)
    (folder / "vocals.wav").unlink()
    names = [path.name for path in method.find(track).values()]
    assert names == ["vocals.opus", "drums.wav", "bass.aiff", "other.wav"]


def test_estimates_that_end_early_are_refused(track: Track, tmp_path: Path) -> None:
    method, recording = folder_method(tmp_path), read_track(track)
    folder = tmp_path / track.name
    folder.mkdir()
    for seconds, whole in ((2.1, True), (1.9, False)):
        for stem in STEMS:
            part = recording.references[stem][:, : int(seconds * RATE)]
            soundfile.write(folder / f"{stem}.wav", part.T, RATE, subtype="FLOAT")
        if whole:
            assert set(method.estimate(track, recording)) == set(STEMS)
            continue
        with pytest.raises(AudioError, match=r"vocals\.wav ends after 1\.9 of 3\.0 s: .* 1$"):
            method.estimate(track, recording)
        assert set(method.estimate(track, read_track(track, 1.0))) == set(STEMS)


def test_estimates_may_end_where_the_song_is_silent(track: Track, tmp_path: Path) -> None:
    recording = read_track(track)
    quiet = np.concatenate([recording.mixture[:, :RATE], np.zeros((2, 2 * RATE), np.float32)], 1)
    folder = tmp_path / track.name
    folder.mkdir()
    for stem in STEMS:
        soundfile.write(folder / f"{stem}.wav", quiet[:, :RATE].T, RATE, subtype="FLOAT")
    audio = dataclasses.replace(recording, mixture=quiet)
    assert set(folder_method(tmp_path).estimate(track, audio)) == set(STEMS)


@pytest.mark.parametrize("rest", ["accompaniment", "no_vocals", "instrumental"])
def test_two_stem_tools_are_scored_in_the_set_of_two(
    rest: str, track: Track, tmp_path: Path
) -> None:
    write(tmp_path / track.name, "vocals", rest)
    assert tuple(folder_method(tmp_path).find(track)) == ("vocals", ACCOMPANIMENT)


def test_four_stems_are_preferred_to_an_accompaniment_beside_them(
    track: Track, tmp_path: Path
) -> None:
    write(tmp_path / track.name, "accompaniment", *STEMS)
    assert tuple(folder_method(tmp_path).find(track)) == STEMS


def test_one_stem_alone_is_an_error(track: Track, tmp_path: Path) -> None:
    write(tmp_path / track.name, "vocals")
    with pytest.raises(AudioError, match="no estimates of 'Ana - One'"):
        folder_method(tmp_path).find(track)


def test_estimates_of_another_rate_are_refused(track: Track, tmp_path: Path) -> None:
    write(tmp_path / track.name, *STEMS, rate=48_000)
    with pytest.raises(AudioError, match="has 48000 Hz, its reference 44100 Hz"):
        folder_method(tmp_path).estimate(track, read_track(track))


def test_damaged_estimates_or_of_another_rate_are_refused_before_any_work(
    track: Track, tmp_path: Path
) -> None:
    write(tmp_path / track.name, *STEMS)
    assert refusals([track], [folder_method(tmp_path)]) == []
    write(tmp_path / track.name, "bass", rate=48_000)
    with pytest.raises(UnetsepError, match=r"cannot be scored: .*48000 Hz, its reference 44100 Hz"):
        refusals([track], [folder_method(tmp_path)])
    (tmp_path / track.name / "bass.wav").write_bytes(b"RIFF")
    with pytest.raises(UnetsepError, match=r"cannot be scored: .*bass\.wav"):
        refusals([track], [folder_method(tmp_path)])


def test_changed_estimates_have_another_origin(track: Track, tmp_path: Path) -> None:
    write(tmp_path / track.name, *STEMS)
    method = folder_method(tmp_path)
    before = method.dependencies(track)
    assert method.dependencies(track) == before
    os.utime(tmp_path / track.name / "bass.wav", (1, 1))
    assert method.dependencies(track) != before


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="not a folder of estimates"):
        folder_method(tmp_path / "nothing")


def test_baselines_are_chosen_by_name() -> None:
    assert baseline_methods("none") == []
    assert len(baseline_methods("all")) == 5
    assert [m.name for m in baseline_methods("oracle-2, mixture")] == ["oracle-2", "mixture"]
    with pytest.raises(ValueError, match="no baseline 'magic'"):
        baseline_methods("magic")


def test_methods_can_be_pickled(tiny_model: Path) -> None:
    import pickle

    method = model_method([str(tiny_model)])
    assert pickle.loads(pickle.dumps(method)) == method
    assert isinstance(method, ModelMethod)


def test_several_passes_are_a_separate_method(track: Track, tiny_model: Path) -> None:
    once, twice = model_method([str(tiny_model)]), model_method([str(tiny_model)], passes=2)
    assert twice.label == f"{once.label}-2-passes"
    assert "passes" not in once.dependencies(track)
    assert twice.dependencies(track) == once.dependencies(track) | {"passes": 2}
    recording = read_track(track, 1.0)
    expected = Separator(tiny_model, precision="fp32", passes=2).separate(
        recording.mixture, recording.sample_rate
    )
    found = twice.estimate(track, recording)
    assert found.keys() == expected.keys()
    for name, stem in found.items():
        np.testing.assert_array_equal(stem, expected[name])
        assert not np.array_equal(stem, once.estimate(track, recording)[name])


def model_of(path: Path, *stems: str) -> ModelMethod:
    config = ModelConfig(stems=stems, filters=(2,) * 6, segment_frames=64)
    path.write_bytes(serialize(UNet(config)))
    return model_method([str(path)])


def test_a_two_stem_model_is_scored_by_the_stem_that_songs_have(
    track: Track, tmp_path: Path
) -> None:
    method = model_of(tmp_path / "two.safetensors", "vocals", "accompaniment")
    assert method.default_set(track) == ("vocals", ACCOMPANIMENT)
    recording = read_track(track, 1.0)
    found = method.estimate(track, recording)
    assert tuple(found) == ("vocals", ACCOMPANIMENT)
    whole = Separator(tmp_path / "two.safetensors", precision="fp32").separate(
        recording.mixture, recording.sample_rate
    )
    for stem in found:
        np.testing.assert_allclose(found[stem], whole[stem], atol=1e-5)


def test_a_model_of_other_stems_is_refused_before_any_work(track: Track, tmp_path: Path) -> None:
    method = model_of(tmp_path / "other.safetensors", "voice", "band")
    with pytest.raises(ValueError, match=r"estimates voice, band, the songs have vocals, drums"):
        method.default_set(track)


def test_a_missing_device_fails_before_work_starts(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UnetsepError, match="device cuda was asked for"):
        model_method([str(tiny_model)], "cuda")
