"""Users' own losses: how to import them, and a test kit.

A loss takes three real arrays ``(..., bins, frames)`` and returns a scalar, see
`unetsep.train.losses.functions`. It is named on the command line, ``--loss package.losses:mine`` or
``--loss file.py:mine``, or by a package with the entry point ``mine`` in the group
``unetsep.losses``. The object may also be a `LossEntry`, for a loss that needs further arrays.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import logging
import re
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...config import ModelConfig
from ...storage import file_sha256
from ..config import TrainConfig, TrainingError
from .blocks import BLOCK_FRAMES
from .functions import LOSSES, LossEntry, build_loss

logger = logging.getLogger(__name__)

GROUP = "unetsep.losses"
# Largest loss of an exact estimate, relative to that of a silent one: smoothed roots are not zero.
ZERO = 1e-3
SHAPE = (2, 3, 2, 64, 8)  # (batch, stems, channels, bins, frames)


@dataclasses.dataclass(frozen=True)
class _Added:
    """A loss that `add_loss` has added, with its file, its name there, and its origin."""

    entry: LossEntry
    path: Path
    attribute: str
    origin: dict[str, str]


_ADDED: dict[str, _Added] = {}


def _added(name: str) -> _Added | None:
    """How the loss of this name was added; None for others."""
    added = _ADDED.get(name)
    return added if added is not None and added.entry is LOSSES.get(name) else None


def _origin(name: str) -> dict[str, str] | None:
    added = _added(name)
    return None if added is None else dict(added.origin)


def published_losses() -> dict[str, EntryPoint]:
    """Entry points of installed packages by name."""
    return {point.name: point for point in entry_points(group=GROUP)}


def add_loss(text: str) -> tuple[str, dict[str, str] | None]:
    """Add a loss named by a command to `LOSSES`; one of the same origin is replaced.

    Parameters
    ----------
    text
        A key of `LOSSES`, the name of an entry point, ``module:name`` or ``file.py:name``.

    Returns
    -------
    str
        The key in `LOSSES`: what follows the colon.
    dict or None
        Its origin and the SHA-256 of that file, for the run's config; None for a loss of
        unetsep.

    Raises
    ------
    TrainingError
        If it cannot be imported, or another loss has its name.
    ValueError
        If there is no such loss, or it fails `check`.
    """
    points = published_losses()
    without_drive = re.sub(r"^[A-Za-z]:(?=[\\/])", "", text)  # C:\x.py alone names no loss
    if ":" not in without_drive and (text in LOSSES or text not in points):
        if text not in LOSSES:
            names = ", ".join((*LOSSES, *points))
            raise ValueError(
                f"there is no loss {text!r}: expected {names}, or one of your own, module:name or "
                "file.py:name"
            )
        return text, _origin(text)
    reference = points[text].value if text in points else text
    source, _, attribute = reference.rpartition(":")
    value, path = _load(source, attribute, text)
    name = text if text in points else attribute
    if not name.isidentifier():
        raise ValueError(f"the loss {name!r} needs a name of letters, digits and underscores")
    summary = (inspect.getdoc(value) or "").partition("\n")[0]
    entry = value if isinstance(value, LossEntry) else LossEntry(value, summary)
    existing = LOSSES.get(name)
    added = _added(name)
    is_same = added is not None and (added.path, added.attribute) == (path, attribute)
    if existing is not None and not is_same:
        raise TrainingError(f"there is a loss {name!r} already: rename the one of {source}")
    LOSSES[name] = entry
    try:
        check(name)
    except BaseException as error:
        del LOSSES[name]
        if existing is not None:
            LOSSES[name] = existing
        if isinstance(error, ValueError) or not isinstance(error, Exception):
            raise
        # Users' code may raise anything: for the number of arguments, a shape, a name.
        raise TrainingError(f"--loss {text} fails: {_error_line(error)}") from error
    place = str(path) if source.endswith(".py") else source
    origin = {"from": f"{place}:{attribute}", "sha256": file_sha256(path)}
    _ADDED[name] = _Added(entry, path, attribute, origin)
    return name, dict(origin)


def _load(source: str, name: str, text: str) -> tuple[Any, Path]:
    """The named object, and the file that defines it."""
    try:
        module = _module(source)
        path = Path(inspect.getfile(module))
    except FileNotFoundError as error:
        raise TrainingError(f"--loss {text}: there is no file {source}") from error
    except (ImportError, AttributeError, TypeError, SyntaxError) as error:
        raise TrainingError(f"--loss {text} cannot be imported: {error}") from error
    except Exception as error:  # users' code may raise anything
        raise TrainingError(f"--loss {text} cannot be imported: {_error_line(error)}") from error
    if not hasattr(module, name):
        raise TrainingError(f"--loss {text} cannot be imported: {source} has no attribute {name!r}")
    value = getattr(module, name)
    if not callable(value) and not isinstance(value, LossEntry):
        raise TrainingError(f"--loss {text} is {value!r}: expected a function of three arrays")
    return value, path.resolve()


def _error_line(error: Exception) -> str:
    """The type of an error, and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")


