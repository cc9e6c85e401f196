"""Modules of librosa, which need folders for caches."""

from __future__ import annotations

import importlib
from types import ModuleType

from ..errors import UnetsepError


def librosa_module(name: str) -> ModuleType:
    """Import a module of librosa.

    Parameters
    ----------
    name
        Within librosa, such as ``filters``.

    Raises
    ------
    UnetsepError
        If the system gives librosa no folder for its caches.
    """
    try:
        module: ModuleType = getattr(importlib.import_module("librosa"), name)
    except RuntimeError as error:  # as in a container with a read-only disk or without homes
        raise UnetsepError(
            f"librosa cannot be loaded: {error}; set NUMBA_CACHE_DIR to a folder that can be "
            "written to, and XDG_CACHE_HOME too if there is no home folder"
        ) from error
    return module
