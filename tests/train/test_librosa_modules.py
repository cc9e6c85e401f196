"""librosa where it finds no folder for its caches."""

from __future__ import annotations

import importlib

import pytest
import torch

from tests.train.synthetic import MODEL
from unetsep.errors import UnetsepError
from unetsep.train.librosa_modules import librosa_module
from unetsep.train.losses.functions import mel_filters


def test_a_module_is_that_of_librosa() -> None:
    assert librosa_module("filters").__name__ == "librosa.filters"


def test_variables_are_named_where_no_folder_can_hold_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(name: str) -> None:
        raise RuntimeError(f"cannot cache function '__o_fold' of {name}")

    mel_filters.cache_clear()
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(UnetsepError, match=r"'__o_fold' .* NUMBA_CACHE_DIR .* XDG_CACHE_HOME"):
        mel_filters(MODEL, torch.device("cpu"))
