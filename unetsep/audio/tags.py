"""Tags and covers of songs, which are copied to their stems.

Tags that describe the song are copied: names, numbers, date, genre, tempo, key, comment, cover.
Those that would be wrong for a stem are not: levels (ReplayGain, Sound Check), fingerprints and
identifiers of the recording, lyrics. Nor are those of one program: cue points, beat grids, ratings.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .chunks import chunks
from .metadata import read_metadata

FRONT_COVER = 3
FREE_FORM = "----:com.apple.iTunes:"
# Where mp4 files have a tempo that is no integer.
MP4_BPM = FREE_FORM + "BPM"


@dataclass(frozen=True)
class TagNames:
    """The names of a tag in each kind of file.

    Parameters
    ----------
    vorbis
        Names in FLAC, Ogg and Opus: the one to write, then further ones to read.
    id3
        Frame in mp3, wav and aiff.
    mp4
        Atom.
    ape, asf
        Names in APEv2 tags and Windows Media; only read.
    """

    vorbis: tuple[str, ...]
    id3: str
    mp4: str
    ape: str
    asf: str


# All tags that are copied to stems.
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
    "remixer": TagNames(("remixer",), "TPE4", FREE_FORM + "REMIXER", "MixArtist", "WM/ModifiedBy"),
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
# Tags that may hold a number and a total: 3/12.
TOTALS = {"tracknumber": "tracktotal", "discnumber": "disctotal"}
# Names in LIST INFO chunks of wav files, which mutagen does not read.
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
# First bytes of mkv, mka and webm.
MATROSKA = b"\x1aE\xdf\xa3"
# ffmpeg's names of tags where they are not Vorbis's.
FFMPEG = {"albumartist": "album_artist", "tracknumber": "track", "discnumber": "disc"}
# Largest INFO chunk; larger ones hold other data.
INFO_BYTES = 1 << 20


@dataclass(frozen=True)
class Cover:
    """A picture of the front cover.

    Parameters
    ----------
    mime
        Such as ``image/jpeg``.
    data
        The picture file.
    """

    mime: str
    data: bytes


@dataclass(frozen=True)
class Tags:
    """Tags of a song.

    Parameters
    ----------
    values
        Texts by names in `NAMES`; a song may have several artists or genres.
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
        """All values of a tag in one text; empty if there are none."""
        return ", ".join(self.values.get(name, ()))

    def of_stem(self, label: str) -> Tags:
        """Tags of one stem: its name is added to the title."""
        if "title" not in self.values:
            return self
        title, *further = self.values["title"]
        return replace(self, values={**self.values, "title": (f"{title} ({label})", *further)})


def stem_label(stem: str) -> str:
    """A stem's display name: ``Vocals``, ``Instrumental`` for no_vocals, ``No Drums``."""
    if stem == "no_vocals":
        return "Instrumental"
    return " ".join(word[:1].upper() + word[1:] for word in stem.split("_"))


def read_tags(path: Path) -> Tags:
    """The tags of a file, if it has any.

    Faulty tags never stop a song: they become a warning.
    """
    import mutagen

    try:
        if path.exists() and not path.is_file():  # opening a named pipe may never end
            return Tags()
        form = _form(path)
        # mutagen reads avi as a broken wav, and RF64 as well.
        if form == b"RIFFAVI " or form.startswith(MATROSKA):
            return _read_video(path)
        if form == b"RF64WAVE":
            return Tags(_read_info(path))
        file = mutagen.File(path)
        tags = Tags() if file is None or file.tags is None else _read(file)
        return tags or Tags(_read_info(path))
    except (mutagen.MutagenError, OSError, *FOREIGN) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        return Tags(warnings=(f"the tags of {path} could not be read ({words}): none were copied",))


