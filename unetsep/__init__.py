"""unetsep: music source separation with spectrogram U-Nets.

Names are imported when they are first used, so that ``import unetsep`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api import AudioInput, BinaryFile, Separation, separate, separate_to_files
    from .config import ModelConfig
    from .dsp.arrays import Signal
    from .dsp.segments import Estimate, SegmentPool
    from .dsp.song_stream import Progress, Selection, SongStream
    from .ensemble import ModelLike
    from .errors import AudioError, CancelledError, UnetsepError, WeightsError, WritingError
    from .file_options import FileOptions
    from .files import SeparationReport, separate_file
    from .library.claims import ClaimedError
    from .network.masks import MaskNetwork
    from .separator import Audio, Separator
    from .weights.load import load_network
    from .weights.manifest import Checkpoint, list_models
    from .weights.model import Model

# Functions and classes, and every name that their signatures need.
_HOMES = {
    "separate": "api",
    "separate_to_files": "api",
    "Separation": "api",
    "AudioInput": "api",
    "BinaryFile": "api",
    "separate_file": "files",
    "FileOptions": "file_options",
    "SeparationReport": "files",
    "Separator": "separator",
    "ModelLike": "ensemble",
    "Audio": "separator",
    "Progress": "dsp.song_stream",
    "Selection": "dsp.song_stream",
    "Signal": "dsp.arrays",
    "SongStream": "dsp.song_stream",
    "Estimate": "dsp.segments",
    "SegmentPool": "dsp.segments",
    "MaskNetwork": "network.masks",
    "Model": "weights.model",
    "load_network": "weights.load",
    "ModelConfig": "config",
    "list_models": "weights.manifest",
    "Checkpoint": "weights.manifest",
    "UnetsepError": "errors",
    "AudioError": "errors",
    "WritingError": "errors",
    "WeightsError": "errors",
    "CancelledError": "errors",
    "ClaimedError": "library.claims",
}

__all__ = [
    "Audio",
    "AudioError",
    "AudioInput",
    "BinaryFile",
    "CancelledError",
    "Checkpoint",
    "ClaimedError",
    "Estimate",
    "FileOptions",
    "MaskNetwork",
    "Model",
    "ModelConfig",
    "ModelLike",
    "Progress",
    "SegmentPool",
    "Selection",
    "Separation",
    "SeparationReport",
    "Separator",
    "Signal",
    "SongStream",
    "UnetsepError",
    "WeightsError",
    "WritingError",
    "__version__",
    "list_models",
    "load_network",
    "separate",
    "separate_file",
    "separate_to_files",
]


if not TYPE_CHECKING:  # type checkers would let any name pass

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
