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
        self._songs: list[Sequence[SeparationReport]] = []
        self._errors = dict[str, None]()  # those that were printed
        self._start = time.monotonic()

    def traceback(self, error: Exception) -> None:
        """Print the traceback of an error, with ``--verbose``."""
        if self._verbose:
            text = "".join(traceback.format_exception(error))
            self._loud.print(*text.rstrip().splitlines())

    def print_song(self, reports: Sequence[SeparationReport]) -> None:
        """Print the reports of one song, one for each model."""
        self._songs.append(reports)
        for report in reports:
            if self._lines:
                self._write(report, self._lines)
            _show(report, self.console, verbose=self._verbose)
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
            if sentence not in self._errors:
                self._loud.print(f"Error: {sentence}")
            self._errors[sentence] = None
        for sentence in dict.fromkeys(text for report in reports for text in report.warnings):
            self.console.print(f"Warning: {sentence}")

    def end(self, log: RunLog | None) -> bool:
        """Print the summary; return whether nothing failed."""
        count = len(self._songs)
        separated = self._with_status("ok", "planned")
        if count > 1 and separated:
            self.console.print(self._summary(separated))
        existing = sum(all(each.reason == EXIST for each in reports) for reports in self._songs)
        if existing:
            self.console.print(f"{existing} of {count} skipped, their stems exist")
        failed = self._with_status("error")
        if failed and count > 1:
            reasons = [f"  {reason}" for reason in _shortened([*self._errors])]
            self._loud.print(f"{len(failed)} of {count} failed:", *reasons)
        self.print_log_path(log)
        failure = self._lines.failure if self._lines else None
        if failure:
            self._loud.print(f"Error: stdout took no more reports: {failure}")
        return not failed and not failure

    def print_log_path(self, log: RunLog | None) -> None:
        """Print where the log is, or why it could not be written."""
        if log and log.failure:
            self._loud.print(
                f"Warning: the log {log.shown_path} could not be written: {log.failure}"
            )
        elif log and log.lines:
            self.console.print(f"Log: {log.shown_path}")

    def _with_status(self, *statuses: str) -> list[Sequence[SeparationReport]]:
        """The reports of each song that has such a status, by some model."""
        return [
            reports for reports in self._songs if any(each.status in statuses for each in reports)
        ]

    def _summary(self, separated: Sequence[Sequence[SeparationReport]]) -> str:
        """Songs, audio, time and speed."""
        lengths = [max(report.seconds or 0.0 for report in reports) for reports in separated]
        seconds, unknown = sum(lengths), lengths.count(0.0)
        count = f"{len(separated)} of {len(self._songs)} songs"
        if self._dry_run:
            parts = [f"{duration(seconds)} of audio"] if seconds else []
            parts += [f"{unknown} of unknown length"] if unknown else []
            return f"{count} would be separated: {', '.join(parts)}"
        elapsed = max(time.monotonic() - self._start, 1e-3)
        return (
            f"{count} separated: {duration(seconds)} of audio in {duration(elapsed)}, "
            f"{speed(seconds / elapsed)}"
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
    if report.gain_db and report.status == "ok":
        console.print(
            f"  All stems were lowered by {-report.gain_db:.2f} dB so that none clips "
            "(--format wav --bit-depth 32f keeps levels)."
        )


def _common_path(stems: Iterable[Path]) -> Path:
    """The innermost folder that holds all stems; the file itself if there is only one."""
    first, *others = dict.fromkeys(stems)
    return common_folder([first, *others]) if others else first
