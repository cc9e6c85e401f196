"""Memory that this process may still take: the computer's, that of its limits, a GPU's."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

# Linux' control groups, and those of this process.
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Bytes of a GPU's own memory that nobody has taken; None of other devices."""
    if device.type != "cuda":
        return None
    with contextlib.suppress(RuntimeError, AssertionError):  # torch cannot ask
        return int(torch.cuda.mem_get_info(device)[0])
    return None


def _memory_groups() -> Iterator[tuple[Path, str, str]]:
    """Folders of the control groups that bound this process' memory, with two files of each.

    Its own group lies in others, as a job of SLURM does in that of its user, and each may have a
    limit. A container may see the name that its group has outside: then only the first is there.
    """
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = OWN_GROUPS.read_text(encoding="utf-8")
    for kinds, path in {("", "/"), *(tuple(line.split(":", 2)[1:]) for line in text.splitlines())}:
        inner = Path(path.lstrip("/"))
        for group in (inner, *inner.parents):
            if not kinds:
                yield GROUPS / group, "memory.max", "memory.current"
            elif "memory" in kinds.split(","):  # version 1
                folder = GROUPS / "memory" / group
                yield folder, "memory.limit_in_bytes", "memory.usage_in_bytes"


def _cached_of_files(group: Path) -> int:
    """Bytes of files that a group's memory holds, and gives back when it runs short."""
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = (group / "memory.stat").read_text(encoding="ascii")
    # Version 1 tells its own, and after the word "total" that of all groups in it.
    return max(map(int, re.findall(r"inactive_file (\d+)", text)), default=0)


def available_memory() -> int | None:
    """Bytes that this process may still take; None where the system does not say."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        found.append(int(text.partition("MemAvailable:")[2].split()[0]) << 10)
    for folder, limit, used in _memory_groups():  # such as that of a container
        with contextlib.suppress(OSError, ValueError):
            most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
            found.append(max(0, most - now + _cached_of_files(folder)))
    if not found:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(found, default=None)
