from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path

import mutagen
import numpy as np
import pytest
import soundfile
from mutagen import apev2, asf, flac, id3, mp3, mp4, oggvorbis, wave

import unetsep
from tests.programs import execute, script
from tests.signals import RATE, music
from unetsep.audio.formats import CONTAINERS
from unetsep.audio.reader import AudioReader
from unetsep.audio.tag_writers import write_tags
from unetsep.audio.tags import Cover, Tags, read_tags, stem_label
from unetsep.file_options import FileOptions
from unetsep.files import separate_file

# The smallest pictures that players take: a white dot.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8ffff"
    "3f0005fe02fea735810000000049454e44ae426082"
)
WANTED = {
    "title": ("Halo",),
    "artist": ("Ana", "Béla"),
    "album": ("One/Two",),
    "tracknumber": ("3/12",),
    "date": ("1999-05-01",),
    "genre": ("House",),
    "remixer": ("Cy",),
    "bpm": ("124",),
    "key": ("Am",),
    "comment": ("8A - Energy 7",),
}
TAGS = Tags(WANTED, Cover("image/png", PNG))


def picture() -> flac.Picture:
    found = flac.Picture()
    found.type, found.mime, found.data = 3, "image/png", PNG
    return found


def tag_vorbis(file: mutagen.FileType) -> None:
    for name in ("title", "artist", "album", "genre", "bpm", "comment"):
        file[name] = list(WANTED[name])
    file["date"], file["initialkey"], file["remixer"] = "1999-05-01", "Am", "Cy"
    file["tracknumber"], file["tracktotal"] = "3", "12"
    file["replaygain_track_gain"], file["lyrics"] = "-7.9 dB", "la"


def tag_flac(path: Path) -> None:
    file = flac.FLAC(path)
    tag_vorbis(file)
    back = picture()
    back.type, back.data = 4, b"the back"
    file.add_picture(back)
    file.add_picture(picture())
    file.save()


def tag_ogg(path: Path) -> None:
    import base64

    file = oggvorbis.OggVorbis(path)
    tag_vorbis(file)
    file["metadata_block_picture"] = base64.b64encode(picture().write()).decode()
    file.save()


def fill_id3(tags: id3.ID3) -> None:
    frames = {"title": "TIT2", "artist": "TPE1", "album": "TALB", "tracknumber": "TRCK"}
    frames |= {"date": "TDRC", "bpm": "TBPM", "key": "TKEY", "remixer": "TPE4"}
    for name, frame in frames.items():
        tags.add(getattr(id3, frame)(encoding=3, text=list(WANTED[name])))
    tags.add(id3.TCON(encoding=3, text=["(35)"]))  # as the first version numbered them
    tags.add(id3.COMM(encoding=3, lang="eng", desc="", text=["8A - Energy 7"]))
    tags.add(id3.COMM(encoding=3, lang="eng", desc="iTunNORM", text=["00000399"]))
    tags.add(id3.TXXX(encoding=3, desc="REPLAYGAIN_TRACK_GAIN", text=["-7.9 dB"]))
    tags.add(id3.APIC(encoding=3, mime="image/png", type=3, desc="front", data=PNG))


def tag_mp3(path: Path) -> None:
    file = mp3.MP3(path)
    file.add_tags()
    fill_id3(file.tags)
    file.save(v2_version=4)


def tag_wav(path: Path) -> None:
    file = wave.WAVE(path)
    file.add_tags()
    fill_id3(file.tags)
    file.save()


def tag_m4a(path: Path) -> None:
    file = mp4.MP4(path)
    file["\xa9nam"], file["\xa9ART"], file["\xa9alb"] = ["Halo"], ["Ana", "Béla"], ["One/Two"]
    file["trkn"], file["\xa9day"], file["\xa9gen"] = [(3, 12)], ["1999-05-01"], ["House"]
    file["tmpo"], file["\xa9cmt"] = [124], ["8A - Energy 7"]
    file["----:com.apple.iTunes:initialkey"] = [b"Am"]
    file["----:com.apple.iTunes:REMIXER"] = [b"Cy"]
    file["----:com.apple.iTunes:iTunNORM"] = [b" 00000399"]
    file["covr"] = [mp4.MP4Cover(PNG, mp4.MP4Cover.FORMAT_PNG)]
    file.save()


TAGGERS = {"flac": tag_flac, "ogg": tag_ogg, "mp3": tag_mp3, "wav": tag_wav, "m4a": tag_m4a}


