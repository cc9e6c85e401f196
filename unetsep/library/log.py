"""The outcome of each song of a run: a file of JSON lines that grows song by song.

Its form is that of ``$defs/song`` in ``schema.json`` beside this file; that of the lines of
``--json`` is ``$defs/report``. Later versions add fields; names and meanings stay.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

from ..drives import path_problem
from ..errors import UnetsepError
from ..files import SeparationReport
from ..inputs import Input
from ..locations import is_url
from ..version import __version__
from .records import InputFile
from .songs import Job

SCHEMA = 1
# Fields of a line that later runs read, all of them texts.
ATTEMPT = ("path", "source", "track", "status", "ended")
BEGINNING = b'{"schema": '  # of every line
SCHEMA_FILE = Path(__file__).with_name("schema.json")
PATTERN = "unetsep-*.jsonl"
# Name of a song from standard input in reports and logs.
STDIN = "stdin"


def log_path(folder: Path) -> Path:
    """Path of this process' log, in the folder of the stems."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname()) or "host"
    return folder / f"unetsep-{host}-{os.getpid()}.jsonl"


class RunLog:
    """A log that is being written; lines of earlier runs stay at the start of the file.

    A line that another run left unfinished is ended first, so that the next one stays readable;
    several runs may write one log at the same time.

    Parameters
    ----------
    path
        The file. It and its folder are created with the first line.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failure: str | None = None
        self.lines = 0
        self.shown_path = str(path)

    def write(self, line: Mapping[str, Any]) -> None:
        """Append a line at once; after the first failure, which is stored, nothing is written."""
        if self.failure:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # ASCII: names of files may hold bytes that fit no encoding.
            text = json.dumps(line).encode("ascii") + b"\n"
            if _ends_within_line(self.path):
                text = b"\n" + text
            with self.path.open("ab") as file:
                file.write(text)
            self.lines += 1
        except OSError as error:
            self.failure = error.strerror or str(error)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        interrupted = kind is not None and not issubclass(kind, Exception)
        self.close(interrupted=interrupted)

    def close(self, *, interrupted: bool = False) -> None:
        """End the log; if the run was interrupted, without waiting for long."""


def check_log(path: Path) -> None:
    """Refuse to append to a file that is no log, such as a song.

    Raises
    ------
    UnetsepError
        If its content does not start like a log.
    """
    with contextlib.suppress(OSError):  # `RunLog` reports what cannot be written
        if path.is_file():
            with path.open("rb") as file:
                start = file.read(len(BEGINNING))
            if not BEGINNING.startswith(start):
                raise UnetsepError(
                    f"{path} is not a log, so no lines can be added: name another file with --log"
                )


def _ends_within_line(path: Path) -> bool:
    """Whether the last line of a file lacks its newline; False if it cannot be read."""
    with contextlib.suppress(OSError):
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
    return False


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def song_line(
    job: Job, reports: Sequence[SeparationReport], start_time: datetime
) -> dict[str, Any]:
    """The line of the log for one song that has just ended.

    Parameters
    ----------
    job
        The song and its models.
    reports
        Its report from each model.
    start_time
        When work on it began, in UTC.
    """
    input_file, path = job.input_file(), job.display_path
    parts = {part.separator.name: part for part in job.parts}
    return {
        "schema": SCHEMA,
        "unetsep": __version__,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "begun": _iso(start_time),
        "ended": _iso(now()),
        "source": str(path),
        "path": str(path) if path in job.streams else _absolute(path),
        "track": job.song.track,
        "status": song_status(reports),
        "error": next((report.error for report in reports if report.error), None),
        "input": _input(input_file, [part.record.entry_of(part.targets) for part in job.parts]),
        "tags": {name: list(texts) for name, texts in input_file.tags.values.items()},
        "warnings": list(dict.fromkeys(text for report in reports for text in report.warnings)),
        "reports": [
            report_line(report)
            | {
                "recipe": parts[report.model].recipe.to_dict(),
                "outputs": _sizes(report, job.streams),
            }
            for report in reports
        ],
    }


def report_line(report: SeparationReport) -> dict[str, Any]:
    """The line of ``--json`` for one song and model."""
    return {"schema": SCHEMA, **report.to_dict()}


def song_status(reports: Iterable[SeparationReport]) -> str:
    """One word for all models: ``error`` if one failed, ``ok`` if one did anything."""
    statuses = {report.status for report in reports}
    return next((status for status in ("error", "ok") if status in statuses), "skipped")


def _absolute(path: Path) -> str:
    text = str(path)
    return text if is_url(text) else os.path.abspath(text)  # noqa: PTH100 (links stay as given)


def _input(
    input_file: InputFile, entries: Iterable[Mapping[str, Any] | None]
) -> dict[str, Any] | None:
    """Size, time and, if it is known, hash of a song; None if there is no such file."""
    try:
        facts = {name: input_file.facts[name] for name in ("bytes", "time_ns")}
    except (OSError, UnetsepError):
        return None
    hashes = [input_file.known_sha256]
    for entry in entries:
        recorded = entry["input"] if entry else {}
        if all(recorded.get(name) == value for name, value in facts.items()):
            hashes.append(recorded.get("sha256"))
    return facts | {"sha256": next((sha256 for sha256 in hashes if sha256), None)}


def _sizes(report: SeparationReport, streams: Collection[Path]) -> dict[str, int]:
    sizes = {}
    for path in (path for path in dict.fromkeys(report.stems.values()) if path not in streams):
        with contextlib.suppress(OSError):
            sizes[str(path)] = path.stat().st_size
    return sizes


def _iso(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The complete lines of a log that have this schema, one after the other."""
    with path.open("rb") as file:
        for text in file:
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and line.get("schema") == SCHEMA and _is_line(line):
                    yield line


