"""``unetsep listen``, and what ``separate --player`` and ``--plots`` leave behind."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from click.testing import Result
from rich.console import Console

from tests.commands import call
from unetsep.cli.listen import show_page
from unetsep.config import STEMS
from unetsep.listen.songs import Song

# A picture of fewer stems takes less long to draw.
FEW = ("--stems", "vocals,drums")


def run(*arguments: object) -> Result:
    result = call(*arguments)
    assert "Traceback" not in result.stderr
    return result


@pytest.fixture
def separate(tiny_model: Path, tmp_path: Path):
    fixed = ("separate", "-d", "cpu", "-o", tmp_path / "out", "-m", tiny_model)
    return lambda *arguments: run(*fixed, *arguments)


def test_one_song_gets_its_page_and_picture_beside_its_stems(separate, song, tmp_path):
    result = separate(song("my song.wav", seconds=2), "--player", "--plots")
    assert result.exit_code == 0
    folder = tmp_path / "out/my song"
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    stems = {f"{stem}.wav" for stem in STEMS}
    assert names == stems | {"index.html", "player-data", "my song-spectrograms.png"}
    assert "index.html: open it in a browser" in result.stderr


def test_several_songs_share_one_page_with_skipped_ones(separate, song, tmp_path):
    first, second = song("a.wav", seconds=1), song("b.wav", seconds=1)
    assert separate(first).exit_code == 0
    assert separate(first, second, "--skip-existing", "--player").exit_code == 0
    text = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert '"name": "a"' in text
    assert '"name": "b"' in text


def test_listen_writes_the_page_of_existing_stems(separate, song, tmp_path):
    separate(song("a.wav", seconds=1), *FEW)
    result = run("listen", tmp_path / "out/a", "--plots")
    assert result.exit_code == 0
    assert (tmp_path / "out/a/index.html").exists()
    assert (tmp_path / "out/a/a-spectrograms.png").exists()


def test_a_foreign_picture_is_kept_and_the_others_are_drawn(separate, song, tmp_path):
    for seconds, name in ((1, "a"), (2, "b")):
        separate(song(f"{name}.wav", seconds=seconds), *FEW)
    foreign = tmp_path / "out/a/a-spectrograms.png"
    foreign.write_bytes(b"mine")
    for drawn in (False, True):
        ours = tmp_path / "out/b/b-spectrograms.png"
        assert ours.exists() == drawn
        result = run("listen", tmp_path / "out", "--plots", "-q")
        assert result.exit_code == 1
        assert f"Error: {foreign} was not drawn by unetsep, so it was not replaced" in result.stderr
        assert result.stderr.count("\n") == 1
        assert foreign.read_bytes() == b"mine"
        assert ours.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_plots_are_drawn_for_names_that_are_not_unicode(separate, song, tmp_path):
    odd = tmp_path / os.fsdecode(b"a\xff.wav")
    try:
        song("a.wav", seconds=1).rename(odd)
    except OSError:
        pytest.skip("names of files are text here")
    result = separate(odd, song("b.wav", seconds=1), *FEW, "--plots")
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "out").rglob("*-spectrograms.png"))) == 2


def test_single_files_beside_each_other_have_a_picture_each(separate, song, tmp_path):
    path = song("a.wav", seconds=1)
    for options in (["--instrumental"], ["--without", "drums"]):
        assert separate(path, *options, "--plots").exit_code == 0
    pictures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert pictures == [f"a ({which})-spectrograms.png" for which in ("Instrumental", "No Drums")]


def test_brackets_in_a_name_are_shown_while_its_song_is_read(song, tmp_path):
    stem = song("out/vocals.wav", seconds=1)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    assert show_page([Song("Songs [/live]", {"": {"vocals": stem}})], stem.parent, console) == []
    assert "Songs [/live]" in screen.getvalue()


def test_a_folder_without_stems_is_refused(tmp_path):
    result = run("listen", tmp_path)
    assert result.exit_code == 1
    assert "holds no stems" in result.stderr


@pytest.mark.parametrize(("word", "shown"), [("-qv", True), ("-v", False)])
def test_verbose_shows_a_traceback_among_other_short_options(tmp_path, monkeypatch, word, shown):
    monkeypatch.chdir(tmp_path)
    words = ["listen", word, "none"] if shown else ["listen", "--", word]  # a folder's name
    monkeypatch.setattr("sys.argv", ["unetsep", *words])
    result = call(*words)
    assert result.exit_code == 1
    assert ("Traceback" in result.stderr) == shown


def test_a_failed_song_does_not_stop_the_page_of_the_others(separate, song, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    result = separate(tmp_path / "bad.wav", song("a.wav", seconds=1), "--player")
    assert result.exit_code == 1
    assert (tmp_path / "out/a/index.html").exists()


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_foreign_page_is_refused_before_any_work(separate, song, tmp_path, more):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/index.html").write_text("mine")
    result = separate(song("a.wav"), song("b.wav"), "--player", *more)
    assert result.exit_code == 1
    assert result.stderr.endswith(
        f"{Path('out/index.html')} exists and is not a page of unetsep: move it away first\n"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


def test_a_run_is_summarised_if_its_page_cannot_be_written(separate, song, tmp_path):
    (tmp_path / "out/a").mkdir(parents=True)
    (tmp_path / "out/a/index.html").write_text("mine")
    (tmp_path / "bad.wav").write_bytes(b"no audio")  # or else the page would be of both songs
    result = separate(song("a.wav"), tmp_path / "bad.wav", "--player")
    assert result.exit_code == 1
    assert "1 of 2 songs separated" in result.stderr
    assert "Log: " in result.stderr
    assert result.stderr.endswith("is not a page of unetsep: move it away first\n")


@pytest.mark.parametrize("content", ["cut", "noise", "header"])
def test_an_unreadable_stem_excludes_only_its_own_song(song, tmp_path, content):
    for name in ("a", "b"):
        for seed, stem in enumerate(("vocals", "drums")):
            song(f"out/{name}/{stem}.wav", seconds=1, seed=seed)
    bad = tmp_path / "out/a/drums.wav"
    whole = bad.read_bytes()
    bad.write_bytes({"cut": whole[:50_000], "noise": b"no audio", "header": whole[:20]}[content])
    result = run("listen", tmp_path / "out", "--plots", "-q")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: a is not on the page: {bad} ")
    assert result.stderr.count("\n") == 1
    text = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert '"name": "b"' in text
    assert '"name": "a"' not in text
    assert (tmp_path / "out/b/b-spectrograms.png").exists()
    before = sorted((tmp_path / "out/a").iterdir())
    result = run("listen", tmp_path / "out/a")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {bad} ")
    assert sorted((tmp_path / "out/a").iterdir()) == before
