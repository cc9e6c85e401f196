"""``recipes/open_data.py``: what `open` is trained on is what a table names, and nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import open_data
import pytest

from tests.files import write_song
from tests.signals import noise
from unetsep.config import STEMS

VALID, TRAIN = "Actions - One Minute Smile", "Dee - Train"
OTHERS = (
    "songs/train/musicdelta-rock",
    "pools/vocals/gtsinger-00.opus",
    "pools/drums/hydrogen-1.opus",
)


@pytest.fixture
def given(tmp_path: Path) -> Path:
    """Songs and pools as those of the default, and a MUSDB18 with a validation song."""
    for name in (*open_data.SONGS, "musicdelta-rock"):
        (tmp_path / "songs" / "train" / name).mkdir(parents=True)
    for pattern in (*open_data.POOLS, "vocals/gtsinger-*", "drums/hydrogen-*"):
        for number in "01":
            path = tmp_path / "pools" / pattern.replace("*", f"{number}.opus")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"sound")
    for name in (VALID, TRAIN):
        write_song(tmp_path / "musdb" / "train" / name, {s: noise(0, 4410) for s in STEMS})
    return tmp_path


def run(given: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    words = [str(given / name) for name in ("musdb", "songs", "pools", "data")]
    monkeypatch.setattr(sys, "argv", ["open_data.py", *words])
    open_data.main()
    return given / "data"


def places(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_symlink()}


def test_only_what_the_table_names_gets_in(given: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = run(given, monkeypatch)
    found = places(data)
    assert found == places(run(given, monkeypatch)), "a second time, too"
    assert len(found) == len(open_data.SONGS) + 2 * len(open_data.POOLS) + 1
    assert not found & set(OTHERS)
    assert (data / "pools/vocals/pjs-0.opus").read_bytes() == b"sound"


def test_of_musdb_the_validation_songs_alone_are_there(
    given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run(given, monkeypatch)
    assert [path.name for path in (data / "validation" / "train").iterdir()] == [VALID]
    assert not any(TRAIN in place for place in places(data))


def test_each_recording_stands_with_an_open_licence(
    given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run(given, monkeypatch)
    rows = (data / "sources.csv").read_text().splitlines()[1:]
    assert len(rows) == len(places(data)) - 1
    allowed = re.compile(r"CC0|CC BY(-SA)?( \d|,)|MIT|Apache-2\.0|BSD")
    for licence in (*open_data.SONGS.values(), *open_data.POOLS.values()):
        assert allowed.match(licence), licence
        assert not re.search(r"GPL|NC|ND", licence), licence


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("pools/other/cycfi*", "no other/cycfi-guitar-* among"),
        (f"musdb/train/{VALID}", "there is no validation song of MUSDB18 in"),
        ("musdb/train", "there is no validation song of MUSDB18 in"),
    ],
)
def test_what_is_missing_is_named_before_anything_is_linked(
    given: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    missing: str,
    told: str,
) -> None:
    for path in given.glob(missing):
        path.rename(given / f"away-{path.name}")
    with pytest.raises(SystemExit):
        run(given, monkeypatch)
    assert told in capsys.readouterr().err
    assert not (given / "data").exists()


def test_a_recording_that_the_table_names_no_more_is_taken_out(
    given: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = run(given, monkeypatch)
    before = places(data)
    dropped = data / "pools" / "vocals" / "dropped.opus"
    dropped.symlink_to(given / "pools" / "vocals" / "pjs-0.opus")
    own = data / "pools" / "vocals" / "notes.txt"
    own.write_text("mine")
    assert places(run(given, monkeypatch)) == before
    assert own.read_text() == "mine"
