from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path, PureWindowsPath

import mutagen
import numpy as np
import pytest
import soundfile

import unetsep.drives
import unetsep.paths
from tests.files import take_for_one, touch
from unetsep.audio.tags import Tags, read_tags
from unetsep.drives import NameRules
from unetsep.errors import AudioError, UnetsepError
from unetsep.inputs import Input
from unetsep.library.urls import UrlPath, public_url
from unetsep.paths import (
    TEMPLATE,
    ModelNames,
    check_template,
    distinct_targets,
    find_clashes,
    name_targets,
    refuse_existing,
    target_path,
    uses_tags,
    with_namesakes,
    with_tags,
)

STEMS = ("vocals", "drums")
MODELS = (ModelNames("mse", STEMS),)


def song(track: str) -> Input:
    return Input(Path("song.wav"), track)


def named(songs, folder, template=TEMPLATE, stems=STEMS):
    models = [ModelNames("m", stems)]
    return name_targets(songs, models, folder, template, "wav", name_rules=NameRules())


def clashes_among(songs, targets):
    return find_clashes(songs, targets, NameRules())


def one(songs, folder, template=TEMPLATE, models=MODELS):
    return distinct_targets(songs, models, folder, template, "wav")


@pytest.mark.parametrize(
    ("track", "expected"),
    [
        ("a.b.c", "a.b.c"),
        ("ends in dot.", "ends in dot"),
        ("ends in blank ", "ends in blank"),
        (" begins in blank", " begins in blank"),
        ("...", "_"),
        ("dir. /song .", "dir/song"),
        ("tab\there", "tab_here"),
        ("naïve 歌", "naïve 歌"),
        ("{stem}", "{stem}"),
    ],
)
def test_names_suit_every_file_system(track, expected):
    path = target_path(TEMPLATE, song(track), "vocals", "wav", "mse")
    assert path == Path(expected) / "vocals.wav"


def test_reserved_names_of_windows_are_avoided_there(monkeypatch):
    monkeypatch.setattr(unetsep.paths.os, "name", "nt")
    portable = unetsep.paths._portable
    names = {
        "CON": "CON_",
        "nul.wav": "nul_.wav",
        "aux .b": "aux_ .b",
        "com1": "com1_",
        "LPT².x": "LPT²_.x",
        "conout$": "conout$_",
        "song?": "song_",
        "console": "console",
        "a con": "a con",
    }
    assert {name: portable(name) for name in names} == names


def test_backslashes_separate_folders_of_a_template_on_windows(monkeypatch):
    template, song_ab = r"{track}\{stem}.{ext}", song("a/b")
    assert target_path(template, song("a"), "vocals", "wav", "mse") == Path(r"a\vocals.wav")
    with monkeypatch.context() as patch:
        patch.setattr(unetsep.paths, "Path", PureWindowsPath)
        patch.setattr(unetsep.paths.os, "name", "nt")
        path = target_path(template, song_ab, "vocals", "wav", "mse")
        with pytest.raises(ValueError, match="must end with the name of a file"):
            check_template("{track}\\", "wav")
        for outside in ("/a/{stem}", r"\a\{stem}", "c:{stem}", "c:/{stem}", r"..\{stem}"):
            with pytest.raises(ValueError, match="must stay inside the output folder"):
                check_template(outside, "wav")
    assert path == PureWindowsPath("a/b/vocals.wav")


def test_every_field_of_a_template_is_filled():
    template = "{model}/{track} ({suffix})/{stem}.{ext}"
    assert target_path(template, song("s"), "bass", "flac", "l1") == Path("l1/s (wav)/bass.flac")


def test_dots_in_a_template_are_removed():
    template = "./{track}/./{stem}.{ext}"
    assert target_path(template, song("."), "bass", "wav", "mse") == Path("_/bass.wav")


@pytest.mark.parametrize(
    "template",
    [
        "{}",
        "{0}",
        "{song}",
        "{track.x}",
        "{track",
        "{track:>9}",
        "{track!r}",
        "/a/{stem}",
        "../{stem}",
        "a/../../{stem}",
        "",
        ".",
        "{track}/{stem}/.",
        "{track}/{stem}/",
    ],
)
def test_templates_that_cannot_work_are_value_errors(template):
    with pytest.raises(ValueError, match="filename template"):
        check_template(template, "wav")


