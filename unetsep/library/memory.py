"""Memory that this process may still take: of the computer, within its limits, of a GPU."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

# Folder of Linux' control groups, and list of this process' groups.
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a GPU's own memory; None for other devices."""
    if device.type != "cuda":
        return None
    with contextlib.suppress(RuntimeError, AssertionError):  # torch cannot tell
        return int(torch.cuda.mem_get_info(device)[0])
    return None


def _memory_groups() -> Iterator[tuple[Path, str, str]]:
    """Folders of the control groups that limit this process' memory, with two files of each.

    Groups are nested, as a job of SLURM in that of its user, and each may have a limit. A
    container may see its group's name outside the container: then only the top folder exists.
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


def _cached_bytes(group: Path) -> int:
    """Bytes of cached files in a group's memory, which are freed when it runs short."""
    text = ""
    with contextlib.suppress(OSError, ValueError):
        text = (group / "memory.stat").read_text(encoding="ascii")
    # Version 1 lists the group's own bytes, and after "total_" those of all groups in it.
    return max(map(int, re.findall(r"inactive_file (\d+)", text)), default=0)


def available_memory() -> int | None:
    """Bytes that this process may still take; None if the system does not tell."""
    limits = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        limits.append(int(text.partition("MemAvailable:")[2].split()[0]) << 10)
    for folder, *names in _memory_groups():  # such as that of a container
        with contextlib.suppress(OSError, ValueError):
            limit, usage = (int((folder / name).read_text(encoding="ascii")) for name in names)
            limits.append(max(0, limit - usage + _cached_bytes(folder)))
    if not limits:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    return min(limits, default=None)
