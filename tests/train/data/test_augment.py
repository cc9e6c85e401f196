"""Augmentation changes what it says, nothing else, and nothing at all when it is off."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.train.synthetic import pcm, songs, tiny
from unetsep.config import STEMS
from unetsep.train.data.augment import (
    EQ_TERMS,
    Augmenter,
    ChangePlanner,
    Changes,
    augments,
    smooth_lengths,
    source_lengths,
    stereo_matrix,
    work_length,
)
from unetsep.train.data.clip_plans import SILENCE, ClipPlanner
from unetsep.train.data.clips import ClipDataset, PlanDataset, ResidentClips
from unetsep.train.data.recording import SAMPLE_RATE, recording_from_arrays

SAMPLES = 30_000
ON: dict[str, Any] = {"varispeed": 0.12, "eq_db": 4.0, "reverb_share": 0.5}


def changes(length: int, eq: tuple[float, ...] = (), reverb: tuple[float, ...] = ()) -> Changes:
    """Changes of one stem."""
    rows = (*eq, *(0.0,) * (EQ_TERMS - len(eq))), (*reverb, *(0.0,) * (3 - len(reverb)))
    eq, reverb = (torch.tensor([row]) for row in rows)
    return Changes.none(1, length)._replace(eq=eq, reverb=reverb)


def tone(frequency: float, samples: int) -> Tensor:
    """Stereo sine of amplitude 1000 and 500, ``(samples, 2)``."""
    wave = torch.sin(
        2 * np.pi * frequency * torch.arange(samples, dtype=torch.float64) / SAMPLE_RATE
    )
    return torch.stack([1000 * wave, 500 * wave], dim=1).float()


def augment(excerpt: Tensor, change: Changes) -> Tensor:
    """One changed stem, ``(2, SAMPLES)``."""
    return Augmenter(SAMPLES, torch.device("cpu"))(excerpt[None], change)[0]


def test_clips_are_unchanged_without_augmentation() -> None:
    # Checksums of plans and clips from before there was augmentation.
    planner = ClipPlanner(songs()[0], tiny(seed=3))
    clips, plans, read = ClipDataset(planner), 0, 0
    for index in range(20):
        for part in planner.plan(index)[:4]:
            plans = zlib.crc32(part.numpy().tobytes(), plans)
        read = zlib.crc32(clips[index].numpy().tobytes(), read)
    assert (plans, read) == (0xBC49E832, 0x2B627288)


@pytest.mark.parametrize(
    "on",
    [
        {"varispeed": 0.1, "coherent_varispeed": 0.0},
        *({name: 0.1} for name in ("coherent_varispeed", "eq_db", "reverb_share")),
        *({name: 0.1} for name in ("stereo_share", "drive_share")),
    ],
    ids=str,
)
def test_each_change_alone_is_an_augmentation(on: dict[str, Any]) -> None:
    assert augments(tiny(**on))
    assert not augments(tiny())


def test_augmentation_does_not_change_drawn_places() -> None:
    off, on = (ClipPlanner(songs()[0], tiny(seed=3, **more)) for more in ({}, ON))
    for index in range(20):
        for name in ("numbers", "gains", "swapped"):
            assert torch.equal(getattr(off.plan(index), name), getattr(on.plan(index), name))


def test_an_excerpt_without_changes_is_returned_as_it_is() -> None:
    excerpt = torch.from_numpy(pcm(1, work_length(SAMPLES)))
    out = augment(excerpt, changes(work_length(SAMPLES)))
    torch.testing.assert_close(out, excerpt[512 : 512 + SAMPLES].T.float(), rtol=0, atol=0.1)


@pytest.mark.parametrize("speed", [0.88, 0.97, 1.05, 1.12])
def test_speed_moves_a_tone_and_keeps_its_amplitude(speed: float) -> None:
    work = work_length(SAMPLES)
    length = min(
        source_lengths(tiny(clip_frames=232, varispeed=0.12)), key=lambda n: abs(n / work - speed)
    )
    frequency = 1000 * SAMPLE_RATE / 44_100
    out = augment(tone(frequency, length), changes(length))[:, 2000:-2000]
    expected = frequency * length / work
    spectrum = torch.fft.rfft(out[0].double() * torch.hann_window(out.shape[1]).double())
    bin_width = SAMPLE_RATE / out.shape[1]
    assert abs(int(spectrum.abs().argmax()) * bin_width - expected) <= bin_width
    assert float(out[0].square().mean().sqrt()) == pytest.approx(1000 / 2**0.5, rel=2e-3)
    torch.testing.assert_close(out[1], out[0] / 2, rtol=0, atol=0.5)


def test_the_equaliser_has_the_gain_it_says() -> None:
    work = work_length(SAMPLES)
    for frequency, expected in ((60.0, 6.0), (16_000.0, -6.0), (50 * 320**0.5, 0.0)):
        out = augment(tone(frequency, work), changes(work, eq=(6.0,)))[0, 3000:-3000]
        level = 20 * np.log10(float(out.square().mean().sqrt()) / (1000 / 2**0.5))
        assert level == pytest.approx(expected, abs=0.35)


def test_reverb_follows_a_sound_and_decays() -> None:
    click = torch.zeros(work_length(SAMPLES), 2)
    click[2000, 0] = 10_000
    out = augment(click, changes(len(click), reverb=(3, 0.2, 0.5)))
    assert int(out[0].abs().argmax()) == 2000 - 512
    energy = out[:, 1500:].square().sum(dim=0)  # after the click
    early, late = float(energy[:2000].sum()), float(energy[8820 : 8820 + 2000].sum())
    assert late == pytest.approx(early * 1e-6, rel=9)  # 60 dB down after 0.2 s
    assert 0.2 < float(energy.sum()) / 10_000**2 / 0.5**2 < 1.0  # damped above 4 kHz
    assert float(out[1].abs().max()) > 10  # heard in the other channel
    assert float(out[:, 200:1400].abs().max()) < 10  # not before the click


def test_changes_depend_on_seed_and_index_alone_and_stay_in_their_bounds() -> None:
    config = tiny(seed=3, clip_frames=232, **ON)
    planner, again = ChangePlanner(config), ChangePlanner(config)
    drawn = [planner.draw(i, False) for i in range(300)]
    for left, right in zip(again.draw(7, False), drawn[7], strict=True):
        assert torch.equal(left, right)
    speeds = torch.stack([c.lengths for c in drawn]) / work_length(config.clip_samples)
    assert 0.88 <= float(speeds.min()) < 0.91
    assert 1.09 < float(speeds.max()) <= 1.12
    eq = torch.stack([c.eq for c in drawn])
    bounds = 4.0 / torch.arange(1, EQ_TERMS + 1)
    assert bool((eq.abs().amax(dim=(0, 1)) <= bounds).all())
    assert bool((eq.abs().amax(dim=(0, 1)) > 0.9 * bounds).all())
    reverb = torch.stack([c.reverb for c in drawn])
    assert 0.4 < float((reverb[..., 2] > 0).float().mean()) < 0.6


def test_stems_of_coherent_clips_keep_one_speed_and_place() -> None:
    aligned = ClipPlanner(songs()[0], tiny(coherent_share=1.0, drop_share=0.0, **ON))
    plans = [aligned.plan(i) for i in range(30)]
    assert all(len(set(p.changes.lengths.tolist())) == 1 for p in plans)
    assert all(len(set(p.starts.tolist())) == 1 for p in plans)
    mixed = ClipPlanner(songs()[0], tiny(coherent_share=0.0, **ON))
    assert max(len(set(mixed.plan(i).changes.lengths.tolist())) for i in range(30)) > 2


def test_coherent_clips_can_vary_more_than_random_mixtures() -> None:
    config = tiny(seed=3, clip_frames=232, varispeed=0.05, coherent_varispeed=0.2)
    planner, work = ChangePlanner(config), work_length(config.clip_samples)
    for coherent, bound in ((False, 0.05), (True, 0.2)):
        drawn = torch.stack([planner.draw(i, coherent).lengths for i in range(300)]) / work - 1
        # The nearest length of a fast transform may be a little beyond.
        assert float(drawn.abs().max()) == pytest.approx(bound, abs=0.01)
    alone = tiny(coherent_share=1.0, coherent_varispeed=0.1)
    clips = ClipDataset(ClipPlanner(songs()[0], alone))
    assert clips[0].shape == (4, 2, alone.clip_samples)
    assert len({int(clips.planner.plan(i).changes.lengths[0]) for i in range(20)}) > 5


def test_excerpts_are_read_from_within_the_recording() -> None:
    planner = ClipPlanner(songs()[0], tiny(clip_frames=200, **ON))
    for index in range(50):
        plan = planner.plan(index)
        for number, start, length in zip(
            plan.numbers, plan.starts, plan.changes.lengths, strict=True
        ):
            if number != SILENCE:
                assert 0 <= start <= planner.recorded_stems[number][0].samples - length


@pytest.mark.parametrize(
    "on",
    [
        *(ON, {"varispeed": 0.1}, {"eq_db": 6.0}, {"reverb_share": 1.0}),
        *({"stereo_share": 0.7}, {"drive_share": 0.7}),
        ON | {"second_share": {"other": 0.8}},
    ],
)
def test_resident_clips_equal_those_read_from_the_cache(on: dict[str, Any]) -> None:
    short = recording_from_arrays("short", {"bass": pcm(4, 2000)}, origin="pools", extra=True)
    plans = ClipPlanner([*songs()[0], short], tiny(drop_share=0.3, seed=5, **on))
    resident = ResidentClips(plans, torch.device("cpu"))
    batch = torch.utils.data.default_collate([PlanDataset(plans)[i] for i in range(30)])
    expected = torch.stack([ClipDataset(plans)[i] for i in range(30)])
    assert expected.shape == (30, len(STEMS), 2, plans.config.clip_samples)
    torch.testing.assert_close(resident.cut(batch), expected, rtol=1e-5, atol=1e-6)


ALL: dict[str, Any] = ON | {
    "stereo_share": 0.5,
    "drive_share": 0.5,
    "second_share": {"other": 0.8},
}
# Sample 1000 of the left channel of every fifth stem, and the clips' products with a cosine, as
# the first version made them, stem by stem.
SAMPLE_1000 = (
    *(0.11983066, 0.0, -0.00063331, 0.08892245, 0.06867342, 0.0810702, 0.13284141, -0.05033778),
    *(0.02948144, -0.06906442, -0.05242215, -0.00559486, -0.04303246, -0.12565197, 0.00277855),
    -0.1272473,
)
PRODUCTS = (
    *(0.036004, -0.02597, 0.381436, -0.329712, -2.47901, 1.090898, -1.99166, 4.153015, 1.800866),
    *(-0.780634, -1.753624, -0.413997, 0.17233, -1.126643, -1.801693, -0.46883, -0.535596),
    *(-0.824742, -2.878337, 0.990544),
)


def test_clips_of_a_seed_equal_those_of_the_first_version() -> None:
    clips = ClipDataset(ClipPlanner(songs()[0], tiny(seed=3, **ALL)))
    made = torch.stack([clips[i] for i in range(20)])
    samples = made[:, :, 0, 1000].flatten()[::5]
    torch.testing.assert_close(samples, torch.tensor(SAMPLE_1000), rtol=0, atol=1e-6)
    cosine = torch.cos(torch.arange(made[0].numel(), dtype=torch.float64))
    products = made.flatten(1).double() @ cosine
    torch.testing.assert_close(products, torch.tensor(PRODUCTS).double(), rtol=0, atol=1e-4)


class Calls(TorchDispatchMode):
    """Counts what is done to tensors, but for transforms and for views, which cost no launch."""

    def __init__(self) -> None:
        super().__init__()
        self.transforms = self.others = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._fft_c2c.default:
            self.transforms += 1
        elif not func.is_view:
            self.others += 1
        return func(*args, **(kwargs or {}))


def test_a_batch_takes_one_transform_for_each_stem_that_sounds() -> None:
    plans = ClipPlanner(songs()[0], tiny(seed=3, **ALL | {"reverb_share": 1.0}))
    resident, counted = ResidentClips(plans, torch.device("cpu")), []
    for clips in (4, 16):
        batch = torch.utils.data.default_collate([PlanDataset(plans)[i] for i in range(clips)])
        with Calls() as calls:
            resident.cut(batch)
        heard = int((batch.numbers != SILENCE).sum())
        assert calls.transforms == heard + 2  # those of all rooms, and back
        counted.append(calls.others)
    assert counted[0] == counted[1] < 80


def test_cutting_clips_reads_no_value_from_the_device() -> None:
    # What is in the tensors of this device nobody can know.
    plans = ClipPlanner(songs()[0], tiny(seed=3, **ALL))
    resident = ResidentClips(plans, torch.device("meta"))
    clips = resident.cut(torch.utils.data.default_collate([PlanDataset(plans)[i] for i in (1, 2)]))
    assert clips.shape == (2, len(STEMS), 2, plans.config.clip_samples)
    assert clips.device.type == "meta"


def test_a_stereo_image_is_turned_and_widened() -> None:
    middle, side = np.array([1.0, 1.0]), np.array([1.0, -1.0])
    assert stereo_matrix(0.0, 1.0) == pytest.approx(np.eye(2))
    assert stereo_matrix(0.0, 0.3) @ middle == pytest.approx(middle)
    assert stereo_matrix(0.0, 0.3) @ side == pytest.approx(0.3 * side)
    assert stereo_matrix(np.pi / 4, 0.0) @ middle == pytest.approx([0.0, np.sqrt(2)])
    matrix = torch.from_numpy(stereo_matrix(0.3, 0.5)).float()
    length = work_length(SAMPLES)
    excerpt = torch.from_numpy(pcm(1, length)).float()
    plain = augment(excerpt, changes(length))
    turned = augment(excerpt, changes(length)._replace(stereo=matrix[None]))
    torch.testing.assert_close(turned, matrix @ plain)


def test_saturation_keeps_the_level_and_flattens_the_peaks() -> None:
    length = work_length(SAMPLES)
    excerpt = tone(441.0, length)
    plain, bent = (
        augment(excerpt, changes(length)._replace(drive=torch.tensor([drive])))
        for drive in (0.0, 1.5)
    )
    assert float(bent.square().mean()) == pytest.approx(float(plain.square().mean()), rel=1e-4)
    assert float(bent.abs().max()) < 0.9 * float(plain.abs().max())
    silent = augment(torch.zeros(length, 2), changes(length)._replace(drive=torch.tensor([1.0])))
    assert not bool(silent.any())


def test_stereo_and_saturation_follow_their_shares_and_keep_other_draws() -> None:
    off = ChangePlanner(tiny(seed=3, **ON))
    on = ChangePlanner(tiny(seed=3, stereo_share=0.3, drive_share=0.6, **ON))
    drawn = [on.draw(i, False) for i in range(200)]
    for index in range(20):
        for ours, theirs in zip(drawn[index][:3], off.draw(index, False)[:3], strict=True):
            assert torch.equal(ours, theirs)
    turned = torch.stack([(c.stereo != torch.eye(2)).any(dim=-1).any(dim=-1) for c in drawn])
    drive = torch.stack([c.drive for c in drawn])
    assert float(turned.float().mean()) == pytest.approx(0.3, abs=0.05)
    assert float((drive > 0).float().mean()) == pytest.approx(0.6, abs=0.05)
    assert float(drive.max()) <= 1.5


def test_lengths_are_smooth_and_complete() -> None:
    def smooth(number: int) -> bool:
        for prime in (2, 3, 5, 7):
            while number % prime == 0:
                number //= prime
        return number == 1

    expected = [n for n in range(10_000, 18_002, 2) if smooth(n)]
    assert list(smooth_lengths(10_000, 18_000)) == expected


def test_bounds_are_checked() -> None:
    wrong = {"varispeed": 0.4, "coherent_varispeed": -0.1, "eq_db": -1.0, "reverb_share": 1.5}
    wrong |= {"stereo_share": 2.0, "drive_share": -0.1}
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            tiny(**{name: value})


def test_each_sound_of_a_clip_is_transformed_once_at_a_fast_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = [recording_from_arrays("a", {s: pcm(i, 7 * SAMPLE_RATE) for i, s in enumerate(STEMS)})]
    config = tiny(clip_frames=2000, drop_share=0.0, **ON)
    clips = ClipDataset(ClipPlanner(long, config))
    clips[3]  # the first one makes what all need
    work = work_length(config.clip_samples)
    there, back, fft, ifft = [], [], torch.fft.fft, torch.fft.ifft

    def count_there(sounds: Tensor, n: int, **options: Any) -> Tensor:
        there.append((n, sounds.numel() // sounds.shape[-1]))
        return fft(sounds, n=n, **options)

    def count_back(spectra: Tensor, **options: Any) -> Tensor:
        back.append(tuple(spectra.shape))
        return ifft(spectra, **options)

    monkeypatch.setattr(torch.fft, "fft", count_there)
    monkeypatch.setattr(torch.fft, "ifft", count_back)
    for index in range(3):
        there.clear()
        back.clear()
        clips[index]
        sounds = sum(count for count, _ in back)
        assert sounds == len(STEMS)
        assert {samples for _, samples in back} == {work}
        # Each sound, and at most a room for each.
        assert sounds <= sum(count for _, count in there) <= 2 * sounds
        assert {n for n, _ in there} <= set(source_lengths(config))