@pytest.mark.parametrize(
    ("template", "ext", "cure"),
    [
        ("{track}_{stem}.mp3", "wav", "end it with .{ext}, or choose the format mp3"),
        ("{track}_{stem}.MP3", "wav", "end it with .{ext}, or choose the format mp3"),
        ("{stem}.ogg", "wav", "end it with .{ext}, or choose the format ogg or opus"),
        ("{stem}.opus", "ogg", "end it with .{ext}, or choose the format opus"),
        ("{track}/{stem}", "flac", "which are flac: end it with .{ext}"),
        ("{track}/{stem}{ext}", "wav", "end it with .{ext}"),
        ("{track}.mp4", "stem.mp4", "stem.mp4: end it with .{ext}, or choose the format m4a"),
        ("{track}.stem.mp4", "m4a", "end it with .{ext}, or choose the format stem.mp4"),
        ("{track}/{stem}.{suffix}", "wav", "end it with .{ext}"),
    ],
)
def test_stems_are_not_named_like_another_format(template, ext, cure):
    with pytest.raises(ValueError, match="has another suffix than the stems") as error:
        check_template(template, ext)
    assert str(error.value).endswith(cure)


@pytest.mark.parametrize(
    ("template", "ext"),
    [
        (TEMPLATE, "opus"),
        ("{stem}.wav/{track}.{ext}", "mp3"),
        ("{track}.{stem}.WAV", "wav"),
        ("{track}.stem.mp4", "stem.mp4"),
        ("{stem}.ogg", "opus"),
        ("{stem}.oga", "opus"),
        ("{stem}.oga", "ogg"),
        ("{stem}.MP4", "m4a"),
        ("{stem}.wave", "wav"),
    ],
)
def test_the_suffix_of_stems_may_be_written_out(template, ext):
    check_template(template, ext)


def test_a_clash_of_names_is_reported_for_both_songs_only(tmp_path):
    names = ["01 Intro.flac", "01 Intro.mp3", "02 Song.flac"]
    songs = [Input(tmp_path / name, Path(name).stem) for name in names]
    clashes = clashes_among(songs, named(songs, tmp_path / "o"))
    assert clashes[0] == clashes[1]
    assert "01 Intro.flac and " in clashes[0]
    assert clashes[2] is None


@pytest.mark.parametrize(
    ("suffixes", "listed"),
    [
        (["flac", "mp3", "wav"], "{0}.flac, {0}.mp3 and {0}.wav would all be"),
        ([*"abcdefg"], "{0}.a, {0}.b, {0}.c and 4 others would all be"),
    ],
)
def test_a_clash_of_several_songs_is_one_sentence(tmp_path, suffixes, listed):
    songs = [Input(tmp_path / f"x.{suffix}", "x") for suffix in suffixes]
    clashes = clashes_among(songs, named(songs, tmp_path / "o"))
    assert len(clashes) == len(suffixes)
    (clash,) = set(clashes)
    assert clash.startswith(listed.format(tmp_path / "x"))


@pytest.mark.parametrize(
    ("names", "template", "remedy"),
    [
        (("a/x.wav", "a/x.mp3"), TEMPLATE, "such as {track}-{suffix}/{stem}.{ext}"),
        (("a/x.wav", "a/y.wav"), "{artist}/{stem}.{ext}", "such as {track}/{stem}.{ext}"),
        (("a/Song.wav", "a/Song .mp3"), TEMPLATE, "such as {track}-{suffix}/{stem}.{ext}"),
        (("a/x.WAV", "a/x.wav"), TEMPLATE, "such as {track}-{suffix}/{stem}.{ext}"),
        (("a/x.wav", "b/x.wav"), TEMPLATE, "such as {folder}/{track}/{stem}.{ext}"),
        (("1/a/x.wav", "2/a/x.wav"), TEMPLATE, "name a folder that holds both instead"),
        (("a/x.wav", "a/x.mp3", "a/x.flac"), TEMPLATE, "such as {track}-{suffix}/{stem}.{ext}"),
        (("a/x.wav", "a/x.mp3", "b/x.mp3"), TEMPLATE, "or separate each to its own folder"),
    ],
)
def test_the_advice_on_a_clash_resolves_it(tmp_path, names, template, remedy):
    songs = [Input(tmp_path / name, Path(name).stem) for name in names]
    targets = named(songs, tmp_path / "o", template)
    clashes = clashes_among(songs, targets)
    assert remedy in clashes[0]
    if "such as" in remedy:
        template = remedy.removeprefix("such as ")
        targets = named(songs, tmp_path / "o", template)
        assert clashes_among(songs, targets) == [None] * len(songs)


