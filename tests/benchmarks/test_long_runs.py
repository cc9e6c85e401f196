"""Many songs in one process: nothing grows, and no song hears of the one before."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.signals import RATE, music
from unetsep.files import FileOptions, separate_file
from unetsep.separator import Separator


def resident_bytes() -> int:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("measures memory in /proc")
    lines = status.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_files_leave_no_memory_threads_or_handles_behind(tiny_separator, song, tmp_path):
    sources = [
        song(f"{name}{i}.{name}", seconds=0.5, rate=rate)
        for i, (name, rate) in enumerate([("wav", 44_100), ("mp3", 48_000), ("flac", 22_050)])
    ]

    def run(container: str) -> None:
        for source in sources:
            targets = [tmp_path / "out" / f"{s}.{container}" for s in tiny_separator.stems]
            options = FileOptions(container=container, overwrite=True)
            separate_file(source, [tiny_separator], [targets], options)

    for container in ("wav", "flac", "mp3", "ogg"):
        run(container)
    gc.collect()  # what earlier tests left would close its handles meanwhile
    before = resident_bytes(), handles(), threading.active_count()
    for _ in range(3):
        for container in ("wav", "flac", "mp3", "ogg"):
            run(container)
    assert handles() == before[1]
    assert threading.active_count() == before[2]
    assert resident_bytes() - before[0] < 20e6
    assert not list(tmp_path.rglob(".unetsep-*"))


def test_separating_arrays_leaves_no_memory_behind(tiny_separator: Separator):
    mixture = music(1)
    for _ in range(10):
        tiny_separator.separate(mixture, RATE)
    before = resident_bytes()
    for _ in range(40):
        tiny_separator.separate(mixture, RATE)
    # The stems of one call are 1.4 MB: kept ones would be 56 MB.
    assert resident_bytes() - before < 20e6


def test_a_separator_remembers_no_earlier_song(tiny_separator: Separator, tiny_model):
    songs = [
        (music(s, rate, c, seed=i), rate)
        for i, (s, rate, c) in enumerate(
            [(1, 44_100, 2), (0.3, 48_000, 1), (1, 44_100, 2), (2, 8000, 2)]
        )
    ]
    together = [tiny_separator.separate(audio, rate) for audio, rate in songs]
    for (audio, rate), found in list(zip(songs, together, strict=True))[::-1]:
        alone = Separator(tiny_model, device="cpu", precision="fp32").separate(audio, rate)
        assert all(np.array_equal(found[stem], alone[stem]) for stem in alone)


def test_songs_at_the_same_time_do_not_mix(tiny_separator: Separator):
    first, second = music(2, seed=1), music(2, seed=2)
    expected = [tiny_separator.separate(audio, RATE) for audio in (first, second)]
    pieces = [
        [audio[:, at : at + 10_000] for at in range(0, 2 * RATE, 10_000)]
        for audio in (first, second)
    ]
    streams = [tiny_separator.stream(iter(blocks), RATE) for blocks in pieces]
    found: list[list[dict[str, np.ndarray]]] = [[], []]
    for pair in zip(*streams, strict=True):
        for parts, block in zip(found, pair, strict=True):
            parts.append(block)
    for parts, stems in zip(found, expected, strict=True):
        for name, stem in stems.items():
            whole = np.concatenate([part[name] for part in parts], axis=-1)
            np.testing.assert_allclose(whole, stem, atol=1e-6)
