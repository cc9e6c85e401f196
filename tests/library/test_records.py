from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from unetsep.inputs import Input
from unetsep.library.records import SCHEMA, InputFile, Recipe, Record, record_path

RECIPE = Recipe([("mse", "aa")], {"stems": ["bass", "drums"], "start": 0.0}, "1.0")


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "song.wav"
    path.write_bytes(b"music")
    return path


@pytest.fixture
def targets(tmp_path):
    paths = [tmp_path / "out" / f"{stem}.wav" for stem in ("drums", "bass")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(path.stem.encode())
    return paths


@pytest.fixture
def record(tmp_path, targets, source):
    record = Record(tmp_path / "out/.unetsep.wav.json")
    record.write(entry(source))
    return record


def entry(source: Path, *, complete: bool = True, **outputs: int) -> dict[str, object]:
    file = InputFile(source)
    return {
        "complete": complete,
        "input": {**file.facts, "sha256": file.sha256},
        **RECIPE.to_dict(),
        "outputs": outputs or {"drums.wav": 5, "bass.wav": 4},
    }


def test_stems_are_the_same_if_all_matches_the_record(record, targets, source):
    assert record.compare(InputFile(source), targets, RECIPE).state == "current"
    assert record.compare(InputFile(source), targets[::-1], RECIPE).state == "current"


def test_differences_name_a_file_of_the_record(record, targets, source):
    record.write(entry(source, **{"bass.wav": 4}))
    finding = record.compare(InputFile(source), targets, replace(RECIPE, edition=2))
    assert finding.reason.startswith(f"{targets[1]} was made by unetsep 1.0")


def test_absent_stems_are_missing_or_incomplete(record, targets, source):
    targets[0].unlink()
    assert record.compare(InputFile(source), targets, RECIPE).state == "incomplete"
    targets[1].unlink()
    assert record.compare(InputFile(source), targets, RECIPE).state == "missing"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"models": [("l1", "bb")]}, "was made by mse"),
        ({"models": [("mse", "aa"), ("l1", "bb")]}, "was made by mse"),
        ({"options": {"stems": ["bass"], "start": 0.0}}, "was made with stems bass, drums"),
        ({"options": {"stems": ["bass", "drums"], "start": 1.0}}, "was made with start 0.0"),
        ({"options": {**RECIPE.options, "new": 1}}, "was made with new not given"),
        ({"edition": 2}, "was made by unetsep 1.0"),
        ({"edition": 2, "options": {"new": 1}}, "was made by unetsep 1.0"),
    ],
)
def test_a_changed_recipe_is_named_by_its_change(record, targets, source, change, reason):
    finding = record.compare(InputFile(source), targets, replace(RECIPE, **change))
    assert finding.state == "different"
    assert reason in finding.reason


@pytest.mark.parametrize("recorded", [{}, {"stems_edition": 1}])
def test_another_version_that_makes_the_same_stems_is_the_same(record, targets, source, recorded):
    fields = entry(source)
    fields.pop("stems_edition")
    record.write(fields | recorded)
    recipe = replace(RECIPE, version="1.1", edition=1)
    assert record.compare(InputFile(source), targets, recipe).state == "current"


def test_the_same_model_under_another_name_is_the_same(record, targets, source):
    recipe = replace(RECIPE, models=[("copy", "aa")])
    assert record.compare(InputFile(source), targets, recipe).state == "current"


def test_the_song_is_compared_by_content(record, targets, source, tmp_path):
    moved = source.rename(tmp_path / "moved.wav")
    os.utime(moved, (5, 5))
    assert record.compare(InputFile(moved), targets, RECIPE).state == "current"
    moved.write_bytes(b"MUSIC")
    finding = record.compare(InputFile(moved), targets, RECIPE)
    assert finding.state == "different"
    assert "another version of the song" in finding.reason


