"""Records of what made a song's stems: small dotfiles beside them, written with them.

A record has an entry for each choice of stems: input, models, options, version, and the outputs
with their sizes. An entry is marked as incomplete before its stems get their names, and as
complete afterwards: if a run dies in between, the next one can tell. An entry also knows the audio
of song and stems without tags, into which DJ software writes cues and grids.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..audio.decoder import AudioInfo
from ..audio.formats import OutputFormat
from ..audio.payload import audio_mark, file_and_audio_sha256
from ..audio.stem_files import StemFiles
from ..audio.tags import Tags, read_tags
from ..errors import AudioError
from ..files import decibels
from ..inputs import Input
from ..paths import target_path
from ..storage import PREFIX
from ..version import STEMS_EDITION
from .claims import Claim, claim_path

SCHEMA = 1
# Pattern of all records' names; see `record_path`.
RECORD_PATTERN = ".unetsep.*.json"
# Placeholder for the stem while a template is filled; no name contains it.
PLACE = "\ue000"
# Added to errors after only some of the new stems got their names.
HALF_REPLACED = "only some of its stems were replaced: --skip-existing --overwrite completes them"
# What reports of stems say, and complete entries, too.
FACTS = ("sample_rate", "channels", "seconds", "gain_db")
# Seconds by which file systems round times.
TIME_STEP = 2.0

# Stems that do not exist, are up to date, are so but not all there, or were made differently.
State = Literal["missing", "current", "incomplete", "different"]


class InputFile:
    """A song, identified by its content.

    Parameters
    ----------
    path
        An existing file. Its content is read once, and only if needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Path, size and time; available without reading the content."""
        status = self._path.stat()
        path = os.path.abspath(self._path)  # noqa: PTH100 (links stay as they were given)
        return {"path": path, "bytes": status.st_size, "time_ns": status.st_mtime_ns}

    @functools.cached_property
    def _hashes(self) -> tuple[str, str]:
        return file_and_audio_sha256(self._path)

    @property
    def sha256(self) -> str:
        """SHA-256 of the content."""
        return self._hashes[0]

    @property
    def audio_sha256(self) -> str:
        """SHA-256 of its audio, without tags."""
        return self._hashes[1]

    @functools.cached_property
    def tags(self) -> Tags:
        """Its tags."""
        return read_tags(self._path)

    @property
    def known_sha256(self) -> str | None:
        """The hash, if it is known without reading the file again."""
        return None

    @property
    def is_local(self) -> bool:
        """Whether it can be read without a download."""
        return True

    def fetch(self) -> Path:
        """The file to read."""
        return self._path

    def matches(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry's input has the same content, or the same but for tags."""
        if not self._path.is_file():  # a pipe can be read only once
            return False
        if all(entry.get(name) == value for name, value in self.facts.items()):
            return True
        if entry.get("bytes") == self.facts["bytes"] and entry.get("sha256") == self.sha256:
            return True
        return "audio_sha256" in entry and entry["audio_sha256"] == self.audio_sha256


@dataclass(frozen=True)
class Recipe:
    """What determines the bytes of stems, besides the song.

    Parameters
    ----------
    models
        Name and SHA-256 of each.
    options
        Plain values.
    version
        Of unetsep, for messages: the edition decides.
    edition
        The version's `unetsep.version.STEMS_EDITION`.
    """

    models: Sequence[tuple[str, str]]
    options: Mapping[str, Any]
    version: str
    edition: int = STEMS_EDITION

    def to_dict(self) -> dict[str, Any]:
        """The recipe as fields of a record's entry."""
        models = [{"name": name, "sha256": sha256} for name, sha256 in self.models]
        return {
            "models": models,
            "options": dict(self.options),
            "unetsep": self.version,
            "stems_edition": self.edition,
        }

    def difference(self, entry: Mapping[str, Any]) -> str | None:
        """How an entry differs, in a few words; None if it does not."""
        fields = self.to_dict()
        if [m["sha256"] for m in entry["models"]] != [m["sha256"] for m in fields["models"]]:
            return f"by {'+'.join(model['name'] for model in entry['models'])}"
        # Before the options, which differ between editions. The first ones did not record it.
        if entry.get("stems_edition", 1) != self.edition:
            return f"by unetsep {entry['unetsep']}"
        recorded, options = entry["options"], fields["options"]
        for name in sorted(recorded.keys() | options.keys()):
            if recorded.get(name) != options.get(name):
                return f"with {name} {_words(recorded.get(name))}"
        return None


