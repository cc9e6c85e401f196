"""Plain words, fields of a form, and names that any disk takes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from unetsep.app import choices
from unetsep.app.choices import JobChoice, ModelOffer, formats, offered_names, safe_name
from unetsep.audio.formats import CONTAINERS
from unetsep.dsp.passes import MAX_PASSES
from unetsep.errors import AudioError, WeightsError
from unetsep.file_options import FileOptions
from unetsep.weights.manifest import add_user_model, list_models

OFFERS = {
    "guided": ModelOffer.of("guided", ["vocals", "drums", "bass", "other"]),
    "voice": ModelOffer("voice", "Voice", "", ("vocals",), "/models/voice.safetensors"),
}


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("My Song.mp3", "My Song"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Music\\AC: DC?.flac", "AC_ DC_"),
        ("/", "song"),
        ("..", "song"),
        (".wav", "wav"),
        ("", "song"),
        ("a\r\nSet-Cookie: x.mp3", "a__Set-Cookie_ x"),
        ("nul\0byte.wav", "nul_byte"),
        ("con.mp3", "con_"),
        ("con.txt", "con_.txt"),
        ("Ünïcode - 歌.ogg", "Ünïcode - 歌"),
        ("gepj\u202e3pm.exe", "gepj3pm.exe"),
        ("dots. . .mp3", "dots"),
        ("no suffix", "no suffix"),
        ("Mr. Blue", "Mr. Blue"),
        ("Vol. 2.MP3", "Vol. 2"),
        ("\udcff.mp3", "_"),
        ("Say %22Hi%22.mp3", "Say _Hi_"),  # as browsers send quotes
        ("a%0D%0Ab 100%25.mp3", "a__b 100%25"),
    ],
)
def test_an_uploaded_name_becomes_a_safe_one(sent: str, name: str) -> None:
    assert safe_name(sent) == name


def test_a_long_name_is_cut_to_what_file_systems_take(tmp_path: Path) -> None:
    name = safe_name("歌" * 500 + ".mp3")
    assert 100 < len(name.encode()) <= choices.NAME_BYTES
    (tmp_path / f"{name} - vocals.wav").touch()


def test_fields_become_a_choice_and_the_first_model_is_the_default() -> None:
    choice = JobChoice.from_fields({}, OFFERS)
    assert (choice.offer, choice.passes, choice.player) == (OFFERS["guided"], 1, False)
    assert choice.options == FileOptions()
    assert JobChoice.from_fields(dict.fromkeys(choices.FIELDS, ""), OFFERS) == choice
    choice = JobChoice.from_fields({"model": "voice", "player": "true", "passes": "2"}, OFFERS)
    assert (choice.offer, choice.passes, choice.player) == (OFFERS["voice"], 2, True)


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        (
            {"stems": "drums, bass", "format": "mp3", "bitrate": "192k"},
            {"stems": ["drums", "bass"], "container": "mp3", "bitrate": 192_000},
        ),
        (
            {"format": "FLAC", "bit_depth": "24", "sample_rate": "48000"},  # as with --format
            {"container": "flac", "bit_depth": "24", "sample_rate": 48_000},
        ),
        ({"start": "1:30", "duration": "20"}, {"start": 90.0, "duration": 20.0}),
        ({"without": "vocals", "track": "2"}, {"without": "vocals", "track": 2}),
        ({"two_stems": "vocals"}, {"two_stems": "vocals"}),
    ],
)
def test_fields_mean_what_options_of_the_command_mean(
    fields: dict[str, str], options: dict[str, Any]
) -> None:
    choice = JobChoice.from_fields(fields, OFFERS)
    assert choice.options == FileOptions(**options)
    assert json.loads(json.dumps(choice.to_request())) == choice.to_request()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model": "x"}, "there is no model 'x': expected guided, voice"),
        ({"model": "voice", "two_stems": "drums"}, "has no stem 'drums': expected vocals"),
        ({"stems": "drums,piano"}, "has no stem 'piano'"),
        ({"stems": "drums", "two_stems": "drums"}, "choose either without, stems or two_stems"),
        ({"format": "exe"}, "there is no format 'exe': expected wav"),
        ({"bit_depth": "13"}, "there is no bit_depth '13'"),
        ({"bitrate": "loud"}, "'loud' is not a bit rate: expected 192k or 192000"),
        ({"bitrate": "192k"}, "wav has no bit rate: choose the format ogg, mp3"),
        ({"sample_rate": "999"}, r"sample_rate '999': expected 1000 to 1000000 Hz$"),
        ({"sample_rate": "1000001"}, "sample_rate '1000001': expected 1000 to 1000000"),
        ({"sample_rate": "44.1"}, "sample_rate '44.1': expected 1000 to 1000000"),
        ({"track": "0"}, "track '0': expected 1 to 1000$"),
        ({"start": "90x"}, "'90x' is not a time: expected seconds, 1:30 or 1:02:03"),
        ({"duration": "0"}, "duration must be more than 0 seconds"),
        ({"passes": "5"}, "there is no passes '5': expected 1, 2, 3, 4$"),
        ({"player": "maybe"}, "player 'maybe': expected true or false"),
        ({"modle": "guided"}, "unknown field 'modle'"),
    ],
)
def test_a_wrong_field_gets_a_message_of_one_sentence(
    fields: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        JobChoice.from_fields(fields, OFFERS)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"bit_depth": "16", "format": "mp3"}, "mp3 has no bit depth: leave it at auto, or choose"),
        ({"bit_depth": "32f", "format": "flac"}, "flac holds 8, 16 or 24 bits, not 32f: choose"),
    ],
)
def test_a_bit_depth_that_the_format_cannot_hold_is_refused(
    fields: dict[str, str], sentence: str
) -> None:
    with pytest.raises(AudioError, match=sentence):
        JobChoice.from_fields(fields, OFFERS)


def test_passes_go_up_to_the_maximum_of_a_separator() -> None:
    assert tuple(str(1 + number) for number in range(MAX_PASSES)) == choices.PASSES


def test_the_first_model_is_also_offered_with_two_passes() -> None:
    rows = choices.qualities(list(OFFERS.values()))
    assert [(row["model"], row["passes"]) for row in rows] == [
        ("guided", 1),
        ("guided", 2),
        ("voice", 1),
    ]
    titles = [row["title"] for row in rows]
    assert titles[1] == f"{titles[0]}, heard twice"
    assert len(set(titles)) == 3
    for row in rows:
        fields = {name: str(row[name]) for name in ("model", "passes")}
        assert JobChoice.from_fields(fields, OFFERS).passes == row["passes"]


def test_every_usual_model_and_format_has_a_description() -> None:
    assert offered_names(()) == ["guided", "fast", "open"]
    assert set(choices.MODEL_WORDS) <= {entry.name for entry in list_models()}
    separate = [name for name, container in CONTAINERS.items() if not container.together]
    assert separate == list(choices.FORMAT_WORDS)
    assert {row["name"] for row in formats()} >= {"wav", "flac", "ogg", "mp3", "opus"}
    assert ModelOffer.of("l1", ["vocals"]).description == "Complex spectrogram L1."


def test_imported_models_are_offered_unless_their_name_is_an_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNETSEP_HOME", str(tmp_path))
    for name in ("mse-long", "mine"):  # the first answers no more: it is another name of fast
        entry = dataclasses.replace(list_models()[0], name=name, source={"kind": "test"})
        add_user_model(entry, b"")
    assert offered_names(()) == ["guided", "fast", "open", "mine"]


def test_only_the_worker_gets_the_path_of_a_model() -> None:
    offer = ModelOffer.of("/secret/place/mine.safetensors", ["vocals"])
    assert offer.to_json()["name"] == "mine"
    assert "secret" not in str(offer.to_json())
    assert JobChoice(offer).to_request()["model"] == "/secret/place/mine.safetensors"
    with pytest.raises(ValueError, match="two models are called l1: expected"):
        offered_names(["a/l1.safetensors", "l1"])


def test_formats_of_ffmpeg_are_offered_only_with_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "find_ffmpeg", lambda: "/usr/bin/ffmpeg")
    assert JobChoice.from_fields({"format": "m4a"}, OFFERS).options.container == "m4a"
    monkeypatch.setattr(choices, "find_ffmpeg", lambda: None)
    with pytest.raises(ValueError, match="there is no format 'm4a': expected wav"):
        JobChoice.from_fields({"format": "m4a"}, OFFERS)


def test_a_missing_model_is_refused_and_not_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="nothing"):
        offered_names(["nothing"])
    monkeypatch.setattr("unetsep.weights.manifest.BUNDLED", Path("/nowhere"))
    with pytest.raises(WeightsError, match="run unetsep models download l1 first"):
        offered_names(["l1"])
