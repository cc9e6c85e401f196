"""Checkpoints: the manifest of what is published, and loading with every check made.

A checkpoint is a safetensors file whose metadata holds the `ModelConfig` as JSON under
``"config"``. Nothing is ever unpickled; a file that the manifest names is compared with
the manifest's SHA-256 before anything in it is used.
"""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import ModelConfig
from .errors import WeightsError
from .folders import user_folder

if TYPE_CHECKING:
    from .unet import UNet

PACKAGE = Path(__file__).parent
BUNDLED = PACKAGE / "checkpoints"
# In an installed wheel the manifest lies inside the package, in a checkout beside it.
MANIFESTS = (PACKAGE / "weights_manifest.json", PACKAGE.parent / "weights_manifest.json")
SUFFIX = ".safetensors"
# Spleeter's five networks have 0.2 GB; nothing larger than this is read into memory.
MAX_BYTES = 2 * 10**9
# Same form, in the user's folder: models imported from elsewhere.
USER_MANIFEST = "models.json"


@dataclass(frozen=True)
class Checkpoint:
    """One published checkpoint, as `weights_manifest.json` describes it.

    Parameters
    ----------
    name, loss, description
        What to call it, the training loss, one sentence.
    file, repo_id, revision
        File name in the package and on the hub, and where on the hub it is.
    sha256, bytes
        Of the file.
    config
        Fields of its `ModelConfig`.
    training, scores
        Data and settings; SDR with its definition, data set and command.
    licence
        Licence of the weights (the code is MIT).
    source
        For a model that the user imported: what it was made from, with hashes.
    """

    name: str
    loss: str
    description: str
    file: str
    repo_id: str
    revision: str
    sha256: str
    bytes: int
    config: dict[str, Any]
    licence: str
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def bundled(self) -> bool:
        """Whether the file comes with the package."""
        return not self.source and (BUNDLED / self.file).is_file()

    @property
    def path(self) -> Path:
        """Where the file lies, if it is there: in the package, or in the user's folder."""
        return (user_folder() if self.source else BUNDLED) / self.file


@dataclass(frozen=True)
class Manifest:
    """What is published, in order, and which checkpoint is the default."""

    default: str
    checkpoints: dict[str, Checkpoint]


@functools.lru_cache(maxsize=1)
def manifest() -> Manifest:
    """The packaged manifest.

    Raises
    ------
    WeightsError
        If it is missing or cannot be understood: the installation is damaged.
    """
    for path in MANIFESTS:
        if path.is_file():
            return _parse_manifest(path, "install unetsep again")
    raise WeightsError(
        f"{MANIFESTS[0].name} is missing from this installation: install unetsep again"
    )


def all_models() -> Manifest:
    """The packaged manifest and, after it, the models that the user imported.

    Raises
    ------
    WeightsError
        If either cannot be understood.
    """
    path = user_folder() / USER_MANIFEST
    published = manifest()
    if not path.is_file():
        return published
    imported = _parse_manifest(path, "delete it and import its models again")
    return Manifest(published.default, published.checkpoints | imported.checkpoints)


def _parse_manifest(path: Path, cure: str) -> Manifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [Checkpoint(**entry) for entry in content["checkpoints"]]
        default = content["default"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error}): {cure}") from error
    for entry in entries:
        # File names are joined to folders, so they must not lead anywhere else.
        if Path(entry.file).name != entry.file or not entry.file.endswith(SUFFIX):
            raise WeightsError(f"{path}: {entry.name} names {entry.file!r}, not a plain file name")
    return Manifest(default, {entry.name: entry for entry in entries})


def list_models() -> list[Checkpoint]:
    """All published checkpoints, in the manifest's order, then those the user imported."""
    return list(all_models().checkpoints.values())


def load_network(model: str | Path) -> UNet:
    """The network of a published checkpoint, or of a safetensors file, ready to separate.

    Parameters
    ----------
    model
        A name from the manifest, ``"default"``, or the path of a ``.safetensors`` file.

    Returns
    -------
    UNet
        In evaluation mode, fp32, on the CPU.

    Raises
    ------
    WeightsError
        If there is no such model, or the file is damaged or not what it should be.
    """
    return build_network(*_locate(model))


