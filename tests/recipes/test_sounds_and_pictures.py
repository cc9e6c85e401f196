"""What people hear and see in the pages about losses and masks, made from the song of the demo."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image


def test_sounds_are_stems_and_what_is_wrong_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sounds = importlib.import_module("sounds")
    words = ["sounds.py", "--output", str(tmp_path), "--models", "mse", "l1"]
    monkeypatch.setattr(sys, "argv", words)
    sounds.main()
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'index.html'}: ")
    true, _ = soundfile.read(tmp_path / "stems/true/vocals.wav")
    for model in ("mse", "l1"):
        stem, _ = soundfile.read(tmp_path / f"stems/{model}/vocals.wav")
        error, _ = soundfile.read(tmp_path / f"errors/{model}/vocals.wav")
        assert np.abs(stem - true - error).max() < 1e-6
        assert np.abs(error).max() > 0.01
    assert "what is wrong" in (tmp_path / "index.html").read_text("utf-8")
    (song,) = (tmp_path / "player-data").glob("stems-*/song.js")
    assert "true stems" in song.read_text("utf-8")


def test_all_models_that_separate_four_stems_are_heard() -> None:
    names = importlib.import_module("sounds").four_stem_models()
    assert len(names) >= 9
    assert "spleeter-vocals" not in names


def test_pictures_show_the_song_and_masks_that_sum_to_one(tmp_path: Path) -> None:
    pictures = importlib.import_module("pictures")
    path, truth = importlib.import_module("demo").excerpt(tmp_path)
    song = pictures.Song(path)
    masks = song.masks()
    assert masks.shape == (4, 2, song.config.bins, song.spectrum.shape[-1])
    assert (masks.sum(dim=0) - 1).abs().max() < 1e-5
    drawn = dict(pictures.path_pictures(song))
    drawn |= dict(pictures.loss_pictures(song, path, truth["vocals"], ["mse"]))
    assert len(drawn) == 5
    for name, figure in drawn.items():
        pictures.save(figure, tmp_path / name)
        with Image.open(tmp_path / name) as picture, Image.open(pictures.FOLDER / name) as shown:
            assert picture.width == shown.width
            assert len(picture.getcolors()) > 50
