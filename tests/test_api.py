from __future__ import annotations

import ast
import builtins
import errno
import gc
import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

import unetsep
from tests.commands import call
from tests.releases import needs
from tests.signals import RATE
from unetsep.audio.formats import CONTAINERS
from unetsep.config import ModelConfig
from unetsep.network.unet import UNet
from unetsep.separator import Separator
from unetsep.weights.checkpoint import serialize


@pytest.fixture
def tune(tmp_path: Path) -> Path:
    path = tmp_path / "song.wav"
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.4, 0.4, (100_000, 2)), 44_100, subtype="PCM_16")
    return path


def test_files_hold_the_same_stems_as_arrays(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    report = unetsep.separate_to_files(
        tune, tmp_path / "out", model=tiny_separator, bit_depth="32f"
    )
    stems = unetsep.separate(tune, model=tiny_separator)
    assert stems.sample_rate == 44_100
    assert set(report.stems) == set(stems) == set(tiny_separator.stems)
    for name, path in report.stems.items():
        assert Path(path) == tmp_path / "out" / "song" / f"{name}.wav"
        written, _ = soundfile.read(path, dtype="float32")
        assert np.array_equal(written.T, stems[name])


def test_existing_files_are_replaced_only_with_overwrite(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    unetsep.separate(tune, tmp_path, model=tiny_separator)
    with pytest.raises(unetsep.AudioError, match="already exists"):
        unetsep.separate(tune, tmp_path, model=tiny_separator)
    with pytest.raises(unetsep.AudioError, match="already exists"):
        unetsep.separate_to_files(tune, tmp_path, model=tiny_separator)
    unetsep.separate(tune, tmp_path, model=tiny_separator, overwrite=True)
    report = unetsep.separate_to_files(tune, tmp_path, model=tiny_separator, overwrite=True)
    assert report.status == "ok"


def test_files_are_not_left_behind_by_a_cancelled_run(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    with pytest.raises(unetsep.CancelledError):
        unetsep.separate_to_files(
            tune, tmp_path / "out", model=tiny_separator, progress=lambda *_: False
        )
    assert not (tmp_path / "out").exists()


def test_arrays_and_streams_report_progress_and_can_be_cancelled(tiny_separator: Separator) -> None:
    mixture = np.random.default_rng(1).standard_normal((2, 300_000)).astype(np.float32)
    seen: list[tuple[float, float | None]] = []
    tiny_separator.separate(mixture, 44_100, progress=lambda *now: seen.append(now))
    seconds = 300_000 / 44_100
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (seconds, seconds)
    for no in (False, np.bool_(False)):
        with pytest.raises(unetsep.CancelledError):
            tiny_separator.separate(mixture, 44_100, progress=lambda *_, no=no: no)
    blocks = np.split(mixture, 10, axis=1)
    seen.clear()
    list(tiny_separator.stream(blocks, 44_100, progress=lambda *now: seen.append(now)))
    assert len(seen) == 10
    assert seen[-1] == (seconds, None)
    with pytest.raises(unetsep.CancelledError):
        list(tiny_separator.stream(blocks, 44_100, progress=lambda *_: False))


def test_matching_stems_are_skipped_and_others_replaced_only_with_overwrite(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    def again(**options: typing.Any) -> str:
        return unetsep.separate_to_files(tune, tmp_path, model=tiny_separator, **options).status

    assert again(skip_existing=True) == "ok"
    report = unetsep.separate_to_files(tune, tmp_path, model=tiny_separator, skip_existing=True)
    assert (report.status, report.reason) == ("skipped", "its stems exist")
    assert set(report.stems) == set(tiny_separator.stems)
    with pytest.raises(unetsep.AudioError, match="was made with bit_depth auto"):
        again(skip_existing=True, bit_depth="24")
    assert again(skip_existing=True, overwrite=True, bit_depth="24") == "ok"
    assert again(skip_existing=True, overwrite=True, bit_depth="24") == "skipped"
    other = Separator(UNet(ModelConfig(filters=(4,), segment_frames=64)), precision="fp32")
    with pytest.raises(unetsep.AudioError, match="was made by tiny"):
        unetsep.separate_to_files(tune, tmp_path, model=other, skip_existing=True, bit_depth="24")


def test_the_record_names_the_weights_that_were_loaded_though_their_file_has_changed(
    tune: Path, tmp_path: Path
) -> None:
    path, out = tmp_path / "m.safetensors", tmp_path / "out"
    separators = []
    for seed in range(2):
        torch.manual_seed(seed)
        path.write_bytes(serialize(UNet(ModelConfig(filters=(4,), segment_frames=64))))
        separators.append(Separator(path, precision="fp32"))
    old, new = separators
    unetsep.separate_to_files(tune, out, model=old)  # when the file has the other weights
    with pytest.raises(unetsep.AudioError, match="was made by m; "):
        unetsep.separate_to_files(tune, out, model=new, skip_existing=True)
    report = unetsep.separate_to_files(tune, out, model=old, skip_existing=True)
    assert report.status == "skipped"


def test_a_song_claimed_by_another_process_is_left_to_it(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    functions: list[typing.Any] = [unetsep.separate, unetsep.separate_to_files]
    script = """
import sys, unetsep
def progress(done, total):
    print("busy", flush=True)
    return not sys.stdin.readline()
try:
    unetsep.separate_to_files(sys.argv[1], sys.argv[2], model="fast", progress=progress)
except unetsep.CancelledError:
    pass
"""
    command = [sys.executable, "-c", script, str(tune), str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "busy\n"
        for function in functions:
            with pytest.raises(
                unetsep.ClaimedError, match=re.escape(f"{tune}: another run is working on it")
            ):
                function(tune, tmp_path / "out", model=tiny_separator, overwrite=True)
        report = unetsep.separate_to_files(
            tune, tmp_path / "out", model=tiny_separator, skip_existing=True
        )
        assert (report.status, report.stems) == ("skipped", {})
        other.communicate("stop\n")
    for function in functions:
        assert not (tmp_path / "out").exists()
        assert function(tune, tmp_path / "out", model=tiny_separator)
        assert (tmp_path / "out" / "song" / ".unetsep.wav.json").exists()
        shutil.rmtree(tmp_path / "out")


@needs("click", "8.2")  # whose runner parts stdout from stderr
def test_both_functions_and_the_command_skip_stems_of_each_other(
    tune: Path, tmp_path: Path
) -> None:
    separator = Separator("fast")
    stems = unetsep.separate(tune, tmp_path, model=separator)
    assert len(stems.files) == 4
    report = unetsep.separate_to_files(tune, tmp_path, model=separator, skip_existing=True)
    assert report.status == "skipped"
    words = [str(tune), "-o", str(tmp_path), "-m", "fast", "--skip-existing", "--json"]
    result = call("separate", *words)
    assert json.loads(result.stdout)["status"] == "skipped"


KEYWORDS = [
    *(
        "model",
        "stems",
        "two_stems",
        "without",
        "container",
        "bit_depth",
        "bitrate",
        "tags",
        "sample_rate",
        "filename",
    ),
    *("start", "duration", "track", "overwrite", "progress"),
]


@pytest.mark.parametrize("function", [unetsep.separate, unetsep.separate_to_files])
def test_both_functions_take_the_same_keywords(function: object) -> None:
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert [name for name in names if name != "skip_existing"] == KEYWORDS
    assert ("skip_existing" in names) == (function is unetsep.separate_to_files)
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == ["audio", "output_dir"]


def test_the_repr_of_stems_is_one_line_and_their_names_are_completed(
    tune: Path, tiny_separator: Separator
) -> None:
    stems = unetsep.separate(tune, model=tiny_separator, two_stems="bass", duration=0.5)
    shape = stems["bass"].shape
    shown = f"Separation({{'bass': {shape}, 'no_bass': {shape}}}, sample_rate=44100, model='tiny')"
    assert repr(stems) == shown
    assert stems._ipython_key_completions_() == ["bass", "no_bass"]
    with pytest.raises(KeyError, match="no stem 'vocals': expected bass, no_bass"):
        stems["vocals"]


def test_both_functions_make_the_same_report(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    options = {"model": tiny_separator, "stems": ["bass", "drums"], "duration": 0.5}
    options |= {"filename": "{model}/{track} - {stem}.{ext}", "overwrite": True}
    one = unetsep.separate(tune, tmp_path, **options).report
    two = unetsep.separate_to_files(tune, tmp_path, **options)
    timeless = {"elapsed": None, "speed": None}
    assert one.to_dict() | timeless == two.to_dict() | timeless
    assert two.source == tune
    names = ("bass", "drums")
    assert two.stems == {stem: tmp_path / f"tiny/song - {stem}.wav" for stem in names}
    assert two.to_dict()["stems"]["bass"] == str(two.stems["bass"])


def test_without_a_folder_the_report_names_no_files(tune: Path, tiny_separator: Separator) -> None:
    report = unetsep.separate(tune, model=tiny_separator).report
    assert (report.stems, report.status, report.channels) == ({}, "ok", 2)


def input_of(tune: Path, kind: str) -> typing.Any:
    """The song as one of the things that `unetsep.separate` takes."""
    audio, rate = soundfile.read(tune, dtype="float32")
    return {
        "text": lambda: str(tune),
        "bytes in memory": lambda: io.BytesIO(tune.read_bytes()),
        "array": lambda: (audio.T, rate),
        "array of doubles": lambda: (audio.T.astype(np.float64), float(rate)),
        "tensor": lambda: (torch.from_numpy(audio.T), rate),
        "tensor with a gradient": lambda: (torch.from_numpy(audio.T).requires_grad_(), rate),
    }[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        *("text", "bytes in memory", "array", "array of doubles"),
        *("tensor", "tensor with a gradient"),
    ],
)
def test_a_song_gives_the_same_stems_in_every_input_form(
    tune: Path, tiny_separator: Separator, kind: str
) -> None:
    expected = unetsep.separate(tune, model=tiny_separator, start=0.5)
    found = unetsep.separate(input_of(tune, kind), model=tiny_separator, start=0.5)
    assert found.sample_rate == 44_100
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("kind", ["bytes in memory", "array"])
def test_audio_that_cannot_be_copied_to_the_disk_is_a_writing_error(
    tune: Path, tiny_separator: Separator, kind: str
) -> None:
    resource = pytest.importorskip("resource")
    audio = input_of(tune, kind)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        full = r"\((File too large|the disk takes no more)\): set TMPDIR.* Separator.separate,"
        with pytest.raises(unetsep.WritingError, match=f"could not be copied to .* {full}"):
            unetsep.separate(audio, model=tiny_separator)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_temporary_folder_that_cannot_be_made_is_a_writing_error(
    tune: Path, tiny_separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(unetsep.WritingError, match=r"copied to the disk \(No space .*set TMPDIR"):
        unetsep.separate(io.BytesIO(tune.read_bytes()), model=tiny_separator)


def test_stems_that_cannot_be_written_are_a_writing_error(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(unetsep.WritingError, match=r"writing to .* failed") as caught:
            unetsep.separate_to_files(tune, tmp_path / "out", model=tiny_separator)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(caught.value, unetsep.AudioError)


def test_a_file_object_that_was_read_before_is_refused_with_advice(
    tune: Path, tiny_separator: Separator
) -> None:
    file = NamedBytes(tune.read_bytes())
    file.read()
    with pytest.raises(unetsep.AudioError, match=r"^my song\.mp3 has nothing left .*seek\(0\)"):
        unetsep.separate(file, model=tiny_separator)
    file.seek(0)
    assert unetsep.separate(file, model=tiny_separator).sample_rate == 44_100


class Upload:
    """What is read as the uploads of FastAPI are."""

    async def read(self, size: int = -1) -> bytes:
        return bytes(size)


def test_a_file_that_has_to_be_awaited_is_refused_with_advice(tiny_separator: Separator) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=r"asynchronous file: .* UploadFile\.file"):
            unetsep.separate(Upload(), model=tiny_separator)  # type: ignore[arg-type]
        gc.collect()
    assert not [each for each in caught if "never awaited" in str(each.message)]


def test_songs_without_a_name_may_share_a_folder(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    for song in ("41", "42"):
        report = unetsep.separate_to_files(
            io.BytesIO(tune.read_bytes()),
            tmp_path,
            model=tiny_separator,
            filename=f"{song}/{{stem}}.{{ext}}",
        )
        assert report.stems["vocals"] == tmp_path / song / "vocals.wav"


class SmallReads(io.BytesIO):
    """A file too large to be read at once."""

    def read(self, size: int | None = -1) -> bytes:
        assert size is not None
        assert 0 < size <= 1 << 20
        return super().read(size)


def test_memory_does_not_grow_with_an_open_file(tune: Path, tiny_separator: Separator) -> None:
    content = tune.read_bytes() + bytes(1 << 20)  # more than one block
    expected = unetsep.separate(tune, model=tiny_separator)
    found = unetsep.separate(SmallReads(content), model=tiny_separator)
    np.testing.assert_array_equal(found["bass"], expected["bass"])


def test_a_separation_equals_only_itself(tune: Path, tiny_separator: Separator) -> None:
    one, other = (unetsep.separate(tune, model=tiny_separator, duration=0.1) for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2


def test_files_are_named_after_the_input(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    out = tmp_path / "out"
    with tune.open("rb") as file:
        report = unetsep.separate_to_files(file, out, model=tiny_separator, stems=["bass"])
    assert (report.source, report.stems["bass"]) == (tune, out / "song" / "bass.wav")
    mono = (np.zeros(5000, np.float32), 8000)
    report = unetsep.separate_to_files(mono, out, model=tiny_separator, stems=["bass"])
    assert (report.source, report.stems["bass"]) == (Path("audio"), out / "audio" / "bass.wav")
    assert soundfile.info(report.stems["bass"]).channels == 1
    assert soundfile.info(report.stems["bass"]).subtype == "FLOAT"


class NamedBytes(io.BytesIO):
    name = "my song.mp3"


def test_messages_name_the_input_and_no_copy_of_it(tune: Path, tiny_separator: Separator) -> None:
    with pytest.raises(unetsep.AudioError, match=r"^my song\.mp3 lasts \d\.\d+ s"):
        unetsep.separate(NamedBytes(tune.read_bytes()), model=tiny_separator, start=99)
    with pytest.raises(unetsep.AudioError, match=r"^the input lasts 0\.01 s"):
        unetsep.separate((np.zeros(100), 8000), model=tiny_separator, start=99)
    encoded = io.BytesIO()
    soundfile.write(encoded, soundfile.read(tune)[0], 44_100, format="OGG")
    cut = NamedBytes(encoded.getvalue()[:-3000])
    with pytest.warns(RuntimeWarning, match=r"^my song\.mp3 has no end mark"):
        report = unetsep.separate(cut, model=tiny_separator).report
    assert [text.split(" has ")[0] for text in report.warnings] == ["my song.mp3"]


def test_a_file_object_may_have_a_suffix_that_no_file_system_allows(
    tune: Path, tiny_separator: Separator
) -> None:
    file = NamedBytes(tune.read_bytes())
    for suffix in (300 * "b", "w\0v"):
        file.seek(0)
        file.name = f"a.{suffix}"
        assert unetsep.separate(file, model=tiny_separator).sample_rate == 44_100


@pytest.mark.parametrize("name", ["", ".", "/", "\0"])
def test_a_file_object_without_a_valid_name_is_named_as_arrays_are(
    tune: Path, tmp_path: Path, tiny_separator: Separator, name: str
) -> None:
    file = NamedBytes(tune.read_bytes())
    file.name = name
    report = unetsep.separate_to_files(file, tmp_path, model=tiny_separator)
    assert report.stems["bass"] == tmp_path / "audio" / "bass.wav"


def test_an_impossible_path_does_not_exist(tmp_path: Path, tiny_separator: Separator) -> None:
    with pytest.raises(unetsep.AudioError, match="does not exist"):
        unetsep.separate_to_files("nul\0.wav", tmp_path, model=tiny_separator)


def test_stems_of_the_same_array_are_skipped(tmp_path: Path, tiny_separator: Separator) -> None:
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 9000))

    def status(signal: np.ndarray) -> str:
        options: dict[str, typing.Any] = {"model": tiny_separator, "skip_existing": True}
        return unetsep.separate_to_files((signal, 44_100), tmp_path, **options).status

    assert status(audio) == "ok"
    assert status(audio.copy()) == "skipped"
    with pytest.raises(unetsep.AudioError, match="was made"):
        status(audio / 2)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 100), np.float32), "expected a path, a file or .audio, sample_rate., got nd"),
        ((np.zeros((2, 100), np.float32), 0), "sample_rate must be"),
        ((np.zeros((2, 0), np.float32), 44_100), "audio must hold samples"),
        ((np.full((2, 100), np.nan), 44_100), "NaN or infinite samples"),
        (io.StringIO("text"), "open it for bytes"),
        (io.TextIOWrapper(io.BytesIO(b"RIFF\xff"), encoding="utf-8"), "file of str: open it for"),
    ],
)
def test_impossible_audio_is_a_value_error(
    tiny_separator: Separator, audio: typing.Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        unetsep.separate(audio, model=tiny_separator)


def test_bytes_that_are_no_audio_are_an_audio_error(tiny_separator: Separator) -> None:
    with pytest.raises(unetsep.AudioError, match=r"^the input is not audio that can be read"):
        unetsep.separate(io.BytesIO(b"no audio"), model=tiny_separator)


@pytest.mark.parametrize("audio", [io.BytesIO(b"no audio"), (np.zeros(9), 44_100)])
def test_the_folder_of_a_temporary_copy_names_no_stems(
    tmp_path: Path, tiny_separator: Separator, audio: typing.Any
) -> None:
    options: dict[str, typing.Any] = {"model": tiny_separator, "filename": "{folder}/{stem}.{ext}"}
    for separate in (unetsep.separate, unetsep.separate_to_files):
        with pytest.raises(ValueError, match="which URLs, streams and arrays do not have"):
            separate(audio, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_a_container_may_be_in_capitals_as_a_format_on_the_command_line(
    tune: Path, tmp_path: Path, tiny_separator: Separator
) -> None:
    report = unetsep.separate_to_files(tune, tmp_path, model=tiny_separator, container="FLAC")
    assert {path.suffix for path in report.stems.values()} == {".flac"}


@pytest.mark.parametrize(("start", "duration"), [("0:00.1", "0:00.1"), (0.1, 0.1)])
def test_excerpts_may_be_clock_times(
    tune: Path, tiny_separator: Separator, start: float | str, duration: float | str
) -> None:
    stems = unetsep.separate(tune, model=tiny_separator, start=start, duration=duration)
    whole = unetsep.separate(tune, model=tiny_separator, start=0.1, duration=0.1)
    np.testing.assert_array_equal(stems["vocals"], whole["vocals"])


@pytest.mark.parametrize("separate", [unetsep.separate, unetsep.separate_to_files])
def test_stems_are_never_written_over_the_input(
    tune: Path, tiny_separator: Separator, separate: typing.Callable[..., object]
) -> None:
    before = tune.read_bytes()
    options = {"model": tiny_separator, "filename": "song.wav", "stems": ["bass"]}
    with pytest.raises(unetsep.UnetsepError, match="would be written over an input"):
        separate(tune, tune.parent, overwrite=True, **options)
    assert tune.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"container": "aac"},
            f"container must be wav, flac, .* or {[*CONTAINERS][-1]}, got 'aac'",
        ),
        ({"container": ["wav"]}, r"container must be wav, .*, got \['wav'\]"),
        ({"bit_depth": "12"}, "bit_depth must be auto, 8, .* or 64f, got '12'"),
        ({"filename": 5}, "filename must be a template such as"),
        ({"stems": []}, r"stems must name some of .*, got \[\]; leave it out for all"),
        ({"stems": 5}, "stems must name some of .*, got 5"),
        ({"start": "soon"}, "'soon' is not a time"),
        ({"track": 0}, "track must be a whole number from 1 on, got 0"),
        ({"progress": 5}, "progress must be a function of seconds done and total, got 5"),
        ({"filename": "{singer}.wav"}, "filename template"),
        ({"stems": ["piano"]}, "no stem 'piano'"),
        ({"stems": [], "without": "bass"}, "choose either without, stems or two_stems"),
        (
            {"stems": np.array(["bass", "drums"]), "without": "bass"},
            "choose either without, stems or",
        ),
        (
            {"stems": np.array(["bass", "drums"]), "container": "stem.mp4"},
            "stem.mp4 holds all stems",
        ),
        ({"container": "mp3", "bitrate": "fast"}, "'fast' is not a bit rate: expected 192k or"),
        ({"container": "mp3", "bitrate": "900k"}, "bitrate must be 8000 to .*, got 900000"),
        ({"bitrate": "192k"}, "wav has no bit rate: choose the format ogg, mp3"),
        ({"container": "mp3", "bitrate": 192_000.5}, "bitrate must be 8000 to .*, got 192000.5"),
    ],
)
@pytest.mark.parametrize("separate", [unetsep.separate, unetsep.separate_to_files])
def test_impossible_choices_are_value_errors(
    tune: Path,
    tmp_path: Path,
    tiny_separator: Separator,
    separate: typing.Callable[..., object],
    options: dict[str, typing.Any],
    message: str,
) -> None:
    with pytest.raises(ValueError, match=message):
        separate(tune, tmp_path / "out", model=tiny_separator, **options)
    assert not (tmp_path / "out").exists()


def test_file_urls_are_read_as_paths(tune: Path, tmp_path: Path, tiny_separator: Separator) -> None:
    tune = tune.rename(tmp_path / "a b.wav")
    report = unetsep.separate_to_files(
        tune.as_uri(), (tmp_path / "my stems").as_uri(), model=tiny_separator
    )
    assert report.stems["bass"] == tmp_path / "my stems/a b/bass.wav"


@pytest.mark.parametrize("function", [unetsep.separate, unetsep.separate_to_files])
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "audio must be a path, got ''"),
        (5, "expected a path, a file or .audio, sample_rate., got int"),
        (["a.wav"], "expected a path, a file or .audio, sample_rate., got list.*one by one"),
        ("https://example.org/a.mp3", "^https://example.org/a.mp3 is a URL: download it first$"),
    ],
)
def test_invalid_paths_are_refused_with_a_message(
    function: typing.Any, path: object, message: str, tmp_path: Path, tiny_separator: Separator
) -> None:
    with pytest.raises(ValueError, match=message):
        function(path, tmp_path, model=tiny_separator)
    with pytest.raises(ValueError, match=r"output_dir must be a path|is a URL"):
        function(tmp_path / "a.wav", path, model=tiny_separator)


