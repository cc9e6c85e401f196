"""Which songs ``separate`` takes: those that are named, that failed, or of a shard."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from ..inputs import Input, count_kinds, find_inputs, track_name
from ..library.log import failed_lines, failed_songs, find_logs, last_lines
from ..library.records import outputs_in
from ..library.remote import Spool
from ..library.shards import Shard
from ..library.urls import READ_ONLY, public_url, split_url
from ..locations import is_url
from ..playlists import PLAYLISTS
from .terminal import Messages


@dataclass(frozen=True)
class SongSearch:
    """Finds the songs of a run.

    Parameters
    ----------
    given_output
        The output folder or its URL, as given on the command line.
    output
        The folder where stems are written.
    spool
        Temporary copies of songs and stems at URLs, if there are any.
    log
        The log that ``--log`` names.
    console
        Prints what was skipped.
    """

    given_output: Path | str
    output: Path
    spool: Spool | None
    log: Path | None
    console: Messages

    def find(self, sources: Iterable[Path | str]) -> list[Input]:
        """The songs at some paths and URLs."""
        sources, spool = list(sources), self.spool
        skipped: list[Path] = []
        stems: list[Path] = []
        # The output folder is not searched for songs, wherever it is.
        output = spool.location(self.output) if spool else self.output
        paths = [source for source in sources if isinstance(source, Path)]
        urls = [source for source in sources if isinstance(source, str)]
        at_urls = spool.find(urls, self.output, skipped.append) if spool else []
        songs = find_inputs(
            paths,
            output,
            skipped.append,
            outputs_in,
            stems.append,
            songs_elsewhere=any(not song.error for song in at_urls),
        )
        songs += at_urls
        if skipped:
            kinds = count_kinds(skipped)
            self.console.print(f"Not audio by name, skipped: {kinds}")
        if stems:
            self.console.print(f"Stems that unetsep made, skipped: {len(stems)}")
        return songs

    def find_failed(self, sources: Sequence[Path | str]) -> list[Input]:
        """The songs whose last attempt failed; with ``sources``, only those among them.

        Folders and playlists that could not be read failed as a whole. All their songs are
        retried, except those that were separated on their own since.
        """
        spool = self.spool
        logs = spool.logs() if spool and spool.output else find_logs(self.output)
        logs = _with_log(logs, self.log)
        last = last_lines(logs)
        failed = failed_lines(last)
        places = {_place(source): line for source, line in failed.items()}
        if not failed:
            place = f"the logs in {self.given_output}"
            if not logs:
                place += ", where there are none"
            self.console.print(f"According to {place}, no song failed")
        if sources:
            containers = [source for source in sources if _logged_source(source) in failed]
            others = [source for source in sources if _logged_source(source) not in failed]
            songs = self.find(others)
            songs = [s for s in songs if _track(self._log_name(s), last, places) is not None]
        else:
            songs = failed_songs(failed.values())
            containers = [song.path for song in songs if _holds_songs(song.path)]
            songs = [song for song in songs if not _holds_songs(song.path)]
            containers += [line["source"] for line in failed.values() if is_url(line["source"])]
        for song in self.find(containers):
            source = self._log_name(song)
            if source in failed or source not in last:
                songs.append(song)
        unique: dict[str, Input] = {}
        for song in songs:
            unique.setdefault(self._log_name(song), song)
        # Named by its URL alone, a song would lose its folder, and its stems their path; so would
        # one of a folder within the one that was named.
        return [
            replace(song, track=_track(source, last, places) or song.track)
            for source, song in unique.items()
        ]

    def _log_name(self, song: Input) -> str:
        """A song's path or URL as the log has it."""
        return (self.spool and self.spool.url(song)) or _logged_source(song.path)


def has_failed_urls(output: Path, log: Path | None) -> bool:
    """Whether songs at URLs failed last, by the logs in a folder and the one of ``--log``."""
    failed = failed_lines(last_lines(_with_log(find_logs(output), log)))
    return any(is_url(line["source"]) for line in failed.values())


def select_shard(songs: list[Input], shard: Shard | None, console: Messages) -> list[Input]:
    """The songs of a shard; prints how many they are."""
    if shard is None:
        return songs
    selected = shard.select(songs)
    count = f"{len(selected)} of {len(songs)} songs" if selected else f"none of {len(songs)} songs"
    console.print(f"Shard {shard}: {count}")
    return selected


def _place(source: str) -> PurePath:
    """A song's or folder's path, or its URL in one form.

    A page at http:// may list files at https://, and folders of buckets may have empty names.
    """
    return PurePosixPath(re.sub("^https:", "http:", source)) if is_url(source) else Path(source)


def _track(
    source: str, last: Mapping[str, Mapping[str, str]], places: Mapping[PurePath, Mapping[str, str]]
) -> str | None:
    """Track of a song that failed, or whose folder did; None if neither did.

    Parameters
    ----------
    source
        The song's path or URL as the log has it.
    last
        See `unetsep.library.log.last_lines`.
    places
        The lines of what failed, by their places.
    """
    if source in last:
        return last[source]["track"] if last[source]["status"] == "error" else None
    path = _place(source)
    for folder in path.parents:
        line = places.get(folder)
        if line:
            start = line["track"] if line["track"].endswith("/") else ""
            inner = path.relative_to(folder)
            is_web = split_url(source)[0] in READ_ONLY
            return start + track_name(PurePath(unquote(str(inner))) if is_web else inner)
    return None


def _with_log(logs: list[Path], log: Path | None) -> list[Path]:
    """The logs and the one of ``--log``, as far as they exist."""
    return sorted({path for path in (*logs, *([log] if log else [])) if path.is_file()})


def _holds_songs(path: Path) -> bool:
    """Whether a path leads to a folder or a playlist; not if it cannot be opened."""
    is_folder = os.path.isdir(path)  # noqa: PTH112 (no errors)
    return is_folder or path.suffix.lower() in PLAYLISTS


def _logged_source(source: Path | str) -> str:
    return public_url(source) if isinstance(source, str) else os.path.abspath(source)  # noqa: PTH100
