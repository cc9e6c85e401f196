"""The picture of a song."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile
from matplotlib.font_manager import get_font_names

from tests.signals import RATE
from unetsep.errors import UnetsepError
from unetsep.listen.plots import MORE_FONTS, fonts, measure, plot_song, ratio_masks


@pytest.fixture
def stems(tmp_path: Path) -> dict[str, Path]:
    time = np.arange(RATE) / RATE
    paths = {}
    for name, frequency in (("vocals", 1000.0), ("bass", 100.0)):
        paths[name] = tmp_path / f"{name}.wav"
        soundfile.write(paths[name], 0.5 * np.sin(2 * np.pi * frequency * time), RATE)
    return paths


def test_the_mixture_is_the_sum_and_masks_sum_to_one(stems: dict[str, Path]) -> None:
    powers, seconds, edges = measure(stems)
    assert (len(powers), seconds, edges[-1]) == (3, 1.0, 16_000.0)
    mixture, vocals, bass = (power.sum(axis=1) for power in powers)
    assert mixture.sum() == pytest.approx((vocals + bass).sum(), rel=0.01)
    masks = ratio_masks(powers[1:])
    np.testing.assert_allclose(np.sum(masks, axis=0), 1.0, atol=1e-3)
    assert masks[0][vocals.argmax()].min() > 0.9
    assert masks[1][bass.argmax()].min() > 0.9


def test_a_picture_is_drawn_even_of_silence(tmp_path: Path, stems: dict[str, Path]) -> None:
    soundfile.write(tmp_path / "vocals.wav", np.zeros(500), 8000)
    for case in (stems, {"vocals": tmp_path / "vocals.wav"}):
        plot_song(case, tmp_path / "plot.png", "title")
        picture = matplotlib.image.imread(tmp_path / "plot.png")
        assert picture.shape[1] == 1320
        assert picture.std() > 0.05


def test_dollars_in_names_do_not_mark_formulas(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "vocals.wav", np.zeros(500), 8000)
    plot_song({"$\\frac$": tmp_path / "vocals.wav"}, tmp_path / "plot.png", "Ke$ha - A$AP")
    assert (tmp_path / "plot.png").exists()


def test_names_in_any_script_are_drawn_without_a_warning(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "vocals.wav", np.zeros(500), 8000)
    plot_song(
        {"ボーカル": tmp_path / "vocals.wav"}, tmp_path / "plot.png", "夜に駆ける 밤 \U0001f3b5"
    )
    assert (tmp_path / "plot.png").exists()


def test_names_with_bytes_that_are_no_letters_are_drawn(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "vocals.wav", np.zeros(500), 8000)
    plot_song({"voix \udce9": tmp_path / "vocals.wav"}, tmp_path / "plot.png", "caf\udce9")
    assert (tmp_path / "plot.png").exists()


def test_installed_fonts_of_other_scripts_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fonts() == ["sans-serif"] + [name for name in MORE_FONTS if name in get_font_names()]
    monkeypatch.setattr("unetsep.listen.plots.MORE_FONTS", ("missing", "STIXGeneral", "cmr10"))
    assert fonts() == ["sans-serif", "STIXGeneral", "cmr10"]


def test_without_matplotlib_the_sentence_says_what_to_install(
    tmp_path: Path, stems: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UnetsepError, match=r'pip install "unetsep\[plots\]"'):
        plot_song(stems, tmp_path / "plot.png", "title")
