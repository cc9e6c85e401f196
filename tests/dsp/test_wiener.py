import dataclasses
import json

import numpy as np
import pytest
import soundfile
import torch

from tests.commands import call
from unetsep import Separator
from unetsep.config import ModelConfig
from unetsep.dsp.wiener import (
    ABSOLUTE,
    BINS,
    BLOCK_FRAMES,
    COMMON,
    REACH,
    RELATIVE,
    TAPS,
    WienerFilter,
)
from unetsep.dsp.wiener import _wiener as wiener
from unetsep.network.unet import UNet
from unetsep.weights.checkpoint import serialize


def whole(filter_, masks, mixture):
    """All stems of a song."""
    return pushed(filter_, masks, mixture, finish=True)


def pushed(filter_, masks, mixture, *, finish=False):
    """The stems that are ready after a block."""
    blocks = [*filter_.push(masks, mixture), *(filter_.flush() if finish else ())]
    return torch.cat([stems for _, _, stems in blocks], dim=-1)


def spectra(*shape, seed=0):
    random = np.random.default_rng(seed)
    parts = random.normal(size=(2, *shape)).astype(np.float32)
    return torch.complex(*torch.from_numpy(parts))


def ratio(stems, *shape, seed=1):
    random = np.random.default_rng(seed)
    masks = torch.from_numpy(random.uniform(0.05, 1, (stems, *shape)).astype(np.float32))
    return masks / masks.sum(dim=0)


def stacked(frames):
    """``(n, channels, bins, frames)`` to ``(n, bins, frames, taps times channels)``."""
    reach = TAPS // 2 * REACH
    around = np.pad(frames, [(0, 0)] * 3 + [(reach, reach)])
    count = frames.shape[-1]
    parts = [around[..., i * REACH : i * REACH + count] for i in range(TAPS)]
    return np.moveaxis(np.concatenate(parts, axis=1), 1, -1)