@pytest.fixture
def tagged(tmp_path, need_ffmpeg):
    """Write a song of a second with tags: ``tagged("mp3")``."""

    def make(suffix: str) -> Path:
        path = tmp_path / f"song.{suffix}"
        if suffix == "m4a":
            soundfile.write(tmp_path / "raw.wav", music(1.0).T, RATE)
            execute("ffmpeg", "-v", "error", "-i", tmp_path / "raw.wav", path)
        else:
            soundfile.write(path, music(1.0).T, RATE)
        TAGGERS[suffix](path)
        return path

    return make


@pytest.mark.parametrize("suffix", TAGGERS)
def test_tags_of_every_kind_are_read(tagged, suffix):
    tags = read_tags(tagged(suffix))
    assert dict(tags.values) == WANTED
    assert tags.cover == Cover("image/png", PNG)
    assert tags.warnings == ()


def probe(path: Path) -> dict[str, str]:
    """What ffprobe, which shares no code with what wrote them, says of a file's tags."""
    text = execute("ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", path)
    content = json.loads(text)
    tags = dict(content["format"].get("tags", {}))
    for stream in content["streams"]:
        if stream["codec_type"] == "audio":
            tags |= stream.get("tags", {})
        elif stream.get("disposition", {}).get("attached_pic"):
            tags["cover"] = f"{stream['codec_name']} {stream['width']}"
    return {name.lower(): value for name, value in tags.items()}


@pytest.mark.parametrize("source", ["flac", "mp3", "m4a"])
@pytest.mark.parametrize("container", [c for c in CONTAINERS if not CONTAINERS[c].together])
def test_tags_are_copied_to_stems_of_every_format(
    tagged, tiny_separator, tmp_path, source, container
):
    path = tagged(source)
    targets = [tmp_path / "out" / f"{stem}.{container}" for stem in tiny_separator.stems]
    separate_file(path, [tiny_separator], [targets], FileOptions(container=container))
    for stem, target in zip(tiny_separator.stems, targets, strict=True):
        label = {"vocals": "Vocals", "drums": "Drums", "bass": "Bass", "other": "Other"}[stem]
        tags = read_tags(target)
        assert dict(tags.values) == WANTED | {"title": (f"Halo ({label})",)}
        assert tags.cover == TAGS.cover
        found = probe(target)
        assert found["title"] == f"Halo ({label})"
        assert found["artist"] in ("Ana;Béla", "Ana/Béla", "Ana")
        assert found["album"] == "One/Two"
        assert found["genre"] == "House"
        assert found["track"] == "3/12" or found["track"] == "3"
        assert found.get("tbpm", found.get("bpm", found.get("tmpo", "124"))) == "124"
        assert found["cover"] == "png 1"
        assert not [name for name in found if "replaygain" in name or "norm" in name]
        # It is still the whole stem.
        rate = 48_000 if container == "opus" else RATE
        with AudioReader(target) as reader:
            samples = sum(block.shape[1] for block in reader.blocks())
        if source == "flac":
            # Of AAC, ffmpeg before 9 decodes the last block whole, whatever length the file claims.
            assert samples in ((45_056, rate) if container == "m4a" else (rate,))


def test_a_song_without_tags_gives_the_bytes_that_it_gave_before(song, tiny_separator, tmp_path):
    path = song(seconds=0.3)
    for name in ("with", "without"):
        targets = [tmp_path / name / f"{stem}.flac" for stem in tiny_separator.stems]
        options = FileOptions(container="flac", tags=name == "with")
        separate_file(path, [tiny_separator], [targets], options)
    for stem in tiny_separator.stems:
        pair = [(tmp_path / name / f"{stem}.flac").read_bytes() for name in ("with", "without")]
        assert pair[0] == pair[1]
        assert mutagen.File(tmp_path / "with" / f"{stem}.flac").pictures == []


def test_tags_can_be_left_out_and_do_not_change_the_samples(tagged, tiny_separator, tmp_path):
    path = tagged("flac")
    for name in ("with", "without"):
        targets = [tmp_path / name / f"{stem}.wav" for stem in tiny_separator.stems]
        separate_file(path, [tiny_separator], [targets], FileOptions(tags=name == "with"))
    for stem in tiny_separator.stems:
        with_, without = (tmp_path / n / f"{stem}.wav" for n in ("with", "without"))
        np.testing.assert_array_equal(soundfile.read(with_)[0], soundfile.read(without)[0])
        assert read_tags(with_)
        assert not read_tags(without)


