"""fp32, fp16 and int8 in onnxruntime: SDR on MUSDB18's validation songs, and speed in pairs.

    python benchmarks/quality/onnx_variants.py MUSDB18-7 --model fast --json variants.json

int8 is static quantisation of convolutions to QDQ pairs, weights per channel, activations by the
range that they have on training songs. Every song is separated by all variants in turn, on one
thread. A variant's speed is the median over songs of the CPU time that the network takes in torch
over its own. SDR is that of BSS Eval v4: median of frames, median of songs.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnxruntime import quantization
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor

from unetsep.network.build import for_inference
from unetsep.network.low_band import network_inputs
from unetsep.train.evaluation.scoring import score
from unetsep.train.evaluation.tracks import find_tracks, read_track
from unetsep.weights.load import load_network
from unetsep.weights.model import Model
from unetsep.weights.onnx import export_onnx

CALIBRATION_SONGS = 12


class Masks(Model):
    """A model whose masks come from elsewhere; counts the CPU seconds that they take."""

    def __init__(self, model: str, session: onnxruntime.InferenceSession | None) -> None:
        network = load_network(model)
        super().__init__(network)
        self.session = session
        self.fast = for_inference(load_network(model))
        self.seconds: list[float] = []

    def masks_of_magnitudes(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        """Of onnxruntime, or of torch as it separates songs."""
        start = time.process_time()
        if self.session is None:
            self.fast(magnitude, fine)
        else:
            (masks,) = self.session.run(None, arrays(magnitude, fine))
        self.seconds.append(time.process_time() - start)
        if self.session is None:
            return super().masks_of_magnitudes(magnitude, fine)
        return torch.from_numpy(masks)

    def masks(self, spectrum: Tensor) -> Tensor:
        """Of stereo songs only."""
        return self.masks_of_magnitudes(*network_inputs(spectrum, self.config))


def arrays(magnitude: Tensor, fine: Tensor | None = None) -> dict[str, Any]:
    """What `network_inputs` gives, by the names of the graph's inputs."""
    inputs = {"magnitude": magnitude} | ({} if fine is None else {"fine": fine})
    return {name: each.numpy() for name, each in inputs.items()}


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc]
    """What the network is given of training songs."""

    def __init__(self, model: Model, root: Path) -> None:
        self.inputs = self._read(model, root)

    @staticmethod
    def _read(model: Model, root: Path) -> Iterator[dict[str, Any]]:
        for track in find_tracks(root, "train")[:CALIBRATION_SONGS]:
            mixture = torch.from_numpy(np.ascontiguousarray(read_track(track, 7.0).mixture))
            yield arrays(*network_inputs(model.spectrum(mixture[None]), model.config))

    def get_next(self) -> dict[str, Any] | None:
        """The next song's, or None."""
        return next(self.inputs, None)


def write_fp16(path: Path, target: Path) -> None:
    """The graph in half precision; magnitudes and masks stay in single precision."""
    graph = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    onnx.save(graph, target)


def write_int8(path: Path, target: Path, reader: Calibration) -> None:
    """The graph with its convolutions in int8."""
    graph_path = target.with_name("prepared.onnx")
    quantization.quant_pre_process(path, graph_path, skip_symbolic_shape=True)
    quantization.quantize_static(
        graph_path,
        target,
        reader,
        per_channel=True,
        op_types_to_quantize=["Conv", "ConvTranspose"],
    )


def session_of(path: Path) -> onnxruntime.InferenceSession:
    """On one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def measure(models: dict[str, Masks], root: Path) -> dict[str, dict[str, list[float]]]:
    """SDR of all songs by variant and stem."""
    sdr: dict[str, dict[str, list[float]]] = {name: {} for name in models}
    for track in find_tracks(root, "valid"):
        audio = read_track(track)
        waveform = torch.from_numpy(np.ascontiguousarray(audio.mixture))[None]
        for name, model in models.items():
            with torch.inference_mode():
                stems = dict(zip(model.stems, model(waveform)[0].numpy(), strict=True))
            scores = score(audio.references, stems, audio.sample_rate)
            for stem in track.stems:
                sdr[name].setdefault(stem, []).append(scores.median(stem))
        print(track.name, {name: round(m.seconds[-1], 3) for name, m in models.items()}, flush=True)
    return sdr


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", default="fast")
    parser.add_argument("--onnx", type=Path, help="existing export of the model")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = options.onnx or export_onnx(options.model, folder / "fp32.onnx")
        write_fp16(path, folder / "fp16.onnx")
        write_int8(
            path,
            folder / "int8.onnx",
            Calibration(Model.from_pretrained(options.model), options.root),
        )
        files = {"fp32": path, "fp16": folder / "fp16.onnx", "int8": folder / "int8.onnx"}
        sizes = {kind: file.stat().st_size / 1e6 for kind, file in files.items()}
        sessions = {kind: session_of(file) for kind, file in files.items()}
    models = {"torch": Masks(options.model, None)}
    models |= {kind: Masks(options.model, session) for kind, session in sessions.items()}
    sdr = measure(models, options.root)
    rows = {
        name: {
            "megabytes": sizes.get(name),
            "sdr": {stem: float(np.nanmedian(scores)) for stem, scores in sdr[name].items()},
            "by_song": sdr[name],
            "cpu_seconds": model.seconds,
            "times_as_fast_as_torch": float(
                np.median(np.array(models["torch"].seconds) / np.array(model.seconds))
            ),
        }
        for name, model in models.items()
    }
    for name, row in rows.items():
        print(name, {key: value for key, value in row.items() if key not in ("by_song",)})
    if options.json:
        content = round_all({"model": options.model, "variants": rows})
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(content) + "\n")


def round_all(value: Any) -> Any:
    """All numbers to four decimals."""
    if isinstance(value, dict):
        return {key: round_all(item) for key, item in value.items()}
    if isinstance(value, list):
        return [round_all(item) for item in value]
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
