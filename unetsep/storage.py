"""Where the user's own models live."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_folder() -> Path:
    """Folder for the user's models; it need not exist.

    ``$UNETSEP_HOME`` if set, else ``unetsep`` where the system keeps the data of programs:
    ``%LOCALAPPDATA%``, ``~/Library/Application Support`` or, by the XDG base directory
    specification, ``$XDG_DATA_HOME`` or ``~/.local/share``.
    """
    chosen = os.environ.get("UNETSEP_HOME")
    if chosen:
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        data = home / "Library" / "Application Support"
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "unetsep"


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, then rename: what has the name is complete."""
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content)
    partial.replace(path)
