from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from unetsep.dsp.spectrogram import (
    EXTENSION_BINS,
    StreamingISTFT,
    StreamingSTFT,
    apply_mask,
    extension_weights,
    hann,
    magnitudes,
    overlap_add,
    overlap_add_with_gradients,
    powers,
    stft,
)

N_FFT, HOP = 4096, 1024
LENGTHS = [1, 100, 1023, 1024, 1025, 4095, 4096, 4097, 50_000]


def streamed(signal: torch.Tensor, block: int) -> torch.Tensor:
    transform = StreamingSTFT(N_FFT, HOP)
    blocks = [transform.push(piece) for piece in signal.split(block, dim=-1)]
    assert all(each.is_complex() for each in blocks)
    return torch.cat([*blocks, transform.flush()], dim=-1)


def test_squared_windows_add_up_to_three_halves() -> None:
    squared = hann(N_FFT, torch.device("cpu")).double().square().reshape(4, HOP)
    assert torch.allclose(squared.sum(dim=0), torch.full((HOP,), 1.5).double(), atol=1e-6)


@pytest.mark.parametrize("samples", LENGTHS)
@pytest.mark.parametrize("block", [777, 1024, 10_000])
def test_stream_round_trip_is_exact_at_every_length(samples: int, block: int) -> None:
    signal = torch.randn(2, samples, generator=torch.Generator().manual_seed(0))
    spectrum = streamed(signal, block)
    frames = (samples + N_FFT - HOP - 1) // HOP + 1  # the padding at both ends included
    assert spectrum.shape == (2, N_FFT // 2 + 1, frames)
    inverse = StreamingISTFT(N_FFT, HOP)
    wave = torch.cat([inverse.push(part) for part in spectrum.split(5, dim=-1)], dim=-1)
    assert wave.shape[-1] >= samples
    assert (wave[:, :samples] - signal).abs().max() < 5e-6


@pytest.mark.parametrize("block", [1, 500, 4096])
def test_division_into_blocks_does_not_matter(block: int) -> None:
    signal = torch.randn(1, 9000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(streamed(signal, block), streamed(signal, 9000))


def test_frames_agree_with_torch_stft() -> None:
    signal = torch.randn(2, 20_000, generator=torch.Generator().manual_seed(2))
    window = hann(N_FFT, signal.device)
    expected = torch.stft(signal, N_FFT, HOP, window=window, center=False, return_complex=True)
    assert torch.allclose(stft(signal, N_FFT, HOP), expected, atol=1e-4)


def test_a_tone_peaks_in_its_bin() -> None:
    bin_ = 100
    time = torch.arange(44_100) / 44_100
    tone = torch.sin(2 * math.pi * bin_ * 44_100 / N_FFT * time)
    magnitude = stft(tone, N_FFT, HOP).abs()
    assert (magnitude.argmax(dim=0) == bin_).all()


def test_six_second_clip_has_256_frames() -> None:
    clip = torch.zeros(1, N_FFT + 255 * HOP)
    assert clip.shape[-1] == 265_216
    assert stft(clip, N_FFT, HOP).shape[-1] == 256


@pytest.mark.parametrize("inverse", [overlap_add, overlap_add_with_gradients])
def test_overlap_add_inverts_where_four_windows_overlap(
    inverse: Callable[[torch.Tensor, int], torch.Tensor],
) -> None:
    signal = torch.randn(2, 30 * HOP, generator=torch.Generator().manual_seed(3))
    spectrum = stft(signal, N_FFT, HOP)
    found, inner = inverse(spectrum, HOP), slice(3 * HOP, -3 * HOP)
    assert torch.allclose(found[:, inner], signal[:, inner], atol=1e-5)
    torch.testing.assert_close(found, overlap_add(spectrum, HOP))


def test_flush_before_any_block_is_an_error() -> None:
    with pytest.raises(ValueError, match="no block"):
        StreamingSTFT(N_FFT, HOP).flush()


def test_extension_is_the_mean_of_the_top_bins_and_keeps_the_sum() -> None:
    masks = torch.rand(4, 2, 1024, 7, generator=torch.Generator().manual_seed(4)).softmax(dim=0)
    above = extension_weights(masks)
    assert above.shape == (4, 2, 7)
    assert torch.allclose(above, masks[:, :, -EXTENSION_BINS:].mean(dim=2))
    assert torch.allclose(above.sum(dim=0), torch.ones(2, 7), atol=1e-6)


def test_a_mask_of_one_gives_the_mixture_and_of_zero_nothing() -> None:
    spectrum = torch.randn(2, 2049, 6, dtype=torch.complex64)
    masks = torch.stack([torch.ones(2, 1024, 6), torch.zeros(2, 1024, 6)])
    stems = apply_mask(masks, extension_weights(masks), spectrum)
    assert stems.shape == (2, 2, 2049, 6)
    assert torch.equal(stems[0], spectrum)
    assert (stems[1] == 0).all()


def test_masking_keeps_the_mixture_phase() -> None:
    spectrum = torch.randn(2, 2049, 6, dtype=torch.complex64)
    masks = torch.rand(3, 2, 1024, 6) + 0.01
    stems = apply_mask(masks, extension_weights(masks), spectrum)
    turned = stems * spectrum.conj()
    assert (turned.imag.abs() <= 1e-5 * turned.real + 1e-6).all()
    assert (turned.real > 0).all()


def test_magnitudes_are_absolute_values_in_the_order_of_the_spectrum() -> None:
    spectrum = torch.randn(2, 2, 70, 30, dtype=torch.complex64).mT
    found = magnitudes(spectrum)
    torch.testing.assert_close(found, spectrum.abs())
    assert found.mT.is_contiguous()
    torch.testing.assert_close(powers(spectrum), found.square())
