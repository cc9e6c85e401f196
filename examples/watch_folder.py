"""Separate whatever is dropped into a folder.

    python examples/watch_folder.py inbox/ stems/

A song is taken when nothing has been written to it between two looks, so that copies and downloads
are complete; if it changes later it is taken again. Songs whose stems are there are left alone. A
bad file is told of once and stops nothing. Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import unetsep
from unetsep.audio.decoder import AUDIO_SUFFIXES

# Bytes, and the time of the last change: some copiers make room for the whole file at first.
State = tuple[int, int]


def states(folder: Path) -> Iterator[tuple[Path, State]]:
    """Audio files of a folder and those below it."""
    for parent, _, names in os.walk(folder):  # folders that vanish meanwhile are no error
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.suffix.lower() in AUDIO_SUFFIXES:
                with contextlib.suppress(OSError):  # it vanished, or is a link to nothing yet
                    status = path.stat()
                    yield path, (status.st_size, status.st_mtime_ns)


class Watcher:
    """Looks into a folder again and again, and separates what is new.

    Parameters
    ----------
    inbox, stems
        Folders; that of the stems must not lie in the inbox.
    separator
        The model, loaded once.
    tell
        Called with a line for each song.

    Raises
    ------
    ValueError
        If there is no inbox, or the stems lie in it.
    """

    def __init__(
        self,
        inbox: Path,
        stems: Path,
        separator: unetsep.Separator,
        tell: Callable[[str], None] = print,
    ) -> None:
        if not inbox.is_dir():
            raise ValueError(f"{inbox} is no folder: name the one that songs are dropped into")
        if stems.resolve().is_relative_to(inbox.resolve()):
            raise ValueError(f"{stems} lies in {inbox}: its stems would be separated again")
        self.inbox, self.stems, self.separator, self.tell = inbox, stems, separator, tell
        self._states: dict[Path, State] = {}
        self._done: dict[Path, State] = {}
        self._made: set[Path] = set()  # those that have stems
        self._there = True

    def look(self) -> None:
        """Separate the songs that are what they were at the last look."""
        there = self.inbox.is_dir()
        if self._there and not there:
            self.tell(f"{self.inbox} is gone; waiting for it")
        before, self._there = self._states, there
        self._states = dict(sorted(states(self.inbox)))
        for path, state in self._states.items():
            ripe = before.get(path) == state != self._done.get(path)
            if ripe and self._separate(path, path in self._done):
                self._done[path] = state

    def _separate(self, path: Path, changed: bool) -> bool:
        """Whether the song needs no other look as long as it stays what it is."""
        target = self.stems / path.parent.relative_to(self.inbox)
        twins = (each for each in self._made if each.with_suffix("") == path.with_suffix(""))
        twin = next((each for each in twins if each != path and each.exists()), None)
        if twin is not None:  # stems would be those of the one or the other
            self.tell(f"{path.name}: has the name of {twin.name}, whose stems are there: rename it")
            return True
        try:
            report = unetsep.separate_to_files(
                path, target, model=self.separator, skip_existing=True, overwrite=changed
            )
        except unetsep.UnetsepError as error:
            self.tell(f"{path.name}: {error}")
        else:
            if not report.stems:  # another run is working on it, and may never finish
                return False
            self._made.add(path)
            if report.status == "ok":
                self.tell(f"{path.name}: {', '.join(report.stems)} in {report.elapsed:.1f} s")
        return True


def main() -> None:
    """Watch until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inbox", type=Path)
    parser.add_argument("stems", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--seconds", type=float, default=5.0, help="between two looks")
    options = parser.parse_args()
    try:
        watcher = Watcher(options.inbox, options.stems, unetsep.Separator(options.model))
    except (ValueError, unetsep.UnetsepError) as error:
        parser.error(str(error))
    if not 0 <= options.seconds <= 86_400:
        parser.error(f"--seconds must be 0 to 86400, got {options.seconds:g}")
    print(f"Watching {options.inbox}; Ctrl-C ends it.")
    try:
        while True:
            watcher.look()
            time.sleep(options.seconds)
    except KeyboardInterrupt:
        print("Done.")


if __name__ == "__main__":
    main()
