"""Writing tags and covers into complete stems, in the way of each container."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import AudioError
from .channels import MASK_COMMENT
from .tags import FREE_FORM, FRONT_COVER, MP4_BPM, NAMES, TOTALS, Cover, Tags, mime_of, number_of

# Largest cover: FLAC counts the bytes of a block in 24 bits, with the picture's header.
COVER_BYTES = {"flac": (1 << 24) - (1 << 10)}


def fit_tags(tags: Tags, container: str, path: Path) -> Tags:
    """Tags that a container can hold: a cover that is too large becomes a warning.

    Parameters
    ----------
    tags
        The tags of a song.
    container
        A name in `unetsep.audio.formats.CONTAINERS`.
    path
        The song, for the warning.
    """
    most = COVER_BYTES.get(container)
    if most is None or tags.cover is None or len(tags.cover.data) <= most:
        return tags
    warning = (
        f"the cover of {path} has {len(tags.cover.data) / 2**20:.1f} MiB, more than {container} "
        "holds: the stems have no cover"
    )
    return replace(tags, cover=None, warnings=(*tags.warnings, warning))


def write_tags(path: Path, container: str, tags: Tags) -> None:
    """Write tags into a complete audio file without tags.

    The same tags give the same bytes.

    Parameters
    ----------
    path
        The file; its name may have any suffix.
    container
        A name in `unetsep.audio.formats.CONTAINERS`.
    tags
        The tags.

    Raises
    ------
    OSError
        If the disk is full.
    AudioError
        If the file cannot hold the tags.
    """
    import mutagen

    try:
        with _system_errors():
            WRITERS[container](path, tags)
    except mutagen.MutagenError as error:
        raise AudioError(
            f"the tags of {path.parent} could not be written ({error}): use --no-tags"
        ) from error


def write_channel_mask(path: Path, container: str, comment: str) -> None:
    """Write the mask of speakers into a complete FLAC or Vorbis file without tags.

    Parameters
    ----------
    path
        The file; its name may have any suffix.
    container
        ``flac`` or ``ogg``.
    comment
        See `unetsep.audio.channels.mask_comment`.

    Raises
    ------
    OSError
        If the disk is full.
    """
    from mutagen.flac import FLAC
    from mutagen.oggvorbis import OggVorbis

    with _system_errors():
        file: Any = FLAC(path) if container == "flac" else OggVorbis(path)
        if file.tags is None:
            file.add_tags()
        file[MASK_COMMENT] = [comment]
        file.save()


@contextlib.contextmanager
def _system_errors() -> Iterator[None]:
    """Raise the system's errors themselves: mutagen wraps them in its own."""
    import mutagen

    try:
        yield
    except mutagen.MutagenError as error:
        if error.args and isinstance(error.args[0], OSError):
            raise error.args[0] from error
        raise


def _write_flac(path: Path, tags: Tags) -> None:
    from mutagen.flac import FLAC

    file = FLAC(path)
    _fill_vorbis(file, tags)
    if tags.cover:
        file.add_picture(_picture(tags.cover))
    file.save()


def _write_ogg(path: Path, tags: Tags) -> None:
    from mutagen.oggvorbis import OggVorbis

    _fill_ogg(OggVorbis(path), tags)


def _write_opus(path: Path, tags: Tags) -> None:
    from mutagen.oggopus import OggOpus

    _fill_ogg(OggOpus(path), tags)


def _fill_ogg(file: Any, tags: Tags) -> None:
    _fill_vorbis(file, tags)
    if tags.cover:
        text = base64.b64encode(_picture(tags.cover).write()).decode("ascii")
        file["metadata_block_picture"] = [text]
    file.save()


def _fill_vorbis(file: Any, tags: Tags) -> None:
    if file.tags is None:
        file.add_tags()
    for name, texts in tags.values.items():
        file[NAMES[name].vorbis[0]] = list(texts)