def _module(source: str) -> Any:
    if not source.endswith(".py"):
        # As with `python -m`, modules in the current folder can be imported.
        folder = str(Path.cwd())
        if folder not in sys.path:
            sys.path.insert(0, folder)
        return importlib.import_module(source)
    path = Path(source).resolve()
    if not path.is_file():
        raise FileNotFoundError(source)
    unique = hashlib.sha256(str(path).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"unetsep_own_loss_{unique}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def add_losses(sources: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The losses of a resumed run, with the current hashes of their files.

    Parameters
    ----------
    sources
        `TrainConfig.own_losses`.
    """
    losses, points = {}, published_losses()
    for name, source in sources.items():
        is_published = name in points and points[name].value == source["from"]
        is_named = is_published or ":" not in source["from"]
        key, current = add_loss(name if is_named else source["from"])
        losses[key] = current or dict(source)
    return losses


def with_own_losses(config: TrainConfig) -> TrainConfig:
    """A config whose losses are keys of `LOSSES`: users' own are added, as by the command.

    Parameters
    ----------
    config
        Its losses may be named in any way that `add_loss` takes. Errors are those of `add_loss`.
    """
    others = {name: each for name, each in config.own_losses.items() if _origin(name) != each}
    sources = add_losses(others)
    losses = {}
    for text in config.losses:
        name, source = (text, sources[text]) if text in sources else add_loss(text)
        losses[name] = source
    own_losses = {name: source for name, source in losses.items() if source is not None}
    return dataclasses.replace(config, losses=tuple(losses), own_losses=own_losses)


def check(
    loss: str | Callable[[Tensor, Tensor, Tensor], Tensor], config: ModelConfig | None = None
) -> None:
    """Test the properties of a loss that training relies on.

    It is a scalar for any leading axes; finite, with a finite gradient, at the target and in
    silence; lower at the target than for silence and for noise; and its gradient agrees with
    finite differences.

    Training does without two others, of which a warning is logged: that it is zero at the target,
    and the mean of its values for blocks of frames and for clips.

    Parameters
    ----------
    loss
        A key of `LOSSES`, or a function of estimate, in-phase and quadrature part.
    config
        Of the model, for losses that need arrays; by default of a small one.

    Raises
    ------
    ValueError
        With the first property that fails.

    Examples
    --------
    >>> def squared(estimate, in_phase, quadrature):
    ...     return ((estimate - in_phase).square() + quadrature.square()).mean()
    >>> check(squared)
    """
    model = config or ModelConfig(n_fft=512, hop_length=128, bins=SHAPE[-2], filters=(4, 6))
    function = build_loss(loss, model) if isinstance(loss, str) else loss
    label = loss if isinstance(loss, str) else getattr(loss, "__name__", repr(loss))
    random = torch.Generator().manual_seed(0)
    in_phase, quadrature = torch.randn(2, *SHAPE, generator=random)
    estimate = torch.rand(SHAPE, generator=random) + 0.1

    def require(holds: bool, problem: str) -> None:
        if not holds:
            raise ValueError(f"the loss {label} {problem}")

    def expect(holds: bool, surprise: str) -> None:
        if holds:
            return
        from ..logs import is_main_process  # imports Lightning: seconds

        if is_main_process():
            logger.warning("the loss %s %s", label, surprise)

    value = function(estimate, in_phase, quadrature)
    require(
        isinstance(value, Tensor) and value.dim() == 0,
        f"must return a scalar tensor, got {getattr(value, 'shape', type(value).__name__)}",
    )
    true = in_phase.abs()
    silent = 0 * true
    for case, parts in (
        ("in silence", (silent, silent, silent)),
        ("at the target", (true, true, silent)),
        ("for a silent estimate", (silent, in_phase, quadrature)),
    ):
        point = parts[0].clone().requires_grad_()
        result = function(point, *parts[1:])
        require(result.requires_grad, "must have a gradient by the estimate: is it detached?")
        (gradient,) = torch.autograd.grad(result, point)
        require(bool(result.isfinite()), f"must be finite {case}, got {float(result.detach())}")
        require(bool(gradient.isfinite().all()), f"must have a finite gradient {case}")
    exact, missed, wrong = (float(function(e, true, silent)) for e in (true, silent, estimate))
    require(
        exact < min(missed, wrong),
        "must be lower at the target (estimate = in_phase >= 0, quadrature = 0) than elsewhere: "
        f"it is {exact:.3g} there, {missed:.3g} for silence, {wrong:.3g} for noise",
    )
    _check_gradient(function, (estimate, in_phase, quadrature), require)
    expect(
        abs(exact) <= ZERO * missed,
        f"is {exact:.3g} at the target, not 0: compare its values in the log with that",
    )
    _check_means(function, (estimate, in_phase, quadrature), float(value), expect)


def _check_means(function: Any, parts: tuple[Tensor, ...], value: float, expect: Any) -> None:
    for axis, kind in ((-1, "blocks of frames"), (0, "clips")):
        halves = zip(*(part.chunk(2, dim=axis) for part in parts), strict=True)
        mean = sum(float(function(*half)) for half in halves) / 2
        expect(
            abs(mean - value) <= 1e-3 * abs(value),
            f"is not the mean of its values for {kind} ({value:.4g} of all, {mean:.4g} of halves):"
            f" CPUs train with its mean over {BLOCK_FRAMES} frames of one clip at a time, GPUs "
            "with its value for a whole batch; steps are scaled for the former, so a sum has a "
            "gradient on GPUs that is too large by the number of these blocks, such as 64",
        )


def _check_gradient(function: Any, parts: tuple[Tensor, ...], require: Any) -> None:
    """Check the gradient along a direction, in double precision if the loss supports it."""
    estimate, in_phase, quadrature = (part[:1].double() for part in parts)
    random = torch.Generator().manual_seed(1)
    direction = torch.randn(estimate.shape, generator=random, dtype=torch.float64)
    step = 1e-6
    try:
        point = estimate.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(point, in_phase, quadrature), point)
    except RuntimeError:  # the loss has arrays in single precision
        estimate, in_phase, quadrature = (part[:1] for part in parts)
        direction, step = direction.float(), 1e-2
        point = estimate.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(point, in_phase, quadrature), point)
    with torch.no_grad():
        values = [
            float(function(estimate + sign * step * direction, in_phase, quadrature))
            for sign in (1, -1)
        ]
    expected = (values[0] - values[1]) / (2 * step)
    slope = float((gradient * direction).sum())
    size = float(gradient.norm() * direction.norm())
    require(
        abs(slope - expected) <= 0.02 * max(abs(expected), 0.05 * size),
        f"has a gradient of {slope:.4g} where finite differences give {expected:.4g}",
    )