@pytest.mark.parametrize(
    ("names", "tags", "remedy"),
    [
        (("a/x.flac", "a/x.fla"), ("artist", ["Ana", "Bo"]), "{track}-{suffix}"),
        (("a/x.flac", "b/x.flac"), ("artist", ["Ana", "Bo"]), "{artist} - {title}"),
        (("a/x.flac", "b/x.flac"), ("title", ["Halo", "Intro"]), "{artist} - {title}"),
        (("a/x.flac", "b/x.flac"), ("album", ["One", "Two"]), "{album}/{track}"),
    ],
)
@pytest.mark.parametrize(
    ("template", "ext"),
    [(TEMPLATE, "wav"), ("{track}.{ext}", "mp3"), ("{track}.{ext}", "stem.mp4")],
)
def test_the_advice_on_a_clash_uses_tags(tmp_path, names, tags, remedy, template, ext, monkeypatch):
    reads = []
    monkeypatch.setattr("unetsep.paths.read_tags", lambda p: reads.append(p) or read_tags(p))
    key, values = tags
    for name, value in zip(names, values, strict=True):
        path = tmp_path / name
        touch(path)
        soundfile.write(path, np.zeros(9), 8000, format="FLAC")
        file = mutagen.File(path)
        file[key] = value
        file.save()
    songs = [Input(tmp_path / name, "x") for name in names]
    together = ext == "stem.mp4"
    models = [ModelNames("m", ["bass", "drums"] if "{stem}" in template else ["bass"])]
    options = {"ext": ext, "together": together, "name_rules": NameRules()}
    targets = name_targets(songs, models, tmp_path / "o", template, **options)
    clash, _ = clashes_among(songs, targets)
    assert len(reads) == (0 if "suffix" in remedy else len(songs))
    at_url = Input(UrlPath("https://x.org/y.wav"), "y")
    (advised, _) = find_clashes(songs, targets, NameRules(), [at_url])
    assert not uses_tags(advised)
    assert "{folder}" not in advised
    advice = remedy + (".{ext}" if together else "/{stem}.{ext}")
    assert clash.endswith(f": give --filename more fields, such as {advice}")
    targets = name_targets(with_tags(songs, advice), models, tmp_path / "o", advice, **options)
    assert clashes_among(songs, targets) == [None, None]


def test_songs_clash_if_their_folders_are_linked(tmp_path):
    (tmp_path / "o/a").mkdir(parents=True)
    (tmp_path / "o/b").symlink_to("a")
    songs = [Input(tmp_path / name, Path(name).stem) for name in ("a.wav", "b.wav")]
    targets = named(songs, tmp_path / "o")
    clashes = clashes_among(songs, targets)
    assert "would both be written to" in clashes[0]
    assert clashes[0].endswith(": choose another folder with -o")
    assert clashes[0] == clashes[1]


@pytest.mark.parametrize("count", [2, 3])
def test_urls_that_differ_in_their_query_alone_need_another_folder(tmp_path, count):
    places = [UrlPath(public_url(f"https://x.org/get?id={number}")) for number in range(count)]
    songs = [Input(place, "get") for place in places]
    targets = named(songs, tmp_path / "o")
    clashes = clashes_among(songs, targets)
    assert clashes[0] == clashes[1]
    assert clashes[0].endswith("separate each by itself, to its own folder with -o")


def test_songs_of_one_name_collide_before_any_work(tmp_path):
    songs = [Input(tmp_path / "a/x.wav", "x"), Input(tmp_path / "b/x.flac", "x")]
    with pytest.raises(UnetsepError, match=r"x\.wav and .*x\.flac would both be written"):
        one(songs, tmp_path / "out")
    assert len(one(songs, tmp_path / "out", "{track}-{suffix}/{stem}.{ext}")) == 2


def nfc(name):
    return unicodedata.normalize("NFC", name)


