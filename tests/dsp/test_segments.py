from __future__ import annotations

import pytest
import torch

from unetsep.dsp.segments import SegmentedMasks, SegmentPool

BINS, SEGMENT, MULTIPLE = 8, 64, 16


def local(spectrum: torch.Tensor) -> torch.Tensor:
    """Masks that depend only on their own bin and frame, and sum to one."""
    first = spectrum.abs() / (1 + spectrum.abs())
    return torch.stack([first, 1 - first])


def run(
    spectrum: torch.Tensor, overlap: int, block: int, estimate=local, **options
) -> tuple[torch.Tensor, ...]:
    masker = SegmentedMasks(estimate, BINS, SEGMENT, overlap, MULTIPLE, **options)
    pairs = [pair for part in spectrum.split(block, dim=-1) for pair in masker.push(part)]
    pairs += list(masker.flush())
    masks = torch.cat([mask for mask, _ in pairs], dim=-1)
    frames = torch.cat([frames for _, frames in pairs], dim=-1)
    return masks, frames


def spectra(frames: int) -> torch.Tensor:
    return torch.randn(2, 12, frames, dtype=torch.complex64)


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 63, 64, 65, 112, 113, 129, 1000])
@pytest.mark.parametrize("overlap", [0, 16, 32])
def test_segmenting_changes_nothing_when_masks_need_no_context(frames: int, overlap: int) -> None:
    spectrum = spectra(frames)
    masks, passed = run(spectrum, overlap, 48)
    assert torch.equal(passed, spectrum)
    assert (masks - local(spectrum[:, :BINS].abs())).abs().max() < 1e-6  # -120 dB


@pytest.mark.parametrize("block", [1, 7, 64, 500])
def test_division_into_blocks_does_not_matter(block: int) -> None:
    spectrum = spectra(300)
    assert torch.equal(run(spectrum, 16, block)[0], run(spectrum, 16, 300)[0])


def test_masks_that_sum_to_one_still_do_after_the_cross_fade() -> None:
    def random(spectrum: torch.Tensor) -> torch.Tensor:
        return torch.randn(3, *spectrum.shape).softmax(dim=0)

    masks, _ = run(spectra(500), 32, 100, random)
    assert (masks.sum(dim=0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("frames", [64, 65, 112, 160, 1000])
def test_the_network_sees_whole_segments_and_is_called_no_more_than_needed(frames: int) -> None:
    seen = []

    def watch(spectrum: torch.Tensor) -> torch.Tensor:
        seen.append(spectrum.shape[-1])
        return local(spectrum)

    overlap = 16
    run(spectra(frames), overlap, 48, watch)
    assert set(seen) == {SEGMENT}
    assert len(seen) == -(-(frames - overlap) // (SEGMENT - overlap))


def test_a_short_song_is_padded_to_the_next_multiple_only() -> None:
    seen = []

    def watch(spectrum: torch.Tensor) -> torch.Tensor:
        seen.append(spectrum.shape[-1])
        return local(spectrum)

    run(spectra(17), 16, 17, watch)
    assert seen == [32]


@pytest.mark.parametrize("frames", [30, 64, 100])
def test_with_fill_every_segment_is_whole(frames: int) -> None:
    seen = []

    def watch(spectrum: torch.Tensor) -> torch.Tensor:
        seen.append(spectrum.shape[-1])
        return local(spectrum)

    run(spectra(frames), 0, 48, watch, pad_segments=True)
    assert seen == [SEGMENT] * -(-frames // SEGMENT)


def test_the_cross_fade_is_linear_and_least_at_the_borders() -> None:
    calls = []

    def numbered(spectrum: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return torch.full((1, *spectrum.shape), float(len(calls) % 2))

    masks, _ = run(spectra(200), 32, 200, numbered)
    line = masks[0, 0, 0]
    assert torch.allclose(line[32:64], 1 - (torch.arange(32) + 0.5) / 32)
    assert torch.allclose(line[64:96], (torch.arange(32) + 0.5) / 32)


@pytest.mark.parametrize("frames", [10, 64, 65, 200, 1000])
def test_segments_computed_side_by_side_give_the_same_masks(frames: int) -> None:
    spectrum = spectra(frames)
    one_by_one = run(spectrum, 16, 48)
    with SegmentPool(3, 1) as pool:
        together = run(spectrum, 16, 48, pool=pool)
    assert all(torch.equal(a, b) for a, b in zip(one_by_one, together, strict=True))


@pytest.mark.parametrize("frames", range(60, 70))
@pytest.mark.parametrize("fill", [False, True])
def test_no_frame_is_lost_after_a_lead(frames: int, fill: bool) -> None:
    """With threads the first segment is not yet paired with its frames when the song ends."""
    spectrum = spectra(frames)
    with SegmentPool(2, 1) as pool:
        masks, passed = run(spectrum, 0, 48, pool=pool, lead_frames=3, pad_segments=fill)
    assert torch.equal(passed, spectrum)
    assert (masks - local(spectrum[:, :BINS].abs())).abs().max() < 1e-6


def test_masks_and_spectra_keep_frames_before_bins_in_memory() -> None:
    masker = SegmentedMasks(
        lambda seen: local(seen).mT.contiguous().mT, BINS, SEGMENT, 16, MULTIPLE
    )
    spectrum = spectra(300).mT.contiguous().mT
    for masks, frames in (*masker.push(spectrum), *masker.flush()):
        assert masks.mT.stride(-1) == frames.mT.stride(-1) == 1


@pytest.mark.parametrize("overlap", [-1, 33])
def test_overlap_beyond_half_a_segment_is_refused(overlap: int) -> None:
    with pytest.raises(ValueError, match="overlap"):
        SegmentedMasks(local, BINS, SEGMENT, overlap, MULTIPLE)
