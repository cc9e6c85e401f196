"""index.html and the folder beside it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from unetsep.errors import AudioError, UnetsepError
from unetsep.listen import page
from unetsep.listen.page import LIBRARIES, SCRIPTS, read_text, write_page
from unetsep.listen.songs import Song

ADDRESS = re.compile(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", re.IGNORECASE)


def song(folder: Path, name: str = "song", level: float = 0.1) -> Song:
    folder.mkdir(exist_ok=True)
    path = folder / "vocals.wav"
    soundfile.write(path, level * np.ones((2000, 2)), 8000)
    return Song(name, {"": {"vocals": path}})


def test_the_page_refers_to_no_host_and_holds_all_scripts_and_licences(tmp_path: Path) -> None:
    page = write_page(tmp_path, [song(tmp_path / "s", "</script><b>&Öl")])
    text = page.read_text(encoding="utf-8")
    assert not ADDRESS.search(text)
    assert text.count("<script") == text.count("</script>") == 1 + len(LIBRARIES) + len(SCRIPTS)
    assert "&lt;/script&gt;&lt;b&gt;&amp;Öl" in text
    assert "{{" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert "BSD 3-Clause" in text
    assert "Geraint Luff / Signalsmith Audio Ltd." in text


def test_data_is_reused_until_a_stem_changes_and_then_removed(tmp_path: Path) -> None:
    first = song(tmp_path / "s")
    write_page(tmp_path, [first])
    (data,) = (tmp_path / "player-data").iterdir()
    stamp = (data / "song.js").stat().st_mtime_ns
    write_page(tmp_path, [first])
    assert (data / "song.js").stat().st_mtime_ns == stamp
    write_page(tmp_path, [song(tmp_path / "s", level=0.25), song(tmp_path / "t", "t")])
    folders = list((tmp_path / "player-data").iterdir())
    assert len(folders) == 2
    assert data not in folders


def test_leftovers_of_an_interrupted_removal_do_not_matter(tmp_path: Path) -> None:
    first, data = song(tmp_path / "s"), tmp_path / "player-data"
    write_page(tmp_path, [first])
    (key,) = (path.name for path in data.iterdir())
    (data / key / "song.js").unlink()
    (data / f"gone-{key[-12:]}" / "0").mkdir(parents=True)
    write_page(tmp_path, [first])
    assert [path.name for path in data.iterdir()] == [key]
    assert (data / key / "song.js").exists()


def test_leftovers_of_killed_commands_are_removed_after_a_day_and_other_folders_never(
    tmp_path: Path,
) -> None:
    data = tmp_path / "player-data"
    names = [f"s-{12 * 'a'}-{12 * 'b'}.part", f"s-{12 * 'c'}.part"]
    for name in [*names, f"young-{12 * 'd'}.part", "mine", "my.part"]:
        (data / name).mkdir(parents=True)
    for name in [*names, "mine", "my.part"]:
        os.utime(data / name, (1000, 1000))
    write_page(tmp_path, [song(tmp_path / "s")])
    left = sorted(path.name.rpartition("-")[0] for path in data.iterdir())
    assert left == ["", "", "song", "young"]


@pytest.mark.parametrize("others", ["s", "t", "st"])
def test_two_commands_that_write_one_page_keep_each_others_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: str
) -> None:
    songs = {name: song(tmp_path / name, name) for name in "st"}
    original = page.write_song

    def write_late(made: Song, folder: Path, *rest: Any) -> None:
        monkeypatch.setattr(page, "write_song", original)
        write_page(tmp_path, [songs[name] for name in others])  # begins later and ends earlier
        original(made, folder, *rest)

    monkeypatch.setattr(page, "write_song", write_late)
    write_page(tmp_path, [songs["s"]])
    (name,) = page._keys_of(tmp_path / "index.html")
    assert [path.name for path in (tmp_path / "player-data").iterdir()] == [name]
    assert (tmp_path / "player-data" / name / "song.js").exists()


def test_data_that_another_command_removes_before_the_page_names_it_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = song(tmp_path / "s"), song(tmp_path / "t", "t")
    write_page(tmp_path, [first])
    original = page.render

    def late(*words: Any) -> str:
        monkeypatch.setattr(page, "render", original)
        write_page(tmp_path, [second])  # the first is on this page no longer
        return original(*words)

    monkeypatch.setattr(page, "render", late)
    write_page(tmp_path, [first])
    (name,) = page._keys_of(tmp_path / "index.html")
    assert [path.name for path in (tmp_path / "player-data").iterdir()] == [name]


def test_a_page_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(UnetsepError, match="not a page of unetsep"):
        write_page(tmp_path, [song(tmp_path / "s")])
    assert (tmp_path / "index.html").read_text() == "mine"


def test_a_bad_stem_leaves_nothing_behind(tmp_path: Path) -> None:
    bad = song(tmp_path / "s")
    bad.models[""]["vocals"].write_bytes(b"no audio")
    with pytest.raises(AudioError):
        write_page(tmp_path, [bad])
    assert not (tmp_path / "index.html").exists()
    assert not (tmp_path / "player-data").exists()


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    made = song(tmp_path / "s")
    (tmp_path / "file").write_text("")
    with pytest.raises(UnetsepError, match=r"writing to .* failed"):
        write_page(tmp_path / "file", [made])


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_end_no_script_element(name: str) -> None:
    assert "</script" not in read_text(name)
