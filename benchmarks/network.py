"""The network alone, against the machine's matrix multiplication and a reference network.

    python benchmarks/network.py --json network.json --png network.png

Masks of one segment of 512 frames (11.9 s), operations counted by torch's flop counter in
the network as it was trained, and products of square matrices in the same precision, in
turn; least times. The reference is the same U-Net with the levels of Jansson et al. (ISMIR
2017) and Spleeter, 16 to 512 filters.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from record import save
from torch.utils.flop_counter import FlopCounterMode

from unetsep.config import ModelConfig
from unetsep.network.build import for_inference
from unetsep.network.devices import choose_precision, keep_freed_memory
from unetsep.network.masks import MaskNetwork
from unetsep.network.unet import UNet
from unetsep.weights.load import load_network
from unetsep.weights.manifest import model_name

SIZE = 2048
FRAMES = 512
REFERENCE = ModelConfig(filters=(16, 32, 64, 128, 256, 512))
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def clock(run: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def operations(network: MaskNetwork, magnitude: torch.Tensor) -> int:
    """Operations for the masks of one segment."""
    with FlopCounterMode(display=False) as counter:
        network(magnitude)
    return int(counter.get_total_flops())


@torch.inference_mode()
def compare(networks: dict[str, MaskNetwork], rounds: int) -> list[dict[str, Any]]:
    """A row for each network and precision."""
    inputs = {
        name: torch.rand(1, network.config.channels, FRAMES, network.config.bins).mT
        for name, network in networks.items()
    }
    counts = {name: operations(network, inputs[name]) for name, network in networks.items()}
    rows = []
    for precision, dtype in TYPES.items():
        square = torch.rand(SIZE, SIZE).to(dtype)
        product = functools.partial(torch.mm, square, square, out=torch.empty_like(square))
        runs: dict[str, Callable[[], object]] = {"": product}
        for name, network in networks.items():
            runs[name] = functools.partial(for_inference(network, dtype), inputs[name])
        least = {name: min(clock(run), clock(run)) for name, run in runs.items()}
        for _ in range(rounds):
            for name, run in runs.items():
                least[name] = min(least[name], clock(run))
        ceiling = 2 * SIZE**3 / least[""] / 1e9
        for name in networks:
            rate = counts[name] / least[name] / 1e9
            rows.append(
                {
                    "network": name,
                    "precision": precision,
                    "gflop": counts[name] / 1e9,
                    "seconds": least[name],
                    "gflops": rate,
                    "matmul_gflops": ceiling,
                    "share": rate / ceiling,
                }
            )
    return rows


def picture(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rates of the networks and of the matrix product."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="tight")
    left, right = figure.subplots(1, 2)
    names = [f"{row['network']}\n{row['precision']}" for row in rows]
    bars = left.bar(names, [1000 * row["seconds"] for row in rows])
    left.bar_label(bars, fmt="%.0f")
    left.set_ylabel("ms for 512 frames (11.9 s)")
    bars = right.bar(names, [100 * row["share"] for row in rows])
    right.bar_label(bars, fmt="%.0f")
    right.set_ylabel("% of the matrix product's rate")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    model = load_network(options.model)
    name = model_name(options.model)
    reference = UNet(REFERENCE).eval()
    rows = compare({name: model, "reference": reference}, options.rounds)
    automatic = choose_precision("auto", torch.device("cpu"))
    print(f"{options.threads} threads; --precision auto computes in {automatic} here")
    for row in rows:
        print(
            "{network:10} {precision}  {gflop:6.2f} GFLOP  {seconds:7.4f} s  {gflops:6.1f} GFLOP/s"
            "  matrix product {matmul_gflops:6.1f}  {share:6.1%}".format(**row)
        )
    save(options.json, {"threads": options.threads, "auto": automatic, "rows": rows})
    if options.png:
        picture(options.png, rows)


if __name__ == "__main__":
    main()
