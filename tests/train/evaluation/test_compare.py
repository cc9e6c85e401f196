from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from unetsep.config import STEMS
from unetsep.errors import UnetsepError
from unetsep.train.evaluation import results
from unetsep.train.evaluation.compare import Difference, load, scores_folder
from unetsep.train.evaluation.compare import compare as compare_folders
from unetsep.train.evaluation.scoring import METRICS, TrackScores
from unetsep.train.evaluation.tracks import Track


def write(
    folder: Path,
    sdr: np.ndarray,
    *,
    stems: tuple[str, ...] = STEMS,
    duration: float | None = None,
    silent: dict[int, tuple[str, ...]] | None = None,
    first: int = 0,
    method: str = "test",
    audio: str = "song",
    subset: str = "test",
) -> Path:
    """Results with SDR ``(tracks, stems)``."""
    for index, row in enumerate(sdr, start=first):
        values = {m: np.full((len(stems), 2), math.nan) for m in METRICS}
        values["SDR"][:] = row[:, None]
        scores = TrackScores(stems, values, (silent or {}).get(index, ()))
        track = Track(f"song {index}", subset, folder)
        origin = results.origin_of({"kind": method}, [[audio, 1]], duration)
        results.write(results.path_of(folder.parent, folder.name, track), scores, origin, "sdr")
    return folder


def compare(a: Path, b: Path, metric: str = "SDR") -> list[Difference]:
    return compare_folders(a, b, metric).differences


@pytest.fixture
def base() -> np.ndarray:
    return np.random.default_rng(0).normal(5, 3, (20, 4))


def test_a_small_gain_on_every_track_is_significant(base: np.ndarray, tmp_path: Path) -> None:
    # Songs differ by several dB, the methods by 0.2: only pairing can tell.
    gain = 0.2 + 0.05 * np.random.default_rng(1).standard_normal(base.shape)
    found = compare(write(tmp_path / "a", base), write(tmp_path / "b", base + gain))
    assert [each.stem for each in found] == list(STEMS)
    for index, each in enumerate(found):
        assert each.gain.value == pytest.approx(np.median(gain[:, index]), abs=1e-4)
        assert each.gain.high - each.gain.low < 0.1
        assert each.verdict == "B"
        assert each.better == 20
        assert each.a == pytest.approx(np.median(base[:, index]), abs=1e-4)


