"""The sound in scripts: to the sample, of every format."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.signals import RATE
from unetsep.listen import pieces
from unetsep.listen.pieces import colours, encode, fold, write_song
from unetsep.listen.songs import Song


def value(script: Path) -> Any:
    """What a script hands to the player."""
    text = script.read_text().removeprefix("unetsepData(").removesuffix(");\n")
    return json.loads(f"[{text}]")[1]


def sound(folder: Path, stem: int, model: int = 0) -> np.ndarray:
    """All pieces of a stem, joined, ``(samples, channels)``."""
    count = len(list((folder / str(model)).glob("*.js")))
    parts = []
    for number in range(count):
        text, scale = value(folder / str(model) / f"{number}.js")[stem]
        part, _ = soundfile.read(io.BytesIO(base64.b64decode(text)), always_2d=True)
        parts.append(part * scale)
    return np.concatenate(parts)


def noise(samples: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    wave = 0.2 * np.random.default_rng(seed).standard_normal((samples, channels))
    return np.round(np.clip(wave, -0.99, 0.99) * 32768) / 32768


@pytest.mark.parametrize(
    ("rate", "played"),
    [
        (2000, 8000),
        (65_535, 65_535),
        (65_537, 65_530),
        (88_201, 88_200),
        (192_000, 192_000),
        (768_000, 192_000),
    ],
)
def test_songs_of_rates_that_no_browser_plays_get_one_that_all_do(
    tmp_path: Path, rate: int, played: int
) -> None:
    wave = np.sin(2 * np.pi * 100 * np.arange(rate // 2) / rate) / 2
    soundfile.write(tmp_path / "a.wav", wave, rate)
    out = tmp_path / "out"
    out.mkdir()
    write_song(Song("s", {"": {"a": tmp_path / "a.wav"}}), out, "key")
    assert value(out / "song.js")["sampleRate"] == played
    expected = np.sin(2 * np.pi * 100 * np.arange(round(rate // 2 * played / rate)) / played) / 2
    found = sound(out, 0)[:, 0]
    assert len(found) == len(expected)
    middle = slice(len(expected) // 4, -len(expected) // 4)
    np.testing.assert_allclose(found[middle], expected[middle], atol=1e-3)


@pytest.mark.parametrize(
    ("suffix", "subtype"),
    [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", "PCM_16")],
)
def test_pieces_join_to_the_very_samples(
    tmp_path: Path, suffix: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 1)
    wave = noise(3 * RATE + 17)
    soundfile.write(tmp_path / f"a.{suffix}", wave, RATE, subtype=subtype)
    out = tmp_path / "out"
    out.mkdir()
    write_song(Song("s", {"": {"a": tmp_path / f"a.{suffix}"}}), out, "key")
    np.testing.assert_array_equal(sound(out, 0), wave)
    song = value(out / "song.js")
    assert (song["length"], song["piece"], song["sampleRate"]) == (3 * RATE + 17, RATE, RATE)


def test_stems_of_other_rates_lengths_and_channels_are_aligned(tmp_path: Path) -> None:
    time = np.arange(2 * RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], axis=1), RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "b.wav", tone[::2][: RATE // 2], RATE // 2, subtype="PCM_16")
    out = tmp_path / "out"
    out.mkdir()
    write_song(Song("s", {"": {n: tmp_path / f"{n}.wav" for n in "ab"}}), out, "key")
    long, short = sound(out, 0), sound(out, 1)
    assert long.shape == short.shape == (2 * RATE, 2)
    np.testing.assert_allclose(short[2000 : RATE - 2000], long[2000 : RATE - 2000], atol=1e-3)
    assert np.abs(short[RATE:]).max() == 0


@pytest.mark.parametrize("short", [100, 2 * RATE - 1, 2 * RATE, 3 * RATE + 16])
def test_models_that_end_earlier_are_padded_with_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: int
) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 1)
    long = noise(3 * RATE + 17)
    models = {"x": {"a": tmp_path / "x.wav"}, "y": {"a": tmp_path / "y.wav"}}
    soundfile.write(tmp_path / "x.wav", long[:short], RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "y.wav", long, RATE, subtype="PCM_16")
    out = tmp_path / "out"
    out.mkdir()
    write_song(Song("s", models), out, "key")
    song = value(out / "song.js")
    assert song["length"] == len(sound(out, 0, 1)) == len(long)
    numbers = [sorted(path.name for path in (out / model).glob("*.js")) for model in "01"]
    assert numbers[0] == numbers[1] == ["0.js", "1.js", "2.js", "3.js"]
    heard = sound(out, 0, 0)
    np.testing.assert_array_equal(heard[:short], long[:short])
    assert not heard[short:].any()
    # Waveforms and spectrograms of both are drawn as wide as the player.
    stems = [model["stems"][0] for model in song["models"]]
    peaks = [base64.b64decode(stem["peaks"]) for stem in stems]
    assert len(peaks[0]) == len(peaks[1])
    assert max(peaks[0]) == max(peaks[1]) == 255
    assert all((out / stem["picture"]).read_bytes().startswith(b"\x89PNG") for stem in stems)


def test_mp3_becomes_as_long_as_it_decodes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", 0.3 * noise(RATE), RATE)
    frames = len(soundfile.read(tmp_path / "a.mp3")[0])
    out = tmp_path / "out"
    out.mkdir()
    write_song(Song("s", {"": {"a": tmp_path / "a.mp3"}}), out, "key")
    assert value(out / "song.js")["length"] == len(sound(out, 0)) == frames


def test_samples_above_full_scale_keep_their_level() -> None:
    wave = np.array([[0.5, -3.0, 1.5]], np.float32)
    text, scale = encode(wave, RATE)
    decoded, _ = soundfile.read(io.BytesIO(base64.b64decode(text)))
    assert scale == 3.0
    np.testing.assert_allclose(scale * decoded, wave[0], atol=3 / 32768)


def test_many_channels_become_two() -> None:
    block = np.square(np.arange(12, dtype=np.float32)).reshape(4, 3)
    np.testing.assert_array_equal(fold(block, 2), [[18, 25, 34], [45, 58, 73]])
    np.testing.assert_array_equal(fold(block[:1], 2), block[[0, 0]])
    np.testing.assert_array_equal(fold(block[:2], 2), block[:2])


def test_pieces_of_high_rates_are_shorter_so_that_memory_stays_small(tmp_path: Path) -> None:
    models = {"": {str(i): tmp_path / f"{i}.wav" for i in range(4)}}
    for path in models[""].values():
        soundfile.write(path, np.zeros((1000, 2)), 192_000)
    out = tmp_path / "out"
    out.mkdir()
    write_song(Song("s", models), out, "key")
    assert value(out / "song.js")["piece"] * 4 * 2 * 4 <= pieces.PIECE_BYTES


def test_progress_ends_at_one_and_stems_have_colours_of_their_own(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(1000), RATE)
    out = tmp_path / "out"
    out.mkdir()
    shares: list[float] = []
    models = {"x": {"a": tmp_path / "a.wav"}, "y": {"a": tmp_path / "a.wav"}}
    write_song(Song("s", models), out, "key", shares.append)
    assert shares == [0.5, 1.0]
    made = colours(["vocals", "piano", "guitar", "drums"])
    assert len(set(made)) == 4
    assert colours(["Drums"]) == made[3:]