@dataclass(frozen=True)
class Finding:
    """The state of a song's stems, why they are not up to date, and what reports say of them."""

    state: State
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


class Record:
    """The file that records what made one model's stems of one song.

    Parameters
    ----------
    path
        Path beside the stems or in the folder above them; see `record_path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:12]

    @property
    def claim(self) -> Path:
        """Path of the claim that a run must hold to change the record."""
        return claim_path(self.path.parent, self._token)

    @property
    def signature(self) -> tuple[int, int] | None:
        """A value that differs after each change; None if there is no record."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def entries(self) -> list[dict[str, Any]]:
        """Its entries; none if it is missing, damaged or of another schema."""
        try:
            return parse_entries(self.path.read_bytes())
        except OSError:
            return []

    def entry_of(self, targets: Iterable[Path]) -> dict[str, Any] | None:
        """The entry that names any of some stems."""
        names = {self.output_name(path) for path in targets}
        return next((e for e in self.entries() if e["outputs"].keys() & names), None)

    def compare(self, input_file: InputFile, targets: Sequence[Path], recipe: Recipe) -> Finding:
        """The state of some stems, compared with what a run would make now."""
        existing = [path for path in targets if os.path.lexists(path)]
        if not existing:
            return Finding("missing")
        entry = self.entry_of(targets)
        if entry is None:
            return Finding("different", f"no record says what made {existing[0]}")
        stem = next((p for p in existing if self.output_name(p) in entry["outputs"]), existing[0])
        if difference := recipe.difference(entry):
            return Finding("different", f"{stem} was made {difference}")
        if not input_file.matches(entry["input"]):
            return Finding("different", f"{stem} was made from another version of the song")
        for path in existing:
            if not self._is_as_recorded(path, entry):
                return Finding("different", f"{path} was changed after it was made")
        complete = entry["complete"] and len(existing) == len(targets)
        facts = {name: entry[name] for name in FACTS if name in entry}
        return Finding("current", facts=facts) if complete else Finding("incomplete")

    def output_name(self, target: Path) -> str:
        """Name of a stem in the record."""
        return Path(os.path.relpath(target, self.path.parent)).as_posix()

    def _is_as_recorded(self, path: Path, entry: Mapping[str, Any]) -> bool:
        """Whether a stem has its size and was not written after its record, but for its tags."""
        name = self.output_name(path)
        try:
            status, recorded = path.stat(), self.path.stat().st_mtime
            if not stat.S_ISREG(status.st_mode):  # opening a pipe may never end
                return False
            is_new = entry["complete"] and status.st_mtime > recorded + TIME_STEP
            if status.st_size == entry["outputs"].get(name) and not is_new:
                return True
            mark = entry.get("audio", {}).get(name)
            return mark is not None and mark == audio_mark(path)
        except OSError:
            return False

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add an entry; earlier entries with any of its stems are dropped."""
        names = entry["outputs"].keys()
        other_entries = [each for each in self.entries() if not each["outputs"].keys() & names]
        entries = [*other_entries, entry]
        self.write_text(json.dumps({"schema": SCHEMA, "entries": entries}, indent=1))
        self._date_after(self.path.parent / name for each in entries for name in each["outputs"])

    def _date_after(self, stems: Iterable[Path]) -> None:
        """Make it no older than the stems that it names: newer stems would count as changed.

        It is older if the clock was set back meanwhile, as on a computer that starts with the
        wrong time.
        """
        newest = 0
        for stem in stems:
            with contextlib.suppress(OSError):  # it does not have its name yet
                newest = max(newest, stem.stat().st_mtime_ns)
        with contextlib.suppress(OSError):
            time_ns = self.path.stat().st_mtime_ns
            if newest > time_ns:  # a different time at each change, see `signature`
                newest += time_ns % 10**9
                os.utime(self.path, ns=(newest, newest))

    def write_text(self, text: str) -> None:
        """Replace the whole file at once; the caller holds its claim, which removes leftovers."""
        partial = self.path.with_name(f"{PREFIX}{self._token}-record.part")
        try:
            partial.write_text(text + "\n", encoding="ascii")
            partial.replace(self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def text(self) -> str | None:
        """The whole file, or None if there is none."""
        try:
            return self.path.read_text(encoding="ascii").rstrip("\n")
        except (OSError, ValueError):
            return None

    def restore(self, text: str | None) -> None:
        """Restore an earlier text of the file, or its absence."""
        if text is None:
            self.path.unlink(missing_ok=True)
        else:
            self.write_text(text)


def parse_entries(content: bytes) -> list[dict[str, Any]]:
    """The entries of a record; none if it is damaged or of another schema."""
    try:
        parsed = json.loads(content)
        entries = parsed["entries"] if parsed["schema"] == SCHEMA else []
        return [entry for entry in entries if _is_entry(entry)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def outputs_in(folder: Path, names: Sequence[str]) -> set[Path]:
    """The stems that a folder's records name, given all names in the folder."""
    records = [Record(folder / name) for name in fnmatch.filter(names, RECORD_PATTERN)]
    return {
        folder / output
        for record in records
        for entry in record.entries()
        for output in entry["outputs"]
    }