def _is_line(line: Mapping[str, Any]) -> bool:
    """Whether a line, which anyone may have edited, has the fields that are read."""
    reports = line.get("reports")
    return (
        all(isinstance(line.get(name), str) for name in ATTEMPT)
        and isinstance(reports, list)
        and all(isinstance(report, dict) and "stems" in report for report in reports)
    )


def failed_songs(lines: Iterable[Mapping[str, str]]) -> list[Input]:
    """The files among `failed_lines`; folders and playlists that could not be read, too."""
    places = [(_place(line), line["track"]) for line in lines if not is_url(line["source"])]
    return [Input(path, track, path_problem(path)) for path, track in places]


def _place(line: Mapping[str, str]) -> Path:
    """Path of a song: as the user wrote it, unless that means another file from this folder."""
    source, path = line["source"], line["path"]
    elsewhere = os.path.abspath(source) != path  # noqa: PTH100 (as it was written)
    return Path(path if elsewhere and os.path.exists(path) else source)  # noqa: PTH110 (no errors)


def last_lines(logs: Iterable[Path]) -> dict[str, dict[str, str]]:
    """The line of each song's last attempt in any log, by path and sorted by path.

    Of each line only `ATTEMPT` stays in memory: logs may hold millions.

    Parameters
    ----------
    logs
        Files of this and other runs, in any order.
    """
    latest: dict[str, dict[str, str]] = {}
    for line in chain.from_iterable(map(read_log, logs)):
        # A stream cannot be read again.
        if line["path"] == STDIN:
            continue
        # A song that another run was separating was not tried; one whose stems exist is done.
        tried = line["status"] != "skipped" or any(report["stems"] for report in line["reports"])
        earlier = latest.get(line["path"])
        if tried and (earlier is None or earlier["ended"] <= line["ended"]):
            latest[line["path"]] = {name: line[name] for name in ATTEMPT}
    return dict(sorted(latest.items()))


def failed_lines(lines: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The lines among `last_lines` whose attempts failed."""
    return {path: line for path, line in lines.items() if line["status"] == "error"}


def find_logs(folder: Path) -> list[Path]:
    """The logs in a folder, of all runs."""
    return sorted(folder.glob(PATTERN))
