"""Many songs in one process: nothing grows, and no song hears of the one before."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from tests.signals import RATE, music
from unetsep.file_options import FileOptions
from unetsep.files import separate_file
from unetsep.separator import Separator

T = TypeVar("T")
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="measures memory in /proc"
)


def resident_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def handles() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass(frozen=True)
class Growth:
    """What a process had more of at the end than in the middle."""

    memory: int
    handles: int
    threads: int


def grown(work: Callable[[], None], times: int) -> Growth:
    gc.collect()
    before = resident_bytes(), handles(), threading.active_count()
    for _ in range(times):
        work()
    return Growth(
        resident_bytes() - before[0],
        handles() - before[1],
        threading.active_count() - before[2],
    )


def alone(measure: Callable[..., T], *values: object) -> T:
    """Measured in a process of its own: what earlier tests left in memory comes and goes."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measure, *values).result()


def separate_files(model: Path, sources: list[Path], out: Path) -> Growth:
    separator = Separator(model, device="cpu", precision="fp32")

    def work() -> None:
        for container in ("wav", "flac", "mp3", "ogg"):
            for source in sources:
                targets = [out / f"{stem}.{container}" for stem in separator.stems]
                options = FileOptions(container=container, overwrite=True)
                separate_file(source, [separator], [targets], options)

    work()
    return grown(work, 3)


def separate_arrays(model: Path) -> int:
    """By how much the least memory of the last ten calls is above the most of the first ten.

    Threads come and go, and with them what the allocator keeps for them: one call tells little.
    """
    separator, mixture = Separator(model, device="cpu", precision="fp32"), music(1)
    levels = []
    for _ in range(50):
        separator.separate(mixture, RATE)
        levels.append(resident_bytes())
    return min(levels[-10:]) - max(levels[:10])


@needs_proc
def test_files_leave_no_memory_threads_or_handles_behind(tiny_model, song, tmp_path):
    sources = [
        song(f"{name}{i}.{name}", seconds=0.5, rate=rate)
        for i, (name, rate) in enumerate([("wav", 44_100), ("mp3", 48_000), ("flac", 22_050)])
    ]
    growth = alone(separate_files, tiny_model, sources, tmp_path / "out")
    assert (growth.handles, growth.threads) == (0, 0)
    assert growth.memory < 20e6
    assert not list(tmp_path.rglob(".unetsep-*"))


@needs_proc
def test_separating_arrays_leaves_no_memory_behind(tiny_model):
    # The stems of one call are 1.4 MB: those that were kept would be 43 MB.
    assert alone(separate_arrays, tiny_model) < 20e6


def test_a_separator_remembers_no_earlier_song(tiny_separator: Separator, tiny_model):
    songs = [
        (music(s, rate, c, seed=i), rate)
        for i, (s, rate, c) in enumerate(
            [(1, 44_100, 2), (0.3, 48_000, 1), (1, 44_100, 2), (2, 8000, 2)]
        )
    ]
    together = [tiny_separator.separate(audio, rate) for audio, rate in songs]
    for (audio, rate), found in list(zip(songs, together, strict=True))[::-1]:
        fresh = Separator(tiny_model, device="cpu", precision="fp32").separate(audio, rate)
        assert all(np.array_equal(found[stem], fresh[stem]) for stem in fresh)


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
