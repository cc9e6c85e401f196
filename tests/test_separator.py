from __future__ import annotations

import contextlib
import dataclasses
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.signals import RATE, music
from unetsep.config import ModelConfig
from unetsep.dsp import song_stream
from unetsep.dsp.song_stream import SongStream
from unetsep.dsp.transfer import StemBlock
from unetsep.errors import UnetsepError
from unetsep.network import devices
from unetsep.network.devices import choose_precision, usable_device
from unetsep.network.inference import InferenceNetwork
from unetsep.network.unet import UNet
from unetsep.separator import Separator

# Two levels of 4 filters: small enough for tests, and masks that vary everywhere.
SMALL = ModelConfig(filters=(4, 4), segment_frames=64)
SEGMENT = SMALL.segment_frames * SMALL.hop_length
STEMS = SMALL.stems


def small_network(config: ModelConfig = SMALL) -> UNet:
    torch.manual_seed(0)
    network = UNet(config).eval()
    with torch.no_grad():
        network.head.weight *= 10
    return network


@pytest.fixture(scope="module")
def separator() -> Separator:
    return Separator(small_network(), precision="fp32")


def decibels(error: np.ndarray, signal: np.ndarray) -> float:
    energy = float(np.square(signal, dtype=np.float64).sum())
    return float(10 * np.log10(np.square(error, dtype=np.float64).sum() / energy + 1e-30))


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_stems_sum_to_the_mixture_at_every_rate(separator: Separator, rate: int) -> None:
    mixture = music(3, rate)
    stems = separator.separate(mixture, rate)
    assert decibels(sum(stems.values()) - mixture, mixture) < -90


@pytest.mark.parametrize("extension", ["top", "zeros"])
@pytest.mark.parametrize("mask", ["softmax", "sigmoid"])
@pytest.mark.parametrize("rate", [22_050, 44_100, 96_000])
def test_the_last_stem_is_the_same_when_it_is_computed_by_itself(
    rate: int, mask: str, extension: str
) -> None:
    network = small_network(dataclasses.replace(SMALL, mask=mask))
    separator = Separator(network, precision="fp32", mask_extension=extension)
    mixture = music(3, rate)
    together = separator.separate(mixture, rate)
    alone = separator.separate(mixture, rate, stems=["other"])["other"]
    assert decibels(together["other"] - alone, alone) < -90
    rest = separator.separate(mixture, rate, two_stems="other")["no_other"]
    others = mixture - alone if extension == "top" else sum(together.values()) - alone
    assert decibels(rest - others, others) < -90


def test_masks_that_do_not_sum_to_one_give_the_last_stem_by_its_own_mask() -> None:
    network = small_network(dataclasses.replace(SMALL, mask="sigmoid", mask_exponent=0.0))
    separator = Separator(network, precision="fp32")
    mixture = music(SEGMENT / RATE)
    together = separator.separate(mixture, 44_100)
    alone = separator.separate(mixture, 44_100, stems=["other"])["other"]
    assert decibels(together["other"] - alone, alone) < -120
    assert decibels(sum(together.values()) - mixture, mixture) > -20


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 192_000])
@pytest.mark.parametrize(
    "samples", [1, 100, 1023, 1024, 4095, 4096, SEGMENT - 1, SEGMENT, SEGMENT + 1]
)
def test_output_is_as_long_as_the_input(separator: Separator, samples: int, rate: int) -> None:
    mixture = music(samples / RATE)
    stems = separator.separate(mixture, rate)
    assert {stem.shape for stem in stems.values()} == {mixture.shape}
    assert decibels(sum(stems.values()) - mixture, mixture) < -90


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_three_minutes_keep_their_length(separator: Separator, rate: int) -> None:
    second = music(rate / RATE, channels=1)
    stems = separator.stream((second for _ in range(180)), rate)
    assert sum(block["bass"].shape[-1] for block in stems) == 180 * rate