@pytest.mark.parametrize(
    "options",
    [
        {"track": np.int64(1), "bit_depth": np.int64(24), "stems": np.array(["bass", "drums"])},
        {"container": "mp3", "bitrate": np.int64(128_000)},
        {"container": "ogg", "bitrate": np.float64(128_000)},
        {"tags": np.bool_(False)},
    ],
)
def test_options_may_be_numbers_of_numpy(
    tune: Path, tmp_path: Path, tiny_separator: Separator, options: dict[str, typing.Any]
) -> None:
    report = unetsep.separate_to_files(tune, tmp_path / "out", model=tiny_separator, **options)
    assert report.status == "ok"
    plain = {
        name: value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
        for name, value in options.items()
    }
    again = unetsep.separate_to_files(
        tune, tmp_path / "out", model=tiny_separator, skip_existing=True, **plain
    )
    assert again.status == "skipped"


@pytest.mark.parametrize("text", ["128k", "128K", "128000"])
def test_bit_rates_may_be_written_as_on_the_command_line(
    tune: Path, tmp_path: Path, tiny_separator: Separator, text: str
) -> None:
    options: dict[str, typing.Any] = {"model": tiny_separator, "container": "mp3"}
    unetsep.separate_to_files(tune, tmp_path, bitrate=text, **options)
    again = unetsep.separate_to_files(
        tune, tmp_path, bitrate=128_000, skip_existing=True, **options
    )
    assert again.status == "skipped"


