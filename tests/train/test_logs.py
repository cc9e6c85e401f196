"""Log and curves of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.train.synthetic import MODEL
from unetsep.train.logs import draw_curves
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
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    titles = [axes.get_title() for axes in drawn[0].axes]
    assert [title.rpartition(" ")[2] for title in titles] == ["first", "mean", *MODEL.stems]
    assert all(len(axes.lines) == len(losses.LOSSES) for axes in drawn[0].axes)
    assert drawn[0].axes[0].lines[0].get_ydata()[0] == 1.0
    assert drawn[0].axes[0].get_xlabel() == "step"
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png", clips=16)
    for axes in drawn.pop().axes:
        assert axes.get_xlabel() == "clips seen"
        assert max(axes.lines[0].get_xdata()) == 48
    (tmp_path / "log.jsonl").write_text("")
    draw_curves(tmp_path / "log.jsonl", tmp_path / "curves.png")
    assert len(drawn[1].axes) == 1
