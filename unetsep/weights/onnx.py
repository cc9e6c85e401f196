"""Networks as ONNX files: magnitudes in, masks out, for programs without torch.

The graph holds level, normalisation, network, guide and the ratio between masks. STFT, mask times
spectrum and inverse STFT stay outside; `examples/separate_onnx.py` does them in numpy.

- in ``magnitude``, float32, ``(batch, channels, bins, frames)``: absolute STFT in its bins
- in ``fine``, only of a network with a branch for low bins: see
  `unetsep.network.low_band.fine_magnitudes`
- out ``masks``, float32, ``(batch, stems, channels, bins, frames)``, from 0 to 1

Batch and frames are free; frames come in multiples of ``frame_multiple`` (64). The model's config
is in the metadata of the file under ``config``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import WeightsError
from ..network.low_band import fine_bins
from ..storage import write_atomically
from .model import Model

OPSET = 18


class _Masks(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, magnitude: Tensor, fine: Tensor | None = None) -> Tensor:
        return self.model.masks_of_magnitudes(magnitude, fine)


def export_onnx(model: str | Path | Model, path: str | Path) -> Path:
    """Write a model's network as an ONNX file of opset `OPSET`.

    Parameters
    ----------
    model
        Name or path of a checkpoint, or a `Model`.
    path
        File to write, or to replace.

    Raises
    ------
    WeightsError
        If the model cannot be loaded, or the file cannot be written.
    ValueError
        If the file's folder does not exist, or the path is that of a folder.
    ModuleNotFoundError
        Without the packages onnx and onnxscript, which ``unetsep[onnx]`` installs.

    Examples
    --------
    >>> export_onnx("fast", "fast.onnx")  # doctest: +SKIP
    PosixPath('fast.onnx')
    """
    target = Path(path)
    if not target.parent.is_dir():  # reported before the work, not after it
        raise ValueError(f"{target} cannot be written: there is no folder {target.parent}")
    if target.is_dir():
        raise ValueError(f"{target} cannot be written: it is a folder, name a file")
    if target.exists() and not target.is_file():  # also by a link, such as /dev/stdout
        raise ValueError(f"{target} cannot be written: it is a device or a pipe, name a file")
    import onnx

    module = model if isinstance(model, Model) else Model.from_pretrained(model)
    config = module.config
    unit = config.frame_multiple
    heights = {"magnitude": config.bins}
    if config.low_bins:
        heights["fine"] = fine_bins(config)
    examples = [torch.ones(2, config.channels, bins, 2 * unit) for bins in heights.values()]
    shapes: Any = {0: torch.export.Dim("batch"), 3: unit * torch.export.Dim("units")}
    with _quiet(), _evaluating(module):
        program = torch.onnx.export(
            _Masks(module).eval(),
            tuple(examples),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(heights),
            output_names=["masks"],
            dynamic_shapes=dict.fromkeys(heights, shapes),
            # The optimiser treats the tiny number that keeps ratios of silence finite as zero.
            optimize=False,
            verbose=False,
        )
    assert program is not None
    proto = program.model_proto
    for key, value in {
        "config": config.to_json(),
        "stems": ",".join(config.stems),
        "sample_rate": str(config.sample_rate),
    }.items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(proto)
    try:
        write_atomically(target, proto.SerializeToString())
    except OSError as error:  # it names the temporary file, which was removed
        raise WeightsError(f"{target} cannot be written: {error.strerror}") from error
    return target


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    """Restore the training mode of a model's parts after the block."""
    modes = [(part, part.training) for part in model.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress messages and warnings of the exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
