"""What made a song's stems: a small hidden file beside them, written together with them.

It holds an entry for each choice of stems: input, models, options, version, and the outputs
with their sizes. An entry is written as incomplete before its stems get their names, and as
complete afterwards: a run that dies in between leaves nothing that could be taken for more,
or for less, than it is.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..audio.decoder import AudioInfo
from ..audio.formats import OutputFormat
from ..audio.stem_files import StemFiles
from ..audio.tags import Tags, read_tags
from ..errors import AudioError
from ..inputs import Input
from ..paths import song_target
from ..storage import PREFIX, file_sha256
from .claims import Claim, claim_path

SCHEMA = 1
# What all records are called; see `record_path`.
RECORD_PATTERN = ".unetsep.*.json"
# Stands for the stem while a template is filled; no name contains it.
PLACE = "\ue000"
# Where stems that are replaced got only some of their names.
HALF_REPLACED = "only some of its stems were replaced: --skip-existing --overwrite completes them"
# Seconds by which file systems are wrong about times.
TIME_STEP = 2.0

# missing: no stem exists; same: what the same command would make; incomplete: a part of that;
# otherwise: something else, or nothing says what.
State = Literal["missing", "same", "incomplete", "otherwise"]


class InputFile:
    """A song, known by its content.

    Parameters
    ----------
    path
        An existing file. Its content is read once, and only when that is needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Path, size and time; what can be had without reading it."""
        status = self._path.stat()
        path = os.path.abspath(self._path)  # noqa: PTH100 (links stay as they were given)
        return {"path": path, "bytes": status.st_size, "time_ns": status.st_mtime_ns}

    @functools.cached_property
    def sha256(self) -> str:
        """Of the content."""
        return file_sha256(self._path)

    @functools.cached_property
    def tags(self) -> Tags:
        """What it says of itself."""
        return read_tags(self._path)

    @property
    def known_sha256(self) -> str | None:
        """The hash, if somebody has asked for it already."""
        return self.__dict__.get("sha256")

    @property
    def here(self) -> bool:
        """Whether it can be read without fetching it."""
        return True

    def fetch(self) -> Path:
        """The file to read."""
        return self._path

    def is_that_of(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry's input has the same content."""
        if not self._path.is_file():  # a pipe must not be read here
            return False
        if all(entry.get(name) == value for name, value in self.facts.items()):
            return True
        return entry.get("bytes") == self.facts["bytes"] and entry.get("sha256") == self.sha256


@dataclass(frozen=True)
class Recipe:
    """What decides the bytes of stems, beside the song.

    Parameters
    ----------
    models
        Name and SHA-256 of each.
    options
        Plain values.
    version
        Of unetsep.
    """

    models: Sequence[tuple[str, str]]
    options: Mapping[str, Any]
    version: str

    def to_dict(self) -> dict[str, Any]:
        """As the record has it."""
        models = [{"name": name, "sha256": sha256} for name, sha256 in self.models]
        return {"models": models, "options": dict(self.options), "unetsep": self.version}

    def difference(self, entry: Mapping[str, Any]) -> str | None:
        """In what an entry differs, in a few words; None if in nothing."""
        ours = self.to_dict()
        if [m["sha256"] for m in entry["models"]] != [m["sha256"] for m in ours["models"]]:
            return f"by {'+'.join(model['name'] for model in entry['models'])}"
        # Before the options, of which another version had others.
        if entry["unetsep"] != self.version:
            return f"by unetsep {entry['unetsep']}"
        theirs = entry["options"]
        for name in sorted(theirs.keys() | ours["options"].keys()):
            if theirs.get(name) != ours["options"].get(name):
                return f"with {name} {_words(theirs.get(name))}"
        return None


@dataclass(frozen=True)
class Finding:
    """What there is of a song's stems, and why that is not what would be made now."""

    state: State
    reason: str = ""


class Record:
    """The file that says what made one model's stems of one song.

    Parameters
    ----------
    path
        Where it lies, beside the stems or in the folder above them; see `record_path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token = hashlib.sha256(path.name.encode(errors="surrogateescape")).hexdigest()[:12]

    @property
    def claim(self) -> Path:
        """The file of the claim that must be held to change the record."""
        return claim_path(self.path.parent, self._token)

    @property
    def signature(self) -> tuple[int, int] | None:
        """Differs after each change; None if there is no record."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def entries(self) -> list[dict[str, Any]]:
        """What it says; nothing if it is missing, damaged or of another schema."""
        try:
            return parse_entries(self.path.read_bytes())
        except OSError:
            return []

    def entry_of(self, targets: Iterable[Path]) -> dict[str, Any] | None:
        """What it says of some stems."""
        names = {self.output_name(path) for path in targets}
        return next((e for e in self.entries() if e["outputs"].keys() & names), None)

    def compare(self, input_file: InputFile, targets: Sequence[Path], recipe: Recipe) -> Finding:
        """What there is of some stems, compared with what would be made now."""
        existing = [path for path in targets if os.path.lexists(path)]
        if not existing:
            return Finding("missing")
        entry = self.entry_of(targets)
        if entry is None:
            return Finding("otherwise", f"no record says what made {existing[0]}")
        named = next((p for p in existing if self.output_name(p) in entry["outputs"]), existing[0])
        if difference := recipe.difference(entry):
            return Finding("otherwise", f"{named} was made {difference}")
        if not input_file.is_that_of(entry["input"]):
            return Finding("otherwise", f"{named} was made from another version of the song")
        for path in existing:
            if not self._is_as_recorded(path, entry):
                return Finding("otherwise", f"{path} was changed after it was made")
        done = entry["complete"] and len(existing) == len(targets)
        return Finding("same" if done else "incomplete")

    def output_name(self, target: Path) -> str:
        """What a stem is called in the record."""
        return Path(os.path.relpath(target, self.path.parent)).as_posix()

    def _is_as_recorded(self, path: Path, entry: Mapping[str, Any]) -> bool:
        """Whether a stem has its recorded size, and was not written after its record."""
        try:
            status, recorded = path.stat(), self.path.stat().st_mtime
        except OSError:
            return False
        changed = entry["complete"] and status.st_mtime > recorded + TIME_STEP
        return status.st_size == entry["outputs"].get(self.output_name(path)) and not changed

    def write(self, entry: Mapping[str, Any]) -> None:
        """Enter what made some stems; what was said of any of them before is dropped."""
        names = entry["outputs"].keys()
        others = [each for each in self.entries() if not each["outputs"].keys() & names]
        entries = [*others, entry]
        self.write_text(json.dumps({"schema": SCHEMA, "entries": entries}, indent=1))
        self._date_after(self.path.parent / name for each in entries for name in each["outputs"])

    def _date_after(self, stems: Iterable[Path]) -> None:
        """Make it no older than stems that it names, which else would count as changed later.

        It is older where the clock was set back since, as of a computer that starts with the
        wrong time.
        """
        newest = 0
        for stem in stems:
            with contextlib.suppress(OSError):  # it is still to be named
                newest = max(newest, stem.stat().st_mtime_ns)
        with contextlib.suppress(OSError):
            own = self.path.stat().st_mtime_ns
            if newest > own:  # and each time another one, see `signature`
                newest += own % 10**9
                os.utime(self.path, ns=(newest, newest))

    def write_text(self, text: str) -> None:
        """Replace the whole file at once; its claim is held, and removes what is left over."""
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
        """Make it what it was."""
        if text is None:
            self.path.unlink(missing_ok=True)
        else:
            self.write_text(text)