@pytest.mark.parametrize("container", ["wav", "flac", "ogg", "opus", "mp3", "m4a"])
def test_two_runs_with_tags_give_the_same_bytes(tagged, tiny_separator, tmp_path, container):
    path = tagged("mp3")
    for name in ("one", "two"):
        targets = [tmp_path / name / stem for stem in tiny_separator.stems]
        separate_file(path, [tiny_separator], [targets], FileOptions(container=container))
    for stem in tiny_separator.stems:
        assert (tmp_path / "one" / stem).read_bytes() == (tmp_path / "two" / stem).read_bytes()


@pytest.mark.parametrize("form", ["WAV", "RF64"])
def test_the_info_chunk_of_a_wav_file_is_read(tmp_path, form):
    soundfile.write(tmp_path / "a.wav", music(0.1).T, RATE, format=form)
    body = b"INFO"
    for name, text in ((b"INAM", b"Hal\xf6\0"), (b"IART", "Béla".encode()), (b"ICRD", b"1999")):
        body += struct.pack("<4sI", name, len(text)) + text + b"\0" * (len(text) % 2)
    content = (tmp_path / "a.wav").read_bytes()
    content += struct.pack("<4sI", b"LIST", len(body)) + body
    size = len(content) - 8 if form == "WAV" else 0xFFFF_FFFF  # RF64 has it elsewhere
    (tmp_path / "a.wav").write_bytes(content[:4] + struct.pack("<I", size) + content[8:])
    assert content[:4] == (b"RIFF" if form == "WAV" else b"RF64")
    expected = {"title": ("Halö",), "artist": ("Béla",), "date": ("1999",)}
    tags = read_tags(tmp_path / "a.wav")
    assert dict(tags.values) == expected
    assert tags.warnings == ()


def test_a_song_in_rf64_without_tags_gives_no_warning(tmp_path):
    soundfile.write(tmp_path / "a.wav", music(0.1).T, RATE, format="RF64")
    assert read_tags(tmp_path / "a.wav") == Tags()


def test_ape_and_windows_media_tags_are_read(tmp_path, need_ffmpeg):
    soundfile.write(tmp_path / "a.wav", music(0.2).T, RATE)
    for suffix in ("wv", "wma"):
        execute("ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / f"a.{suffix}")
    tags = apev2.APEv2()
    tags["Title"], tags["Track"], tags["Year"] = "Halo", "3/12", "1999"
    tags["Cover Art (Front)"] = apev2.APEValue(b"front.png\0" + PNG, apev2.BINARY)
    tags.save(tmp_path / "a.wv")
    found = read_tags(tmp_path / "a.wv")
    assert found.values == {"title": ("Halo",), "tracknumber": ("3/12",), "date": ("1999",)}
    assert found.cover == Cover("image/png", PNG)
    media = asf.ASF(tmp_path / "a.wma")
    media["Title"], media["WM/TrackNumber"] = "Halo", "3"
    media.save()
    found = read_tags(tmp_path / "a.wma")
    assert (found.values["title"], found.values["tracknumber"]) == (("Halo",), ("3",))


def test_tags_that_are_broken_become_a_warning_and_stop_nothing(song, tiny_separator, tmp_path):
    path = song("a.mp3", seconds=0.5)
    # A cover whose block of a FLAC picture is none.
    ogg = song("b.ogg", seconds=0.5)
    file = oggvorbis.OggVorbis(ogg)
    file["metadata_block_picture"] = "bm8gcGljdHVyZQ=="
    file.save()
    for source in (path, ogg):
        targets = [tmp_path / source.stem / stem for stem in tiny_separator.stems]
        (report,) = separate_file(source, [tiny_separator], [targets], FileOptions())
        assert len(report.warnings) == (source == ogg)
    assert report.warnings[0].startswith(f"the tags of {ogg} could not be read (")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # arrays have no tags
        unetsep.separate(ogg, model=tiny_separator)


def test_a_wav_stem_just_below_4_gib_gets_no_tags(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8, np.float32), RATE)
    header = path.read_bytes()[:44]
    size = 2**32 - 2000
    with path.open("wb") as file:
        file.write(header[:4] + struct.pack("<I", size - 8) + header[8:40])
        file.write(struct.pack("<I", size - 44))
        file.truncate(size)  # sparse
    write_tags(path, "wav", Tags({"title": ("Halo",)}, Cover("image/png", bytes(10_000))))
    assert path.stat().st_size == size


