"""What the worker answers, and what it keeps to itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.signals import music
from unetsep.app import worker
from unetsep.app.worker import SeparatorCache, answer
from unetsep.audio.targets import REMEDIES, explain_writing
from unetsep.errors import AudioError, CancelledError

REQUEST = {"job": "1", "source": "/secret/1/upload", "folder": "/secret/1", "name": "My tune"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (AudioError("/secret/1/upload is no audio"), {"failed": "My tune is no audio"}),
        (
            AudioError("mp3 cannot hold 6 channels: choose the format flac"),
            {"failed": "mp3 cannot hold 6 channels: choose the format flac"},
        ),
        (ValueError("/secret/1/stems is odd"), {"failed": "the job's folder/stems is odd"}),
        (
            OSError(28, "No space left on device"),
            {"failed": "the files could not be written: No space left on device"},
        ),
        (MemoryError(), {"failed": "out of memory"}),
        (torch.cuda.OutOfMemoryError("CUDA out of memory."), {"failed": "out of memory"}),
        (CancelledError("cancelled"), {"cancelled": True}),
    ],
)
def test_an_error_becomes_a_message_without_internal_paths(
    error: Exception, message: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(worker, "separate", fail)
    assert answer(REQUEST, SeparatorCache("cpu"), None) == message  # type: ignore[arg-type]


@pytest.mark.parametrize("number", sorted(REMEDIES))
def test_messages_name_no_options_of_the_command_line(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        with explain_writing(Path("/secret/1/stems")):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(worker, "separate", fail)
    text = answer(REQUEST, SeparatorCache("cpu"), None)["failed"]  # type: ignore[arg-type]
    assert text.startswith(f"writing to the job's folder/stems failed: {os.strerror(number)}")
    assert " -o" not in text


def test_warnings_name_the_song_and_not_its_upload(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"stems": {}, "warnings": ["/secret/1/upload may be cut short"]}
    monkeypatch.setattr(worker, "separate", lambda *_: report)
    done = answer(REQUEST, SeparatorCache("cpu"), None)["done"]  # type: ignore[arg-type]
    assert done["warnings"] == ["My tune may be cut short"]


def test_stems_and_player_are_written_to_the_folder_with_progress(
    tiny_model: Path, tmp_path: Path
) -> None:
    soundfile.write(tmp_path / "upload", music(3).T, 44_100, format="FLAC")
    request = {
        "source": str(tmp_path / "upload"),
        "folder": str(tmp_path),
        "name": "My tune",
        "model": str(tiny_model),
        "options": {"stems": ["drums", "vocals"], "container": "flac", "bit_depth": "16"},
        "passes": 1,
        "player": True,
    }
    progress: list[tuple[str, float]] = []
    cache = SeparatorCache("cpu")
    report = worker.separate(request, cache, lambda *each: progress.append(each))
    assert report["stems"] == {"drums": "drums.flac", "vocals": "vocals.flac"}
    assert {path.name for path in (tmp_path / "stems").iterdir()} == {"drums.flac", "vocals.flac"}
    assert "My tune" in (tmp_path / "player" / "index.html").read_text(encoding="utf-8")
    assert {stage for stage, _ in progress} == {"separating", "preparing"}
    assert all(0 <= share <= 1 for _, share in progress)
    assert progress[-1] == ("preparing", 1)


def test_the_cache_keeps_the_models_used_last(tiny_model: Path, tmp_path: Path) -> None:
    one, two, three = (str(tmp_path / f"{number}.safetensors") for number in range(3))
    for path in (one, two, three):
        shutil.copy(tiny_model, path)
    cache = SeparatorCache("cpu")
    first = cache.get(one)
    second = cache.get(two)
    assert cache.get(one) is first
    cache.get(three)
    assert cache.get(one) is first
    assert cache.get(two) is not second


def test_models_too_large_for_memory_get_a_message_of_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load(_: object) -> None:
        raise error

    sent: list[object] = []
    lines = ['{"models": ["fast"]}']
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    monkeypatch.setattr(worker, "leave", lambda: None)
    monkeypatch.setattr(worker, "open_channels", lambda: (lines, sent.append))
    monkeypatch.setattr(worker, "load", load)
    error: Exception = torch.cuda.OutOfMemoryError("CUDA out of memory.")
    worker.main()
    assert sent == [{"failed": "out of memory; close other programs or use --device cpu"}]
    error = RuntimeError("of another kind")
    with pytest.raises(RuntimeError, match="of another kind"):
        worker.main()
