"""Where the network runs, and in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ..errors import UnetsepError, is_out_of_memory

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
# Instructions for products of bf16, as torch names them. Without them, and on Apple's
# processors, whose torch has no kernels for it, bf16 is several times slower than fp32.
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "sve_bf16")


def choose_device(device: str) -> torch.device:
    """The device for a name of `DEVICES`; an explicit one that is not there is an error."""
    check_choice("device", device, DEVICES)
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return torch.device(next(name for name in available if available[name]))
    if not available[device]:
        raise UnetsepError(
            f"device {device} was asked for but torch {torch.__version__} finds none: "
            "use --device auto or cpu, or install a torch build for it"
        )
    return torch.device(device)


def usable_device(device: str) -> torch.device:
    """The device of `choose_device`, where it computes; ``auto`` makes do with the CPU.

    torch finds a GPU also where it has no code for it: builds leave the oldest out, and those
    that are newer than the build.

    Raises
    ------
    UnetsepError
        If a GPU that was asked for computes nothing.
    """
    chosen = choose_device(device)
    why = refusal(chosen)
    if not why:
        return chosen
    if device != "auto":
        raise UnetsepError(
            f"device {device} was asked for but {why}: use --device auto or cpu, or install a "
            "torch build for it"
        )
    _warn_once(f"{why}: the CPU is used")
    return torch.device("cpu")


def refusal(device: torch.device) -> str:
    """Why torch computes nothing on a GPU of CUDA that it finds; empty if it computes.

    Raises
    ------
    RuntimeError
        If it has no memory left.
    """
    if device.type == "cuda":
        try:
            torch.ones(1, device=device).add_(1).item()
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            says = str(error).splitlines()[0]
            return f"torch {torch.__version__} cannot compute on this GPU ({says})"
    return ""


@functools.cache
def _warn_once(sentence: str) -> None:
    """Say something that is as true of the next model that is loaded."""
    logger.warning("%s", sentence)


def choose_precision(precision: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` takes bf16 where the CPU has instructions for it."""
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "fp32"
    found = cpu_capabilities()
    return "bf16" if any(found.get(name) for name in NATIVE_BF16) else "fp32"


def cpu_capabilities() -> dict[str, Any]:
    """What torch says of the CPU and its instructions; nothing where it is too old to."""
    find: Any = getattr(torch.cpu, "get_capabilities", dict)
    found: dict[str, Any] = find()
    return found


def pick_precision(precision: str, accelerator: str) -> str:
    """The precision of training; ``auto`` is bf16 where the accelerator computes in it natively.

    Parameters
    ----------
    precision
        ``auto``, or what is taken as it is.
    accelerator
        ``auto``, ``cpu``, ``gpu`` or ``mps``, as Lightning calls them.
    """
    if precision != "auto":
        return precision
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        # GPUs before Ampere can be asked for bf16, too, but emulate it, slower than fp32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp32"
    return choose_precision("auto", torch.device("mps" if accelerator == "mps" else "cpu"))


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    """Within this torch rounds the factors of products of fp32 as ``precision`` says.

    A program that we are a guest of may have chosen by torch's newer settings, each for one kind
    of device (since 2.9); then torch does not answer, and they stay as they are.

    Parameters
    ----------
    precision
        See `torch.set_float32_matmul_precision`.
    """
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


# Held by the thread that computes on Apple's GPU.
_apples_turn = threading.Lock()


def taking_turns(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Within this no other thread computes on a device on which only one may.

    That is Apple's GPU: if two threads use it at once, Metal ends the process (pytorch issue
    197805, up to torch 2.15). All that is computed there has to be within this.
    """
    return _apples_turn if device.type == "mps" else contextlib.nullcontext()


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise `ValueError` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


# Parameters of mallopt(3): see malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
LARGE = 2**31 - 1
# As a threshold glibc before 2.35 refuses more than this, which a segment's buffers do not reach.
LARGEST_BEFORE = 1 << 25
# The heap grows by this much at once; memory that is not touched costs nothing.
GROWTH = 1 << 26


def keep_freed_memory() -> bool:
    """Reuse large buffers instead of returning them to the system each time.

    Spectra and masks of a segment are buffers of many megabytes. glibc maps such buffers
    afresh for every operation, and the page faults cost more than the arithmetic: an
    inverse FFT of a segment's stems takes a third of the time without them. All threads
    share one heap, since those that glibc makes for threads end at 64 MB. It concerns the
    whole process, so only the command line and training call this, never the library.

    Returns
    -------
    bool
        Whether the allocator understood; elsewhere than on glibc nothing is done.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    kept = mallopt(M_MMAP_THRESHOLD, LARGE) or mallopt(M_MMAP_THRESHOLD, LARGEST_BEFORE)
    settings = (
        (M_TRIM_THRESHOLD, LARGE),
        (M_TOP_PAD, GROWTH),
        (M_ARENA_MAX, 1),
    )
    return kept == 1 and all(mallopt(parameter, value) == 1 for parameter, value in settings)
