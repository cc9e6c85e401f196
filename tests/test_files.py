from __future__ import annotations

import struct

import numpy as np
import pytest
import soundfile
import soxr

import unetsep
from tests.signals import RATE
from unetsep.audio.reader import AudioReader
from unetsep.errors import AudioError, CancelledError
from unetsep.files import FileOptions, SeparationReport, separate_file


def test_separate_gives_arrays_with_the_sample_rate(song, tiny_separator):
    path = song(rate=22_050, channels=1, subtype="FLOAT")
    result = unetsep.separate(path, model=tiny_separator)
    assert result.sample_rate == 22_050
    assert list(result) == list(tiny_separator.stems)
    assert len(result) == 4
    assert result.files == {}
    total = sum(result[stem] for stem in result)
    np.testing.assert_allclose(total[0], soundfile.read(path)[0], atol=1e-5)


def test_separate_writes_what_it_returns(song, tiny_separator, tmp_path):
    path = song(subtype="FLOAT")
    result = unetsep.separate(path, tmp_path / "out", model=tiny_separator, two_stems="drums")
    assert list(result.files) == ["drums", "no_drums"]
    for stem, file in result.files.items():
        assert file == tmp_path / "out/song" / f"{stem}.wav"
        written = soundfile.read(file, dtype="float32")[0].T
        np.testing.assert_array_equal(written, result[stem])


def test_separate_replaces_files_only_with_overwrite(song, tiny_separator, tmp_path):
    path = song(seconds=0.2)
    unetsep.separate(path, tmp_path, model=tiny_separator)
    with pytest.raises(AudioError, match="already exists"):
        unetsep.separate(path, tmp_path, model=tiny_separator)
    unetsep.separate(path, tmp_path, model=tiny_separator, overwrite=True)


def test_separate_warns_of_a_damaged_file(song, tiny_separator):
    path = song("a.ogg", seconds=3)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.warns(RuntimeWarning, match="has no end mark"):
        unetsep.separate(path, model=tiny_separator)


def test_progress_is_reported_and_can_cancel(song, tiny_separator, tmp_path):
    path = song(seconds=4)
    told = []
    unetsep.separate(path, model=tiny_separator, progress=lambda *now: told.append(now))
    assert [total for _, total in told] == [4.0] * len(told)
    assert told[-1][0] == 4.0
    assert told == sorted(told)
    with pytest.raises(CancelledError, match="was cancelled"):
        unetsep.separate(path, tmp_path / "out", model=tiny_separator, progress=lambda *_: False)
    assert not (tmp_path / "out").exists()


def test_report_has_plain_values(song, tiny_separator, tmp_path):
    path = song(seconds=0.5)
    targets = [tmp_path / f"{stem}.wav" for stem in tiny_separator.stems]
    (report,) = separate_file(path, [tiny_separator], [targets], FileOptions(duration=0.25))
    assert report.to_dict()["seconds"] == pytest.approx(0.25, abs=1e-3)
    assert report.to_dict() == SeparationReport(**report.to_dict()).to_dict()
    assert soundfile.info(targets[0]).frames == round(0.25 * RATE)


@pytest.mark.parametrize("endian", ["LITTLE", "BIG"])
def test_stems_of_broadcast_wav_have_the_time_reference_of_the_song(
    song, tiny_separator, tmp_path, endian
):
    path, hour = tmp_path / "song.wav", 3600 * RATE
    soundfile.write(path, soundfile.read(song("a.wav"))[0], RATE, endian=endian)
    order, plain = ("<" if endian == "LITTLE" else ">"), path.read_bytes()
    chunk = struct.pack(f"{order}4sI338xIIH254x", b"bext", 602, hour, 1, 1)  # lower half first
    size = struct.pack(f"{order}I", len(plain) - 8 + len(chunk))
    path.write_bytes(plain[:4] + size + plain[8:12] + chunk + plain[12:])
    targets = [tmp_path / f"{stem}.wav" for stem in tiny_separator.stems]
    separate_file(path, [tiny_separator], [targets], FileOptions(start=0.5))
    for target in targets:
        with AudioReader(target) as reader:
            assert reader.time_reference == 2**32 + hour + RATE // 2


def test_impossible_output_is_refused_before_the_network_runs(
    song, tiny_separator, tmp_path, monkeypatch
):
    monkeypatch.setattr(tiny_separator, "open_song", None)
    path = song(rate=96_000)
    targets = [tmp_path / f"out/{stem}.mp3" for stem in tiny_separator.stems]
    with pytest.raises(AudioError, match="mp3 cannot hold 2 channels at 96000 Hz"):
        separate_file(path, [tiny_separator], [targets], FileOptions(container="mp3"))
    assert not (tmp_path / "out").exists()


def test_a_failing_network_leaves_no_file(song, tiny_separator, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(tiny_separator, "open_song", fail)
    targets = [tmp_path / f"out/{stem}.wav" for stem in tiny_separator.stems]
    with pytest.raises(MemoryError):
        separate_file(song(), [tiny_separator], [targets], FileOptions())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("rate", "wanted"), [(44_100, 48_000), (48_000, 44_100), (8000, 22_050)])
def test_stems_at_another_rate_add_up_to_the_song_at_that_rate(song, tiny_separator, rate, wanted):
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


def test_a_rate_that_the_song_has_changes_nothing(song, tiny_separator):
    path = song(subtype="FLOAT")
    one = unetsep.separate(path, model=tiny_separator)
    two = unetsep.separate(path, model=tiny_separator, sample_rate=RATE)
    for stem in one:
        np.testing.assert_array_equal(one[stem], two[stem])


def test_files_have_the_requested_rate(song, tiny_separator, tmp_path):
    path = song("a.flac", seconds=1)
    options = {"model": tiny_separator, "sample_rate": np.int64(48_000), "stems": ["drums"]}
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
def test_an_impossible_rate_is_refused(song, tiny_separator, rate, reason):
    with pytest.raises(ValueError, match=reason):
        unetsep.separate(song(seconds=0.1), model=tiny_separator, sample_rate=rate)


def test_a_format_must_support_the_rate_of_the_stems(song, tiny_separator, tmp_path):
    path, options = song(seconds=0.2, rate=96_000), {"model": tiny_separator, "container": "mp3"}
    with pytest.raises(AudioError, match="96000 Hz"):
        unetsep.separate_to_files(path, tmp_path, **options)
    report = unetsep.separate_to_files(path, tmp_path, sample_rate=48_000, **options)
    assert soundfile.info(report.stems["bass"]).samplerate == 48_000
