"""Tags and covers of songs, and how they travel to their stems.

What describes the song travels: names, numbers, date, genre, tempo, key, comment, cover. What
describes its sound or its place in a program does not, since it would be wrong of a stem: levels
(ReplayGain, Sound Check), fingerprints and identifiers of the recording, lyrics, cue points.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .sections import count_bytes

FRONT_COVER = 3
FREE_FORM = "----:com.apple.iTunes:"


@dataclass(frozen=True)
class TagNames:
    """What a tag is called in each kind of file.

    Parameters
    ----------
    vorbis
        In FLAC, Ogg and Opus: the name that is written, then others that are read.
    id3
        Frame, in mp3, wav and aiff.
    mp4
        Atom.
    ape, asf
        In APEv2 tags and Windows Media; only read.
    """

    vorbis: tuple[str, ...]
    id3: str
    mp4: str
    ape: str
    asf: str


# All tags that travel.
NAMES = {
    "title": TagNames(("title",), "TIT2", "\xa9nam", "Title", "Title"),
    "artist": TagNames(("artist",), "TPE1", "\xa9ART", "Artist", "Author"),
    "album": TagNames(("album",), "TALB", "\xa9alb", "Album", "WM/AlbumTitle"),
    "albumartist": TagNames(
        ("albumartist", "album artist"), "TPE2", "aART", "Album Artist", "WM/AlbumArtist"
    ),
    "tracknumber": TagNames(("tracknumber",), "TRCK", "trkn", "Track", "WM/TrackNumber"),
    "discnumber": TagNames(("discnumber",), "TPOS", "disk", "Disc", "WM/PartOfSet"),
    "date": TagNames(("date", "year"), "TDRC", "\xa9day", "Year", "WM/Year"),
    "genre": TagNames(("genre",), "TCON", "\xa9gen", "Genre", "WM/Genre"),
    "composer": TagNames(("composer",), "TCOM", "\xa9wrt", "Composer", "WM/Composer"),
    "bpm": TagNames(("bpm", "tempo"), "TBPM", "tmpo", "BPM", "WM/BeatsPerMinute"),
    "key": TagNames(
        ("initialkey", "key"), "TKEY", FREE_FORM + "initialkey", "InitialKey", "WM/InitialKey"
    ),
    "grouping": TagNames(
        ("grouping",), "TIT1", "\xa9grp", "Grouping", "WM/ContentGroupDescription"
    ),
    "comment": TagNames(("comment", "description"), "COMM", "\xa9cmt", "Comment", "Description"),
    "label": TagNames(
        ("label", "organization", "publisher"), "TPUB", FREE_FORM + "LABEL", "Label", "WM/Publisher"
    ),
    "copyright": TagNames(("copyright",), "TCOP", "cprt", "Copyright", "Copyright"),
}
# Where a number and a total may stand in one: 3/12.
TOTALS = {"tracknumber": "tracktotal", "discnumber": "disctotal"}
# LIST INFO chunks of wav files, whose names libraries of tags pass over.
INFO = {
    b"INAM": "title",
    b"IART": "artist",
    b"IPRD": "album",
    b"ICRD": "date",
    b"IGNR": "genre",
    b"ITRK": "tracknumber",
    b"IPRT": "tracknumber",
    b"ICMT": "comment",
    b"ICOP": "copyright",
}
# Of an INFO chunk; a larger one is something else.
INFO_BYTES = 1 << 20


@dataclass(frozen=True)
class Cover:
    """A picture of the front cover.

    Parameters
    ----------
    mime
        Such as ``image/jpeg``.
    data
        The file.
    """

    mime: str
    data: bytes


@dataclass(frozen=True)
class Tags:
    """What a file says of its song.

    Parameters
    ----------
    values
        By names in `NAMES`; a song may have several artists or genres.
    cover
        The picture, if there is one.
    warnings
        Sentences about tags that could not be read.
    """

    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cover: Cover | None = None
    warnings: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.values or self.cover)

    def text(self, name: str) -> str:
        """All values of a tag in one; empty if there are none."""
        return ", ".join(self.values.get(name, ()))

    def of_stem(self, label: str) -> Tags:
        """Those of one stem: its name is added to the title."""
        if "title" not in self.values:
            return self
        first, *others = self.values["title"]
        return replace(self, values={**self.values, "title": (f"{first} ({label})", *others)})


def stem_label(stem: str) -> str:
    """A stem's name for people: ``Vocals``, ``Instrumental`` for no_vocals, ``No Drums``."""
    if stem == "no_vocals":
        return "Instrumental"
    return " ".join(word[:1].upper() + word[1:] for word in stem.split("_"))


def read_tags(path: Path) -> Tags:
    """The tags of a file, if it has any.

    What is wrong with tags never stops a song: it becomes a warning.
    """
    import mutagen

    try:
        if path.exists() and not path.is_file():  # opening a named pipe may never end
            return Tags()
        form = _riff_form(path)
        if form == b"RIFFAVI ":  # mutagen takes it for a broken wav, and RF64 as well
            return Tags()
        if form == b"RF64WAVE":
            return Tags(_read_info(path))
        file = mutagen.File(path)
        tags = Tags() if file is None or file.tags is None else _read(file)
        return tags or Tags(_read_info(path))
    except (mutagen.MutagenError, OSError, *FOREIGN) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        return Tags(warnings=(f"the tags of {path} could not be read ({words}): none were copied",))