def test_bit_depths_may_be_numbers(tune: Path, tmp_path: Path, tiny_separator: Separator) -> None:
    options: dict[str, typing.Any] = {"bit_depth": 24}
    report = unetsep.separate_to_files(tune, tmp_path, model=tiny_separator, **options)
    assert soundfile.info(report.stems["vocals"]).subtype == "PCM_24"


def functions_of(public: object) -> Iterator[typing.Any]:
    """A function; or a class, its public methods and ``__init__``."""
    yield public
    if isinstance(public, type):
        for name, member in vars(public).items():
            if not name.startswith("_") or name == "__init__":
                member = member.fget if isinstance(member, property) else member
                yield getattr(member, "__func__", member)


def annotation_names(public: object) -> Iterator[tuple[str, object]]:
    """Names of this package in the annotations of a function, class or alias."""
    for part in functions_of(public):
        if not str(getattr(part, "__module__", "")).startswith("unetsep"):
            continue
        annotations = getattr(part, "__annotations__", {}).values()
        # What is no text was made by `dataclass`, from the fields.
        for annotation in (each for each in annotations if isinstance(each, str)):
            for node in ast.walk(ast.parse(annotation, mode="eval")):
                if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
                    # Where torch is heavy its classes are imported for types alone.
                    home = vars(sys.modules[part.__module__])
                    yield node.id, home.get(node.id, getattr(unetsep, node.id, None))
    for part in typing.get_args(public):  # of an alias
        if isinstance(part, type) and typing.get_origin(part) is None:
            yield part.__name__, part