def test_a_is_better_in_the_other_order(base: np.ndarray, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", base), write(tmp_path / "b", base + 1)
    assert {each.verdict for each in compare(b, a)} == {"A"}


def test_noise_is_undecided(base: np.ndarray, tmp_path: Path) -> None:
    noise = np.tile([[1.0], [-1.0]], (10, 4))
    found = compare(write(tmp_path / "a", base), write(tmp_path / "b", base + noise))
    assert {each.verdict for each in found} == {"undecided"}


def test_only_common_tracks_with_scores_count(base: np.ndarray, tmp_path: Path) -> None:
    other = base[:15].copy()
    other[3, 0] = math.nan
    found = compare(write(tmp_path / "a", base), write(tmp_path / "b", other))
    assert [each.gain.tracks for each in found] == [14, 15, 15, 15]


def test_tracks_whose_set_differs_by_silence_are_left_out(base: np.ndarray, tmp_path: Path) -> None:
    a = write(tmp_path / "a", base)
    b = write(tmp_path / "b", base, silent={2: ("vocals",)})
    assert [each.gain.tracks for each in compare(a, b)] == [19] * 4


def test_different_audio_is_refused(base: np.ndarray, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", base), write(tmp_path / "b", base, duration=120.0)
    with pytest.raises(UnetsepError, match=r"scored with --duration None and 120\.0"):
        compare(a, b)
    c = write(tmp_path / "c", base, audio="another")
    with pytest.raises(UnetsepError, match="song 0: A and B were scored on different audio"):
        compare(a, c)


def test_different_sets_are_refused(base: np.ndarray, tmp_path: Path) -> None:
    a = write(tmp_path / "a", base)
    b = write(tmp_path / "b", base[:, :2], stems=("vocals", "accompaniment"))
    with pytest.raises(UnetsepError, match="depend on the set"):
        compare(a, b)


def test_tracks_of_several_sets_are_compared_in_each_by_itself(
    base: np.ndarray, tmp_path: Path
) -> None:
    for name, gain in (("a", 0), ("b", 1)):
        write(tmp_path / name, base[:12, :2] + gain, stems=STEMS[:2])
        write(tmp_path / name, base[12:] - gain, first=12)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [(each.stem, each.sources, each.gain.tracks, each.verdict) for each in found] == [
        *((stem, STEMS[:2], 12, "B") for stem in STEMS[:2]),
        *((stem, STEMS, 8, "A") for stem in STEMS),
    ]


def test_songs_of_several_subsets_are_compared_in_each_by_itself(
    base: np.ndarray, tmp_path: Path
) -> None:
    for name, gain in (("a", 0), ("b", 1)):
        write(tmp_path / name, base[:12] + gain)
        write(tmp_path / name, base - gain, subset="train")
        write(tmp_path / name, base[: 2 - gain], subset="pairs")
    write(tmp_path / "b", base[:3], subset="own")
    comparison = compare_folders(tmp_path / "a", tmp_path / "b")
    told = [(each.subset, each.gain.tracks, each.verdict) for each in comparison.differences[::4]]
    assert told == [("pairs", 1, "undecided"), ("test", 12, "B"), ("train", 20, "A")]
    assert comparison.alone == {"own": (0, 3), "pairs": (1, 0)}


def test_signs_that_may_be_by_chance_are_undecided(base: np.ndarray, tmp_path: Path) -> None:
    a = write(tmp_path / "a", base)
    gains = np.full((7, 4), 1.0)
    gains[3] = -0.01
    b = write(tmp_path / "b", base[:7] + gains)
    for each in compare(a, b):
        assert each.better == 6
        assert each.gain.low > -0.1
        assert each.chance == pytest.approx(2 * 8 / 2**7)
        assert each.verdict == "undecided"


def test_a_gain_on_each_of_five_tracks_is_undecided(base: np.ndarray, tmp_path: Path) -> None:
    a = tmp_path / "a"
    for count, verdict in ((5, "undecided"), (6, "B")):
        b = write(tmp_path / str(count), base[:count] + 1)
        found = compare(write(a, base), b)
        assert {(each.better, each.verdict) for each in found} == {(count, verdict)}


def test_a_folder_of_several_models_is_refused(base: np.ndarray, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", base), write(tmp_path / "b", base[:9])
    write(tmp_path / "b", base[9:], first=9, method="another")
    with pytest.raises(UnetsepError, match="b mixes scores of several models"):
        compare(a, b)
    write(tmp_path / "c", base[:9])
    assert compare(tmp_path / "c", b)[0].gain.tracks == 9


def test_metrics_that_were_not_computed_are_named(base: np.ndarray, tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", base), write(tmp_path / "b", base)
    for metric, option in (("SAR", "--metrics bsseval"), ("si-sdr", "--measures si-sdr")):
        with pytest.raises(UnetsepError, match=f"no {metric} scores: score both with {option}$"):
            compare(a, b, metric)


def test_a_folder_of_estimates_does_not_hide_the_scores_of_its_name(
    base: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output, name = Path("evaluation"), Path("theirs")
    write(output / name, base)
    (name / "song 1").mkdir(parents=True)  # --estimates theirs
    (name / "song 1" / "vocals.wav").touch()
    assert scores_folder(name, output) == output / name
    assert scores_folder(output / name, output) == output / name
    assert len(load(scores_folder(name, output))) == len(base)
    write(name, base)
    assert scores_folder(name, output) == name
    Path("empty").mkdir()
    assert scores_folder(Path("empty"), output) == Path("empty")  # it is what an error names
    assert scores_folder(Path("nowhere"), output) == output / "nowhere"


@pytest.mark.parametrize(
    "damage", [{"silent": 3}, {"measures": [1]}, {"silent": 3, "measures": [1]}]
)
def test_damaged_scores_are_refused(
    base: np.ndarray, tmp_path: Path, damage: dict[str, object]
) -> None:
    a = write(tmp_path / "a", base[:1])
    path = a / "test" / "song 0.json"
    content = json.loads(path.read_text())
    content["unetsep"] |= damage
    path.write_text(json.dumps(content))
    with pytest.raises(UnetsepError, match="holds no scores in museval's layout"):
        compare(a, a)


def test_folders_without_scores_or_common_tracks_are_errors(
    base: np.ndarray, tmp_path: Path
) -> None:
    with pytest.raises(UnetsepError, match="holds no scores"):
        compare(tmp_path / "none", tmp_path / "none")
    a, b = write(tmp_path / "a", base[:1]), write(tmp_path / "b", base[:2])
    (b / "test" / "song 0.json").unlink()
    with pytest.raises(UnetsepError, match="no track in common"):
        compare(a, b)