DRIVES = {
    "ext4": (lambda name: name, False, False),
    "exFAT": (str.casefold, True, False),
    "ZFS": (nfc, False, True),
    "APFS": (lambda name: nfc(name).casefold(), True, True),
}


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("drive", DRIVES)
@pytest.mark.parametrize("existing", ["", "out", "out/Song", "out/song"])
def test_names_that_differ_in_case_or_accents_collide_where_the_drive_thinks_so(
    tmp_path, monkeypatch, platform, drive, existing
):
    folds, case, accents = DRIVES[drive]
    (tmp_path / existing).mkdir(exist_ok=True, parents=True)
    monkeypatch.setattr(sys, "platform", platform)
    take_for_one(monkeypatch, folds)
    always = platform == "darwin"
    before = sorted(tmp_path.rglob("*"))
    for names, collide in {
        ("Song", "song"): case,
        ("caf\u00e9", "cafe\u0301"): accents,
        ("Caf\u00e9", "cafe\u0301"): case and accents,
    }.items():
        songs = [
            Input(tmp_path / f"{folder}/{name}.wav", name)
            for folder, name in zip("ab", names, strict=True)
        ]
        targets = named(songs, tmp_path / "out")
        clashes = clashes_among(songs, targets)
        assert all(map(bool, clashes)) == any(map(bool, clashes)) == (collide or always)
        assert not clashes[0] or clashes[0].endswith("such as {folder}/{track}/{stem}.{ext}")
    songs = [Input(tmp_path / "Song.mp3", "Song"), Input(tmp_path / "song.wav", "song")]
    targets = named(songs, tmp_path / "out")
    remedy = "such as {track}-{suffix}/{stem}.{ext}"
    found = [bool(clash) and clash.endswith(remedy) for clash in clashes_among(songs, targets)]
    assert found == [case or always] * 2
    for suffixes, which in ((["WAV", "wav"], "one"), (["WAV", "wav", "Wav"], "all but one")):
        songs = [Input(tmp_path / f"x.{suffix}", "x") for suffix in suffixes]
        rename = f": rename {which} of them, or separate each to its own folder"
        clashes = clashes_among(songs, named(songs, tmp_path / "out"))
        assert all(clash.endswith(rename if case or always else remedy) for clash in clashes)
        assert len(clashes) == len(songs)
    assert sorted(tmp_path.rglob("*")) == before


def test_names_that_do_not_clash_cause_no_probe_of_the_drive(tmp_path, monkeypatch):
    monkeypatch.setattr(unetsep.drives, "_rules_of_names", None)
    songs = [Input(tmp_path / f"{name}.wav", name) for name in ("Song", "Songs", "caf\u00e9")]
    assert len(one(songs, tmp_path / "out")) == 3


@pytest.mark.parametrize(("drive", "refused"), [("ext4", False), ("exFAT", True)])
def test_an_input_is_not_overwritten_where_case_does_not_count(
    tmp_path, monkeypatch, drive, refused
):
    touch(tmp_path / "ZOOM0001.WAV")  # as recorders call them
    monkeypatch.setattr(sys, "platform", "linux")
    take_for_one(monkeypatch, DRIVES[drive][0])
    songs = [Input(tmp_path / "ZOOM0001.WAV", "ZOOM0001")]
    targets = named(songs, tmp_path, "{track}.{ext}", ("vocals",))
    (clash,) = clashes_among(songs, targets)
    assert bool(clash) == refused
    assert not clash or "would be written over an input" in clash


def test_a_shard_is_planned_with_similar_names_of_other_shards(tmp_path):
    songs = [Input(tmp_path / f"{name}.wav", name) for name in ("Song", "other", "song")]
    assert with_namesakes(songs[2:], songs) == [songs[0], songs[2]]


def test_a_song_with_an_error_collides_with_nothing(tmp_path):
    songs = [Input(tmp_path / "x.wav", "x"), Input(tmp_path / "b/x.wav", "x", "does not exist")]
    assert len(one(songs, tmp_path / "out")) == 2


def test_stems_must_have_different_names(tmp_path):
    with pytest.raises(UnetsepError, match=r"several stems .* name \{stem\} in --filename"):
        one([Input(tmp_path / "x.wav", "x")], tmp_path / "out", "{track}.{ext}")


def test_an_input_is_never_an_output(tmp_path):
    touch(tmp_path / "x.wav")
    with pytest.raises(UnetsepError, match="would be written over an input"):
        one(
            [Input(tmp_path / "x.wav", "x")],
            tmp_path / "sub" / "..",
            "{track}.{ext}",
            (("mse", ("vocals",)),),
        )


def test_several_models_get_folders_unless_the_template_names_them(tmp_path):
    songs = [Input(tmp_path / "x.wav", "x")]
    models = [ModelNames("mse", ["bass"]), ModelNames("l1", ["bass"])]
    out = tmp_path / "out"
    assert distinct_targets(songs, models, out, TEMPLATE, "wav") == [
        [[out / "mse/x/bass.wav"], [out / "l1/x/bass.wav"]]
    ]
    assert distinct_targets(songs, models, out, "{track}/{stem}-{model}.{ext}", "wav")[0][1] == [
        out / "x/bass-l1.wav"
    ]


def test_output_that_is_a_file_is_refused(tmp_path):
    touch(tmp_path / "out")
    with pytest.raises(UnetsepError, match="is a file: name a folder with -o"):
        one([], tmp_path / "out")


def test_existing_files_are_counted(tmp_path):
    refuse_existing([tmp_path / "a", tmp_path / "b"])
    touch(tmp_path / "a", tmp_path / "b")
    with pytest.raises(AudioError, match=r"a already exists: .*\(2 files exist in all\)"):
        refuse_existing([tmp_path / "a", tmp_path / "b"])