def _form(path: Path) -> bytes:
    """The form in the head of a RIFF file, such as ``RIFFWAVE``; of others some bytes."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[:4] + head[8:]


# What mutagen raises for unexpected files, beside errors of its own.
FOREIGN = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error)


def _read(file: Any) -> Tags:
    """Tags in any format that mutagen knows."""
    families = {kind.__name__ for kind in type(file.tags).__mro__}
    for family, reader in READERS.items():
        if family in families:
            return Tags(_values(file.tags, reader), _cover(file))
    return Tags()


def _values(tags: Any, reader: Reader) -> dict[str, tuple[str, ...]]:
    """Texts by names in `NAMES`, without blanks around them and without repetitions."""
    values = {}
    for name, names in NAMES.items():
        texts = [text.strip("\0 ") for text in reader(tags, name, names)]
        if any(texts):
            values[name] = tuple(dict.fromkeys(filter(None, texts)))
    return values


def _id3_texts(tags: Any, name: str, names: TagNames) -> list[str]:
    frames = tags.getall(names.id3)
    if name == "comment":  # programs store levels and the like in named comments
        frames = [frame for frame in frames if not frame.desc]
    if name == "genre":
        return [genre for frame in frames for genre in frame.genres]
    return [str(text) for frame in frames for text in frame.text]


def _vorbis_texts(tags: Any, name: str, names: TagNames) -> list[str]:
    texts: list[str] = next((tags[key] for key in names.vorbis if key in tags), [])
    total = next(iter(tags.get(TOTALS[name], [])), "") if name in TOTALS else ""
    return [f"{texts[0]}/{total}"] if texts and total and "/" not in texts[0] else texts


def _mp4_texts(tags: Any, name: str, names: TagNames) -> list[str]:
    if name == "bpm" and (tempos := list(filter(number_of, _free_texts(tags, MP4_BPM)))):
        return tempos
    values = tags.get(names.mp4, [])
    if name in TOTALS:
        pairs = ((number, total) for number, total in values if number)
        return [f"{number}/{total}" if total else str(number) for number, total in pairs]
    if names.mp4.startswith(FREE_FORM):
        return _free_texts(tags, names.mp4)
    return [str(value) for value in values if value]


def _free_texts(tags: Any, atom: str) -> list[str]:
    return [bytes(value).decode("utf-8", "replace") for value in tags.get(atom, [])]


def number_of(text: str) -> float:
    """A number from 0 to 65535, maybe with a decimal comma; 0 if the text is not one."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return 0.0
    return value if 0 <= value <= 0xFFFF else 0.0


def _ffmpeg_texts(tags: Any, name: str, names: TagNames) -> list[str]:
    keys = (*names.vorbis, FFMPEG.get(name, ""))
    return next(([tags[key].strip()] for key in keys if key in tags), [])


# From mutagen's tags, a name in `NAMES` and its names in files to the texts.
Reader = Callable[[Any, str, TagNames], list[str]]
# By the classes of mutagen's tags.
READERS: dict[str, Reader] = {
    "ID3": _id3_texts,
    "VComment": _vorbis_texts,
    "MP4Tags": _mp4_texts,
    "APEv2": lambda tags, _name, names: [str(value) for value in tags.get(names.ape, ())],
    "ASFTags": lambda tags, _name, names: [str(value) for value in tags.get(names.asf, ())],
}


def _read_video(path: Path) -> Tags:
    texts, picture = read_metadata(path)
    cover = Cover(mime_of(picture), picture) if picture else None
    return Tags(_values(texts, _ffmpeg_texts), cover)


def _cover(file: Any) -> Cover | None:
    """The front cover, or else the first picture."""
    pictures = sorted(_pictures(file), key=lambda pair: pair[0] != FRONT_COVER)
    return pictures[0][1] if pictures else None


def _pictures(file: Any) -> Iterator[tuple[int, Cover]]:
    """Kind and content of each picture."""
    from mutagen.flac import Picture

    tags = file.tags
    pictures = [*getattr(file, "pictures", [])]
    if hasattr(tags, "getall"):
        pictures += tags.getall("APIC")
    elif "metadata_block_picture" in tags:
        pictures += [Picture(base64.b64decode(text)) for text in tags["metadata_block_picture"]]
    for picture in pictures:
        if picture.mime != "-->":  # a link
            data = bytes(picture.data)
            is_plain = picture.mime.isascii() and picture.mime.isprintable()  # any format holds it
            yield picture.type, Cover(picture.mime if is_plain else mime_of(data), data)
    for picture in tags.get("covr", []) if hasattr(tags, "get") else []:
        yield FRONT_COVER, Cover(mime_of(bytes(picture)), bytes(picture))
    if "Cover Art (Front)" in tags:
        _, _, data = bytes(tags["Cover Art (Front)"].value).partition(b"\0")
        yield FRONT_COVER, Cover(mime_of(data), data)


def mime_of(picture: bytes) -> str:
    """The type of a picture by its first bytes: PNG, or else JPEG."""
    return "image/png" if picture.startswith(b"\x89PNG") else "image/jpeg"


def _read_info(path: Path) -> dict[str, tuple[str, ...]]:
    """Tags of the LIST INFO chunk of a wav file."""
    values: dict[str, tuple[str, ...]] = {}
    with path.open("rb") as file:
        if file.read(4) not in (b"RIFF", b"RF64"):
            return values
        for name, at, size in chunks(file):
            if name == b"LIST" and size <= INFO_BYTES:
                file.seek(at)
                body = file.read(size)
                values |= dict(_info_entries(body[4:])) if body[:4] == b"INFO" else {}
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