def _riff_form(path: Path) -> bytes:
    """What the head of a file says that it is, such as ``RIFFWAVE``."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] + head[8:]


# What a library of tags raises, beside errors of its own, at files that it did not expect.
FOREIGN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error)


def _read(file: Any) -> Tags:
    """Tags of any kind that mutagen knows."""
    kinds: tuple[tuple[str, Callable[[Any], Iterator[tuple[str, list[str]]]]], ...] = (
        ("ID3", _read_id3),
        ("VComment", _read_vorbis),
        ("MP4Tags", _read_mp4),
        ("APEv2", _read_ape),
        ("ASFTags", _read_asf),
    )
    families = {each.__name__ for each in type(file.tags).__mro__}
    for family, read in kinds:
        if family in families:
            values = {
                name: tuple(dict.fromkeys(text.strip("\0 ") for text in texts if text.strip("\0 ")))
                for name, texts in read(file.tags)
            }
            return Tags({name: texts for name, texts in values.items() if texts}, _cover(file))
    return Tags()


def _read_id3(tags: Any) -> Iterator[tuple[str, list[str]]]:
    for name, names in NAMES.items():
        frames = tags.getall(names.id3)
        if name == "comment":  # programs keep levels and the like in comments with a name
            frames = [frame for frame in frames if not frame.desc]
        if name == "genre":
            yield name, [genre for frame in frames for genre in frame.genres]
        else:
            yield name, [str(text) for frame in frames for text in frame.text]


def _read_vorbis(tags: Any) -> Iterator[tuple[str, list[str]]]:
    for name, names in NAMES.items():
        texts: list[str] = next((tags[each] for each in names.vorbis if each in tags), [])
        total = next(iter(tags.get(TOTALS.get(name, ""), [])), "") if name in TOTALS else ""
        if texts and total and "/" not in texts[0]:
            texts = [f"{texts[0]}/{total}"]
        yield name, texts


def _read_mp4(tags: Any) -> Iterator[tuple[str, list[str]]]:
    for name, names in NAMES.items():
        values = tags.get(names.mp4, [])
        if name in TOTALS:
            pairs = ((number, total) for number, total in values if number)
            yield name, [f"{number}/{total}" if total else str(number) for number, total in pairs]
        elif names.mp4.startswith(FREE_FORM):
            yield name, [bytes(value).decode("utf-8", "replace") for value in values]
        else:
            yield name, [str(value) for value in values if value]


def _read_ape(tags: Any) -> Iterator[tuple[str, list[str]]]:
    for name, names in NAMES.items():
        yield name, [str(value) for value in tags[names.ape]] if names.ape in tags else []


def _read_asf(tags: Any) -> Iterator[tuple[str, list[str]]]:
    for name, names in NAMES.items():
        yield name, [str(value) for value in tags[names.asf]] if names.asf in tags else []


def _cover(file: Any) -> Cover | None:
    """The front cover, or else the first picture."""
    pictures = sorted(_pictures(file), key=lambda pair: pair[0] != FRONT_COVER)
    return pictures[0][1] if pictures else None


def _pictures(file: Any) -> Iterator[tuple[int, Cover]]:
    """Kind and content of each picture."""
    from mutagen.flac import Picture

    tags = file.tags
    found = [*getattr(file, "pictures", [])]
    if hasattr(tags, "getall"):
        found += tags.getall("APIC")
    elif "metadata_block_picture" in tags:
        found += [Picture(base64.b64decode(text)) for text in tags["metadata_block_picture"]]
    for picture in found:
        if picture.mime != "-->":  # a link
            data = bytes(picture.data)
            plain = picture.mime.isascii() and picture.mime.isprintable()  # as all can write it
            yield picture.type, Cover(picture.mime if plain else mime_of(data), data)
    for picture in tags.get("covr", []) if hasattr(tags, "get") else []:
        yield FRONT_COVER, Cover(mime_of(bytes(picture)), bytes(picture))
    if "Cover Art (Front)" in tags:
        _, _, data = bytes(tags["Cover Art (Front)"].value).partition(b"\0")
        yield FRONT_COVER, Cover(mime_of(data), data)


def mime_of(picture: bytes) -> str:
    """What kind a picture is, by its first bytes: the two that covers are."""
    return "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"


def _read_info(path: Path) -> dict[str, tuple[str, ...]]:
    """Tags of the LIST INFO chunk of a wav file."""
    values: dict[str, tuple[str, ...]] = {}
    with path.open("rb") as file:
        if file.read(4) not in (b"RIFF", b"RF64"):
            return values
        at, end, long_size = 12, count_bytes(path), 0
        while at + 8 <= end:
            file.seek(at)
            name, size = struct.unpack("<4sI", file.read(8))
            if name == b"ds64" and size >= 16:  # of RF64: the sizes that 32 bits do not hold
                _, long_size = struct.unpack("<QQ", file.read(16))
            elif name == b"data" and size == 0xFFFF_FFFF:
                size = long_size
            elif name == b"LIST" and size <= INFO_BYTES:
                body = file.read(size)
                values |= dict(_info_entries(body[4:])) if body[:4] == b"INFO" else {}
            at += 8 + size + size % 2
    return values


def _info_entries(body: bytes) -> Iterator[tuple[str, tuple[str, ...]]]:
    at = 0
    while at + 8 <= len(body):
        name, size = struct.unpack_from("<4sI", body, at)
        raw = body[at + 8 : at + 8 + size].split(b"\0")[0].strip()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("cp1252", "replace")
        if text and name in INFO:
            yield INFO[name], (text,)
        at += 8 + size + size % 2
