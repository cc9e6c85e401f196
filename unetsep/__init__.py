"""unetsep: music source separation with spectrogram U-Nets.

Names are imported when they are first used, so that ``import unetsep`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import AudioError, CancelledError, UnetsepError, WeightsError
    from .files import Separation, separate
    from .separator import Separator
    from .weights import list_models

__version__ = "0.1.0"

_HOMES = {
    "separate": "files",
    "Separation": "files",
    "Separator": "separator",
    "list_models": "weights",
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
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