def model_name(model: str | Path) -> str:
    """What to call a model in reports and folder names; the default by its real name."""
    if str(model) == "default":
        return manifest().default
    return Path(model).stem if is_path(model) else str(model)


def is_path(model: str | Path) -> bool:
    """Whether ``model`` means a file rather than a name of the manifest."""
    text = str(model)
    return isinstance(model, Path) or text.endswith(SUFFIX) or "/" in text or "\\" in text


def _locate(model: str | Path) -> tuple[bytes, str]:
    """Content of a checkpoint, already compared with the manifest, and what it is called."""
    if is_path(model):
        return _read(Path(model)), str(model)
    name = model_name(model)
    known = manifest().checkpoints
    if name not in known:
        known = all_models().checkpoints
    if name not in known:
        raise WeightsError(
            f"there is no model {name!r}: expected {', '.join(known)}, "
            f"or the path of a {SUFFIX} file"
        )
    entry = known[name]
    if not entry.source and not entry.bundled:
        from .hub import read

        return read(entry), name
    content = _read(entry.path)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        cure = "import it again" if entry.source else "install unetsep again"
        raise WeightsError(
            f"{entry.path} is damaged: its SHA-256 is {found[:12]}..., the manifest "
            f"says {entry.sha256[:12]}...; {cure}"
        )
    return content, name


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES and path.is_file():
            raise WeightsError(
                f"model file {path} has {size / 1e9:.1f} GB: expected a checkpoint of at most "
                f"{MAX_BYTES / 1e9:.0f} GB"
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise WeightsError(f"model file {path} does not exist") from error
    except OSError as error:
        raise WeightsError(f"model file {path} cannot be read: {error.strerror}") from error


def build_network(content: bytes, label: str) -> UNet:
    """Network from the bytes of a checkpoint.

    The network is laid out without memory first and filled only after every tensor's shape
    has been compared, so an absurd config costs nothing.

    Parameters
    ----------
    content
        A whole safetensors file.
    label
        What to call it in messages.

    Raises
    ------
    WeightsError
        If it is no unetsep checkpoint, or its tensors do not fit its config.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    from .unet import UNet

    config = _config(content, label)
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise WeightsError(f"{label} is damaged or no safetensors file: {error}") from error
    with torch.device("meta"):
        network = UNet(config)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    if expected != found:
        wrong = sorted(name for name in expected | found if expected.get(name) != found.get(name))
        raise WeightsError(
            f"{label} does not fit its own config: {len(wrong)} tensors are missing, unknown or "
            f"of another shape, the first is {wrong[0]!r} (expected {expected.get(wrong[0])}, "
            f"found {found.get(wrong[0])})"
        )
    network.load_state_dict(
        {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()},
        assign=True,
    )
    return network.eval().requires_grad_(False)


def _config(content: bytes, label: str) -> ModelConfig:
    """The config in the file's metadata: 8 bytes of length, then a header of JSON."""
    try:
        (length,) = struct.unpack_from("<Q", content)
        header = json.loads(content[8 : 8 + min(length, len(content))])
        text = header["__metadata__"]["config"]
    except (struct.error, ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"{label} is not a unetsep checkpoint: expected a safetensors file with a config "
            "in its metadata"
        ) from error
    try:
        return ModelConfig.from_dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{label} cannot be used: {error}") from error


def serialize(network: UNet, *, half: bool = True) -> bytes:
    """A network as the content of a checkpoint file.

    Parameters
    ----------
    network
        Any `UNet`.
    half
        Store weight matrices and convolutions in half precision. Vectors (BatchNorm, biases,
        input statistics) stay fp32: running variances overflow fp16.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, value in network.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if half and tensor.dim() >= 2:
            tensor = tensor.to(torch.float16)
        tensors[name] = tensor
    return bytes(save(tensors, metadata={"config": network.config.to_json()}))