@pytest.mark.parametrize("mime", ["image/jp€g", "image/png\0x", "image/\u00fc"])
@pytest.mark.parametrize("container", ["wav", "mp3", "flac"])
def test_a_cover_without_a_valid_type_gets_it_from_its_first_bytes(
    song, tiny_separator, tmp_path, mime, container
):
    path = song("a.flac", seconds=0.5)
    file, picture = flac.FLAC(path), flac.Picture()
    picture.mime, picture.data = mime, PNG
    file.add_picture(picture)
    file.save()
    targets = [tmp_path / stem for stem in tiny_separator.stems]
    options = FileOptions(container=container)
    (report,) = separate_file(path, [tiny_separator], [targets], options)
    assert report.warnings == ()
    assert read_tags(targets[0]).cover == Cover("image/png", PNG)


@pytest.mark.parametrize("mime", ["PNG", "image/PNG", ""])
def test_a_cover_in_m4a_has_the_type_of_its_bytes(tagged, tiny_separator, tmp_path, mime):
    path = tagged("mp3")
    file = mp3.MP3(path)
    file.tags.delall("APIC")
    file.tags.add(id3.APIC(encoding=3, mime=mime, type=3, desc="front", data=PNG))
    file.save()
    targets = [tmp_path / stem for stem in tiny_separator.stems]
    separate_file(path, [tiny_separator], [targets], FileOptions(container="m4a"))
    assert read_tags(targets[0]).cover == Cover("image/png", PNG)
    (cover,) = mp4.MP4(targets[0])["covr"]
    assert cover.imageformat == mp4.MP4Cover.FORMAT_PNG


def test_values_that_do_not_fit_an_atom_are_left_out(tagged, tiny_separator, tmp_path):
    path = tagged("mp3")
    file = mp3.MP3(path)
    file.tags.add(id3.TBPM(encoding=3, text=["fast"]))
    file.tags.add(id3.TRCK(encoding=3, text=["A3"]))
    file.save()
    targets = [tmp_path / stem for stem in tiny_separator.stems]
    separate_file(path, [tiny_separator], [targets], FileOptions(container="m4a"))
    values = read_tags(targets[0]).values
    assert "bpm" not in values
    assert "tracknumber" not in values
    assert values["title"] == ("Halo (Vocals)",)
    assert not {"tmpo", "trkn"} & mp4.MP4(targets[0]).keys()


@pytest.mark.parametrize(
    ("text", "atom", "expected"),
    [("124.5", 125, "124.5"), ("125,25", 125, "125.25"), ("128.00", 128, "128")],
)
def test_a_tempo_with_a_fraction_is_kept_in_m4a(tagged, text, atom, expected):
    path = tagged("m4a")
    write_tags(path, "m4a", Tags({"bpm": (text,)}))
    assert mp4.MP4(path)["tmpo"] == [atom]
    assert read_tags(path).values["bpm"] == (expected,)
    for useless in (b"", b"0", b"Fast"):
        file = mp4.MP4(path)
        file["----:com.apple.iTunes:BPM"] = [useless]
        file.save()
        assert read_tags(path).values["bpm"] == (str(atom),)


@pytest.mark.parametrize("container", ["wav", "mp3"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2004", "2004"),
        ("2004-06-05", "2004-06-05"),
        ("2004-06-05T10:20", "2004-06-05 10:20"),
        ("05/06/2004", "2004"),
        ("5.6.2004", "2004"),
        ("Summer 1999", "1999"),
        ("1984?", "1984"),
        ("1999;2000", "1999"),
        ("2019/2020", "2019"),
        ("2020\u5e743\u67081\u65e5", "2020"),
        ("20200315", "2020-03-15"),
        ("5/6/99", None),
        ("99", None),
        ("long ago", None),
    ],
)
def test_dates_that_id3_cannot_hold_become_years(tmp_path, text, expected, container):
    path = tmp_path / "a"
    soundfile.write(path, music(0.1).T, RATE, format=container)
    write_tags(path, container, Tags({"title": ("Halo",), "date": (text,)}))
    values = read_tags(path).values
    assert values["title"] == ("Halo",)
    assert values.get("date") == (expected and (expected,))