def is_foreign(name: str, value: object) -> bool:
    """Whether a name comes from the standard library or another package."""
    if isinstance(value, type):
        return not value.__module__.startswith("unetsep")
    return inspect.ismodule(value) or getattr(typing, name, None) is value


def test_every_name_that_a_public_signature_needs_is_public() -> None:
    needed = {
        (name, value)
        for public in map(unetsep.__getattr__, unetsep._HOMES)
        for name, value in annotation_names(public)
        if not is_foreign(name, value)
    }
    assert len(needed) >= 12
    for name, value in needed:
        assert name in unetsep.__all__, name
        assert getattr(unetsep, name) is value, name


def test_every_public_name_has_a_module() -> None:
    assert {*unetsep._HOMES, "__version__"} == set(unetsep.__all__)
    # By a function of this name type checkers would let any other name pass.
    functions = re.findall(r"^def (\w+)", Path(unetsep.__file__).read_text("utf-8"), re.MULTILINE)
    assert functions == ["__dir__"]


def test_instrumentals_bit_rates_and_tags_are_as_on_the_command_line(
    tmp_path: Path, tiny_separator: Separator
) -> None:
    import mutagen

    path = tmp_path / "song.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, (44_100, 2)), 44_100)
    tags = mutagen.File(path)
    tags["title"], tags["artist"] = "Song", "Band"
    tags.save()
    options: dict[str, typing.Any] = {
        "model": tiny_separator,
        "without": "vocals",
        "container": "mp3",
    }
    sizes = []
    for bitrate in (96_000, 256_000):
        stems = unetsep.separate(path, tmp_path / str(bitrate), bitrate=bitrate, **options)
        assert list(stems) == ["no_vocals"]
        (written,) = stems.files.values()
        sizes.append(written.stat().st_size)
        assert "Song" in str(mutagen.File(written)["TIT2"])
    assert sizes[1] > 1.5 * sizes[0]
    plain = unetsep.separate_to_files(path, tmp_path / "plain", tags=False, **options)
    assert "TIT2" not in (mutagen.File(plain.stems["no_vocals"]) or {})


