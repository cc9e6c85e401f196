"""Other stems than MUSDB18's are trained, exported, separated and scored."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.commands import call
from tests.train.synthetic import MODEL, RATE, write
from unetsep.config import ModelConfig
from unetsep.network import presets
from unetsep.separator import Separator
from unetsep.train.config import TrainConfig
from unetsep.train.data.run_data import load_data, read_data
from unetsep.train.evaluation.baselines import BASELINES
from unetsep.train.evaluation.estimates import model_method
from unetsep.train.evaluation.scoring import score
from unetsep.train.evaluation.tracks import Track, read_track
from unetsep.train.validation import recording_sdr

STEMS = ("piano", "strings")
CLIP = ["--batch-size", "1", "--workers", "0", "--accelerator", "cpu", "--precision", "fp32"]


def output(*words: object) -> str:
    told = call(*words)
    assert told.exit_code == 0, told.output
    return told.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs, a run of ten steps on them, and its exported checkpoint."""
    base = tmp_path_factory.mktemp("stems")
    for number, song in enumerate(("one", "two", "three")):
        for i, stem in enumerate(STEMS):
            write(base / "songs" / "train" / song / stem, 10 * number + i, 21 * RATE)
    # A network and clips of a size for tests.
    model = ModelConfig(**vars(MODEL) | {"segment_frames": 256})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(presets.NETWORKS, "mixing", model)
        patch.delenv("MUSDB_PATH", raising=False)
        data = ["--songs", base / "songs", "--stems", "piano,strings", "--cache", base / "cache"]
        shares = ["--extra-share", "strings=0.5", "--second-share", "piano=0.2", "--held-out", "1"]
        steps = ["--loss", "l1", "--max-steps", "10", "--valid-every", "10"]
        output("train", "--run", base / "run", *data, *shares, *steps, *CLIP)
        output("export", base / "run")
    return base


def test_the_run_stores_its_stems(folder: Path) -> None:
    config = TrainConfig.from_json((folder / "run" / "config.json").read_text())
    assert config.stems == config.model.stems == STEMS
    assert config.model.mask == "softmax"
    assert config.extra_share == {"piano": 0.4, "strings": 0.5}
    assert read_data(folder / "run").stems == STEMS
    entry = json.loads((folder / "run" / "export" / "l1.json").read_text())
    assert entry["scores"]["sdr"].keys() == {*STEMS, "mean"}
    assert "--stems piano,strings" in entry["training"]["command"]


def test_the_checkpoint_separates_a_mixture(folder: Path) -> None:
    parts = [soundfile.read(folder / f"songs/train/two/{stem}.wav")[0] for stem in STEMS]
    soundfile.write(folder / "mixed.wav", sum(parts), RATE, subtype="FLOAT")
    output("separate", folder / "mixed.wav", "-m", folder / "run/export/l1.safetensors",
         "-o", folder / "out", "--quiet")  # fmt: skip
    written = sorted((folder / "out" / "mixed").glob("[!.]*.wav"))
    assert [path.name for path in written] == ["piano.wav", "strings.wav"]
    total = sum(soundfile.read(path)[0] for path in written)
    np.testing.assert_allclose(total, sum(parts), atol=1e-4)


def test_the_checkpoint_has_the_scores_of_the_log(folder: Path) -> None:
    (held,) = load_data(read_data(folder / "run"))[1]
    separator = Separator(folder / "run" / "export" / "l1.safetensors", precision="fp32")
    sdr = recording_sdr(separator, held)
    assert sdr.shape == (2,)
    assert np.isfinite(sdr).all()
    log = [json.loads(line) for line in (folder / "run/log.jsonl").read_text().splitlines()]
    noted = [log[-1][f"valid/l1/{stem}"] for stem in STEMS]
    np.testing.assert_allclose(sdr, noted, atol=0.05)  # half precision


def test_a_track_with_its_own_stems_is_scored(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "test" / "song"
    place.mkdir(parents=True)
    parts = {s: soundfile.read(folder / f"songs/train/one/{s}.wav")[0][: 3 * RATE] for s in STEMS}
    for name, signal in {"mixture": sum(parts.values()), **parts}.items():
        soundfile.write(place / f"{name}.wav", signal, RATE, subtype="FLOAT")
    track = Track("song", "test", place, STEMS)
    audio = read_track(track)
    assert tuple(audio.references) == STEMS
    method = model_method([str(folder / "run" / "export" / "l1.safetensors")])
    for estimates in (
        method.estimate(track, audio),
        BASELINES["mixture-4"](audio),
        BASELINES["oracle-2"](audio),
    ):
        scores = score(audio.references, estimates, audio.sample_rate)
        assert scores.stems == STEMS
        assert all(np.isfinite(scores.median(stem)) for stem in STEMS)
    with pytest.raises(ValueError, match="repet-hpss gives vocals, drums, bass, other, not piano"):
        BASELINES["repet-hpss"](audio)
    with pytest.raises(ValueError, match="no target 'vocals': expected piano, strings"):
        TrainConfig(stems=STEMS, model=dataclasses.replace(MODEL, stems=("vocals",)))