@pytest.mark.parametrize("size", [(1 << 24) - (1 << 10), (1 << 24) - (1 << 10) + 1])
def test_a_cover_that_flac_cannot_hold_is_left_out_with_a_warning(tmp_path, tiny_separator, size):
    path = tmp_path / "a.mp3"
    soundfile.write(path, music(0.1).T, RATE)
    cover = Cover("image/jpeg", bytes(size))
    write_tags(path, "mp3", Tags({"title": ("Halo",)}, cover))
    targets = [tmp_path / f"{stem}.flac" for stem in tiny_separator.stems]
    (report,) = separate_file(path, [tiny_separator], [targets], FileOptions(container="flac"))
    tags = read_tags(targets[0])
    assert tags.values["title"] == ("Halo (Vocals)",)
    if size < (1 << 24) - (1 << 10) + 1:
        assert (tags.cover, report.warnings) == (cover, ())
    else:
        assert tags.cover is None
        assert report.warnings == (
            f"the cover of {path} has 16.0 MiB, more than flac holds: the stems have no cover",
        )


@pytest.mark.parametrize(
    ("stem", "label"),
    [("vocals", "Vocals"), ("no_vocals", "Instrumental"), ("no_drums", "No Drums"), ("x", "X")],
)
def test_stems_have_display_names(stem, label):
    assert stem_label(stem) == label
    assert TAGS.of_stem(label).text("title") == f"Halo ({label})"
    assert Tags({"artist": ("Ana",)}).of_stem(label) == Tags({"artist": ("Ana",)})


def test_a_video_in_avi_has_no_tags_and_no_warning(tmp_path):
    (tmp_path / "a.avi").write_bytes(b"RIFF" + bytes(4) + b"AVI LIST" + bytes(100))
    assert read_tags(tmp_path / "a.avi") == Tags()


SOUND = ("-v", "error", "-f", "lavfi", "-i", "sine=duration=0.2")
PICTURE = ("-f", "lavfi", "-i", "testsrc=size=16x16:duration=0.1")
FILM = {
    "title": ('A = "b"; c#d\\e',),
    "artist": ("Anna",),
    "tracknumber": ("3/9",),
    "date": ("2001",),
    "comment": ("two\nlines",),
}
TEXTS = [
    word
    for name, key in (("title",) * 2, ("artist",) * 2, ("tracknumber", "track"))
    for word in ("-metadata", f"{key}={FILM[name][0]}")
]
TEXTS += ["-metadata", "date=2001", "-metadata", "comment=two\nlines"]


@pytest.mark.parametrize("suffix", ["mka", "webm", "avi"])
def test_tags_of_containers_that_ffmpeg_alone_reads_are_copied_to_stems(
    tmp_path, tiny_separator, suffix
):
    path = tmp_path / f"song.{suffix}"
    codec = {"mka": "flac", "webm": "libopus", "avi": "pcm_s16le"}[suffix]
    execute("ffmpeg", *SOUND, *TEXTS, "-metadata:s:a", "title=Track", "-c:a", codec, path)
    assert read_tags(path) == Tags(FILM)
    options = FileOptions(["bass"], container="flac")
    separate_file(path, [tiny_separator], [[tmp_path / "b.flac"]], options)
    stem = read_tags(tmp_path / "b.flac")
    assert stem.values["artist"] == ("Anna",)
    assert stem.values["title"] == (f"{FILM['title'][0]} (Bass)",)


def test_an_attached_picture_is_the_cover_and_a_film_is_not(tmp_path):
    picture, song, film = (tmp_path / name for name in ("cover.png", "song.mka", "film.mkv"))
    execute("ffmpeg", "-v", "error", *PICTURE, "-frames:v", "1", picture)
    attached = ("-attach", picture, "-metadata:s:t", "mimetype=image/png")
    execute("ffmpeg", *SOUND, *TEXTS, "-c:a", "flac", *attached, song)
    assert read_tags(song) == Tags(FILM, Cover("image/png", picture.read_bytes()))
    execute("ffmpeg", *SOUND, *PICTURE, *TEXTS, "-c:v", "mpeg4", "-c:a", "flac", film)
    assert read_tags(film) == Tags(FILM)


def test_a_film_without_ffmpeg_has_no_tags(tmp_path, monkeypatch):
    path = tmp_path / "song.mka"
    execute("ffmpeg", *SOUND, *TEXTS, "-c:a", "flac", path)
    monkeypatch.setattr("unetsep.audio.metadata.find_ffmpeg", lambda: None)
    assert read_tags(path) == Tags()


def test_tags_are_left_out_if_ffmpeg_hangs(tmp_path, monkeypatch):
    path = tmp_path / "song.mka"
    path.write_bytes(b"\x1aE\xdf\xa3")
    hanging = script(tmp_path, "exec sleep 60")
    monkeypatch.setattr("unetsep.audio.metadata.find_ffmpeg", lambda: hanging)
    monkeypatch.setattr("unetsep.audio.metadata.PATIENCE", 0.2)
    assert read_tags(path) == Tags()
