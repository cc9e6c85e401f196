"""Times real time on a GPU: one long song, several at a time, and what bounds it.

    python benchmarks/gpu.py --json gpu.json

One process with a loaded model separates wav files into four wav files each, in memory: files are
in /dev/shm if it exists. What could bound it is measured, too: the network alone, reading the song
alone, writing as many bytes to the same folder and to a disk. ``--device cpu`` runs the same
on a CPU, only to see that it works.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from record import RATE, save, seconds, synthesise

from unetsep.audio.reader import AudioReader
from unetsep.dsp.segments import MAX_WORKERS
from unetsep.file_options import FileOptions
from unetsep.files import separate_file
from unetsep.network.devices import keep_freed_memory
from unetsep.separator import Separator

# tf32 is fp32 with rounded factors in products: a setting of torch, not a type.
PRECISIONS = {"fp32": ("fp32", False), "tf32": ("fp32", True), "bf16": ("bf16", False)}
MEMORY = Path("/dev/shm")
# Four stems of two channels of 16 bits, for each second of the song.
BYTES = RATE * 4 * 2 * 2
LINE = (
    "{model:8} {precision}  network alone {network:6.0f} x real time, one song {long:6.0f}, "
    "{jobs} songs at a time {folder:6.0f}; network {network_share:4.0%} of the one song's time"
)


def synchronize(separator: Separator) -> None:
    """Wait for the device."""
    if separator.device.type == "cuda":
        torch.cuda.synchronize()


def network(separator: Separator, segments: int) -> float:
    """Seconds of audio whose masks the network gives in a second."""
    config = separator.config
    shape = (config.channels, config.segment_frames, config.bins)
    spectrum = torch.randn(shape, dtype=torch.complex64, device=separator.device).mT
    spectrum[1] += spectrum[0]  # a pair: channels with nothing in common are separated singly
    separator.estimate(spectrum)
    synchronize(separator)
    start = time.perf_counter()
    for _ in range(segments):
        separator.estimate(spectrum)
    synchronize(separator)
    duration = time.perf_counter() - start
    return segments * config.segment_frames * config.hop_length / config.sample_rate / duration


def separate(separator: Separator, sources: list[Path], jobs: int) -> float:
    """Seconds that files take, so many at a time, decoding and encoding included."""
    folder = sources[0].parent / "out"

    def one(source: Path) -> None:
        targets = [folder / source.stem / f"{stem}.wav" for stem in separator.stems]
        separate_file(source, [separator], [targets], FileOptions(bit_depth="16"))

    with ThreadPoolExecutor(jobs) as pool:
        duration = seconds(lambda: list(pool.map(one, sources)))
    shutil.rmtree(folder)
    return duration


def read(path: Path) -> None:
    """Decode a file."""
    with AudioReader(path) as reader:
        for _ in reader.blocks():
            pass


def write(folder: Path, block: bytes, size: int) -> None:
    """Write bytes as fast as a file takes them, until they are on the disk."""
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for at in range(0, size, len(block)):
            file.write(memoryview(block)[: size - at])
        os.fsync(file.fileno())


@contextmanager
def tf32_products(allow_tf32: bool) -> Iterator[None]:
    """Let products of floats be computed in tf32, or not."""
    settings = torch.backends.cuda.matmul, torch.backends.cudnn
    previous = [each.allow_tf32 for each in settings]
    for each in settings:
        each.allow_tf32 = allow_tf32
    yield
    for each, value in zip(settings, previous, strict=True):
        each.allow_tf32 = value


def measure(
    model: str, label: str, long: Path, short: list[Path], options: argparse.Namespace
) -> dict[str, Any]:
    """One row: a model in a precision."""
    precision, allow_tf32 = PRECISIONS[label]
    with tf32_products(allow_tf32):
        separator = Separator(model, device=options.device, precision=precision)
        network_rate = network(separator, options.segments)
        separate(separator, short[: options.jobs], options.jobs)  # work that happens only once
        song_rate = options.seconds / separate(separator, [long], 1)
        folder_rate = options.song_seconds * len(short) / separate(separator, short, options.jobs)
    return {
        "model": separator.name,
        "precision": label,
        "jobs": options.jobs,
        "network": network_rate,
        "long": song_rate,
        "folder": folder_rate,
        # Of the long song's time, were nothing overlapped.
        "network_share": song_rate / network_rate,
    }


def main() -> None:
    """Print a row for each model and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", nargs="+", default=["default", "fast"])
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=[*PRECISIONS])
    parser.add_argument("--seconds", type=float, default=1800.0, help="of the long song")
    parser.add_argument("--songs", type=int, default=20, help="of the usual length")
    parser.add_argument("--song-seconds", type=float, default=180.0)
    parser.add_argument("--jobs", type=int, default=MAX_WORKERS + 1, help="songs at a time")
    parser.add_argument("--segments", type=int, default=50)
    parser.add_argument(
        "--folder", type=Path, default=MEMORY if MEMORY.is_dir() else None, help="for the songs"
    )
    parser.add_argument("--disk", type=Path, help="folder on the disk to compare with")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        long = Path(name) / "long.wav"
        synthesise(long, options.seconds)
        short = [Path(name) / f"{index:02}.wav" for index in range(options.songs)]
        synthesise(short[0], options.song_seconds)
        for path in short[1:]:
            shutil.copy(short[0], path)
        size, block = round(BYTES * options.song_seconds), os.urandom(1 << 23)
        with tempfile.TemporaryDirectory(dir=options.disk) as disk:
            bounds = {
                "read": options.seconds / seconds(read, long),
                "write": options.song_seconds / seconds(write, Path(name), block, size),
                "write_disk": options.song_seconds / seconds(write, Path(disk), block, size),
            }
        print(
            "by one thread: reading {read:.0f} x real time, writing {write:.0f}, to the disk "
            "{write_disk:.0f}".format(**bounds),
            flush=True,
        )
        rows = []
        for model in options.model:
            for label in options.precision:
                rows.append(measure(model, label, long, short, options))
                print(LINE.format(**rows[-1]), flush=True)
    device_name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    save(options.json, {"device": device_name, "bounds": bounds, "rows": rows})


if __name__ == "__main__":
    main()
