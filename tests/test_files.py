from __future__ import annotations

import re
import struct

import pytest
import soundfile

from tests.signals import RATE
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError
from unetsep.file_options import FileOptions
from unetsep.files import SeparationReport, separate_file


def test_report_has_plain_values(song, tiny_separator, tmp_path):
    path = song(seconds=0.5)
    targets = [tmp_path / f"{stem}.wav" for stem in tiny_separator.stems]
    (report,) = separate_file(path, [tiny_separator], [targets], FileOptions(duration=0.25))
    assert report.to_dict()["seconds"] == pytest.approx(0.25, abs=1e-3)
    assert report.to_dict() == SeparationReport(**report.to_dict()).to_dict()
    assert soundfile.info(targets[0]).frames == round(0.25 * RATE)


@pytest.mark.parametrize(
    ("endian", "place"), [("LITTLE", 2**32 + 3600 * RATE), ("BIG", 2**32 + 3600 * RATE), ("BIG", 0)]
)
def test_stems_of_broadcast_wav_have_the_texts_and_the_time_of_the_song(
    song, tiny_separator, tmp_path, endian, place
):
    path = tmp_path / "song.wav"
    soundfile.write(path, soundfile.read(song("a.wav"))[0], RATE, endian=endian)
    order, plain = ("<" if endian == "LITTLE" else ">"), path.read_bytes()
    texts = b"Scene 4".ljust(256, b"\0") + b"Recorder".ljust(64, b"\0") + b"2026-11-0108:30:00"
    halves = place % 2**32, place >> 32  # lower half first in either order
    chunk = struct.pack(f"{order}4sI338sIIH254x", b"bext", 602, texts, *halves, 1)
    size = struct.pack(f"{order}I", len(plain) - 8 + len(chunk))
    path.write_bytes(plain[:4] + size + plain[8:12] + chunk + plain[12:])
    targets = [tmp_path / f"{stem}.wav" for stem in tiny_separator.stems]
    separate_file(path, [tiny_separator], [targets], FileOptions(start=0.5))
    for target in targets:
        with AudioReader(target) as reader:
            assert reader.time_reference == place + RATE // 2
            assert reader.info.broadcast == texts
    targets = [tmp_path / f"plain/{stem}.wav" for stem in tiny_separator.stems]
    separate_file(path, [tiny_separator], [targets], FileOptions(tags=False))
    with AudioReader(targets[0]) as reader:
        assert reader.time_reference == place
        assert reader.info.broadcast == bytes(256) + b"unetsep".ljust(82, b"\0")


def test_impossible_output_is_refused_before_the_network_runs(
    song, tiny_separator, tmp_path, monkeypatch
):
    monkeypatch.setattr(tiny_separator, "open_song", None)
    path = song(rate=96_000)
    targets = [tmp_path / f"out/{stem}.mp3" for stem in tiny_separator.stems]
    with pytest.raises(AudioError, match="mp3 cannot hold 2 channels at 96000 Hz"):
        separate_file(path, [tiny_separator], [targets], FileOptions(container="mp3"))
    assert not (tmp_path / "out").exists()


def test_an_existing_target_is_refused_before_the_network_runs(
    song, tiny_separator, tmp_path, monkeypatch
):
    targets = [tmp_path / f"{stem}.wav" for stem in tiny_separator.stems]
    targets[2].write_bytes(b"mine")
    with monkeypatch.context() as patch:
        patch.setattr(tiny_separator, "open_song", None)
        with pytest.raises(AudioError, match=r"bass\.wav already exists: use --overwrite"):
            separate_file(song(), [tiny_separator], [targets], FileOptions())
    assert targets[2].read_bytes() == b"mine"
    separate_file(song(), [tiny_separator], [targets], FileOptions(overwrite=True))
    assert soundfile.info(targets[2]).samplerate == RATE


def test_paths_may_be_text(song, tiny_separator, tmp_path):
    targets = [tmp_path / f"{stem}.wav" for stem in tiny_separator.stems]
    texts = [str(path) for path in targets]
    (report,) = separate_file(str(song()), [tiny_separator], [texts], FileOptions())
    assert list(report.stems.values()) == targets
    assert report.source == song()


@pytest.mark.parametrize("counts", [[3], [5], [], [4, 4]])
def test_each_stem_of_each_model_has_one_target(song, tiny_separator, tmp_path, counts):
    targets = [
        [tmp_path / f"{model}-{stem}.wav" for stem in range(n)] for model, n in enumerate(counts)
    ]
    message = re.escape(f"as many targets as each model has stems, [4], got {counts}")
    with pytest.raises(ValueError, match=message):
        separate_file(song(), [tiny_separator], targets, FileOptions())


def test_a_failing_network_leaves_no_file(song, tiny_separator, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tiny_separator, "open_song", fail)
    targets = [tmp_path / f"out/{stem}.wav" for stem in tiny_separator.stems]
    with pytest.raises(MemoryError):
        separate_file(song(), [tiny_separator], [targets], FileOptions())
    assert not (tmp_path / "out").exists()
