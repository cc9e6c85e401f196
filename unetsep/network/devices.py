"""Where the network runs, and in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import logging
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import torch

from ..errors import UnetsepError, check_choice, first_line, is_out_of_memory

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
# One of several GPUs, as torch names it. Apple's is the only one of its kind.
NUMBERED_DEVICE = re.compile("cuda:(0|[1-9][0-9]*)|mps:0")
PRECISIONS = ("auto", "fp32", "bf16")
# Instructions for products of bf16, as torch names them. Without them, and on Apple's
# processors, whose torch has no kernels for it, bf16 is several times slower than fp32.
NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "sve_bf16")


def usable_device(device: str | torch.device) -> torch.device:
    """The device for a name; ``auto`` falls back to the CPU.

    torch also lists GPUs that it has no kernels for: a build leaves out the oldest GPUs, and those
    that came after it.

    Parameters
    ----------
    device
        A name of `DEVICES`, or one with a number, such as ``cuda:1``.

    Raises
    ------
    ValueError
        For another name.
    UnetsepError
        If a GPU was requested that is missing, or cannot compute.
    """
    device = str(device)
    if not NUMBERED_DEVICE.fullmatch(device):
        check_choice("device", device, DEVICES)
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    name = next(name for name in available if available[name]) if device == "auto" else device
    kind, _, number = name.partition(":")
    problem = "" if available[kind] else "finds none"
    if kind == "cuda" and not problem:
        last = torch.cuda.device_count() - 1
        if int(number or 0) > max(0, last):
            raise UnetsepError(f"device {device} was asked for but the last GPU is cuda:{last}")
        problem = cuda_problem(torch.device(name))
    if not problem:
        return torch.device(name)
    if device != "auto":
        raise UnetsepError(
            f"device {device} was asked for but torch {torch.__version__} {problem}: choose auto "
            "or cpu, or install a torch build for it"
        )
    _warn_once(f"torch {torch.__version__} {problem}: the CPU is used")
    return torch.device("cpu")


def cuda_problem(device: torch.device) -> str:
    """That torch cannot compute on a CUDA GPU that it lists, and why; empty if it can.

    Raises
    ------
    RuntimeError
        If the GPU is out of memory.
    """
    try:
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        return f"cannot compute on this GPU ({first_line(error)})"
    return ""


@functools.cache
def _warn_once(sentence: str) -> None:
    """Log a warning once, however many models it applies to."""
    logger.warning("%s", sentence)


def choose_precision(precision: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` is bf16 if the CPU has instructions for it."""
    check_choice("precision", precision, PRECISIONS)
    if precision != "auto":
        return precision
    if device.type != "cpu":
        return "fp32"
    capabilities = cpu_capabilities()
    return "bf16" if any(capabilities.get(name) for name in NATIVE_BF16) else "fp32"


def cpu_capabilities() -> dict[str, Any]:
    """Torch's description of the CPU and its instructions; empty where torch is too old."""
    query: Any = getattr(torch.cpu, "get_capabilities", dict)
    capabilities: dict[str, Any] = query()
    return capabilities


def training_precision(precision: str, accelerator: str) -> str:
    """The precision of training; ``auto`` is bf16 where the accelerator computes in it natively.

    Parameters
    ----------
    precision
        ``auto``, or a precision, which is returned as it is.
    accelerator
        ``auto``, ``cpu``, ``gpu`` or ``mps``, as Lightning calls them.
    """
    if precision != "auto":
        return precision
    if accelerator in ("auto", "gpu") and torch.cuda.is_available():
        # GPUs before Ampere accept bf16 but emulate it, slower than fp32.
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16" if native else "fp32"
    return choose_precision("auto", torch.device("mps" if accelerator == "mps" else "cpu"))


@contextlib.contextmanager
def products(precision: str) -> Iterator[None]:
    """Set how torch rounds the factors of fp32 matrix products within a ``with`` block.

    The host program may have used torch's newer settings, one per kind of device (since 2.9).
    Torch then refuses to report the old setting, and nothing is changed.

    Parameters
    ----------
    precision
        See `torch.set_float32_matmul_precision`.
    """
    try:
        previous = torch.get_float32_matmul_precision()
    except RuntimeError:
        yield
        return
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)


# Held by the thread that is computing on Apple's GPU.
_mps_lock = threading.Lock()


def device_lock(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """A lock for devices that only one thread may use at a time; a null context for others.

    Only Apple's GPU needs it: if two threads use it at once, Metal ends the process (pytorch issue
    197805, up to torch 2.15). Every computation there must hold the lock.
    """
    return _mps_lock if device.type == "mps" else contextlib.nullcontext()


# Parameters of mallopt(3): see malloc.h of the GNU C library.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
LARGE = 2**31 - 1
# The largest threshold that glibc before 2.35 accepts; a segment's buffers are smaller.
OLD_GLIBC_LARGEST = 1 << 25
# The heap grows by this much at a time; untouched memory costs nothing.
GROWTH = 1 << 26


def keep_freed_memory() -> bool:
    """Reuse large buffers instead of returning them to the system each time.

    Spectra and masks of a segment are buffers of many megabytes. glibc maps such buffers
    anew for every operation, and the page faults cost more than the arithmetic: an
    inverse FFT of a segment's stems takes a third of the time without them. All threads
    share one heap, since glibc limits the heaps of threads to 64 MB. The setting affects
    the whole process, so only the command line and training call this, never the library.

    Returns
    -------
    bool
        Whether the allocator accepted the settings; without glibc nothing is done.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    status = mallopt(M_MMAP_THRESHOLD, LARGE) or mallopt(M_MMAP_THRESHOLD, OLD_GLIBC_LARGEST)
    settings = (
        (M_TRIM_THRESHOLD, LARGE),
        (M_TOP_PAD, GROWTH),
        (M_ARENA_MAX, 1),
    )
    return status == 1 and all(mallopt(parameter, value) == 1 for parameter, value in settings)
