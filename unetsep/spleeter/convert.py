"""Spleeter's checkpoints (Hennequin et al. 2020) as models of unetsep, without TensorFlow.

Deezer publishes them as ``2stems.tar.gz``, ``4stems.tar.gz`` and ``5stems.tar.gz`` with
release v1.4.0 of github.com/deezer/spleeter; its 16 kHz variants are the same weights run
on 1536 bins. Nothing in them is executed or extracted: tensors are read, compared with the
network's shapes and written as safetensors.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..config import MAX_FILTERS
from ..errors import WeightsError, check_choice
from ..network.presets import INSTRUMENTS, spleeter_config
from ..weights.checkpoint import serialize
from ..weights.manifest import (
    SUFFIX,
    Checkpoint,
    add_user_model,
    check_name,
    manifest,
    refuse_existing_model,
)
from .bundle_files import BundleFiles, read_bundle
from .tensor_bundle import Entry, read_index, read_tensor

if TYPE_CHECKING:
    from torch import Tensor

    from ..network.per_stem import PerStem

LEVELS = 6
# Layers of each kind in one instrument's network.
LAYERS = {"conv2d": LEVELS + 1, "conv2d_transpose": LEVELS, "batch_normalization": 2 * LEVELS}
BINS = {"11khz": 1024, "16khz": 1536}
# Names of this module's tensors and what TensorFlow calls them.
CONVOLUTION = {"weight": "kernel", "bias": "bias"}
NORM = {
    "weight": "gamma",
    "bias": "beta",
    "running_mean": "moving_mean",
    "running_var": "moving_variance",
}


def import_spleeter(
    source: str | Path,
    *,
    name: str | None = None,
    band: str = "11khz",
    stems: int | None = None,
    overwrite: bool = False,
) -> Checkpoint:
    """Add a checkpoint of Spleeter to the user's models.

    Parameters
    ----------
    source
        Folder, tar or zip archive with ``model.index`` and ``model.data-*``, anywhere inside.
    name
        Name of the model; by default ``spleeter-4stems`` and so on.
    band
        ``"11khz"`` or ``"16khz"``: what the network sees, as in Spleeter's configurations.
    stems
        Required number of stems; of several checkpoints the one in the folder ``2stems`` and so
        on is used. By default any.
    overwrite
        Replace a model of that name.

    Returns
    -------
    Checkpoint
        The entry that was added to the user's manifest.

    Raises
    ------
    WeightsError
        If the checkpoint is damaged, not Spleeter's or not trustworthy, or the name is in
        use; then nothing has been written.
    ValueError
        If ``band`` or ``name`` is invalid.
    """
    check_choice("band", band, BINS)
    path = Path(source)
    if name is not None:
        _check_name(name, overwrite)
    files = read_bundle(path, f"{stems}stems")
    network = build(files, BINS[band])
    names = network.config.stems
    if stems not in (None, len(names)):
        raise WeightsError(f"{source} holds Spleeter's {len(names)} stems: expected {stems} stems")
    if name is None:
        name = f"spleeter-{len(names)}stems" + ("" if band == "11khz" else f"-{band}")
        _check_name(name, overwrite)
    content = serialize(network, half=False)
    entry = Checkpoint(
        name=name,
        loss="spleeter",
        description=f"Spleeter's {len(names)} stems: {', '.join(names)}",
        file=name + SUFFIX,
        repo_id="",
        revision="",
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        config=json.loads(network.config.to_json()),
        licence="see its publisher",
        source={"kind": "spleeter", "from": path.name, "sha256": files.hashes()},
    )
    add_user_model(entry, content, overwrite=overwrite)
    return entry


def build(files: BundleFiles, bins: int = 1024) -> PerStem:
    """The network of a Spleeter checkpoint.

    Parameters
    ----------
    files
        Content of the checkpoint.
    bins
        Bins the network sees, 1024 or 1536.

    Raises
    ------
    WeightsError
        If a tensor is missing, damaged or of the wrong shape.
    """
    import torch

    from ..network.per_stem import PerStem

    _, entries = read_index(files.index)
    layers = _layers(entries)
    config = spleeter_config(len(layers), _filters(entries, layers[0]), bins)
    with torch.device("meta"):
        network = PerStem(config)
    state: dict[str, Tensor] = {}
    for target, expected in network.state_dict().items():
        if target.endswith("num_batches_tracked"):
            state[target] = torch.zeros((), dtype=torch.int64)
            continue
        variable = _variable(target, layers)
        if variable not in entries:
            raise WeightsError(f"the checkpoint is incomplete: {variable!r} is missing")
        shape, sizes = entries[variable].shape, tuple(expected.shape)
        # TensorFlow: height, width, in, out (transposed: out, in); torch in reverse order.
        expected_shape = (*sizes[2:], sizes[1], sizes[0]) if len(sizes) == 4 else sizes
        if shape != expected_shape:
            raise WeightsError(
                f"tensor {variable!r} of the checkpoint has shape {shape}, "
                f"Spleeter's network expects {expected_shape}"
            )
        value = read_tensor(variable, entries[variable], files.shards)
        tensor = torch.tensor(value, dtype=torch.float32)
        if tensor.dim() == 4:
            tensor = tensor.permute(3, 2, 0, 1).contiguous()
        if re.search(r"decoder\.[1-9]\.0\.weight", target):
            # Spleeter puts the skip before the decoder's channels, this network after them.
            tensor = torch.cat(list(reversed(tensor.chunk(2))))
        if not tensor.isfinite().all():
            raise WeightsError(f"tensor {variable!r} of the checkpoint holds NaN or infinity")
        if target.endswith("running_var") and (tensor < 0).any():
            raise WeightsError(f"tensor {variable!r} of the checkpoint holds variances below zero")
        state[target] = tensor
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _layers(entries: dict[str, Entry]) -> list[dict[str, list[str]]]:
    """Names of each instrument's layers by kind, in the order of their creation.

    Keras numbers the layers of a kind across the whole graph: ``conv2d``, ``conv2d_1``...
    """
    numbers: dict[str, set[int]] = {kind: set() for kind in LAYERS}
    for variable in entries:
        match = re.fullmatch(
            r"(conv2d|conv2d_transpose|batch_normalization)(?:_(\d{1,6}))?/\w+", variable
        )
        if match:
            numbers[match[1]].add(int(match[2] or 0))
    instruments = len(numbers["conv2d"]) // LAYERS["conv2d"]
    expected = {kind: instruments * count for kind, count in LAYERS.items()}
    if instruments not in INSTRUMENTS or expected != {k: len(n) for k, n in numbers.items()}:
        counts = ", ".join(f"{len(n)} {kind}" for kind, n in numbers.items())
        raise WeightsError(
            f"the checkpoint holds {counts} layers: expected Spleeter's U-Nets for 2, 4 or 5 stems"
        )
    ordered = {
        kind: [f"{kind}_{n}" if n else kind for n in sorted(layer_numbers)]
        for kind, layer_numbers in numbers.items()
    }
    return [
        {kind: ordered[kind][i * count : (i + 1) * count] for kind, count in LAYERS.items()}
        for i in range(instruments)
    ]


def _filters(entries: dict[str, Entry], layers: dict[str, list[str]]) -> list[int]:
    """Output channels of the encoder's levels."""
    filters = []
    for layer in layers["conv2d"][:LEVELS]:
        shape = entries[f"{layer}/kernel"].shape if f"{layer}/kernel" in entries else ()
        if len(shape) != 4 or not 0 < shape[3] <= MAX_FILTERS:
            raise WeightsError(
                f"tensor '{layer}/kernel' of the checkpoint is missing or has shape {shape}, "
                "Spleeter's network expects four axes"
            )
        filters.append(shape[3])
    return filters


def _variable(target: str, layers: list[dict[str, list[str]]]) -> str:
    """TensorFlow's name of a tensor, for example of ``members.1.encoder.0.0.weight``."""
    match = re.fullmatch(r"members\.(\d+)\.(encoder|decoder|head)\.?(\d*)\.?(\d*)\.(\w+)", target)
    assert match, target
    names, part, parameter = layers[int(match[1])], match[2], match[5]
    if part == "head":
        return f"{names['conv2d'][LEVELS]}/{CONVOLUTION[parameter]}"
    level = int(match[3])
    if match[4] == "0":
        kind = "conv2d" if part == "encoder" else "conv2d_transpose"
        return f"{names[kind][level]}/{CONVOLUTION[parameter]}"
    norm = level if part == "encoder" else LEVELS + level
    return f"{names['batch_normalization'][norm]}/{NORM[parameter]}"


def _check_name(name: str, overwrite: bool) -> None:
    check_name(name)
    if manifest().find(name):
        raise WeightsError(f"{name!r} is a model of unetsep: choose another --name")
    if not overwrite:
        refuse_existing_model(name)