@pytest.mark.parametrize("rate", [16_000, 44_100, 96_000])
def test_an_impulse_stays_at_its_sample(separator: Separator, rate: int) -> None:
    mixture = np.zeros((2, rate), np.float32)
    mixture[:, rate // 3] = 1
    for stem in separator.separate(mixture, rate).values():
        assert int(np.abs(stem[0]).argmax()) == rate // 3


@pytest.mark.parametrize("gain", [0.1, 10.0])
def test_the_level_of_the_input_does_not_matter(separator: Separator, gain: float) -> None:
    mixture = music(100_000 / RATE)
    stems, scaled = separator.separate(mixture, 44_100), separator.separate(mixture * gain, 44_100)
    for name in STEMS:
        assert decibels(scaled[name] / gain - stems[name], stems[name]) < -60


@pytest.mark.parametrize("channels", [1, 2, 3, 6])
def test_stems_have_the_channels_of_the_input(separator: Separator, channels: int) -> None:
    mixture = music(50_000 / RATE, channels=channels)
    stems = separator.separate(mixture, 44_100)
    assert stems["bass"].shape == mixture.shape
    assert decibels(sum(stems.values()) - mixture, mixture) < -90


def test_several_threads_may_use_one_separator(separator: Separator) -> None:
    songs = [music(2 + index, channels=1 + index % 2, seed=index) for index in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda song: separator.separate(song, 44_100), songs))
    for song, stems in zip(songs, together, strict=True):
        alone = separator.separate(song, 44_100)
        assert all(np.array_equal(stems[name], alone[name]) for name in STEMS)


def test_one_dimensional_arrays_are_mono(separator: Separator) -> None:
    mixture = music(10_000 / RATE, channels=1)
    stems = separator.separate(mixture[0], 44_100)
    assert stems["drums"].shape == (10_000,)
    assert np.array_equal(stems["drums"], separator.separate(mixture, 44_100)["drums"][0])


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_silence_gives_silence(separator: Separator, rate: int) -> None:
    stems = separator.separate(np.zeros((2, 100_000), np.float32), rate)
    assert all((stem == 0).all() for stem in stems.values())


@pytest.mark.parametrize(
    "signal",
    [
        np.ones((2, 30_000)),
        np.sign(np.sin(np.arange(60_000).reshape(2, -1) / 50)),
        np.full((1, 30_000), 1e-40),
        np.random.default_rng(0).standard_normal((2, 30_000)) * 1e-6,
    ],
    ids=["DC", "full-scale square", "denormals", "-120 dB noise"],
)
def test_odd_signals_stay_finite_and_sum_up(separator: Separator, signal: np.ndarray) -> None:
    mixture = signal.astype(np.float32)
    stems = separator.separate(mixture, 44_100)
    total = sum(stems.values())
    assert np.isfinite(total).all()
    assert np.abs(total - mixture).max() <= max(1e-5 * np.abs(mixture).max(), 1e-38)


@pytest.mark.parametrize("block", [1000, 44_100, 10**6])
def test_a_stream_gives_the_same_samples_as_the_whole(separator: Separator, block: int) -> None:
    mixture = music(200_000 / RATE)
    pieces = (mixture[:, i : i + block] for i in range(0, 200_000, block))
    streamed = list(separator.stream(pieces, 48_000))
    whole = separator.separate(mixture, 48_000)
    for name in STEMS:
        stem = np.concatenate([part[name] for part in streamed], axis=-1)
        assert np.abs(stem - whole[name]).max() < 1e-5


@pytest.mark.parametrize("kind", ["array", "tensor"])
@pytest.mark.parametrize("rate", [44_100, 48_000])
@pytest.mark.parametrize("block", [4410, 44_100])
def test_blocks_of_a_stream_may_share_one_buffer(
    separator: Separator, kind: str, rate: int, block: int
) -> None:
    mixture = music(4)

    def blocks() -> Iterator[np.ndarray | torch.Tensor]:
        buffer = np.empty((2, block), np.float32)
        for at in range(0, mixture.shape[1], block):
            buffer[:] = mixture[:, at : at + block]
            yield buffer if kind == "array" else torch.from_numpy(buffer)
            buffer[:] = 0.9

    streamed = list(separator.stream(blocks(), rate))
    total = sum(np.concatenate([part[name] for part in streamed], axis=-1) for name in STEMS)
    assert np.abs(total - mixture).max() < 1e-5


def test_a_stream_delays_by_at_most_a_segment_and_a_block(separator: Separator) -> None:
    def blocks() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(30):
            taken += 44_100
            yield music(1)

    taken = given = 0
    for block in separator.stream(blocks(), 44_100):
        given += block["vocals"].shape[-1]
        # One segment, the frames around its last samples, and one block.
        assert taken - given <= SEGMENT + 4096 + 44_100
    assert given == taken


def test_an_empty_stream_gives_nothing(separator: Separator) -> None:
    assert list(separator.stream([], 44_100)) == []


