"""``recipes/sampler.py``: recorded notes at other pitches, and parts played with them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import midi_pools
import numpy as np
import pytest
import sampler
import soundfile
from midi_parts import Note, Part

RATE = sampler.RATE
RECORDED, SECONDS = 40, 1.5


def frequency(pitch: float) -> float:
    return float(440 * 2 ** ((pitch - 69) / 12))


def loudest_frequency(audio: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 8 * len(audio)))
    return float(spectrum.argmax() * RATE / (8 * len(audio)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bass and a guitar: one sine each, of one pitch, twice as loud when played harder."""
    rate = 48_000
    time = np.arange(int(SECONDS * rate)) / rate
    tone = np.sin(2 * np.pi * frequency(RECORDED) * time)
    for name, stem in (("bass-sine", "bass"), ("guitar-sine", "other")):
        with soundfile.SoundFile(
            tmp_path / f"{name}.opus", "w", rate, 1, format="OGG", subtype="OPUS"
        ) as file:
            file.write(0.5 * np.concatenate([tone, tone]))
        notes = [[RECORDED, 50, 0, SECONDS, 0.5], [RECORDED, 100, SECONDS, SECONDS, 1.0]]
        about = {"stem": stem, "licence": "CC0", "origin": "here", "notes": notes}
        (tmp_path / f"{name}.json").write_text(json.dumps(about))
    return tmp_path


def note(pitch: int, start: float = 0.0, end: float = 1.0, program: int = 33) -> Note:
    return Note(start, end, 0, program, pitch, 100)


@pytest.mark.parametrize("pitch", [35, 40, 47])
def test_a_note_sounds_at_its_pitch_for_its_length(folder: Path, pitch: int) -> None:
    bass = sampler.sample_sets(folder)[0]
    sound = bass.note(note(pitch, end=0.8), np.random.default_rng(0))
    assert loudest_frequency(sound[: int(0.8 * RATE)]) == pytest.approx(frequency(pitch), rel=0.01)
    held, released = sound[: int(0.8 * RATE)], sound[int(0.9 * RATE) :]
    assert np.abs(released).max(initial=0) < 0.3 * np.abs(held).max()
    assert len(sound) <= 1.0 * RATE


def test_a_soft_note_is_the_soft_recording_and_softer(folder: Path) -> None:
    bass, rng = sampler.sample_sets(folder)[0], np.random.default_rng(0)
    loud, soft = (
        np.abs(bass.note(replace(note(40), velocity=v), rng)[:RATE]).max() for v in (100, 50)
    )
    assert soft == pytest.approx(loud / 2, rel=0.1)


def test_a_bass_plays_one_note_at_a_time_in_the_middle(folder: Path) -> None:
    low, high = note(40, 0, 2), note(47, 1, 2)
    audio = sampler.play(
        Part((low, high), ()), sampler.sample_sets(folder), np.random.default_rng(0)
    )
    np.testing.assert_array_equal(audio[:, 0], audio[:, 1])
    later = audio[int(1.3 * RATE) : int(1.9 * RATE), 0]
    assert loudest_frequency(later) == pytest.approx(frequency(47), rel=0.01)


def test_a_family_without_a_sample_set_is_silent(folder: Path) -> None:
    violin = note(60, program=40)
    audio = sampler.play(Part((violin,), ()), sampler.sample_sets(folder), np.random.default_rng(0))
    assert not audio.any()


def test_midi_pools_takes_sample_sets_instead_of_soundfonts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tuple(note(38 + i % 5, i / 2, i / 2 + 0.4) for i in range(60))
    midi = tmp_path / "midi" / "songs"
    midi.mkdir(parents=True)
    midi_pools.write(Part(line, ()), midi / "line.mid", random.Random(0))
    output = tmp_path / "pools"
    command = f"midi_pools {midi.parent} {output} --sampler {folder} --minutes 0.3 0 0"
    monkeypatch.setattr("sys.argv", command.split())
    midi_pools.main()
    (path,) = (output / "bass").glob("*.flac")
    audio, rate = soundfile.read(path)
    assert rate == RATE
    assert len(audio) > 12 * RATE
    assert 20 * np.log10(np.sqrt(np.mean(audio**2))) == pytest.approx(-20, abs=3)
    assert folder.name in (output / "sources.csv").read_text()