def test_a_song_of_known_size_and_time_is_not_hashed(record, targets, source, monkeypatch):
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("unetsep.library.records.hashlib.sha256", fail)
    assert record.compare(InputFile(source), targets, RECIPE).state == "current"


def test_stems_of_another_size_or_time_count_as_changed(record, targets, source):
    for change in (b"other", b"longer than it was"):
        targets[0].write_bytes(change)
        os.utime(targets[0], (2**32,) * 2 if len(change) == 5 else None)
        finding = record.compare(InputFile(source), targets, RECIPE)
        assert finding.state == "different"
        assert finding.reason == f"{targets[0]} was changed after it was made"


@pytest.mark.parametrize("field", [{}, {"audio": []}, {"audio": {}}, {"audio": {"drums.wav": 5}}])
def test_a_record_without_the_sound_of_a_stem_compares_its_size(record, targets, source, field):
    record.write(entry(source) | field)
    targets[0].write_bytes(b"longer than it was")
    assert record.compare(InputFile(source), targets, RECIPE).state == "different"


def test_stems_made_before_the_clock_was_set_back_are_not_changed(record, targets, source):
    made = targets[0].stat().st_mtime + 3600
    for path in targets:
        os.utime(path, (made, made))
    for outputs in ({}, {"vocals.wav": 9}):  # in the middle of a run, and before another one
        record.write(entry(source, **outputs))
        assert record.compare(InputFile(source), targets, RECIPE).state == "current"
    os.utime(targets[0], (made + 10, made + 10))
    finding = record.compare(InputFile(source), targets, RECIPE)
    assert finding.reason == f"{targets[0]} was changed after it was made"


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", '{"schema": 99, "entries": []}', '{"schema": 1, "entries": [{}]}']
)
def test_stems_without_a_readable_record_are_of_unknown_origin(record, targets, source, text):
    record.restore(text)
    finding = record.compare(InputFile(source), targets, RECIPE)
    assert finding.state == "different"
    assert finding.reason == f"no record says what made {targets[0]}"


def test_an_incomplete_entry_makes_stems_incomplete(record, targets, source):
    record.write(entry(source, complete=False))
    assert record.compare(InputFile(source), targets, RECIPE).state == "incomplete"


def test_a_new_entry_replaces_only_entries_of_its_stems(record, source):
    record.write(entry(source, **{"vocals.wav": 9}))
    assert len(record.entries()) == 2
    record.write(entry(source, **{"vocals.wav": 8, "drums.wav": 7}))
    assert [each["outputs"] for each in record.entries()] == [{"vocals.wav": 8, "drums.wav": 7}]
    assert json.loads(record.path.read_text())["schema"] == SCHEMA


def test_the_signature_changes_with_the_record(record, source):
    before = record.signature
    record.write(entry(source))
    assert record.signature not in (before, None)
    record.restore(None)
    assert record.signature is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{track}/{stem}.{ext}", "out/disc/song/.unetsep.wav.json"),
        ("{model}/{track}/{stem}.{ext}", "out/mse/disc/song/.unetsep.wav.json"),
        ("{stem}.{ext}", "out/.unetsep.wav.json"),
        ("{track}/{stem}-{model}.{ext}", r"out/disc/song/.unetsep.\w{12}.json"),
        ("{track}-{stem}.{ext}", r"out/disc/.unetsep.\w{12}.json"),
        ("{stem}/{track}.{ext}", r"out/.unetsep.\w{12}.json"),
        ("{track}.{ext}", r"out/disc/.unetsep.\w{12}.json"),
    ],
)
def test_records_are_in_the_common_folder_of_all_stems(template, expected):
    songs = [Input(Path("song.mp3"), track) for track in ("disc/song", "disc 2/song")]
    path, other = (
        record_path(Path("out"), template, song, ext="wav", model="mse") for song in songs
    )
    assert re.fullmatch(expected, path.as_posix())
    assert (other == path) == ("{track}" not in template)