def test_selected_stems_are_the_same_as_in_a_full_run(separator: Separator) -> None:
    mixture = music(80_000 / RATE)
    stems = separator.separate(mixture, 48_000)
    chosen = separator.separate(mixture, 48_000, stems=["drums", "vocals"])
    assert list(chosen) == ["drums", "vocals"]
    for name in chosen:
        assert np.abs(chosen[name] - stems[name]).max() < 1e-6


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_two_stems_are_one_and_the_rest(separator: Separator, rate: int) -> None:
    mixture = music(80_000 / RATE)
    stems = separator.separate(mixture, rate, two_stems="vocals")
    assert list(stems) == ["vocals", "no_vocals"]
    assert decibels(stems["vocals"] + stems["no_vocals"] - mixture, mixture) < -90
    whole = separator.separate(mixture, rate)
    assert decibels(stems["vocals"] - whole["vocals"], mixture) < -90


def test_mask_extension_zeros_drops_what_lies_above_the_network() -> None:
    narrow = dataclasses.replace(SMALL, bins=256)
    mixture = music(1)
    top = Separator(small_network(narrow), precision="fp32").separate(mixture, 44_100)
    cut = Separator(small_network(narrow), precision="fp32", mask_extension="zeros")
    zeros = cut.separate(mixture, 44_100)
    frequencies = np.fft.rfftfreq(44_100, 1 / 44_100)
    above = frequencies > 256 * 44_100 / 4096 + 100
    energy = {
        name: np.square(np.abs(np.fft.rfft(stems["drums"][0] * np.hanning(44_100)))[above]).sum()
        for name, stems in (("top", top), ("zeros", zeros))
    }
    assert energy["zeros"] < 1e-6 * energy["top"]


def test_sigmoid_networks_are_normalised_into_ratio_masks() -> None:
    network = small_network(dataclasses.replace(SMALL, mask="sigmoid"))
    mixture = music(50_000 / RATE)
    stems = Separator(network, precision="fp32").separate(mixture, 44_100)
    assert decibels(sum(stems.values()) - mixture, mixture) < -90


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_a_ratio_mask_of_one_stem_is_the_mixture(rate: int) -> None:
    one = dataclasses.replace(SMALL, stems=("vocals",), mask="sigmoid", mask_exponent=2.0)
    mixture = music(1, rate)
    stems = Separator(small_network(one), precision="fp32").separate(mixture, rate)
    assert decibels(stems["vocals"] - mixture, mixture) < -90


def test_masks_stay_fp32_when_the_network_is_bf16() -> None:
    separator = Separator(small_network(), precision="bf16")
    mixture = music(50_000 / RATE)
    assert separator.estimate(torch.rand(2, 1024, 64).cfloat()).dtype == torch.float32
    assert decibels(sum(separator.separate(mixture, 44_100).values()) - mixture, mixture) < -90


@pytest.mark.parametrize(
    "audio", [np.zeros((2, 0)), np.zeros(0), np.zeros((1, 2, 3)), np.float32(1)]
)
def test_arrays_without_samples_or_of_other_shapes_are_refused(
    separator: Separator, audio: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="channels, samples"):
        separator.separate(audio, 44_100)


