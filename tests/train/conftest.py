"""Music for the tests of evaluation, a run for those of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.train.runs import run
from tests.train.synthetic import tiny
from unetsep.train import fit
from unetsep.train.evaluation.tracks import Track, TrackAudio, read_track


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than a small run; those of fixtures that many tests share have one."""
    monkeypatch.setattr(fit, "draw_curves", lambda *_, **__: None)


@pytest.fixture(scope="session")
def real_song() -> TrackAudio:
    """The excerpt that stempeg ships, six seconds of a real song."""
    if not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("needs ffmpeg and ffprobe")
    stempeg = pytest.importorskip("stempeg")
    path = Path(stempeg.example_stem_path())
    return read_track(Track(path.name, "test", path))


@pytest.fixture(scope="session")
def estimates(real_song: TrackAudio) -> dict[str, npt.NDArray[np.float32]]:
    """Each stem with a quarter of the others, filtered and with one channel softer."""
    found = {}
    for stem, signal in real_song.references.items():
        leak = (real_song.mixture - signal) / 4
        coloured = signal + 0.2 * np.roll(signal, 7, axis=1)
        found[stem] = ((coloured + leak) * np.array([[1.0], [0.9]])).astype(np.float32)
    return found


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of two losses."""
    path = tmp_path_factory.mktemp("whole")
    run(path, tiny(losses=("l1", "mel_mse"), max_steps=8))
    return path
