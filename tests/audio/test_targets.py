from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import pytest
import soundfile

import unetsep.audio.targets
from unetsep.audio.targets import check_names, check_targets, explain_writing
from unetsep.errors import AudioError


@pytest.mark.parametrize("name", ["x" * 240 + "/vocals.wav", "x" * 200 + "/" + "y" * 100 + ".wav"])
def test_paths_that_are_too_long_on_windows_are_refused_before_any_work(
    tmp_path, monkeypatch, name
):
    target = tmp_path / name
    with monkeypatch.context() as patch:
        patch.setattr(unetsep.audio.targets, "_takes_long_paths", lambda: True)
        patch.setattr(sys, "platform", "win32")
        check_targets([target])
        patch.setattr(unetsep.audio.targets, "_takes_long_paths", lambda: False)
        with pytest.raises(AudioError, match="its path is too long: choose a shorter -o"):
            check_targets([target])


@pytest.mark.skipif(sys.platform == "win32", reason="names have been made for its drives")
@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOENT, errno.EILSEQ])  # as drives say it
def test_a_name_that_the_drive_refuses_is_refused_before_any_work(tmp_path, monkeypatch, code):
    touch = Path.touch

    def refuse(path, *arguments, **options):
        if "?" in path.name or path.stem == "con":
            raise OSError(code, os.strerror(code), path)
        touch(path, *arguments, **options)

    monkeypatch.setattr(Path, "touch", refuse)
    for name in ("a/What?/one.wav", "What? (Instrumental).wav", "con.wav"):
        named = re.escape(f"{tmp_path}/{name.removesuffix('/one.wav')}")
        message = rf"^{named}: this drive does not allow .* write {{title}} in"
        with pytest.raises(AudioError, match=message):
            check_names([tmp_path / "What/one.wav", tmp_path / name])
    assert not list(tmp_path.iterdir())
    (tmp_path / "What?").mkdir()  # as it is there, it is taken
    check_names([tmp_path / "What?/one.wav", tmp_path / "What/one.wav"])


def test_other_errors_before_any_work_do_not_mention_names(tmp_path, monkeypatch):
    def refuse(path, *arguments, **options):
        raise OSError(code, os.strerror(code), path)

    code = errno.EIO
    monkeypatch.setattr(Path, "touch", refuse)
    check_names([tmp_path / "What?/one.wav"])
    touched = []

    def fill(path, *arguments, **options):
        touched.append(path.name)
        if len(touched) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    monkeypatch.setattr(Path, "touch", fill)
    check_names([tmp_path / "What?/one.wav"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "path", "remedy"),
    [
        (errno.ENOENT, "/music" + "/song" * 50, "its path is too long: choose a shorter -o"),
        (errno.EINVAL, "/music/" + "x" * 256, "or shorter names with --filename"),
        (errno.ENOENT, "/music/song", "the folder cannot be created, or was removed meanwhile"),
        (errno.EACCES, "/music/song", "or close the program that has a file there open"),
    ],
)
def test_errors_that_windows_reports_differently_have_a_remedy(
    tmp_path, monkeypatch, code, path, remedy
):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "win32")
        with pytest.raises(AudioError) as caught, explain_writing(tmp_path):
            raise OSError(code, os.strerror(code), path)
    assert remedy in str(caught.value)


def test_a_file_that_cannot_be_closed_has_a_message_without_internal_error(tmp_path):
    message = "libsndfile could not complete a file; is the disk full"
    with pytest.raises(AudioError, match=message), explain_writing(tmp_path):
        raise soundfile.LibsndfileError(-1)
