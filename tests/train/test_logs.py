"""Log and curves of a run."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from tests.train.synthetic import MODEL
from unetsep.train.logs import JsonLinesLogger, draw_curves, read_log
from unetsep.train.losses import functions as losses


def test_curves_have_a_panel_for_losses_and_one_for_each_stem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    stems = (*MODEL.stems, "mean")
    lines = [
        {"step": step, "minutes": 1.0}
        | {f"train/{loss}": 3.0 / step for loss in losses.LOSSES}
        | {
            f"valid/{loss}/{stem}": None if step == 1 else 1.0
            for loss in losses.LOSSES
            for stem in stems
        }
        for step in (1, 2, 3)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png", clips=16)
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert [title.rpartition(" ")[2] for title in titles] == ["first", "mean", *MODEL.stems]
    assert all(len(axes.lines) == len(losses.LOSSES) for axes in drawn[0].axes)
    assert drawn[0].axes[0].lines[0].get_ydata()[0] == 1.0
    for axes in drawn[0].axes:
        assert axes.get_xlabel() == "clips seen"
        assert max(axes.lines[0].get_xdata()) == 48
    (tmp_path / "log.jsonl").write_text("")
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png", clips=16)
    assert len(drawn[1].axes) == 1


def test_the_curve_of_a_negative_loss_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    lines = [{"step": step, "train/l1": -2.0 * step} for step in (1, 2)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png", clips=1)
    assert list(drawn[0].axes[0].lines[0].get_ydata()) == [-1.0, -2.0]


def test_a_stem_may_be_called_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    scores = {f"valid/l1/{stem}": 7.0 for stem in ("mean", "loss", "vocals")}
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "train/l1": 0.5} | scores) + "\n")
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png", clips=16)
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert [title.rpartition(" ")[2] for title in titles] == ["first", "mean", "loss", "vocals"]
    assert [len(axes.lines[0].get_xdata()) for axes in drawn[0].axes] == [1, 1, 1, 1]


def test_damaged_lines_are_skipped_and_good_ones_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = b'{"step": 1, "train/l1": 0.5}\n'
    damaged = b'\xff\xfe{"step": 2}\n12\n[]\nnull\n{"x": 1}\n{"step": null}\n\0\0\0\n'
    path.write_bytes(good + damaged + b'{"step": 3}\n{"step": 4, "tr')
    lines = [{"step": 1, "train/l1": 0.5}, {"step": 3}]
    assert read_log(path) == lines
    draw_curves(path, tmp_path / "curves.png", clips=1)
    JsonLinesLogger(path, first_step=3)
    assert path.read_text() == "".join(json.dumps(line) + "\n" for line in lines)


def test_a_log_that_cannot_be_rewritten_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n')

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        JsonLinesLogger(path, first_step=1)
    assert [line["step"] for line in read_log(path)] == [1, 2]
    assert list(tmp_path.iterdir()) == [path]
