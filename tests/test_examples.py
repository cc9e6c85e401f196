"""The scripts and the notebook of examples/ do what they say."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import re
import shutil
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile

import unetsep
from tests.signals import RATE, music
from unetsep.inputs import find_inputs
from unetsep.separator import Separator

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def short(excerpt: Path, tmp_path: Path) -> Path:
    """Two seconds of real music."""
    audio, rate = soundfile.read(excerpt, dtype="float32")
    path = tmp_path / "short.wav"
    soundfile.write(path, audio[: 2 * rate], rate)
    return path


def test_every_example_is_named_in_a_page() -> None:
    pages = "".join(p.read_text("utf-8") for p in (EXAMPLES.parent / "docs").rglob("*.md"))
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")]
    assert len(names) >= 5
    assert not [name for name in names if f"examples/{name}" not in pages]


def test_the_transcriber_hears_the_voice_at_its_rate_and_times_count_from_the_songs_start(
    short: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    transcribe = example("transcribe")
    heard = []

    def transcriber(model: str):
        assert model == "tiny"

        def lines(samples):
            heard.append(samples)
            return [transcribe.Line(0.25, 1.0, "la la")]

        return lines

    words = ["transcribe.py", str(short), "--start", "0.5", "--model", "tiny"]
    monkeypatch.setattr(sys, "argv", words)
    transcribe.main(transcriber)
    (samples,) = heard
    assert samples.dtype == np.float32
    assert samples.shape == (1.5 * transcribe.WHISPER_RATE,)
    assert np.abs(samples).max() > 0.01
    assert capsys.readouterr().out == "   0.75    1.50  la la\n"


def test_gating_silences_pauses_and_does_not_change_the_voice() -> None:
    transcribe = example("transcribe")
    rate = transcribe.WHISPER_RATE
    tone = np.sin(2 * np.pi * 220 * np.arange(8 * rate) / rate).astype(np.float32)
    tone[2 * rate : 6 * rate] *= 10 ** (-60 / 20)  # leftovers of the band
    gated = transcribe.gated(tone)
    assert not np.any(gated[3 * rate : 5 * rate])
    assert np.array_equal(gated[: 2 * rate], tone[: 2 * rate])
    assert np.array_equal(gated[6 * rate :], tone[6 * rate :])
    assert not np.any(transcribe.gated(np.zeros(rate, np.float32)))


@pytest.mark.parametrize("package", ["faster_whisper", "whisper"])
def test_the_transcriber_works_with_either_package_of_whisper(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe = example("transcribe")
    part = {"start": 1.0, "end": 2.0, "text": " la "}
    fake = ModuleType(package)
    if package == "whisper":
        fake.load_model = lambda _: SimpleNamespace(transcribe=lambda _: {"segments": [part]})
    else:
        segments = [SimpleNamespace(**part)]
        fake.WhisperModel = lambda _: SimpleNamespace(transcribe=lambda _: (segments, None))
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    monkeypatch.setitem(sys.modules, package, fake)
    lines = transcribe.whisper("small")(np.zeros(10, np.float32))
    assert list(lines) == [(1.0, 2.0, "la")]


def test_a_missing_whisper_is_reported_before_separating(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transcribe = example("transcribe")
    for package in ("faster_whisper", "whisper"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["transcribe.py", str(tmp_path / "no song.wav")])
    with pytest.raises(SystemExit, match="install faster-whisper or openai-whisper"):
        transcribe.main()


def test_complete_songs_of_a_watched_folder_are_separated_once_despite_bad_ones(
    tmp_path: Path, tiny_separator: Separator
) -> None:
    watch_folder = example("watch_folder")
    inbox, stems, told = tmp_path / "inbox", tmp_path / "stems", []
    (inbox / "album").mkdir(parents=True)
    song = inbox / "album" / "song.wav"
    audio = music(0.5).T
    watcher = watch_folder.Watcher(inbox, stems, tiny_separator, told.append)
    soundfile.write(song, audio[:1000], RATE)
    (inbox / "bad.mp3").write_bytes(b"no music")
    watcher.look()
    soundfile.write(song, audio, RATE)  # it was still being copied
    watcher.look()
    assert not stems.exists()
    assert [line.partition(":")[0] for line in told] == ["bad.mp3"]
    watcher.look()
    watcher.look()
    assert {path.stem for path in (stems / "album" / "song").glob("*.wav")} == {
        "vocals", "drums", "bass", "other"
    }  # fmt: skip
    assert len(told) == 2
    assert told[1].startswith("song.wav: vocals, drums, bass, other in ")
    # Another watcher, later, leaves what is there.
    again = watch_folder.Watcher(inbox, stems, tiny_separator, told.append)
    again.look()
    again.look()
    assert [line.partition(":")[0] for line in told] == ["bad.mp3", "song.wav", "bad.mp3"]


def test_files_that_vanish_from_a_watched_folder_do_not_stop_others(
    tmp_path: Path, tiny_separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch_folder = example("watch_folder")
    inbox, stems, told = tmp_path / "inbox", tmp_path / "stems", []
    (inbox / "album.wav").mkdir(parents=True)  # a folder, whatever its name
    (inbox / "link.wav").symlink_to(tmp_path / "nothing.wav")
    brief, taken = inbox / "brief.wav", inbox / "a taken.wav"
    for path in (brief, taken, inbox / "song.wav"):
        soundfile.write(path, music(0.5).T, RATE)
    stat = Path.stat

    def vanishing(path: Path, **options: bool) -> object:
        if path == brief:  # it was there when its folder was listed
            brief.unlink(missing_ok=True)
        return stat(path, **options)

    watcher = watch_folder.Watcher(inbox, stems, tiny_separator, told.append)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", vanishing)
        watcher.look()
    separate = watcher._separate

    def moved(path: Path, changed: bool) -> None:
        if path == taken:  # after the look, before it is opened
            taken.unlink()
        separate(path, changed)

    monkeypatch.setattr(watcher, "_separate", moved)
    watcher.look()
    assert [line.partition(":")[0] for line in told] == ["a taken.wav", "song.wav"]
    assert [path.name for path in stems.iterdir() if path.is_dir()] == ["song"]
    soundfile.write(tmp_path / "nothing.wav", music(0.5).T, RATE)
    watcher.look()
    watcher.look()
    assert told[2].startswith("link.wav: vocals, drums, bass, other in ")


def make_watcher(tmp_path: Path, separator: Separator) -> tuple[Any, Path, Path, list[str]]:
    """A watcher of an empty folder, that folder, where stems go, and what it says."""
    inbox, stems = tmp_path / "inbox", tmp_path / "stems"
    told: list[str] = []
    inbox.mkdir()
    watcher = example("watch_folder").Watcher(inbox, stems, separator, told.append)
    return watcher, inbox, stems, told


def test_a_watched_song_that_changes_at_the_same_size_is_separated_again(
    tmp_path: Path, tiny_separator: Separator
) -> None:
    watcher, inbox, stems, told = make_watcher(tmp_path, tiny_separator)
    song, audio = inbox / "song.aif", music(0.5).T
    soundfile.write(song, audio, RATE, format="AIFF")
    content = song.read_bytes()

    def write(part: bytes) -> None:
        song.write_bytes(part.ljust(len(content), b"\0"))

    write(content[:4000])  # room for the whole file is made at first
    watcher.look()
    write(content[:20_000])
    watcher.look()
    assert not stems.exists()
    watcher.look()
    half = soundfile.read(stems / "song" / "vocals.wav")[0]
    write(content)
    watcher.look()
    watcher.look()
    whole = soundfile.read(stems / "song" / "vocals.wav")[0]
    assert len(told) == 2
    assert not half[-5000:].any()
    assert whole[-5000:].any()


def test_watched_songs_of_one_name_share_no_stems_and_a_lost_folder_is_reported_once(
    tmp_path: Path, tiny_separator: Separator
) -> None:
    watcher, inbox, _, told = make_watcher(tmp_path, tiny_separator)
    for name in ("a.wav", "a.flac"):
        soundfile.write(inbox / name, music(0.5).T, RATE)
    for _ in range(3):
        watcher.look()
    assert told[0].startswith("a.flac: vocals")
    assert told[1:] == ["a.wav: has the name of a.flac, whose stems exist: rename it"]
    shutil.rmtree(inbox)
    for _ in range(3):
        watcher.look()
    assert told[2:] == [f"{inbox} is gone; waiting for it"]


@pytest.mark.parametrize("changed", [False, True])
def test_a_watched_song_that_another_run_claimed_is_separated_later(
    tmp_path: Path, tiny_separator: Separator, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    watcher, inbox, stems, told = make_watcher(tmp_path, tiny_separator)
    song, separate = inbox / "song.wav", unetsep.separate_to_files
    soundfile.write(song, music(0.5).T, RATE)
    if changed:
        watcher.look()
        watcher.look()
        soundfile.write(song, music(0.7).T, RATE)
    busy = SimpleNamespace(status="skipped", stems={})
    monkeypatch.setattr(unetsep, "separate_to_files", lambda *_, **__: busy)
    for _ in range(3):
        watcher.look()
    monkeypatch.setattr(unetsep, "separate_to_files", separate)
    watcher.look()
    assert len(told) == (2 if changed else 1)
    seconds = soundfile.info(stems / "song" / "vocals.wav").duration
    assert seconds == pytest.approx(0.7 if changed else 0.5, abs=0.01)


def test_a_missing_watched_folder_is_an_error(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    watch_folder = example("watch_folder")
    words = ["watch_folder.py", str(tmp_path / "inbix"), str(tmp_path / "stems")]
    no_wait = ["--seconds", "-1"]  # or it would watch for ever
    monkeypatch.setattr(sys, "argv", [*words, "--model", str(tiny_model), *no_wait])
    with pytest.raises(SystemExit):
        watch_folder.main()
    assert (
        "inbix is not a folder: name the one that songs are dropped into" in capsys.readouterr().err
    )


def test_stems_in_the_watched_folder_are_refused(tmp_path: Path, tiny_separator: Separator) -> None:
    watch_folder = example("watch_folder")
    with pytest.raises(ValueError, match="would be separated again"):
        watch_folder.Watcher(tmp_path, tmp_path / "stems", tiny_separator)


def test_a_crate_becomes_stem_files_and_a_playlist_in_its_order(
    tmp_path: Path, tiny_model: Path, need_ffmpeg: None, capsys: pytest.CaptureFixture[str]
) -> None:
    stempeg = pytest.importorskip("stempeg", exc_type=(ImportError, RuntimeError))
    stem_maker = example("stem_maker")
    crate, folder = tmp_path / "crate", tmp_path / "stems"
    crate.mkdir()
    for name in ("b first", "a second"):
        soundfile.write(crate / f"{name}.wav", music(0.5).T, RATE)
    (crate / "broken.wav").write_bytes(b"no music")
    playlist = tmp_path / "friday.m3u8"
    names = ["b first.wav", "broken.wav", "a second.wav"]
    playlist.write_text("\n".join(f"crate/{name}" for name in names))
    for status in ("ok", "skipped"):
        template = "{title}.{ext}"
        assert stem_maker.make([str(playlist)], folder, str(tiny_model), template) == 1
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1] for line in lines] == [status] * 2
        entries = (folder / "stems.m3u8").read_text("utf-8").splitlines()
        assert entries[0] == "#EXTM3U"
        assert [Path(entry).name for entry in entries[1:]] == [
            "b first.stem.mp4", "a second.stem.mp4"
        ]  # fmt: skip
    for entry in entries[1:]:
        streams, rate = stempeg.read_stems(str(folder / entry))
        assert len(streams) == 5
        assert rate == RATE


def test_the_crate_of_a_missing_model_fails_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stem_maker = example("stem_maker")
    soundfile.write(tmp_path / "song.wav", music(0.5).T, RATE)
    with pytest.raises(SystemExit) as ended:
        stem_maker.make([str(tmp_path / "song.wav")], tmp_path / "stems", "nope")
    assert ended.value.code == 1
    assert capfd.readouterr().err.count("there is no model 'nope'") == 1


def test_a_track_claimed_by_another_run_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stem_maker = example("stem_maker")
    done = tmp_path / "stems" / "a.stem.mp4"
    done.parent.mkdir()
    busy = {"status": "skipped", "stems": {}, "reason": "another run is working on it"}
    lines = [
        {"source": "a.wav", "model": "m", "status": "ok", "stems": {"lead": str(done)}},
        {"source": "b.wav", "model": "m"} | busy,
    ]
    monkeypatch.setattr(stem_maker, "plan", lambda _: [("b.wav", "m"), ("a.wav", "m")])
    monkeypatch.setattr(stem_maker, "reports", lambda _: iter(lines))
    assert stem_maker.make(["a.wav", "b.wav"], done.parent, "m") == 1
    assert capsys.readouterr().err == "b.wav: another run is working on it\n"
    assert (done.parent / "stems.m3u8").read_text("utf-8") == "#EXTM3U\na.stem.mp4\n"


def test_a_playlist_of_stem_files_can_hold_any_name(tmp_path: Path) -> None:
    names = ["#1 Crush.stem.mp4", " lead.stem.mp4", "caf\udce9.stem.mp4", "plain.stem.mp4"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
    playlist, stem_maker = tmp_path / "stems.m3u8", example("stem_maker")
    stem_maker.write_playlist(playlist, [tmp_path / name for name in names])
    assert os.fsencode(names[2]) in playlist.read_bytes().split(b"\n")
    stem_maker.write_playlist(playlist, [tmp_path / name for name in names if name != names[2]])
    found = find_inputs([playlist], tmp_path / "out")
    assert [each.error for each in found] == [None] * 3
    assert {each.path.name for each in found} == {*names} - {names[2]}


def test_ctrl_c_waits_for_the_command_to_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stem_maker = example("stem_maker")
    code = 'import pathlib, time; print(\'{"status": "ok"}\', flush=True); time.sleep(1); '
    code += f"pathlib.Path({str(tmp_path / 'tidy')!r}).touch()"
    monkeypatch.setattr(stem_maker, "COMMAND", [sys.executable, "-c", code])
    found = stem_maker.reports([])
    assert next(found) == {"status": "ok"}
    with pytest.raises(KeyboardInterrupt):
        found.throw(KeyboardInterrupt)
    assert (tmp_path / "tidy").exists()


def test_a_crate_has_an_entry_for_each_model(
    tmp_path: Path, tiny_model: Path, need_ffmpeg: None, capsys: pytest.CaptureFixture[str]
) -> None:
    stem_maker = example("stem_maker")
    other = shutil.copy(tiny_model, tmp_path / "other.safetensors")
    soundfile.write(tmp_path / "song.wav", music(0.5).T, RATE)
    folder = tmp_path / "stems"
    assert stem_maker.make([str(tmp_path / "song.wav")], folder, f"{tiny_model},{other}") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1", "2"]
    _, *entries = (folder / "stems.m3u8").read_text("utf-8").splitlines()
    assert len(set(entries)) == 2
    assert all((folder / entry).is_file() for entry in entries)


def flask_stems(separator: Separator, name: str) -> zipfile.ZipFile:
    """What the Flask application answers to half a second of music of that name."""
    client = example("flask_app").create_app(separator).test_client()
    buffer = io.BytesIO()
    soundfile.write(buffer, music(0.5).T, RATE, format="WAV")
    buffer.seek(0)
    with client.post("/stems", data={"song": (buffer, name)}) as answer:
        assert answer.status_code == 200
        return zipfile.ZipFile(io.BytesIO(answer.data))


def test_the_flask_application_returns_a_zip_of_stems(tiny_separator: Separator) -> None:
    archive = flask_stems(tiny_separator, "../my song.wav")
    assert archive.namelist() == ["vocals.flac", "drums.flac", "bass.flac", "other.flac"]
    for name in archive.namelist():
        assert soundfile.info(io.BytesIO(archive.read(name))).frames == RATE // 2


def test_the_flask_application_answers_bad_requests_with_a_message(
    tiny_separator: Separator,
) -> None:
    client = example("flask_app").create_app(tiny_separator).test_client()
    assert client.post("/stems").status_code == 400
    answer = client.post("/stems", data={"song": (io.BytesIO(b"no music"), "song.wav")})
    assert answer.status_code == 422
    assert "the song is not audio that can be read" in answer.json["error"]
    assert "/" not in answer.json["error"].partition("(")[0]
    client.application.config["MAX_CONTENT_LENGTH"] = 1000
    answer = client.post("/stems", data={"song": (io.BytesIO(bytes(1001)), "song.wav")})
    assert answer.status_code == 413
    assert "a song may have 200 MB" in answer.json["error"]


@pytest.mark.parametrize("limit", [1000, 15_000])  # for the song, for its stems
def test_the_flask_application_answers_for_its_own_disk(
    tiny_separator: Separator, limit: int
) -> None:
    resource = pytest.importorskip("resource")
    client = example("flask_app").create_app(tiny_separator).test_client()
    buffer = io.BytesIO()
    soundfile.write(buffer, music(0.5)[0], RATE, format="OGG")
    assert 1000 < buffer.tell() < 15_000
    buffer.seek(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        answer = client.post("/stems", data={"song": (buffer, "song.ogg")})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.status_code == 507
    assert answer.json == {"error": "the server could not store the song or its stems"}


def test_the_notebook_runs(short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # nothing stale is stored
    (parameters,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", ()))
    parameters.source = f"song = {str(short)!r}"
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    kinds = [
        kind
        for cell in notebook.cells
        for out in cell.get("outputs", ())
        for kind in out.get("data", ())
    ]
    assert kinds.count("image/png") == 2
    assert "".join(kinds).count("Audio") == 0
    sounds = [
        out.data["text/html"]
        for cell in notebook.cells
        for out in cell.get("outputs", ())
        if "text/html" in out.get("data", ())
    ]
    waves = [base64.b64decode(re.search('base64,([^"]+)', html)[1]) for html in sounds]
    peaks = [np.abs(soundfile.read(io.BytesIO(wave))[0]).max() for wave in waves]
    assert len(peaks) == 2
    assert 0 < max(peaks) < 0.99  # not at full scale
    assert len(list((tmp_path / "stems").rglob("*.flac"))) == 4


@pytest.mark.parametrize("name", ["x." + 300 * "a", "a.mp3\0x", "song", "../a.WAV"])
def test_the_flask_application_accepts_any_name_of_a_song(
    tiny_separator: Separator, name: str
) -> None:
    assert len(flask_stems(tiny_separator, name).namelist()) == 4