def parse_entries(content: bytes) -> list[dict[str, Any]]:
    """What a record says; nothing if it is damaged or of another schema."""
    try:
        parsed = json.loads(content)
        entries = parsed["entries"] if parsed["schema"] == SCHEMA else []
        return [entry for entry in entries if _is_entry(entry)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def outputs_in(folder: Path, names: Sequence[str]) -> set[Path]:
    """The stems that the records in a folder name, of all names in it."""
    records = [Record(folder / name) for name in fnmatch.filter(names, RECORD_PATTERN)]
    return {
        folder / output
        for record in records
        for entry in record.entries()
        for output in entry["outputs"]
    }


def record_path(output_dir: Path, template: str, song: Input, *, ext: str, model: str) -> Path:
    """Where the record of some stems lies: the same for any choice among a song's stems.

    Parameters
    ----------
    output_dir, template, song, ext, model
        See `unetsep.paths.plan` and `unetsep.paths.target_path`.
    """
    parts = song_target(template, song, PLACE, ext, model).parts
    place = next((i for i, part in enumerate(parts) if PLACE in part), len(parts) - 1)
    rest = "/".join(parts[place:])
    if rest != f"{PLACE}.{ext}":  # several songs share the folder
        rest = "." + hashlib.sha256(rest.encode(errors="surrogateescape")).hexdigest()[:12]
    return output_dir.joinpath(*parts[:place], f".unetsep{rest.removeprefix(PLACE)}.json")


class RecordedStems(StemFiles):
    """A song's stems in files, and the record of what made them.

    Parameters
    ----------
    targets, output, info, options
        See `StemFiles`.
    record, recipe, input_file
        Where to write what.
    claim
        Which allows it.
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
        super().__init__(targets, output, info, before_naming=self._announce, **options)
        self._record, self._recipe, self._input = record, recipe, input_file
        self._claim = claim
        self._before: str | None = None
        self._entry: dict[str, Any] = {}

    def __enter__(self) -> RecordedStems:
        # What is separated is what is there now: the song may be replaced meanwhile.
        self._entry = {
            "complete": False,
            "input": {**self._input.facts, "sha256": self._input.sha256},
            **self._recipe.to_dict(),
        }
        super().__enter__()
        return self

    def _announce(self, files: Sequence[Path]) -> None:
        """Say what is going to have the stems' names."""
        if not self._claim.held:
            raise AudioError(
                f"another run took {self.paths[0].parent} over, because this one was not heard "
                "of for a minute: nothing was written"
            )
        sizes = [file.stat().st_size for file in files]
        names = dict.fromkeys(self._record.output_name(path) for path in self.paths)
        self._entry["outputs"] = dict(zip(names, sizes, strict=True))
        self._before = self._record.text()
        self._record.write(self._entry)

    def commit(self) -> float:
        """Give the files their names, with their record; the gain that they got."""
        try:
            gain = super().commit()
        except BaseException as error:
            if "outputs" in self._entry and not self.has_replaced:
                with contextlib.suppress(OSError):
                    self._record.restore(self._before)
            if isinstance(error, AudioError) and self._overwrite and self.has_replaced:
                error.args = (f"{error}; {HALF_REPLACED}",)
            raise
        # Without this line in the record the stems are made again, with the same bytes.
        with contextlib.suppress(OSError):
            self._record.write(self._entry | {"complete": True})
        return gain


def _is_entry(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of a file that anybody may have changed has its form."""
    kinds = {"input": dict, "options": dict, "outputs": dict, "models": list, "unetsep": str}
    return (
        all(isinstance(entry[name], kind) for name, kind in kinds.items())
        and "\0" not in "".join(entry["outputs"])  # which no path may hold
        and all(
            isinstance(model["name"], str) and "sha256" in model and "complete" in entry
            for model in entry["models"]
        )
    )


def _words(value: object) -> str:
    if value is None:
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
