"""``recipes/label_check.py``."""

from __future__ import annotations

from pathlib import Path

from tests.commands import run_script
from tests.train.synthetic import write_musdb

SCRIPT = Path(__file__).parents[2] / "recipes" / "label_check.py"


def test_a_wrong_folder_is_one_sentence(tmp_path: Path, tiny_model: Path) -> None:
    folders = ["--songs", tmp_path / "none", "--cache", tmp_path]
    done = run_script(SCRIPT, *folders, "--model", tiny_model)
    assert done.code == 2
    assert f"label_check.py: error: there are no songs in {tmp_path / 'none'}" in done.stderr


def test_recordings_are_listed_with_what_is_heard_in_them(tmp_path: Path, tiny_model: Path) -> None:
    write_musdb(tmp_path / "musdb", ("A - B", "C - D", "Leaf - Summerghost"))
    folders = ["--musdb-root", tmp_path / "musdb", "--cache", tmp_path / "cache"]
    done = run_script(SCRIPT, *folders, "--model", tiny_model, "--below", "99")
    assert done.code == 0, done.stderr
    rows = [row.strip("| ").split(" | ") for row in done.stdout.splitlines()[2:]]
    assert {(row[0], row[1]) for row in rows} == {
        (song, stem) for song in ("A - B", "C - D") for stem in ("vocals", "drums", "bass", "other")
    }
    decibels = [float(row[2].removesuffix(" dB")) for row in rows]
    assert decibels == sorted(decibels)
    for row in rows:
        # Masks of a softmax add up to one, so no stem gets more than there is.
        assert all(0 <= int(share.removesuffix("%")) <= 100 for share in row[3:7])
        assert row[7] == "0 s"
