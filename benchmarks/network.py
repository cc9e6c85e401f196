"""The network alone, against the machine's matrix multiplication and a reference network.

    python benchmarks/network.py --json network.json

Measures masks of one segment of 512 frames (11.9 s), and products of square matrices in the same
precision, in turn; least times. Operations are counted by torch's flop counter in the networks as
they were trained. The products are those of torch (MKL in fp32, oneDNN in bf16) and, in
fp32, of numpy (OpenBLAS); the faster one counts. The reference is the same U-Net with the
levels of Jansson et al. (ISMIR 2017) and Spleeter, 16 to 512 filters.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import save, seconds
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from unetsep.config import ModelConfig
from unetsep.network.build import for_inference
from unetsep.network.devices import choose_precision, keep_freed_memory
from unetsep.network.guided import Guided
from unetsep.network.low_band import network_inputs
from unetsep.network.masks import MaskNetwork
from unetsep.network.unet import UNet
from unetsep.weights.load import load_network
from unetsep.weights.manifest import model_name

SIZE = 2048
FRAMES = 512
REFERENCE = ModelConfig(filters=(16, 32, 64, 128, 256, 512))
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def operations(network: MaskNetwork, inputs: tuple[torch.Tensor, ...]) -> int:
    """Operations for the masks of one segment."""
    if isinstance(network, Guided):  # whose guide computes in its faster form otherwise
        guide, states = network.guide_output(inputs[0])
        with FlopCounterMode(display=False) as counter:
            network.guide.logits(inputs[0])
            network.own_logits(*inputs, guide=guide, states=states)
    else:
        with FlopCounterMode(display=False) as counter:
            network(*inputs)
    return int(counter.get_total_flops())


def products(dtype: torch.dtype) -> list[Callable[[], object]]:
    """Products of two square matrices, one for each library."""
    square = torch.rand(SIZE, SIZE).to(dtype)
    calls = [functools.partial(torch.mm, square, square, out=torch.empty_like(square))]
    if dtype == torch.float32:
        array = square.numpy()
        calls.append(functools.partial(np.matmul, array, array, out=np.empty_like(array)))
    return calls


def segment(network: MaskNetwork) -> tuple[torch.Tensor, ...]:
    """Inputs of a network: noise of 512 frames."""
    shape = (1, network.config.channels, FRAMES, network.config.bins)
    return network_inputs(torch.randn(shape, dtype=torch.complex64).mT, network.config)


@torch.inference_mode()
def compare(
    networks: dict[str, MaskNetwork], precisions: Sequence[str], rounds: int
) -> list[dict[str, Any]]:
    """A row for each network and precision."""
    inputs = {name: segment(network) for name, network in networks.items()}
    counts = {name: operations(network, inputs[name]) for name, network in networks.items()}
    rows = []
    for precision in precisions:
        dtype = TYPES[precision]
        libraries = {f"product {at}": run for at, run in enumerate(products(dtype))}
        runs: dict[str, Callable[[], object]] = dict(libraries)
        for name, network in networks.items():
            runs[name] = functools.partial(for_inference(network, dtype), *inputs[name])
        least = {name: min(seconds(run), seconds(run)) for name, run in runs.items()}
        for _ in range(rounds):
            for name, run in runs.items():
                least[name] = min(least[name], seconds(run))
        ceiling = 2 * SIZE**3 / min(least[name] for name in libraries) / 1e9
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


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["default", "fast"])
    parser.add_argument("--precision", nargs="+", choices=list(TYPES), default=list(TYPES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    threadpool_limits(options.threads)  # of OpenBLAS
    keep_freed_memory()
    torch.manual_seed(0)
    networks = {model_name(each): load_network(each) for each in options.model}
    networks["16 to 512 filters"] = UNet(REFERENCE).eval()
    rows = compare(networks, options.precision, options.rounds)
    automatic = choose_precision("auto", torch.device("cpu"))
    print(f"{options.threads} threads; --precision auto computes in {automatic} here")
    for row in rows:
        print(
            "{network:17} {precision}  {gflop:6.2f} GFLOP  {seconds:7.4f} s  {gflops:6.1f} GFLOP/s"
            "  matrix product {matmul_gflops:6.1f}  {share:6.1%}".format(**row)
        )
    save(options.json, {"threads": options.threads, "auto": automatic, "rows": rows})


if __name__ == "__main__":
    main()
