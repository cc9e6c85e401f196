"""Where the network runs, and in which precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .errors import UnetsepError

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
# Instructions for products of bf16, as torch names them. Without them, and on Apple's
# processors, whose torch has no kernels for it, bf16 is several times slower than fp32.
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "sve_bf16")


def choose_device(device: str) -> torch.device:
    """The device for a name of `DEVICES`; an explicit one that is not there is an error."""
    check_choice("device", device, DEVICES)
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return torch.device(next(name for name, found in there.items() if found))
    if not there[device]:
        raise UnetsepError(
            f"device {device} was asked for but torch {torch.__version__} finds none: "
            "use --device auto or cpu, or install a torch build for it"
        )
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` takes bf16 where the CPU has instructions for it."""
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "fp32"
    find: Any = getattr(torch.cpu, "get_capabilities", dict)
    found = find()
    return "bf16" if any(found.get(name) for name in NATIVE_BF16) else "fp32"


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `ValueError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
