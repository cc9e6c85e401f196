from __future__ import annotations

import codecs
import errno
import hashlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonschema
import mutagen
import numpy as np
import pytest
import soundfile
import torch
from click.testing import Result

import unetsep
from tests.commands import call
from tests.files import damage
from tests.signals import RATE, music
from unetsep.audio.reader import AudioReader
from unetsep.cli import CONTEXT
from unetsep.cli.options.evaluate import evaluate
from unetsep.cli.options.separate import separate
from unetsep.config import STEMS, ModelConfig
from unetsep.library.log import SCHEMA_FILE
from unetsep.network.unet import UNet
from unetsep.separator import Separator
from unetsep.weights.checkpoint import serialize

TOO_LONG = "path is too long" if os.name == "nt" else "File name too long"


@pytest.fixture
def run(tiny_model, tmp_path):
    """Run ``unetsep separate`` in this process, with the tiny model, into ``out``."""

    def separate(*arguments: object, out: str = "out", model: object = tiny_model) -> Result:
        fixed = ["separate", "-m", model, "-d", "cpu", "-o", tmp_path / out]
        result = call(*fixed, *arguments)
        assert "Traceback" not in result.stderr
        return result

    return separate


def names(folder: Path) -> list[str]:
    """All files but the hidden records of how they were made, and the logs of runs."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    records = {*folder.rglob(".unetsep.*.json"), *folder.glob("unetsep-*.jsonl")}
    names = [path.relative_to(folder).as_posix() for path in files if path not in records]
    return sorted(names)


def of_song(track: str, ext: str = "wav") -> list[str]:
    return sorted(f"{track}/{stem}.{ext}" for stem in STEMS)


def test_a_song_becomes_four_stems_that_sum_to_it(run, song, tmp_path):
    path = song("my song.wav", seconds=2, subtype="FLOAT")
    result = run(path)
    assert result.exit_code == 0
    assert names(tmp_path / "out") == of_song("my song")
    stems = [soundfile.read(tmp_path / "out" / name)[0] for name in of_song("my song")]
    np.testing.assert_allclose(np.sum(stems, axis=0), soundfile.read(path)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("source", "options", "subtype"),
    [
        ("PCM_16", ["-f", "wav"], "PCM_16"),
        ("PCM_24", ["-f", "wav"], "PCM_24"),
        ("FLOAT", ["-f", "wav"], "FLOAT"),
        ("FLOAT", ["--bit-depth", "16"], "PCM_16"),
        ("PCM_16", ["-f", "flac"], "PCM_16"),
        ("FLOAT", ["-f", "flac"], "PCM_24"),
        ("PCM_16", ["-f", "ogg"], "VORBIS"),
        ("PCM_16", ["-f", "mp3"], "MPEG_LAYER_III"),
    ],
)
def test_stems_have_the_chosen_format_and_bit_depth(run, song, tmp_path, source, options, subtype):
    assert run(song(subtype=source), *options).exit_code == 0
    files = sorted((tmp_path / "out/song").glob("[!.]*"))
    assert len(files) == 4
    for path in files:
        info = soundfile.info(path)
        assert (info.subtype, info.frames, info.samplerate) == (subtype, RATE, RATE)
        assert info.channels == 2


@pytest.mark.parametrize(
    ("rate", "channels"), [(8000, 1), (22_050, 2), (48_000, 6), (96_000, 1), (192_000, 2)]
)
def test_stems_have_the_rate_of_the_song_and_sum_to_it(run, song, tmp_path, rate, channels):
    path = song(rate=rate, channels=channels, seconds=0.5, subtype="FLOAT")
    assert run(path).exit_code == 0
    parts = [soundfile.read(tmp_path / "out" / name) for name in of_song("song")]
    assert {part[1] for part in parts} == {rate}
    whole = soundfile.read(path)[0]
    np.testing.assert_allclose(np.sum([p[0] for p in parts], axis=0), whole, atol=1e-5)


def test_folders_are_mirrored_and_other_files_left_alone(run, song, tmp_path):
    for name in ("in/a.wav", "in/disc 1/b.flac", "in/.hidden.wav"):
        song(name, seconds=0.2)
    (tmp_path / "in/notes.txt").write_text("no audio")
    assert run(tmp_path / "in").exit_code == 0
    assert names(tmp_path / "out") == sorted(of_song("a") + of_song("disc 1/b"))


def test_output_inside_the_input_folder_is_not_separated_again(run, song, tmp_path):
    song("in/a.wav", seconds=0.2)
    for _ in range(2):
        assert run(tmp_path / "in", "--overwrite", out="in/out").exit_code == 0
    assert names(tmp_path / "in/out") == of_song("a")


@pytest.mark.parametrize("name", ["{track}/{stem}.{ext}", "{stem}/{track}.{ext}"])
def test_the_next_run_does_not_separate_stems_beside_songs(run, song, tmp_path, name):
    for track in ("a", "b/other"):
        song(f"in/{track}.wav", seconds=0.2)
    words = ("--stems", "vocals,other", "--filename", name)
    for way in ("--overwrite", "--skip-existing"):
        result = run(tmp_path / "in", *words, way, out="in")
        assert result.exit_code == 0, result.stderr
        assert len(names(tmp_path / "in")) == 2 + 4
    stem = tmp_path / "in" / name.format(track="a", stem="vocals", ext="wav")
    assert run(stem, *words, out="out").exit_code == 0  # a stem that is named is a song
    assert len(names(tmp_path / "out")) == 2


@pytest.mark.parametrize("name", ["{track}/{stem}.{ext}", "{stem}/{track}.{ext}"])
def test_the_next_run_does_not_separate_stems_in_a_linked_folder(run, song, tmp_path, name):
    song("in/a.wav", seconds=0.2)
    song("elsewhere/b.wav", seconds=0.2)
    try:
        (tmp_path / "in/album").symlink_to("../elsewhere")
    except OSError:
        pytest.skip("no links here")
    for _ in range(2):
        words = ("--instrumental", "--filename", name, "--skip-existing", "--json")
        result = run(tmp_path / "in", *words, out="in")
        assert result.exit_code == 0, result.stderr
        sources = [json.loads(line)["source"] for line in result.stdout.splitlines()]
        assert sources == [str(tmp_path / "in" / path) for path in ("a.wav", "album/b.wav")]


@pytest.mark.parametrize("name", ["{track}/{stem}.{ext}", "{stem}/{track}.{ext}"])
def test_stems_of_earlier_output_folders_are_not_separated(run, song, tmp_path, name):
    for track in ("a", "b/other"):
        song(f"in/{track}.wav", seconds=0.2)
    words = ("--stems", "vocals,other", "--filename", name)
    for out, skipped in (("in/first", 0), ("in/second", 4), ("third", 8)):
        result = run(tmp_path / "in", *words, out=out)
        assert result.exit_code == 0, result.stderr
        assert len(names(tmp_path / out)) == 4
        note = f"Stems that unetsep made, skipped: {skipped}\n"
        assert (note in result.stderr) == (skipped > 0)
    # Named by themselves they are songs; as some of a folder's entries (*) they are not.
    assert run(tmp_path / "in/first", *words, "--dry-run").stdout.count("\n") == 4 * 2
    result = run(*sorted((tmp_path / "in").iterdir()), *words, "--dry-run")
    assert result.stdout.count("\n") == 2 * 2
    assert "skipped: 8\n" in result.stderr


def test_stems_in_a_folder_of_the_output_are_not_separated(run, song, tmp_path):
    song("in/album/a.wav", seconds=0.2)
    assert run(tmp_path / "in", out="in").exit_code == 0
    result = run(tmp_path / "in/album", "--dry-run", "--json", "--skip-existing", out="in")
    (report,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert report["source"] == str(tmp_path / "in/album/a.wav")
    result = run(tmp_path / "in/album/a", "--dry-run", out="in")
    assert "holds only stems that unetsep made: to separate them choose" in result.stderr
    assert run(tmp_path / "in/album/a", "--dry-run").stdout.count("\n") == 4 * 4


def test_chosen_stems_are_written_and_two_stems_add_up(run, song, tmp_path):
    path = song(seconds=0.3, subtype="FLOAT")
    assert run(path, "--stems", "drums,vocals").exit_code == 0
    assert names(tmp_path / "out") == ["song/drums.wav", "song/vocals.wav"]
    assert run(path, "--two-stems", "bass", out="two").exit_code == 0
    assert names(tmp_path / "two") == ["song/bass.wav", "song/no_bass.wav"]
    pair = [soundfile.read(tmp_path / "two" / name)[0] for name in names(tmp_path / "two")]
    np.testing.assert_allclose(sum(pair), soundfile.read(path)[0], atol=1e-5)


def test_several_models_write_a_folder_and_a_report_each(run, song, tmp_path, tiny_model):
    second = tmp_path / "second.safetensors"
    second.write_bytes(tiny_model.read_bytes())
    result = run(song(seconds=0.3), "--json", model=f"{tiny_model},{second}")
    assert result.exit_code == 0
    assert names(tmp_path / "out") == sorted(of_song("tiny/song") + of_song("second/song"))
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["model"] for report in reports] == ["tiny", "second"]


def test_an_error_is_shown_once_however_many_models_there_are(run, tmp_path, tiny_model):
    second = tmp_path / "second.safetensors"
    second.write_bytes(tiny_model.read_bytes())
    result = run(tmp_path / "none.wav", model=f"{tiny_model},{second}")
    assert result.exit_code == 1
    assert result.stderr.count("does not exist") == 1


def test_partly_replaced_stems_are_separated_again(run, song, tmp_path, monkeypatch):
    path, replace = song(seconds=0.2), Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "bass.wav":  # the third; on Windows a player may hold it
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    assert run(path).exit_code == 0
    song(path.name, seconds=0.2, seed=7)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        result = run(path, "--overwrite")
    assert result.exit_code == 1
    assert "only some of its stems were replaced: --skip-existing --over" in result.stderr
    result = run(path, "--skip-existing", "--json")
    assert json.loads(result.stdout)["status"] == "ok", result.stderr
    stems = [soundfile.read(stem)[0] for stem in (tmp_path / "out").rglob("*.wav")]
    assert len(stems) == 4
    np.testing.assert_allclose(sum(stems), soundfile.read(path)[0], atol=4 / 32768)


def test_one_bad_file_does_not_stop_the_others(run, song, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio at all")
    result = run(tmp_path / "bad.wav", song("good.wav", seconds=0.2), tmp_path / "gone.wav")
    assert result.exit_code == 1
    assert names(tmp_path / "out") == of_song("good")
    assert "2 of 3 failed" in result.stderr


def test_report_has_status_rate_channels_length_and_stems(run, song):
    result = run(song(rate=22_050, channels=1), "--json", "--quiet")
    (report,) = [json.loads(line) for line in result.stdout.splitlines()]
    assert report["status"] == "ok"
    assert (report["sample_rate"], report["channels"], report["seconds"]) == (22_050, 1, 1.0)
    assert list(report["stems"]) == list(STEMS)
    assert all(Path(path).is_file() for path in report["stems"].values())
    assert report["warnings"] == []
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("{stem}/{track}.{ext}", "out"),
        ("{track}/{stem}.{ext}", "out/a"),
        ("{track}/x/{stem}/s.{ext}", "out/a/x"),
    ],
)
def test_the_message_names_the_folder_of_all_stems(run, song, tmp_path, template, place):
    path = song("a.wav", seconds=0.1)
    result = run(path, "--filename", template)
    assert f"a.wav: vocals, drums, bass, other in {tmp_path / place} (0.1 s" in result.stderr
    result = run(path, "--filename", template, "--stems", "bass", "--overwrite")
    assert re.search(
        rf"a.wav: bass in {re.escape(str(tmp_path))}[/\\]\S+\.wav \(0\.1 s", result.stderr
    )


def test_warnings_are_shown_and_reported(run, song):
    path = song("a.ogg", seconds=3)
    path.write_bytes(path.read_bytes()[:-3000])
    result = run(path, "--json")
    assert result.exit_code == 0
    assert result.stderr.count("Warning: ") == 1
    assert "no end mark" in json.loads(result.stdout)["warnings"][0]


@pytest.mark.usefixtures("need_ffmpeg")
@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg"])
def test_a_damaged_song_is_separated_with_a_warning(run, song, name):
    path = damage(song(name, seconds=6), "zeros", 0.5)
    assert "damaged" not in run(path, "--dry-run").stderr
    result = run(path, "--json")
    assert result.exit_code == 0
    assert result.stderr.count("Warning: ") == 1
    report = json.loads(result.stdout)
    assert "is damaged in places" in report["warnings"][0]
    assert 4.5 < report["seconds"] < 6.1
    for stem in report["stems"].values():
        assert soundfile.info(stem).duration == pytest.approx(report["seconds"], abs=1e-3)


@pytest.mark.usefixtures("need_ffmpeg")
def test_a_damaged_song_on_stdin_is_separated_with_a_warning(song, run_with_pipes):
    content = damage(song("a.flac", seconds=3), "zeros", 0.5).read_bytes()
    code, stem, error = run_with_pipes("-", "-o", "-", "--stems", "bass", content=content)
    assert code == 0, error
    assert "Warning: stdin is damaged in places; from 1." in error
    assert 2 < soundfile.info(io.BytesIO(stem)).duration <= 3


def test_existing_stems_are_replaced_only_with_overwrite(run, song, tmp_path):
    path = song(seconds=0.2)
    assert run(path).exit_code == 0
    before = (tmp_path / "out/song/bass.wav").read_bytes()
    (tmp_path / "out/song/bass.wav").write_bytes(b"precious")
    result = run(path)
    assert result.exit_code == 1
    assert "already exists: use --overwrite or --skip-existing" in result.stderr
    assert (tmp_path / "out/song/bass.wav").read_bytes() == b"precious"
    result = run(path, "--skip-existing", "--json")
    assert result.exit_code == 1
    assert "bass.wav was changed after it was made" in json.loads(result.stdout)["error"]
    assert (tmp_path / "out/song/bass.wav").read_bytes() == b"precious"
    assert run(path, "--overwrite").exit_code == 0
    assert (tmp_path / "out/song/bass.wav").read_bytes() == before


def test_skip_existing_completes_what_is_missing_with_the_same_bytes(run, song, tmp_path):
    paths = [song("a.wav", seconds=0.2, subtype="FLOAT"), song("b.wav", seconds=0.2)]
    assert run(*paths, out="whole").exit_code == 0
    assert run(*paths).exit_code == 0
    (tmp_path / "out/a/drums.wav").unlink()
    result = run(*paths, "--skip-existing", "--json")
    assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == ["ok", "skipped"]
    for name in names(tmp_path / "whole"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_clash_and_existing_stems_do_not_stop_other_songs(run, song, tmp_path):
    for name in ("01 Intro.flac", "01 Intro.wav", "02.wav", "03.wav"):
        song(f"in/{name}", seconds=0.2)
    (tmp_path / "out/02").mkdir(parents=True)
    (tmp_path / "out/02/bass.wav").write_text("mine")
    result = run(tmp_path / "in", "--json")
    assert result.exit_code == 1
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [report["status"] for report in reports] == ["error", "error", "error", "ok"]
    # Once when it happens, once at the end.
    assert result.stderr.count("would both be written to") == 2
    assert result.stderr.count("already exists") == 2
    assert "3 of 4 failed" in result.stderr
    assert names(tmp_path / "out") == ["02/bass.wav", *of_song("03")]
    assert (tmp_path / "out/02/bass.wav").read_text() == "mine"


def test_a_cue_sheet_beside_its_song_does_not_stop_it(run, song, tmp_path):
    path = song("b.wav", seconds=0.2)
    (tmp_path / "b.cue").write_text("FILE b.wav WAVE")
    result = run(tmp_path / "b.cue", path)
    assert result.exit_code == 0
    assert "Not audio by name, skipped: 1 .cue" in result.stderr
    assert names(tmp_path / "out") == of_song("b")
    alone = run(tmp_path / "b.cue", out="alone")
    assert alone.exit_code == 1
    assert "b.cue" in alone.stderr


def test_skip_existing_refuses_stems_of_other_models_and_options(run, song, tmp_path):
    path = song(seconds=0.2)
    assert run(path).exit_code == 0
    other = tmp_path / "tiny.safetensors"
    network = UNet(ModelConfig(filters=(4, 4, 4, 4, 4, 4), segment_frames=64))
    other.write_bytes(serialize(network))
    (tmp_path / "out/song/drums.wav").unlink()
    before = (tmp_path / "out/song/vocals.wav").read_bytes()
    changed = ({"model": other}, {"more": ["--wiener", "1"]}, {"more": ["--passes", "2"]})
    for options in changed:
        more = options.pop("more", [])
        result = run(path, "--skip-existing", *more, **options)
        assert result.exit_code == 1
        assert "left alone, " in result.stderr
        assert (tmp_path / "out/song/vocals.wav").read_bytes() == before
    assert run(path, "--skip-existing", "--overwrite", model=other).exit_code == 0
    assert (tmp_path / "out/song/vocals.wav").read_bytes() != before
    result = run(path, "--skip-existing", "--overwrite", "--json", model=other)
    assert json.loads(result.stdout)["status"] == "skipped"
    assert result.stderr == "1 of 1 skipped, their stems exist\n"


@pytest.mark.parametrize(
    "template", ["{stem}/{track}.{ext}", "{track}-{stem}.{ext}", "{track} {stem}.wav"]
)
def test_songs_that_share_folders_have_records_of_their_own(run, song, tmp_path, template):
    for seed, name in enumerate(("in/x/a.wav", "in/y/a.wav", "in/b.wav")):
        song(name, seconds=0.2, seed=seed)
    assert run(tmp_path / "in", "--filename", template).exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    result = run(tmp_path / "in", "--filename", template, "--skip-existing")
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == "3 of 3 skipped, their stems exist"
    song("in/x/a.wav", seconds=0.3, seed=9)
    result = run(tmp_path / "in", "--filename", template, "--skip-existing")
    assert result.exit_code == 1
    assert "was made from another version of the song" in result.stderr
    assert "2 of 3 skipped" in result.stderr
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.*")}
    (log,) = (tmp_path / "out").glob("unetsep-*.jsonl")
    assert before | {log: after[log]} == after


def test_other_files_in_folders_are_reported_in_one_line(run, song, tmp_path):
    song("in/a.wav", seconds=0.1)
    for name in ("cover.jpg", "back.jpg", "notes.txt"):
        (tmp_path / "in" / name).touch()
    result = run(tmp_path / "in")
    assert result.exit_code == 0
    assert result.stderr.count("Not audio by name, skipped: 2 .jpg, 1 .txt\n") == 1


def test_the_summary_repeats_no_more_than_twenty_errors(run, tmp_path):
    result = run(*(tmp_path / f"{number}.wav" for number in range(23)))
    assert result.stderr.count("Error:") == 23
    reasons = result.stderr.partition("23 of 23 failed:\n")[2].splitlines()
    assert [reason.endswith(" does not exist") for reason in reasons[:20]] == [True] * 20
    assert reasons[20] == "  and 3 more"


def test_a_song_that_breaks_the_decoder_does_not_stop_others(run, song, tmp_path, monkeypatch):
    def read(path: Path, **options: float | None) -> AudioReader:
        if path.name == "bad.wav":
            raise TypeError("samplerate must be specified")
        return AudioReader(path, **options)

    monkeypatch.setattr("unetsep.files.AudioReader", read)
    result = run(song("bad.wav", seconds=0.1), song("good.wav", seconds=0.1))
    assert result.exit_code == 1
    assert "bad.wav: unexpected TypeError: samplerate must be specified" in result.stderr
    assert names(tmp_path / "out") == of_song("good")


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "mp3"])
def test_two_runs_give_the_same_bytes(run, song, tmp_path, container):
    path = song(seconds=0.5, subtype="FLOAT")
    assert run(path, "-f", container, out="one").exit_code == 0
    assert run(path, "-f", container, out="two").exit_code == 0
    for name in of_song("song", container):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_stem_that_would_clip_lowers_all_stems_alike(run, tmp_path):
    soundfile.write(tmp_path / "loud.wav", 3.2 * music(2).T, RATE, subtype="FLOAT")
    assert run(tmp_path / "loud.wav", out="float").exit_code == 0
    result = run(tmp_path / "loud.wav", "--bit-depth", "24", "--json", "--two-stems", "vocals")
    report = json.loads(result.stdout)
    sums = [soundfile.read(path)[0] for path in report["stems"].values()]
    parts = [soundfile.read(tmp_path / "float" / n)[0] for n in of_song("loud")]
    gain = 10 ** (report["gain_db"] / 20)
    np.testing.assert_allclose(sum(sums), gain * np.sum(parts, axis=0), atol=1e-3)
    assert all(np.abs(stem).max() <= 1 for stem in sums)
    assert report["gain_db"] < 0
    assert "were lowered by" in result.stderr
    result = run(
        tmp_path / "loud.wav",
        *("--bit-depth", "24", "--json", "--two-stems", "vocals", "--skip-existing"),
    )
    assert "were lowered by" not in result.stderr
    own = {"status": "skipped", "elapsed": None, "speed": None}
    assert json.loads(result.stdout) == report | own | {"reason": "its stems exist"}


@pytest.mark.parametrize(
    "name",
    [
        "naïve 歌 🎵.wav",
        " leading and trailing .wav",
        "-dash.wav",
        "v1.2.final.mix.wav",
        "dots....wav",
        "..wav",
        "[brackets] {braces} %s.wav",
        'it\'s "quoted" & $HOME `ls`.wav',
        "UPPER.WAV",
        "line\nbreak.wav",
        "x" * 200 + ".wav",
    ],
)
def test_any_file_name_works(run, song, tmp_path, name):
    if os.name == "nt" and set(name) & set('"\n'):
        pytest.skip("no such names there")
    if os.name == "nt" and len(name) > 100:
        pytest.skip("paths are shorter there")
    path = song("in/" + name, seconds=0.1, container="WAV")
    result = run(path, "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["source"] == str(path)
    assert all(Path(p).parent.parent == tmp_path / "out" for p in report["stems"].values())


def test_names_that_are_not_unicode_work(song, tmp_path, tiny_model):
    if sys.platform in ("win32", "darwin"):
        pytest.skip("file names are unicode here")
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    song(seconds=0.1).rename(path)
    command = [sys.executable, "-m", "unetsep", "separate", "-m", tiny_model, "-o", tmp_path / "o"]
    done = subprocess.run([*command, path, "--json"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["source"] == path
    strict = os.environ | {"PYTHONIOENCODING": "utf-8"}
    listed = [
        *command,
        path,
        song("b.wav", seconds=0.1),
        "--dry-run",
        "--overwrite",
        "--stems",
        "bass",
    ]
    done = subprocess.run(listed, capture_output=True, check=False, env=strict)
    assert done.stdout.splitlines() == [
        os.fsencode(tmp_path) + name for name in (b"/o/caf\xe9/bass.wav", b"/o/b/bass.wav")
    ]


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_emoji_codes_in_names_are_shown_unchanged(run, song):
    path = song("a :fire: b.wav", seconds=0.1)
    assert "a :fire: b.wav: vocals" in run(path).stderr
    refusal = run(path).stderr
    assert "a :fire: b/vocals.wav already exists" in refusal
    assert "(4 files exist in all)" in refusal


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stems", "guitar"], "has no stem 'guitar': expected vocals, drums, bass, other"),
        (["--two-stems", "no"], "has no stem 'no'"),
        (["--stems", "piano"], "other; the model spleeter-5stems has one"),
        (["--stems", "instrumental"], "other; for the song without one of them use --without"),
        (["--stems", "no_drums"], "other; for the song without one of them use --without"),
        (["-f", "mp3", "--bitrate", "320"], "got 320; 320 kbit/s are 320000"),
        (["-m", "spleeter:4stems"], "get it by: unetsep models download spleeter-4stems"),
        (["--overlap", "0.9"], "overlap must be a number from 0 to 0.5, got 0.9"),
        (["--start", "-1"], "start must be 0 or more"),
        (["--start", "nan"], "start must be 0 or more"),
        (["--duration", "0"], "duration must be more than 0"),
        (["--start", "99"], "an excerpt cannot start at 99.00 s"),
        (["--filename", "{track}/{what}.wav"], "expected nothing but {track}"),
        (["--filename", "{filename}/{instrument}.{codec}"], "as in {track}/{stem}.{ext}"),
        (["--filename", "{track}_{stem}.mp3"], "end it with .{ext}, or choose the format mp3"),
        (["--filename", "../{stem}"], "must stay inside the output folder"),
        (["--filename", "/{stem}"], "must stay inside the output folder"),
        (["--filename", "{track}.wav"], "name {stem} in --filename"),
        (["--filename", "{stem"], "filename template"),
        (["--filename", "{stem:>9999999999999}"], "expected nothing but {track}"),
        (["--filename", "x" * 300 + "/{stem}.wav"], TOO_LONG),
        (["-f", "mp3", "--bit-depth", "16"], "mp3 has no bit depth"),
        (["-f", "flac", "--bit-depth", "32f"], "choose the format wav"),
        (["-m", "spleeter:2stems-16kHz"], "unetsep models download spleeter-2stems-16khz\n"),
        (["-m", "gudied"], "file; did you mean guided?\n"),
        (["-m", "htdemucs_ft"], "do not run here: name no model for the best stems\n"),
        (["-m", "UVR-MDX-NET-Inst_HQ_3.onnx"], "do not run here"),
        (["-m", "nothing"], "a .safetensors file\n"),
        (["-m", "nothing"], "there is no model 'nothing'"),
        (["-m", "none.safetensors"], "model file none.safetensors does not exist"),
        (["-m", ","], "expected names, separated by commas"),
        (["#", "stems"], "# starts no comment in this shell: leave it and what follows out"),
    ],
)
def test_wrong_options_get_a_message_of_one_sentence(run, song, tmp_path, arguments, message):
    result = run(song(seconds=0.2), *arguments)
    assert result.exit_code != 0
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "what"), [(["a.wav", "-o", ""], "'-o' / '--output'"), ([""], "'SONG...'")]
)
def test_an_empty_path_is_refused(arguments, what):
    result = call("separate", *arguments)
    assert result.exit_code == 2
    assert f"Invalid value for {what}: it must be a path, got ''" in result.stderr


def test_output_that_is_a_file_is_refused(run, song, tmp_path):
    (tmp_path / "out").write_text("here")
    result = run(song())
    assert result.exit_code == 1
    assert "is a file: name a folder with -o" in result.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_output_to_a_device_is_refused_with_what_writes_to_stdout(run, song):
    result = run(song(), "-o", "/dev/null", "--stems", "vocals")
    assert result.exit_code == 1
    assert "-o /dev/null is a device or a pipe, but stems are" in result.stderr
    assert "write one stem to stdout with -o -" in result.stderr


@pytest.mark.parametrize("threads", ["0", "-1", "99999", "many"])
def test_impossible_numbers_of_threads_are_refused_before_they_start(run, song, threads):
    result = run(song(seconds=0.1), "--threads", threads)
    assert result.exit_code == 2
    assert "Invalid value for '--threads'" in result.stderr


def test_names_that_are_too_long_are_refused(run, song, tmp_path):
    good = song(seconds=0.1)
    result = run(tmp_path / ("x" * 300 + ".wav"), good)
    assert result.exit_code == 1
    assert TOO_LONG in result.stderr
    assert names(tmp_path / "out") == of_song("song")
    result = run(good, out="y" * 300)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert TOO_LONG in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("0.5", 0.5), ("1:30", 90), ("1:02:03", 3723), ("90:00.25", 5400.25), ("0:07", 7)],
)
def test_times_are_seconds_or_clocks(text, seconds):
    words = ["song.wav", "--start", text, "--duration", text]
    found = separate.make_context("separate", words, **CONTEXT).params
    assert (found["start"], found["duration"]) == (seconds, seconds)
    found = evaluate.make_context("eval", ["--duration", text], **CONTEXT).params
    assert found["duration"] == seconds


@pytest.mark.parametrize("text", ["soon", "1:75", "1:60:00", "1:2:3:4", ":30", "1:", "-1:30", ""])
def test_an_invalid_time_is_refused_with_a_message(run, song, text):
    result = run(song(seconds=0.1), "--duration", text)
    assert result.exit_code == 2
    expected = f"{text!r} is not a time: expected seconds, 1:30 or 1:02:03"
    assert result.stderr.splitlines()[-1] == f"Error: Invalid value for '--duration': {expected}"


def test_an_excerpt_may_be_given_as_clock_times(run, song, tmp_path):
    path = song(seconds=3, subtype="FLOAT")
    assert run(path, "--start", "0:01", "--duration", "0:01.5").exit_code == 0
    assert run(path, "--start", "1", "--duration", "1.5", out="same").exit_code == 0
    for name in of_song("song"):
        assert soundfile.info(tmp_path / "out" / name).frames == 1.5 * RATE
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "same" / name).read_bytes()


def test_a_url_without_a_command_asks_whether_to_separate_it():
    url = "https://www.example.org//songs/a.mp3"
    result = call(url)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith(f"did you mean: unetsep separate {url}?")


@pytest.mark.parametrize("name", ["gone.mp3", "a song.wav", "here.xyz", "folder"])
def test_a_song_without_a_command_asks_whether_to_separate_it(song, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    song("a song.wav", seconds=0.1)
    (tmp_path / "here.xyz").write_text("")
    (tmp_path / "folder").mkdir()
    result = call(name, "--two-stems", "vocals")
    assert result.exit_code == 2
    told = result.stderr.splitlines()[-1]
    quote = ('"' if os.name == "nt" else "'") if " " in name else ""
    typed = f"{quote}{name}{quote}"
    advice = f"did you mean: unetsep separate {typed} --two-stems vocals?"
    assert told == f"Error: {name} is not a command; {advice}"
    advice = f"did you mean: unetsep separate --two-stems=vocals {typed}?"
    result = call("--two-stems=vocals", name)
    assert result.stderr.splitlines()[-1] == f"Error: a command is missing; {advice}"


@pytest.mark.parametrize("words", [["list"], ["models", "list"]])
def test_a_wish_to_list_models_is_told_how(words):
    result = call(*words)
    assert result.exit_code == 2
    assert result.stderr.endswith("list is not a command; did you mean: unetsep models?\n")


@pytest.mark.parametrize("word", ["nonsense", "x" * 300])
def test_an_unknown_command_gets_no_suggestion(word):
    result = call(word)
    assert result.exit_code == 2
    assert "did you mean: unetsep" not in call("--two-stems", word).stderr
    assert "No such command" in result.stderr
    assert "did you mean" not in result.stderr


def test_folder_without_audio_is_an_error(run, tmp_path):
    (tmp_path / "in").mkdir()
    result = run(tmp_path / "in")
    assert result.exit_code == 1
    assert "is a folder without audio files" in result.stderr


def test_verbose_shows_the_traceback(tiny_model, tmp_path):
    arguments = ["separate", "-v", "-m", str(tiny_model), str(tmp_path / "none.wav")]
    result = call(*arguments, "-o", tmp_path / "out")
    assert "Traceback" in result.stderr
    assert "Loaded tiny" in result.stderr


def test_decoder_chatter_stays_off_the_terminal(song, run_with_pipes, tmp_path):
    path = song("a.mp3", seconds=3)
    content = bytearray(path.read_bytes())
    content[20_000:20_400] = bytes(400)
    content[-4000:] = bytes(4000)
    path.write_bytes(content)
    _, _, error = run_with_pipes("-q", "-o", tmp_path / "o", path)
    lines = error.splitlines()
    assert all(line.startswith("Error: ") for line in lines), lines


def log_lines(folder: Path) -> list[dict[str, object]]:
    (log,) = folder.glob("unetsep-*.jsonl")
    return [json.loads(line) for line in log.read_bytes().splitlines()]


def test_a_run_over_several_songs_keeps_a_log(run, song, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio at all")
    good = song("good.wav", seconds=0.2)
    result = run(good, tmp_path / "bad.wav", "--json")
    first, second = log_lines(tmp_path / "out")
    assert (first["source"], first["status"], first["error"]) == (str(good), "ok", None)
    assert (second["status"], second["track"], second["reports"][0]["outputs"]) == (
        "error",
        "bad",
        {},
    )
    assert second["error"].startswith(str(tmp_path / "bad.wav"))
    assert first["input"]["sha256"] == hashlib.sha256(good.read_bytes()).hexdigest()
    outputs = first["reports"][0]["outputs"]
    assert outputs == {str(p): p.stat().st_size for p in (tmp_path / "out/good").glob("*.wav")}
    assert first["reports"][0]["recipe"]["options"]["container"] == "wav"
    assert json.loads(result.stdout.splitlines()[0]).items() <= first["reports"][0].items()
    (log,) = (tmp_path / "out").glob("*.jsonl")
    lines = result.stderr.splitlines()
    assert lines[-1] == f"Log: {log}"
    assert "1 of 2 songs separated: 0 s of audio in " in result.stderr
    assert lines[lines.index("1 of 2 failed:") + 1] == f"  {second['error']}"


def test_the_lines_of_logs_and_reports_are_what_the_schema_says(run, song, tmp_path):
    (tmp_path / "bad.wav").write_text("no audio at all")
    songs = [song("good.wav", seconds=0.2), tmp_path / "bad.wav", tmp_path / "gone.wav"]
    results = [run(*songs, "--json"), run(*songs, "--json", "--skip-existing")]
    schema = json.loads(SCHEMA_FILE.read_text())
    checks = {
        name: jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})
        for name in ("report", "song", "entry")
    }
    reports = [json.loads(line) for result in results for line in result.stdout.splitlines()]
    assert [r["status"] for r in reports] == ["ok", "error", "error", "skipped", "error", "error"]
    lines = log_lines(tmp_path / "out")
    assert len(lines) == 6
    entries = json.loads((tmp_path / "out/good/.unetsep.wav.json").read_text())["entries"]
    for name, values in (("report", reports), ("song", lines), ("entry", entries)):
        for value in values:
            checks[name].validate(value)
        # Nothing goes unsaid.
        assert set(values[0]) == set(schema["$defs"][name]["properties"])
    with pytest.raises(jsonschema.ValidationError):
        checks["song"].validate({key: lines[0][key] for key in lines[0] if key != "status"})


def test_a_single_song_leaves_no_log_unless_asked(run, song, tmp_path):
    assert run(tmp_path / "gone.wav").exit_code == 1
    assert not (tmp_path / "out").exists()
    assert run(song(seconds=0.1), "--log", tmp_path / "logs/a.jsonl").exit_code == 0
    assert not list((tmp_path / "out").glob("*.jsonl"))
    (line,) = (tmp_path / "logs/a.jsonl").read_text().splitlines()
    assert json.loads(line)["status"] == "ok"


def test_a_log_that_cannot_be_written_is_only_a_warning(run, song, tmp_path):
    (tmp_path / "file").write_text("")
    result = run(song(seconds=0.1), "--log", tmp_path / "file/a.jsonl")
    assert result.exit_code == 0
    assert "Warning: the log " in result.stderr


def test_a_file_that_is_no_log_is_refused_before_any_work(run, song, tmp_path):
    other = song("other.wav", seconds=0.1)
    before = other.read_bytes()
    result = run("--log", other, song("a.wav", seconds=0.1))  # as if --log were a flag
    assert result.exit_code == 1
    assert f"{other} is not a log, so no lines can be added" in result.stderr
    assert other.read_bytes() == before
    assert not (tmp_path / "out").exists()
    (tmp_path / "meta.json").write_text('{"title": "x"}\n')
    result = run("--log", tmp_path / "meta.json", song("a.wav", seconds=0.1))
    assert "is not a log, so no lines can be added" in result.stderr
    (tmp_path / "empty").touch()
    for _ in range(2):
        log = ("--log", tmp_path / "empty", "--overwrite")
        assert run(song("a.wav", seconds=0.1), *log).exit_code == 0
    assert len((tmp_path / "empty").read_text().splitlines()) == 2


def test_retry_failed_separates_what_failed_last_in_all_logs(run, song, tmp_path):
    bad = tmp_path / "in/deep/bad.wav"
    for name in ("in/good.wav", "in/deep/bad.wav", "in/worse.wav"):
        song(name, seconds=0.1)
    whole = bad.read_bytes()
    for path in (bad, tmp_path / "in/worse.wav"):
        path.write_text("no audio at all")
    assert run(tmp_path / "in").exit_code == 1
    bad.write_bytes(whole)
    result = run("--retry-failed", "--json")
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(Path(r["source"]).name, r["status"]) for r in reports] == [
        ("bad.wav", "ok"),
        ("worse.wav", "error"),
    ]
    assert names(tmp_path / "out") == sorted([*of_song("good"), *of_song("deep/bad")])
    result = run("--retry-failed", "--json")
    assert [Path(json.loads(li)["source"]).name for li in result.stdout.splitlines()] == [
        "worse.wav"
    ]
    assert run("--retry-failed", tmp_path / "in/good.wav", "--json").stdout == ""


def test_retry_failed_says_where_there_are_no_logs(run, tmp_path):
    result = run("--retry-failed", "-o", tmp_path / "nowhere")
    folder = tmp_path / "nowhere"
    assert result.stderr == (
        f"According to the logs in {folder}, where there are none, no song failed\n"
    )


def test_retry_failed_finds_songs_of_folders_and_playlists_that_were_missing(run, song, tmp_path):
    nas, playlist = tmp_path / "nas", tmp_path / "list.m3u"
    assert run(song("a.wav", seconds=0.1), nas, playlist).exit_code == 1
    song("nas/deep/b.wav", seconds=0.1), song("c.wav", seconds=0.1)
    playlist.write_text("c.wav\n")
    assert run("--retry-failed", nas, "--dry-run").stdout.count(str(Path("deep/b/x"))[:-1]) == 4
    assert run("--retry-failed", playlist, "--dry-run").stdout.count(f"c{os.sep}") == 4
    result = run("--retry-failed", "--json")
    assert result.exit_code == 0
    assert result.stdout.count('"ok"') == 2
    assert names(tmp_path / "out") == sorted([*of_song("a"), *of_song("c"), *of_song("deep/b")])
    for words in ((), (nas,), (nas / "deep/b.wav",)):
        result = run("--retry-failed", *words, "--json")
        assert (result.exit_code, result.stdout) == (0, "")


def test_songs_of_a_folder_that_could_not_be_read_are_retried_in_its_place(
    run, song, tmp_path, monkeypatch
):
    closed = tmp_path / "in/sub"
    for name in ("a", "sub/b", "sub/deep/c"):
        song(f"in/{name}.wav", seconds=0.1)
    scandir = os.scandir

    def refuse(path):
        if Path(path) == closed:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(unetsep.inputs.os, "scandir", refuse)
        assert run(tmp_path / "in").exit_code == 1
    for words in ((), (tmp_path / "in",), (closed,), (closed / "b.wav", closed / "deep")):
        result = run("--retry-failed", *words, "--json", "--dry-run")
        stems = [json.loads(line)["stems"]["bass"] for line in result.stdout.splitlines()]
        expected = [tmp_path / f"out/sub/{name}/bass.wav" for name in ("b", "deep/c")]
        assert [Path(stem) for stem in stems] == expected
    assert run("--retry-failed", tmp_path / "in/a.wav", "--json").stdout == ""


def test_retry_failed_repeats_the_message_about_a_song_that_still_cannot_be_opened(
    run, song, tmp_path
):
    long, bad = tmp_path / f"{300 * 'x'}.wav", song("bad.wav", seconds=0.1)
    whole = bad.read_bytes()
    bad.write_bytes(b"no audio at all")
    first = run(long, bad, "--json")
    bad.write_bytes(whole)
    second = run("--retry-failed", "--json")
    for result in (first, second):
        assert result.exit_code == 1
        reports = {r["source"]: r for r in map(json.loads, result.stdout.splitlines())}
        assert reports[str(long)]["error"].startswith(f"{long} cannot be opened: ")
    assert reports[str(bad)]["status"] == "ok"


def test_retry_failed_skips_songs_separated_since_their_folder_failed(run, song, tmp_path):
    nas = tmp_path / "in/nas"
    assert run(song("a.wav", seconds=0.1), nas).exit_code == 1
    for name in "bc":
        song(f"in/nas/{name}.wav", seconds=0.1)
    assert run(tmp_path / "in").exit_code == 0
    song("in/nas/d.wav", seconds=0.1)
    result = run("--retry-failed", "--bit-depth", "24", "--json")
    assert result.exit_code == 0
    assert [Path(json.loads(each)["source"]).name for each in result.stdout.splitlines()] == [
        "d.wav"
    ]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
def test_pipes_and_devices_do_not_stop_other_songs(run, song, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    paths = (song("a.wav", seconds=0.1), tmp_path / "pipe.wav", "/dev/zero")
    for words in ((), ("--filename", "{artist}/{title}-{stem}.{ext}")):
        result = run(*paths, *words)
        assert result.exit_code == 1
        assert "2 of 3 failed" in result.stderr
        assert result.stderr.count("Error: ") == 2
    assert len(names(tmp_path / "out")) == 8


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
@pytest.mark.parametrize("words", [(), ("--dry-run",)], ids=["a run", "a dry run"])
def test_pipes_and_devices_are_not_replaced_by_stems(run, song, tmp_path, words):
    path = song("a.wav", seconds=0.1)
    (tmp_path / "out" / "a").mkdir(parents=True)
    pipe = tmp_path / "out" / "a" / "vocals.wav"
    os.mkfifo(pipe)
    result = run(path, "--overwrite", *words)
    assert result.exit_code == 1
    assert f"Error: {pipe} is a device or a pipe, which stays: choose another" in result.stderr
    assert pipe.is_fifo()
    assert list(pipe.parent.iterdir()) == [pipe]
    pipe.unlink()
    (tmp_path / "place").mkdir()
    for target in ("/dev/null", tmp_path / "place"):
        pipe.symlink_to(target)
        assert run(path, "--overwrite", *words).exit_code == 0
        assert pipe.is_symlink() == bool(words)
        pipe.unlink()
    assert Path("/dev/null").is_char_device()
    assert run(path, "--overwrite").exit_code == 0
    pipe.unlink()
    os.mkfifo(pipe)  # in place of a stem that the record knows
    result = run(path, "--skip-existing", *words)
    assert f"left alone, {pipe} was changed after it was made" in result.stderr


def test_stems_are_recognised_by_records_above_their_folder(run, song, tmp_path):
    path = song("a.wav", seconds=0.1)
    assert run(path, "--filename", "{stem}/{track}.{ext}").exit_code == 0
    result = run(tmp_path / "out/vocals", "--dry-run")
    assert result.exit_code == 1
    assert "holds only stems" in result.stderr


def test_a_file_named_like_stdin_is_separated_by_its_path(run, song, tmp_path, monkeypatch):
    song("a.wav", seconds=0.1).rename(tmp_path / "-")
    monkeypatch.chdir(tmp_path)
    result = run("./-", "-v")
    assert result.exit_code == 0
    (tmp_path / "list").write_text("./-\n")
    assert run("--files-from", "list", "--overwrite").exit_code == 0
    assert names(tmp_path / "out") == of_song("-")


def test_each_song_that_a_format_cannot_hold_is_named(run, song, tmp_path):
    paths = [song(f"in/{i}.wav", seconds=0.1, channels=6) for i in range(2)]
    for options in (["-f", "mp3"], ["-f", "mp3", "--dry-run"]):
        result = run(tmp_path / "in", *options)
        assert result.exit_code == 1
        _, _, reasons = result.stderr.partition("2 of 2 failed:\n")
        for path in paths:
            sentence = f"{path}: mp3 cannot hold 6 channels at {RATE} Hz"
            assert result.stderr.count(f"Error: {sentence}") == 1
            assert f"  {sentence}" in reasons
    # What is wrong with the options is wrong with every song, and said once.
    result = run(tmp_path / "in", "-f", "mp3", "--bit-depth", "16")
    assert result.stderr.count("Error: mp3 has no bit depth") == 1


@pytest.mark.parametrize("retry", [["--retry-failed"], []])
def test_a_repaired_song_is_not_retried_again(run, song, tmp_path, retry):
    good, bad = song("in/good.wav", seconds=0.1), song("in/bad.wav", seconds=0.1)
    whole = bad.read_bytes()
    bad.write_text("no audio at all")
    assert run(tmp_path / "in").exit_code == 1
    bad.write_bytes(whole)
    assert run(*retry or [bad], "--json").stdout.count('"ok"') == 1
    stem = tmp_path / "out/bad/vocals.wav"
    made = stem.stat().st_mtime_ns
    # The first retry may still have to look for stems that no log tells of.
    for told in (["skipped"], []) if not retry else ([],):
        result = run("--retry-failed", "--json")
        assert result.exit_code == 0, result.stderr
        assert [json.loads(line)["status"] for line in result.stdout.splitlines()] == told
    assert stem.stat().st_mtime_ns == made
    # Stems that were made otherwise are still an error, and --overwrite replaces them.
    good.write_text("no audio at all")
    assert run(tmp_path / "in", "--overwrite").exit_code == 1
    good.write_bytes(whole)
    result = run("--retry-failed", "--start", "0.01")
    assert result.exit_code == 1
    assert "good.wav: left alone" in result.stderr
    assert run("--retry-failed", "--start", "0.01", "--overwrite").exit_code == 0


def test_a_command_without_songs_gets_a_message(run):
    result = run()
    assert result.exit_code == 2
    assert "Missing argument 'SONG...'" in result.stderr
    result = run("--retry-failed")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no song failed" in result.stderr


def test_parallel_jobs_give_the_same_bytes(run, song, tmp_path):
    lengths = (2.0, 0.2, 0.8, 0.01, 0.6, 0.4)  # segments have 1.5 s
    paths = [song(f"in/{i}.wav", seconds=s, seed=i) for i, s in enumerate(lengths)]
    torch.set_num_threads(2)
    try:
        for jobs in (1, 3):
            options = ["-f", "mp3", "--jobs", jobs]
            assert run(tmp_path / "in", *options, out=f"out{jobs}").exit_code == 0
    finally:
        torch.set_num_threads(1)
    found = names(tmp_path / "out1")
    assert len(found) == 4 * len(paths)
    assert found == names(tmp_path / "out3")
    for name in found:
        assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out3" / name).read_bytes()


def test_a_timeout_stops_only_its_song(run, song, monkeypatch, tmp_path):
    open_song = Separator.open_song

    def slow(self, rate, *arguments):
        if rate == 22_050:
            time.sleep(0.6)
        return open_song(self, rate, *arguments)

    monkeypatch.setattr(Separator, "open_song", slow)
    late, good = song("late.wav", rate=22_050, seconds=0.2), song("good.wav", seconds=0.2)
    result = run(late, good, "--timeout", "0.5")
    assert result.exit_code == 1
    assert f"Error: {late}: took longer than 0.5 s and was stopped" in result.stderr
    assert names(tmp_path / "out") == of_song("good")
    assert run(good, "--timeout", "0").stderr.count("timeout must be more than 0 seconds") == 1


def tag(path: Path, **tags: str) -> Path:
    file = mutagen.File(path)
    for name, text in tags.items():
        file[name] = text
    file.save()
    return path


@pytest.mark.parametrize("option", [["--instrumental"], ["--without", "vocals"]])
def test_an_instrumental_is_one_file_and_nothing_else(run, song, tmp_path, option):
    for name in ("in/a.flac", "in/disc 1/b.flac"):
        tag(song(name, seconds=0.5), title="Halo")
    result = run(tmp_path / "in", *option, "-f", "flac", "--json")
    assert result.exit_code == 0, result.stderr
    found = ["a (Instrumental).flac", "disc 1/b (Instrumental).flac"]
    assert names(tmp_path / "out") == found
    assert [list(json.loads(line)["stems"]) for line in result.stdout.splitlines()] == [
        ["no_vocals"]
    ] * 2
    for name in found:
        assert mutagen.File(tmp_path / "out" / name)["title"] == ["Halo (Instrumental)"]
    # The same sound as the rest of --two-stems, but for the rounding of the transforms.
    assert (
        run(tmp_path / "in/a.flac", "--two-stems", "vocals", "-f", "flac", out="two").exit_code == 0
    )
    rest, _ = soundfile.read(tmp_path / "two/a/no_vocals.flac")
    alone, _ = soundfile.read(tmp_path / "out" / found[0])
    np.testing.assert_allclose(alone, rest, atol=2 * 2.0**-15)
    assert run(tmp_path / "in", *option, "-f", "flac", "--skip-existing").stderr.startswith(
        "2 of 2"
    )


def test_a_practice_track_can_lack_any_stem(run, song, tmp_path):
    path = song(seconds=0.2)
    assert run(path, "--without", "drums").exit_code == 0
    assert run(path, "--without", "bass", "--filename", "{stem}/{track}.{ext}").exit_code == 0
    assert names(tmp_path / "out") == ["no_bass/song.wav", "song (No Drums).wav"]
    assert "has no stem 'guitar'" in run(path, "--without", "guitar").stderr
    for option in ("--without", "--two-stems"):
        message = "choose one, or write the others with --stems vocals,other"
        assert message in run(path, option, "bass, drums").stderr


@pytest.mark.parametrize(
    ("container", "suffix", "start"),
    [
        ("wav", "wave", b"RIFF"),
        ("ogg", "oga", b"vorbis"),
        ("opus", "ogg", b"OpusHead"),
        ("opus", "oga", b"OpusHead"),
        ("m4a", "mp4", b"ftypM4A"),
    ],
)
def test_stems_with_another_usual_suffix_are_what_they_would_be(
    run, song, tmp_path, request, container, suffix, start
):
    if container == "m4a":
        request.getfixturevalue("need_ffmpeg")
    tag(song("in/x.flac", seconds=0.2), artist="AC/DC")
    words = (tmp_path / "in", "-f", container, "--stems", "vocals,bass")
    assert run(*words, out="usual").exit_code == 0
    words = (*words, "--filename", f"{{track}}/{{stem}}.{suffix}", "--skip-existing")
    for status in ("ok", "skipped"):
        result = run(*words, "--json", out="in")  # where stems would be taken for songs
        (report,) = map(json.loads, result.stdout.splitlines())
        assert report["status"] == status, result.stderr
    assert names(tmp_path / "in") == ["x.flac", f"x/bass.{suffix}", f"x/vocals.{suffix}"]
    for stem in ("bass", "vocals"):
        content = (tmp_path / f"in/x/{stem}.{suffix}").read_bytes()
        assert start in content[:64]
        assert content == (tmp_path / f"usual/x/{stem}.{container}").read_bytes()


CHOICES = {
    "--instrumental": [],
    "--without": ["drums"],
    "--stems": ["bass"],
    "--two-stems": ["bass"],
}


@pytest.mark.parametrize("options", [*itertools.combinations(CHOICES, 2)])
def test_options_that_contradict_are_no_command(run, song, tmp_path, options):
    result = run(song(seconds=0.2), *(word for each in options for word in (each, *CHOICES[each])))
    assert result.stderr.endswith(f"\nError: choose either {' or '.join(options)}\n")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_stems_are_named_by_tags_and_skipped_the_next_time(run, song, tmp_path):
    tag(song("in/x.flac", seconds=0.2), artist="AC/DC", title="T.N.T.", tracknumber="3")
    song("in/y.wav", seconds=0.2)
    template = "{artist}/{tracknumber} {title} - {label}.{ext}"
    options = ["--filename", template, "--stems", "bass"]
    assert run(tmp_path / "in", *options).exit_code == 0
    assert names(tmp_path / "out") == [
        "AC_DC/03 T.N.T - Bass.wav",
        "Unknown Artist/00 y - Bass.wav",
    ]
    result = run(tmp_path / "in", *options, "--skip-existing")
    assert result.stderr.startswith("2 of 2 skipped, their stems exist")
    # What decks write into songs and stems is neither another song nor another stem.
    tag(tmp_path / "in/x.flac", markers="cue" * 9000)
    stem = mutagen.File(tmp_path / "out/AC_DC/03 T.N.T - Bass.wav")
    stem.tags.add(mutagen.id3.GEOB(encoding=3, desc="Serato Markers2", data=b"cue"))
    stem.save()
    os.utime(stem.filename, (2**32,) * 2)
    result = run(tmp_path / "in", *options, "--skip-existing")
    assert result.stderr.startswith("2 of 2 skipped, their stems exist")
    # Other tags in their names are other stems.
    tag(tmp_path / "in/x.flac", artist="Ana")
    assert run(tmp_path / "in", *options, "--skip-existing").exit_code == 0
    assert "Ana/03 T.N.T - Bass.wav" in names(tmp_path / "out")


def test_no_tags_omits_tags_of_stems_but_not_of_the_log(run, song, tmp_path):
    path = tag(song("a.flac", seconds=0.2), title="Halo", replaygain_track_gain="-3 dB")
    assert run(path, "-f", "flac", "--no-tags", "--log", tmp_path / "log").exit_code == 0
    assert "title" not in mutagen.File(tmp_path / "out/a/bass.flac")
    assert json.loads((tmp_path / "log").read_text())["tags"] == {"title": ["Halo"]}
    result = run(path, "-f", "flac", "--skip-existing")
    assert "was made with tags False" in result.stderr


@pytest.mark.parametrize(
    ("word", "bits"), [("192k", 192_000), ("96000", 96_000), ("128K", 128_000)]
)
def test_bit_rates_are_understood(word, bits):
    words = ["a.wav", "--bitrate", word]
    assert separate.make_context("separate", words, **CONTEXT).params["bitrate"] == bits


def test_a_bit_rate_reaches_the_file(run, song, tmp_path):
    path = song(seconds=2)
    assert run(path, "-f", "mp3", "--bitrate", "64k").exit_code == 0
    size = (tmp_path / "out/song/bass.mp3").stat().st_size
    assert size * 8 / 2 / 1000 == pytest.approx(64, rel=0.05)
    result = run(path, "--bitrate", "fast")
    assert "'fast' is not a bit rate: expected 192k or 192000" in result.stderr
    assert "wav has no bit rate" in run(path, "--bitrate", "64k").stderr


def test_a_sample_rate_is_part_of_what_made_the_stems(run, song, tmp_path):
    path = song(seconds=0.5)
    rate = ["--sample-rate", "48000", "--json"]
    assert json.loads(run(path, "--dry-run", *rate).stdout)["sample_rate"] == 48_000
    assert json.loads(run(path, *rate).stdout)["sample_rate"] == 48_000
    assert soundfile.info(tmp_path / "out/song/bass.wav").samplerate == 48_000
    assert json.loads(run(path, "--skip-existing", *rate).stdout)["status"] == "skipped"
    assert "was made with sample_rate 48000" in run(path, "--skip-existing").stderr
    assert "48 is not in the range 1000<=x<=1000000" in run(path, "--sample-rate", "48").stderr


def test_a_stem_file_holds_all_stems(run, song, tmp_path, need_ffmpeg):
    path = song(seconds=1)
    result = run(path, "-f", "stem.mp4", "--json")
    assert result.exit_code == 0, result.stderr
    assert names(tmp_path / "out") == ["song.stem.mp4"]
    target = str(tmp_path / "out/song.stem.mp4")
    assert json.loads(result.stdout)["stems"] == dict.fromkeys(STEMS, target)
    assert f"bass, other in {target} (" in result.stderr
    assert run(path, "-f", "stem.mp4").stderr.count("song.stem.mp4 already exists") == 1
    assert run(path, "-f", "stem.mp4", "--skip-existing").exit_code == 0
    for options in (["--stems", "bass"], ["--player"]):
        result = run(path, "-f", "stem.mp4", *options)
        assert result.exit_code == 1
        assert "stem.mp4" in result.stderr


def test_a_dry_run_refuses_what_a_format_cannot_hold(run, song, need_ffmpeg):
    path, surround = song(seconds=0.1), song("b.wav", seconds=0.1, rate=96_000, channels=6)
    result = run(path, "--dry-run", "-f", "stem.mp4", model=two_stems(path.parent))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "a .stem.mp4 holds 4 stems, not 2: choose the format m4a, mp3 or flac" in result.stderr
    result = run(surround, "--dry-run", "-f", "ogg", "--bitrate", "192k")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "ogg has no bit rates for 6 channels at 96000 Hz" in result.stderr


def two_stems(folder: Path) -> Path:
    """A model of two stems."""
    config = ModelConfig(filters=(4, 4), segment_frames=64, stems=("vocals", "rest"))
    path = folder / "two.safetensors"
    path.write_bytes(serialize(UNet(config)))
    return path


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(run, song, tmp_path):
    for name in ("in/a.wav", "in/b#.wav"):
        song(name, seconds=2)
    (tmp_path / "in/bad.wav").write_text("no audio at all")
    assert run(tmp_path / "in/a.wav").exit_code == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = run(tmp_path / "in", "--skip-existing", "--dry-run")
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [str(tmp_path / f"out/b#/{stem}.wav") for stem in STEMS]
    assert "1 of 3 songs would be separated: 2 s of audio" in result.stderr
    assert "1 of 3 skipped, their stems exist" in result.stderr
    assert "1 of 3 failed:" in result.stderr
    result = run(tmp_path / "in", "--skip-existing", "--dry-run", "--json")
    reports = [json.loads(line) for line in result.stdout.splitlines()]
    assert [r["status"] for r in reports] == ["skipped", "planned", "error"]
    assert reports[1]["seconds"] == 2.0
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    result = run(tmp_path / "in/b#.wav", "--dry-run", "-f", "mp3", out="new")
    assert not (tmp_path / "new").exists()
    assert result.stdout.count("\n") == 4


def test_a_dry_run_does_not_probe_drives_for_equal_names(run, song, monkeypatch):
    asked = []
    monkeypatch.setattr("unetsep.drives._rules_of_names", asked.append)
    paths = [song(name, seconds=1) for name in ("a/Song.wav", "b/song.wav")]
    run(*paths, "--dry-run")
    assert not asked


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_unwritable_output_is_refused_before_any_work(run, song, tmp_path, options):
    path = song("a.wav", seconds=0.1)
    for name, words in {
        "file": "choose another folder with -o",
        "link": "choose another folder with -o",
        "folder": "is a folder: move it away",
        "long": "give shorter names with --filename",
    }.items():
        out = tmp_path / name
        out.mkdir()
        more = ["--overwrite", *options]
        if name == "file":
            (out / "a").touch()
        elif name == "link":
            (out / "a").symlink_to("nowhere")
        elif name == "folder":
            (out / "a/vocals.wav").mkdir(parents=True)
        else:
            more += ["--filename", f"{250 * 'x'}/{{stem}}{250 * 'y'}.{{ext}}"]
        before = sorted(out.rglob("*"))
        result = run(path, *more, out=name)
        assert (result.exit_code, result.stdout) == (1, ""), name
        assert words in result.stderr
        assert sorted(out.rglob("*")) == before


def test_a_song_in_place_of_a_list_is_refused_as_audio(run, song):
    path = song("a.wav", seconds=1)
    result = run("--files-from", path)
    assert result.exit_code == 1
    message = f"Error: {path} is audio, not a list of songs: name it without --files-from\n"
    assert result.stderr == message


@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"\0"])
def test_songs_are_read_from_a_list(run, song, tmp_path, separator, mark):
    paths = [song(f"{name}.wav", seconds=0.1) for name in ("a", "b c")]
    lines = separator.join(os.fsencode(path) for path in paths) + separator
    (tmp_path / "list.txt").write_bytes(mark + lines)
    assert run("--files-from", tmp_path / "list.txt", "--stems", "bass").exit_code == 0
    assert names(tmp_path / "out") == ["a/bass.wav", "b c/bass.wav"]


def test_a_list_without_songs_is_reported_and_no_error(run, tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    result = run("--files-from", tmp_path / "list.txt")
    assert result.exit_code == 0
    assert result.stderr == f"{tmp_path / 'list.txt'} lists no songs: nothing to do\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("listed", [True, False])
def test_file_urls_are_read_as_paths(run, song, tmp_path, listed):
    """As file managers give them."""
    url = song("My 100% caf\u00e9 #1.wav", seconds=0.1).as_uri()
    (tmp_path / "list.txt").write_text(f"{url}\n")
    songs = ["--files-from", tmp_path / "list.txt"] if listed else [url]
    result = run(*songs, "-o", (tmp_path / "my stems").as_uri(), "--stems", "bass", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["stems"] == {
        "bass": str(tmp_path / "my stems/My 100% caf\u00e9 #1/bass.wav")
    }
    result = run("file:///%00")
    assert result.exit_code == 1
    assert result.stderr.endswith("\ufffd does not exist\n")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_lists_written_by_powershell_are_read(run, song, tmp_path, encoding):
    paths = [song(f"{name}.wav", seconds=0.1) for name in ("a", "B\u00e9la \U0001d11e")]
    text = "\ufeff" + "".join(f"{path}\r\n" for path in paths)
    (tmp_path / "list.txt").write_bytes(text.encode(encoding))
    result = run("--files-from", tmp_path / "list.txt", "--stems", "bass")
    assert result.exit_code == 0, result.stderr
    assert names(tmp_path / "out") == ["B\u00e9la \U0001d11e/bass.wav", "a/bass.wav"]


def test_a_list_on_stdin_can_name_playlists(song, tmp_path, tiny_model):
    song("music/a.wav", seconds=0.1)
    (tmp_path / "list.m3u").write_text("#EXTM3U\nmusic/a.wav\n")
    fixed = ["separate", "-m", str(tiny_model), "-o", str(tmp_path / "out"), "--stems", "bass"]
    listed = f"{tmp_path / 'list.m3u'}\n"
    result = call(*fixed, "--files-from", "-", input=listed)
    assert result.exit_code == 0, result.stderr
    assert names(tmp_path / "out") == ["a/bass.wav"]
    result = call(*fixed, "--files-from", "-", "-", input=listed)
    assert "use - once" in result.stderr


def test_a_song_is_separated_from_stdin_to_stdout(song, tmp_path, tiny_model):
    path = song("a.flac", seconds=0.5)
    command = [sys.executable, "-m", "unetsep", "separate", "-m", tiny_model, "-d", "cpu"]
    options = ["-", "-o", "-", "--instrumental", "-f", "flac"]
    content = path.read_bytes()
    done = subprocess.run([*command, *options], input=content, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert run_in_process(tiny_model, tmp_path, path) == done.stdout
    assert done.stderr.startswith(b"stdin: no_vocals in stdout (0.5 s of audio")


@pytest.fixture
def run_with_pipes(forks, tiny_model, tmp_path):
    """Exit code, stdout and stderr of ``unetsep separate`` in a process of its own."""
    stdin, out, error = (tmp_path / name for name in ("stdin.pipe", "stdout.pipe", "stderr.pipe"))

    def separate(*arguments: object, content: bytes = b"", stdout: Path = out):
        stdin.write_bytes(content)
        words = ["separate", "-m", tiny_model, "-d", "cpu", *arguments]
        streams = {"stdin": stdin, "stdout": stdout, "stderr": error}
        done = forks.run(arguments=words, folder=tmp_path, **streams)
        written = out.read_bytes() if stdout == out else b""
        return done["code"], written, error.read_text()

    return separate


@pytest.mark.parametrize("name", [".hidden.wav", ".unetsep.wav", "a.wav"])
def test_a_song_of_any_name_writes_only_its_stem_to_stdout(song, run_with_pipes, name):
    path = song(name, seconds=0.1)
    code, content, error = run_with_pipes(path, "-o", "-", "--stems", "bass", "--shard", "1/1")
    assert code == 0, error
    assert soundfile.info(io.BytesIO(content)).duration == pytest.approx(0.1)
    assert content.startswith(b"RIFF")
    assert len(content) == int.from_bytes(content[4:8], "little") + 8


def test_a_song_that_fails_leaves_stdout_empty(run_with_pipes):
    code, content, error = run_with_pipes("-", "-o", "-", "--instrumental", content=b"no audio")
    assert (code, content) == (1, b"")
    assert error.startswith("Error: stdin is not audio that can be read")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device")
def test_a_stem_that_stdout_refuses_is_an_error(song, run_with_pipes, tmp_path):
    log = tmp_path / "log.jsonl"
    options = (song("a.wav", seconds=0.1), "-o", "-", "--stems", "bass", "--log", log)
    code, _, error = run_with_pipes(*options, stdout=Path("/dev/full"))
    assert (code, error) == (1, "Error: No space left on device\n")
    assert not log.exists()


def test_a_full_temporary_folder_is_named_for_a_song_on_stdin(tmp_path, tiny_model, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("unetsep.cli.pipes.shutil.copyfileobj", fail)
    result = call("separate", "-m", tiny_model, "-", "-o", tmp_path / "out", input="song")
    assert result.exit_code == 1
    assert result.stderr.strip() == (
        f"Error: writing to the temporary folder {tempfile.gettempdir()} failed: No space left on "
        "device; set TMPDIR to a folder with room for a song and its stems"
    )


def test_a_song_on_stdin_is_called_stdin_in_reports_logs_and_messages(
    song, run_with_pipes, tmp_path
):
    out, log = tmp_path / "out", tmp_path / "log.jsonl"
    options = ["-", "-o", out, "--stems", "bass", "--json", "--log", log]
    wav = song("a.wav", seconds=0.1).read_bytes()
    code, content, error = run_with_pipes(*options, content=wav)
    assert code == 0, error
    assert tempfile.gettempdir() not in error.replace(str(tmp_path), "")
    report = json.loads(content)
    assert report["source"] == "stdin"
    assert report["stems"] == {"bass": str(out / "stdin/bass.wav")}
    _, content, error = run_with_pipes(*options, "--start", "9", "--overwrite", content=wav)
    report = json.loads(content)
    assert report["error"].startswith("stdin lasts 0.10 s")
    assert error == f"Error: {report['error']}\nLog: {log}\n"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["source"], line["path"]) for line in lines] == [("stdin", "stdin")] * 2
    code, _, error = run_with_pipes("-o", out, "--log", log, "--retry-failed")
    assert error == f"According to the logs in {out}, no song failed\n"
    template = ["--filename", "{folder}/{stem}.{ext}"]
    code, _, error = run_with_pipes("-", "-o", tmp_path / "named", *template, content=wav)
    assert code == 1
    assert "{folder} is that of a file on this computer" in error


def test_a_stem_on_stdout_is_not_logged_as_a_file(song, run_with_pipes, tmp_path):
    log = tmp_path / "log.jsonl"
    (tmp_path / "stdout").write_text("a file of the user's")
    options = (song("a.wav", seconds=0.1), "-o", "-", "--stems", "bass", "--log", log)
    code, _, error = run_with_pipes(*options)  # in this folder
    assert code == 0, error
    (line,) = (json.loads(line) for line in log.read_text().splitlines())
    assert line["path"] == str(tmp_path / "a.wav")
    assert line["reports"][0]["stems"] == {"bass": "stdout"}
    assert line["reports"][0]["outputs"] == {}


@pytest.mark.parametrize(
    ("arguments", "shell", "message"),
    [
        (["-"], "<&-", "- is stdin, which is closed"),
        (["--files-from", "-"], "<&-", "- is stdin, which is closed"),
        (["a.wav", "-o", "-", "--stems", "bass"], ">&-", "- is stdout, which is closed"),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_a_closed_stream_gets_a_message_of_one_sentence(
    tiny_model, tmp_path, arguments, shell, message
):
    words = [sys.executable, "-m", "unetsep", "separate", "-m", tiny_model, "-o", tmp_path / "out"]
    command = ["sh", "-c", f'exec "$@" {shell}', "sh", *map(str, words), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def run_in_process(model: Path, folder: Path, path: Path) -> bytes:
    words = ["separate", "-m", model, "-d", "cpu", "-o", folder / "out", path]
    options = ["--instrumental", "-f", "flac"]
    assert call(*words, *options).exit_code == 0
    return (folder / "out/a (Instrumental).flac").read_bytes()


def test_an_output_folder_is_not_created_with_the_name_of_an_audio_file(song, tiny_model, tmp_path):
    output = tmp_path / "stems.WAV"
    words = ["separate", "-m", str(tiny_model), "-d", "cpu", str(song("a.wav", seconds=0.1))]
    refused = call(*words, "-o", output)
    assert refused.exit_code == 1
    assert f"-o {output} is named like an audio file" in refused.stderr
    assert not output.exists()
    output.mkdir()
    assert call(*words, "-o", output).exit_code == 0
    assert (output / "a/vocals.wav").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-"], "-o - writes one file"),
        (["-", "--instrumental", "--json"], "-o - writes only the stem"),
        (["-", "a.wav", "--instrumental"], "- reads one song from stdin"),
        (
            ["--retry-failed", "--instrumental"],
            "-o - has no folder with logs that --retry-failed could read: name a log",
        ),
    ],
)
def test_options_unfit_for_pipes_get_a_message_of_one_sentence(tiny_model, arguments, message):
    fixed = ["separate", "-m", str(tiny_model), "-o", "-"]
    result = call(*fixed, *arguments, input=b"RIFF")
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