def test_arrays_the_wrong_way_round_are_refused_with_advice(separator: Separator) -> None:
    frames_first = np.zeros((44_100, 2), np.float32)
    with pytest.raises(ValueError, match=r"44100 channels.*pass its transpose, audio\.T"):
        separator.separate(frames_first, 44_100)
    with pytest.raises(ValueError, match="44100 channels"):
        next(separator.stream([frames_first], 44_100))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_arrays_that_are_not_finite_are_refused(separator: Separator, bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinite"):
        separator.separate(np.array([[0, bad]]), 44_100)


@pytest.mark.parametrize("level", [2e12, -1e20])
def test_arrays_beyond_any_level_of_audio_are_refused(separator: Separator, level: float) -> None:
    message = r"audio holds samples beyond 1e\+12, the first at 0\.001 s"
    with pytest.raises(ValueError, match=message):
        separator.separate(np.array([[0] * 44 + [level]]), 44_100)
    with pytest.raises(ValueError, match=message):
        list(separator.stream([np.zeros(44), np.full(9, level)], 44_100))


GATED = dataclasses.replace(SMALL, gate_db=-20.0, wiener=1)


def test_the_model_says_whether_stems_are_gated_and_filtered() -> None:
    mixture = music(50_000 / RATE)
    as_model = Separator(small_network(GATED), precision="fp32")
    assert (as_model.gate_db, as_model.wiener) == (-20.0, 1)
    plain = Separator(small_network(GATED), precision="fp32", gate=False, wiener=0)
    assert (plain.gate_db, plain.wiener) == (None, 0)
    expected = Separator(small_network(), precision="fp32").separate(mixture, 44_100)
    for name, stem in plain.separate(mixture, 44_100).items():
        np.testing.assert_array_equal(stem, expected[name])
    stems = as_model.separate(mixture, 44_100)
    assert decibels(sum(stems.values()) - mixture, mixture) < -90
    for other in ({"gate": False}, {"wiener": 0}):
        changed = Separator(small_network(GATED), precision="fp32", **other)  # type: ignore[arg-type]
        assert any(
            np.abs(stem - stems[name]).max() > 1e-5
            for name, stem in changed.separate(mixture, 44_100).items()
        )


def test_channels_that_are_separated_alone_are_gated_alone() -> None:
    separator = Separator(small_network(GATED), precision="fp32", wiener=0)
    loud, quiet = music(3)[:, ::-1], 1e-3 * music(3)[:1]
    together = separator.separate(np.concatenate([loud, quiet]), 44_100)
    for name, stem in separator.separate(quiet, 44_100).items():
        assert decibels(together[name][2:] - stem, quiet) < -90


def test_settings_after_the_network_do_not_count_as_trained() -> None:
    assert GATED.as_trained == SMALL.as_trained


@pytest.mark.parametrize("config", [SMALL, GATED], ids=["plain", "gated and filtered"])
def test_the_loudest_arrays_have_stems_without_nan(config: ModelConfig) -> None:
    separator = Separator(small_network(config), precision="fp32")
    loudest = np.full((2, 100_000), 1e12, np.float32)
    assert all(np.isfinite(stem).all() for stem in separator.separate(loudest, 44_100).values())


def test_what_a_notebook_shows_of_a_separator_is_one_line() -> None:
    shown = repr(Separator("fast", device="cpu", precision="fp32"))
    assert shown == "Separator('fast', device='cpu', precision='fp32')"


def test_unknown_and_contradicting_stems_are_refused(separator: Separator) -> None:
    with pytest.raises(ValueError, match=r"no stem 'piano': expected vocals, drums, bass, other"):
        separator.select(["piano"])
    with pytest.raises(ValueError, match="use --without STEM, in Python two_stems"):
        separator.select(["no_vocals"])
    with pytest.raises(
        ValueError, match="choose one, or write the others with --stems vocals,other"
    ):
        separator.select(two_stems="drums, bass")
    with pytest.raises(ValueError, match=r"expected vocals, drums, bass, other$"):
        separator.select(two_stems=",".join(STEMS))
    with pytest.raises(ValueError, match="not both"):
        separator.select(["vocals"], "vocals")


@pytest.mark.parametrize(
    "options",
    [
        {"overlap": 0.6},
        {"overlap": -0.1},
        {"overlap": float("nan")},
        {"overlap": "0.25"},
        {"overlap": [0.2]},
        {"wiener": -1},
        {"wiener": 101},
        {"wiener": 1.5},
        {"wiener": "2"},
        {"device": None},
        {"precision": torch.bfloat16},
        {"precision": "fp8"},
        {"mask_extension": "x"},
        {"device": "tpu"},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Separator(small_network(), **options)  # type: ignore[arg-type]


def test_an_explicit_device_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UnetsepError, match="device cuda was asked for"):
        usable_device("cuda")


def test_a_model_is_used_on_the_gpu_that_it_was_loaded_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unetsep.separator.usable_device", lambda _: torch.device("cuda"))
    move = torch.nn.Module.to  # the device meta stands for the one of several that is chosen
    monkeypatch.setattr(InferenceNetwork, "to", lambda self, _: move(self, "meta"))
    assert Separator(small_network(), device="cuda").device == torch.device("meta")


def test_an_apple_gpu_works_for_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    separator = Separator(small_network(), device="cpu")
    spectrum = torch.zeros(2, 64, SMALL.bins, dtype=torch.complex64).mT
    held: list[bool] = []
    watch = separator._ensemble.networks[0].register_forward_pre_hook
    watch(lambda *_: held.append(devices._mps_lock.locked()))
    separator.estimate(spectrum)
    lock = devices.device_lock
    monkeypatch.setattr("unetsep.ensemble.device_lock", lambda _: lock(torch.device("mps")))
    separator.estimate(spectrum)
    assert held == [False, True]
    assert not devices._mps_lock.locked()


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, "fp32"),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, "fp32"),
        ({"neon": True, "bf16": True}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
        ({"sve_bf16": True}, "bf16"),
    ],
    ids=str,
)
def test_auto_precision_is_bf16_only_where_the_cpu_has_it(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == expected
    assert choose_precision("bf16", torch.device("cpu")) == "bf16"


def test_several_models_give_the_mean_of_their_masks() -> None:
    first, second = small_network(), small_network()
    with torch.no_grad():
        second.head.weight *= -1
    spectrum = torch.randn(2, SMALL.bins, 64, dtype=torch.complex64)
    masks = [Separator(net, precision="fp32").estimate(spectrum) for net in (first, second)]
    both = Separator([first, second], precision="fp32")
    torch.testing.assert_close(both.estimate(spectrum), (masks[0] + masks[1]) / 2)
    mixture = music(30_000 / RATE)
    stems = both.separate(mixture, 44_100)
    assert decibels(sum(stems.values()) - mixture, mixture) < -90


@pytest.mark.parametrize("change", [{"bins": 512}, {"filters": (4, 4, 4)}, {"stems": ("a", "b")}])
def test_models_of_different_signal_paths_cannot_be_averaged(change: dict[str, object]) -> None:
    other = UNet(dataclasses.replace(SMALL, **change))
    with pytest.raises(ValueError, match=r"cannot be averaged: their \w+ differ: .* and "):
        Separator([small_network(), other])


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_networks_take_any_number_of_channels(channels: int) -> None:
    separator = Separator(small_network())
    mixture = music(60_000 / RATE, channels=channels)
    stems = separator.separate(mixture, 44_100)
    assert decibels(sum(stems.values()) - mixture, mixture) < -90
    if channels == 2:  # both channels equal is what a mono song looks like
        twice = separator.separate(np.stack([mixture[0]] * 2), 44_100)
        mono = separator.separate(mixture[:1], 44_100)
        for stem in STEMS:
            np.testing.assert_allclose(twice[stem].mean(axis=0), mono[stem][0], atol=1e-5)


@pytest.mark.parametrize("kind", ["log", "linear"])
@pytest.mark.parametrize(
    ("softer", "shared", "singly"),
    [(-8.5, 1.0, False), (-9.5, 1.0, True), (0, 0.3, False), (0, 0.0, True), (-300, 1.0, True)],
)
def test_channels_with_little_in_common_are_separated_singly(
    kind: str, softer: float, shared: float, singly: bool
) -> None:
    network = small_network(dataclasses.replace(SMALL, input=kind))
    separator = Separator(network, precision="fp32")
    left, other = torch.randn(2, 1, SMALL.bins, 256, dtype=torch.complex64)
    right = 10 ** (softer / 20) * (shared * left + (1 - shared**2) ** 0.5 * other)
    masks = separator.estimate(torch.cat([left, right]))
    alone = torch.cat([separator.estimate(left), separator.estimate(right)], dim=1)
    # Spleeter's networks, which see linear magnitudes, compute what Spleeter does.
    assert torch.equal(masks, alone) == (singly and kind == "log")


def test_silent_channels_are_a_pair() -> None:
    separator = Separator(small_network(), precision="fp32")
    masks = separator.estimate(torch.zeros(2, SMALL.bins, 64, dtype=torch.complex64))
    assert masks.shape == (4, 2, SMALL.bins, 64)


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0, "must be 1000 to 1000000 Hz, got 0$"),
        (-44_100, "must be 1000 to 1000000 Hz, got -44100$"),
        (44, "got 44; 44 kHz are 44000$"),
        (44.1, r"must be a whole number of Hz, got 44\.1; 44\.1 kHz are 44100$"),
        (float("nan"), "must be a whole number of Hz, got nan$"),
        (2_000_000, "got 2000000$"),
        ("44100", "must be a whole number of Hz, got '44100'$"),
        (None, "must be a whole number of Hz, got None$"),
    ],
)
def test_impossible_rates_are_refused_with_a_message(
    separator: Separator, rate: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        separator.separate(np.zeros((2, 100), np.float32), rate)
    with pytest.raises(ValueError, match=message):
        next(separator.stream([np.zeros((2, 100), np.float32)], rate))


@pytest.mark.parametrize("rate", [44_100.0, np.int64(44_100), np.float32(44_100)])
def test_whole_rates_of_any_type_are_accepted(separator: Separator, rate: float) -> None:
    mixture = music(0.5)
    stems, expected = separator.separate(mixture, rate), separator.separate(mixture, 44_100)
    assert all(np.array_equal(stems[name], expected[name]) for name in STEMS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_tensors_of_any_type_are_accepted(separator: Separator, dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(music(0.5)).to(dtype).requires_grad_()
    stems = separator.separate(tensor, 44_100)
    expected = separator.separate(tensor.detach().float().numpy(), 44_100)
    assert all(np.array_equal(stems[name], expected[name]) for name in STEMS)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 9), complex), "must hold real numbers, got an array of complex128"),
        ([["a", "b"]], "must hold real numbers, got an array of <U1"),
        ("a.wav", r"got 'a.wav': for a file use unetsep.separate\(path, model=separator\)"),
        (Path("a.wav"), r"a.wav'\): for a file use unetsep.separate\(path, model=separator\)"),
        ([[0.0, 1.0], [0.0]], r"must be \(channels, samples\) or \(samples,\)"),
        (None, "must hold real numbers, got an array of object"),
        (torch.zeros(2, 9, device="meta"), "a tensor on the device meta, which has none"),
        (np.full((2, 9), 1e300), "NaN or infinite samples, the first at 0.000 s"),
    ],
)
def test_values_that_are_not_audio_are_refused_with_a_message(
    separator: Separator, audio: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        separator.separate(audio, 44_100)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        list(separator.stream([audio], 44_100))  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("dtype", "scale", "zero"),
    [("int16", 2**15, 0), ("int32", 2**31, 0), ("uint8", 2**7, 2**7), ("int8", 2**7, 0)],
)
def test_integers_are_scaled_by_their_full_scale(
    separator: Separator, dtype: str, scale: int, zero: int
) -> None:
    whole = np.array([[0, 1, -1, 100, -128, 127] * 20], np.int64) * (scale // 128)
    stems = separator.separate((whole + zero).astype(dtype), 44_100)
    expected = separator.separate(whole / scale, 44_100)
    assert all(np.array_equal(stems[name], expected[name]) for name in STEMS)
    tensor = torch.from_numpy((whole + zero).astype(dtype))
    assert np.array_equal(separator.separate(tensor, 44_100)["bass"], stems["bass"])


def test_one_stem_may_be_named_without_a_list(separator: Separator) -> None:
    assert list(separator.separate(music(0.1), 44_100, stems="vocals")) == ["vocals"]
    with pytest.raises(ValueError, match="no stem 'vocal': expected vocals, drums, bass, other"):
        separator.select("vocal")


# torch 2.15 says that it will make quantised tensors no longer: as long as it does, they come.
@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_sparse_and_quantized_tensors_are_accepted(separator: Separator) -> None:
    sparse = torch.tensor([[0.0, 0.5] * 50]).to_sparse()
    quantized = torch.quantize_per_tensor(sparse.to_dense(), 1 / 128, 0, torch.qint8)
    one, other = (separator.separate(each, 44_100) for each in (sparse, quantized))
    assert np.array_equal(one["vocals"], other["vocals"])


def test_lazily_negated_tensors_are_accepted(separator: Separator) -> None:
    mixture = torch.from_numpy(music(0.1))
    lazy = torch.complex(mixture, mixture).conj().imag
    assert lazy.is_neg()
    stems, expected = (separator.separate(each, 44_100) for each in (lazy, -mixture))
    assert all(np.array_equal(stems[name], expected[name]) for name in STEMS)


@pytest.mark.parametrize(
    "model", [None, 5, b"fast", {"fast": 1}, ["fast", None], torch.nn.Linear(2, 2)]
)
def test_values_that_are_not_models_are_refused_with_a_message(model: object) -> None:
    with pytest.raises(ValueError, match=r"must be a name, a path or a network, got \w+$"):
        Separator(model)  # type: ignore[arg-type]


def test_a_value_that_is_no_series_of_blocks_is_refused(separator: Separator) -> None:
    with pytest.raises(ValueError, match="blocks must be arrays that come one by one, got 5"):
        next(separator.stream(5, 44_100))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor])
