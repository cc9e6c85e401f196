"""Times real time on a GPU, by precision, for one long song and for a folder; what bounds it.

    python benchmarks/gpu.py --json gpu.json --png gpu.png

One process with a loaded model: first the network alone, then whole songs with decoding and
encoding. ``--device cpu`` runs the same on a CPU, only to see that it works.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from record import save, synthesise

from unetsep.files import FileOptions, separate_file
from unetsep.separator import Separator

# tf32 is fp32 with shortened factors in products: a setting of torch, not a type.
PRECISIONS = {"fp32": ("fp32", False), "tf32": ("fp32", True), "bf16": ("bf16", False)}


def synchronize(separator: Separator) -> None:
    """Wait for the device."""
    if separator.device.type == "cuda":
        torch.cuda.synchronize()


def network(separator: Separator, segments: int) -> float:
    """Seconds of audio whose masks the network gives in a second."""
    config = separator.config
    shape = (config.channels, config.segment_frames, config.bins)
    spectrum = torch.randn(shape, dtype=torch.complex64, device=separator.device).mT
    separator.estimate(spectrum)
    synchronize(separator)
    begun = time.perf_counter()
    for _ in range(segments):
        separator.estimate(spectrum)
    synchronize(separator)
    elapsed = time.perf_counter() - begun
    return segments * config.segment_frames * config.hop_length / config.sample_rate / elapsed


def songs(separator: Separator, sources: list[Path], folder: Path) -> float:
    """Seconds that files take, decoding and encoding included."""
    begun = time.perf_counter()
    for source in sources:
        targets = [folder / source.stem / f"{stem}.wav" for stem in separator.stems]
        separate_file(source, [separator], [targets], FileOptions(overwrite=True))
    return time.perf_counter() - begun


def main() -> None:
    """Print a row for each precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="default")
    parser.add_argument("--seconds", type=float, default=1800.0, help="of the long song")
    parser.add_argument("--songs", type=int, default=20, help="in the folder")
    parser.add_argument("--song-seconds", type=float, default=180.0)
    parser.add_argument("--segments", type=int, default=50)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        synthesise(folder / "long.wav", options.seconds)
        short = [folder / f"{index:02}.wav" for index in range(options.songs)]
        for path in short:
            synthesise(path, options.song_seconds)
        for label, (precision, shortened) in PRECISIONS.items():
            torch.backends.cuda.matmul.allow_tf32 = shortened
            torch.backends.cudnn.allow_tf32 = shortened
            separator = Separator(options.model, device=options.device, precision=precision)
            alone = network(separator, options.segments)
            songs(separator, short[:1], folder)  # what happens only once
            long = songs(separator, [folder / "long.wav"], folder)
            many = songs(separator, short, folder)
            rows.append(
                {
                    "precision": label,
                    "network": alone,
                    "long": options.seconds / long,
                    "folder": options.songs * options.song_seconds / many,
                    # Of the long song's time, were nothing overlapped.
                    "network_share": options.seconds / alone / long,
                }
            )
            print(
                "{precision}  network alone {network:7.0f} x real time, one song {long:6.0f}, "
                "folder {folder:6.0f}; network {network_share:4.0%} of the song's time".format(
                    **rows[-1]
                ),
                flush=True,
            )
    where = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    save(options.json, {"device": where, "rows": rows})
    if options.png:
        picture(options.png, rows)


def picture(path: Path, rows: list[dict[str, Any]]) -> None:
    """Bars of times real time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="tight")
    axes = figure.subplots(1, 3)
    for axis, key in zip(axes, ("network", "long", "folder"), strict=True):
        bars = axis.bar([row["precision"] for row in rows], [row[key] for row in rows])
        axis.bar_label(bars, fmt="%.0f")
        axis.set_title(key)
    axes[0].set_ylabel("times real time")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
