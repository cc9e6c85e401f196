"""The bytes of a checkpoint and the network in them.

A checkpoint is a safetensors file whose metadata holds the `ModelConfig` as JSON under
``"config"``. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import ModelConfig
from ..errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

    from ..network.masks import MaskNetwork


# Spleeter's five networks have 0.2 GB; nothing larger than this is read into memory.
MAX_BYTES = 2 * 10**9


def build_network(content: bytes, label: str) -> MaskNetwork:
    """Network from the bytes of a checkpoint.

    The network is built without memory first and filled only after all shapes of tensors
    were compared, so an absurd config costs nothing.

    Parameters
    ----------
    content
        A whole safetensors file.
    label
        Its name in messages.

    Raises
    ------
    WeightsError
        If it is not a unetsep checkpoint, its tensors do not fit its config, or a weight is NaN or
        infinite.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from ..network.build import build

    config = _config(content, label)
    try:
        tensors = load(content)
    except KeyError as error:
        raise WeightsError(f"{label} holds numbers of the unknown kind {error}") from error
    except SafetensorError as error:
        raise WeightsError(f"{label} is damaged or no safetensors file: {error}") from error
    with torch.device("meta"):
        network = build(config)
    expected = {name: _form(value) for name, value in network.state_dict().items()}
    forms = {name: _form(value) for name, value in tensors.items()}
    if expected != forms:
        wrong = sorted(name for name in expected | forms if expected.get(name) != forms.get(name))
        raise WeightsError(
            f"{label} does not fit its own config: {len(wrong)} tensors are missing, unknown or "
            f"of another shape or kind, the first is {wrong[0]!r} (expected "
            f"{expected.get(wrong[0])}, found {forms.get(wrong[0])})"
        )
    # One by one, so that the memory of each is free for the next.
    state = {name: _full(tensors.pop(name), name, label) for name in forms}
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def _form(tensor: Tensor) -> str:
    """Kind and shape, as in ``float (4, 2, 5, 5)``; floats of all widths are one kind."""
    kind = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    return f"{kind} {tuple(tensor.shape)}"


def _full(tensor: Tensor, name: str, label: str) -> Tensor:
    """A tensor for the network: floats in full precision, checked for NaN and infinity."""
    if not tensor.is_floating_point():
        return tensor
    full = tensor.float()
    # With numpy: 7 ms for the default model and its guide; torch takes several times as long.
    if not np.isfinite(full.numpy()).all():
        raise WeightsError(
            f"{label} is damaged, or its training failed: tensor {name!r} holds NaN or infinity"
        )
    if name.endswith("running_var") and (full < 0).any():
        raise WeightsError(f"{label} is damaged: tensor {name!r} holds variances below zero")
    if name.endswith("input_std") and (full <= 0).any():  # it divides
        raise WeightsError(f"{label} is damaged: tensor {name!r} holds deviations of zero or less")
    return full


def _config(content: bytes, label: str) -> ModelConfig:
    """The config in the file's metadata."""
    try:
        header, _ = _header(content)
        text = header["__metadata__"]["config"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"{label} is not a unetsep checkpoint: expected a safetensors file with a config "
            "in its metadata"
        ) from error
    try:
        return ModelConfig.from_dict(json.loads(text))
    except (ValueError, TypeError, RecursionError) as error:
        raise WeightsError(f"{label} cannot be used: {error}") from error


def _header(content: bytes) -> tuple[Any, int]:
    """The header of a safetensors file, 8 bytes of length and then JSON, and its end."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), end


def serialize(
    network: MaskNetwork,
    *,
    half: bool = True,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> bytes:
    """A network as the content of a checkpoint file.

    Parameters
    ----------
    network
        Any network.
    half
        Store weight matrices and convolutions in half precision. Vectors (BatchNorm, biases,
        input statistics) are fp32 in any case: running variances overflow fp16.
    notes
        Further metadata, which is not part of the model.

    Raises
    ------
    WeightsError
        If a weight is NaN or infinite, or becomes infinite in half precision.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, value in network.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16 if half and tensor.dim() >= 2 else torch.float32)
        if not tensor.isfinite().all():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise WeightsError(f"tensor {name!r} of the network holds NaN or infinity as {kind}")
        tensors[name] = tensor
    return _in_order(save(tensors, metadata={**notes, "config": network.config.to_json()}))


def _in_order(content: bytes) -> bytes:
    """A safetensors file with sorted metadata; safetensors writes it in random order."""
    header, end = _header(content)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // 8) * 8)  # tensors begin at multiples of 8
    return len(text).to_bytes(8, "little") + text + content[end:]
