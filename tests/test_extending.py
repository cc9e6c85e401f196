"""The tasks that docs/develop/extend.md shows to newcomers, each done here as it says there."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from tests.train.synthetic import MODEL, RATE, songs, tiny, write
from unetsep.api import separate_to_files
from unetsep.audio.formats import CONTAINERS, Container, by_libsndfile
from unetsep.audio.tag_writers import WRITERS, _fill_id3, write_tags
from unetsep.audio.tags import Tags, read_tags, stem_label
from unetsep.config import STEMS, ModelConfig
from unetsep.network.presets import NETWORKS, preset_config
from unetsep.network.unet import UNet
from unetsep.separator import Separator
from unetsep.train.data.datasets import DATASETS
from unetsep.train.data.run_data import find_data, load_data, load_recordings
from unetsep.train.data.sources import DatasetKind, Source, audio_files
from unetsep.train.evaluation.measures import MEASURES, Measure
from unetsep.train.evaluation.scoring import score
from unetsep.train.evaluation.sdr import Signals
from unetsep.train.fit import fit
from unetsep.train.losses.functions import LOSSES, LossEntry, magnitude
from unetsep.train.machine import Machine

ROOT = Path(__file__).parent.parent
CPU = Machine("cpu", workers=0)


def test_a_loss_is_a_function_and_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def huber(estimate: Tensor, in_phase: Tensor, quadrature: Tensor) -> Tensor:
        error = (magnitude(in_phase, quadrature) - estimate).abs()
        return torch.where(error < 1, 0.5 * error.square(), error - 0.5).mean()

    monkeypatch.setitem(LOSSES, "huber", LossEntry(huber, "Huber distance of magnitudes"))
    config = tiny(losses=("huber",), max_steps=2, valid_every=2)
    fit(config, *songs(), tmp_path, machine=CPU)
    stems = Separator(tmp_path / "best-huber.safetensors").separate(np.zeros((2, RATE)), RATE)
    assert list(stems) == list(MODEL.stems)


def test_a_network_is_a_config_with_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "narrow", ModelConfig(filters=(8,) * 6))
    network = UNet(preset_config("narrow", ("vocals", "drums")))
    masks = network(torch.rand(1, 2, network.config.bins, 64))
    assert masks.shape == (1, 2, 2, network.config.bins, 64)


class Loops(DatasetKind):
    """Single stems whose file names begin with the stem: ``drums-120-bpm.wav``."""

    name = "loops"
    option = "--loops"
    help = "Single stems, by file name."

    def find(self, root: Path, stems: Sequence[str]) -> list[Source]:
        files = [(path.stem.partition("-")[0], path) for path in audio_files(root)]
        return [
            Source(path.stem, self.name, "train", {stem: path})
            for stem, path in files
            if stem in stems
        ]


def test_a_kind_of_data_set_is_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, name in enumerate(("drums-120", "bass-90", "noise-1")):
        write(tmp_path / "loops" / name, number)
    monkeypatch.setitem(DATASETS, "loops", Loops())
    data = find_data({"loops": [tmp_path / "loops"]}, tmp_path / "cache")
    assert {each.name: each.names for each in load_recordings(data)} == {
        "bass-90": ("bass",), "drums-120": ("drums",)
    }  # fmt: skip


def test_a_set_of_stems_is_a_setting(tmp_path: Path) -> None:
    stems = ("voice", "band")
    for song in ("one", "two"):
        for number, stem in enumerate(stems):
            write(tmp_path / "songs" / "train" / song / stem, number, 21 * RATE)
    data = find_data({"songs": [tmp_path / "songs"]}, tmp_path / "cache", stems=stems)
    model = dataclasses.replace(MODEL, stems=stems)
    config = tiny(losses=("l1",), stems=stems, model=model, max_steps=2, valid_every=2)
    fit(config, *load_data(data), tmp_path / "run", machine=CPU)
    separator = Separator(tmp_path / "run" / "best-l1.safetensors")
    assert list(separator.separate(np.ones((2, RATE)), RATE)) == ["voice", "band"]


def write_aiff(path: Path, tags: Tags) -> None:
    from mutagen.aiff import AIFF

    file = AIFF(path)
    file.add_tags()
    _fill_id3(file.tags, tags)
    file.save(v2_version=4)


def test_an_output_format_is_a_row_and_a_writer_of_tags(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Container(
        suffix="aiff",
        help="lossless to 24 bits",
        open=by_libsndfile("AIFF"),
        bit_depths=("16", "24"),
    )
    monkeypatch.setitem(CONTAINERS, "aiff", row)
    monkeypatch.setitem(WRITERS, "aiff", write_aiff)
    song = write(tmp_path / "song", 1)
    write_tags(song, "wav", Tags({"title": ("Halo",)}))
    report = separate_to_files(song, tmp_path / "out", model=tiny_model, container="aiff")
    assert list(report.stems) == list(STEMS)
    for stem, path in report.stems.items():
        assert read_tags(path).text("title") == f"Halo ({stem_label(stem)})"
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.frames) == ("AIFF", "PCM_16", RATE // 2)


def test_a_measure_is_a_function_and_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def level_error(reference: Signals, estimate: Signals, rate: int) -> float:
        true, guess = (float(np.square(x, dtype=np.float64).mean()) for x in (reference, estimate))
        return abs(10 * math.log10(guess / true)) if true and guess else math.nan

    title = "Error of the level (dB, lower is better)"
    monkeypatch.setitem(MEASURES, "level", Measure(level_error, title, lower_is_better=True))
    stems = {name: np.full((2, RATE), 0.5, np.float32) for name in ("vocals", "drums")}
    halves = {name: signal / 2 for name, signal in stems.items()}
    scores = score(stems, halves, RATE, measures=["level"])
    for name in stems:
        assert scores.median(name, "level") == pytest.approx(20 * math.log10(2))


def test_the_tasks_are_described_and_their_files_are_there() -> None:
    page = (ROOT / "docs/develop/extend.md").read_text(encoding="utf-8")
    tasks = re.findall(r"^## (.+?)\n(.*?)(?=^##|\Z)", page, flags=re.DOTALL | re.MULTILINE)
    assert len(tasks) == 6
    for title, text in tasks:
        assert len(text.strip().splitlines()) <= 24, title
        assert "`unetsep/" in text or "unetsep train" in text, title