def test_overwrite_replaces_stems_that_another_run_has_just_made(
    tune: Path, tmp_path: Path, tiny_separator: Separator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = unetsep.separate(tune, tmp_path / "out", model=tiny_separator)
    make = unetsep.api._job

    def begun_before(*arguments: object, **options: object) -> object:
        job = make(*arguments, **options)
        return replace(job, parts=[replace(part, first_signature=None) for part in job.parts])

    monkeypatch.setattr(unetsep.api, "_job", begun_before)
    again = unetsep.separate(tune, tmp_path / "out", model=tiny_separator, overwrite=True)
    assert again.keys() == first.keys()
    for stem, audio in again.items():
        np.testing.assert_array_equal(audio, first[stem])
    with pytest.raises(unetsep.UnetsepError, match="already exists"):
        unetsep.separate(tune, tmp_path / "out", model=tiny_separator)


def test_separate_gives_arrays_with_the_sample_rate(
    song: Callable[..., Path], tiny_separator: Separator
) -> None:
    path = song(rate=22_050, channels=1, subtype="FLOAT")
    result = unetsep.separate(path, model=tiny_separator)
    assert result.sample_rate == 22_050
    assert list(result) == list(tiny_separator.stems)
    assert len(result) == 4
    assert result.files == {}
    total = sum(result[stem] for stem in result)
    np.testing.assert_allclose(total[0], soundfile.read(path)[0], atol=1e-5)


def test_separate_writes_what_it_returns(
    song: Callable[..., Path], tiny_separator: Separator, tmp_path: Path
) -> None:
    path = song(subtype="FLOAT")
    result = unetsep.separate(path, tmp_path / "out", model=tiny_separator, two_stems="drums")
    assert list(result.files) == ["drums", "no_drums"]
    for stem, file in result.files.items():
        assert file == tmp_path / "out/song" / f"{stem}.wav"
        written = soundfile.read(file, dtype="float32")[0].T
        np.testing.assert_array_equal(written, result[stem])


def test_progress_is_reported_and_can_cancel(
    song: Callable[..., Path], tiny_separator: Separator, tmp_path: Path
) -> None:
    path = song(seconds=4)
    told = []
    unetsep.separate(path, model=tiny_separator, progress=lambda *now: told.append(now))
    assert [total for _, total in told] == [4.0] * len(told)
    assert told[-1][0] == 4.0
    assert told == sorted(told)
    with pytest.raises(unetsep.CancelledError, match="was cancelled"):
        unetsep.separate(path, tmp_path / "out", model=tiny_separator, progress=lambda *_: False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 48_000), (48_000, 44_100), (8000, 22_050)])