def _picture(cover: Cover) -> Any:
    from mutagen.flac import Picture

    picture = Picture()
    picture.type, picture.mime, picture.data = FRONT_COVER, cover.mime, cover.data
    return picture


def _write_mp3(path: Path, tags: Tags) -> None:
    from mutagen.id3 import ID3

    id3_tags = ID3()
    _fill_id3(id3_tags, tags)
    id3_tags.save(path, v2_version=4)


def _write_wav(path: Path, tags: Tags) -> None:
    from mutagen.wave import WAVE

    with path.open("rb") as file:
        if file.read(4) != b"RIFF":
            return  # programs that read tags in wav files do not know RF64, beyond 4 GiB
    room = (1 << 20) + (len(tags.cover.data) if tags.cover else 0)
    if path.stat().st_size + room >= 1 << 32:
        return  # with the tags it would be larger than RIFF files can be
    wave = WAVE(path)
    wave.add_tags()
    _fill_id3(wave.tags, tags)
    wave.save(v2_version=4)


def _fill_id3(id3_tags: Any, tags: Tags) -> None:
    from mutagen import id3

    for name, texts in tags.values.items():
        frame = NAMES[name].id3
        if frame == "COMM":
            id3_tags.add(id3.COMM(encoding=3, lang="eng", desc="", text=list(texts)))
        elif frame == "TDRC":
            if times := [time for text in texts if (time := _time(text))]:
                id3_tags.add(id3.TDRC(encoding=3, text=times))
        else:
            id3_tags.add(vars(id3)[frame](encoding=3, text=list(texts)))
    if cover := tags.cover:
        id3_tags.add(
            id3.APIC(encoding=3, mime=cover.mime, type=FRONT_COVER, desc="", data=cover.data)
        )


def _time(text: str) -> str:
    """A date in the form of ID3, or its year; empty if the text has neither."""
    from mutagen.id3 import ID3TimeStamp

    text = re.sub(r"^(\d{4})(\d\d)(\d\d)$", r"\1-\2-\3", text)
    time = str(ID3TimeStamp(text))
    # For an invalid time the class returns nothing, or a text that no other program can read. Of
    # 5/6/99 it takes the 5 for the year.
    if time[:4] == text[:4] and re.fullmatch(r"\d{4}(-\d\d){0,2}( \d\d(:\d\d){0,2})?", time):
        return text
    year = re.search(r"(?<!\d)\d{4}(?!\d)", text)
    return year[0] if year else ""


def _write_mp4(path: Path, tags: Tags) -> None:
    from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm

    file = MP4(path)
    if file.tags is None:
        file.add_tags()
    for name, texts in tags.values.items():
        atom = NAMES[name].mp4
        if name in TOTALS:
            if any(pair := _pair(texts[0])):
                file[atom] = [pair]
        elif name == "bpm":
            if tempo := number_of(texts[0]):
                file[atom] = [int(tempo + 0.5)]
                if tempo % 1:  # Mixxx reads it there, and the atom holds integers only
                    file[MP4_BPM] = [MP4FreeForm(f"{tempo:g}".encode())]
        elif atom.startswith(FREE_FORM):
            file[atom] = [MP4FreeForm(text.encode()) for text in texts]
        else:
            file[atom] = list(texts)
    if tags.cover:
        is_png = mime_of(tags.cover.data) == "image/png"  # the song may name a wrong type
        form = MP4Cover.FORMAT_PNG if is_png else MP4Cover.FORMAT_JPEG
        file["covr"] = [MP4Cover(tags.cover.data, form)]
    file.save()


def _pair(text: str) -> tuple[int, int]:
    """``3/12`` as two numbers that an atom can hold."""
    number, _, total = text.partition("/")
    return round(number_of(number)), round(number_of(total))


WRITERS: dict[str, Callable[[Path, Tags], None]] = {
    "wav": _write_wav,
    "flac": _write_flac,
    "ogg": _write_ogg,
    "opus": _write_opus,
    "mp3": _write_mp3,
    "m4a": _write_mp4,
    "stem.mp4": _write_mp4,
}
