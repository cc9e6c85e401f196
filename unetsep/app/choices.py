"""Choices for a song in plain words, and the name under which its stems are returned."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import drives
from ..audio.decoder import AUDIO_SUFFIXES
from ..audio.ffmpeg_program import find_ffmpeg
from ..audio.formats import BIT_DEPTHS, CONTAINERS
from ..config import MAX_RATE, MIN_RATE
from ..errors import WeightsError
from ..file_options import FileOptions
from ..weights import hub
from ..weights.manifest import (
    check_distinct,
    find_checkpoint,
    is_path,
    list_models,
    manifest,
    model_name,
)

# For people who do not know what a loss is; other models have the manifest's description.
MODEL_WORDS = {
    "guided": ("Best quality", "For listening, karaoke and practice. Takes a little longer."),
    "fast": (
        "Faster",
        "Every part is less clean. Takes about half the time, on slow computers and long songs.",
    ),
    "open": (
        "For paid work",
        "For channels and products that earn money: read our page on licences first. Less clean.",
    ),
}
TWO_PASSES = (
    "{title}, heard twice",
    "A little better in every part. Takes nearly twice as long.",
)
FORMAT_WORDS = {
    "wav": ("WAV", "Full quality, opens everywhere. Large files."),
    "flac": ("FLAC", "Full quality at about half the size of WAV."),
    "ogg": ("OGG", "Small files, very good quality."),
    "mp3": ("MP3", "Small files that every player and phone knows."),
    "opus": ("Opus", "The smallest files, very good quality."),
    "m4a": ("M4A (AAC)", "Small files for phones and Apple's programs."),
}
NAME_BYTES = 180  # file systems take 255, and a suffix follows
FORBIDDEN = {*drives.FORBIDDEN, "/"}
# How browsers escape the only characters that would end a name in a form:
# https://html.spec.whatwg.org/multipage/form-control-infrastructure.html#multipart-form-data
ESCAPES = {"%22": '"', "%0D": "\r", "%0A": "\n"}
FIELDS = (
    "model",
    "stems",
    "two_stems",
    "without",
    "format",
    "bit_depth",
    "bitrate",
    "sample_rate",
    "track",
    "start",
    "duration",
    "passes",
    "player",
)
PASSES = ("1", "2", "3", "4")
MAX_TRACK = 1000  # far more sound tracks than any video has
YES, NO = ("true", "1", "yes", "on"), ("", "false", "0", "no", "off")


@dataclass(frozen=True)
class ModelOffer:
    """A model that the app offers.

    Parameters
    ----------
    name
        Name to show; the path of a model stays private.
    title, description
        What it is good for, in plain words.
    stems
        Stems that it estimates.
    model
        What it is loaded from: a name of the manifest, or a path.
    """

    name: str
    title: str
    description: str
    stems: tuple[str, ...]
    model: str

    @classmethod
    def of(cls, model: str, stems: Sequence[str]) -> ModelOffer:
        """The offer of a model, with its title and description."""
        name = model_name(model)
        if is_path(model):
            title, description = name, "A model of your own."
        elif name in MODEL_WORDS:
            title, description = MODEL_WORDS[name]
        else:
            title, description = name, find_checkpoint(name).description
        return cls(name, title, description, tuple(stems), model)

    def to_json(self) -> dict[str, Any]:
        """The public fields."""
        values = asdict(self)
        del values["model"]
        return values


def offered_names(names: Sequence[str]) -> list[str]:
    """Models to offer: the named ones, else the default, fast, open and the user's own.

    Raises
    ------
    WeightsError
        If a model is unknown, or is not on this machine: the app downloads nothing.
    ValueError
        If two models have one name.
    """
    published = manifest()
    defaults = [published.default, *(n for n in MODEL_WORDS if n in published.checkpoints)]
    models = names or [*defaults, *(entry.name for entry in list_models() if entry.source)]
    models = list(dict.fromkeys(models))
    check_distinct([model_name(model) for model in models])
    for name in models:
        if is_path(name):
            continue
        entry = find_checkpoint(name)
        if not (entry.is_local or hub.cached_file(entry)):
            raise WeightsError(
                f"{name} is not on this machine, and the app downloads nothing: run "
                f"unetsep models download {name} first"
            )
    return models


def qualities(offers: Sequence[ModelOffer]) -> list[dict[str, Any]]:
    """The rows of the page's list: all models, and the first one also with two passes.

    Each row has the name of a model, the number of passes, a title and a description.
    """
    rows = [
        {"model": offer.name, "passes": 1, "title": offer.title, "description": offer.description}
        for offer in offers
    ]
    first, (title, description) = offers[0], TWO_PASSES
    title = title.format(title=first.title)
    rows.insert(1, {"model": first.name, "passes": 2, "title": title, "description": description})
    return rows


def formats() -> list[dict[str, str]]:
    """Output formats with their titles and descriptions.

    Formats that need ffmpeg are left out without it. So is a file that holds all stems at once:
    here stems are played and downloaded one by one.
    """
    rows = []
    for name, container in CONTAINERS.items():
        if container.together or (container.by_ffmpeg and find_ffmpeg() is None):
            continue
        title, description = FORMAT_WORDS.get(name, (name.upper(), container.help))
        rows.append({"name": name, "title": title, "description": description})
    return rows


@dataclass(frozen=True)
class JobChoice:
    """How one song is to be separated.

    Parameters
    ----------
    offer
        The model.
    options
        Excerpt, stems and format.
    passes
        See `unetsep.separator.Separator`.
    player
        Also make the page that plays the stems.
    """

    offer: ModelOffer
    options: FileOptions = field(default_factory=FileOptions)
    passes: int = 1
    player: bool = False

    @classmethod
    def from_fields(cls, fields: Mapping[str, str], offers: Mapping[str, ModelOffer]) -> JobChoice:
        """Build from the fields of a form; an empty one counts as missing.

        Raises
        ------
        ValueError
            If a field or its value is unknown, or values cannot be combined.
        AudioError
            If the format cannot hold the bit depth.
        """
        unknown = set(fields) - set(FIELDS)
        if unknown:
            raise ValueError(f"unknown field {sorted(unknown)[0]!r}: see /api")
        name = fields.get("model") or next(iter(offers))
        offer = offers[_one_of("model", name, offers)]
        passes = int(_one_of("passes", fields.get("passes") or "1", PASSES))
        containers = [row["name"] for row in formats()]
        options = FileOptions(
            **_selection(fields, offer),
            container=_one_of("format", (fields.get("format") or "wav").lower(), containers),
            bit_depth=_one_of("bit_depth", fields.get("bit_depth") or "auto", BIT_DEPTHS),
            bitrate=fields.get("bitrate") or None,
            sample_rate=_whole_number(fields, "sample_rate", MIN_RATE, MAX_RATE, "Hz"),
            track=_whole_number(fields, "track", 1, MAX_TRACK),
            start=fields.get("start") or 0.0,
            duration=fields.get("duration") or None,
        )
        return cls(offer, options, passes, flag(fields, "player"))

    def to_request(self) -> dict[str, Any]:
        """The values that `unetsep.app.worker.separate` needs."""
        return {
            "model": self.offer.model,
            "options": asdict(self.options),
            "passes": self.passes,
            "player": self.player,
        }


def _selection(fields: Mapping[str, str], offer: ModelOffer) -> dict[str, Any]:
    """Which stems to write."""
    names = [name.strip() for name in fields.get("stems", "").split(",") if name.strip()]
    two_stems, without = fields.get("two_stems") or None, fields.get("without") or None
    for stem in [*names, two_stems, without]:
        if stem not in (None, *offer.stems):
            raise ValueError(
                f"model {offer.name} has no stem {stem!r}: expected {', '.join(offer.stems)}"
            )
    return {"stems": names or None, "two_stems": two_stems, "without": without}


def _one_of(field: str, value: str, choices: Sequence[str] | Mapping[str, Any]) -> str:
    if value not in choices:
        raise ValueError(f"there is no {field} {value!r}: expected {', '.join(choices)}")
    return value


def _whole_number(
    fields: Mapping[str, str], name: str, least: int, most: int, unit: str = ""
) -> int | None:
    """A number in a range; None without the field."""
    value = fields.get(name)
    if not value:
        return None
    if not (value.isascii() and value.isdigit()) or not least <= int(value) <= most:
        raise ValueError(f"{name} {value!r}: expected {least} to {most} {unit}".rstrip())
    return int(value)


def flag(fields: Mapping[str, str], name: str) -> bool:
    """A boolean field.

    Raises
    ------
    ValueError
        If it is neither true nor false.
    """
    value = fields.get(name, "").lower()
    if value not in (*YES, *NO):
        raise ValueError(f"{name} {value!r}: expected true or false")
    return value in YES


def safe_name(filename: str) -> str:
    """The name of a song, from the untrusted file name of an upload.

    Folders, an audio suffix and invisible marks are removed. Control characters, and characters
    that any file system refuses, become ``_``. The result is never empty, and short enough for a
    file name.

    Examples
    --------
    >>> safe_name("../../etc/AC: DC.mp3")
    'AC_ DC'
    """
    for escape, character in ESCAPES.items():
        filename = filename.replace(escape, character)
    base = re.split(r"[\\/]", filename)[-1]
    stem, _, suffix = base.rpartition(".")
    if not stem or f".{suffix.lower()}" not in AUDIO_SUFFIXES:  # as in "Mr. Blue"
        stem = base
    characters = []
    for character in unicodedata.normalize("NFC", stem):
        category = unicodedata.category(character)
        if category == "Cf":  # marks of text direction, and invisible joiners
            continue
        bad = category.startswith("C") or category in ("Zl", "Zp") or character in FORBIDDEN
        characters.append("_" if bad else character)
    text = "".join(characters).strip(" .")
    text = text.encode()[:NAME_BYTES].decode(errors="ignore").strip(" .") or "song"
    return drives.without_reserved(text)
