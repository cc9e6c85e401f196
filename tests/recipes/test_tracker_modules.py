"""``recipes/tracker_modules.py``: instruments of a module, heard alone."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tracker_modules

from unetsep.train.data.song_folders import SongFolders

RATE = tracker_modules.RATE
LABELS = {"drums": [0], "bass": [1], "other": [2]}
# Frequencies of the three samples, played at Amiga period 428 (8287 Hz).
CYCLES = (4, 16, 64)


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    name = ctypes.util.find_library("openmpt")
    if name is None:
        pytest.skip("libopenmpt is not installed")
    return ctypes.CDLL(name)


def protracker_module() -> bytes:
    """Three looped square waves, each on a channel of its own, for 64 rows (7.7 s)."""
    length = 512
    waves = [
        b"".join((b"\x30" if (i * cycles // (length // 2)) % 2 else b"\xd0") for i in range(length))
        for cycles in CYCLES
    ]
    head = b"three instruments".ljust(20, b"\0")
    for _ in waves:
        words = (length // 2).to_bytes(2, "big")
        head += b"wave".ljust(22, b"\0") + words + b"\0\x40" + b"\0\0" + words
    head += bytes(30 * (31 - len(waves)))
    head += bytes([1, 127]) + bytes(128) + b"M.K."
    period = 428
    notes = b"".join(
        bytes([period >> 8, period & 255, (number + 1) << 4, 0]) for number in range(len(waves))
    )
    pattern = (notes + bytes(4)) + bytes(16 * 63)
    return head + pattern + b"".join(waves)


def test_each_stem_is_its_own_instrument_and_their_sum_the_module(library: ctypes.CDLL) -> None:
    stems, agreement = tracker_modules.stems_of(library, protracker_module(), LABELS, 2.0)
    assert agreement > 60
    for (stem, audio), cycles in zip(stems.items(), CYCLES, strict=True):
        assert audio.shape == (2 * RATE, 2)
        mono = audio[: RATE // 2].mean(axis=1)
        spectrum = np.abs(np.fft.rfft(mono * np.hanning(len(mono))))
        frequency = spectrum.argmax() * 2.0
        assert frequency == pytest.approx(8287 / 512 * cycles, abs=4), stem


def test_a_module_that_is_none_is_refused(library: ctypes.CDLL) -> None:
    with pytest.raises(ValueError, match="cannot read"):
        tracker_modules.Module(library, b"no module")


def test_a_song_keeps_balance_and_peak_and_says_that_nobody_sings(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stems = {
        stem: (gain * rng.normal(0, 0.3, (RATE, 2))).astype(np.float32)
        for stem, gain in zip(tracker_modules.STEMS, (1, 2, 3), strict=True)
    }
    tracker_modules.write_song(tmp_path / "train" / "noise", stems)
    written = {
        stem: soundfile.read(tmp_path / "train" / "noise" / f"{stem}.flac")[0] for stem in stems
    }
    whole = sum(written.values())
    assert np.abs(whole).max() == pytest.approx(tracker_modules.PEAK, rel=0.01)
    ratio = written["other"].std() / written["drums"].std()
    assert ratio == pytest.approx(3, rel=0.05)
    (source,) = SongFolders().find(tmp_path, ("vocals", *tracker_modules.STEMS))
    assert set(source.files) >= set(tracker_modules.STEMS)


def test_a_package_that_the_table_does_not_name_is_refused(
    library: ctypes.CDLL,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["tracker_modules.py", str(tmp_path / "songs"), "--packages", "pingus-data,pingu"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        tracker_modules.main()
    assert "unknown: pingu; there are" in capsys.readouterr().err
    assert not (tmp_path / "songs").exists()


def test_the_table_names_a_free_licence_and_disjoint_instruments_for_each_module() -> None:
    table = json.loads(tracker_modules.TABLE.read_text())
    assert len(table) == 58
    assert len({(row["package"], row["file"]) for row in table}) == 58
    for row in table:
        assert row["licence"].startswith(("GPL", "LGPL", "public domain"))
        numbers = [number for stem in tracker_modules.STEMS for number in row["stems"][stem]]
        assert len(numbers) == len(set(numbers))
        assert all(row["stems"][stem] for stem in tracker_modules.STEMS)