def test_stems_at_another_rate_add_up_to_the_song_at_that_rate(
    song: Callable[..., Path], tiny_separator: Separator, rate: int, wanted: int
) -> None:
    path = song(seconds=3.0005, rate=rate, subtype="FLOAT")
    result = unetsep.separate(path, model=tiny_separator, sample_rate=wanted)
    assert result.sample_rate == result.report.sample_rate == wanted
    assert result.report.seconds == pytest.approx(3.0005, abs=1e-3)
    audio = soundfile.read(path, dtype="float32")[0]
    expected = soxr.resample(audio, rate, wanted).T
    total = sum(result[stem] for stem in result)
    assert total.shape == (2, round(audio.shape[0] * wanted / rate))
    inside = slice(wanted // 10, -wanted // 10)
    np.testing.assert_allclose(total[:, inside], expected[:, inside], atol=2e-5)


def test_a_rate_that_the_song_has_changes_nothing(
    song: Callable[..., Path], tiny_separator: Separator
) -> None:
    path = song(subtype="FLOAT")
    one = unetsep.separate(path, model=tiny_separator)
    two = unetsep.separate(path, model=tiny_separator, sample_rate=RATE)
    for stem in one:
        np.testing.assert_array_equal(one[stem], two[stem])


def test_files_have_the_requested_rate(
    song: Callable[..., Path], tiny_separator: Separator, tmp_path: Path
) -> None:
    path = song("a.flac", seconds=1)
    options: dict[str, typing.Any] = {
        "model": tiny_separator,
        "sample_rate": np.int64(48_000),
        "stems": ["drums"],
    }
    report = unetsep.separate_to_files(path, tmp_path / "out", bit_depth="24", **options)
    info = soundfile.info(report.stems["drums"])
    assert (info.samplerate, info.frames, info.subtype) == (48_000, 48_000, "PCM_24")
    short = unetsep.separate(path, start=0.5, duration=0.25, **options)
    assert short["drums"].shape == (2, 12_000)
    one = unetsep.separate((np.ones((1, 1), np.float32) / 2, 96_000), **options | {"stems": None})
    assert one["bass"].shape == (1, 1)


@pytest.mark.parametrize(
    ("rate", "reason"),
    [
        (44.1, "sample_rate must be a whole number of Hz, got 44.1"),
        (48, "sample_rate must be 1000 to 1000000 Hz, got 48"),
        ("48000", "sample_rate must be a whole number"),
    ],
)
def test_an_impossible_rate_is_refused(
    song: Callable[..., Path], tiny_separator: Separator, rate: object, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        unetsep.separate(song(seconds=0.1), model=tiny_separator, sample_rate=rate)


def test_a_format_must_support_the_rate_of_the_stems(
    song: Callable[..., Path], tiny_separator: Separator, tmp_path: Path
) -> None:
    path, options = song(seconds=0.2, rate=96_000), {"model": tiny_separator, "container": "mp3"}
    with pytest.raises(unetsep.AudioError, match="96000 Hz"):
        unetsep.separate_to_files(path, tmp_path, **options)
    report = unetsep.separate_to_files(path, tmp_path, sample_rate=48_000, **options)
    assert soundfile.info(report.stems["bass"]).samplerate == 48_000
