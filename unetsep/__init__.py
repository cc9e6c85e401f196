"""unetsep: music source separation with spectrogram U-Nets.

Names are imported when they are first used, so that ``import unetsep`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api import Separation, separate, separate_to_files
    from .errors import AudioError, CancelledError, UnetsepError, WeightsError
    from .separator import Separator
    from .weights.manifest import list_models

_HOMES = {
    "separate": "api",
    "separate_to_files": "api",
    "Separation": "api",
    "Separator": "separator",
    "list_models": "weights.manifest",
    "UnetsepError": "errors",
    "AudioError": "errors",
    "WeightsError": "errors",
    "CancelledError": "errors",
}

__all__ = [
    "AudioError",
    "CancelledError",
    "Separation",
    "Separator",
    "UnetsepError",
    "WeightsError",
    "__version__",
    "list_models",
    "separate",
    "separate_to_files",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