def by_the_book(masks, mixture, iterations):
    """The filter with matrices, in double precision."""
    masks, mixture = masks.double().numpy(), mixture.to(torch.complex128).numpy()
    channels = len(mixture)
    level = np.sqrt(np.square(np.abs(mixture)).mean())
    mixture = mixture / level

    def coherence(signals):
        # Zeros at both ends make all frames count, also those that only neighbours use.
        ends = np.pad(signals, [(0, 0)] * 3 + [(REACH, REACH)])
        seen = stacked(ends)
        products = np.einsum("sfti,sftj->sfij", seen, seen.conj())
        power = np.square(np.abs(signals)).sum(axis=-1).mean(axis=1)
        return products / power[..., None, None]

    power = (masks * np.square(np.abs(mixture))).mean(axis=1, keepdims=True)
    roots = stacked(np.sqrt(np.repeat(power, channels, axis=1)))
    x = stacked(mixture[None])[0]
    stems = masks * mixture
    for _ in range(iterations):
        shape = (1 - COMMON) * coherence(stems) + COMMON * coherence(mixture[None])
        covariances = roots[..., :, None] * roots[..., None, :] * shape[:, :, None]
        whole = covariances.sum(axis=0)
        mean = np.trace(whole, axis1=-2, axis2=-1).real / len(whole[0, 0])
        whole = whole + (RELATIVE * mean + ABSOLUTE)[..., None, None] * np.eye(len(whole[0, 0]))
        found = np.einsum(
            "sftij,ftj->sfti", covariances, np.linalg.solve(whole, x[..., None])[..., 0]
        )
        middle = found[..., TAPS // 2 * channels :][..., :channels]
        stems = np.moveaxis(middle, -1, 1)
        stems = stems + masks * (mixture - stems.sum(axis=0))
    return stems * level


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("iterations", [1, 2, 4])
def test_a_block_is_filtered_as_by_matrices_in_double_precision(iterations, channels):
    masks, mixture = ratio(3, channels, 20, 30), spectra(channels, 20, 30)
    found = whole(WienerFilter(iterations), masks, mixture)
    expected = by_the_book(masks, mixture, iterations)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_channels_other_than_stereo_are_filtered_one_by_one():
    masks, mixture = ratio(3, 3, 20, 30), spectra(3, 20, 30)
    found = whole(WienerFilter(1), masks, mixture)
    for channel in range(3):
        alone = by_the_book(masks[:, channel, None], mixture[channel, None], 1)
        np.testing.assert_allclose(found[:, channel, None], alone, atol=1e-2)


@pytest.mark.parametrize("frames", [1, 2, 4, 2 * REACH, 2 * REACH + 1])
def test_blocks_may_be_shorter_than_the_stacked_frames(frames):
    masks, mixture = ratio(3, 2, 20, frames), spectra(2, 20, frames)
    expected = by_the_book(masks, mixture, 1)
    np.testing.assert_allclose(whole(WienerFilter(1), masks, mixture), expected, atol=1e-4)


def test_only_the_lowest_bins_are_filtered():
    masks, mixture = ratio(3, 2, BINS + 40, 30), spectra(2, BINS + 90, 30)
    found = whole(WienerFilter(1), masks, mixture)
    assert found.shape == (3, 2, BINS, 30)
    alone = whole(WienerFilter(1), masks[..., :BINS, :], mixture[..., :BINS, :])
    np.testing.assert_allclose(found, alone, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_stems_add_up_to_the_mixture(channels):
    masks, mixture = ratio(4, channels, 20, 50), spectra(channels, 20, 50)
    stems = whole(WienerFilter(2), masks, mixture)
    assert stems.shape == masks.shape
    np.testing.assert_allclose(stems.sum(dim=0), mixture, atol=1e-5)


def test_masks_that_do_not_sum_to_one_are_taken_as_shares():
    masks, mixture = ratio(2, 2, 20, 50), spectra(2, 20, 50)
    np.testing.assert_allclose(
        whole(WienerFilter(1), 0.3 * masks, mixture),
        whole(WienerFilter(1), masks, mixture),
        atol=1e-5,
    )


def test_what_masks_of_some_stems_leave_is_one_more_stem():
    masks, mixture = ratio(3, 2, 20, 50), spectra(2, 20, 50)
    found = whole(WienerFilter(1, complete=False), masks[:2], mixture)
    np.testing.assert_allclose(found, whole(WienerFilter(1), masks, mixture), atol=1e-5)


def error(found, true):
    return float((found - true).abs().square().sum() / true.abs().square().sum())


def panned(frames, seed=0):
    """Two stems, left and right of the centre, and rough masks for them."""
    sources = spectra(2, 1, 40, frames, seed=seed)
    gains = torch.tensor([[1.0, 0.2], [0.2, 1.0]])[:, :, None, None]
    stems = sources * gains
    power = stems.abs().mean(dim=1, keepdim=True).expand(2, 2, 40, frames) ** 2
    return power / power.sum(dim=0), stems


def test_stems_with_different_panning_are_separated():
    masks, stems = panned(200)
    mixture = stems.sum(dim=0)
    before = error(masks * mixture, stems)
    after = error(whole(WienerFilter(2), masks, mixture), stems)
    assert after < 0.7 * before


def test_a_sustained_note_is_separated_from_noise_in_one_channel():
    phases = torch.outer(torch.arange(40.0), torch.arange(300.0)) * 0.7
    note = torch.polar(torch.ones_like(phases), phases)[None]
    stems = torch.stack([note, spectra(1, 40, 300) / 2**0.5])
    power = stems.abs().square()
    masks, mixture = power / power.sum(dim=0), stems.sum(dim=0)
    before = error(masks * mixture, stems)
    assert error(whole(WienerFilter(1), masks, mixture), stems) < 0.8 * before


def test_a_short_block_profits_from_the_ones_before():
    filter_ = WienerFilter(1)
    masks, stems = panned(BLOCK_FRAMES)
    pushed(filter_, masks, stems.sum(dim=0))
    masks, stems = panned(1, seed=5)
    blurred = 0.5 * masks + 0.25
    fresh = error(whole(WienerFilter(1), blurred, stems.sum(dim=0)), stems)
    found = whole(filter_, blurred, stems.sum(dim=0))[..., -1:]
    assert error(found, stems) < fresh / 2


@pytest.mark.parametrize("level", [1e-12, 1e-4, 1e4])
def test_the_level_does_not_matter(level):
    masks, mixture = ratio(3, 2, 20, 30), spectra(2, 20, 30)
    expected = whole(WienerFilter(2), masks, mixture)
    np.testing.assert_allclose(
        whole(WienerFilter(2), masks, mixture * level) / level, expected, atol=1e-4
    )


@pytest.mark.parametrize("channels", [1, 2])
def test_silence_stays_silent(channels):
    filter_ = WienerFilter(2)
    masks, mixture = ratio(3, channels, 20, 30), spectra(channels, 20, 30)
    mixture[..., :15] = 0
    stems = whole(filter_, masks, mixture)
    assert stems.isfinite().all()
    assert not stems[..., :15].any()
    assert not whole(WienerFilter(1), masks, torch.zeros_like(mixture)).any()
    assert whole(WienerFilter(1), torch.zeros_like(masks), mixture).isfinite().all()


def test_one_iteration_is_the_least():
    with pytest.raises(ValueError, match="at least 1"):
        WienerFilter(0)
    with pytest.raises(ValueError, match="from 0 to 100, got -1"):
        Separator(network(), wiener=-1)


def network():
    torch.manual_seed(0)
    config = ModelConfig(filters=(2, 2), bins=256, segment_frames=64, n_fft=1024, hop_length=256)
    return UNet(config).eval()


def test_a_song_is_filtered_block_by_block_and_still_nulls():
    song = np.random.default_rng(0).normal(0, 0.1, (2, 50_000)).astype(np.float32)
    song[1] += song[0] / 2
    filtered = Separator(network(), precision="fp32", wiener=1)
    plain = Separator(network(), precision="fp32")
    stems = filtered.separate(song, 44100)
    np.testing.assert_allclose(sum(stems.values()), song, atol=1e-5)
    assert np.abs(stems["bass"] - plain.separate(song, 44100)["bass"]).max() > 1e-3
    only = filtered.separate(song, 44100, stems=["bass"])
    np.testing.assert_allclose(only["bass"], stems["bass"], atol=1e-6)
    two = filtered.separate(song, 44100, two_stems="bass")
    np.testing.assert_allclose(two["bass"] + two["no_bass"], song, atol=1e-5)


def test_a_model_of_one_stem_leaves_the_rest_of_the_song():
    config = dataclasses.replace(network().config, stems=("vocals",), mask="sigmoid")
    half = UNet(config).eval()
    with torch.no_grad():
        half.head.weight.zero_()
        half.head.bias.zero_()
    song = np.random.default_rng(0).normal(0, 0.1, (2, 50_000)).astype(np.float32)
    for chosen in ({}, {"two_stems": "vocals"}):
        stems = Separator(half, precision="fp32", wiener=1).separate(song, 44100, **chosen)
        np.testing.assert_allclose(stems["vocals"], song / 2, atol=1e-5)


def test_the_command_takes_iterations(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(serialize(network()))
    song = np.random.default_rng(0).normal(0, 0.05, (30_000, 2))
    song[:, 1] += song[:, 0] / 2
    soundfile.write(tmp_path / "song.wav", song, 44100, subtype="FLOAT")
    command = ["separate", str(tmp_path / "song.wav"), "-m", str(tmp_path / "model.safetensors")]
    stems = []
    for iterations in ("0", "2"):
        out = ["-o", str(tmp_path / iterations), "--wiener", iterations, "--json", "-q"]
        result = call(*command, *out)
        assert result.exit_code == 0, result.output
        files = json.loads(result.stdout)["stems"]
        stems.append({name: soundfile.read(path)[0] for name, path in files.items()})
    np.testing.assert_allclose(sum(stems[1].values()), song, atol=1e-5)
    assert np.abs(stems[0]["drums"] - stems[1]["drums"]).max() > 1e-3


@pytest.mark.parametrize("level", [1e3, 1e12])
def test_silence_after_loud_music_stays_silent(level):
    filter_ = WienerFilter(1)
    masks, mixture = ratio(3, 2, 20, BLOCK_FRAMES), spectra(2, 20, BLOCK_FRAMES)
    pushed(filter_, masks, mixture * level)
    silence = pushed(filter_, masks, torch.zeros_like(mixture))
    # The last frames of the music were still pending.
    assert silence.isfinite().all()
    assert not silence[..., REACH:].any()
    assert pushed(filter_, masks, mixture, finish=True).isfinite().all()


LENGTH = 2 * BLOCK_FRAMES + 40


@pytest.mark.parametrize(
    "sizes",
    [
        [LENGTH],
        [1, 2, 300, LENGTH - 303],
        [BLOCK_FRAMES, BLOCK_FRAMES + 40],
        [404, 404],
        [BLOCK_FRAMES - 1, BLOCK_FRAMES + 39, 2],
    ],
)
def test_the_division_of_frames_into_pieces_does_not_matter(sizes):
    masks, mixture = ratio(3, 2, 20, LENGTH), spectra(2, BINS, LENGTH)
    expected = whole(WienerFilter(1), masks, mixture)
    filter_ = WienerFilter(1)
    parts = zip(masks.split(sizes, -1), mixture.split(sizes, -1), strict=True)
    blocks = [block for part in parts for block in filter_.push(*part)]
    blocks += filter_.flush()
    given, song, stems = (torch.cat(each, dim=-1) for each in zip(*blocks, strict=True))
    assert torch.equal(given, masks)
    assert torch.equal(song, mixture)
    np.testing.assert_allclose(stems.sum(dim=0), mixture[:, :20], atol=1e-5)
    np.testing.assert_allclose(stems, expected, atol=1e-5)


@pytest.mark.parametrize("length", [BLOCK_FRAMES, BLOCK_FRAMES + 2, 2 * BLOCK_FRAMES])
def test_songs_that_end_with_a_block_are_whole(length):
    masks, mixture = ratio(3, 2, 20, length), spectra(2, BINS, length)
    stems = whole(WienerFilter(1), masks, mixture)
    np.testing.assert_allclose(stems.sum(dim=0), mixture[:, :20], atol=1e-5)


def test_the_end_of_a_block_sees_the_frames_that_follow():
    """With equal coherences in all blocks their borders would not matter."""
    masks, stems = panned(2 * BLOCK_FRAMES)
    mixture = stems.sum(dim=0)
    first = WienerFilter(1)
    pushed(first, masks[..., :BLOCK_FRAMES], mixture[..., :BLOCK_FRAMES])
    again = WienerFilter(1)
    again._learn = lambda *_: None
    again._coherence = first._coherence
    found = whole(again, masks, mixture)
    # The same in one block, without a border inside.
    expected = torch.cat(
        [
            wiener(first._coherence[0], masks.mT[..., at, :], mixture.mT[:, at]).mT[..., skip]
            for at, skip in ((slice(0, 600), slice(0, 500)), (slice(400, None), slice(100, None)))
        ],
        dim=-1,
    )
    np.testing.assert_allclose(found, expected, atol=1e-4)