@pytest.mark.skipif(os.name == "nt", reason="to Windows such a name is one that does not exist")
def test_a_name_that_is_too_long_is_refused(tmp_path):
    refuse_existing([tmp_path / "a/b"])
    (tmp_path / "a").touch()
    refuse_existing([tmp_path / "a/b"])
    with pytest.raises(AudioError, match="cannot be written: File name too long"):
        refuse_existing([tmp_path / ("x" * 300)])


def test_a_dangling_link_counts_as_an_existing_file(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "nothing")
    with pytest.raises(AudioError, match="a already exists"):
        refuse_existing([tmp_path / "a"])


def tags_of(artist: str = "", **others: str) -> Tags:
    values = {"artist": artist, **others}
    return Tags({name: (text,) for name, text in values.items() if text})


def file_name(template: str, tags: Tags, track: str = "disc/01 song") -> str:
    file = Input(Path("song.flac"), track, tags=tags)
    return target_path(template, file, "no_vocals", "mp3", "mse").as_posix()


def test_names_can_be_made_of_tags():
    tags = tags_of("Ana", title="Halo", album="One", tracknumber="3/12", date="1999-05-01")
    template = "{artist}/{year} {album}/{tracknumber} {title} ({label}).{ext}"
    assert file_name(template, tags) == "Ana/1999 One/03 Halo (Instrumental).mp3"
    assert file_name("{albumartist}/{stem}", tags) == "Ana/no_vocals"
    assert file_name("{albumartist}", tags_of("Ana", albumartist="Various")) == "Various"


def test_missing_tags_have_a_fallback():
    template = "{artist}/{year} {album}/{tracknumber} {title}.{ext}"
    assert file_name(template, Tags()) == "Unknown Artist/0000 Unknown Album/00 01 song.mp3"
    blank = tags_of("...", title=" ", album="?", date="soon")
    assert file_name("{artist}/{album}/{year}", blank) == "_/_/0000"


@pytest.mark.parametrize(
    ("artist", "expected"),
    [
        ("AC/DC", "AC_DC"),
        ("../../etc", "_._.._etc"),
        (".hidden", "_hidden"),
        ('a:b*c?"d<e>f|g\\h', "a_b_c__d_e_f_g_h"),
        ("line\nbreak\x7f", "line_break_"),
        ("Vol. 1. ", "Vol. 1"),
        ("NUL", "NUL_"),
        ("con.fusion", "con_.fusion"),
        ("Cafe\u0301", "Caf\u00e9"),
        ("\u00e9" * 80, "\u00e9" * 50),
        ("x" * 99 + "\u00e9", "x" * 99),
        ("{stem}", "{stem}"),
    ],
)
def test_tags_become_names_that_are_safe_on_every_file_system(artist, expected):
    path = file_name("{artist}/{stem}", tags_of(artist))
    assert path == f"{expected}/no_vocals"
    assert len(expected.encode()) <= 100


def test_tags_are_read_only_where_a_template_asks_for_them(tmp_path, monkeypatch):
    read: list[Path] = []

    def tags(path: Path) -> Tags:
        read.append(path)
        return tags_of("Ana")

    monkeypatch.setattr("unetsep.paths.read_tags", tags)
    songs = [Input(Path("a.mp3"), "a"), Input(Path("b.mp3"), "b", "gone")]
    assert with_tags(songs, TEMPLATE) == songs
    assert read == []
    assert [song.tags.text("artist") for song in with_tags(songs, "{artist}")] == ["Ana", ""]
    assert read == [Path("a.mp3")]
    assert find_targets(songs[:1], tmp_path, "{artist}-{stem}.wav") == [tmp_path / "Ana-vocals.wav"]


def find_targets(songs: list[Input], folder: Path, template: str) -> list[Path]:
    songs, models = with_tags(songs, template), [ModelNames("m", ("vocals",))]
    return distinct_targets(songs, models, folder, template, "wav")[0][0]


def test_all_stems_may_be_in_one_file(tmp_path):
    songs = [Input(Path("a.mp3"), "a")]
    models = [ModelNames("m", ("vocals", "drums"))]
    ((paths,),) = distinct_targets(
        songs, models, tmp_path, "{track}.{ext}", "stem.mp4", together=True
    )
    assert paths == [tmp_path / "a.stem.mp4"] * 2
    with pytest.raises(UnetsepError, match="several stems"):
        distinct_targets(songs, models, tmp_path, "{track}.{ext}", "wav")
