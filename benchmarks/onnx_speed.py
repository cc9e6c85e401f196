"""onnxruntime against torch, one thread: starting cold, and the network alone, in pairs.

    python benchmarks/onnx_speed.py --model fast

Prints medians, and the median of the ratios of neighbouring runs: above 1 onnxruntime is faster.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from unetsep.network.build import for_inference
from unetsep.network.low_band import network_inputs
from unetsep.weights.load import load_network
from unetsep.weights.model import Model
from unetsep.weights.onnx import export_onnx

TORCH = "import unetsep; unetsep.Separator({model!r}, precision='fp32')"
ONNX = "import numpy, soundfile, onnxruntime; onnxruntime.InferenceSession({path!r})"


def seconds_of(code: str) -> float:
    """How long a fresh interpreter takes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


def report(title: str, pairs: list[tuple[float, float]]) -> None:
    """One line."""
    torch_times, onnx_times = np.array(pairs).T
    ratio = np.median(torch_times / onnx_times)
    print(
        f"{title}: torch {np.median(torch_times):.3f} s, "
        f"onnxruntime {np.median(onnx_times):.3f} s, ratio {ratio:.2f} ({len(pairs)} pairs)"
    )


def main() -> None:
    """Measure and print."""
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="fast")
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(export_onnx(options.model, Path(folder) / "net.onnx"))
        starts = [
            (seconds_of(TORCH.format(model=options.model)), seconds_of(ONNX.format(path=path)))
            for _ in range(options.pairs)
        ]
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    report("cold start", starts)
    network = for_inference(load_network(options.model))
    config = Model.from_pretrained(options.model).config
    shape = (1, config.channels, config.n_fft // 2 + 1, config.segment_frames)
    inputs = network_inputs(torch.randn(shape, dtype=torch.complex64), config)
    names = [each.name for each in session.get_inputs()]
    arrays = {name: each.numpy() for name, each in zip(names, inputs, strict=True)}
    times = []
    with torch.inference_mode():
        for _ in range(options.pairs + 1):
            start = time.perf_counter()
            network(*inputs)
            middle = time.perf_counter()
            session.run(None, arrays)
            times.append((middle - start, time.perf_counter() - middle))
    report(f"network, {config.segment_frames} frames", times[1:])


if __name__ == "__main__":
    main()