@pytest.mark.parametrize("shape", [(2, 100), (100,)])
def test_a_whole_song_is_no_stream_of_its_channels(
    separator: Separator, form: Callable[..., Any], shape: tuple[int, ...]
) -> None:
    whole = form(np.zeros(shape, np.float32))
    with pytest.raises(ValueError, match=re.escape(f"got one array {shape}: put it into a list")):
        next(separator.stream(whole, 44_100))
    blocks = form(np.zeros((3, 2, 100), np.float32))
    parts = list(separator.stream(blocks, 44_100))
    assert sum(part["vocals"].shape[1] for part in parts) == 300


@pytest.mark.parametrize(
    ("blocks", "rate", "options", "message"),
    [
        (5, 44_100, {}, "blocks must be arrays that come one by one, got 5"),
        (np.zeros((2, 9)), 44_100, {}, "got one array"),
        ([], 44.1, {}, "sample_rate must be"),
        ([], 44_100, {"stems": ["piano"]}, "no stem 'piano'"),
        ([], 44_100, {"progress": 5}, "progress must be a function"),
    ],
)
def test_wrong_arguments_of_a_stream_are_refused_before_its_first_block(
    separator: Separator, blocks: Any, rate: float, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        separator.stream(blocks, rate, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 2), "sample_rate must be 1000 to 1000000 Hz, got 3"),
        ((44_100, 0), "channels must be a whole number from 1 to 64, got 0"),
        ((44_100, 65), "channels must be a whole number from 1 to 64, got 65"),
        ((44_100, 2, ["piano"]), "no stem 'piano'"),
        ((44_100, 2, 5), "stems must name some of"),
    ],
)
def test_impossible_songs_are_not_opened(
    separator: Separator, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        separator.open_song(*arguments)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_song_is_opened_with_names_of_stems(separator: Separator, passes: int) -> None:
    mixture, separator = music(2), separator.with_passes(passes)
    whole = separator.separate(mixture, RATE)
    for names in (["drums", "vocals"], "drums", None):
        song = separator.open_song(float(RATE), 2, names)
        stems = np.concatenate([song.push(mixture), song.finish()], axis=-1)
        expected = separator.select(names).names
        assert len(stems) == len(expected)
        for name, stem in zip(expected, stems, strict=True):
            np.testing.assert_allclose(stem, whole[name], atol=1e-5)


@pytest.mark.parametrize("passes", [1, 2])
def test_blocks_of_a_song_are_refused_if_they_are_not_finite_or_it_is_finished(
    separator: Separator, passes: int
) -> None:
    mixture, separator = music(2), separator.with_passes(passes)
    song = separator.open_song(RATE, 2)
    stems = [song.push(mixture)]
    bad = mixture.copy()
    bad[1, 22_050] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinite samples, the first at 2\.500 s"):
        song.push(bad)
    stems += [song.push(mixture), song.finish()]  # the refused block left no trace
    expected = separator.separate(np.concatenate([mixture, mixture], axis=1), RATE)
    np.testing.assert_allclose(
        np.concatenate(stems, axis=-1), np.stack(list(expected.values())), atol=1e-5
    )
    for call in (song.finish, lambda: song.push(mixture)):
        with pytest.raises(ValueError, match="the song is finished: open another with"):
            call()


@pytest.mark.parametrize(("overlap", "seconds"), [(None, 0.1), (0.0, 9), (0.5, 9)])
def test_a_wiener_filter_delays_a_stream_as_its_docstring_says(
    overlap: float | None, seconds: float
) -> None:
    config = ModelConfig(filters=(4,))  # segments as long as those of published models
    separator = Separator(small_network(config), precision="fp32", wiener=1, overlap=overlap)

    def blocks() -> Iterator[np.ndarray]:
        nonlocal taken
        for _ in range(80):
            taken += 22_050
            yield music(0.5)
            lags.append(taken - given)

    taken = given = 0
    lags: list[int] = []
    for block in separator.stream(blocks(), RATE):
        given += block["vocals"].shape[-1]
    segment = config.segment_frames * config.hop_length
    assert segment < max(lags) <= segment + 22_050 + seconds * RATE
    assert given == taken


def test_an_empty_list_of_models_is_refused_with_a_message() -> None:
    with pytest.raises(ValueError, match="expected a model or a list of models, got none"):
        Separator([])


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_block_of_a_stream_that_is_not_finite_is_refused_with_its_place(
    separator: Separator, bad: float
) -> None:
    blocks = [music(1) for _ in range(3)]
    blocks[2][1, 22_050] = bad
    with pytest.raises(ValueError, match=r"NaN or infinite samples, the first at 2\.500 s"):
        list(separator.stream(blocks, 44_100))
    with pytest.raises(ValueError, match=r"the first at 2\.500 s"):
        separator.separate(np.concatenate(blocks, axis=1), 44_100)


def test_a_stream_of_one_axis_gives_stems_of_one(separator: Separator) -> None:
    mixture = music(1, channels=1)[0]
    parts = list(separator.stream(np.split(mixture, 5), 44_100))
    whole = separator.separate(mixture, 44_100)
    for name in STEMS:
        stem = np.concatenate([part[name] for part in parts])
        assert stem.shape == mixture.shape
        np.testing.assert_allclose(stem, whole[name], atol=1e-5)


def test_blocks_of_a_stream_must_have_the_same_channels(separator: Separator) -> None:
    with pytest.raises(ValueError, match=r"expected blocks \(2, samples\), got \(1, 9\)"):
        list(separator.stream([music(1), np.zeros((1, 9))], 44_100))


@pytest.mark.parametrize("block", [128, 512, 22_050, 200_000])
def test_small_blocks_of_a_stream_take_no_more_steps_than_large_ones(
    separator: Separator, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Work is counted, not timed: how often the signal path is called."""
    pushed = []
    push_block = SongStream._push_block

    def counted(song: SongStream, part: np.ndarray, *, integers: bool) -> StemBlock:
        pushed.append(part.shape[1])
        return push_block(song, part, integers=integers)

    monkeypatch.setattr(SongStream, "_push_block", counted)
    mixture = music(200_000 / RATE)
    pieces = (mixture[:, at : at + block] for at in range(0, 200_000, block))
    parts = list(separator.stream(pieces, 44_100))
    assert sum(part["bass"].shape[1] for part in parts) == sum(pushed) == 200_000
    assert len(pushed) <= -(-200_000 // 22_050)
    assert max(pushed) <= separator.block_samples(44_100)


@pytest.mark.parametrize("padding", ["torch", "same"])
def test_loading_and_separating_do_not_change_the_random_state(padding: str) -> None:
    network = small_network(dataclasses.replace(SMALL, padding=padding))
    before = torch.random.get_rng_state()
    Separator(network).separate(music(0.5), 44_100)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_loading_and_separating_do_not_change_torchs_threads() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        separator = Separator(small_network(), precision="fp32")
        separator.separate(music(0.5), 44_100)
        fresh: list[int] = []
        thread = threading.Thread(target=lambda: fresh.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert [torch.get_num_threads(), *fresh] == [3, 3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("passes", [1, 2])
def test_a_caller_within_autocast_gets_the_same_stems_where_its_thread_computes(
    monkeypatch: pytest.MonkeyPatch, passes: int
) -> None:
    @contextlib.contextmanager
    def as_on_a_gpu(_: object) -> Iterator[Callable[[Callable[[], Any]], Any]]:
        yield lambda compute: compute()

    monkeypatch.setattr(song_stream, "_computing", as_on_a_gpu)
    network = small_network(dataclasses.replace(SMALL, bin_units=4))
    separator = Separator(network, device="cpu", precision="fp32", wiener=1, passes=passes)
    mixture = music(4)
    expected = separator.separate(mixture, RATE)
    with torch.autocast("cpu", torch.bfloat16):
        found = separator.separate(mixture, RATE)
        assert torch.is_autocast_enabled("cpu")
    for stem in STEMS:
        np.testing.assert_array_equal(found[stem], expected[stem])


@pytest.mark.filterwarnings("ignore:User provided device_type of 'cuda'")  # by older torch
def test_songs_on_a_gpu_are_computed_without_its_autocast(
    separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def noted(*_: object) -> torch.Tensor:
        seen.append(torch.is_autocast_enabled("cuda"))
        return torch.zeros(4, 2, 0)

    song = separator.open_song(RATE, 2, separator.select())
    song.device = torch.device("cuda")
    monkeypatch.setattr(song, "_process", noted)
    monkeypatch.setattr(song, "_process_rest", noted)
    torch.set_autocast_enabled("cuda", True)
    try:
        song.push(music(1))
        song.finish()
        assert torch.is_autocast_enabled("cuda")
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert seen == [False, False]
