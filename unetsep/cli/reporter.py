"""What ``separate`` prints about each song, on stderr or as JSON, and its summary at the end."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..files import SeparationReport
from ..library.log import RunLog, report_line
from ..library.songs import EXIST
from .listen import common_folder
from .terminal import Lines, Messages, duration, speed

# Most errors that the summary repeats.
MAX_REPEATED = 20


class Reporter:
    """Prints what becomes of each song to stderr and, as JSON, to stdout.

    Parameters
    ----------
    as_json, quiet, verbose, dry_run
        See `unetsep.cli.separate.SeparateOptions`.
    """

    def __init__(self, *, as_json: bool, quiet: bool, verbose: bool, dry_run: bool) -> None:
        self.console = Messages(quiet=quiet)
        # The same console unless quiet: it prints above the progress bars.
        self._loud = Messages() if quiet else self.console
        self._lines = Lines() if as_json or dry_run else None
        self._as_json, self._verbose, self._dry_run = as_json, verbose, dry_run
        self._printed: set[str] = set()
        self._start, self._seconds = time.monotonic(), 0.0
        self._songs, self._separated, self._existing, self._unknown = 0, 0, 0, 0
        self._failed, self._reasons = 0, dict[str, None]()

    def traceback(self, error: Exception) -> None:
        """Print the traceback of an error, with ``--verbose``."""
        if self._verbose:
            text = "".join(traceback.format_exception(error))
            self._loud.print(*text.rstrip().splitlines())

    def song(self, reports: Sequence[SeparationReport]) -> None:
        """Print the reports of one song, one for each model."""
        self._songs += 1
        if all(report.reason == EXIST for report in reports):
            self._existing += 1
        for report in reports:
            if self._lines:
                self._write(report, self._lines)
            _show(report, self.console, verbose=self._verbose)
        if any(report.status in ("ok", "planned") for report in reports):
            self._separated += 1
            seconds = max(report.seconds or 0.0 for report in reports)
            self._seconds += seconds
            self._unknown += not seconds
        reasons = [report.error or "" for report in reports if report.status == "error"]
        self._failed += bool(reasons)
        self._reasons |= dict.fromkeys(reasons)
        self._complain(reports)

    def _write(self, report: SeparationReport, lines: Lines) -> None:
        """Write what other programs read: JSON or, in a dry run, paths of stems."""
        if self._as_json:
            # ASCII: names may contain bytes that the encoding of stdout lacks.
            lines.write(json.dumps(report_line(report)))
        elif report.status == "planned":
            for path in dict.fromkeys(report.stems.values()):
                lines.write(str(path))

    def _complain(self, reports: Sequence[SeparationReport]) -> None:
        """Print errors and warnings of a song, each once for all models and songs."""
        for sentence in dict.fromkeys(report.error for report in reports if report.error):
            if sentence not in self._printed:
                self._loud.print(f"Error: {sentence}")
            self._printed.add(sentence)
        for sentence in dict.fromkeys(text for report in reports for text in report.warnings):
            self.console.print(f"Warning: {sentence}")

    def end(self, log: RunLog | None) -> bool:
        """Print the summary; return whether nothing failed."""
        if self._songs > 1 and self._separated:
            self.console.print(self._summary())
        if self._existing:
            self.console.print(f"{self._existing} of {self._songs} skipped, their stems exist")
        if self._failed and self._songs > 1:
            reasons = [f"  {reason}" for reason in _shortened([*self._reasons])]
            self._loud.print(f"{self._failed} of {self._songs} failed:", *reasons)
        self.log(log)
        failure = self._lines.failure if self._lines else None
        if failure:
            self._loud.print(f"Error: stdout took no more reports: {failure}")
        return not self._failed and not failure

    def log(self, log: RunLog | None) -> None:
        """Print where the log is, or why it could not be written."""
        if log and log.failure:
            self._loud.print(
                f"Warning: the log {log.shown_path} could not be written: {log.failure}"
            )
        elif log and log.lines:
            self.console.print(f"Log: {log.shown_path}")

    def _summary(self) -> str:
        """Songs, audio, time and speed."""
        if self._dry_run:
            parts = [f"{duration(self._seconds)} of audio"] if self._seconds else []
            parts += [f"{self._unknown} of unknown length"] if self._unknown else []
            count = f"{self._separated} of {self._songs} songs would be separated"
            return f"{count}: {', '.join(parts)}"
        elapsed = max(time.monotonic() - self._start, 1e-3)
        return (
            f"{self._separated} of {self._songs} songs separated: {duration(self._seconds)} of "
            f"audio in {duration(elapsed)}, {speed(self._seconds / elapsed)}"
        )


def _shortened(sentences: list[str]) -> list[str]:
    """The first sentences; all of them were printed earlier, and are in the log."""
    more = len(sentences) - MAX_REPEATED
    return [*sentences[:MAX_REPEATED], f"and {more} more"] if more > 0 else sentences


def _show(report: SeparationReport, console: Messages, *, verbose: bool) -> None:
    if report.status == "skipped" and (verbose or report.reason != EXIST):
        console.print(f"{report.source}: skipped, {report.reason}")
    elif report.status == "ok":
        console.print(
            f"{report.source}: {', '.join(report.stems)} in {_common_path(report.stems.values())} "
            f"({report.seconds:.1f} s of audio in {report.elapsed:.1f} s, "
            f"{speed(report.speed or 0)})"
        )
    if report.gain_db:
        console.print(
            f"  All stems were lowered by {-report.gain_db:.2f} dB so that none clips "
            "(--format wav --bit-depth 32f keeps levels)."
        )


def _common_path(stems: Iterable[Path]) -> Path:
    """The innermost folder that holds all stems; the file itself if there is only one."""
    first, *others = dict.fromkeys(stems)
    return common_folder([first, *others]) if others else first