def record_path(output_dir: Path, template: str, song: Input, *, ext: str, model: str) -> Path:
    """Path of the record of some stems: the same for any choice among a song's stems.

    Parameters
    ----------
    output_dir, template, song, ext, model
        See `unetsep.paths.distinct_targets` and `unetsep.paths.target_path`.
    """
    parts = target_path(template, song, PLACE, ext, model).parts
    index = next((i for i, part in enumerate(parts) if PLACE in part), len(parts) - 1)
    name = "/".join(parts[index:])
    if name != f"{PLACE}.{ext}":  # several songs share the folder
        name = "." + hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:12]
    return output_dir.joinpath(*parts[:index], f".unetsep{name.removeprefix(PLACE)}.json")


class RecordedStems(StemFiles):
    """A song's stems in files, and the record of what made them.

    Parameters
    ----------
    targets, output, info, options
        See `StemFiles`.
    record, recipe, input_file
        The record, and what to write into it.
    claim
        The claim that allows writing.
    """

    def __init__(
        self,
        targets: Sequence[Path],
        output: OutputFormat,
        info: AudioInfo,
        *,
        record: Record,
        recipe: Recipe,
        input_file: InputFile,
        claim: Claim,
        **options: Any,
    ) -> None:
        super().__init__(targets, output, info, **options)
        self._record, self._recipe, self._input = record, recipe, input_file
        self._claim = claim
        self._old_text: str | None = None
        self._entry: dict[str, Any] = {}

    def __enter__(self) -> RecordedStems:
        # Of the song as it is now: it may be replaced during the separation.
        self._entry = {
            "complete": False,
            "input": {
                **self._input.facts,
                "sha256": self._input.sha256,
                "audio_sha256": self._input.audio_sha256,
            },
            **self._recipe.to_dict(),
        }
        super().__enter__()
        return self

    def before_naming(self, files: Sequence[Path]) -> None:
        """Record the files that are about to get the stems' names."""
        if not self._claim.held:
            raise AudioError(
                f"another run took {self.paths[0].parent} over, because this one was not heard "
                "of for a minute: nothing was written"
            )
        sizes = [file.stat().st_size for file in files]
        names = dict.fromkeys(self._record.output_name(path) for path in self.paths)
        self._entry["outputs"] = dict(zip(names, sizes, strict=True))
        self._entry["audio"] = dict(zip(names, map(audio_mark, files), strict=True))
        self._old_text = self._record.text()
        self._record.write(self._entry)

    def commit(self) -> float:
        """Give the files their names and complete their record; returns their gain."""
        try:
            gain = super().commit()
        except BaseException as error:
            if "outputs" in self._entry and not self.has_replaced:
                with contextlib.suppress(OSError):
                    self._record.restore(self._old_text)
            if isinstance(error, AudioError) and self._overwrite and self.has_replaced:
                error.args = (f"{error}; {HALF_REPLACED}",)
            raise
        # If this fails, the next run makes the stems again, with the same bytes.
        rate, channels = self._info.sample_rate, self._info.channels
        facts = (rate, channels, round(self._frames / rate, 3), decibels(gain))
        with contextlib.suppress(OSError):
            self._record.write(
                self._entry | dict(zip(FACTS, facts, strict=True)) | {"complete": True}
            )
        return gain


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether an entry, which anyone may have edited, has the expected form."""
    kinds = {"input": dict, "options": dict, "outputs": dict, "models": list, "unetsep": str}
    return (
        all(isinstance(entry[name], kind) for name, kind in kinds.items())
        and "complete" in entry
        and isinstance(entry.get("audio", {}), dict)  # which older records lack, and the facts
        and all(isinstance(entry.get(name, 0), (int, float)) for name in FACTS)
        and "\0" not in "".join(entry["outputs"])  # which no path may hold
        and all(isinstance(model["name"], str) and "sha256" in model for model in entry["models"])
    )


def _words(value: object) -> str:
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
